//! The start gate: nothing is acknowledged before the required peers were met.

use std::time::Duration;

use journal::Class;
use node::State;
use node::control::Level;

use crate::support::{LONG, class, primary, receiver, start};

const SHORT: Duration = Duration::from_millis(300);

#[test]
fn a_primary_against_no_peer_acknowledges_nothing_and_says_what_it_waits_for() {
    let dir = tempfile::tempdir().expect("a folder");
    // a port that nobody listens at any more
    let address = start(receiver(dir.path(), "b", None)).address();
    let a = start(primary(dir.path(), "a", [node::PeerOptions::at(&address).name("b")]));
    for level in Level::ALL {
        let failure = a.append(level, SHORT, &["x"]).expect_err("nobody was met");
        assert_eq!(failure.class(), Class::Unknown, "{failure}");
        assert!(failure.message.contains(&address), "{failure}");
    }
    let status = a.stream();
    assert_eq!((status.state, status.run, status.at.written), (State::Waiting, None, 0));
    assert!(status.waits_for.iter().any(|waits| waits.contains("b") && waits.contains(&address)), "{status}");
    assert!(status.next_step.is_some_and(|step| step.contains("promote")));
    assert_eq!(status.mode_in_force, None);
}

#[test]
fn it_opens_as_soon_as_the_peer_is_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let b = start(receiver(dir.path(), "b", None));
    let address = b.address();
    b.stop();
    let a = start(primary(dir.path(), "a", [node::PeerOptions::at(&address)]));
    std::thread::scope(|scope| {
        let appended = scope.spawn(|| a.append(Level::PeerDurable, LONG, &["waited"]));
        let b = start(receiver(dir.path(), "b", Some(&address)));
        assert_eq!(appended.join().expect("no panic").expect("acknowledged").count, 1);
        assert_eq!(b.records(), ["waited"]);
    });
}

#[test]
fn an_asynchronous_peer_is_not_waited_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let address = start(receiver(dir.path(), "b", None)).address();
    let a = start(primary(dir.path(), "a", [node::PeerOptions::at(&address).asynchronous()]));
    let acked = a.append(Level::Committed, LONG, &["x"]).expect("acknowledged");
    assert!(!acked.alone);
    // it promises nothing, so nothing can be waited for
    assert_eq!(class(a.append(Level::PeerDurable, LONG, &["x"])), Class::Usage);
}

/// Whoever starts the primary and says nothing of peers must not get past the gate by that.
#[test]
fn a_start_without_options_asks_the_peers_of_the_policy() {
    let dir = tempfile::tempdir().expect("a folder");
    let b = start(receiver(dir.path(), "b", None));
    let a = start(primary(dir.path(), "a", [b.peer()]));
    a.append(Level::PeerDurable, LONG, &["x"]).expect("acknowledged");
    let address = b.address();
    a.stop();
    b.stop();
    let a = start(primary(dir.path(), "a", []));
    assert_eq!(class(a.append(Level::Durable, SHORT, &["y"])), Class::Unknown);
    let _b = start(receiver(dir.path(), "b", Some(&address)));
    a.append(Level::PeerDurable, LONG, &["z"]).expect("acknowledged");
    assert_eq!(a.records(), ["x", "z"]);
}

#[test]
fn the_way_on_without_the_peer_is_a_promotion_that_accepts_loss() {
    let dir = tempfile::tempdir().expect("a folder");
    let address = start(receiver(dir.path(), "b", None)).address();
    let a = start(primary(dir.path(), "a", [node::PeerOptions::at(&address)]));
    assert_eq!(class(a.promote(false)), Class::Refused);
    let promoted = a.promote(true).expect("promoted");
    assert!(promoted.alone && promoted.term >= 1, "{promoted:?}");
    let acked = a.append(Level::Committed, LONG, &["alone"]).expect("acknowledged");
    assert!(acked.alone, "what is acknowledged without the peer says so");
    assert_eq!(a.stream().state, State::Alone);
    assert_eq!(class(a.promote(true)), Class::Refused);
    // the peer comes back, catches up and counts again
    let b = start(receiver(dir.path(), "b", Some(&address)));
    a.wait_state(State::Open);
    let acked = a.append(Level::PeerDurable, LONG, &["together"]).expect("acknowledged");
    assert!(!acked.alone);
    assert_eq!(b.records(), ["alone", "together"]);
}
