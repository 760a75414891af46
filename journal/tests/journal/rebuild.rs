//! The control file is lost: what a new one may say, and what is refused.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use journal::{
    Class, Cursor, Host, Item, Journal, Lsn, LsnRange, NodeId, Reason, Rebuild, Role, RunOpening, SEGMENT_HEADER_BYTES,
    Term, TermSeen, Tip, offline,
};

use crate::lifecycle::{create, records, small, start_run};

pub(crate) const HEADER: u64 = SEGMENT_HEADER_BYTES as u64;

pub(crate) fn plan(dir: &Path, node: Option<NodeId>) -> journal::Result<Rebuild> {
    Rebuild::plan(dir, node, Host::default())
}

pub(crate) fn control(dir: &Path) -> PathBuf {
    dir.join("control")
}

pub(crate) fn segment(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:016x}.seg"))
}

fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

pub(crate) fn flip(path: &Path, offset: u64) {
    let byte = fs::read(path).unwrap()[offset as usize];
    write_at(path, offset, &[byte ^ 0x40]);
}

/// Every file below `dir` but the lock.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(contents(&path)),
            false if path.ends_with("lock") => {}
            false => drop(files.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    files
}

/// A journal of several segments whose last entry ends at the second value.
pub(crate) fn written(dir: &Path) -> (NodeId, Vec<Lsn>, Vec<Vec<u8>>) {
    let journal = create(dir);
    start_run(&journal);
    let mut ends = Vec::new();
    for number in 0..200u8 {
        ends.push(journal.append(Item::record(&[&[number; 1000]])).unwrap().lsn());
    }
    journal.sync().unwrap();
    let kept = records(&journal);
    let node = journal.node();
    drop(journal); // as after kill -9
    (node, ends, kept)
}

#[test]
fn a_lost_control_file_is_made_anew_and_every_record_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (node, ends, kept) = written(dir.path());
    fs::remove_file(control(dir.path())).unwrap();
    let error = Journal::open(dir.path(), small()).unwrap_err();
    assert_eq!(error.class(), Class::Corrupt);
    let command = format!("towline journal rebuild {}", dir.path().display());
    assert!(error.to_string().contains(&command), "{error}");
    assert!(offline::Log::open(dir.path()).unwrap_err().to_string().contains(&command));

    let before = contents(dir.path());
    let rebuild = plan(dir.path(), Some(node)).unwrap();
    assert_eq!(contents(dir.path()), before, "a plan changes nothing");
    assert_eq!((rebuild.loss(), rebuild.cut()), (None, None));
    let end = *ends.last().unwrap();
    assert_eq!(
        (rebuild.range(), rebuild.role(), rebuild.term()),
        (LsnRange::new(Lsn::ZERO, end), Role::Fenced, Term(1))
    );
    rebuild.write(false).unwrap();
    assert_eq!(offline::Log::open(dir.path()).unwrap().evidence(), end, "what was verified is durable");

    let journal = Journal::open(dir.path(), small()).unwrap();
    assert_eq!(records(&journal), kept);
    assert_eq!((journal.node(), journal.role(), journal.is_rebuilt()), (node, Role::Fenced, true));
    assert_eq!((journal.committed(), journal.checkpoint(), journal.evidence()), (Lsn::ZERO, Lsn::ZERO, end));
    assert_eq!(journal.history().openings().len(), 1);
    // the operator's word; a run number is not given twice
    journal.set_role(Role::Primary).unwrap();
    assert!(!journal.is_rebuilt());
    start_run(&journal);
    assert_eq!(journal.append(Item::record(&[b"new"])).unwrap().epoch().run, 2);
    journal.sync().unwrap();
    drop(journal);
    assert_eq!(records(&Journal::open(dir.path(), small()).unwrap()).len(), kept.len() + 1);
}

#[test]
fn slots_that_are_whole_are_kept() {
    const EVIDENCE_AT: u64 = 512 << 10;
    let dir = tempfile::tempdir().unwrap();
    let (node, ends, kept) = written(dir.path());
    let journal = Journal::open(dir.path(), small()).unwrap();
    journal.set_checkpoint(ends[10]).unwrap();
    journal.see_term(TermSeen { term: Term(7), id: 77 }).unwrap();
    let peer = NodeId::random();
    let tip = journal.tip_at(ends[50]).unwrap().unwrap();
    journal.remember_peer(peer, tip.lsn, tip.chain).unwrap();
    journal.close().unwrap();
    assert_eq!(plan(dir.path(), Some(node)).unwrap_err().class(), Class::Refused, "it is whole");
    let whole = fs::read(control(dir.path())).unwrap();

    // one slot of each is enough
    for (facts, evidence) in [(0, 0), (0, 4096), (256 << 10, 0), (256 << 10, 4096)] {
        write_at(&control(dir.path()), facts + 20, &[0xff; 64]);
        write_at(&control(dir.path()), EVIDENCE_AT + evidence + 20, &[0xff; 64]);
        assert_eq!(plan(dir.path(), Some(node)).unwrap_err().class(), Class::Refused);
        fs::write(control(dir.path()), &whole).unwrap();
    }
    // the evidence is lost: role and terms are not
    write_at(&control(dir.path()), EVIDENCE_AT, &[0xff; 8192]);
    let rebuild = plan(dir.path(), None).unwrap();
    assert!(rebuild.kept().facts && !rebuild.kept().evidence);
    rebuild.write(false).unwrap();
    let journal = Journal::open(dir.path(), small()).unwrap();
    assert_eq!((journal.role(), journal.term_seen().term, journal.node()), (Role::Primary, Term(7), node));
    assert_eq!((journal.checkpoint(), journal.is_rebuilt(), records(&journal)), (ends[10], false, kept.clone()));
    drop(journal);
    // the facts are lost: what peers acknowledged is not
    fs::write(control(dir.path()), &whole).unwrap();
    write_at(&control(dir.path()), 0, &vec![0xff; 512 << 10]);
    let rebuild = plan(dir.path(), Some(node)).unwrap();
    assert!(!rebuild.kept().facts && rebuild.kept().evidence);
    rebuild.write(false).unwrap();
    let journal = Journal::open(dir.path(), small()).unwrap();
    assert_eq!(journal.peer_remembered(peer), Some((tip.lsn, tip.chain)));
    assert_eq!((journal.role(), journal.term_seen().term, records(&journal)), (Role::Fenced, Term(1), kept));
}

#[test]
fn a_truncated_control_file_is_lost_and_one_of_another_version_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (node, _, kept) = written(dir.path());
    let whole = fs::read(control(dir.path())).unwrap();
    // as a newer version would write it: whole, and not to be understood
    let mut newer = whole.clone();
    for slot in [0, 256 << 10] {
        newer[slot + 16] = 2;
        let length = u32::from_le_bytes(newer[slot + 4..slot + 8].try_into().unwrap()) as usize;
        let crc = journal::crc32c(&newer[slot + 8..slot + 8 + length]);
        newer[slot..slot + 4].copy_from_slice(&crc.to_le_bytes());
    }
    fs::write(control(dir.path()), &newer).unwrap();
    assert_eq!(Journal::open(dir.path(), small()).unwrap_err().class(), Class::Incompatible);
    assert_eq!(plan(dir.path(), Some(node)).unwrap_err().class(), Class::Incompatible);
    assert_eq!(fs::read(control(dir.path())).unwrap(), newer);

    fs::write(control(dir.path()), &whole[..1000]).unwrap();
    assert_eq!(Journal::open(dir.path(), small()).unwrap_err().class(), Class::Corrupt);
    plan(dir.path(), Some(node)).unwrap().write(false).unwrap();
    assert_eq!(records(&Journal::open(dir.path(), small()).unwrap()), kept);
}

/// The file of an earlier moment, whole segments behind: opening alone is enough.
#[test]
fn a_control_file_that_is_behind_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    journal.append(Item::record(&[b"early"])).unwrap().durable().unwrap();
    let early = fs::read(control(dir.path())).unwrap();
    for life in 0..3u8 {
        for number in 0..100u8 {
            journal.append(Item::record(&[&[number; 1000], &[life]])).unwrap();
        }
        journal.sync().unwrap();
    }
    let (kept, end) = (records(&journal), journal.board().durable());
    drop(journal);
    fs::write(control(dir.path()), &early).unwrap();
    let journal = Journal::open(dir.path(), small()).unwrap();
    assert_eq!((records(&journal), journal.evidence()), (kept.clone(), end));
    start_run(&journal);
    journal.append(Item::record(&[b"more"])).unwrap().durable().unwrap();
    drop(journal);
    // several runs behind: their openings are found in the log
    fs::write(control(dir.path()), &early).unwrap();
    let journal = Journal::open(dir.path(), small()).unwrap();
    assert_eq!((records(&journal).len(), journal.history().openings().len()), (kept.len() + 1, 2));
    start_run(&journal);
    assert_eq!(journal.append(Item::record(&[b"x"])).unwrap().epoch().run, 3, "a run number is never given twice");
}

#[test]
fn rot_in_the_middle_is_refused_with_its_range_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let (node, ends, kept) = written(dir.path());
    fs::remove_file(control(dir.path())).unwrap();
    let pristine = contents(dir.path());
    let (from, to, end) = (ends[99], ends[100], *ends.last().unwrap());
    let first = from.get() & !0xffff;
    // its length, place, epoch, run, time, chain, and its payload: what header can be believed tells where it ends
    for offset in [0, 8, 16, 24, 32, 80, 200] {
        flip(&segment(dir.path(), first), HEADER + from.get() - first + offset);
        let spoiled = contents(dir.path());
        let rebuild = plan(dir.path(), Some(node)).unwrap();
        let loss = rebuild.loss().unwrap().clone();
        assert_eq!((loss.damaged, loss.given_up.from), (LsnRange::new(from, to), from), "{loss:?}");
        assert!(loss.given_up.to >= end, "{loss:?}");
        assert_eq!(loss.path, segment(dir.path(), first));
        let error = rebuild.write(false).unwrap_err();
        assert_eq!(error.class(), Class::Corrupt);
        assert!(error.to_string().contains(&format!("{from}..{to}")), "{error}");
        assert_eq!(contents(dir.path()), spoiled, "byte for byte");
        for (path, bytes) in &pristine {
            fs::write(path, bytes).unwrap();
        }
    }
    // given up by name: the front stays, the rest is a branch, nothing is deleted
    flip(&segment(dir.path(), first), HEADER + from.get() - first + 200);
    let spoiled = contents(dir.path());
    plan(dir.path(), Some(node)).unwrap().write(true).unwrap();
    let journal = Journal::open(dir.path(), small()).unwrap();
    assert_eq!((journal.written_tip().lsn, records(&journal)), (from, kept[..100].to_vec()));
    drop(journal);
    let branch = fs::read_dir(dir.path().join("branches")).unwrap().next().unwrap().unwrap().path();
    for (path, bytes) in spoiled.iter().filter(|(path, _)| **path >= segment(dir.path(), first)) {
        assert_eq!(&fs::read(branch.join(path.file_name().unwrap())).unwrap(), bytes, "{path:?}");
    }
    // the branch is a journal of its own: what begins with a whole header can be read
    let log = offline::Log::open(&branch).unwrap();
    assert_eq!(log.segments()[0].range.from, Lsn::new(first));
    let next = log.segments()[1].tip.lsn;
    let mut entries = log.entries(Some(next)).unwrap();
    while entries.next_entry().unwrap().is_some() {}
    assert_eq!(entries.tip().lsn, end);
}

#[test]
fn the_last_entry_is_not_cut_silently_either() {
    let dir = tempfile::tempdir().unwrap();
    let (node, ends, kept) = written(dir.path());
    fs::remove_file(control(dir.path())).unwrap();
    let pristine = contents(dir.path());
    let from = ends[ends.len() - 2];
    let first = from.get() & !0xffff;
    for offset in (0..88).chain((88..1088).step_by(50)) {
        flip(&segment(dir.path(), first), HEADER + from.get() - first + offset);
        let rebuild = plan(dir.path(), Some(node)).unwrap();
        let loss = rebuild.loss().unwrap_or_else(|| panic!("byte {offset} passed"));
        assert_eq!(loss.given_up.from, from);
        drop(rebuild);
        fs::write(segment(dir.path(), first), &pristine[&segment(dir.path(), first)]).unwrap();
    }
    plan(dir.path(), Some(node)).unwrap().write(false).unwrap();
    assert_eq!(records(&Journal::open(dir.path(), small()).unwrap()), kept);
}

/// A cut that was only prepared when the control file was lost: its copy must not take the place of a segment that another
/// cut goes through.
#[test]
fn what_a_cut_left_aside_is_not_taken_for_that_of_another_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (node, ends, kept) = written(dir.path());
    fs::remove_file(control(dir.path())).unwrap();
    let from = ends[ends.len() - 2];
    let first = from.get() & !0xffff;
    flip(&segment(dir.path(), first), HEADER + from.get() - first);
    fs::copy(segment(dir.path(), 0), dir.path().join("cut.new")).unwrap();
    plan(dir.path(), Some(node)).unwrap().write(true).unwrap();
    assert_eq!(records(&Journal::open(dir.path(), small()).unwrap()), kept[..kept.len() - 1]);
}

/// A write that never ended and left nothing of its header: zeros, or what was in a recycled file before.
#[test]
fn a_clean_end_is_one_also_in_a_recycled_segment() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    for number in 0..200u8 {
        journal.append(Item::record(&[&[number; 1000]])).unwrap();
    }
    let middle = journal.sync().unwrap().lsn();
    journal.prune(middle).unwrap();
    assert!(fs::read_dir(dir.path().join("pool")).unwrap().count() > 0, "there are recycled files");
    for number in 0..150u8 {
        journal.append(Item::record(&[&[number; 1000]])).unwrap();
    }
    journal.sync().unwrap();
    let (kept, start, history, node) = (records(&journal), journal.start_tip(), journal.history(), journal.node());
    let end = journal.board().durable();
    drop(journal);
    let first = end.get() & !0xffff;
    let last = fs::read(segment(dir.path(), first)).unwrap();
    let behind = &last[(HEADER + end.get() - first) as usize..];
    assert!(behind.iter().any(|&byte| byte != 0), "stale bytes stand behind the end");
    fs::remove_file(control(dir.path())).unwrap();
    let rebuild = plan(dir.path(), Some(node)).unwrap();
    assert_eq!((rebuild.loss(), rebuild.range()), (None, LsnRange::new(start.lsn, end)));
    assert_eq!(*rebuild.history(), history, "also of the epoch whose first entry was pruned");
    rebuild.write(false).unwrap();
    let journal = Journal::open(dir.path(), small()).unwrap();
    assert_eq!((records(&journal), journal.start_tip()), (kept, start));
    assert_eq!(journal.term_seen(), history.term_seen());
}

#[test]
fn a_missing_a_truncated_and_a_foreign_segment_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (node, ends, _) = written(dir.path());
    let end = *ends.last().unwrap();
    fs::remove_file(control(dir.path())).unwrap();
    let pristine = contents(dir.path());
    let restore = || pristine.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    let second = segment(dir.path(), 0x10000);

    fs::remove_file(&second).unwrap();
    let loss = plan(dir.path(), Some(node)).unwrap().loss().unwrap().clone();
    assert_eq!(loss.damaged, LsnRange::new(Lsn::new(0x10000), Lsn::new(0x20000)), "{loss:?}");
    assert!(loss.given_up.to >= end && loss.path == second, "{loss:?}");
    restore();

    fs::write(&second, &pristine[&second][..20_000]).unwrap();
    let loss = plan(dir.path(), Some(node)).unwrap().loss().unwrap().clone();
    assert!(loss.damaged.from > Lsn::new(0x10000) && loss.damaged.from < Lsn::new(0x10000 + 20_000), "{loss:?}");
    restore();

    // both copies of a header; of the first one there is nothing to begin with
    write_at(&second, 0, &[0xff; 4096]);
    let loss = plan(dir.path(), Some(node)).unwrap().loss().unwrap().clone();
    assert_eq!((loss.damaged.from, &loss.path), (Lsn::new(0x10000), &second), "{loss:?}");
    plan(dir.path(), Some(node)).unwrap().write(true).unwrap();
    assert_eq!(Journal::open(dir.path(), small()).unwrap().written_tip().lsn, Lsn::new(0x10000));
    fs::remove_dir_all(dir.path().join("branches")).unwrap();
    fs::remove_file(control(dir.path())).unwrap();
    restore();
    write_at(&segment(dir.path(), 0), 0, &[0xff; 4096]);
    let error = plan(dir.path(), Some(node)).unwrap_err();
    assert!(error.class() == Class::Corrupt && error.to_string().contains("first segment"), "{error}");
    restore();

    let other = tempfile::tempdir().unwrap();
    written(other.path());
    fs::copy(segment(other.path(), 0x10000), &second).unwrap();
    let error = plan(dir.path(), Some(node)).unwrap_err();
    assert!(error.class() == Class::Corrupt && error.to_string().contains("says stream"), "{error}");
    restore();
    fs::rename(&second, segment(dir.path(), 0x90000)).unwrap();
    assert_eq!(plan(dir.path(), Some(node)).unwrap_err().class(), Class::Corrupt);
}

#[test]
fn who_wrote_the_newest_run_comes_back_fenced_and_anybody_else_as_a_receiver() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let journal = create(here.path());
    let copy = Journal::create(there.path(), journal.stream(), NodeId::random(), Role::Receiver, small()).unwrap();
    start_run(&journal);
    journal.append(Item::record(&[b"one"])).unwrap().durable().unwrap();
    let mut cursor = Cursor::new(copy.geometry(), Tip::empty(copy.stream()));
    let slice = journal.slice(Lsn::ZERO, 1 << 20).unwrap().unwrap();
    copy.extend(&cursor.verify(&slice).unwrap()).unwrap();
    copy.sync().unwrap();
    let nodes = [journal.node(), copy.node()];
    drop((slice, journal, copy));
    for (dir, node, role) in [(&here, nodes[0], Role::Fenced), (&there, nodes[1], Role::Receiver)] {
        fs::remove_file(control(dir.path())).unwrap();
        let rebuild = plan(dir.path(), Some(node)).unwrap();
        assert_eq!((rebuild.role(), rebuild.node()), (role, node));
        drop(rebuild);
        // nobody knows who it is: it may have been the writer
        let rebuild = plan(dir.path(), None).unwrap();
        assert!(rebuild.role() == Role::Fenced && !nodes.contains(&rebuild.node()));
        rebuild.write(false).unwrap();
        fs::remove_file(control(dir.path())).unwrap();
    }
    // promoted, and the log says so
    plan(there.path(), Some(nodes[1])).unwrap().write(false).unwrap();
    let copy = Journal::open(there.path(), small()).unwrap();
    copy.vouched().unwrap();
    assert!(!copy.is_rebuilt());
    let term = TermSeen { term: Term(2), id: 22 };
    copy.open_run(RunOpening { promote: Some(term), reason: Reason::Promoted, policy: b"{}".to_vec() }).unwrap();
    copy.append(Item::record(&[b"two"])).unwrap().durable().unwrap();
    drop(copy);
    fs::remove_file(control(there.path())).unwrap();
    let rebuild = plan(there.path(), Some(nodes[1])).unwrap();
    assert_eq!((rebuild.role(), rebuild.term()), (Role::Fenced, Term(2)));
    rebuild.write(false).unwrap();
    assert_eq!(Journal::open(there.path(), small()).unwrap().term_seen(), term);
}

#[test]
fn there_must_be_a_log_and_nobody_may_hold_it() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(plan(&dir.path().join("nowhere"), None).unwrap_err().class(), Class::Absent);
    let journal = create(dir.path());
    assert_eq!(plan(dir.path(), None).unwrap_err().class(), Class::Locked);
    drop(journal);
    fs::remove_file(control(dir.path())).unwrap();
    assert_eq!(plan(dir.path(), None).unwrap_err().class(), Class::Absent, "no segment, no log");
}
