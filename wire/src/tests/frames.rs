//! Frames over a stream that splits, flips, cuts and invents bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use journal::{Chain, Class, Epoch, Geometry, History, Lsn, NodeId, Opening, StreamId, Term, TermSeen, Time, Tip};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncRead, ReadBuf};

use super::messages::{lsn, message};
use crate::error::Error;
use crate::message::*;
use crate::{CONTROL_BYTES_MAX, ENTRIES_BYTES_MAX, Frame, Reader, Writer};

/// Hands out bytes in pieces of the given sizes, over and over; then ends.
struct Pieces {
    bytes: Vec<u8>,
    at: usize,
    sizes: Vec<usize>,
    turn: usize,
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let size = self.sizes[self.turn % self.sizes.len()].min(room.remaining()).min(self.bytes.len() - self.at);
        room.put_slice(&self.bytes[self.at..self.at + size]);
        self.at += size;
        self.turn += 1;
        Poll::Ready(Ok(()))
    }
}

fn block_on<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

fn laid(messages: &[Message]) -> Vec<u8> {
    let mut writer: Writer<Vec<u8>> = Writer::new(Vec::new());
    for message in messages {
        writer.queue(message).expect("it fits");
    }
    block_on(writer.flush()).expect("memory takes everything");
    assert_eq!(writer.queued_bytes(), 0);
    writer.into_inner()
}

fn read_all(bytes: Vec<u8>, sizes: Vec<usize>) -> (Vec<Message>, Error) {
    let mut reader = Reader::new(Pieces { bytes, at: 0, sizes, turn: 0 });
    reader.open();
    let mut messages = Vec::new();
    loop {
        match block_on(reader.message()) {
            Ok(message) => messages.push(message),
            Err(error) => return (messages, error),
        }
    }
}

/// Entries that continue each other may come as one: joins them on the expected side too.
fn joined(messages: &[Message]) -> Vec<Message> {
    let mut out: Vec<Message> = Vec::new();
    for message in messages {
        if let Message::Entries { session, at, bytes } = message
            && let Some(Message::Entries { session: before, at: first, bytes: joined }) = out.last_mut()
            && before == session
            && first.checked_add(joined.len() as u64) == Some(*at)
        {
            *joined = Bytes::from([&joined[..], &bytes[..]].concat());
            continue;
        }
        out.push(message.clone());
    }
    out
}

fn entries(session: u64, at: u64, bytes: &[u8]) -> Message {
    Message::Entries { session, at: Lsn::new(at), bytes: Bytes::copy_from_slice(bytes) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_message_comes_back(messages in vec(message(), 1..20), sizes in vec(1..5000usize, 1..6)) {
        let (back, end) = read_all(laid(&messages), sizes);
        prop_assert_eq!(joined(&back), joined(&messages));
        prop_assert!(matches!(end, Error::Closed), "{}", end);
    }

    #[test]
    fn lent_entries_come_back_as_sent(
        runs in vec((any::<bool>(), lsn(), 1..300_000usize), 1..6),
        sizes in vec(1..200_000usize, 1..4),
    ) {
        let mut writer: Writer<Vec<u8>, Vec<u8>> = Writer::new(Vec::new());
        let mut sent = Vec::new();
        for (run, (heartbeat, at, size)) in runs.iter().enumerate() {
            let bytes = Bytes::from_iter((0..*size).map(|byte| (byte * 31 + run) as u8));
            if *heartbeat {
                sent.push(Message::Ack(Ack::default()));
                writer.queue(&Message::Ack(Ack::default())).unwrap();
            }
            sent.push(Message::Entries { session: 7, at: *at, bytes: bytes.clone() });
            writer.queue_entries(7, *at, bytes.to_vec()).unwrap();
        }
        block_on(writer.flush()).unwrap();
        let (back, end) = read_all(writer.into_inner(), sizes);
        prop_assert_eq!(joined(&back), joined(&sent));
        prop_assert!(matches!(end, Error::Closed));
    }

    /// Entries and parts of batches carry their own proof behind the fixed fields; everything else must not change.
    #[test]
    fn no_flipped_bit_passes(message in message(), at: prop::sample::Index, bit in 0..8u8) {
        let good = laid(std::slice::from_ref(&message));
        let own_proof = match &message {
            Message::Entries { bytes, .. } | Message::BatchPart { bytes, .. } => bytes.len(),
            _ => 0,
        };
        let mut bad = good.clone();
        let at = at.index(good.len() - own_proof);
        bad[at] ^= 1 << bit;
        let (back, end) = read_all(bad, vec![4096]);
        prop_assert!(back.is_empty(), "byte {at}: {back:?}");
        let found = matches!(end, Error::Damaged { .. } | Error::NotTowline { .. });
        prop_assert!(found, "byte {at}: {end}");
    }

    #[test]
    fn no_cut_passes(message in message(), at: prop::sample::Index) {
        let mut bytes = laid(std::slice::from_ref(&message));
        bytes.truncate(1 + at.index(bytes.len() - 1));
        let have = bytes.len();
        let (back, end) = read_all(bytes, vec![100]);
        prop_assert!(back.is_empty());
        prop_assert!(matches!(end, Error::Truncated { have: told } if told == have), "{}", end);
    }

    #[test]
    fn garbage_is_an_error(bytes in vec(any::<u8>(), 1..200)) {
        let (back, end) = read_all(bytes.clone(), vec![17]);
        prop_assert!(back.is_empty());
        prop_assert!(matches!(end, Error::NotTowline { .. }) || bytes[0] == b'T', "{}", end);
    }

    /// A body with a right checksum and any content: an error or a message, never a panic, never much memory.
    #[test]
    fn any_body_is_decoded_or_refused(code in 1..30u8, body in vec(any::<u8>(), 0..400)) {
        read_all(forged(code, &body, body.len() as u32), vec![1000]);
    }
}

/// A frame with right checksums, whatever it says.
fn forged(code: u8, body: &[u8], length: u32) -> Vec<u8> {
    let checked = match code {
        5 => &body[..body.len().min(16)],
        20 => &body[..body.len().min(8)],
        _ => body,
    };
    let mut head = [b'T', b'W', 1, code].to_vec();
    head.extend_from_slice(&length.to_le_bytes());
    head.extend_from_slice(&journal::crc32c(checked).to_le_bytes());
    let crc = journal::crc32c(&head);
    head.extend_from_slice(&crc.to_le_bytes());
    head.extend_from_slice(body);
    head
}

fn refused(bytes: Vec<u8>) -> Error {
    let (messages, error) = read_all(bytes, vec![64]);
    assert!(messages.is_empty(), "{messages:?}");
    error
}

#[test]
fn a_length_above_the_limit_is_refused_before_its_bytes_arrive() {
    let limits = [(1, 1 << 20), (5, 16 + ENTRIES_BYTES_MAX), (6, CONTROL_BYTES_MAX), (20, 8 + (1 << 20))];
    for (code, bytes_max) in limits {
        let error = refused(forged(code, &[], bytes_max as u32 + 1));
        assert!(matches!(error, Error::TooLong { .. }), "type {code}: {error}");
        assert_eq!(error.class(), Class::Corrupt);
        let error = refused(forged(code, &[], bytes_max as u32));
        assert!(matches!(error, Error::Truncated { .. }), "type {code}: {error}");
    }
    assert!(matches!(refused(forged(6, &[], u32::MAX)), Error::TooLong { .. }));
}

#[test]
fn memory_follows_what_arrived_not_what_was_claimed() {
    let mut bytes = forged(1, &[], 1 << 20);
    bytes.resize(100, 0);
    let mut reader = Reader::new(Pieces { bytes, at: 0, sizes: vec![50], turn: 0 });
    block_on(reader.fill()).unwrap();
    block_on(reader.fill()).unwrap();
    assert!(reader.next_frame().unwrap().is_none());
    assert!(reader.buffer_bytes() <= 16 << 10);
}

#[test]
fn other_versions_and_types_are_named() {
    assert!(matches!(refused(forged(99, b"x", 1)), Error::UnknownType { code: 99 }));
    for hello in [1, 16, 24] {
        let mut body = (PROTOCOL + 1).to_le_bytes().to_vec();
        body.extend_from_slice(b"whatever a later version says");
        let error = refused(forged(hello, &body, body.len() as u32));
        assert!(matches!(error, Error::Protocol { ours: PROTOCOL, theirs } if theirs == PROTOCOL + 1), "{error}");
        assert_eq!(error.class(), Class::Incompatible);
    }
}

#[test]
fn a_refusal_of_a_later_version_still_says_why() {
    let body = [&[200, 4, 0][..], b"full", b"fields of its own"].concat();
    let (messages, _) = read_all(forged(2, &body, body.len() as u32), vec![9]);
    assert_eq!(messages, [Message::Refused(Refusal::Unable { reason: "full".into() })]);
}

#[test]
fn nothing_but_hellos_before_both_sides_know_each_other() {
    let ack = laid(&[Message::Ack(Ack::default())]);
    let mut reader = Reader::new(Pieces { bytes: ack, at: 0, sizes: vec![100], turn: 0 });
    let error = block_on(reader.message()).unwrap_err();
    assert!(matches!(error, Error::Unexpected { kind: "Ack" }), "{error}");
    let bye = laid(&[Message::Bye { reason: "stopping".into() }]);
    let mut reader = Reader::new(Pieces { bytes: bye, at: 0, sizes: vec![100], turn: 0 });
    assert!(matches!(block_on(reader.message()), Ok(Message::Bye { .. })));
}

#[test]
fn the_other_port_is_named() {
    let hint = |bytes: &[u8]| match refused(bytes.to_vec()) {
        Error::NotTowline { hint } => hint,
        other => panic!("{other}"),
    };
    assert!(hint(&[0x16, 0x03, 0x01, 0, 5]).contains("--tls"));
    assert!(hint(&[0x15, 0x03, 0x03, 0, 2, 2, 10]).contains("--tls"));
    assert!(hint(b"GET / HTTP/1.1\r\n").contains("HTTP"));
}

#[test]
fn what_queued_up_comes_as_one_run() {
    let messages = [
        entries(1, 800, &[1; 88]),
        entries(1, 888, &[2; 96]),
        entries(1, 984, &[3; 88]),
        entries(1, 2000, &[4; 88]),
        entries(2, 2088, &[5; 88]),
        Message::Ack(Ack::default()),
        entries(2, 2176, &[6; 88]),
    ];
    let bytes = laid(&messages);
    let sizes = vec![bytes.len()];
    let mut reader = Reader::new(Pieces { bytes, at: 0, sizes, turn: 0 });
    reader.open();
    block_on(reader.fill()).unwrap();
    let mut runs = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        if let Frame::Entries { session, at, bytes } = frame {
            runs.push((session, at.get(), bytes.len(), bytes[bytes.len() - 1]));
        }
    }
    assert_eq!(runs, [(1, 800, 272, 3), (1, 2000, 88, 4), (2, 2088, 88, 5), (2, 2176, 88, 6)]);
}

#[test]
fn a_damaged_frame_behind_a_good_one_fails_at_its_own_turn() {
    let mut bytes = laid(&[entries(1, 800, &[1; 88]), entries(1, 888, &[2; 88])]);
    let second = bytes.len() / 2;
    bytes[second + 16] ^= 1;
    let (messages, error) = read_all(bytes, vec![4096]);
    assert_eq!(messages, [entries(1, 800, &[1; 88])]);
    assert!(matches!(error, Error::Damaged { .. }));
}

#[test]
fn what_no_frame_takes_is_not_queued() {
    let mut writer: Writer<Vec<u8>, Vec<u8>> = Writer::new(Vec::new());
    let long = Message::BatchHave { offset: 0 };
    writer.queue(&long).unwrap();
    let before = writer.queued_bytes();
    let error = writer.queue_entries(1, Lsn::ZERO, vec![0; ENTRIES_BYTES_MAX + 1]).unwrap_err();
    assert!(matches!(error, Error::TooLong { kind: "Entries", .. }));
    assert!(writer.queue_entries(1, Lsn::ZERO, vec![]).is_err());
    let name = Message::BatchStored { name: "x".repeat(256), end: Default::default() };
    assert!(matches!(writer.queue(&name), Err(Error::TooLong { kind: "BatchStored", .. })));
    assert_eq!(writer.queued_bytes(), before);
    block_on(writer.flush()).unwrap();
    assert_eq!(writer.into_inner(), laid(&[long]));
}

#[test]
fn long_texts_for_people_are_cut_at_a_character() {
    let reason = "€".repeat(1000);
    let (messages, _) = read_all(laid(&[Message::Bye { reason: reason.clone() }]), vec![999]);
    let [Message::Bye { reason: cut }] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(*cut, reason[..1023]);
}

/// The bytes of version 1, laid by hand from docs/FORMAT.md: they stay what they are.
#[test]
fn version_one_keeps_its_bytes() {
    let place = Place { lsn: Lsn::new(5), chain: Chain::from_u64(6) };
    let term = TermSeen { term: Term(1), id: 3 };
    let opening = Opening {
        epoch: Epoch { term: Term(1), run: 2 },
        term_id: 3,
        run_id: 4,
        node: NodeId::from_bytes([9; 16]),
        first: Lsn::new(5),
        chain_in: Chain::from_u64(6),
    };
    let greeting = Greeting {
        protocol: 1,
        stream: StreamId::from_bytes([1; 16]),
        stream_name: "log".into(),
        geometry: Geometry::new(64 << 10).unwrap(),
        node: NodeInfo { id: NodeId::from_bytes([2; 16]), name: "a".into(), start_id: 7, boot_id: [8; 16] },
        mode: Mode::Sync,
        term,
        opened: true,
        history: History::from_openings(vec![opening]).unwrap(),
        start: Lsn::ZERO,
        end: place,
        durable: Lsn::new(7),
        committed: Lsn::new(8),
        applied: Lsn::new(9),
        remembers: Some(place),
        clock: Time::from_nanos(10),
    };
    let cut = Refusal::CutBelowCommitted { to: Lsn::new(1), committed: Lsn::new(2) };
    let start = Start { session: 5, agreement: Agreement::TakeBack { from: place, to: Lsn::new(7) } };
    let ack = Ack {
        session: 1,
        received: Lsn::new(2),
        durable: Lsn::new(3),
        durable_chain: Chain::from_u64(4),
        applied: Lsn::new(5),
        checkpoint: Lsn::new(6),
    };
    let geometry = Geometry::new(64 << 10).unwrap();
    let holdings = vec![Holding::Journal { geometry }, Holding::Line { geometry, end: Lsn::new(7) }];
    let epoch = Epoch { term: Term(4), run: 5 };
    let tip = Tip { lsn: Lsn::new(1), chain: Chain::from_u64(2), time: Time::from_nanos(3), epoch, run_id: 6 };
    let table = [
        (
            Message::Greeting(Box::new(greeting)),
            "54570101d9000000d2938fc145249c5a01000101010101010101010101010101010103006c6f67000001000202020202\
             020202020202020202020201006107000000000000000808080808080808080808080808080802010000000300000000\
             000000010000000000000000050000000000000006000000000000000700000000000000080000000000000009000000\
             0000000001050000000000000006000000000000000a0000000000000001000000010000000200000003000000000000\
             0004000000000000000500000000000000060000000000000009090909090909090909090909090909",
        ),
        (
            Message::Refused(cut),
            "5457010201010000b1fc4e09296d7fe909ee0074686520726563656976657220776f756c64206861766520746f206375\
             7420697473206c6f6720746f204c534e20312c20627574206974206b6e6f77732065766572797468696e672075702074\
             6f203220746f20626520636f6d6d69747465642e204e6f7468696e6720776173206375742e20546f20666f6c6c6f7720\
             74686973207072696d61727920616c6c207468652073616d652c206d6f7665207468652073747265616d277320666f6c\
             646572206f6e20746865207265636569766572206177617920616e6420737461727420697420616761696e3a20697420\
             636f706965732065766572797468696e6701000000000000000200000000000000",
        ),
        (
            Message::Start(start),
            "545701032100000017d80775ee64620b0500000000000000020500000000000000060000000000000007000000000000\
             00",
        ),
        (
            entries(5, 6, b"entries!"),
            "5457010518000000dc431dc50a9156c905000000000000000600000000000000656e747269657321",
        ),
        (
            Message::Ack(ack),
            "5457010630000000ab34a8a9b69176fb0100000000000000020000000000000003000000000000000400000000000000\
             05000000000000000600000000000000",
        ),
        (
            Message::DepotState(DepotState { end: None, term }),
            "545701111d0000006181cba12c96dec10000000000000000000000000000000000010000000300000000000000",
        ),
        (
            Message::CopyHello(CopyHello { protocol: 1, stream: StreamId::from_bytes([1; 16]) }),
            "545701181200000027aaa0c15f268021010001010101010101010101010101010101",
        ),
        (
            Message::CopyState(CopyState { holdings }),
            "5457011914000000810211b47cc56f990200000000010001000001000700000000000000",
        ),
        (
            Message::CopyAsk(CopyAsk { holding: 1, from: tip }),
            "5457011a2a000000b69c2273d3fe22ae0100010000000000000002000000000000000300000000000000040000000500\
             00000600000000000000",
        ),
    ];
    for (message, expected) in table {
        let bytes = laid(std::slice::from_ref(&message));
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected, "{message:?}");
    }
}

/// Takes a few bytes per write, then makes the writer wait once.
#[derive(Default)]
struct Narrow {
    taken: Vec<u8>,
    ready: bool,
}

impl tokio::io::AsyncWrite for Narrow {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.ready = !self.ready;
        if !self.ready {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let taken = bytes.len().min(13);
        self.taken.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_flush_that_was_dropped_goes_on_where_it_stopped() {
    let sent: Vec<Message> = (0..40u64)
        .flat_map(|at| [entries(3, at * 1000, &[at as u8; 200]), Message::BatchHave { offset: at }])
        .collect();
    let mut writer: Writer<Narrow, Vec<u8>> = Writer::new(Narrow::default());
    let mut cx = Context::from_waker(std::task::Waker::noop());
    for message in &sent {
        match message {
            Message::Entries { session, at, bytes } => writer.queue_entries(*session, *at, bytes.to_vec()).unwrap(),
            other => writer.queue(other).unwrap(),
        }
        // one try each: most of them end in the middle of a frame
        let _ = writer.poll_flush(&mut cx);
    }
    block_on(writer.flush()).unwrap();
    assert_eq!(read_all(writer.into_inner().taken, vec![777]).0, sent);
}
