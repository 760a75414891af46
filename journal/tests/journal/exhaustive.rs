//! The power goes at every call of a script that changes the disk, and each time different things survive.
//!
//! For every script and every call: no further call has an effect; then every prefix of the changes of names that no
//! sync has covered, each with none, all, and some of the unsynced sectors. `TOWLINE_LONG=1` takes more of the last, and
//! goes through every second cut too.

use std::collections::BTreeSet;

use journal::testing::{Keep, SimDisk, Survivors};
use journal::{Class, Role};

use crate::script::{Op, Scene};
use crate::scripts::{APPENDING, CUTTING, RECEIVING, RESTARTED, Script};

pub(crate) fn is_long() -> bool {
    std::env::var_os("TOWLINE_LONG").is_some()
}

/// Every prefix of a few names, the ends and the middle of many; with each of them the kinds of sectors.
fn survivors(disk: &SimDisk, seed: u64) -> Vec<Survivors> {
    let pending = disk.pending_names();
    let names: BTreeSet<usize> = match pending {
        0..=6 => (0..=pending).collect(),
        _ => [0, 1, 2, pending / 2, pending - 2, pending - 1, pending].into(),
    };
    let random = if is_long() { 12 } else { 2 };
    let sectors: Vec<Keep> = match disk.is_dirty() {
        false => vec![Keep::None],
        true => [Keep::None, Keep::All].into_iter().chain((0..random).map(|n| Keep::Random(seed + n))).collect(),
    };
    names.iter().flat_map(|&names| sectors.iter().map(move |&sectors| Survivors { names, sectors })).collect()
}

/// The least, the most, and something in between.
fn few_survivors(disk: &SimDisk, seed: u64) -> [Survivors; 3] {
    let pending = disk.pending_names();
    [(0, Keep::None), (pending, Keep::All), (pending.div_ceil(2), Keep::Random(seed))]
        .map(|(names, sectors)| Survivors { names, sectors })
}

/// Runs a script until the power goes at its call `stop`, not counting those of runs in front; `false` when it ended
/// before.
fn run(scene: &mut Scene, script: &[Op], stop: u64) -> bool {
    let in_front = script.iter().take_while(|op| matches!(op, Op::Runs(_))).count();
    let (in_front, script) = script.split_at(in_front);
    in_front.iter().for_each(|&op| scene.act(op).unwrap());
    let stop = scene.disk.calls() + stop;
    scene.disk.stop_at(stop);
    for &op in script {
        let done = scene.act(op);
        if scene.disk.calls() > stop {
            break;
        }
        done.unwrap_or_else(|failure| panic!("{op:?} failed while the power was there: {failure:?}"));
    }
    scene.journal = None;
    scene.disk.calls() > stop
}

fn every_cut(scripts: &[Script]) {
    for (name, role, script) in scripts {
        let (mut cuts, mut disks) = (0, 0);
        for stop in 0.. {
            let mut scene = Scene::new(*role);
            let stopped = run(&mut scene, script, stop);
            for survivors in survivors(&scene.disk, stop) {
                let told = Told(format!("{name:?}, power gone at call {stop}, {survivors:?}"));
                let mut after = scene.after_power_cut(survivors);
                after.reopen().unwrap();
                if survivors.sectors != Keep::All {
                    after.goes_on();
                }
                disks += 1;
                told.over();
            }
            cuts += 1;
            if !stopped {
                break;
            }
        }
        println!("{name}: {} operations, {cuts} cuts, {disks} disks", script.len());
    }
}

/// Says which case it was when a test ends inside it.
pub(crate) struct Told(pub(crate) String);

impl Told {
    pub(crate) fn over(self) {
        std::mem::forget(self);
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("in {}", self.0);
    }
}

#[test]
fn no_power_cut_while_appending_loses_or_invents_anything() {
    every_cut(APPENDING);
}

#[test]
fn no_power_cut_while_cutting_leaves_something_in_between() {
    every_cut(CUTTING);
}

#[test]
fn no_power_cut_while_receiving_or_changing_roles_loses_a_fact() {
    every_cut(RECEIVING);
}

#[test]
fn no_power_cut_while_the_history_outgrows_its_slots_loses_an_epoch() {
    every_cut(RESTARTED);
}

/// The power goes again while the journal is opened: opening writes and syncs, and each of its calls may be the last.
#[test]
fn no_second_power_cut_while_opening_loses_anything_either() {
    let names =
        ["closed and opened again", "pruned and recycled", "cut inside a segment", "received, cut and received again"];
    let scripts = [APPENDING, CUTTING, RECEIVING].concat();
    for (index, name) in names.iter().enumerate() {
        let (_, role, script) = scripts.iter().find(|script| script.0 == *name).unwrap();
        let (mut cuts, mut disks) = (0, 0);
        let step = if is_long() { 1 } else { 7 };
        for stop in (index as u64..).step_by(step) {
            let mut scene = Scene::new(*role);
            let stopped = run(&mut scene, script, stop);
            for first in few_survivors(&scene.disk, stop) {
                for again in 0.. {
                    let mut opened = scene.after_power_cut(first);
                    opened.disk.stop_at(again);
                    let done = opened.open();
                    opened.journal = None;
                    for second in few_survivors(&opened.disk, again) {
                        let told = Told(format!("{name:?}, power gone at {stop}, {first:?}, at {again}, {second:?}"));
                        let mut after = opened.after_power_cut(second);
                        after.reopen().unwrap();
                        disks += 1;
                        told.over();
                    }
                    cuts += 1;
                    if done.is_ok() && opened.disk.calls() <= again {
                        break;
                    }
                }
            }
            if !stopped {
                break;
            }
        }
        println!("{name}: {cuts} second cuts, {disks} disks");
    }
}

/// There is a journal or there is none, and where there is none one can be made.
#[test]
fn no_power_cut_while_a_journal_is_made_leaves_half_of_one() {
    let (mut cuts, mut disks) = (0, 0);
    for stop in 0.. {
        let mut scene = Scene::bare();
        scene.disk.stop_at(stop);
        let made = scene.create(Role::Receiver).is_ok();
        scene.journal = None;
        for survivors in survivors(&scene.disk, stop) {
            let told = Told(format!("power gone at call {stop}, {survivors:?}"));
            let mut after = scene.after_power_cut(survivors);
            match after.reopen() {
                Ok(()) => {}
                Err(failure) => {
                    assert!(!made && failure.class == Class::Absent, "{failure:?}");
                    after.create(Role::Receiver).unwrap();
                    after.compare();
                }
            }
            after.goes_on();
            disks += 1;
            told.over();
        }
        cuts += 1;
        if made && scene.disk.calls() <= stop {
            break;
        }
    }
    println!("{cuts} cuts, {disks} disks");
}
