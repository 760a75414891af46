//! What goes well: shipping, catching up, taking back, cutting, over plain connections and TLS.

use std::time::Duration;

use journal::{Cursor, Item, Journal, Kind, Level, Lsn, Reason, Role, RunOpening, Term, TermSeen, Tip};
use shipper::{Event, Notice, OnLoss, PeerState, Target};
use wire::{Mode, Security, Tls, pki};

use super::sides::*;

const LONG: Duration = HANGS_AFTER;

#[test]
fn each_level_is_reached_and_both_logs_are_the_same_bytes() {
    for (mode, level) in
        [(Mode::Sync, Level::PeerDurable), (Mode::SemiSync, Level::Received), (Mode::Async, Level::Durable)]
    {
        let (a, b) = (Side::new(1), Side::new(2));
        let receiving = Receiving::start(b.create(Role::Receiver), PLAIN);
        let primary = Shipping::start(a.create(Role::Primary), PLAIN, vec![target(mode, receiving.address())]);
        primary.open();
        let payload = vec![3; 9_000];
        let mut last = Lsn::ZERO;
        for bytes in (0..40).map(|round| round * 200) {
            let ticket = primary.append(&payload[..bytes]);
            let ack = ticket.wait(level, LONG).unwrap();
            assert!(ack.level >= level && !ack.alone);
            last = ticket.lsn();
        }
        assert!(last.get() > 2 * (64 << 10), "more than one segment");
        primary.journal.board().wait(Level::Committed, last, None).unwrap();
        until("everything arrives", || receiving.stream.journal().board().written() == last);
        assert_eq!(bytes(&primary.journal), bytes(receiving.stream.journal()));
        until("and may be applied", || *receiving.kept.applied_to.lock().unwrap() == last);
        until("and is seen to be in step", || primary.state() == PeerState::InSync);
    }
}

/// In no mode may a level be reached by its absence.
#[test]
fn a_semi_sync_peer_becomes_durable_by_its_flush_thread() {
    let (a, b) = (Side::new(1), Side::new(2));
    let receiving = Receiving::start(b.create(Role::Receiver), PLAIN);
    let primary = Shipping::start(a.create(Role::Primary), PLAIN, vec![target(Mode::SemiSync, receiving.address())]);
    primary.open();
    let ticket = primary.append(b"once");
    assert_eq!(ticket.wait(Level::PeerDurable, LONG).unwrap().level, Level::PeerDurable);
}

#[test]
fn over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca");
    pki::init(&ca).unwrap();
    let [a_tls, b_tls] = ["a", "b"].map(|name| {
        pki::issue(&ca, name, &[], &dir.path().join(name)).unwrap();
        Security::Tls(Tls::from_dir(&dir.path().join(name)).unwrap())
    });
    let (a, b) = (Side::new(1), Side::new(2));
    let receiving = Receiving::start(b.create(Role::Receiver), b_tls);
    let primary = Shipping::start(a.create(Role::Primary), a_tls, vec![target(Mode::Sync, receiving.address())]);
    primary.open();
    let ticket = primary.append(&vec![9; 200_000]);
    ticket.wait(Level::PeerDurable, LONG).unwrap();
    assert_eq!(bytes(&primary.journal), bytes(receiving.stream.journal()));
    assert_eq!(primary.links.status().peers[0].certificate[0], "b");
}

#[test]
fn nobody_there_opens_no_run() {
    let a = Side::new(1);
    let primary = Shipping::start(a.create(Role::Primary), PLAIN, vec![target(Mode::Sync, "127.0.0.1:1")]);
    until("it is seen", || matches!(primary.state(), PeerState::Unreachable { .. }));
    assert!(!primary.links.is_open());
    let opening = RunOpening { promote: None, reason: Reason::Started, policy: Vec::new() };
    let error = primary.links.open_run(opening.clone()).unwrap_err();
    assert!(error.to_string().contains("waits for b (127.0.0.1:1)"), "{error}");
    assert_eq!(primary.journal.board().committed(), Lsn::ZERO);

    // the operator's word
    primary.links.waive();
    primary.links.open_run(opening).unwrap();
    let ack = primary.append(b"alone").wait(Level::Committed, LONG).unwrap();
    assert!(ack.alone && ack.level == Level::Durable, "{ack:?}");
}

#[test]
fn an_empty_list_of_peers_waits_for_nobody() {
    let a = Side::new(1);
    let primary = Shipping::start(a.create(Role::Primary), PLAIN, Vec::new());
    primary.open();
    assert!(!primary.append(b"x").wait(Level::Committed, LONG).unwrap().alone);
}

#[test]
fn a_receiver_that_was_away_catches_up() {
    let (a, b) = (Side::new(1), Side::new(2));
    let receiving = Receiving::start(b.create(Role::Receiver), PLAIN);
    let address = receiving.address();
    let primary = Shipping::start(a.create(Role::Primary), PLAIN, vec![target(Mode::SemiSync, address)]);
    primary.open();
    primary.append(b"before").wait(Level::Received, LONG).unwrap();
    receiving.end();
    until("it is lost", || primary.links.status().lost == ["b"]);
    assert_eq!(primary.links.status().remote.received, Lsn::ZERO, "marks end with their connection");
    let mut last = None;
    for _ in 0..60 {
        last = Some(primary.append(&vec![5; 60_000]));
    }
    let last = last.unwrap();
    last.durable().unwrap();
    assert!(last.wait(Level::Received, Duration::ZERO).is_err(), "nobody has it");

    let listener = std::net::TcpListener::bind(address);
    drop(listener);
    let journal = b.open();
    let receiving = again(journal, address);
    last.wait(Level::Committed, LONG).unwrap();
    assert_eq!(bytes(&primary.journal), bytes(receiving.stream.journal()));
}

/// A receiver at a given address.
fn again(journal: Journal, address: std::net::SocketAddr) -> Receiving {
    let receiving = Receiving::start(journal, PLAIN);
    let Receiving { stream, kept, server } = receiving;
    server.stop();
    let rooms = rooms(&stream);
    let mut server = None;
    until("its port is free again", || {
        let bound = std::net::TcpListener::bind(address).ok();
        server = bound.map(|listener| receiver::Server::start(listener, PLAIN, rooms.clone()).unwrap());
        server.is_some()
    });
    Receiving { stream, kept, server: server.unwrap() }
}

/// The primary lost a tail that the receiver has: it takes it back before its gate opens.
#[test]
fn a_longer_tail_is_taken_back_before_a_run_is_opened() {
    let (a, b) = (Side::new(1), Side::new(2));
    let receiving = Receiving::start(b.create(Role::Receiver), PLAIN);
    let primary = Shipping::start(a.create(Role::Primary), PLAIN, vec![target(Mode::Sync, receiving.address())]);
    primary.open();
    let kept = primary.append(b"kept").lsn();
    // more than is queued for a socket at once
    let tickets: Vec<_> = (0..100).map(|_| primary.append(&vec![6; 50_000])).collect();
    for ticket in tickets {
        ticket.wait(Level::PeerDurable, LONG).unwrap();
    }
    let whole = bytes(&primary.journal);
    primary.links.stop("restarts");

    let shorter = Side::new(1);
    let journal = prefix(&shorter, &primary.journal, kept);
    let primary = Shipping::start(journal, PLAIN, vec![target(Mode::Sync, receiving.address())]);
    primary.open();
    assert_eq!(bytes(&primary.journal), whole);
    let events = primary.events.lock().unwrap().clone();
    let took =
        |event: &Event| matches!(event, Event::Notice { notice: Notice::TakesBack { tail }, .. } if tail.from == kept);
    assert!(events.iter().any(took), "{events:?}");
    primary.append(b"goes on").wait(Level::PeerDurable, LONG).unwrap();
    assert_eq!(bytes(&primary.journal), bytes(receiving.stream.journal()));
}

/// A node's folder as it is after the log's end was lost: everything below `to`.
fn prefix(side: &Side, of: &Journal, to: Lsn) -> Journal {
    let journal = side.create(Role::Primary);
    journal.see_term(of.term_seen()).unwrap();
    let all = bytes(of);
    let kept = &all[..to.get() as usize];
    let run = Cursor::new(of.geometry(), Tip::empty(STREAM)).verify(kept).unwrap();
    assert_eq!(journal.extend(&run).unwrap(), to);
    journal
}

#[test]
fn a_foreign_tail_is_cut_and_kept_as_a_branch() {
    let (a, b) = (Side::new(1), Side::new(2));
    let receiving = Receiving::start(b.create(Role::Receiver), PLAIN);
    let primary = Shipping::start(a.create(Role::Primary), PLAIN, vec![target(Mode::Async, receiving.address())]);
    primary.open();
    let shared = primary.append(b"shared").lsn();
    let foreign = primary.append(b"foreign").lsn();
    until("it arrives", || receiving.stream.journal().board().written() == foreign);
    primary.links.stop("is gone");

    // another node with the shared part is promoted
    let c = Side::new(3);
    let journal = prefix(&c, &primary.journal, shared);
    let options = |journal: Journal| Shipping::start(journal, PLAIN, vec![target(Mode::Async, receiving.address())]);
    journal
        .open_run(RunOpening {
            promote: Some(TermSeen { term: Term(2), id: 22 }),
            reason: Reason::Promoted,
            policy: Vec::new(),
        })
        .unwrap();
    journal.append(Item::record(&[b"own"])).unwrap().durable().unwrap();
    let promoted = options(journal);
    let follows = |journal: &Journal| journal.board().written() == promoted.journal.board().written();
    until("it follows", || follows(receiving.stream.journal()));
    assert_eq!(bytes(receiving.stream.journal()), bytes(&promoted.journal));
    assert_eq!(receiving.stream.journal().term_seen(), TermSeen { term: Term(2), id: 22 });
    let branches = std::fs::read_dir(b.path().join("branches")).unwrap().count();
    assert_eq!(branches, 1);
}

#[test]
fn going_alone_is_stamped_noted_in_the_log_and_ended_by_the_peers_return() {
    let (a, b) = (Side::new(1), Side::new(2));
    let receiving = Receiving::start(b.create(Role::Receiver), PLAIN);
    let address = receiving.address();
    let mut peer = target(Mode::Sync, address);
    peer.on_loss = OnLoss::Alone { after: Duration::from_millis(50) };
    let primary = Shipping::start(a.create(Role::Primary), PLAIN, vec![peer]);
    primary.open();
    assert!(!primary.append(b"together").wait(Level::Committed, LONG).unwrap().alone);
    receiving.end();
    let ack = primary.append(b"alone").wait(Level::Committed, LONG).unwrap();
    assert!(ack.alone && ack.level == Level::Durable, "{ack:?}");

    let receiving = again(b.open(), address);
    until("it is back", || !primary.links.status().remote.alone);
    let ack = primary.append(b"together again").wait(Level::Committed, LONG).unwrap();
    assert!(!ack.alone && ack.level == Level::PeerDurable, "{ack:?}");
    assert_eq!(bytes(&primary.journal), bytes(receiving.stream.journal()));
    let mut entries = primary.journal.entries(Lsn::ZERO).unwrap();
    let mut notes = Vec::new();
    while let Some(entry) = entries.next_entry().unwrap() {
        if entry.header.kind == Some(Kind::Alone) {
            notes.push(String::from_utf8(entry.payload.to_vec()).unwrap());
        }
    }
    assert_eq!(notes, [format!("alone: going on without b ({address})"), "no longer alone".into()]);
}

/// A primary that had gone on alone and was started again took its own commit point for one that everybody keeps, and
/// announced it: replicas showed what a promotion of another peer may still take back.
#[test]
fn what_was_committed_alone_is_not_announced_after_a_restart_either() {
    let (a, b) = (Side::new(1), Side::new(2));
    let receiving = Receiving::start(b.create(Role::Receiver), PLAIN);
    let address = receiving.address();
    let alone = || Target { on_loss: OnLoss::Alone { after: Duration::ZERO }, ..target(Mode::Sync, address) };
    let primary = Shipping::start(a.create(Role::Primary), PLAIN, vec![alone()]);
    primary.open();
    primary.append(b"together").wait(Level::Committed, LONG).unwrap();
    receiving.end();
    let ack = primary.append(b"alone").wait(Level::Committed, LONG).unwrap();
    assert!(ack.alone, "{ack:?}");
    // what was committed is noted beside the next sync
    primary.append(b"alone again").wait(Level::Committed, LONG).unwrap();
    primary.links.stop("started again");
    drop(primary);

    let primary = Shipping::start(a.open(), PLAIN, vec![alone()]);
    assert!(primary.journal.committed() >= ack.lsn, "{} was acknowledged", ack.lsn);
    assert_eq!(primary.links.status().committed, Lsn::ZERO, "nobody said yet what he keeps");
    let receiving = again(b.open(), address);
    primary.open();
    until("it has caught up", || primary.links.status().committed >= ack.lsn);
    assert_eq!(bytes(&primary.journal), bytes(receiving.stream.journal()));
}
