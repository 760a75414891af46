//! The power is cut beneath real nodes: what no flush of a disk covered is lost, at any instant, on either side or both.
//!
//! `TOWLINE_SEED=n` runs that seed alone; processes are real, so it repeats the choices and not every instant.
//! `TOWLINE_LONG=1` runs ten times as many.

mod cuts;
mod depot;
mod drives;
mod losses;
mod machine;
mod pair;
mod restarts;

use std::fs::{self, File};
use std::io::Write;

use self::drives::Fate;
use self::machine::{Machine, Room};
use crate::kills::Dice;

/// Plays a scene once a seed: so many of them, or the one that was asked for. File systems take turns.
fn each_seed<F: Fn()>(test: F, count: u64, scene: impl Fn(&Room, &'static str, &mut Dice)) {
    let Some(room) = Room::enter(test) else { return };
    let long = std::env::var_os("TOWLINE_LONG").is_some();
    let seeds = match std::env::var("TOWLINE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..if long { count * 10 } else { count },
    };
    for seed in seeds {
        let kind = room.kinds()[seed as usize % room.kinds().len()];
        println!("TOWLINE_SEED={seed}, on {kind}");
        scene(&room, kind, &mut Dice::new(seed));
    }
}

/// The test disk itself, under each file system: a sync reaches it as a flush, what was synced is there after the cut,
/// and what was not can be lost.
#[test]
fn a_test_disk_keeps_what_was_synced_and_loses_the_rest() {
    let Some(room) = Room::enter(a_test_disk_keeps_what_was_synced_and_loses_the_rest) else { return };
    let mut dice = Dice::new(1);
    for &kind in room.kinds() {
        let mut machine = Machine::new(&room, kind);
        fs::create_dir(machine.data()).unwrap();
        File::open(machine.data()).unwrap().sync_all().unwrap();
        let [synced, loose] = ["synced", "loose"].map(|name| machine.data().join(name));
        for round in 0..3 {
            let flushes = room.drives().flushes(machine.disk());
            let mut file = File::create(&synced).unwrap();
            write!(file, "round {round}").unwrap();
            file.sync_all().unwrap();
            File::open(machine.data()).unwrap().sync_all().unwrap();
            assert!(room.drives().flushes(machine.disk()) > flushes, "{kind}: a sync is no flush");
            fs::write(&loose, "not synced").unwrap();
            room.cut_after(0, &[(&machine, None)]);
            room.drives().cut();
            machine.reboot(Fate::Lost, &mut dice);
            assert_eq!(fs::read_to_string(&synced).unwrap(), format!("round {round}"), "{kind}");
            assert!(!loose.exists(), "{kind}: nothing is lost");
        }
    }
}
