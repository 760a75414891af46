//! The power is cut beneath a depot, and beneath a primary that has given up what lies in one.

use super::drives::Fate;
use super::each_seed;
use super::machine::Machine;
use crate::checker::Checker;
use crate::kills::until;
use crate::nodes::{Daemon, primary};
use crate::support::{run, run_with};

const SEEDS: u64 = 2;
const ROUNDS: usize = 4;
const LINES: usize = 300;
/// Writes and flushes while a batch is shipped.
const STEPS: u64 = 50;

#[test]
fn what_was_reported_as_shipped_survives_a_power_cut_of_the_depot() {
    each_seed(what_was_reported_as_shipped_survives_a_power_cut_of_the_depot, SEEDS, |room, kind, dice| {
        let mut machine = Machine::new(room, kind);
        let node = room.scratch().join(format!("primary-of-{}", machine.disk()));
        let (data, depot) = (node.display().to_string(), machine.data().display().to_string());
        // what counts as acknowledged here is what was shipped
        let mut checker = Checker::default();
        let mut shipped = false;
        for _ in 0..ROUNDS {
            let daemon = primary(&node, &["--to", &format!("{depot},every=1d")]);
            for ships in 0..2 {
                let lines: String = (0..LINES).map(|_| checker.next_line() + "\n").collect();
                run_with(["append", "log", "--wait", "durable", "--data", &data], lines.as_bytes()).expect(0);
                if ships == 1 {
                    room.cut_after(dice.below(STEPS), &[(&machine, Some(&daemon))]);
                }
                let answer = run(["ship", "log", "--timeout", "60s", "--data", &data]);
                let waited = run(["wait", "log", "--for", "shipped", "--timeout", "60s", "--data", &data]);
                if answer.code == 0 || waited.code == 0 {
                    shipped = true;
                    checker.acknowledge(0, checker.len() as u64);
                }
            }
            room.drives().cut();
            daemon.kill();
            let fate = Fate::any(dice);
            println!("  cut {fate:?} with {} of {} lines shipped", checker.acknowledged(), checker.len());
            machine.reboot(fate, dice);
            assert!(shipped, "the first of a round is shipped before the power is cut");
            run(["verify", &depot]).expect(0);
            checker.judge("the depot", &run(["restore", "log", "--from", &depot, "--to", "-"]).expect(0).stdout);
        }
        assert!(checker.acknowledged() >= ROUNDS * LINES);
    });
}

/// Small, so that segments are given up and used again all the time: what is kept at least is half of it.
const BUDGET: &str = "2 MiB";
const KEPT_BYTES: u64 = 1 << 20;
/// Each appends lines and ships them.
const TURNS_MAX: usize = 12;
/// More than the writes and flushes of a round at times: then the power is cut at its end.
const STEPS_OF_A_ROUND: u64 = 400;

#[test]
fn a_pruned_log_and_its_depot_survive_power_cuts_of_the_primary() {
    each_seed(a_pruned_log_and_its_depot_survive_power_cuts_of_the_primary, SEEDS, |room, kind, dice| {
        let mut machine = Machine::new(room, kind);
        let depot = room.scratch().join(format!("depot-of-{}", machine.disk())).display().to_string();
        let (data, mut checker) = (machine.data().display().to_string(), Checker::default());
        let status = |what: &str| -> u64 {
            let status = run(["status", "log", "--json", "--data", &data]).stdout;
            let status = serde_json::from_str(&status).unwrap_or(serde_json::Value::Null);
            status["streams"][0]["at"][what].as_u64().unwrap_or_default()
        };
        let mut pruned = 0;
        for _ in 0..ROUNDS {
            machine.step_in();
            let to = format!("{depot},every=1d");
            let flags = ["primary", "--stream", "log", "--segment", "64 KiB", "--budget", BUDGET, "--to", &to];
            let daemon = Daemon::start(flags.into_iter().chain(["--data", &data]));
            let mut turn = || {
                let from = checker.len();
                let lines: String = (0..LINES).map(|_| checker.next_line() + "\n").collect();
                let words = ["append", "log", "--acks", "--wait", "durable", "--timeout", "60s", "--data", &data];
                let ended = run_with(words, lines.as_bytes());
                let mut acked = ended.stdout.lines().filter_map(|line| line.strip_prefix("acked ")?.split(' ').next());
                checker.acknowledge(from, acked.next_back().map_or(0, |count| count.parse().unwrap()));
                run(["ship", "log", "--timeout", "60s", "--data", &data]);
                ended.code
            };
            assert_eq!(turn(), 0, "the first lines of a round are there before the power is cut");
            room.cut_after(dice.below(STEPS_OF_A_ROUND), &[(&machine, Some(&daemon))]);
            for _ in 0..TURNS_MAX {
                let code = turn();
                if room.drives().are_cut() {
                    break;
                }
                assert_eq!(code, 0);
                // before the next lines there is room again
                let full = || status("durable").saturating_sub(status("start")) > KEPT_BYTES + (128 << 10);
                until(|| room.drives().are_cut() || !full());
                pruned = pruned.max(status("start"));
            }
            room.drives().cut();
            daemon.kill();
            let fate = Fate::any(dice);
            println!("  cut {fate:?} with {} of {} lines acknowledged", checker.acknowledged(), checker.len());
            machine.reboot(fate, dice);
            run(["verify", &data]).expect(0);
            let restored = run(["restore", "log", "--from", &depot, "--from", &data, "--to", "-"]).expect(0).stdout;
            checker.judge("depot and log", &restored);
        }
        assert!(pruned > 0, "nothing was given up");
    });
}
