//! The control file is lost where the power went, or a cut was under way; and the power goes while it is made anew.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use journal::testing::{Keep, Random, SimDisk, Survivors};
use journal::{Class, Geometry, Host, Item, Journal, Lsn, NodeId, Options, Rebuild, Role, StreamId};

use crate::host::{TestClock, options};
use crate::lifecycle::{create, offline_records, records, small, start_run};
use crate::power::folder;
use crate::rebuild::{HEADER, control, flip, plan, segment, written};

fn on(disk: &SimDisk) -> Host {
    Host { storage: Arc::new(disk.clone()), ..Host::default() }
}

fn opened(dir: &Path, disk: &SimDisk) -> journal::Result<Journal> {
    Journal::open(dir, Options { geometry: Geometry::new(64 << 10).unwrap(), host: on(disk), ..Options::default() })
}

/// A cut that the power interrupted, and the control file lost with it: the cut tail does not come back half, and what
/// was acknowledged below the cut is there. `calls` is how far the cut came.
#[test]
fn a_begun_cut_is_finished_or_had_not_begun() {
    let mut finished = 0;
    for calls in 0..24 {
        for boundary in [false, true] {
            let base = folder();
            let dir = base.path().join("j");
            let disk = SimDisk::default();
            let options = Options { geometry: Geometry::new(64 << 10).unwrap(), host: on(&disk), ..Options::default() };
            let journal = Journal::create(&dir, StreamId::random(), NodeId::random(), Role::Primary, options).unwrap();
            start_run(&journal);
            let mut ends = Vec::new();
            for number in 0..250u8 {
                ends.push(journal.append(Item::record(&[&[number; 1000]])).unwrap().lsn());
            }
            journal.sync().unwrap();
            let to = match boundary {
                true => Lsn::new(0x20000),
                false => ends[120],
            };
            let (whole, node) = (records(&journal), journal.node());
            disk.stop_at(disk.calls() + calls);
            let done = journal.cut(to).is_ok();
            drop(journal);
            // kill -9 in the middle of the cut: what was written stands
            fs::remove_file(control(&dir)).unwrap();
            let disk = SimDisk::adopt(base.path()).unwrap();
            let rebuild = Rebuild::plan(&dir, Some(node), on(&disk)).unwrap();
            assert_eq!(rebuild.loss(), None, "call {calls}");
            rebuild.write(false).unwrap();
            let journal = opened(&dir, &disk).unwrap();
            let found = records(&journal);
            let below = ends.iter().filter(|&&end| end <= to).count();
            assert!(found == whole || found == whole[..below], "call {calls}: {} records", found.len());
            assert!(!done || found.len() == below, "a finished cut stays");
            finished += usize::from(found.len() == below && !done);
            assert_eq!(journal.written_tip().lsn, if found.len() == below { to } else { *ends.last().unwrap() });
        }
    }
    assert!(finished > 0, "no cut was ever finished by the rebuild");
}

/// The branch was made, and then the power went: nothing says whether the cut was recorded. A log that went on since was
/// not cut; one that ends where it ended then is, so that a cut tail never comes back.
#[test]
fn a_branch_alone_cuts_only_what_did_not_go_on() {
    for goes_on in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let journal = create(dir.path());
        start_run(&journal);
        let to = journal.append(Item::record(&[b"one"])).unwrap().lsn();
        let end = journal.append(Item::record(&[b"two"])).unwrap().durable().unwrap().lsn;
        let branch = dir.path().join(format!("branches/{to}-{end}-0000000000000001"));
        fs::create_dir_all(&branch).unwrap();
        fs::hard_link(segment(dir.path(), 0), branch.join("0000000000000000.seg")).unwrap();
        if goes_on {
            journal.append(Item::record(&[b"three"])).unwrap().durable().unwrap();
        }
        let (node, mut kept) = (journal.node(), records(&journal));
        drop(journal);
        fs::remove_file(control(dir.path())).unwrap();
        let rebuild = plan(dir.path(), Some(node)).unwrap();
        assert_eq!((rebuild.cut(), rebuild.loss()), ((!goes_on).then_some(to), None));
        rebuild.write(false).unwrap();
        if !goes_on {
            kept.truncate(1);
            assert_eq!(offline_records(dir.path()), kept, "what is cut is not read, also before it is opened");
        }
        assert_eq!(records(&Journal::open(dir.path(), small()).unwrap()), kept);
    }
}

/// Whenever the power goes, the control file is lost as before, or it is the new one; and no sync is skipped that the
/// new one speaks of.
#[test]
fn power_gone_in_a_rebuild_leaves_the_old_state_or_the_new_one() {
    let (mut old, mut new) = (0, 0);
    for (seed, rotten) in (0..30).flat_map(|seed| [(seed, false), (seed, true)]) {
        let mut random = Random::new(seed);
        let base = folder();
        let (from, to) = (base.path().join("0"), base.path().join("1"));
        fs::create_dir_all(from.join("j")).unwrap();
        fs::create_dir(&to).unwrap();
        let (node, ends, kept) = written(&from.join("j"));
        fs::remove_file(control(&from.join("j"))).unwrap();
        let mut whole = kept.len();
        if rotten {
            whole = 100;
            let at = ends[99].get();
            flip(&segment(&from.join("j"), at & !0xffff), HEADER + (at & 0xffff) + 200);
        }
        let disk = SimDisk::adopt(&from).unwrap();
        let rebuild = Rebuild::plan(&from.join("j"), Some(node), on(&disk)).unwrap();
        assert_eq!(rebuild.loss().is_some(), rotten);
        disk.stop_at(disk.calls() + random.below(40));
        let done = rebuild.write(rotten).is_ok();
        let disk = disk.power_cut(&mut random, &from, &to).unwrap();
        let dir = to.join("j");
        match opened(&dir, &disk) {
            Ok(journal) => {
                new += 1;
                assert_eq!(records(&journal), kept[..whole], "seed {seed}");
            }
            Err(error) => {
                old += 1;
                assert!(!done && error.class() == Class::Corrupt, "seed {seed}: {error}");
                Rebuild::plan(&dir, Some(node), on(&disk)).unwrap().write(rotten).unwrap();
                assert_eq!(records(&opened(&dir, &disk).unwrap()), kept[..whole], "seed {seed}");
            }
        }
    }
    assert!(old > 0 && new > 0, "old {old}, new {new}");
}

/// After a failed sync the page cache shows what the disk doesn't have. A rebuild that believed it would call durable
/// what the next power cut takes.
#[test]
fn what_only_the_page_cache_has_is_on_the_disk_before_it_counts() {
    let base = folder();
    let (from, to) = (base.path().join("0"), base.path().join("1"));
    fs::create_dir_all(&from).unwrap();
    fs::create_dir(&to).unwrap();
    let disk = SimDisk::default();
    let options = Options { geometry: Geometry::new(64 << 10).unwrap(), host: on(&disk), ..Options::default() };
    let dir = from.join("j");
    let journal = Journal::create(&dir, StreamId::random(), NodeId::random(), Role::Primary, options).unwrap();
    start_run(&journal);
    journal.append(Item::record(&[b"durable"])).unwrap().durable().unwrap();
    journal.append(Item::record(&[&[1; 9000]])).unwrap();
    disk.fail_sync(disk.syncs());
    journal.sync().unwrap_err();
    let node = journal.node();
    drop(journal);
    let storage = on(&disk).storage;
    storage.remove(&control(&dir)).unwrap();
    storage.sync_dir(&dir).unwrap();
    let rebuild = Rebuild::plan(&dir, Some(node), on(&disk)).unwrap();
    rebuild.write(false).unwrap();
    let mut random = Random::new(1);
    for life in 0..8 {
        let to = to.join(life.to_string());
        fs::create_dir(&to).unwrap();
        let after = disk.power_cut(&mut random, &from, &to).unwrap();
        assert_eq!(records(&opened(&to.join("j"), &after).unwrap()).len(), 2);
    }
}

/// A control file that is behind lacks the runs that were opened since. The power went when the evidence of the next start
/// was safe, and the history that it had found not yet: the start after that began to read behind where they were opened.
#[test]
fn power_gone_in_a_start_with_a_control_file_that_is_behind_costs_no_epoch() {
    let clock = TestClock::default();
    let base = folder();
    let dir = base.path().join("0").join("j");
    let disk = SimDisk::default();
    let journal =
        Journal::create(&dir, StreamId::random(), NodeId::random(), Role::Primary, options(&disk, &clock)).unwrap();
    start_run(&journal);
    journal.append(Item::record(&[b"first run"])).unwrap();
    journal.close().unwrap();
    let behind = fs::read(dir.join("control")).unwrap();
    let journal = Journal::open(&dir, options(&disk, &clock)).unwrap();
    start_run(&journal);
    for number in 0..20 {
        journal.append(Item::record(&[&[number; 9000]])).unwrap();
    }
    let wanted = journal.history();
    journal.close().unwrap();
    fs::write(dir.join("control"), &behind).unwrap();
    for stop in 0.. {
        for sectors in [Keep::None, Keep::All] {
            let after = folder();
            let [one, two] = ["1", "2"].map(|name| after.path().join(name));
            let copy = |survivors, disk: &SimDisk, from: &Path, to: &Path| {
                fs::create_dir(to).unwrap();
                disk.cut_power(survivors, from, to).unwrap()
            };
            let whole = SimDisk::adopt(&base.path().join("0")).unwrap();
            let disk = copy(Survivors { names: 0, sectors: Keep::None }, &whole, &base.path().join("0"), &one);
            disk.stop_at(stop);
            let opened = Journal::open(&one.join("j"), options(&disk, &clock));
            let is_done = opened.is_ok();
            drop(opened);
            let disk = copy(Survivors { names: disk.pending_names(), sectors }, &disk, &one, &two);
            let journal = Journal::open(&two.join("j"), options(&disk, &clock)).unwrap();
            assert_eq!(journal.history(), wanted, "power gone at call {stop}, {sectors:?}");
            if is_done && sectors == Keep::All {
                assert!(stop > 5);
                return;
            }
        }
    }
}
