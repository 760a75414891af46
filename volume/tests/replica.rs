//! A replica and a restore from a real journal, through the one replay loop.

use std::fs;
use std::path::Path;

use journal::{
    Item, Journal, Lsn, Machine, NodeId, Options, Reason, Replay, Role, RunOpening, Stop, StreamId, Until, offline,
};
use volume::Output;
use volume::frames::{Frames, Splitter};
use volume::records::{Identity, RecordFile, Records};

fn journal(dir: &Path) -> Journal {
    let geometry = journal::Geometry::new(64 << 10).expect("the smallest body");
    let options = Options { geometry, ..Options::default() };
    let journal = Journal::create(dir, StreamId::random(), NodeId::random(), Role::Primary, options).expect("create");
    journal.open_run(RunOpening { promote: None, reason: Reason::Created, policy: Vec::new() }).expect("open a run");
    journal
}

/// Lines of every length, some longer than an entry of this geometry takes, some empty, the last without newline.
fn text() -> Vec<u8> {
    let lines: Vec<String> = (0..400).map(|n| "x".repeat(if n % 97 == 96 { 40_000 } else { n * 7 % 300 })).collect();
    (lines.join("\n") + "\nthe end").into_bytes()
}

/// Appends the text as records; returns where each ends.
fn append(journal: &Journal, text: &[u8]) -> Vec<Lsn> {
    let mut splitter = Splitter::new(Frames::Lines, 1 << 20);
    splitter.push(text);
    splitter.end();
    let mut ends = Vec::new();
    while let Some(record) = splitter.next_record().expect("no line is too long") {
        let parts = [record.payload];
        let item = Item { flags: record.flags, ..Item::record(&parts) };
        ends.push(journal.append(item).expect("append").lsn());
    }
    ends
}

#[test]
fn the_replica_follows_the_durable_point_and_survives_being_dropped() {
    let dir = tempfile::tempdir().expect("a folder");
    let journal = journal(&dir.path().join("journal"));
    let identity = Identity { stream: journal.stream(), volume: 0 };
    let folder = dir.path().join("records");
    let text = text();
    let mut ends = Vec::new();
    let mut safe = Lsn::ZERO;
    for piece in text.split_inclusive(|&byte| byte == b'\n').collect::<Vec<_>>().chunks(50) {
        ends.extend(append(&journal, &piece.concat()));
        let durable = journal.sync().expect("sync").lsn();
        append(&journal, b""); // nothing: an empty input is no record
        let mut records = Records::open(&folder, identity, safe).expect("open");
        let entries = journal.entries(records.applied()).expect("the checkpoint is an entry's start");
        let mut replay = Replay::new(entries, 0);
        let middle = ends[ends.len() - 3];
        let done = replay.run(&mut records, Until::lsn(middle)).expect("replay");
        assert_eq!((done.reached, done.stop), (middle, Stop::Bound));
        if ends.len().is_multiple_of(100) {
            safe = records.checkpoint().expect("checkpoint");
        }
        replay.run(&mut records, Until::lsn(durable)).expect("replay");
        // dropped without a checkpoint: the next round begins at the last one
    }
    let file = RecordFile::open(&folder).expect("open");
    let mut walk = file.walk(Lsn::ZERO).expect("walk");
    let mut lines = text.split(|&byte| byte == b'\n');
    for end in ends {
        let record = walk.next_record().expect("read").expect("a record for each line");
        assert_eq!((record.end, Some(record.payload)), (end, lines.next()));
    }
    assert_eq!((walk.next_record().expect("read"), lines.next()), (None, None));
}

#[test]
fn a_restore_gives_the_input_back_live_and_offline() {
    let dir = tempfile::tempdir().expect("a folder");
    let journal = journal(&dir.path().join("journal"));
    let text = text();
    let ends = append(&journal, &text);
    journal.sync().expect("sync");
    let target = dir.path().join("live.txt");
    let mut output = Output::to_file(&target, false, Frames::Lines, 0, Lsn::ZERO).expect("begin");
    let entries = journal.entries(Lsn::ZERO).expect("entries");
    Replay::new(entries, 0).run(&mut output, Until::END).expect("replay");
    assert_eq!(output.finish().expect("finish").records, ends.len() as u64);
    assert!(fs::read(&target).expect("read") == text, "the same bytes");

    journal.close().expect("close");
    let log = offline::Log::open(&dir.path().join("journal")).expect("open");
    for (records, bound) in [(ends.len(), Lsn::MAX), (97, ends[96]), (96, Lsn::new(ends[96].get() - 1))] {
        let target = dir.path().join(format!("{records}.txt"));
        let mut output = Output::to_file(&target, false, Frames::Lines, 0, Lsn::ZERO).expect("begin");
        let entries = log.entries(None).expect("entries");
        Replay::new(entries, 0).run(&mut output, Until::lsn(bound)).expect("replay");
        assert_eq!(output.finish().expect("finish").records, records as u64);
        let expected: Vec<u8> = text.split_inclusive(|&byte| byte == b'\n').take(records).flatten().copied().collect();
        assert!(fs::read(&target).expect("read") == expected, "{records} records");
    }
}
