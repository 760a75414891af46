//! Promotion and fencing.

use std::time::Duration;

use journal::Class;
use node::control::Level;
use node::{Options, RoleName, State};

use crate::support::{LONG, class, primary, receiver, start, until};

const SHORT: Duration = Duration::from_millis(300);

#[test]
fn a_promotion_keeps_everything_received_and_opens_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let b = start(receiver(dir.path(), "b", None));
    let a = start(primary(dir.path(), "a", [b.peer().semi_sync()]));
    let last = a.append(Level::Received, LONG, &["one", "two", "three"]).expect("acknowledged").lsn;
    a.stop();
    let promoted = b.promote(false).expect("promoted");
    assert_eq!((promoted.term, promoted.alone), (2, true));
    assert!(promoted.end >= last, "{promoted:?}");
    assert!(promoted.loss.iter().any(|line| line.contains("lost 0")), "{promoted:?}");
    assert_eq!(b.records(), ["one", "two", "three"]);
    let acked = b.append(Level::Committed, LONG, &["four"]).expect("acknowledged");
    assert_eq!((acked.term, acked.run, acked.alone), (2, 1, true));
    // it stays the primary, and alone, across a restart
    b.stop();
    let b = start(Options::new(dir.path().join("b")));
    let acked = b.append(Level::Committed, LONG, &["five"]).expect("acknowledged");
    assert_eq!((acked.term, acked.run, acked.alone), (2, 2, true));
    assert_eq!(b.records(), ["one", "two", "three", "four", "five"]);
}

#[test]
fn the_old_primary_is_fenced_at_once_and_stays_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let b = start(receiver(dir.path(), "b", None));
    let a = start(primary(dir.path(), "a", [b.peer()]));
    a.append(Level::PeerDurable, LONG, &["one"]).expect("acknowledged");
    b.promote(false).expect("promoted");
    let status = a.wait_state(State::Fenced);
    assert_eq!((status.role, status.term), (RoleName::Fenced, 2));
    for level in Level::ALL {
        assert_eq!(class(a.append(level, SHORT, &["late"])), Class::Fenced);
    }
    let address = b.address();
    b.append(Level::Committed, LONG, &["two"]).expect("acknowledged");
    a.stop();
    // with the very command line that made it the primary once
    let a = start(primary(dir.path(), "a", [node::PeerOptions::at(&address)]));
    assert_eq!(a.stream().state, State::Fenced);
    assert_eq!(class(a.append(Level::Written, SHORT, &["late"])), Class::Fenced);
    assert_eq!(a.records(), ["one"]);
    assert_eq!(b.records(), ["one", "two"]);
}

#[test]
fn a_restart_never_outranks_a_promotion() {
    let dir = tempfile::tempdir().expect("a folder");
    let b = start(receiver(dir.path(), "b", None));
    let peer = b.peer();
    let a = start(primary(dir.path(), "a", [peer.clone()]));
    a.append(Level::PeerDurable, LONG, &["one"]).expect("acknowledged");
    a.stop();
    b.promote(false).expect("promoted");
    b.append(Level::Committed, LONG, &["two"]).expect("acknowledged");
    // it was not there when that happened
    let a = start(primary(dir.path(), "a", [peer]));
    assert_eq!(class(a.append(Level::Written, LONG, &["late"])), Class::Fenced);
    assert_eq!(a.wait_state(State::Fenced).term, 2);
    assert_eq!((a.records(), b.records()), (vec!["one".into()], vec!["one".to_owned(), "two".into()]));
    assert_eq!(b.stream().state, State::Alone);
}

#[test]
fn a_promotion_that_may_lose_needs_the_word() {
    let dir = tempfile::tempdir().expect("a folder");
    let b = start(receiver(dir.path(), "b", None));
    let a = start(primary(dir.path(), "a", [b.peer()]));
    a.append(Level::PeerDurable, LONG, &["one"]).expect("acknowledged");
    a.stop();
    b.stop();
    // as if the machine had been started anew since
    let settled = dir.path().join("b/streams/log/settled");
    std::fs::write(&settled, "00000000-0000-0000-0000-00000000b007\n").expect("written");
    let b = start(receiver(dir.path(), "b", None));
    assert!(b.stream().in_doubt);
    let failure = b.promote(false).expect_err("in doubt");
    assert_eq!(failure.class(), Class::Refused);
    assert!(failure.hint.is_some_and(|hint| hint.contains("--accept-loss")));
    assert_eq!(b.stream().role, RoleName::Receiver);
    let promoted = b.promote(true).expect("promoted");
    assert!(promoted.loss.iter().any(|line| line.contains("in doubt")), "{promoted:?}");
    assert_eq!(b.records(), ["one"]);
}

#[test]
fn the_doubt_ends_when_the_primary_is_met() {
    let dir = tempfile::tempdir().expect("a folder");
    let b = start(receiver(dir.path(), "b", None));
    let address = b.address();
    let a = start(primary(dir.path(), "a", [b.peer()]));
    a.append(Level::PeerDurable, LONG, &["one"]).expect("acknowledged");
    b.stop();
    let settled = dir.path().join("b/streams/log/settled");
    std::fs::write(&settled, "00000000-0000-0000-0000-00000000b007\n").expect("written");
    let b = start(receiver(dir.path(), "b", Some(&address)));
    a.append(Level::PeerDurable, LONG, &["two"]).expect("acknowledged");
    assert!(!b.stream().in_doubt);
    assert_ne!(std::fs::read_to_string(&settled).expect("read").trim(), "00000000-0000-0000-0000-00000000b007");
}

/// A receiver lost all that it had: its log was empty again. That was taken for a log that never held anything, so it was
/// not in doubt, and as soon as its primary had sent it the first entries once more it could have been promoted without
/// the word, although most of what it had acknowledged was missing.
#[test]
fn a_receiver_that_lost_everything_is_in_doubt_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let b = start(receiver(dir.path(), "b", None));
    let address = b.address();
    let a = start(primary(dir.path(), "a", [b.peer().semi_sync()]));
    a.wait(node::control::Until::Connected);
    b.stop();
    let settled = dir.path().join("b/streams/log/settled");
    std::fs::write(&settled, "00000000-0000-0000-0000-00000000b007\n").expect("written");
    let b = start(receiver(dir.path(), "b", None));
    assert_eq!((b.stream().at.written, b.stream().in_doubt), (0, true));
    b.stop();
    let b = start(receiver(dir.path(), "b", Some(&address)));
    a.append(Level::Received, LONG, &["one"]).expect("acknowledged");
    assert!(!b.stream().in_doubt);
}

#[test]
fn a_fenced_node_is_promoted_only_with_the_word_and_fences_the_other() {
    let dir = tempfile::tempdir().expect("a folder");
    let b = start(receiver(dir.path(), "b", None));
    let a = start(primary(dir.path(), "a", [b.peer()]));
    a.append(Level::PeerDurable, LONG, &["one"]).expect("acknowledged");
    b.promote(false).expect("promoted");
    a.wait_state(State::Fenced);
    a.stop();
    let a = start(primary(dir.path(), "a", [b.peer()]));
    assert_eq!(class(a.promote(false)), Class::Refused);
    let promoted = a.promote(true).expect("promoted");
    assert_eq!((promoted.term, promoted.alone), (3, true));
    b.wait_state(State::Fenced);
    assert_eq!(class(b.append(Level::Written, SHORT, &["late"])), Class::Fenced);
    a.append(Level::Durable, LONG, &["two"]).expect("acknowledged");
}

/// Members that know each other: the promoted one dials the old primary, which learns of the higher term by that.
#[test]
fn a_promoted_member_tells_the_old_primary_by_itself() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut b = receiver(dir.path(), "b", None);
    let address = start(b.clone()).address();
    b.listen = Some(address.clone());
    let a = start(primary(dir.path(), "a", [node::PeerOptions::at(&address).asynchronous()]));
    let mut stream = node::StreamOptions::new(crate::support::STREAM, node::FirstRole::Receiver);
    stream.peers = vec![a.peer()];
    b.streams = vec![stream];
    let b = start(b);
    a.append(Level::Durable, LONG, &["one"]).expect("acknowledged");
    a.wait(node::control::Until::InSync);
    let promoted = b.promote(false).expect("promoted");
    assert!(promoted.loss.iter().any(|line| line.contains("asynchronous")), "{promoted:?}");
    a.wait_state(State::Fenced);
    assert_eq!(b.records(), ["one"]);
    assert!(b.append(Level::Committed, LONG, &["two"]).expect("acknowledged").alone);
}

/// Entries of the old primary are under way when the promotion begins: each is either kept whole or not there, and none
/// comes in behind the first entry of the new term.
#[test]
fn a_promotion_under_load_keeps_a_prefix_and_nothing_slips_in_behind_it() {
    for round in 0..4 {
        let dir = tempfile::tempdir().expect("a folder");
        let b = start(receiver(dir.path(), "b", None));
        let a = start(primary(dir.path(), "a", [b.peer().semi_sync()]));
        let first = a.append(Level::Received, LONG, &["first"]).expect("acknowledged").lsn;
        let (acked, promoted) = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut acked = first;
                for number in 0.. {
                    let records: Vec<String> = (0..100).map(|at| format!("{number} {at}")).collect();
                    let records: Vec<&str> = records.iter().map(String::as_str).collect();
                    match a.append(Level::Received, LONG, &records) {
                        Ok(group) => acked = group.lsn,
                        Err(failure) => {
                            assert_eq!(failure.class(), Class::Fenced, "{failure}");
                            break;
                        }
                    }
                }
                acked
            });
            until(|| a.stream().at.written > first + 50_000 * (round + 1));
            let promoted = b.promote(false).expect("promoted");
            (writer.join().expect("no panic"), promoted)
        });
        assert!(promoted.end >= acked, "acknowledged up to {acked}, kept up to {}", promoted.end);
        b.append(Level::Committed, LONG, &["after"]).expect("acknowledged");
        let (old, new) = (a.records(), b.records());
        let kept = &new[..new.len() - 1];
        assert!(old.starts_with(kept), "{} kept of {}", kept.len(), old.len());
        assert_eq!(new.last().map(String::as_str), Some("after"));
    }
}

#[test]
fn a_promotion_may_wait_for_its_peer() {
    let dir = tempfile::tempdir().expect("a folder");
    let c = start(receiver(dir.path(), "c", None));
    let (address, peer) = (c.address(), c.peer());
    c.stop();
    let mut b = receiver(dir.path(), "b", None);
    let mut stream = node::StreamOptions::new(crate::support::STREAM, node::FirstRole::Receiver);
    stream.peers = vec![peer];
    b.streams = vec![stream];
    let b = start(b);
    let a = start(primary(dir.path(), "a", [b.peer()]));
    a.append(Level::PeerDurable, LONG, &["one"]).expect("acknowledged");
    let promoted = b.promote_and_wait().expect("promoted");
    assert_eq!((promoted.term, promoted.alone), (2, false));
    a.wait_state(State::Fenced);
    assert_eq!(b.stream().state, State::Waiting);
    assert_eq!(class(b.append(Level::Written, SHORT, &["early"])), Class::Unknown);
    let c = start(receiver(dir.path(), "c", Some(&address)));
    let acked = b.append(Level::PeerDurable, LONG, &["two"]).expect("acknowledged");
    assert_eq!((acked.term, acked.alone), (2, false));
    assert_eq!(c.records(), ["one", "two"]);
}

#[test]
fn there_must_be_a_peer_to_wait_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let b = start(receiver(dir.path(), "b", None));
    let a = start(primary(dir.path(), "a", [b.peer()]));
    a.append(Level::PeerDurable, LONG, &["one"]).expect("acknowledged");
    assert_eq!(class(b.promote_and_wait()), Class::Usage);
    a.append(Level::PeerDurable, LONG, &["two"]).expect("nothing has changed");
}

/// The machine stopped after the term was durable and before anything was written in it.
#[test]
fn a_promotion_that_was_cut_short_goes_on_at_the_next_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let b = start(receiver(dir.path(), "b", None));
    let peer = b.peer();
    let mut options = receiver(dir.path(), "b", Some(&b.address()));
    let a = start(primary(dir.path(), "a", [peer]));
    a.append(Level::PeerDurable, LONG, &["one"]).expect("acknowledged");
    a.stop();
    b.stop();
    let journal = dir.path().join("b/streams").join(crate::support::STREAM).join("journal");
    let journal = journal::Journal::open(&journal, Default::default()).expect("a journal");
    journal.see_term(journal::TermSeen { term: journal::Term(2), id: 7 }).expect("seen");
    journal.set_role(journal::Role::Primary).expect("set");
    journal.close().expect("closed");
    options.name = None;
    let b = start(options);
    let acked = b.append(Level::Committed, LONG, &["two"]).expect("acknowledged");
    assert_eq!((acked.term, acked.run, acked.alone), (2, 1, true));
    assert_eq!(b.stream().destinations, [], "it doesn't take itself for its peer");
    assert_eq!(b.records(), ["one", "two"]);
}
