//! Who needs the log, what is kept besides, and what happens at the budget.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use journal::testing::SimDisk;
use journal::{Class, Clock, Error, GiveWay, Host, Item, Journal, Lsn, NodeId, Options, Retain, Role, StreamId, Time};

use crate::host::{TestClock, folder, options};
use crate::lifecycle::{small, start_run};

const SEGMENT: u64 = 64 << 10;
/// File of one segment, for budgets.
const FILE: u64 = SEGMENT + 4096;
const NOTHING: Retain = Retain { bytes: 0, age: Duration::ZERO };

fn create(dir: &Path, options: Options) -> Journal {
    let journal = Journal::create(dir, StreamId::random(), NodeId::random(), Role::Primary, options).unwrap();
    start_run(&journal);
    journal
}

/// Appends about so many segments, durably: where the log ends then.
fn grow(journal: &Journal, segments: u64) -> Lsn {
    let end = journal.board().staged().advance(segments * SEGMENT);
    while journal.board().staged() < end {
        append(journal).unwrap();
    }
    journal.sync().unwrap().lsn()
}

fn append(journal: &Journal) -> journal::Result<()> {
    journal.append(Item::record(&[&[7; 5000]]))?;
    journal.sync().map(drop)
}

fn in_segments(lsn: Lsn) -> u64 {
    lsn.get() / SEGMENT
}

#[test]
fn what_a_holder_needs_is_kept_until_it_is_moved_or_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path(), Options { retain: Some(NOTHING), ..small() });
    let end = grow(&journal, 10);
    // nobody said what is needed
    assert_eq!(journal.prune_unneeded().unwrap(), Lsn::ZERO);
    let night = journal.hold("depot night", Lsn::ZERO);
    let peer = journal.hold("peer b", end);
    assert_eq!(journal.prune_unneeded().unwrap(), Lsn::ZERO);
    assert_eq!(journal.held().unwrap().to_string(), "depot night needs everything from LSN 0 on");
    // nor by a word that forgot it
    assert_eq!(journal.prune(end).unwrap(), Lsn::ZERO);
    night.set(Lsn::new(3 * SEGMENT + 1));
    assert_eq!(in_segments(journal.prune_unneeded().unwrap()), 3);
    // what it needs again and is gone is gone
    night.set(Lsn::ZERO);
    assert_eq!(in_segments(journal.prune_unneeded().unwrap()), 3);
    drop(night);
    assert_eq!(journal.held().unwrap().name, "peer b");
    assert_eq!(in_segments(journal.prune_unneeded().unwrap()), in_segments(end));
    drop(peer);
    assert_eq!(journal.held(), None);
}

#[test]
fn nothing_is_given_up_without_a_retention() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path(), Options { budget_bytes: 4 * FILE, ..small() });
    let _all = journal.hold("nobody", Lsn::MAX);
    let error = (0..1000).find_map(|_| append(&journal).err()).unwrap();
    assert!(matches!(error, Error::Budget { .. }), "{error}");
    assert!(error.to_string().contains("only on command"), "{error}");
    assert_eq!(journal.prune_unneeded().unwrap(), Lsn::ZERO);
    assert!(journal.prune(journal.board().durable()).unwrap() > Lsn::ZERO);
    append(&journal).unwrap();
}

#[derive(Debug, Default)]
struct Hours(AtomicU64);

impl Clock for Hours {
    fn now(&self) -> Time {
        Time::from_nanos(self.0.load(Ordering::Relaxed) * 3_600_000_000_000)
    }
}

#[test]
fn the_last_bytes_and_what_is_young_are_kept_though_nobody_needs_them() {
    let dir = tempfile::tempdir().unwrap();
    let hours = Arc::new(Hours::default());
    let options = |retain| {
        let host = Host { clock: Arc::clone(&hours) as Arc<dyn Clock>, ..Host::default() };
        Options { retain: Some(retain), host, ..small() }
    };
    let day = Duration::from_secs(24 * 3600);
    let mut journal = create(dir.path(), options(Retain { bytes: 5 * SEGMENT, age: Duration::ZERO }));
    for hour in 0..10 {
        hours.0.store(hour, Ordering::Relaxed);
        grow(&journal, 1);
    }
    let end = journal.board().durable();
    let all = journal.hold("nobody", Lsn::MAX);
    assert_eq!(in_segments(journal.prune_unneeded().unwrap()), in_segments(end) - 5);
    drop(all);
    for (now, age, kept) in [(9, day, in_segments(end) - 5), (30, day, 7), (32, day, 9), (99, day, in_segments(end))] {
        drop(journal);
        journal = Journal::open(dir.path(), options(Retain { bytes: 0, age })).unwrap();
        hours.0.store(now, Ordering::Relaxed);
        let _all = journal.hold("nobody", Lsn::MAX);
        let start = in_segments(journal.prune_unneeded().unwrap());
        assert!(start.abs_diff(kept) <= 1, "at {now}: {start}, not {kept}");
        let oldest = journal.start_tip().time;
        assert!(Time::from_nanos(now * 3_600_000_000_000).since(oldest) > age || start == in_segments(end) - 5);
    }
}

/// The budget comes before what is kept for nobody, and after what somebody needs.
#[test]
fn at_the_budget_what_nobody_needs_goes_and_a_holder_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let young = Retain { bytes: u64::MAX, age: Duration::from_secs(1 << 40) };
    let journal = create(dir.path(), Options { budget_bytes: 6 * FILE, retain: Some(young), ..small() });
    let night = journal.hold("depot night", Lsn::MAX);
    let end = grow(&journal, 30);
    assert!(in_segments(journal.start()) >= in_segments(end) - 6);
    assert_eq!(journal.prune_unneeded().unwrap(), journal.start(), "the retention keeps what is left");

    night.set(end);
    let error = (0..1000).find_map(|_| append(&journal).err()).unwrap();
    assert_eq!(error.class(), Class::Full);
    let text = error.to_string();
    assert!(text.contains(&format!("depot night needs everything from LSN {end} on")), "{text}");
    assert!(journal.start() <= end && in_segments(journal.board().durable()) - in_segments(end) >= 3);
    // it catches up: nothing else is needed
    night.set(journal.board().durable());
    append(&journal).unwrap();
    grow(&journal, 3);
}

/// A destination that no commit waits for doesn't stop the stream; what it lacks is given up one segment at a time.
#[test]
fn at_the_budget_a_holder_that_gives_way_is_detached_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path(), Options { budget_bytes: 6 * FILE, retain: Some(NOTHING), ..small() });
    let (night, peer) = (journal.hold("depot night", Lsn::ZERO), journal.hold("peer b", Lsn::MAX));
    night.set_give_way(GiveWay::UnlessLast);
    let first = grow(&journal, 2);
    peer.set(first);
    grow(&journal, 3);
    assert!(!night.is_detached(), "there is room: {}", journal.start());
    while !night.is_detached() {
        append(&journal).unwrap();
    }
    assert_eq!(in_segments(journal.start()), 1, "no more than what was needed");
    assert_eq!(journal.held().unwrap().name, "peer b");
    // the other one doesn't give way, and what it needs stays
    let error = (0..1000).find_map(|_| append(&journal).err()).unwrap();
    assert!(error.to_string().contains(&format!("peer b needs everything from LSN {first} on")), "{error}");
    assert_eq!(in_segments(journal.start()), in_segments(first));
    // it still needs what it gave way for
    night.attach();
    assert!(night.is_detached());
    night.set(journal.start());
    night.attach();
    assert!(!night.is_detached());
    peer.set(Lsn::MAX);
    assert_eq!(journal.prune_unneeded().unwrap(), journal.start(), "its hold counts again");
}

/// Nobody gives way for nothing: not beside one who needs the same segment and stays, nor while what is oldest isn't
/// durable, nor when nobody is left who has what it lacks.
#[test]
fn nobody_gives_way_where_that_makes_no_room_or_leaves_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { budget_bytes: 4 * FILE, retain: Some(NOTHING), ..small() };
    let journal = create(&dir.path().join("a"), options());
    let night = journal.hold("depot night", Lsn::ZERO);
    night.set_give_way(GiveWay::UnlessLast);
    let full = |names: &str| {
        let error = (0..1000).find_map(|_| append(&journal).err()).unwrap();
        assert!(error.to_string().contains(names), "{error}");
        assert!(!night.is_detached() && journal.start() == Lsn::ZERO, "{names}");
    };
    full("depot night");
    let reader = journal.hold("restore by pid 1", Lsn::MAX);
    reader.set_give_way(GiveWay::Always);
    full("depot night");
    let peer = journal.hold("peer b", Lsn::new(8));
    full("depot night");
    peer.set(Lsn::MAX);
    append(&journal).unwrap();
    assert!(night.is_detached() && !reader.is_detached());
    night.attach();
    drop((night, peer, reader));

    let journal = create(&dir.path().join("b"), options());
    let (night, _all) = (journal.hold("depot night", Lsn::ZERO), journal.hold("nobody", Lsn::MAX));
    night.set_give_way(GiveWay::Always);
    let staged = || journal.append(Item::record(&[&[7; 5000]])).and_then(|ticket| ticket.written());
    let error = (0..1000).find_map(|_| staged().err()).unwrap();
    assert_eq!((error.class(), night.is_detached()), (Class::Full, false), "nothing is durable: {error}");
    journal.sync().unwrap();
    append(&journal).unwrap();
    assert!(night.is_detached());
}

/// What it lacks is on its way: it had no time to take it. How much that may be, and what would go next, is known before.
#[test]
fn who_is_awaited_does_not_give_way_yet() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path(), Options { budget_bytes: 6 * FILE, retain: Some(NOTHING), ..small() });
    assert_eq!((journal.budget_holds(), journal.next_to_go()), (None, None), "nobody is registered");
    let (night, peer) = (journal.hold("depot night", Lsn::ZERO), journal.hold("peer b", Lsn::MAX));
    night.set_give_way(GiveWay::UnlessLast);
    night.set_awaited(true);
    assert_eq!((journal.budget_holds(), journal.next_to_go()), (Some(6 * SEGMENT), None), "nothing is durable");
    let error = (0..1000).find_map(|_| append(&journal).err()).unwrap();
    assert!(error.to_string().contains("depot night needs everything from LSN 0 on"), "{error}");
    assert_eq!((journal.budget_holds(), journal.next_to_go()), (Some(6 * SEGMENT), Some(Lsn::new(SEGMENT))));
    assert!(!night.is_detached());
    // a part of it has arrived
    night.set(Lsn::new(SEGMENT));
    append(&journal).unwrap();
    assert_eq!((journal.budget_holds(), journal.next_to_go()), (Some(6 * SEGMENT), Some(Lsn::new(2 * SEGMENT))));
    let error = (0..1000).find_map(|_| append(&journal).err()).unwrap();
    assert!(error.to_string().contains(&format!("depot night needs everything from LSN {SEGMENT} on")), "{error}");
    // it was waited for in vain
    night.set_awaited(false);
    append(&journal).unwrap();
    assert!(night.is_detached());
    drop((night, peer));
    // what else lies in the folder leaves less of it
    let (branch, _nobody) = (journal.cut(Lsn::new(4 * SEGMENT)).unwrap(), journal.hold("nobody", Lsn::MAX));
    assert!(branch.path.exists());
    assert!(journal.budget_holds().unwrap() < 6 * SEGMENT);
}

/// A later word of an earlier bound put the beginning back to where the segments were gone.
#[test]
fn the_beginning_never_goes_back_whoever_prunes_at_once() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..8 {
        let dir = dir.path().join(round.to_string());
        let journal = create(&dir, small());
        let end = grow(&journal, 12);
        thread::scope(|scope| {
            for segments in 1..=in_segments(end) {
                let journal = &journal;
                scope.spawn(move || journal.prune(Lsn::new(segments * SEGMENT)).unwrap());
            }
        });
        let start = journal.start();
        assert_eq!(in_segments(start), in_segments(end));
        drop(journal);
        assert_eq!(Journal::open(&dir, small()).unwrap().start(), start);
    }
}

/// A cut tail was forgotten by the budget when its journal was opened again.
#[test]
fn a_cut_tail_takes_part_of_the_budget_until_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { budget_bytes: 8 * FILE, ..small() };
    let journal = create(dir.path(), options());
    let to = grow(&journal, 1);
    grow(&journal, 3);
    let branch = journal.cut(to).unwrap();
    drop(journal);
    let most = |removed: bool| {
        if removed {
            std::fs::remove_dir_all(&branch.path).unwrap();
        }
        let journal = Journal::open(dir.path(), options()).unwrap();
        start_run(&journal);
        (0..1000).find_map(|_| append(&journal).err()).unwrap();
        in_segments(journal.board().durable())
    };
    assert_eq!((most(false), most(true)), (3, 7));
}

/// How many segments are durable when the budget refuses the next append.
fn fill(journal: &Journal) -> u64 {
    let error = (0..1000).find_map(|_| append(journal).err()).unwrap();
    assert!(matches!(error, Error::Budget { .. }), "{error}");
    in_segments(journal.board().durable())
}

/// The operator was told that the budget is used up, and removed a branch: the node noticed at its next start.
#[test]
fn what_is_removed_under_a_running_journal_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path(), Options { budget_bytes: 8 * FILE, ..small() });
    let to = grow(&journal, 1);
    grow(&journal, 3);
    let branch = journal.cut(to).unwrap();
    start_run(&journal);
    assert_eq!(fill(&journal), 3);
    std::fs::remove_dir_all(&branch.path).unwrap();
    assert_eq!(fill(&journal), 7);
}

#[test]
fn a_damaged_segment_that_a_repair_kept_takes_part_of_the_budget_until_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { budget_bytes: 6 * FILE, ..small() };
    drop(create(dir.path(), options()));
    let damaged = dir.path().join("damaged");
    std::fs::create_dir(&damaged).unwrap();
    for number in 0..2 {
        std::fs::write(damaged.join(format!("{number:016x}-header.seg")), vec![1; FILE as usize]).unwrap();
    }
    let journal = Journal::open(dir.path(), options()).unwrap();
    start_run(&journal);
    assert_eq!(fill(&journal), 3);
    std::fs::remove_dir_all(&damaged).unwrap();
    assert_eq!(fill(&journal), 5);
}

/// Two segments are enough; with less the first appends went through, and the error at the second segment said that
/// somebody needed the log.
#[test]
fn a_budget_that_holds_no_two_segments_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let options = |budget_bytes| Options { budget_bytes, retain: Some(NOTHING), ..small() };
    let refused = |error: Error| {
        assert_eq!(error.class(), Class::Config);
        let text = error.to_string();
        assert!(text.contains(&(2 * FILE).to_string()) && text.contains("--budget"), "{text}");
    };
    let made = dir.path().join("j");
    let (stream, node) = (StreamId::random(), NodeId::random());
    for budget in [0, FILE, 2 * FILE - 1] {
        refused(Journal::create(&made, stream, node, Role::Primary, options(budget)).unwrap_err());
        assert!(!made.exists(), "nothing is made");
    }
    let journal = create(&made, options(2 * FILE));
    let _nobody = journal.hold("nobody", Lsn::MAX);
    let end = grow(&journal, 20);
    assert!(in_segments(journal.start()) >= in_segments(end) - 2);
    drop(journal);
    refused(Journal::open(&made, options(2 * FILE - 1)).unwrap_err());
    Journal::open(&made, options(2 * FILE)).unwrap();
}

/// The first file that could not be removed kept all of those behind it until the next start.
#[test]
fn a_file_that_cannot_be_removed_keeps_no_other_and_goes_later() {
    for pinned in [false, true] {
        let (base, disk, clock) = (folder(), SimDisk::default(), TestClock::default());
        let dir = base.path().join("j");
        let journal = create(&dir, options(&disk, &clock));
        let end = grow(&journal, 8);
        let slice = journal.slice(Lsn::ZERO, 1000).unwrap().filter(|_| pinned);
        let named = || (0..8).filter(|number| dir.join(format!("{:016x}.seg", number * SEGMENT)).exists()).collect();
        // behind the change of the facts: its write, its sync, its copy
        let first = disk.calls() + 3;
        disk.fail_calls(first..first + 1, 5);
        assert_eq!(in_segments(journal.prune(end).unwrap()), 8);
        assert_eq!(disk.failed().len(), 1, "{:?}", disk.failed());
        assert!(journal.board().ended().is_none());
        let left: Vec<u64> = named();
        assert_eq!(left, [0]);
        journal.prune(end).unwrap();
        let left: Vec<u64> = named();
        assert_eq!(left, [0; 0]);
        drop(slice);
        grow(&journal, 3);
    }
}

/// Nothing is copied where segments begin and end, but a copy was counted: the last spare of the budget was not made.
#[test]
fn a_cut_between_two_segments_takes_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path(), Options { budget_bytes: 7 * FILE, ..small() });
    grow(&journal, 3);
    let branch = journal.cut(Lsn::new(2 * SEGMENT)).unwrap().path;
    start_run(&journal);
    while in_segments(journal.board().staged()) < 3 {
        journal.append(Item::record(&[&[7; 5000]])).unwrap().durable().unwrap();
    }
    let files = |folder: &Path| {
        let held = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        held.filter(|path| path.metadata().unwrap().len() == FILE).count()
    };
    let pool = dir.path().join("pool");
    assert_eq!((files(dir.path()), files(&branch), files(&pool)), (4, 2, 1));
}

/// What takes more than the whole budget can never have room. It was tried all the same, and on the way everybody who gives
/// way was detached, and everything that was kept given up.
#[test]
fn nobody_gives_way_for_what_can_never_have_room() {
    let dir = tempfile::tempdir().unwrap();
    let retain = Retain { bytes: u64::MAX, age: Duration::ZERO };
    let options = Options { budget_bytes: 5 * FILE, retain: Some(retain), ..small() };
    let journal = create(dir.path(), options);
    let night = journal.hold("depot night", Lsn::ZERO);
    night.set_give_way(GiveWay::Always);
    grow(&journal, 2);
    for bytes in [5 * SEGMENT, 50 * SEGMENT] {
        let error = journal.append(Item::record(&[&vec![7; bytes as usize]])).unwrap_err();
        assert!(error.class() == Class::Full && error.to_string().contains("alone"), "{error}");
    }
    assert!(!night.is_detached());
    assert_eq!(journal.start(), Lsn::ZERO);
    // what has room once nobody keeps the log gets it
    journal.append(Item::record(&[&vec![7; 3 * SEGMENT as usize]])).unwrap();
    assert!(night.is_detached());
}
