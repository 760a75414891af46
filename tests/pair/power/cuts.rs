//! The power is cut on either side or both, in each mode, and both come back.

use super::drives::Fate;
use super::each_seed;
use super::pair::{Pair, Side, VICTIMS};
use crate::kills::{Dice, record_file};
use crate::support::run;

use Side::{Primary, Receiver};

const SEEDS: u64 = 3;
const CUTS: usize = 4;

fn cycles<F: Fn()>(test: F, mode: &'static str, level: &'static str) {
    each_seed(test, SEEDS, |room, kind, dice| {
        let mut pair = Pair::start(room, kind, mode, level);
        for _ in 0..CUTS {
            cycle(&mut pair, dice, level);
        }
        assert!(pair.checker.acknowledged() > 0, "nothing was acknowledged");
        for side in [Primary, Receiver] {
            pair.stop(side);
            pair.judge_cold(side, true);
        }
        pair.checker.judge("the receiver's record file", &record_file(&pair.receiver.machine.data()));
    });
}

fn cycle(pair: &mut Pair<'_>, dice: &mut Dice, level: &str) {
    let victims = VICTIMS[dice.below(3) as usize];
    let feed = pair.cut_under_load(victims, dice);
    let fates = victims.iter().map(|&side| (side, Fate::any(dice))).collect::<Vec<_>>();
    println!("  cut {fates:?}");
    let feed = match victims.contains(&Primary) {
        false => Some(feed),
        true => {
            pair.finish(feed);
            None
        }
    };
    for (side, fate) in fates {
        pair.reboot(side, fate, dice);
        // a receiver promises nothing of its own below peer-durable; what it holds must be whole all the same
        let promised = side == Primary || level == "peer-durable";
        pair.judge_cold(side, promised);
        if victims.len() == 2 && dice.below(3) == 0 {
            println!("  and again while the {side:?} starts");
            pair.stumble(side, dice);
            pair.judge_cold(side, promised);
        }
    }
    let mut order = victims.to_vec();
    if dice.below(2) == 0 {
        order.reverse();
    }
    for side in order {
        pair.switch_on(side);
        if side == Receiver && pair.primary.daemon.is_none() {
            assert_eq!(pair.status(Receiver)["in_doubt"], true, "nobody has said yet what it may have lost");
        }
    }
    if let Some(feed) = feed {
        let (_, code) = pair.finish(feed);
        assert_eq!(code, 0, "a receiver that comes back loses nothing");
    }
    pair.wait("in-sync");
    assert_eq!(pair.status(Receiver)["in_doubt"], false);
    assert!(pair.log(Primary) == pair.log(Receiver), "the logs are not the same bytes");
    let shown = run(["tail", "log", "--from", "start", "--data", &pair.data(Primary)]).expect(0).stdout;
    pair.checker.judge("the primary", &shown);
    pair.checker.judge("the receiver", &pair.restored(Receiver));
}

#[test]
fn what_is_peer_durable_survives_power_cuts_of_either_side_and_both() {
    cycles(what_is_peer_durable_survives_power_cuts_of_either_side_and_both, "sync", "peer-durable");
}

#[test]
fn what_is_received_survives_power_cuts_of_either_side_and_both() {
    cycles(what_is_received_survives_power_cuts_of_either_side_and_both, "semi-sync", "received");
}

#[test]
fn what_is_durable_survives_power_cuts_of_either_side_and_both() {
    cycles(what_is_durable_survives_power_cuts_of_either_side_and_both, "async", "durable");
}
