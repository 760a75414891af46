//! Repair: byte for byte what was there, by proof, or nothing at all; and the damaged file is kept.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use journal::repair::{Cure, Damage, Harm, JournalCopy, RangeSource, Repair, Replaced};
use journal::testing::{Random, SimDisk};
use journal::{Class, Disk, FaultKind, Item, Journal, Lsn, SEGMENT_HEADER_BYTES, Storage};
use tempfile::TempDir;

use crate::lifecycle::{create, flip, records, segment_file, small, start_run};

const SEGMENT: u64 = 64 << 10;
const HEADER: u64 = SEGMENT_HEADER_BYTES as u64;

/// A journal of several segments, closed, and a whole copy of it as another node would have it.
struct Pair {
    _root: TempDir,
    dir: PathBuf,
    copy: PathBuf,
    /// Position behind each record.
    ends: Vec<Lsn>,
}

impl Pair {
    fn new() -> Pair {
        let root = tempfile::tempdir().unwrap();
        let (dir, copy) = (root.path().join("journal"), root.path().join("copy"));
        let journal = create(&dir);
        start_run(&journal);
        let mut ends = Vec::new();
        for number in 0..120u32 {
            ends.push(journal.append(Item::record(&[&vec![number as u8; 2000 + number as usize]])).unwrap().lsn());
        }
        journal.close().unwrap();
        copy_folder(&dir, &copy);
        Pair { _root: root, dir, copy, ends }
    }

    fn segment(&self, index: u64) -> PathBuf {
        segment_file(&self.dir, index * SEGMENT)
    }

    /// The record that ends behind `at`.
    fn record(&self, at: u64) -> (Lsn, Lsn) {
        let index = self.ends.iter().position(|end| end.get() > at).unwrap();
        (self.ends[index - 1], self.ends[index])
    }

    fn sources(&self, dirs: &[&Path]) -> Vec<Box<dyn RangeSource>> {
        dirs.iter().map(|dir| Box::new(JournalCopy::open(dir).unwrap()) as Box<dyn RangeSource>).collect()
    }

    /// Repairs it from these journals: what was found, and what was done.
    fn repair(&self, from: &[&Path]) -> (Vec<Damage>, Vec<Replaced>) {
        let mut sources = self.sources(from);
        let repair = Repair::open(&self.dir, Arc::new(Disk)).unwrap();
        let plan = repair.plan(&mut sources).unwrap();
        let mut done = Vec::new();
        repair.apply(&plan, &mut sources, |replaced| done.push(replaced.clone())).unwrap();
        (plan.damages().to_vec(), done)
    }

    /// The journal is byte for byte its copy, and opens.
    #[track_caller]
    fn is_as_before(&self) {
        for (name, bytes) in files(&self.copy) {
            let here = fs::read(self.dir.join(&name)).unwrap_or_default();
            assert!(here == bytes, "{name} is not as it was");
        }
        let (journal, copy) = (Journal::open(&self.dir, small()).unwrap(), Journal::open(&self.copy, small()).unwrap());
        assert_eq!(records(&journal), records(&copy));
        assert_eq!(journal.written_tip(), copy.written_tip());
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for (name, bytes) in files(from) {
        fs::write(to.join(name), bytes).unwrap();
    }
}

/// A log that has the same history up to `at` and another one from there: longer, and whole in itself.
fn fork_at(pair: &Pair, at: Lsn, fork: &Path) {
    copy_folder(&pair.copy, fork);
    let journal = Journal::open(fork, small()).unwrap();
    journal.cut(at).unwrap();
    start_run(&journal);
    for _ in 0..200 {
        journal.append(Item::record(&[&[9; 2000]])).unwrap();
    }
    journal.close().unwrap();
}

/// Control file and segments, by name.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let listed = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let kept = listed.filter(|path| path.is_file() && !path.ends_with("lock"));
    kept.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap())).collect()
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

fn cured_by(damage: &Damage, dir: &Path) -> bool {
    damage.cure == Some(Cure::Sources(vec![dir.display().to_string()]))
}

#[test]
fn every_kind_of_damage_is_repaired_byte_for_byte_and_the_damaged_file_is_kept() {
    let last = |pair: &Pair| pair.ends[pair.ends.len() - 2];
    type Spoil = fn(&Pair);
    let table: [(&str, Spoil, Harm); 11] = [
        ("a payload", |p| flip(&p.segment(1), HEADER + 20_000), Harm::Entry(FaultKind::Payload)),
        (
            "a header",
            |p| flip(&p.segment(1), HEADER + p.record(SEGMENT + 20_000).0.get() - SEGMENT + 1),
            Harm::Entry(FaultKind::Length),
        ),
        ("the first entry of a segment", |p| flip(&p.segment(1), HEADER + 90), Harm::Entry(FaultKind::Payload)),
        ("a page of zeros", |p| overwrite(&p.segment(1), HEADER + 8192, &[0; 4096]), Harm::Entry(FaultKind::Payload)),
        ("all of a body", |p| overwrite(&p.segment(1), HEADER, &[0xff; 65536]), Harm::Entry(FaultKind::Length)),
        (
            "both copies of a header",
            |p| overwrite(&p.segment(1), 0, &[0; 4096]),
            Harm::Header("it is not a segment of this format".into()),
        ),
        ("one copy of a header", |p| flip(&p.segment(1), 2048 + 30), Harm::HeaderCopy),
        ("a segment", |p| fs::remove_file(p.segment(1)).unwrap(), Harm::Missing),
        ("the first segment", |p| fs::remove_file(p.segment(0)).unwrap(), Harm::Missing),
        (
            "half a segment",
            |p| OpenOptions::new().write(true).open(p.segment(1)).unwrap().set_len(30_000).unwrap(),
            Harm::Truncated,
        ),
        (
            "all of the last segment",
            |p| {
                let first = p.ends.last().unwrap().get() / SEGMENT;
                fs::remove_file(p.segment(first)).unwrap();
            },
            Harm::Missing,
        ),
    ];
    for (what, spoil, harm) in table {
        let pair = Pair::new();
        assert!(last(&pair).get() > 3 * SEGMENT, "several segments");
        spoil(&pair);
        let spoiled = files(&pair.dir);
        let (damages, done) = pair.repair(&[&pair.copy]);
        assert_eq!((damages.len(), done.len()), (1, 1), "{what}: {damages:?}");
        assert_eq!(damages[0].harm, harm, "{what}");
        for Replaced { path, kept } in &done {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            match kept {
                Some(kept) => assert!(fs::read(kept).unwrap() == spoiled[&name], "{what}: it is kept as it was"),
                None => assert_eq!(harm, Harm::Missing),
            }
        }
        let own_header = matches!(harm, Harm::Header(_) | Harm::HeaderCopy);
        assert!(own_header || cured_by(&damages[0], &pair.copy), "{what}: {damages:?}");
        pair.is_as_before();
        let (damages, done) = pair.repair(&[]);
        assert!(damages.is_empty() && done.is_empty(), "{what}: nothing is left");
    }
}

#[test]
fn the_damaged_range_is_exact_and_nothing_else_is_fetched() {
    let pair = Pair::new();
    let (from, to) = pair.record(SEGMENT + 20_000);
    flip(&pair.segment(1), HEADER + from.get() - SEGMENT + 200);
    let (damages, done) = pair.repair(&[&pair.copy]);
    assert_eq!((damages[0].range.from, damages[0].range.to), (from, to));
    let kept = done[0].kept.as_ref().unwrap();
    assert!(kept.ends_with(format!("damaged/{SEGMENT:016x}-{from}-{to}.seg")), "{}", kept.display());
    pair.is_as_before();
}

#[test]
fn damage_in_many_places_is_repaired_at_once() {
    let pair = Pair::new();
    flip(&pair.segment(0), HEADER + 10_000);
    flip(&pair.segment(0), HEADER + 40_000);
    overwrite(&pair.segment(1), 0, &[0; 4096]);
    flip(&pair.segment(1), HEADER + 50_000);
    fs::remove_file(pair.segment(2)).unwrap();
    flip(&pair.segment(3), HEADER + 5_000);
    let (damages, done) = pair.repair(&[&pair.copy]);
    assert_eq!((damages.len(), done.len()), (6, 4), "{damages:?}");
    pair.is_as_before();
}

/// The damage ends where the log does: nothing stands behind it but the evidence of durability.
#[test]
fn the_last_durable_entry_is_proven_by_the_evidence() {
    let pair = Pair::new();
    let [.., from, to] = pair.ends[..] else { panic!("records") };
    let first = from.get() / SEGMENT;
    flip(&pair.segment(first), HEADER + from.get() - first * SEGMENT + 300);
    assert_eq!(Journal::open(&pair.dir, small()).unwrap_err().class(), Class::Corrupt);
    // a history that goes on otherwise from there has an entry that links as well, and it leads elsewhere
    let root = tempfile::tempdir().unwrap();
    let fork = root.path().join("fork");
    fork_at(&pair, from, &fork);
    let (damages, done) = pair.repair(&[&fork]);
    assert!(done.is_empty() && damages[0].tried[0].contains("another history"), "{damages:?}");
    let (damages, _) = pair.repair(&[&fork, &pair.copy]);
    assert_eq!((damages[0].range.from, damages[0].range.to), (from, to));
    pair.is_as_before();
}

/// A second of evidence may be missing; entries of this node's own run behind the damage speak for it.
#[test]
fn damage_behind_the_synced_evidence_is_repaired_too() {
    let root = tempfile::tempdir().unwrap();
    let (dir, copy) = (root.path().join("journal"), root.path().join("copy"));
    let journal = create(&dir);
    start_run(&journal);
    let first = journal.append(Item::record(&[&[1; 500]])).unwrap().lsn();
    let before = fs::read(dir.join("control")).unwrap();
    for number in 2..6 {
        journal.append(Item::record(&[&[number; 500]])).unwrap().durable().unwrap();
    }
    drop(journal);
    fs::write(dir.join("control"), before).unwrap();
    copy_folder(&dir, &copy);
    flip(&segment_file(&dir, 0), HEADER + first.get() + 200);
    let pair = Pair { _root: root, dir, copy, ends: Vec::new() };
    assert_eq!(Journal::open(&pair.dir, small()).unwrap_err().class(), Class::Corrupt);
    let (damages, done) = pair.repair(&[&pair.copy]);
    assert_eq!((damages.len(), damages[0].range.from, done.len()), (1, first, 1));
    pair.is_as_before();
}

/// A tail that no sync covered is not damage: opening decides about it.
#[test]
fn a_torn_tail_is_left_to_the_opening() {
    let pair = Pair::new();
    let journal = Journal::open(&pair.dir, small()).unwrap();
    start_run(&journal);
    let from = journal.append(Item::record(&[b"torn"])).unwrap().written().unwrap();
    drop(journal);
    let first = from.get() / SEGMENT;
    flip(&pair.segment(first), HEADER + from.get() - first * SEGMENT - 20);
    let before = files(&pair.dir);
    let (damages, done) = pair.repair(&[&pair.copy]);
    assert!(damages.is_empty() && done.is_empty(), "{damages:?}");
    assert!(files(&pair.dir) == before);
}

/// Nothing is changed unless what stands behind the damage proves what is put there.
#[test]
fn a_wrong_source_is_refused_and_nothing_is_changed() {
    let pair = Pair::new();
    let root = tempfile::tempdir().unwrap();
    let fork = root.path().join("fork");
    fork_at(&pair, pair.ends[10], &fork);
    let other = root.path().join("other");
    let journal = create(&other);
    start_run(&journal);
    journal.append(Item::record(&[&[9; 60_000]])).unwrap();
    journal.close().unwrap();

    // right behind the fork, where both histories have an entry that follows
    flip(&pair.segment(0), HEADER + pair.ends[10].get() + 300);
    let before = files(&pair.dir);
    let refused = |from: &[&Path], said: &str| {
        let (damages, done) = pair.repair(from);
        assert!(done.is_empty() && damages[0].cure.is_none());
        assert!(damages[0].tried.iter().any(|line| line.contains(said)), "no {said:?} in {:?}", damages[0].tried);
        assert!(files(&pair.dir) == before, "nothing is changed");
        assert!(!pair.dir.join("damaged").exists());
    };
    refused(&[&fork], "another history");
    refused(&[&other], "it holds stream");
    refused(&[&pair.dir], "its payload does not match");
    assert!(pair.repair(&[]).1.is_empty());
    // the right one is found behind them
    let (damages, done) = pair.repair(&[&fork, &other, &pair.dir, &pair.copy]);
    assert!(done.len() == 1 && cured_by(&damages[0], &pair.copy), "{damages:?}");
    pair.is_as_before();
}

#[test]
fn where_one_source_is_damaged_or_ends_the_next_goes_on() {
    let pair = Pair::new();
    let root = tempfile::tempdir().unwrap();
    let (one, two) = (root.path().join("one"), root.path().join("two"));
    copy_folder(&pair.copy, &one);
    copy_folder(&pair.copy, &two);
    fs::remove_file(segment_file(&one, 2 * SEGMENT)).unwrap();
    flip(&segment_file(&one, SEGMENT), HEADER + 30_000);
    fs::remove_file(segment_file(&two, 0)).unwrap();
    for index in 0..3 {
        fs::remove_file(pair.segment(index)).unwrap();
    }
    let (damages, done) = pair.repair(&[&two]);
    assert!(done.is_empty() && damages.iter().all(|damage| damage.cure.is_none()), "{damages:?}");
    assert_eq!(damages[0].tried, [format!("{}: it has nothing at LSN 0", two.display())]);
    let (damages, done) = pair.repair(&[&one, &two]);
    assert_eq!(done.len(), 3, "{damages:?}");
    let both = vec![one.display().to_string(), two.display().to_string()];
    assert_eq!(damages[1].cure, Some(Cure::Sources(both)), "the second segment is from both");
    pair.is_as_before();
}

#[test]
fn a_segment_is_repaired_as_a_whole_or_not_at_all() {
    let pair = Pair::new();
    let root = tempfile::tempdir().unwrap();
    let half = root.path().join("half");
    copy_folder(&pair.copy, &half);
    flip(&segment_file(&half, 0), HEADER + 40_000);
    for (index, at) in [(0, 10_000), (0, 40_000), (1, 10_000)] {
        flip(&pair.segment(index), HEADER + at);
    }
    let before = files(&pair.dir);
    let (damages, done) = pair.repair(&[&half]);
    assert_eq!((damages.len(), done.len()), (3, 1), "{damages:?}");
    assert!(damages[0].tried.iter().any(|line| line.contains("in the same file")), "{damages:?}");
    let name = format!("{:016x}.seg", 0);
    assert!(files(&pair.dir)[&name] == before[&name]);
    pair.repair(&[&pair.copy]);
    pair.is_as_before();
}

/// A segment of the same stream that was put back from an older state: whole in itself, and not what was durable.
#[test]
fn a_segment_of_another_history_is_replaced_by_the_one_that_was_durable() {
    let pair = Pair::new();
    let root = tempfile::tempdir().unwrap();
    let fork = root.path().join("fork");
    fork_at(&pair, pair.ends[10], &fork);
    fs::copy(segment_file(&fork, 0), pair.segment(0)).unwrap();
    let (damages, done) = pair.repair(&[&pair.copy]);
    assert_eq!((damages.len(), done.len(), &damages[0].harm), (1, 1, &Harm::OtherHistory), "{damages:?}");
    pair.is_as_before();
}

#[test]
fn what_a_node_runs_on_is_not_repaired() {
    let pair = Pair::new();
    let journal = Journal::open(&pair.dir, small()).unwrap();
    assert_eq!(Repair::open(&pair.dir, Arc::new(Disk)).unwrap_err().class(), Class::Locked);
    drop(journal);
    let nowhere = pair.dir.join("nowhere");
    assert_eq!(Repair::open(&nowhere, Arc::new(Disk)).unwrap_err().class(), Class::Absent);
}

/// A running node is a source too: its files are read beside it.
#[test]
fn a_running_journal_is_a_source() {
    let pair = Pair::new();
    flip(&pair.segment(1), HEADER + 20_000);
    let running = Journal::open(&pair.copy, small()).unwrap();
    let (damages, done) = pair.repair(&[&pair.copy]);
    drop(running);
    assert!(done.len() == 1 && cured_by(&damages[0], &pair.copy));
    pair.is_as_before();
}

/// Whenever the power goes, each file is the damaged one or the repaired one, and both the log and the damaged file are
/// there afterwards.
#[test]
fn a_repair_that_the_power_interrupts_is_done_or_not_begun() {
    let whole = Pair::new();
    let mut interrupted = 0;
    for call in 0.. {
        let mut finished = true;
        for seed in 0..4 {
            let base = tempfile::tempdir().unwrap();
            let (before, after) = (base.path().join("before"), base.path().join("after"));
            copy_folder(&whole.copy, &before.join("journal"));
            fs::create_dir(&after).unwrap();
            let dir = before.join("journal");
            flip(&segment_file(&dir, SEGMENT), HEADER + 20_000);
            fs::remove_file(segment_file(&dir, 2 * SEGMENT)).unwrap();
            let spoiled = files(&dir);
            let disk = SimDisk::adopt(&before).unwrap();
            disk.stop_at(call);
            let done = repair_on(&dir, &whole.copy, Arc::new(disk.clone()));
            finished &= done;
            interrupted += u32::from(!done);
            let disk = disk.power_cut(&mut Random::new(seed), &before, &after).unwrap();
            let dir = after.join("journal");
            let found = files(&dir);
            for (name, bytes) in files(&whole.copy) {
                let right = found.get(&name) == Some(&bytes);
                assert!(right || (!done && found.get(&name) == spoiled.get(&name)), "call {call}, seed {seed}: {name}");
            }
            assert!(repair_on(&dir, &whole.copy, Arc::new(disk)), "it is repaired after all");
            let damaged: Vec<Vec<u8>> = files(&dir.join("damaged")).into_values().collect();
            let name = format!("{SEGMENT:016x}.seg");
            assert!(damaged == [spoiled[&name].clone()], "the damaged file is kept, once");
            let again = files(&dir);
            assert!(files(&whole.copy).into_iter().all(|(name, bytes)| again.get(&name) == Some(&bytes)));
        }
        if finished {
            break;
        }
    }
    assert!(interrupted > 20, "{interrupted} repairs were interrupted");
}

fn repair_on(dir: &Path, from: &Path, storage: Arc<dyn Storage>) -> bool {
    let mut sources: Vec<Box<dyn RangeSource>> = vec![Box::new(JournalCopy::open(from).unwrap())];
    let repair = Repair::open(dir, storage).unwrap();
    let plan = repair.plan(&mut sources).unwrap();
    assert_eq!(plan.curable(), plan.damages().len(), "{:?}", plan.damages());
    repair.apply(&plan, &mut sources, |_| {}).is_ok()
}
