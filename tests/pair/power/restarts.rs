//! A power cut in the middle of a first start, after a `kill -9`, and after a stop in good order.

use super::drives::Fate;
use super::each_seed;
use super::losses::{SEEDS, play};
use super::pair::{LINES, Pair, Side};
use crate::kills::record_file;
use crate::nodes::Feed;
use crate::support::run;

use Side::{Primary, Receiver};

const ROUNDS: usize = 2;

/// Both are killed with a tail that nobody has synced. A restart finds it in the page cache and calls it durable: then it
/// must be.
#[test]
fn what_a_restart_calls_durable_survives_the_power_cut() {
    play(what_a_restart_calls_durable_survives_the_power_cut, "semi-sync", "written", |pair, dice| {
        for _ in 0..ROUNDS {
            let from = pair.checker.len();
            let mut feed = Feed::start(&pair.primary.machine.data(), "written");
            (0..LINES).for_each(|_| assert!(feed.line(&pair.checker.next_line())));
            assert!(feed.until(LINES));
            [Primary, Receiver].into_iter().for_each(|side| pair.kill(side));
            let lsn = feed.finish().0.lsn.to_string();
            [Receiver, Primary].into_iter().for_each(|side| pair.switch_on(side));
            let data = pair.data(Primary);
            run(["wait", "log", "--for", "durable", "--lsn", &lsn, "--timeout", "60s", "--data", &data]).expect(0);
            pair.checker.acknowledge(from, LINES);
            pair.cut(&[Primary, Receiver]);
            for side in [Receiver, Primary] {
                pair.reboot(side, Fate::any(dice), dice);
                pair.judge_cold(side, true);
                pair.switch_on(side);
            }
            pair.wait("in-sync");
            assert!(pair.log(Primary) == pair.log(Receiver), "the logs are not the same bytes");
        }
    });
}

#[test]
fn the_record_file_survives_power_cuts_and_keeps_what_a_stop_has_synced() {
    let test = the_record_file_survives_power_cuts_and_keeps_what_a_stop_has_synced;
    play(test, "semi-sync", "received", |pair, dice| {
        for _ in 0..ROUNDS {
            let feed = pair.cut_under_load(&[Receiver], dice);
            pair.reboot(Receiver, Fate::any(dice), dice);
            pair.judge_cold(Receiver, false);
            pair.checker.judge_part("the record file after the power cut", &record_file(&pair.receiver.machine.data()));
            pair.switch_on(Receiver);
            assert_eq!(pair.finish(feed).1, 0, "a receiver that comes back loses nothing");
            pair.wait_applied();
            pair.stop(Receiver);
            pair.checker.judge("the record file", &record_file(&pair.receiver.machine.data()));
            pair.cut(&[Receiver]);
            pair.reboot(Receiver, Fate::any(dice), dice);
            pair.judge_cold(Receiver, true);
            pair.checker.judge("the record file, stopped before", &record_file(&pair.receiver.machine.data()));
            pair.switch_on(Receiver);
            pair.wait("in-sync");
        }
    });
}

/// A node whose first start the power interrupted is started again by the same command.
#[test]
fn a_first_start_that_the_power_interrupts_is_made_again() {
    each_seed(a_first_start_that_the_power_interrupts_is_made_again, SEEDS, |room, kind, dice| {
        let mut pair = Pair::down(room, kind, "sync", "peer-durable");
        for side in [Receiver, Primary] {
            for _ in 0..ROUNDS {
                pair.stumble(side, dice);
            }
            // the receiver has its port from now on, and is down again while the primary starts
            pair.switch_on(side);
            pair.kill(side);
        }
        // the first greeting makes the stream on the receiver
        pair.switch_on(Receiver);
        pair.cut_during_start(Receiver, Primary, dice);
        pair.reboot(Receiver, Fate::any(dice), dice);
        pair.switch_on(Receiver);
        pair.wait("in-sync");
        let feed = pair.cut_under_load(&[Receiver], dice);
        pair.reboot(Receiver, Fate::any(dice), dice);
        pair.switch_on(Receiver);
        assert_eq!(pair.finish(feed).1, 0, "a receiver that comes back loses nothing");
    });
}
