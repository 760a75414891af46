//! A primary and a receiver: levels, loss, return.

use std::time::Duration;

use journal::{Class, Lsn};
use node::State;
use node::control::{Level, Until};
use shipper::OnLoss;
use volume::records::RecordFile;

use crate::support::{LONG, STREAM, class, primary, receiver, start, until};

const SHORT: Duration = Duration::from_millis(300);

#[test]
fn every_level_is_reached_in_every_mode() {
    for mode in ["sync", "semi-sync", "async"] {
        let dir = tempfile::tempdir().expect("a folder");
        let b = start(receiver(dir.path(), "b", None));
        let peer = match mode {
            "sync" => b.peer().sync(),
            "semi-sync" => b.peer().semi_sync(),
            _ => b.peer().asynchronous(),
        };
        let a = start(primary(dir.path(), "a", [peer]));
        for level in Level::ALL {
            if mode == "async" && matches!(level, Level::Received | Level::PeerDurable) {
                continue;
            }
            let acked = a.append(level, LONG, &[level.name()]).expect("acknowledged");
            let expected = match (level, mode) {
                (Level::Committed, "sync") => Level::PeerDurable,
                // at least; a fast peer may have synced already
                (Level::Committed, "semi-sync") => acked.level.max(Level::Received),
                (Level::Committed, _) => acked.level.max(Level::Durable),
                (level, _) => level,
            };
            assert_eq!((acked.level, acked.alone), (expected, false), "{mode}");
        }
        a.wait(Until::InSync);
        assert_eq!(a.records(), b.records(), "{mode}");
        let status = a.stream();
        assert_eq!(status.state, State::Open);
        assert_eq!(status.destinations.len(), 1);
        until(|| b.stream().at.applied == Some(a.stream().at.committed));
        assert_eq!(b.wait_state(State::Following).source.and_then(|source| source.name), Some("a".into()));
    }
}

#[test]
fn the_replica_holds_what_was_committed() {
    let dir = tempfile::tempdir().expect("a folder");
    let b = start(receiver(dir.path(), "b", None));
    let a = start(primary(dir.path(), "a", [b.peer()]));
    let records: Vec<String> = (0..500).map(|number| format!("record {number}")).collect();
    let slices: Vec<&str> = records.iter().map(String::as_str).collect();
    a.append(Level::PeerDurable, LONG, &slices).expect("acknowledged");
    until(|| b.stream().at.applied == Some(a.stream().at.written));
    a.stop();
    b.stop();
    let file = RecordFile::open(&dir.path().join("b/streams").join(STREAM).join("records")).expect("a record file");
    let mut walk = file.walk(Lsn::ZERO).expect("a walk");
    for record in &records {
        let found = walk.next_record().expect("no error").expect("a record");
        assert_eq!(found.payload, record.as_bytes());
    }
    assert!(walk.next_record().expect("no error").is_none());
}

#[test]
fn a_lost_peer_blocks_and_its_return_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let b = start(receiver(dir.path(), "b", None));
    let address = b.address();
    let a = start(primary(dir.path(), "a", [b.peer()]));
    a.append(Level::PeerDurable, LONG, &["one"]).expect("acknowledged");
    b.stop();
    let failure = a.append(Level::PeerDurable, SHORT, &["two"]).expect_err("the peer is gone");
    assert_eq!(failure.class(), Class::Unknown);
    let unknown = failure.lsn.expect("a position to ask by");
    assert_eq!(a.wait_state(State::Blocked).mode_in_force, None);
    // own durable is no question of the peer
    a.append(Level::Durable, LONG, &["three"]).expect("acknowledged");
    let b = start(receiver(dir.path(), "b", Some(&address)));
    let acked = a.append(Level::PeerDurable, LONG, &["four"]).expect("acknowledged");
    assert!(acked.lsn > unknown, "what was unknown is there by now");
    assert_eq!(b.records(), ["one", "two", "three", "four"]);
}

#[test]
fn going_on_alone_is_stamped_and_ends_with_the_return() {
    let dir = tempfile::tempdir().expect("a folder");
    let b = start(receiver(dir.path(), "b", None));
    let address = b.address();
    let alone = OnLoss::Alone { after: Duration::from_millis(100) };
    let a = start(primary(dir.path(), "a", [b.peer().on_loss(alone)]));
    assert!(!a.append(Level::Committed, LONG, &["one"]).expect("acknowledged").alone);
    b.stop();
    let acked = a.append(Level::Committed, LONG, &["two"]).expect("acknowledged");
    assert!(acked.alone);
    assert_eq!(class(a.append(Level::PeerDurable, SHORT, &["three"])), Class::Unknown);
    assert_eq!(a.wait_state(State::Alone).name, STREAM);
    let b = start(receiver(dir.path(), "b", Some(&address)));
    a.wait_state(State::Open);
    assert!(!a.append(Level::PeerDurable, LONG, &["four"]).expect("acknowledged").alone);
    assert_eq!(b.records(), ["one", "two", "three", "four"]);
}

/// Two peers that promise something: while one is away the other still keeps its promise, and status says which.
#[test]
fn going_on_without_one_of_two_peers_still_waits_for_the_other() {
    let dir = tempfile::tempdir().expect("a folder");
    let (b, c) = (start(receiver(dir.path(), "b", None)), start(receiver(dir.path(), "c", None)));
    let alone = OnLoss::Alone { after: Duration::from_millis(100) };
    let peers = [b.peer().name("b"), c.peer().name("c").semi_sync().on_loss(alone)];
    let a = start(primary(dir.path(), "a", peers));
    assert!(!a.append(Level::PeerDurable, LONG, &["one"]).expect("acknowledged").alone);
    c.stop();
    assert!(a.append(Level::Committed, LONG, &["two"]).expect("acknowledged").alone);
    let in_force = a.wait_state(State::Alone).mode_in_force.expect("something is acknowledged");
    assert!(in_force.contains("sync with b") && !in_force.contains("with c"), "{in_force}");
    assert_eq!(b.records(), ["one", "two"]);
    b.stop();
    assert_eq!(class(a.append(Level::Committed, SHORT, &["three"])), Class::Unknown, "b is waited for");
}

#[test]
fn failing_answers_unknown_without_a_timeout_of_the_client() {
    let dir = tempfile::tempdir().expect("a folder");
    let b = start(receiver(dir.path(), "b", None));
    let fail = OnLoss::Fail { after: Duration::from_millis(100) };
    let a = start(primary(dir.path(), "a", [b.peer().on_loss(fail)]));
    a.append(Level::Committed, LONG, &["one"]).expect("acknowledged");
    b.stop();
    let failure = a.append(Level::Committed, Duration::from_secs(3600), &["two"]).expect_err("the peer is gone");
    assert_eq!(failure.class(), Class::Unknown, "{failure}");
}

#[test]
fn many_appenders_at_once_lose_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let b = start(receiver(dir.path(), "b", None));
    let a = start(primary(dir.path(), "a", [b.peer()]));
    let (writers, each) = (8, 100);
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let a = &a;
            scope.spawn(move || {
                for number in (0..each).step_by(10) {
                    let records: Vec<String> = (number..number + 10).map(|at| format!("{writer} {at}")).collect();
                    let slices: Vec<&str> = records.iter().map(String::as_str).collect();
                    a.append(Level::PeerDurable, LONG, &slices).expect("acknowledged");
                }
            });
        }
    });
    let records = a.records();
    assert_eq!(records.len(), writers * each);
    for writer in 0..writers {
        let mine: Vec<_> = records.iter().filter(|record| record.starts_with(&format!("{writer} "))).collect();
        let expected: Vec<String> = (0..each).map(|at| format!("{writer} {at}")).collect();
        assert!(mine.into_iter().eq(&expected), "in the order of their writer");
    }
    assert_eq!(records, b.records());
}
