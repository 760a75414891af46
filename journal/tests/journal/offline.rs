//! A journal looked at from outside: what is damaged is named exactly, and what proves itself is read all the same.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use journal::offline::{Entries, Log, segments};
use journal::{
    Class, Error, Geometry, Item, Journal, Lsn, LsnRange, NodeId, Options, Role, SEGMENT_HEADER_BYTES, StreamId,
};

use crate::lifecycle::{create, flip, segment_file, small, start_run};

const SEGMENT: u64 = 64 << 10;
const HEADER: u64 = SEGMENT_HEADER_BYTES as u64;

/// Five segments of records, closed; where each record ends.
fn filled(dir: &Path) -> Vec<Lsn> {
    let journal = create(dir);
    start_run(&journal);
    let append = |number: u8| journal.append(Item::record(&[&[number; 1000]])).unwrap().lsn();
    let ends = (0..250).map(append).collect();
    journal.close().unwrap();
    ends
}

/// Everything that a walk finds: entries, and what it stepped over.
fn walk(mut entries: Entries<'_>) -> (Vec<LsnRange>, Vec<Error>) {
    let (mut found, mut damage) = (Vec::new(), Vec::new());
    loop {
        match entries.next_entry() {
            Ok(Some(entry)) => found.push(entry.header.range()),
            Ok(None) => return (found, damage),
            Err(error) => {
                damage.push(error);
                if !entries.step_over() {
                    return (found, damage);
                }
            }
        }
    }
}

fn walk_all(dir: &Path) -> (Vec<LsnRange>, Vec<Error>) {
    walk(Log::open(dir).unwrap().entries(None).unwrap())
}

fn rot(error: &Error) -> LsnRange {
    let Error::Rot { range, .. } = error else { panic!("{error}") };
    *range
}

#[test]
fn entries_before_and_behind_a_damaged_one_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let ends = filled(dir.path());
    let (whole, damage) = walk_all(dir.path());
    assert!(damage.is_empty());
    let hurt = LsnRange::new(ends[9], ends[10]);
    let path = segment_file(dir.path(), 0);
    // in its payload: the chain proves its header, and so where it ends
    flip(&path, HEADER + hurt.from.get() + 200);
    let (found, damage) = walk_all(dir.path());
    assert_eq!(damage.iter().map(rot).collect::<Vec<_>>(), [hurt]);
    assert_eq!(found, whole.iter().filter(|range| **range != hurt).copied().collect::<Vec<_>>());
    flip(&path, HEADER + hurt.from.get() + 200);
    // in its header: nothing proves what is behind it before the next segment
    flip(&path, HEADER + hurt.from.get() + 20);
    let (found, damage) = walk_all(dir.path());
    assert_eq!(damage.iter().map(rot).collect::<Vec<_>>(), [hurt]);
    let proven = |range: &&LsnRange| range.from < hurt.from || range.from.get() >= SEGMENT;
    assert_eq!(found, whole.iter().filter(proven).copied().collect::<Vec<_>>());
}

#[test]
fn a_walk_may_begin_behind_damage_but_not_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let ends = filled(dir.path());
    flip(&segment_file(dir.path(), 0), HEADER + ends[9].get() + 200);
    flip(&segment_file(dir.path(), 0), HEADER + ends[20].get() + 20);
    let log = Log::open(dir.path()).unwrap();
    let from = |lsn: Lsn| log.entries(Some(lsn));
    assert_eq!(walk(from(ends[9]).unwrap()).1.len(), 2, "it begins with the damaged entry itself");
    let (found, damage) = walk(from(ends[10]).unwrap());
    assert_eq!((found[0].from, damage.len()), (ends[10], 1));
    assert_eq!(from(ends[21]).unwrap_err().class(), Class::Corrupt, "what is in front of it proves nothing");
    let (found, damage) = walk(from(Lsn::new(SEGMENT)).unwrap());
    assert_eq!((found[0].from.get(), damage.len()), (SEGMENT, 0));
}

/// The next entry was looked for in what had been read, a MiB: an end further on was not found.
#[test]
fn the_end_of_a_long_damaged_entry_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { geometry: Geometry::new(4 << 20).unwrap(), ..Options::default() };
    let journal = Journal::create(dir.path(), StreamId::random(), NodeId::random(), Role::Primary, options).unwrap();
    start_run(&journal);
    let append = |bytes: usize| journal.append(Item::record(&[&vec![7; bytes]])).unwrap().lsn();
    let ends = [append(500_000), append(1_048_000), append(100_000)];
    journal.close().unwrap();
    flip(&segment_file(dir.path(), 0), HEADER + ends[0].get() + 60);
    let (found, damage) = walk_all(dir.path());
    assert_eq!(damage.iter().map(rot).collect::<Vec<_>>(), [LsnRange::new(ends[0], ends[1])]);
    assert_eq!(found.last().map(|range| range.to), Some(ends[0]));
}

#[test]
fn a_segment_that_can_not_be_read_is_named_and_the_others_are_read() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let (whole, _) = walk_all(dir.path());
    let range = |number: u64| LsnRange::new(Lsn::new(number * SEGMENT), Lsn::new((number + 1) * SEGMENT));
    let [second, fourth] = [1, 3].map(|number| segment_file(dir.path(), number * SEGMENT));
    let kept = fs::read(&second).unwrap();
    fs::remove_file(&fourth).unwrap();
    let damages: [(&str, &dyn Fn()); 3] = [
        ("both copies of its header", &|| [100, 2148].into_iter().for_each(|offset| flip(&second, offset))),
        ("missing", &|| fs::remove_file(&second).unwrap()),
        ("but this is a segment of stream", &|| {
            fs::copy(segment_file(dir.path(), 0), &second).unwrap();
        }),
    ];
    for (what, damage) in damages {
        fs::write(&second, &kept).unwrap();
        damage();
        let log = Log::open(dir.path()).unwrap();
        let unreadable: Vec<_> = log.unreadable().iter().map(|bad| bad.range).collect();
        assert_eq!(unreadable, [range(1), range(3)], "{what}");
        assert_eq!(log.segments().len() + 2, 5, "{what}");
        let (found, errors) = walk(log.entries(None).unwrap());
        assert_eq!(errors.len(), 2, "{what}");
        for (error, number) in errors.iter().zip([1, 3]) {
            assert_eq!(error.class(), Class::Corrupt, "{error}");
            assert!(error.to_string().contains(&range(number).to_string()), "{error}");
        }
        assert!(errors[0].to_string().contains(what), "{}", errors[0]);
        assert!(errors[1].to_string().contains("missing"), "{}", errors[1]);
        let inside =
            |at: &LsnRange| [1, 3].iter().any(|number| range(*number).from <= at.from && at.from < range(*number).to);
        assert_eq!(found, whole.iter().filter(|at| !inside(at)).copied().collect::<Vec<_>>(), "{what}");
    }
    // three in a row
    let third = segment_file(dir.path(), 2 * SEGMENT);
    for path in [&second, &third] {
        if path == &second {
            fs::write(path, &kept).unwrap();
        }
        [100, 2148].into_iter().for_each(|offset| flip(path, offset));
    }
    let (found, errors) = walk_all(dir.path());
    assert_eq!(errors.len(), 3, "each is named: {errors:?}");
    assert_eq!(found.last(), whole.last());
    [100, 2148].into_iter().for_each(|offset| flip(&third, offset));
    // what is whole says so without the control file too
    fs::remove_file(dir.path().join("control")).unwrap();
    assert_eq!(Log::open(dir.path()).unwrap_err().class(), Class::Corrupt);
    let said: Vec<bool> = segments(dir.path()).unwrap().iter().map(Result::is_ok).collect();
    assert_eq!(said, [true, false, true, true]);
}

/// A node refuses to start over this; `verify` called it a write that was not finished, and fine.
#[test]
fn what_later_entries_say_was_durable_is_no_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    let control = dir.path().join("control");
    start_run(&journal);
    let first = journal.append(Item::record(&[&[1; 500]])).unwrap().lsn();
    let early = fs::read(&control).unwrap();
    for number in 2..6 {
        journal.append(Item::record(&[&[number; 500]])).unwrap().durable().unwrap();
    }
    drop(journal);
    fs::write(&control, early).unwrap();
    let path = segment_file(dir.path(), 0);
    flip(&path, HEADER + first.get() + 200);
    let (found, damage) = walk_all(dir.path());
    let refused = Journal::open(dir.path(), small()).unwrap_err();
    assert_eq!(damage.iter().map(rot).collect::<Vec<_>>(), [rot(&refused)]);
    assert_eq!(rot(&refused).from, first);
    assert!(found.iter().any(|range| range.from > first), "what is behind it is read");
}

/// What a node wrote between two reads is no sign of damage.
#[test]
fn a_journal_that_is_written_meanwhile_is_never_damaged() {
    // where a sync takes microseconds, much is written between two reads
    let memory = Path::new("/dev/shm");
    // and a short log is read to its end often
    for _ in 0..40 {
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let journal = create(dir.path());
        start_run(&journal);
        journal.append(Item::record(&[b"first"])).unwrap().durable().unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..3000 {
                    journal.append(Item::record(&[&[7; 300]])).unwrap().durable().unwrap();
                }
                done.store(true, Ordering::Relaxed);
            });
            while !done.load(Ordering::Relaxed) {
                let (found, damage) = walk_all(dir.path());
                assert!(damage.is_empty() && !found.is_empty(), "{damage:?}");
            }
        });
    }
}

#[test]
fn a_torn_tail_is_told_from_what_a_recycled_file_held_before() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    let early = fs::read(dir.path().join("control")).unwrap();
    // old segments become new ones, several times
    for _ in 0..12 {
        for _ in 0..60 {
            journal.append(Item::record(&[&[7; 1000]])).unwrap();
        }
        let end = journal.sync().unwrap().lsn();
        journal.prune(end).unwrap();
    }
    let end = journal.sync().unwrap().lsn();
    drop(journal);
    let log = Log::open(dir.path()).unwrap();
    let mut entries = log.entries(None).unwrap();
    while entries.next_entry().unwrap().is_some() {}
    assert_eq!((entries.tip().lsn, entries.torn()), (end, None));

    // one entry that nobody knows to be durable, and that isn't whole
    let torn = tempfile::tempdir().unwrap();
    let journal = create(torn.path());
    start_run(&journal);
    let first = journal.append(Item::record(&[&[1; 500]])).unwrap();
    first.durable().unwrap();
    let control = fs::read(torn.path().join("control")).unwrap();
    assert_ne!(control, early);
    journal.append(Item::record(&[&[2; 500]])).unwrap().written().unwrap();
    drop(journal);
    fs::write(torn.path().join("control"), control).unwrap();
    flip(&segment_file(torn.path(), 0), HEADER + first.lsn().get() + 200);
    let log = Log::open(torn.path()).unwrap();
    let mut entries = log.entries(None).unwrap();
    while entries.next_entry().unwrap().is_some() {}
    assert_eq!(entries.torn().map(|fault| fault.at), Some(first.lsn()));
}

/// A file that somebody put there, with a name that no segment can have, ended a look from outside with a panic.
#[test]
fn a_file_that_can_be_no_segment_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let segment = segment_file(dir.path(), 0);
    for name in ["ffffffffffffffff", "ffffffffffff0000", "0000000000000001", "+000000000000000", "00000000000A0000"] {
        fs::copy(&segment, dir.path().join(format!("{name}.seg"))).unwrap();
    }
    assert_eq!(Log::open(dir.path()).unwrap().unreadable().len(), 0);
    assert_eq!(segments(dir.path()).unwrap().len(), 5);
    Journal::open(dir.path(), small()).unwrap();
}
