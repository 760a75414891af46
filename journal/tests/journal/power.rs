//! Power cuts and failing syncs on a disk that forgets: what was acknowledged is there, what is there was appended, in
//! order. `TOWLINE_SEED=n` runs one seed alone.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use journal::testing::{Random, SimDisk};
use journal::{Error, Geometry, Host, Item, Journal, Lsn, NodeId, Options, Role, SEGMENT_HEADER_BYTES, StreamId};

use crate::lifecycle::{records, start_run};

const SEEDS: u64 = 300;

fn seeds() -> Vec<u64> {
    match std::env::var("TOWLINE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..if std::env::var_os("TOWLINE_LONG").is_some() { SEEDS * 20 } else { SEEDS }).collect(),
    }
}

/// Shared memory when there is some: these tests make thousands of small files.
pub(crate) fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn on(disk: &SimDisk) -> Options {
    let host = Host { storage: Arc::new(disk.clone()), ..Host::default() };
    Options { geometry: Geometry::new(64 << 10).unwrap(), host, ..Options::default() }
}

/// One journal, the disk under it, and what a reader must find.
struct World {
    base: tempfile::TempDir,
    life: u32,
    dir: PathBuf,
    disk: SimDisk,
    journal: Option<Journal>,
    /// (payload, end of the record), in order.
    appended: Vec<(Vec<u8>, Lsn)>,
    /// Everything below was acknowledged as durable.
    acknowledged: Lsn,
}

impl World {
    fn new() -> World {
        let base = folder();
        let dir = base.path().join("0");
        std::fs::create_dir(&dir).unwrap();
        let disk = SimDisk::default();
        let journal =
            Journal::create(&dir.join("j"), StreamId::random(), NodeId::random(), Role::Primary, on(&disk)).unwrap();
        start_run(&journal);
        let journal = Some(journal);
        World { base, life: 0, dir, disk, journal, appended: Vec::new(), acknowledged: Lsn::ZERO }
    }

    fn journal(&self) -> &Journal {
        self.journal.as_ref().unwrap()
    }

    fn append(&mut self, random: &mut Random) {
        let length = if random.one_in(8) { random.below(60_000) } else { random.below(3_000) };
        let payload: Vec<u8> = (0..length).map(|_| random.draw() as u8).collect();
        match self.journal().append(Item::record(&[&payload])) {
            Ok(ticket) => self.appended.push((payload, ticket.lsn())),
            Err(error) => assert!(self.journal().board().ended().is_some(), "{error}"),
        }
    }

    fn sync(&mut self) {
        match self.journal().sync() {
            Ok(durable) => self.acknowledged = durable.lsn(),
            Err(error) => assert!(matches!(error, Error::Poisoned { .. } | Error::Ended { .. }), "{error}"),
        }
    }

    fn power_cut(&mut self, random: &mut Random) {
        self.journal = None;
        self.life += 1;
        let to = self.base.path().join(self.life.to_string());
        std::fs::create_dir(&to).unwrap();
        self.disk = self.disk.power_cut(random, &self.dir, &to).unwrap();
        std::fs::remove_dir_all(&self.dir).unwrap();
        self.dir = to;
        self.reopen();
    }

    /// Opens what is there and holds it against what was appended and acknowledged.
    fn reopen(&mut self) {
        self.journal = None;
        let journal = Journal::open(&self.dir.join("j"), on(&self.disk)).unwrap();
        let found = records(&journal);
        let kept = found.len();
        assert!(kept <= self.appended.len(), "records were invented");
        for (index, payload) in found.iter().enumerate() {
            assert!(*payload == self.appended[index].0, "record {index} is altered or out of order");
        }
        if let Some((_, lsn)) = self.appended.get(kept) {
            assert!(*lsn > self.acknowledged, "a record acknowledged at {} is gone: {lsn}", self.acknowledged);
        }
        assert!(journal.board().durable() >= self.acknowledged);
        self.appended.truncate(kept);
        // opening has made it durable, whatever happens next
        self.acknowledged = journal.board().durable();
        start_run(&journal);
        self.journal = Some(journal);
    }
}

#[test]
fn what_was_acknowledged_survives_every_power_cut() {
    let mut cuts = 0;
    for seed in seeds() {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let mut world = World::new();
        for _ in 0..random.below(40) + 10 {
            match random.below(12) {
                0..=5 => world.append(&mut random),
                6..=7 => {
                    world.journal().write().unwrap();
                }
                8..=9 => world.sync(),
                10 => world.reopen(),
                _ => {
                    world.power_cut(&mut random);
                    cuts += 1;
                }
            }
        }
        world.power_cut(&mut random);
        world.power_cut(&mut random);
    }
    println!("{cuts} power cuts in the middle of a run");
}

#[test]
fn a_failed_sync_is_final_and_nothing_behind_it_is_believed_from_the_page_cache() {
    let mut failed = 0;
    for seed in seeds() {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let mut world = World::new();
        for _ in 0..3 {
            world.disk.fail_sync(world.disk.syncs() + random.below(12));
            for _ in 0..random.below(20) + 5 {
                world.append(&mut random);
                if random.one_in(2) {
                    world.sync();
                }
                if world.journal().board().ended().is_some() {
                    failed += 1;
                    let before = world.acknowledged;
                    world.append(&mut random);
                    world.sync();
                    assert_eq!(world.acknowledged, before, "acknowledged after a failed sync");
                    break;
                }
            }
            // the page cache still shows what the disk has not: opening must write it again, or a cut loses it
            let mut attempts = 0;
            loop {
                world.journal = None;
                match Journal::open(&world.dir.join("j"), on(&world.disk)) {
                    Ok(journal) => break drop(journal),
                    Err(error) => assert!(matches!(error, Error::Poisoned { .. } | Error::Io { .. }), "{error}"),
                }
                attempts += 1;
                assert!(attempts < 5);
            }
            world.disk.heal();
            world.reopen();
            world.power_cut(&mut random);
        }
    }
    assert!(failed > 0, "no sync ever failed");
}

#[test]
fn power_gone_inside_any_operation_loses_nothing_acknowledged() {
    for seed in seeds() {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let mut world = World::new();
        for _ in 0..random.below(12) {
            world.append(&mut random);
            if random.one_in(3) {
                world.sync();
            }
        }
        world.disk.stop_at(world.disk.calls() + random.below(25));
        for _ in 0..6 {
            if world.journal().board().ended().is_none() {
                let before = world.appended.len();
                let payload = vec![7; random.below(30_000) as usize];
                if let Ok(ticket) = world.journal().append(Item::record(&[&payload])) {
                    world.appended.push((payload, ticket.lsn()));
                }
                assert!(world.appended.len() <= before + 1);
                if let Ok(durable) = world.journal().sync() {
                    world.acknowledged = durable.lsn();
                }
            }
        }
        world.power_cut(&mut random);
        world.power_cut(&mut random);
    }
}

#[test]
fn a_cut_is_a_fact_whenever_the_power_goes() {
    for seed in seeds() {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let mut world = World::new();
        for _ in 0..random.below(30) + 10 {
            world.append(&mut random);
        }
        world.sync();
        let index = random.below(world.appended.len() as u64) as usize;
        let to = world.appended[index].1;
        if random.one_in(2) {
            world.disk.stop_at(world.disk.calls() + random.below(40));
        }
        let whole = world.appended.clone();
        let done = world.journal().cut(to).is_ok();
        // it is cut, or nothing is: never something in between
        world.acknowledged = to;
        if done {
            world.appended.truncate(index + 1);
        }
        world.power_cut(&mut random);
        assert!(world.appended.len() == index + 1 || (!done && world.appended.len() == whole.len()));
        world.append(&mut random);
        world.sync();
        world.power_cut(&mut random);
    }
}

/// A cut that was interrupted left no evidence for what it had kept: rot there passed for a torn tail, and what was durable
/// was cut away with it.
#[test]
fn an_interrupted_cut_keeps_the_evidence_of_what_it_keeps() {
    let mut refused = 0;
    for calls in 0..40 {
        let mut random = Random::new(calls);
        let mut world = World::new();
        (0..60).for_each(|_| world.append(&mut random));
        world.sync();
        let (to, rotten) = (world.appended[40].1, world.appended[38].1);
        world.disk.stop_at(world.disk.calls() + calls);
        let _interrupted = world.journal().cut(to);
        world.journal = None;
        world.disk.stop_at(u64::MAX);
        let first = rotten.get() / (64 << 10) * (64 << 10);
        let path = world.dir.join("j").join(format!("{first:016x}.seg"));
        let at = SEGMENT_HEADER_BYTES as u64 + rotten.get() - first + 30;
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        match Journal::open(&world.dir.join("j"), on(&world.disk)) {
            // only the segment that holds the evidence is read at an opening: readers find what is in front of it
            Ok(journal) => assert!(journal.written_tip().lsn >= to, "call {calls}: cut at {rotten}, below {to}"),
            Err(Error::Rot { range, .. }) => {
                assert_eq!(range.from, rotten, "call {calls}");
                refused += 1;
            }
            Err(error) => panic!("call {calls}: {error}"),
        }
    }
    assert!(refused > 0, "no cut was interrupted where it matters");
}

/// A cut that was recorded and not finished went on as if nothing had happened: what was appended and acknowledged behind
/// it was cut away when the journal was opened again.
#[test]
fn a_cut_that_fails_ends_the_stream_wherever_a_sync_fails() {
    let mut failed = 0;
    for number in 0..40 {
        let mut random = Random::new(number);
        let mut world = World::new();
        (0..100).for_each(|_| world.append(&mut random));
        world.sync();
        let (_, to) = world.appended[60];
        world.disk.fail_sync(world.disk.syncs() + number);
        let cut = world.journal().cut(to);
        world.disk.heal();
        let kept = match &cut {
            Ok(_) => 61,
            Err(error) => {
                failed += 1;
                assert!(world.journal().board().ended().is_some(), "sync {number}: {error}");
                world.journal().append(Item::record(&[b"x"])).unwrap_err();
                100
            }
        };
        // recorded or not: it is cut whole or not at all
        world.journal = None;
        let found = records(&Journal::open(&world.dir.join("j"), on(&world.disk)).unwrap());
        assert!(found.len() == kept || (cut.is_err() && found.len() == 61), "sync {number}: {}", found.len());
        assert!(found.iter().zip(&world.appended).all(|(found, (payload, _))| found == payload), "sync {number}");
    }
    assert!((8..40).contains(&failed), "{failed} syncs of a cut");
}

#[test]
fn a_full_disk_is_this_appends_error_and_goes_by_itself() {
    let mut world = World::new();
    let mut random = Random::new(1);
    world.append(&mut random);
    world.sync();
    world.disk.set_full(true);
    let payload = [9; 10_000];
    let error = loop {
        match world.journal().append(Item::record(&[&payload])) {
            Ok(ticket) => world.appended.push((payload.to_vec(), ticket.lsn())),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Full { .. }), "{error}");
    world.sync();
    assert_eq!(world.acknowledged, world.appended.last().unwrap().1, "what was staged before is acknowledged");
    world.disk.set_full(false);
    world.append(&mut random);
    world.sync();
    world.reopen();
}
