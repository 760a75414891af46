//! Logs that don't simply continue each other: a primary that lost its tail, a third node that changes its primary.

use std::path::Path;

use journal::{Item, Journal, Reason, RunOpening};
use node::control::{Level, Until};
use node::{FirstRole, PeerOptions, State, StreamOptions};

use crate::support::{LONG, STREAM, primary, receiver, start};

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-r").arg(from).arg(to).status();
    assert!(copied.expect("cp").success());
}

/// As after a power cut of the primary: what it had not synced is gone there, and the peer has it.
#[test]
fn what_the_primary_lost_is_taken_back_before_it_opens() {
    let dir = tempfile::tempdir().expect("a folder");
    let b = start(receiver(dir.path(), "b", None));
    let options = primary(dir.path(), "a", [b.peer().semi_sync()]);
    let a = start(options.clone());
    a.append(Level::Received, LONG, &["one"]).expect("acknowledged");
    a.stop();
    let (folder, older) = (dir.path().join("a"), dir.path().join("older"));
    copy(&folder, &older);
    // another run of it, so that the lost tail even holds the beginning of one
    let a = start(options.clone());
    a.append(Level::Received, LONG, &["two", "three"]).expect("acknowledged");
    a.stop();
    std::fs::remove_dir_all(&folder).expect("removed");
    std::fs::rename(&older, &folder).expect("renamed");
    let a = start(options);
    let acked = a.append(Level::PeerDurable, LONG, &["four"]).expect("acknowledged");
    assert_eq!((acked.term, acked.run), (1, 3), "the lost run is known again");
    assert_eq!(a.records(), ["one", "two", "three", "four"]);
    assert_eq!(a.records(), b.records());
}

/// A peer was away while its primary was restarted every hour for more than two years: a greeting doesn't name that many
/// runs, and the chain says where the peer is.
#[test]
fn a_peer_that_missed_more_runs_than_a_greeting_names_catches_up() {
    // every run costs syncs; there they cost nothing
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a folder");
    let mut b = receiver(dir.path(), "b", None);
    let b_running = start(b.clone());
    b.listen = Some(b_running.address());
    let options = primary(dir.path(), "a", [b_running.peer()]);
    let a = start(options.clone());
    let first = a.append(Level::PeerDurable, LONG, &["first"]).expect("acknowledged");
    a.stop();
    b_running.stop();
    let folder = dir.path().join("a/streams").join(STREAM).join("journal");
    let journal = Journal::open(&folder, journal::Options::default()).expect("opens");
    let runs = wire::GREETING_OPENINGS_MAX + 1_000;
    for _ in 0..runs {
        let opening = RunOpening { promote: None, reason: Reason::Started, policy: b"{}".to_vec() };
        journal.open_run(opening).expect("a run");
        journal.append(Item::record(&[b"again"])).expect("appended");
    }
    journal.close().expect("closed");
    let b = start(b);
    let a = start(options);
    let last = a.append(Level::PeerDurable, LONG, &["last"]).expect("acknowledged");
    assert_eq!(last.run as usize, first.run as usize + runs + 1);
    let records = b.records();
    assert_eq!((records.len(), records[0].as_str(), records[runs + 1].as_str()), (runs + 2, "first", "last"));
    // both sides have met, and from now on name nearly the same runs
    a.stop();
    let a = start(primary(dir.path(), "a", [b.peer()]));
    a.append(Level::PeerDurable, LONG, &["met"]).expect("acknowledged");
    assert_eq!(b.records().len(), runs + 3);
    let branches = dir.path().join("b/streams").join(STREAM).join("journal/branches");
    assert!(!branches.exists(), "nothing was cut");
}

/// The asynchronous third node is ahead of the promoted one: it cuts what nobody acknowledged with it, and follows.
#[test]
fn a_third_node_follows_the_promoted_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let c = start(receiver(dir.path(), "c", None));
    let mut b = receiver(dir.path(), "b", None);
    let mut stream = StreamOptions::new(STREAM, FirstRole::Receiver);
    stream.peers = vec![c.peer().semi_sync()];
    b.streams = vec![stream];
    let b = start(b);
    let a = start(primary(dir.path(), "a", [b.peer(), c.peer().asynchronous()]));
    a.append(Level::PeerDurable, LONG, &["one", "two"]).expect("acknowledged");
    a.wait(Until::InSync);
    a.stop();
    b.promote(false).expect("promoted");
    assert!(b.append(Level::Durable, LONG, &["three"]).is_ok());
    b.wait_state(State::Open);
    let acked = b.append(Level::PeerDurable, LONG, &["four"]).expect("acknowledged");
    assert_eq!((acked.term, acked.alone), (2, false));
    assert_eq!(c.records(), ["one", "two", "three", "four"]);
    assert_eq!(c.stream().source.and_then(|source| source.name), Some("b".into()));
}

/// Only what the third node alone had received is cut, and it is kept as a branch.
#[test]
fn a_tail_that_only_the_third_node_had_is_cut_and_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let c = start(receiver(dir.path(), "c", None));
    let mut b = receiver(dir.path(), "b", None);
    let mut stream = StreamOptions::new(STREAM, FirstRole::Receiver);
    stream.peers = vec![c.peer()];
    b.streams = vec![stream];
    let b_running = start(b.clone());
    b.listen = Some(b_running.address());
    let peers = [b_running.peer(), PeerOptions::at(c.address()).asynchronous()];
    let a = start(primary(dir.path(), "a", peers));
    a.append(Level::PeerDurable, LONG, &["one"]).expect("acknowledged");
    a.wait(Until::InSync);
    b_running.stop();
    // durable at the primary, received by the third node, never committed
    let tail = a.append(Level::Durable, LONG, &["never committed"]).expect("acknowledged").lsn;
    crate::support::until(|| c.stream().at.written == tail);
    a.stop();
    let b = start(b);
    b.promote(false).expect("promoted");
    b.append(Level::PeerDurable, LONG, &["two"]).expect("acknowledged");
    assert_eq!(c.records(), ["one", "two"]);
    let branches = dir.path().join("c/streams").join(STREAM).join("journal/branches");
    assert_eq!(std::fs::read_dir(branches).expect("branches").count(), 1);
}
