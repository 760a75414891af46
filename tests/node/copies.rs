//! A node that is asked for log by others: by those who lost theirs, and by those who ask for what makes no sense.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use journal::repair::{JournalCopy, RangeSource};
use journal::{Chain, Cursor, Epoch, Geometry, Lsn, Next, StreamId, Term, Time, Tip};
use node::control::Level;
use node::{NodeCopy, Security};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use wire::{CopyAsk, CopyHello, CopyState, Dialogue, Holding, Message, PROTOCOL};

use crate::support::{LONG, Running, STREAM, primary, receiver, start, until};

const PLAIN: wire::Security = wire::Security::Plaintext { anywhere: false };
const SEGMENT: u32 = 1 << 20;

/// A node with some records, more than one answer takes.
fn node_with_records(dir: &Path, name: &str) -> (Running, StreamId) {
    let node = start(primary(dir, name, []));
    let record = "x".repeat(100_000);
    let records = vec![record.as_str(); 35];
    node.append(Level::Durable, LONG, &records).expect("acknowledged");
    let journal = JournalCopy::open(&journal_of(&node.dir)).expect("a journal");
    (node, journal.stream())
}

/// The segment files of a node, whole, without their headers: the log from its beginning.
fn log_of(node: &Path) -> Vec<u8> {
    let mut files: Vec<PathBuf> = segments(node);
    files.sort();
    files.iter().flat_map(|file| fs::read(file).expect("a segment").split_off(4096)).collect()
}

fn journal_of(node: &Path) -> PathBuf {
    node.join("streams").join(STREAM).join("journal")
}

fn segments(node: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(journal_of(node)).expect("a journal").map(|file| file.expect("a file").path());
    files.filter(|path| path.extension().is_some_and(|ext| ext == "seg")).collect()
}

/// Follows a copy from `from` to its end, or to where it fails.
fn follow(copy: &mut NodeCopy, from: Tip) -> (Vec<u8>, Tip, Option<String>) {
    let mut cursor = Cursor::new(copy.geometry(), from);
    let mut all = Vec::new();
    loop {
        let piece = match copy.fetch(cursor.tip()) {
            Ok(Some(piece)) => piece,
            Ok(None) => return (all, *cursor.tip(), None),
            Err(fault) => return (all, *cursor.tip(), Some(fault.to_string())),
        };
        let mut rest = &piece[..];
        while !rest.is_empty() {
            match cursor.next(rest) {
                Ok(Next::Entry(entry)) => rest = &rest[entry.header.range().bytes() as usize..],
                other => panic!("what a node gives is whole entries that follow: {other:?}"),
            }
        }
        all.extend_from_slice(&piece);
    }
}

#[test]
fn a_node_gives_its_log_as_it_is_and_again_after_it_was_away() {
    let dir = tempfile::tempdir().expect("a folder");
    let (node, id) = node_with_records(dir.path(), "a");
    let address = node.address();
    let mut copies = NodeCopy::find(&Security::Loopback, &address, None, id).expect("it answers");
    let [copy] = &mut copies[..] else { panic!("one journal: {copies:?}") };
    assert_eq!((copy.stream(), copy.geometry()), (id, Geometry::new(SEGMENT).expect("a size")));
    let (bytes, end, fault) = follow(copy, Tip::empty(id));
    let log = log_of(&node.dir);
    assert_eq!(fault, None);
    assert!(bytes.len() > 3_500_000 && log.starts_with(&bytes), "the log's own bytes");
    assert!(log[bytes.len()..].iter().all(|&byte| byte == 0), "all of it");
    assert_eq!(copy.fetch(&end).expect("it answers"), None);
    let another = Tip { chain: Chain::from_u64(7), ..Tip::empty(id) };
    let fault = copy.fetch(&another).expect_err("what follows another place isn't given").to_string();
    assert!(fault.contains("doesn't follow"), "{fault}");

    drop(node.stop());
    assert!(copy.fetch(&Tip::empty(id)).is_err(), "nobody is there");
    let node = start(receiver(dir.path(), "a", Some(&address)));
    assert!(follow(copy, Tip::empty(id)).0.starts_with(&bytes), "asked on a new connection");
    // and a stream that it doesn't know
    let nothing = NodeCopy::find(&Security::Loopback, &node.address(), None, StreamId::random()).expect("it answers");
    assert!(nothing.is_empty());
}

/// Where its own file is damaged it gives what stands before, and says what is wrong behind; it goes on itself.
#[test]
fn a_damaged_copy_is_said_to_be_and_not_given() {
    let dir = tempfile::tempdir().expect("a folder");
    let (node, id) = node_with_records(dir.path(), "a");
    let mut files = segments(&node.dir);
    files.sort();
    let file = fs::File::options().write(true).open(&files[1]).expect("a segment");
    file.write_all_at(b"rot", 4096 + 500_000).expect("written");
    let mut copies = NodeCopy::find(&Security::Loopback, &node.address(), None, id).expect("it answers");
    let (bytes, end, fault) = follow(&mut copies[0], Tip::empty(id));
    let place = u64::from(SEGMENT) + 500_000;
    assert!(end.lsn.get() <= place && place < end.lsn.get() + 100_200, "{}", end.lsn);
    assert!(log_of(&node.dir).starts_with(&bytes));
    assert_eq!(fault.as_deref(), Some("what stands there doesn't follow: its payload does not match its checksum"));
    node.append(Level::Durable, LONG, &["more"]).expect("it goes on");
}

/// Questions that no towline asks: an answer or an end of the connection, and a node that serves the next one.
#[test]
fn questions_that_make_no_sense_end_at_most_their_own_connection() {
    let dir = tempfile::tempdir().expect("a folder");
    let (node, id) = node_with_records(dir.path(), "a");
    let ask = |stream| {
        let mut dialogue = Dialogue::connect(&PLAIN, &node.address(), None).expect("connected");
        dialogue.send(&Message::CopyHello(CopyHello { protocol: PROTOCOL, stream })).expect("sent");
        let state = dialogue.receive(LONG).expect("an answer");
        dialogue.open();
        (dialogue, state)
    };
    let (mut dialogue, state) = ask(id);
    let geometry = Geometry::new(SEGMENT).expect("a size");
    assert_eq!(state, Message::CopyState(CopyState { holdings: vec![Holding::Journal { geometry }] }));
    let mut runner = TestRunner::new(Config { cases: 300, ..Config::default() });
    let lsn = prop_oneof![0..40u64, 0..4u64 << 20, u64::MAX - 4096..=u64::MAX, any::<u64>()];
    let questions = (0..3u16, lsn, any::<(u64, u64, u32, u32, u64)>());
    let asking = RefCell::new(&mut dialogue);
    let asked = runner.run(&questions, |(holding, lsn, (chain, time, term, run, run_id))| {
        let epoch = Epoch { term: Term(term), run };
        let (chain, time) = (Chain::from_u64(chain), Time::from_nanos(time));
        let from = Tip { lsn: Lsn::new(lsn), chain, time, epoch, run_id };
        let mut dialogue = asking.borrow_mut();
        dialogue.send(&Message::CopyAsk(CopyAsk { holding, from })).expect("sent");
        let answer = dialogue.receive(LONG).expect("an answer");
        let lacks = matches!(answer, Message::CopyLacks { .. });
        prop_assert!(lacks, "{answer:?}");
        Ok(())
    });
    asked.expect("every question is answered");

    let out_of_turn = Message::CopyState(CopyState::default());
    dialogue.send(&out_of_turn).expect("sent");
    let refused = dialogue.receive(LONG).expect("an answer");
    assert!(matches!(&refused, Message::Refused(refusal) if refusal.to_string().contains("a question was due")));
    let (mut silent, _) = ask(StreamId::random());
    silent.send(&Message::Bye { reason: "nothing here".into() }).expect("sent");
    assert!(silent.receive(LONG).is_err(), "closed");
    assert_eq!(ask(id).1, state);
    node.append(Level::Durable, LONG, &["more"]).expect("it goes on");
}

/// It is asked while it writes: every answer is entries of its log, up to the last that was written.
#[test]
fn a_log_that_grows_while_it_is_given_is_given_to_its_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let (node, id) = node_with_records(dir.path(), "a");
    let mut copies = NodeCopy::find(&Security::Loopback, &node.address(), None, id).expect("it answers");
    let record = "y".repeat(1000);
    let last = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let group = vec![record.as_str(); 50];
            (0..40).map(|_| node.append(Level::Written, LONG, &group).expect("acknowledged").lsn).max()
        });
        let mut tip = Tip::empty(id);
        until(|| {
            let (_, end, fault) = follow(&mut copies[0], tip);
            assert_eq!(fault, None);
            tip = end;
            writer.is_finished()
        });
        writer.join().expect("no panic").expect("a group")
    });
    let end = follow(&mut copies[0], Tip::empty(id)).1;
    assert!(end.lsn.get() >= last, "{} of {last}", end.lsn);
}
