//! Connections that aren't what they should be.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use journal::{Class, Level, Lsn, Role};
use receiver::HANDSHAKES_MAX;
use shipper::PeerState;
use wire::{Dialogue, Message, Mode, PROTOCOL, Refusal, Security, Tls, pki};

use super::sides::*;

const LONG: Duration = HANGS_AFTER;

/// A primary's greeting, as its link sends it, on a connection of the test's own.
pub(crate) fn greeting(receiving: &Receiving) -> wire::Greeting {
    let journal = receiving.stream.journal();
    wire::Greeting {
        protocol: PROTOCOL,
        stream: STREAM,
        stream_name: "log".into(),
        geometry: journal.geometry(),
        node: node(1, "a"),
        mode: Mode::Sync,
        term: journal.term_seen(),
        opened: false,
        history: journal.history(),
        start: journal.start(),
        end: {
            let tip = journal.written_tip();
            wire::Place { lsn: tip.lsn, chain: tip.chain }
        },
        durable: journal.board().durable(),
        committed: journal.committed(),
        applied: Default::default(),
        remembers: None,
        clock: journal::Time::now(),
    }
}

#[test]
fn a_half_open_connection_gives_way_to_a_newer_one_of_the_same_primary() {
    let (a, b) = (Side::new(1), Side::new(2));
    let receiving = Receiving::start_with(b.create(Role::Receiver), PLAIN, LONG * 10);
    let mut silent = Dialogue::connect(&PLAIN, &receiving.address().to_string(), None).unwrap();
    silent.send(&Message::Greeting(Box::new(greeting(&receiving)))).unwrap();
    assert!(matches!(silent.receive(LONG), Ok(Message::Greeting(_))));
    let primary = Shipping::start(a.create(Role::Primary), PLAIN, vec![target(Mode::Sync, receiving.address())]);
    primary.open();
    primary.append(b"x").wait(Level::PeerDurable, LONG).unwrap();
    // and is closed, though it never says anything
    let ended = loop {
        match silent.receive(LONG) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(!matches!(ended, wire::Error::Timeout { .. }), "{ended}");
}

#[test]
fn another_primary_of_the_same_term_is_told_that_somebody_feeds() {
    let (a, b) = (Side::new(1), Side::new(2));
    let receiving = Receiving::start(b.create(Role::Receiver), PLAIN);
    let primary = Shipping::start(a.create(Role::Primary), PLAIN, vec![target(Mode::Sync, receiving.address())]);
    primary.open();
    primary.append(b"x").wait(Level::PeerDurable, LONG).unwrap();
    let mut other = Dialogue::connect(&PLAIN, &receiving.address().to_string(), None).unwrap();
    let stranger = wire::Greeting { node: node(3, "c"), ..greeting(&receiving) };
    other.send(&Message::Greeting(Box::new(stranger))).unwrap();
    assert_eq!(other.receive(LONG).unwrap(), Message::Refused(Refusal::Busy));
    primary.append(b"goes on").wait(Level::PeerDurable, LONG).unwrap();
}

#[test]
fn another_protocol_version_is_told_both_versions() {
    let b = Side::new(2);
    let receiving = Receiving::start(b.create(Role::Receiver), PLAIN);
    let mut later = Dialogue::connect(&PLAIN, &receiving.address().to_string(), None).unwrap();
    let greeting = wire::Greeting { protocol: PROTOCOL + 1, ..greeting(&receiving) };
    later.send(&Message::Greeting(Box::new(greeting))).unwrap();
    let refusal = Refusal::Protocol { primary: PROTOCOL + 1, receiver: PROTOCOL };
    assert_eq!(later.receive(LONG).unwrap(), Message::Refused(refusal));
}

#[test]
fn another_stream_a_depot_link_and_a_wrong_first_message_are_refused_in_words() {
    let b = Side::new(2);
    let receiving = Receiving::start(b.create(Role::Receiver), PLAIN);
    let say = |message: Message| {
        let mut dialogue = Dialogue::connect(&PLAIN, &receiving.address().to_string(), None).unwrap();
        dialogue.send(&message).unwrap();
        match dialogue.receive(LONG).unwrap() {
            Message::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    };
    let greeting = greeting(&receiving);
    let stream = journal::StreamId::from_bytes([8; 16]);
    let other = wire::Greeting { stream, ..greeting.clone() };
    assert_eq!(say(Message::Greeting(Box::new(other))), Refusal::Stream { primary: stream, receiver: STREAM });
    let hello = wire::DepotHello {
        protocol: PROTOCOL,
        stream,
        stream_name: "log".into(),
        geometry: greeting.geometry,
        node: greeting.node.clone(),
        term: greeting.term,
    };
    assert!(matches!(say(Message::DepotHello(hello)), Refusal::Unable { reason } if reason.contains("no depot")));
    assert!(matches!(say(Message::Bye { reason: "hm".into() }), Refusal::Unable { .. }));
    assert!(matches!(say(Message::Ack(Default::default())), Refusal::Unable { .. }));
}

#[test]
fn garbage_half_frames_and_oversize_lengths_end_their_own_connection_only() {
    let (a, b) = (Side::new(1), Side::new(2));
    let receiving = Receiving::start(b.create(Role::Receiver), PLAIN);
    let primary = Shipping::start(a.create(Role::Primary), PLAIN, vec![target(Mode::Sync, receiving.address())]);
    primary.open();
    let mut oversize = [b'T', b'W', 1, 1].to_vec();
    oversize.extend_from_slice(&u32::MAX.to_le_bytes());
    oversize.extend_from_slice(&[0; 4]);
    let crc = journal::crc32c(&oversize);
    oversize.extend_from_slice(&crc.to_le_bytes());
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 2, 0], &[0; 4096], &oversize, b"TW\x01"] {
        let mut socket = TcpStream::connect(receiving.address()).unwrap();
        socket.write_all(bytes).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // it may be closed at once, with our bytes unread
        let _ = socket.read_to_end(&mut answer);
        primary.append(bytes).wait(Level::PeerDurable, LONG).unwrap();
    }
    assert_eq!(bytes(&primary.journal), bytes(receiving.stream.journal()));
    until("they are gone", || receiving.server.connections() == 1);
}

#[test]
fn a_full_house_of_silent_connections_lets_others_in_once_they_leave() {
    let (a, b) = (Side::new(1), Side::new(2));
    let receiving = Receiving::start(b.create(Role::Receiver), PLAIN);
    let mut silent: Vec<TcpStream> =
        (0..HANDSHAKES_MAX).map(|_| TcpStream::connect(receiving.address()).unwrap()).collect();
    until("they have every place", || receiving.server.connections() == HANDSHAKES_MAX);
    let primary = Shipping::start(a.create(Role::Primary), PLAIN, vec![target(Mode::Sync, receiving.address())]);
    silent.pop();
    primary.open();
    primary.append(b"x").wait(Level::PeerDurable, LONG).unwrap();
}

/// A connection of the test's own on which entries may flow, as session 5.
pub(crate) fn session(receiving: &Receiving) -> Dialogue {
    let mut dialogue = Dialogue::connect(&PLAIN, &receiving.address().to_string(), None).unwrap();
    let own = greeting(receiving);
    let from = own.end;
    dialogue.send(&Message::Greeting(Box::new(own))).unwrap();
    assert!(matches!(dialogue.receive(LONG), Ok(Message::Greeting(_))));
    dialogue.open();
    let agreement = wire::Agreement::Stream { from };
    dialogue.send(&Message::Start(wire::Start { session: 5, agreement })).unwrap();
    dialogue
}

/// A log with these records, each synced.
pub(crate) fn source(side: &Side, records: &[&[u8]]) -> journal::Journal {
    let journal = side.create(Role::Primary);
    let opening = journal::RunOpening { promote: None, reason: journal::Reason::Created, policy: Vec::new() };
    journal.open_run(opening).unwrap();
    for record in records {
        journal.append(journal::Item::record(&[record])).unwrap().durable().unwrap();
    }
    journal
}

/// A session's messages count for that session only.
#[test]
fn entries_of_another_session_count_for_nothing() {
    let (a, b) = (Side::new(1), Side::new(2));
    let receiving = Receiving::start(b.create(Role::Receiver), PLAIN);
    let source = source(&a, &[b"x"]);
    let entries = bytes(&source);
    let mut dialogue = session(&receiving);
    let from = Lsn::ZERO;
    let send = |dialogue: &mut Dialogue, session| {
        let message = Message::Entries { session, at: from, bytes: entries.clone().into() };
        dialogue.send(&message).unwrap();
    };
    send(&mut dialogue, 4);
    send(&mut dialogue, 5);
    let end = loop {
        match dialogue.receive(LONG).unwrap() {
            Message::Ack(ack) if ack.received > from => break ack.received,
            Message::Ack(_) | Message::Ready(_) | Message::Alive(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(end, source.board().written(), "once, not twice");
    assert_eq!(bytes(receiving.stream.journal()), entries);
}

#[test]
fn a_flipped_byte_in_an_entry_never_reaches_the_log() {
    let (a, b) = (Side::new(1), Side::new(2));
    let receiving = Receiving::start(b.create(Role::Receiver), PLAIN);
    let source = source(&a, &[&[7; 300]]);
    let mut entries = bytes(&source);
    let last = entries.len() - 100;
    entries[last] ^= 1;
    let mut dialogue = session(&receiving);
    let from = Lsn::ZERO;
    dialogue.send(&Message::Entries { session: 5, at: from, bytes: entries.into() }).unwrap();
    let reason = loop {
        match dialogue.receive(LONG).unwrap() {
            Message::Bye { reason } => break reason,
            Message::Ack(ack) => assert_eq!(ack.received, from),
            Message::Ready(_) | Message::Alive(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(reason.contains("does not match its checksum"), "{reason}");
    assert_eq!(receiving.stream.journal().board().written(), from);
}

#[test]
fn a_strangers_certificate_is_refused_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let [a_tls, b_tls] = ["a", "b"].map(|name| {
        let ca = dir.path().join(format!("ca-of-{name}"));
        pki::init(&ca).unwrap();
        pki::issue(&ca, name, &[], &dir.path().join(name)).unwrap();
        Security::Tls(Tls::from_dir(&dir.path().join(name)).unwrap())
    });
    let (a, b) = (Side::new(1), Side::new(2));
    let receiving = Receiving::start(b.create(Role::Receiver), b_tls);
    let primary = Shipping::start(a.create(Role::Primary), a_tls, vec![target(Mode::Sync, receiving.address())]);
    until("it is said", || primary.links.status().peers[0].trouble.is_some());
    let trouble = primary.links.status().peers[0].trouble.clone().unwrap();
    assert_eq!(trouble.class, Class::Refused, "{trouble:?}");
    assert!(trouble.text.contains("stranger"), "{trouble:?}");
    assert!(matches!(primary.state(), PeerState::Unreachable { .. } | PeerState::Connecting));
    assert!(!primary.links.is_open());
    assert_eq!(receiving.stream.status().last_contact, None, "nothing of it reached the stream");
}
