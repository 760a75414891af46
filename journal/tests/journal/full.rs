//! A real file system without space: a small ext4 of its own, filled to the last block.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use journal::{Class, GiveWay, Item, Journal, Level, Lsn, NodeId, Options, Retain, Role, StreamId, Term, TermSeen};

use crate::lifecycle::{create, offline_records, records, small, start_run};
use crate::script::{Op, Scene};

/// A small ext4 in a file, mounted; gone when dropped.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// `None` where that needs rights or tools that aren't there; says so.
    fn mount() -> Option<Disk> {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        fs::create_dir(folder.path().join("mnt")).unwrap();
        let disk = Disk { folder };
        let done = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let made = done(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image));
        if !made || !done(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(disk.path())) {
            println!("skipped: a small ext4 can't be made and mounted here");
            return None;
        }
        Some(disk)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Fills it to the last block, then frees `bytes`.
    fn leave(&self, bytes: u64) {
        let mut ballast = File::options().append(true).create(true).open(self.ballast()).unwrap();
        // twice: what was removed just now is free for good after a sync
        for piece in [1 << 20, 4096, 1 << 20, 4096] {
            while ballast.write_all(&vec![1; piece]).is_ok() {}
            ballast.sync_all().unwrap();
        }
        ballast.set_len(ballast.metadata().unwrap().len().saturating_sub(bytes)).unwrap();
        ballast.sync_all().unwrap();
    }

    fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // lazily: a journal that a failed test left behind still has files open there
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Room is reserved before anything is staged, but a file system may still want space for a write or a name.
#[test]
fn a_waiter_without_space_is_told_that_and_may_ask_again() {
    for errno in [28, 122] {
        let mut scene = Scene::new(Role::Primary);
        scene.act(Op::OpenRun).unwrap();
        scene.act(Op::Durable(100)).unwrap();
        let ticket = scene.journal().append(Item::record(&[b"staged"])).unwrap();
        scene.disk.fail_calls(scene.disk.calls()..u64::MAX, errno);
        for level in [Level::Written, Level::Durable] {
            let error = ticket.wait(level, Duration::from_secs(60)).unwrap_err();
            assert_eq!(error.class(), Class::Full, "{error}");
            assert!(error.to_string().contains("ask again"), "{error}");
        }
        assert!(scene.ended().is_none());
        scene.disk.fail_calls(0..0, errno);
        ticket.durable().unwrap();
    }
}

fn payload(number: usize) -> Vec<u8> {
    vec![number as u8; 1000 + number % 7]
}

fn payloads(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(payload).collect()
}

/// How many records there are; they are the first ones, in order.
#[track_caller]
fn counted(records: &[Vec<u8>]) -> usize {
    assert!(records == payloads(records.len()), "{} records, and not the ones that were appended", records.len());
    records.len()
}

fn append(journal: &Journal, number: usize) -> journal::Result<()> {
    journal.append(Item::record(&[&payload(number)]))?;
    journal.sync().map(drop)
}

/// Appends from record `number` on until there is no space: how many records were acknowledged in all.
#[track_caller]
fn fill(journal: &Journal, mut number: usize) -> usize {
    loop {
        match append(journal, number) {
            Ok(()) => number += 1,
            Err(error) => {
                assert_eq!(error.class(), Class::Full, "{error}");
                return number;
            }
        }
    }
}

#[test]
fn a_full_ext4_loses_nothing_acknowledged_and_goes_on_when_there_is_space() {
    let Some(disk) = Disk::mount() else { return };
    let dir = disk.path().join("j");
    let journal = create(&dir);
    start_run(&journal);
    disk.leave(1 << 20);
    let mut acked = fill(&journal, 0);
    assert!(acked > 500, "{acked} records in a megabyte");
    disk.leave(0);
    acked = fill(&journal, acked);
    assert!(journal.board().ended().is_none(), "no space is no reason to end");
    assert_eq!(counted(&records(&journal)), acked);
    disk.free();
    append(&journal, acked).unwrap();
    acked += 1;

    // opened again without a free block, after a kill and after a clean stop: neither opening nor reading needs one
    disk.leave(0);
    acked = fill(&journal, acked);
    drop(journal);
    let journal = Journal::open(&dir, small()).unwrap();
    assert_eq!(counted(&records(&journal)), acked);
    journal.close().unwrap();
    let journal = Journal::open(&dir, small()).unwrap();
    assert_eq!(counted(&records(&journal)), acked);
    assert_eq!(counted(&offline_records(&dir)), acked);
    start_run(&journal);
    acked = fill(&journal, acked);
    disk.free();
    append(&journal, acked).unwrap();
    assert_eq!(counted(&records(&journal)), acked + 1);
}

/// A full disk is like a budget that is used up: what is given up makes room without a byte of free space.
#[test]
fn on_a_full_ext4_a_holder_gives_way_too() {
    let Some(disk) = Disk::mount() else { return };
    let dir = disk.path().join("j");
    let options = Options { retain: Some(Retain::default()), ..small() };
    let (stream, node) = (StreamId::random(), NodeId::random());
    let journal = Journal::create(&dir, stream, node, Role::Primary, options).unwrap();
    start_run(&journal);
    let (night, _peer) = (journal.hold("depot night", Lsn::ZERO), journal.hold("peer b", Lsn::MAX));
    disk.leave(1 << 20);
    let acked = fill(&journal, 0);
    disk.leave(0);
    night.set_give_way(GiveWay::UnlessLast);
    for number in acked..2 * acked {
        append(&journal, number).unwrap();
    }
    assert!(night.is_detached() && journal.start() > Lsn::ZERO);
}

/// What must be remembered even then has its place from the beginning.
#[test]
fn facts_are_kept_on_a_full_disk() {
    let Some(disk) = Disk::mount() else { return };
    let dir = disk.path().join("j");
    let journal = create(&dir);
    start_run(&journal);
    disk.leave(256 << 10);
    fill(&journal, 0);
    disk.leave(0);
    let (peer, proof) = (NodeId::random(), journal.sync().unwrap());
    let higher = TermSeen { term: Term(7), id: 7 };
    journal.set_checkpoint(proof.lsn()).unwrap();
    journal.remember_peer(peer, proof.lsn(), proof.chain()).unwrap();
    journal.see_term(higher).unwrap();
    journal.set_role(Role::Receiver).unwrap();
    journal.close().unwrap();
    let journal = Journal::open(&dir, small()).unwrap();
    assert_eq!((journal.checkpoint(), journal.term_seen(), journal.role()), (proof.lsn(), higher, Role::Receiver));
    assert_eq!(journal.peer_remembered(peer), Some((proof.lsn(), proof.chain())));
}

/// Wherever the space runs out: there is no journal then, or a whole one.
#[test]
fn a_journal_that_is_created_without_space_is_created_later_or_opened() {
    let Some(disk) = Disk::mount() else { return };
    let new = |dir: &Path| Journal::create(dir, StreamId::random(), NodeId::random(), Role::Primary, small());
    let (mut refused, mut made) = (0, 0);
    for blocks in (0..6).chain(128..142).chain([160]) {
        let dir = disk.path().join(format!("of-{blocks}/j"));
        disk.leave(blocks * 4096);
        match new(&dir) {
            Ok(_) => made += 1,
            Err(error) => {
                assert_eq!(error.class(), Class::Full, "{blocks} blocks: {error}");
                refused += 1;
                disk.free();
                drop(new(&dir).unwrap_or_else(|error| panic!("{blocks} blocks: {error}")));
            }
        }
        let journal = Journal::open(&dir, small()).unwrap();
        start_run(&journal);
        drop(journal);
        fs::remove_dir_all(dir).unwrap();
    }
    assert!(refused > 5 && made > 0, "{refused} refused, {made} made");
}

/// Wherever the space runs out: it is cut, or it goes on as if nobody had asked.
#[test]
fn a_cut_without_space_is_done_or_changes_nothing() {
    let Some(disk) = Disk::mount() else { return };
    let (mut refused, mut done) = (0, 0);
    for blocks in (0..4).chain(15..20).chain(144..156).chain([200]) {
        let dir = disk.path().join(format!("with-{blocks}"));
        let journal = create(&dir);
        start_run(&journal);
        let mut ends = Vec::new();
        for number in 0..100 {
            append(&journal, number).unwrap();
            ends.push(journal.board().durable());
        }
        disk.leave(blocks * 4096);
        let cut = journal.cut(ends[89]);
        disk.free();
        let kept = match &cut {
            Ok(branch) => {
                done += 1;
                assert_eq!(offline_records(&branch.path).last(), Some(&payload(99)));
                90
            }
            Err(error) => {
                refused += 1;
                assert_eq!(error.class(), Class::Full, "{blocks} blocks: {error}");
                let left = fs::read_dir(dir.join("branches")).map_or(0, Iterator::count);
                assert_eq!((left, dir.join("cut.new").exists()), (0, false), "{blocks} blocks: something is left");
                100
            }
        };
        assert_eq!(counted(&records(&journal)), kept, "{blocks} blocks");
        if cut.is_ok() {
            start_run(&journal);
        }
        append(&journal, kept).unwrap();
        drop(journal);
        let journal = Journal::open(&dir, small()).unwrap();
        assert_eq!(counted(&records(&journal)), kept + 1, "{blocks} blocks");
        drop(journal);
        fs::remove_dir_all(dir).unwrap();
    }
    assert!(refused > 5 && done > 0, "{refused} refused, {done} done");
}

#[test]
fn a_budget_of_few_segments_takes_what_fits() {
    let dir = tempfile::tempdir().unwrap();
    for (budget_bytes, segments) in [(2 * (68 << 10), 2), (190 << 10, 2), (3 * (68 << 10), 3)] {
        let dir = dir.path().join(budget_bytes.to_string());
        let options = Options { budget_bytes, ..small() };
        let journal =
            Journal::create(&dir, StreamId::random(), NodeId::random(), Role::Primary, options.clone()).unwrap();
        start_run(&journal);
        let acked = fill(&journal, 0);
        assert_eq!(counted(&records(&journal)), acked);
        let held = journal.board().durable().get().div_ceil(64 << 10);
        assert_eq!(held, segments, "{acked} records in {budget_bytes} bytes");
        // spares and segments are counted again when it is opened
        drop(journal);
        let journal = Journal::open(&dir, options).unwrap();
        start_run(&journal);
        assert_eq!(fill(&journal, acked), acked);
        drop(journal);
        let journal = Journal::open(&dir, small()).unwrap();
        start_run(&journal);
        append(&journal, acked).unwrap();
        assert_eq!(counted(&records(&journal)), acked + 1);
    }
}
