//! What goes wrong on a side: higher terms, failed and stalled syncs, full disks.

use std::time::Duration;

use journal::{Class, Journal, Level, Lsn, NodeId, Options, Retain, Role, Term, TermSeen, WaitError};
use shipper::{Event, Loss, PeerState};
use wire::{Ack, Announce, Dialogue, Message, Mode, Refusal};

use super::intruders::{session, source};
use super::sides::*;

const LONG: Duration = HANGS_AFTER;
const HIGHER: TermSeen = TermSeen { term: Term(9), id: 99 };

#[test]
fn a_receiver_that_knows_a_higher_term_fences_the_primary() {
    let (a, b) = (Side::new(1), Side::new(2));
    let receiving = Receiving::start(b.create(Role::Receiver), PLAIN);
    receiving.stream.retire("the primary", HIGHER);
    let primary = Shipping::start(a.create(Role::Primary), PLAIN, vec![target(Mode::Sync, receiving.address())]);
    until("it is fenced", || primary.journal.role() == Role::Fenced);
    assert_eq!(primary.journal.term_seen(), HIGHER);
    assert!(!primary.links.wait_open(LONG), "nobody waits for a gate that never opens");
    until("it is told", || primary.events.lock().unwrap().contains(&Event::Fenced(HIGHER)));
    assert_eq!(primary.state(), PeerState::Fenced { by: HIGHER });
}

/// The same in the middle of a stream: what waits is answered, nothing is acknowledged any more.
#[test]
fn a_promotion_on_the_other_side_ends_every_wait() {
    let (a, b) = (Side::new(1), Side::new(2));
    let receiving = Receiving::start(b.create(Role::Receiver), PLAIN);
    let primary = Shipping::start(a.create(Role::Primary), PLAIN, vec![target(Mode::Sync, receiving.address())]);
    primary.open();
    primary.append(b"both").wait(Level::Committed, LONG).unwrap();
    b.disk.order(Order::Hold);
    let ticket = primary.append(b"never acknowledged");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ticket.wait(Level::Committed, LONG));
        until("it arrives", || receiving.stream.journal().board().written() == ticket.lsn());
        b.disk.order(Order::Work);
        let committed = waiting.join().unwrap();
        assert!(committed.is_ok(), "{committed:?}");
    });
    receiving.stream.retire("the primary", HIGHER);
    until("it is fenced", || primary.journal.role() == Role::Fenced);
    let error = ticket.wait(Level::PeerDurable, Duration::ZERO).unwrap_err();
    assert_eq!(error, WaitError::Fenced { by: HIGHER.term });
}

/// A node that is primary itself learns of the higher term from the newer primary's greeting.
#[test]
fn an_old_primary_is_fenced_by_the_greeting_of_a_newer_one() {
    let (a, b) = (Side::new(1), Side::new(2));
    let old = b.create(Role::Primary);
    let receiving = Receiving::start(old, PLAIN);
    let journal = a.create(Role::Primary);
    journal.see_term(HIGHER).unwrap();
    let primary = Shipping::start(journal, PLAIN, vec![target(Mode::Sync, receiving.address())]);
    until("it is fenced", || receiving.stream.journal().role() == Role::Fenced);
    assert_eq!(receiving.stream.journal().term_seen(), HIGHER);
    until(
        "and says what it is",
        || matches!(primary.state(), PeerState::Refused(Refusal::NotReceiver { role }) if role == "the primary"),
    );
    assert!(!primary.links.is_open());
}

#[test]
fn a_failed_sync_of_the_receiver_is_told_and_final() {
    let (a, b) = (Side::new(1), Side::new(2));
    let receiving = Receiving::start(b.create(Role::Receiver), PLAIN);
    let primary = Shipping::start(a.create(Role::Primary), PLAIN, vec![target(Mode::Sync, receiving.address())]);
    primary.open();
    let before = primary.append(b"before");
    before.wait(Level::PeerDurable, LONG).unwrap();
    b.disk.order(Order::Fail);
    let ticket = primary.append(b"lost there");
    let told = |state: PeerState| matches!(state, PeerState::Refused(Refusal::Unable { .. }));
    until("the primary is told", || told(primary.state()));
    until("the node is told", || receiving.kept.failed.lock().unwrap().is_some());
    b.disk.order(Order::Work);
    until("it is asked again", || {
        let seen = receiving.stream.status().last_contact;
        until("later", || receiving.stream.status().last_contact > seen);
        true
    });
    assert!(told(primary.state()), "{:?}", primary.state());
    let error = ticket.wait(Level::PeerDurable, Duration::ZERO).unwrap_err();
    assert_eq!(error.class(), Class::Unknown);
    assert!(primary.journal.board().committed() < ticket.lsn());
}

#[test]
fn a_failed_sync_of_the_primary_is_told_and_final() {
    let (a, b) = (Side::new(1), Side::new(2));
    let receiving = Receiving::start(b.create(Role::Receiver), PLAIN);
    let primary = Shipping::start(a.create(Role::Primary), PLAIN, vec![target(Mode::Sync, receiving.address())]);
    primary.open();
    primary.append(b"before").wait(Level::Committed, LONG).unwrap();
    a.disk.order(Order::Fail);
    let ticket = primary.append(b"lost here");
    assert_eq!(ticket.durable().unwrap_err().class(), Class::Io);
    until("it says goodbye", || primary.state() == PeerState::Stopped);
    until("the receiver lets it go", || receiving.stream.status().fed_by.is_none());
    assert!(primary.journal.board().committed() < ticket.lsn());
}

/// Dead and stalled are two states: the peer answers, but its disk doesn't.
#[test]
fn a_sync_that_hangs_is_seen_as_stalled_and_acknowledges_nothing_durable() {
    let (a, b) = (Side::new(1), Side::new(2));
    let dead_after = Duration::from_secs(1);
    let receiving = Receiving::start_with(b.create(Role::Receiver), PLAIN, Duration::from_secs(60));
    let mut peer = target(Mode::Sync, receiving.address());
    peer.peer.dead_after = dead_after;
    let primary = Shipping::start(a.create(Role::Primary), PLAIN, vec![peer]);
    primary.open();
    primary.append(b"before").wait(Level::PeerDurable, LONG).unwrap();
    b.disk.order(Order::Hold);
    let ticket = primary.append(b"in the peer's memory");
    ticket.wait(Level::Received, LONG).unwrap();
    until("it is seen", || matches!(primary.state(), PeerState::Stalled { .. }));
    assert!(matches!(ticket.wait(Level::PeerDurable, Duration::ZERO), Err(WaitError::Unknown { .. })));
    b.disk.order(Order::Work);
    ticket.wait(Level::PeerDurable, LONG).unwrap();
    until("it recovers", || primary.state() == PeerState::InSync);
}

#[test]
fn a_semi_sync_peer_whose_syncs_hang_still_receives() {
    let (a, b) = (Side::new(1), Side::new(2));
    let receiving = Receiving::start(b.create(Role::Receiver), PLAIN);
    let primary = Shipping::start(a.create(Role::Primary), PLAIN, vec![target(Mode::SemiSync, receiving.address())]);
    primary.open();
    primary.append(b"before").wait(Level::PeerDurable, LONG).unwrap();
    b.disk.order(Order::Hold);
    for _ in 0..50 {
        primary.append(b"meanwhile").wait(Level::Received, LONG).unwrap();
    }
    b.disk.order(Order::Work);
    primary.append(b"after").wait(Level::PeerDurable, LONG).unwrap();
}

/// Every receive once took the lock under which the next segment's file is made and synced.
#[test]
fn a_spare_whose_sync_hangs_holds_up_no_acknowledgement_of_what_is_received() {
    let (a, b) = (Side::new(1), Side::new(2));
    let receiving = Receiving::start(b.create(Role::Receiver), PLAIN);
    let primary = Shipping::start(a.create(Role::Primary), PLAIN, vec![target(Mode::SemiSync, receiving.address())]);
    primary.open();
    let send = |bytes: usize| primary.append(&vec![1; bytes]).wait(Level::Received, LONG).unwrap();
    send(10);
    let spares = || std::fs::read_dir(b.path().join("pool")).unwrap().flatten().filter(is_spare).count();
    until("there are spares", || spares() >= 2);
    b.disk.order(Order::HoldPool);
    while primary.journal.board().written().get() < 65 << 10 {
        send(1000);
    }
    until("the next one hangs", || b.disk.holding() > 0);
    for _ in 0..50 {
        send(10);
    }
    b.disk.order(Order::Work);
}

fn is_spare(file: &std::fs::DirEntry) -> bool {
    file.file_name().to_string_lossy().starts_with("spare-")
}

/// A connection's thread once wrote down what was committed. The control file was in the middle of a sync on a disk that
/// hung, and so nothing was received any more. The flush thread writes it down now.
#[test]
fn a_control_file_whose_sync_hangs_holds_up_no_acknowledgement_of_what_is_received() {
    let (a, b) = (Side::new(1), Side::new(2));
    let receiving = Receiving::start(b.create(Role::Receiver), PLAIN);
    let source = source(&a, &[b"one", b"two"]);
    let whole = bytes(&source);
    let first = source.slice(Lsn::ZERO, whole.len() - 1).unwrap().unwrap();
    let (end, whole_end) = (first.range().to, source.board().written());
    let mut dialogue = session(&receiving);
    let send = |dialogue: &mut Dialogue, at: Lsn, bytes: &[u8]| {
        let bytes = bytes.to_vec().into();
        dialogue.send(&Message::Entries { session: 5, at, bytes }).unwrap();
    };
    let acked = |dialogue: &mut Dialogue, done: &dyn Fn(&Ack) -> bool| loop {
        match dialogue.receive(LONG).unwrap() {
            Message::Ack(ack) if done(&ack) => break,
            Message::Ack(_) | Message::Ready(_) | Message::Alive(_) => {}
            other => panic!("{other:?}"),
        }
    };
    send(&mut dialogue, Lsn::ZERO, &first);
    acked(&mut dialogue, &|ack| ack.durable == end);

    b.disk.order(Order::HoldControl);
    until("the control file's sync hangs", || b.disk.holding() > 0);
    let announce = Announce { session: 5, committed: end, ..Announce::default() };
    dialogue.send(&Message::Announce(announce)).unwrap();
    until("it may be applied", || *receiving.kept.applied_to.lock().unwrap() == end);
    send(&mut dialogue, end, &whole[end.get() as usize..]);
    acked(&mut dialogue, &|ack| ack.received == whole_end);
    b.disk.order(Order::Work);
    acked(&mut dialogue, &|ack| ack.durable == whole_end);
    until("it is written down", || receiving.stream.journal().committed() == end);
}

#[test]
fn a_full_disk_of_the_receiver_is_said_and_goes_on_when_space_returns() {
    let (a, b) = (Side::new(1), Side::new(2));
    let receiving = Receiving::start(b.create(Role::Receiver), PLAIN);
    let primary = Shipping::start(a.create(Role::Primary), PLAIN, vec![target(Mode::SemiSync, receiving.address())]);
    primary.open();
    primary.append(b"before").wait(Level::Received, LONG).unwrap();
    b.disk.order(Order::Room(0));
    let mut last = primary.append(b"x");
    for _ in 0..20 {
        last = primary.append(&vec![1; 50_000]);
    }
    until("the primary is told", || match primary.state() {
        PeerState::Refused(Refusal::Unable { reason }) => reason.contains("no space"),
        _ => false,
    });
    assert!(receiving.stream.status().full);
    assert!(last.wait(Level::Received, Duration::ZERO).is_err());
    b.disk.order(Order::Work);
    last.wait(Level::Received, LONG).unwrap();
    assert_eq!(bytes(&primary.journal), bytes(receiving.stream.journal()));
    assert!(!receiving.stream.status().full);
}

/// It came back with room for one segment, was counted again, and was full again at the next entries: at every attempt,
/// which kept the primary from ever going on alone.
#[test]
fn a_full_receiver_comes_back_once_with_room_for_what_it_lacks() {
    let (a, b) = (Side::new(1), Side::new(2));
    let receiving = Receiving::start(b.create(Role::Receiver), PLAIN);
    let primary = Shipping::start(a.create(Role::Primary), PLAIN, vec![target(Mode::SemiSync, receiving.address())]);
    primary.open();
    primary.append(b"before").wait(Level::Received, LONG).unwrap();
    b.disk.order(Order::Room(0));
    let mut last = primary.append(b"x");
    for _ in 0..20 {
        last = primary.append(&vec![1; 50_000]);
    }
    until("it is full", || receiving.stream.status().full);
    let refusals = || receiving.kept.notices.lock().unwrap().len();
    let (received, told) = (receiving.stream.status().received, refusals());
    // it lacks some twenty segments
    b.disk.order(Order::Room(3));
    until("it takes what room there is", || b.disk.is_full());
    until("it was tried again with that", || refusals() > told + 2);
    assert_eq!(receiving.stream.status().received, received, "it came back to be full again");
    b.disk.order(Order::Work);
    last.wait(Level::Received, LONG).unwrap();
    let counts = Event::Loss(Loss::None);
    until("it counts", || primary.events.lock().unwrap().contains(&counts));
    let events = primary.events.lock().unwrap();
    let losses: Vec<_> = events.iter().filter(|event| matches!(event, Event::Loss(_))).collect();
    assert!(matches!(losses[..], [Event::Loss(Loss::Waiting), Event::Loss(Loss::None)]), "{losses:?}");
}

/// Its log holds as much as its budget, and only its primary can say that some of it is needed nowhere any more.
#[test]
fn a_receiver_at_its_budget_goes_on_when_nobody_needs_its_log_any_more() {
    let (a, b) = (Side::new(1), Side::new(2));
    let retain = Some(Retain::default());
    let journal = Journal::create(
        &b.path(),
        STREAM,
        NodeId::from_bytes([2; 16]),
        Role::Receiver,
        Options { budget_bytes: 8 * (68 << 10), retain, ..b.options() },
    );
    let receiving = Receiving::start(journal.unwrap(), PLAIN);
    let primary = Shipping::start(a.create(Role::Primary), PLAIN, vec![target(Mode::SemiSync, receiving.address())]);
    primary.open();
    let before = primary.append(b"before");
    before.wait(Level::Received, LONG).unwrap();
    primary.links.set_depot_floor(before.lsn());
    let mut last = primary.append(b"x");
    for _ in 0..40 {
        last = primary.append(&vec![1; 50_000]);
    }
    until("the primary is told", || match primary.state() {
        PeerState::Refused(Refusal::Unable { reason }) => reason.contains("another destination of its primary needs"),
        _ => false,
    });
    assert!(receiving.stream.status().full && primary.links.status().loss == Loss::Waiting);
    assert_eq!(receiving.stream.journal().start(), Lsn::ZERO);
    // the depot has it all; the peer itself is owed what it doesn't have
    primary.links.set_depot_floor(Lsn::MAX);
    last.wait(Level::Received, LONG).unwrap();
    assert!(receiving.stream.journal().start() > Lsn::ZERO);
    until("it counts", || primary.links.status().loss == Loss::None && !receiving.stream.status().full);
}
