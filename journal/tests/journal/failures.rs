//! Every call of a script that changes the disk fails, with an I/O error and for want of space, once and for ever.
//!
//! Whatever fails: what was acknowledged is there afterwards, after a restart and after a power cut. A failed sync ends
//! the stream, and so does a failed write of entries; want of space outside of a sync never does, and the journal goes
//! on by itself when there is space again.

use std::path::Path;

use journal::testing::{Call, Keep, Survivors};
use journal::{Class, End, Role};

use crate::exhaustive::{Told, is_long};
use crate::script::{Failure, Op, Scene};
use crate::scripts::{SCRIPTS, Script};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

#[derive(Clone, Copy, Debug)]
struct Trouble {
    errno: i32,
    for_ever: bool,
}

const TROUBLES: [Trouble; 4] = [
    Trouble { errno: EIO, for_ever: false },
    Trouble { errno: EIO, for_ever: true },
    Trouble { errno: ENOSPC, for_ever: false },
    Trouble { errno: ENOSPC, for_ever: true },
];

/// Does a script whose call `number` fails; `false` when it has no such call.
fn fail(scene: &mut Scene, script: &[Op], number: u64, trouble: Trouble) -> bool {
    let number = scene.disk.calls() + number;
    let to = if trouble.for_ever { u64::MAX } else { number + 1 };
    scene.disk.fail_calls(number..to, trouble.errno);
    for &op in script {
        let before = scene.disk.failed().len();
        let ended_before = scene.ended();
        let done = scene.act(op);
        let failed = scene.disk.failed().split_off(before);
        if let Err(failure) = &done {
            check_message(failure, scene, op, trouble, ended_before.is_some());
        } else {
            assert!(ended_before.is_none() || !is_appending(op), "{op:?} was done after the end");
        }
        if scene.journal.is_some() {
            check_end(scene.ended(), &failed, op, trouble, ended_before.is_some());
        } else {
            // it could not be opened: it can, once the disk is well
            assert!(done.is_err());
            scene.disk.fail_calls(0..0, EIO);
            scene.reopen().unwrap();
        }
    }
    !scene.disk.failed().is_empty()
}

fn is_appending(op: Op) -> bool {
    matches!(op, Op::Append(_) | Op::Many(_) | Op::Durable(_) | Op::Extend(_) | Op::Mark | Op::Alone)
}

/// An end comes from what has to end the stream, and from nothing else.
fn check_end(ended: Option<End>, failed: &[(Call, std::path::PathBuf)], op: Op, trouble: Trouble, was_ended: bool) {
    let is_entries = |path: &Path| path.extension().is_some_and(|extension| extension == "seg");
    let sync = failed.iter().any(|(call, _)| matches!(call, Call::Sync | Call::SyncDir));
    let entries = failed.iter().any(|(call, path)| *call == Call::Write && is_entries(path));
    if sync || (entries && trouble.errno == EIO) {
        assert!(ended.is_some(), "{op:?} goes on after {failed:?}");
    } else if !was_ended && !matches!(op, Op::Fence(_)) {
        // behind its record a cut can't be taken back
        let recorded = |end: &End| matches!(end, End::Failed(why) if why.contains("is recorded"));
        assert!(ended.as_ref().is_none_or(recorded), "{op:?} ended the stream after {failed:?}: {ended:?}");
    }
}

/// The class says who must act, the text what and where.
fn check_message(failure: &Failure, scene: &Scene, op: Op, trouble: Trouble, was_ended: bool) {
    let Failure { class, text } = failure;
    match class {
        Class::Full => assert!(trouble.errno == ENOSPC && text.contains("Free some space"), "{op:?}: {failure:?}"),
        Class::Io => {}
        // after a failed operation the next ones of the script may not be possible
        Class::Refused | Class::NotReached | Class::Fenced => return,
        _ => panic!("{op:?}: {failure:?}"),
    }
    let folder = scene.dir.to_string_lossy();
    assert!(was_ended || text.contains(&*folder), "{op:?}: nobody is told which file: {failure:?}");
    if text.contains("a sync of") {
        assert!(text.contains("start it again"), "{op:?}: nobody is told what to do: {failure:?}");
    }
}

fn every_failure(scripts: &[Script], trouble: Trouble) {
    for (name, role, script) in scripts {
        let (mut cases, mut failed) = (0, true);
        // what fails for ever is seen from every other call on as well
        let step = if trouble.for_ever && !is_long() { 3 } else { 1 };
        for number in (0..).step_by(step) {
            let told = Told(format!("{name:?}, {trouble:?} from call {number} on"));
            let mut scene = Scene::new(*role);
            failed &= fail(&mut scene, script, number, trouble);
            scene.disk.fail_calls(0..0, EIO);
            if scene.ended().is_none() {
                scene.act(Op::OpenRun).unwrap();
                scene.act(Op::Durable(55)).unwrap();
            } else {
                let durable = scene.journal().board().durable();
                assert!(scene.act(Op::Append(55)).is_err());
                let _nothing_new = scene.act(Op::Sync);
                assert_eq!(scene.journal().board().durable(), durable, "acknowledged after the end");
            }
            let pending = scene.disk.pending_names();
            scene.journal = None;
            let cuts = [(0, Keep::None), (pending, Keep::All), (pending / 2, Keep::Random(number))];
            for (names, sectors) in cuts {
                let mut after = scene.after_power_cut(Survivors { names, sectors });
                after.reopen().unwrap();
            }
            // the page cache may show what the disk has not: what opening finds there it has to make true
            scene.reopen().unwrap();
            scene.goes_on();
            cases += 1;
            told.over();
            if !failed {
                break;
            }
        }
        println!("{name}: {cases} failures of {trouble:?}");
    }
}

#[test]
fn an_error_of_any_call_never_leads_to_a_false_acknowledgement() {
    SCRIPTS.iter().for_each(|scripts| every_failure(scripts, TROUBLES[0]));
}

#[test]
fn a_disk_that_is_gone_for_good_never_leads_to_a_false_acknowledgement() {
    SCRIPTS.iter().for_each(|scripts| every_failure(scripts, TROUBLES[1]));
}

#[test]
fn want_of_space_at_any_call_is_over_when_there_is_space() {
    SCRIPTS.iter().for_each(|scripts| every_failure(scripts, TROUBLES[2]));
}

#[test]
fn a_disk_that_stays_full_loses_nothing_acknowledged() {
    SCRIPTS.iter().for_each(|scripts| every_failure(scripts, TROUBLES[3]));
}
/// A receiver had written what it was given up to the end of a segment, opened the next one with the chain of those
/// entries in its header, and then had no space to write there. It was promoted instead: its own entries went into that
/// segment, were acknowledged, and were taken for rot when the journal was opened again, because the header said that
/// others come before them. A header that doesn't fit is now made anew.
#[test]
fn own_entries_never_go_into_a_segment_that_was_opened_for_others() {
    let half_received = || {
        let mut scene = Scene::new(Role::Receiver);
        scene.act(Op::Extend(50_000)).unwrap();
        scene.act(Op::Sync).unwrap();
        scene
    };
    let mut counted = half_received();
    counted.act(Op::Extend(50_000)).unwrap();
    let last = counted.disk.calls() - 1;
    let mut scene = half_received();
    let tip = scene.journal().written_tip();
    scene.disk.fail_calls(last..last + 1, ENOSPC);
    scene.act(Op::Extend(50_000)).unwrap_err();
    let segment = scene.journal().dir().join("0000000000010000.seg");
    assert_eq!(scene.disk.failed(), [(Call::Write, segment)]);
    scene.disk.fail_calls(0..0, ENOSPC);
    assert_eq!(scene.journal().written_tip(), tip, "nothing of it was taken");
    for op in [Op::Promote(7), Op::BeginRun, Op::Append(60_000), Op::Durable(9), Op::Close] {
        scene.act(op).unwrap();
    }
    scene.goes_on();
}

/// A sync of the control file failed after one of the log had not, so the newest evidence was lost with it. The journal
/// was pruned all the same, and the power went: the evidence on the disk was of below the horizon, no segment seemed to
/// hold it, and opening removed every segment as one that no entry had reached.
#[test]
fn evidence_of_below_the_horizon_loses_no_entry_above_it() {
    let before_sync = || {
        let mut scene = Scene::new(Role::Primary);
        for op in [Op::OpenRun, Op::Append(90_000), Op::Append(60_000)] {
            scene.act(op).unwrap();
        }
        scene
    };
    let mut counted = before_sync();
    counted.act(Op::Sync).unwrap();
    let last = counted.disk.calls() - 1;
    let mut scene = before_sync();
    scene.disk.fail_calls(last..last + 1, EIO);
    scene.act(Op::Sync).unwrap();
    assert!(scene.ended().is_some(), "the sync of the evidence failed");
    scene.act(Op::Prune).unwrap();
    assert!(scene.twin.start > journal::Lsn::ZERO && scene.twin.durable > scene.twin.start);
    scene.power_cut(Survivors { names: usize::MAX, sectors: Keep::None });
    scene.reopen().unwrap();
}

/// Half of the evidence was written, then the write failed. The next sync of the file was taken for one of that slot,
/// the slot that was whole was written over, and a power cut in the middle of that left none.
#[test]
fn a_half_written_evidence_slot_is_not_taken_for_the_safe_one() {
    let mut scene = Scene::new(Role::Primary);
    for op in [Op::OpenRun, Op::Durable(9)] {
        scene.act(op).unwrap();
    }
    let call = scene.disk.calls();
    scene.disk.fail_calls(call..call + 1, EIO);
    scene.act(Op::Peer).unwrap_err();
    for op in [Op::Checkpoint, Op::Append(9), Op::Write, Op::Peer] {
        scene.act(op).unwrap();
    }
    for seed in 0..16 {
        let mut after = scene.after_power_cut(Survivors { names: 0, sectors: Keep::Random(seed) });
        after.reopen().unwrap();
    }
}

/// A program that only appends, and leaves syncing to the flush thread, asks [`journal::Journal::close`] how it went.
#[test]
fn closing_after_the_end_says_that_not_everything_is_durable() {
    let mut scene = Scene::new(Role::Primary);
    for op in [Op::OpenRun, Op::Durable(9), Op::Append(9)] {
        scene.act(op).unwrap();
    }
    let call = scene.disk.calls();
    scene.disk.fail_calls(call + 1..call + 2, EIO);
    scene.act(Op::Sync).unwrap_err();
    assert_eq!(scene.journal.take().unwrap().close().unwrap_err().class(), Class::Io);
}
