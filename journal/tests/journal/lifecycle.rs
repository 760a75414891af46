//! One journal from its creation to its second life: what goes in comes out, and a torn tail or rot is told apart.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use journal::{
    Assembler, Class, Cursor, Error, Flags, Geometry, Host, Item, Journal, Kind, Level, Lsn, NodeId, Options, Reason,
    Role, RunOpening, SEGMENT_HEADER_BYTES, Source, StreamId, Term, TermSeen, Tip, WaitError, offline,
};

use crate::host::TestClock;
use crate::waiters::block_on;

pub(crate) fn small() -> Options {
    Options { geometry: Geometry::new(64 << 10).unwrap(), ..Options::default() }
}

pub(crate) fn create(dir: &Path) -> Journal {
    Journal::create(dir, StreamId::random(), NodeId::random(), Role::Primary, small()).unwrap()
}

pub(crate) fn start_run(journal: &Journal) {
    journal.open_run(RunOpening { promote: None, reason: Reason::Started, policy: b"{}".to_vec() }).unwrap();
}

pub(crate) fn records(journal: &Journal) -> Vec<Vec<u8>> {
    collect(&mut journal.entries(journal.start()).unwrap())
}

pub(crate) fn offline_records(dir: &Path) -> Vec<Vec<u8>> {
    collect(&mut offline::Log::open(dir).unwrap().entries(None).unwrap())
}

fn collect(source: &mut impl Source) -> Vec<Vec<u8>> {
    let mut assembler = Assembler::default();
    let mut out = Vec::new();
    while let Some(entry) = source.next_entry().unwrap() {
        if entry.header.kind == Some(Kind::Data)
            && let Some(record) = assembler.push(&entry)
        {
            out.push(record.payload.to_vec());
        }
    }
    out
}

fn sample(number: usize) -> Vec<u8> {
    vec![number as u8; (number * 977) % 9000]
}

pub(crate) fn segment_file(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:016x}.seg"))
}

pub(crate) fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], offset).unwrap();
}

#[test]
fn what_goes_in_comes_out_also_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let mut wanted = Vec::new();
    for life in 0..4 {
        let journal = if life == 0 { create(dir.path()) } else { Journal::open(dir.path(), small()).unwrap() };
        assert_eq!(records(&journal), wanted);
        start_run(&journal);
        for number in 0..60 {
            let payload = sample(life * 60 + number);
            let ticket = journal.append(Item::record(&[&payload, b"tail"])).unwrap();
            wanted.push([&payload[..], b"tail"].concat());
            if number % 20 == 0 {
                assert_eq!(ticket.durable().unwrap().level, Level::Durable);
            }
        }
        let lsn = journal.sync().unwrap().lsn();
        assert_eq!(lsn, journal.board().durable());
        assert_eq!(records(&journal), wanted);
        assert_eq!(offline_records(dir.path()), wanted);
        if life % 2 == 0 {
            journal.close().unwrap();
        }
    }
    let journal = Journal::open(dir.path(), small()).unwrap();
    assert_eq!(records(&journal), wanted);
    assert_eq!(journal.history().openings().len(), 4);
}

#[test]
fn a_record_of_many_entries_and_an_empty_one_come_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    let large: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    journal.append(Item::record(&[&large])).unwrap();
    journal.append(Item::record(&[])).unwrap();
    journal.append_many(&[Item::record(&[b"a"]), Item::record(&[&large, &large])]).unwrap();
    journal.sync().unwrap();
    let wanted = vec![large.clone(), vec![], b"a".to_vec(), [large.clone(), large].concat()];
    assert_eq!(records(&journal), wanted);
    drop(journal);
    assert_eq!(records(&Journal::open(dir.path(), small()).unwrap()), wanted);
}

#[test]
fn a_record_above_the_limit_is_refused_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { record_bytes_max: 1000, ..small() };
    let journal = Journal::create(dir.path(), StreamId::random(), NodeId::random(), Role::Primary, options).unwrap();
    start_run(&journal);
    journal.append(Item::record(&[b"before"])).unwrap();
    let error = journal.append(Item::record(&[&[0; 1001]])).unwrap_err();
    assert!(matches!(error, Error::TooLarge { bytes: 1001, bytes_max: 1000 }), "{error}");
    journal.append(Item::record(&[b"after"])).unwrap();
    journal.sync().unwrap();
    assert_eq!(records(&journal), [b"before".to_vec(), b"after".to_vec()]);
}

#[test]
fn a_run_that_wrote_nothing_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    journal.close().unwrap();
    let journal = Journal::open(dir.path(), small()).unwrap();
    assert_eq!(journal.written_tip(), Tip::empty(journal.stream()));
    assert!(journal.history().openings().is_empty());
    start_run(&journal);
    assert_eq!(journal.append(Item::record(&[b"x"])).unwrap().epoch().run, 2, "a run number is never given twice");
}

#[test]
fn nobody_appends_without_an_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    assert_eq!(journal.append(Item::record(&[b"x"])).unwrap_err().class(), Class::Refused);
}

#[test]
fn a_second_opener_is_told_who_holds_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let _journal = create(dir.path());
    let error = Journal::open(dir.path(), small()).unwrap_err();
    assert!(matches!(error, Error::Locked { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
}

#[test]
fn an_empty_folder_is_absent_and_a_foreign_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Journal::open(dir.path(), small()).unwrap_err().class(), Class::Absent);
    std::fs::write(dir.path().join("control"), b"something else").unwrap();
    let error = Journal::open(dir.path(), small()).unwrap_err();
    assert_eq!(error.class(), Class::Corrupt, "{error}");
    assert!(error.to_string().contains("truncated"), "{error}");
}

#[test]
fn a_bad_entry_above_the_evidence_is_a_torn_tail_and_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    journal.append(Item::record(&[b"kept"])).unwrap();
    let kept = journal.sync().unwrap().lsn();
    journal.append(Item::record(&[&[7; 500]])).unwrap().written().unwrap();
    journal.append(Item::record(&[&[8; 500]])).unwrap().written().unwrap();
    drop(journal);
    flip(&segment_file(dir.path(), 0), SEGMENT_HEADER_BYTES as u64 + kept.get() + 200);
    let journal = Journal::open(dir.path(), small()).unwrap();
    assert_eq!(journal.report().torn.unwrap().from, kept);
    assert_eq!(records(&journal), [b"kept".to_vec()]);
    start_run(&journal);
    journal.append(Item::record(&[b"new"])).unwrap().durable().unwrap();
    drop(journal);
    let journal = Journal::open(dir.path(), small()).unwrap();
    assert_eq!(records(&journal), [b"kept".to_vec(), b"new".to_vec()]);
}

/// The other slot used to hold the facts of before: a fenced node whose newest slot rotted came back as the primary.
#[test]
fn either_copy_of_the_facts_is_enough_and_neither_is_an_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    journal.append(Item::record(&[b"x"])).unwrap().durable().unwrap();
    let by = TermSeen { term: Term(9), id: 99 };
    journal.fence(by).unwrap();
    drop(journal);
    let path = dir.path().join("control");
    let whole = std::fs::read(&path).unwrap();
    for slot in [0, 256 << 10] {
        std::fs::write(&path, &whole).unwrap();
        flip(&path, slot + 30);
        let journal = Journal::open(dir.path(), small()).unwrap();
        assert_eq!((journal.role(), journal.term_seen()), (Role::Fenced, by), "without the copy at byte {slot}");
    }
}

/// Between the sync that carries a log into its next segment and the sync of the evidence, entries in that next segment are
/// all that says how far the one before was durable.
#[test]
fn an_entry_of_the_next_segment_tells_rot_from_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    let kept = journal.append(Item::record(&[b"kept"])).unwrap().durable().unwrap().lsn;
    let control = std::fs::read(dir.path().join("control")).unwrap();
    for number in 0..20 {
        journal.append(Item::record(&[&[number; 5000]])).unwrap().durable().unwrap();
    }
    drop(journal);
    std::fs::write(dir.path().join("control"), control).unwrap();
    flip(&segment_file(dir.path(), 0), SEGMENT_HEADER_BYTES as u64 + kept.get() + 200);
    let zeros = vec![0; (64 << 10) - kept.get() as usize - 6000];
    let file = OpenOptions::new().write(true).open(segment_file(dir.path(), 0)).unwrap();
    file.write_all_at(&zeros, SEGMENT_HEADER_BYTES as u64 + kept.get() + 6000).unwrap();
    let error = Journal::open(dir.path(), small()).unwrap_err();
    assert!(matches!(&error, Error::Rot { range, .. } if range.from == kept), "{error}");
}

#[test]
fn a_bad_entry_below_the_evidence_is_rot_with_its_exact_range_and_the_file_stays() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    let first = journal.append(Item::record(&[&[1; 500]])).unwrap().lsn();
    let second = journal.append(Item::record(&[&[2; 500]])).unwrap().lsn();
    journal.append(Item::record(&[&[3; 500]])).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let path = segment_file(dir.path(), 0);
    // once in the header (its length can't be believed), once in the payload
    for offset in [20, 200] {
        flip(&path, SEGMENT_HEADER_BYTES as u64 + first.get() + offset);
        let before = std::fs::read(&path).unwrap();
        let error = Journal::open(dir.path(), small()).unwrap_err();
        let Error::Rot { range, .. } = &error else { panic!("{error}") };
        assert_eq!((range.from, range.to), (first, second), "{error}");
        assert_eq!(error.class(), Class::Corrupt);
        let log = offline::Log::open(dir.path()).unwrap();
        let mut entries = log.entries(None).unwrap();
        let error = loop {
            match entries.next_entry() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("rot was passed over"),
                Err(error) => break error,
            }
        };
        let Error::Rot { range, .. } = &error else { panic!("{error}") };
        assert_eq!((range.from, range.to), (first, second), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before, "the file stays as it is");
        flip(&path, SEGMENT_HEADER_BYTES as u64 + first.get() + offset);
    }
    assert_eq!(records(&Journal::open(dir.path(), small()).unwrap()).len(), 3);
}

#[test]
fn a_missing_truncated_or_foreign_segment_is_corrupt() {
    let make = |dir: &Path| {
        let journal = create(dir);
        start_run(&journal);
        for _ in 0..40 {
            journal.append(Item::record(&[&[1; 5000]])).unwrap();
        }
        journal.close().unwrap();
    };
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let last = segment_file(dir.path(), 3 * (64 << 10));
    OpenOptions::new().write(true).open(&last).unwrap().set_len(10_000).unwrap();
    let error = Journal::open(dir.path(), small()).unwrap_err();
    assert_eq!(error.class(), Class::Corrupt);
    assert!(error.to_string().contains("truncated"), "{error}");
    std::fs::remove_file(&last).unwrap();
    let error = Journal::open(dir.path(), small()).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
    let other = tempfile::tempdir().unwrap();
    make(other.path());
    let log = offline::Log::open(dir.path()).unwrap();
    let mut entries = log.entries(None).unwrap();
    let error = loop {
        match entries.next_entry() {
            Ok(entry) => assert!(entry.is_some(), "a missing segment was taken for the end"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("missing: entries 196608.."), "{error}");
    std::fs::copy(segment_file(other.path(), 3 * (64 << 10)), &last).unwrap();
    let error = Journal::open(dir.path(), small()).unwrap_err();
    assert!(error.to_string().contains("belongs to stream"), "{error}");
}

#[test]
fn a_receiver_keeps_the_same_bytes_and_a_gap_is_refused() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let journal = create(here.path());
    let copy = Journal::create(there.path(), journal.stream(), NodeId::random(), Role::Receiver, small()).unwrap();
    start_run(&journal);
    for number in 0..100 {
        journal.append(Item::record(&[&sample(number)])).unwrap();
    }
    journal.write().unwrap();
    let mut cursor = Cursor::new(copy.geometry(), Tip::empty(copy.stream()));
    let mut skipped = None;
    while let Some(slice) = journal.slice(cursor.tip().lsn, 20_000).unwrap() {
        let run = cursor.verify(&slice).unwrap();
        assert_eq!(run.bytes().len(), slice.len(), "slices are whole entries");
        if run.range().from > Lsn::ZERO && skipped.is_none() {
            let mut ahead = cursor;
            if let Some(next) = journal.slice(cursor.tip().lsn, 20_000).unwrap() {
                let later = ahead.verify(&next).unwrap();
                assert!(matches!(copy.extend(&later), Err(Error::Gap { .. })));
                skipped = Some(());
            }
        }
        copy.extend(&run).unwrap();
    }
    copy.sync().unwrap();
    assert_eq!(copy.written_tip(), journal.written_tip());
    assert_eq!(copy.history(), journal.history());
    assert_eq!(records(&copy), records(&journal));
    journal.sync().unwrap();
    for first in (0..4).map(|index| index * (64 << 10)) {
        let bodies = [&here, &there].map(|dir| std::fs::read(segment_file(dir.path(), first)).unwrap());
        assert!(bodies[0][SEGMENT_HEADER_BYTES..] == bodies[1][SEGMENT_HEADER_BYTES..], "byte-identical bodies");
    }
    let end = copy.written_tip();
    drop(copy);
    assert_eq!(Journal::open(there.path(), small()).unwrap().written_tip(), end);
}

#[test]
fn a_cut_keeps_the_tail_as_a_branch_and_the_log_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    for number in 0..20 {
        journal.append(Item::record(&[&[number; 5000]])).unwrap();
    }
    let to = journal.sync().unwrap().lsn();
    for number in 20..60 {
        journal.append(Item::record(&[&[number; 5000]])).unwrap();
    }
    let end = journal.sync().unwrap().lsn();
    let pinned = journal.slice(to, 10_000).unwrap().unwrap();
    let before = pinned.to_vec();
    let branch = journal.cut(to).unwrap();
    assert_eq!((branch.range.from, branch.range.to), (to, end));
    assert_eq!(pinned[..], before[..], "a slice of the cut tail stays as it was");
    assert_eq!(records(&journal).len(), 20);
    let branch = offline_records(&branch.path);
    assert!(branch.len() > 40 && branch.ends_with(&[vec![59; 5000]]), "the branch is a journal of its own");
    start_run(&journal);
    journal.append(Item::record(&[b"after the cut"])).unwrap().durable().unwrap();
    drop(journal);
    let journal = Journal::open(dir.path(), small()).unwrap();
    assert_eq!(records(&journal).len(), 21);
    assert_eq!(journal.report().torn, None);
}

/// A walk holds on to the segment that it stands in. After a cut the old file is the branch: a walk that went on in it
/// would return entries that are in no log any more.
#[test]
fn a_walk_returns_nothing_of_a_cut_tail() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    journal.append(Item::record(&[b"stays"])).unwrap();
    let to = journal.sync().unwrap().lsn();
    for _ in 0..2 {
        journal.append(Item::record(&[b"is cut"])).unwrap();
    }
    journal.sync().unwrap();
    let mut inside = journal.entries(to).unwrap();
    inside.next_entry().unwrap().unwrap();
    let mut below = journal.entries(Lsn::ZERO).unwrap();
    while below.tip().lsn < to {
        below.next_entry().unwrap().unwrap();
    }
    journal.cut(to).unwrap();
    start_run(&journal);
    for _ in 0..9 {
        journal.append(Item::record(&[b"is new"])).unwrap();
    }
    journal.sync().unwrap();
    assert!(matches!(inside.next_entry(), Err(Error::NotReached { .. })), "it stood in what is gone");
    let mut payloads = Vec::new();
    while let Some(entry) = below.next_entry().unwrap() {
        payloads.extend((entry.header.kind == Some(Kind::Data)).then(|| entry.payload.to_vec()));
    }
    assert_eq!(payloads, vec![b"is new".to_vec(); 9]);
}

#[test]
fn pruning_moves_the_start_and_recycles_what_nobody_reads() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    for number in 0..60 {
        journal.append(Item::record(&[&[number; 5000]])).unwrap();
    }
    let middle = journal.sync().unwrap().lsn();
    let pinned = journal.slice(Lsn::ZERO, 10_000).unwrap().unwrap();
    let before = pinned.to_vec();
    let start = journal.prune(middle).unwrap();
    assert!(start > Lsn::ZERO && start <= middle);
    assert!(matches!(journal.slice(Lsn::ZERO, 1), Err(Error::Pruned { .. })));
    for number in 0..200 {
        journal.append(Item::record(&[&[number; 5000]])).unwrap();
    }
    journal.sync().unwrap();
    assert_eq!(pinned[..], before[..], "a pinned segment is not recycled");
    drop(pinned);
    let kept = records(&journal);
    journal.close().unwrap();
    let journal = Journal::open(dir.path(), small()).unwrap();
    assert_eq!(journal.start(), start);
    assert_eq!(records(&journal), kept);
    assert_eq!(offline_records(dir.path()), kept);
}

#[test]
fn what_a_recycled_file_held_before_is_no_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    for number in 0..100 {
        let end = journal.append(Item::record(&[&[number; 5000]])).unwrap().durable().unwrap().lsn;
        journal.prune(end).unwrap();
    }
    drop(journal);
    assert_eq!(Journal::open(dir.path(), small()).unwrap().report().torn, None);
}

#[test]
fn an_instant_is_found_behind_the_last_entry_that_is_not_younger() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    let mut marks = Vec::new();
    for number in 0..80 {
        let item = Item { kind: Kind::Mark, flags: Flags::NONE, ..Item::record(&[b"m"]) };
        journal.append(item).unwrap();
        journal.append(Item::record(&[&[number; 4000]])).unwrap().written().unwrap();
        marks.push((journal.written_tip().time, journal.written_tip().lsn));
    }
    for (time, lsn) in marks {
        assert_eq!(journal.find_time(time).unwrap(), lsn);
    }
}

/// The log's own time stays ahead of a clock that was stepped back, by an hour for an hour: every append in that hour was
/// taken for another step, and each got an entry that said so.
#[test]
fn a_step_of_the_clock_is_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::default();
    let host = Host { clock: Arc::new(clock.clone()), ..Host::default() };
    let options = Options { host, ..small() };
    let journal = Journal::create(dir.path(), StreamId::random(), NodeId::random(), Role::Primary, options).unwrap();
    start_run(&journal);
    for _ in 0..2 {
        clock.step_back(3_600_000_000_000);
        for _ in 0..5 {
            journal.append(Item::record(&[b"x"])).unwrap();
        }
    }
    journal.write().unwrap();
    let mut entries = journal.entries(Lsn::ZERO).unwrap();
    let mut steps = 0;
    while let Some(entry) = entries.next_entry().unwrap() {
        steps += usize::from(entry.header.kind == Some(Kind::Clock));
    }
    assert_eq!(steps, 1, "the first is of before there was anything");
    assert_eq!(records(&journal).len(), 10);
}

#[test]
fn many_threads_append_and_each_acknowledgement_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    journal.spawn_flusher().unwrap();
    start_run(&journal);
    std::thread::scope(|scope| {
        for thread in 0..16u8 {
            let journal = &journal;
            scope.spawn(move || {
                for number in 0..50u8 {
                    let ticket = journal.append(Item::record(&[&[thread, number]])).unwrap();
                    let ack = ticket.wait(Level::Durable, Duration::from_secs(60)).unwrap();
                    assert!(ack.lsn <= journal.board().durable());
                }
            });
        }
    });
    let mut seen = records(&journal);
    assert_eq!(seen.len(), 800);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 800, "none lost, none doubled");
    journal.close().unwrap();
}

/// A task that waits needs a sync by somebody else; nobody was asked to start a thread for it.
#[test]
fn a_task_waits_without_a_flush_thread_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    let ticket = journal.append(Item::record(&[b"x"])).unwrap();
    let ack = block_on(ticket.level(Level::Durable)).unwrap();
    assert!(ack.lsn <= journal.board().durable());
}

/// The flush thread doesn't keep a journal open that nobody holds any more.
#[test]
fn a_dropped_journal_is_let_go_by_its_flush_thread() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    journal.spawn_flusher().unwrap();
    start_run(&journal);
    journal.append(Item::record(&[b"x"])).unwrap().durable().unwrap();
    drop(journal);
    let journal = loop {
        match Journal::open(dir.path(), small()) {
            Err(error) if error.class() == Class::Locked => std::thread::yield_now(),
            opened => break opened.unwrap(),
        }
    };
    assert_eq!(records(&journal), [b"x"]);
}

/// Nobody started a flush thread: those who sync make the next segment, so that no append has to.
#[test]
fn segments_are_made_beside_commits_without_a_flush_thread() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    let spares = || std::fs::read_dir(dir.path().join("pool")).unwrap().count();
    journal.append(Item::record(&[b"x"])).unwrap().durable().unwrap();
    assert!(spares() > 0, "one is under way, or ready");
}

#[test]
fn a_peer_level_is_not_reached_by_the_own_disk_and_times_out_as_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    let ticket = journal.append(Item::record(&[b"x"])).unwrap();
    let error = ticket.wait(Level::PeerDurable, Duration::from_millis(1)).unwrap_err();
    assert_eq!(error.class(), Class::Unknown);
    let remote = journal::Remote { received: ticket.lsn(), promised: Lsn::MAX, ..Default::default() };
    journal.sync().unwrap();
    journal.board().set_remote(remote);
    assert_eq!(ticket.wait(Level::Received, Duration::ZERO).unwrap().level, Level::Received);
    assert!(ticket.wait(Level::PeerDurable, Duration::ZERO).is_err());
    journal.board().set_remote(journal::Remote::default());
    assert_eq!(journal.board().committed(), ticket.lsn(), "the commit point survives the connection");
    assert!(ticket.wait(Level::Received, Duration::ZERO).is_err(), "what a peer held on an ended connection is gone");
}

/// Entries carry the durable point of the node that wrote them. On another node the same words prove nothing: its disk
/// has made no such sync. Here the copy loses an unsynced entry in the middle; that is a torn tail, not rot.
#[test]
fn what_another_node_had_durable_is_no_evidence_here() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let journal = create(here.path());
    let copy = Journal::create(there.path(), journal.stream(), NodeId::random(), Role::Receiver, small()).unwrap();
    start_run(&journal);
    let first = journal.append(Item::record(&[&[1; 500]])).unwrap().lsn();
    for number in 2..6 {
        journal.append(Item::record(&[&[number; 500]])).unwrap().durable().unwrap();
    }
    let mut cursor = Cursor::new(copy.geometry(), Tip::empty(copy.stream()));
    let slice = journal.slice(Lsn::ZERO, 1 << 20).unwrap().unwrap();
    copy.extend(&cursor.verify(&slice).unwrap()).unwrap();
    drop(copy);
    drop(journal);
    for dir in [here.path(), there.path()] {
        flip(&segment_file(dir, 0), SEGMENT_HEADER_BYTES as u64 + first.get() + 200);
    }
    assert_eq!(Journal::open(here.path(), small()).unwrap_err().class(), Class::Corrupt);
    let copy = Journal::open(there.path(), small()).unwrap();
    assert_eq!(copy.written_tip().lsn, first);
}

/// A second of evidence may be missing after a power cut: the control file is synced once a second. The entries that
/// this node itself wrote behind a damaged one say that it had been durable.
#[test]
fn rot_behind_the_synced_evidence_is_told_from_a_torn_tail_by_later_entries() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    let control = dir.path().join("control");
    start_run(&journal);
    let first = journal.append(Item::record(&[&[1; 500]])).unwrap().lsn();
    let before = std::fs::read(&control).unwrap();
    for number in 2..6 {
        journal.append(Item::record(&[&[number; 500]])).unwrap().durable().unwrap();
    }
    drop(journal);
    std::fs::write(&control, before).unwrap();
    flip(&segment_file(dir.path(), 0), SEGMENT_HEADER_BYTES as u64 + first.get() + 200);
    let error = Journal::open(dir.path(), small()).unwrap_err();
    let Error::Rot { range, .. } = &error else { panic!("{error}") };
    assert_eq!(range.from, first);
}

#[test]
fn no_flipped_bit_of_an_entry_passes_the_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    let from = journal.append(Item::record(&[b"first"])).unwrap().lsn();
    let to = journal.append(Item::record(&[b"the one that is damaged"])).unwrap().lsn();
    journal.append(Item::record(&[b"last"])).unwrap();
    journal.write().unwrap();
    let tip = journal.tip_at(from).unwrap().unwrap();
    let bytes = journal.slice(from, 1 << 20).unwrap().unwrap().to_vec();
    assert!(Cursor::new(journal.geometry(), tip).verify(&bytes).is_ok());
    for bit in 0..(to.bytes_since(from) as usize) * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let mut cursor = Cursor::new(journal.geometry(), tip);
        match cursor.verify(&damaged) {
            Err(fault) => assert_eq!(fault.at, from, "bit {bit}"),
            Ok(run) => assert!(run.range().is_empty(), "bit {bit} passed"),
        }
    }
}

#[test]
fn whoever_waits_is_told_which_end_it_was_and_not_of_a_write_that_failed_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    let kept = journal.append(Item::record(&[b"written before"])).unwrap();
    kept.written().unwrap();
    let late = journal.append(Item::record(&[b"staged, and then the end came"])).unwrap();
    journal.fence(TermSeen { term: Term(7), id: 7 }).unwrap();
    for level in [Level::Written, Level::Durable] {
        assert_eq!(late.wait(level, Duration::from_secs(60)).unwrap_err(), WaitError::Fenced { by: Term(7) });
    }
    // the write that this wait tries is refused, but nothing is missing
    kept.wait(Level::Written, Duration::from_secs(60)).unwrap();
}
