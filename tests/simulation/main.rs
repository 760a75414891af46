//! Both cores under faults: simulated disks, network, crashes, promotions, all from one seed.
//!
//! `TOWLINE_SEED=n` runs that seed alone. `TOWLINE_LONG=1` runs ten times as many.

mod checker;
mod exhaustive;
mod log;
mod mutant;
mod node;
mod rng;
mod world;

use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use shipper::OnLoss;
use wire::Mode;

use crate::exhaustive::{Budget, explore, setup};
use crate::mutant::Mutant;
use crate::world::{Counters, KINDS, run};

const SEEDS: u64 = 600;
const MUTANT_SEEDS: u64 = 100;
/// What the exhaustive model looks at: events that may happen, and how many steps from a connected pair on.
const CORNERS: [(&str, Budget, usize); 4] = [
    ("crashes", Budget { appends: 1, crashes: 2, resets: 0, connects: 1, promotions: 0 }, 13),
    ("lost connections", Budget { appends: 2, crashes: 0, resets: 1, connects: 1, promotions: 0 }, 12),
    ("a promotion", Budget { appends: 1, crashes: 0, resets: 1, connects: 1, promotions: 1 }, 9),
    ("a promotion and a crash", Budget { appends: 1, crashes: 1, resets: 0, connects: 1, promotions: 1 }, 9),
];

#[test]
fn nothing_promised_is_lost_under_any_seed() {
    if let Some(seed) = env::var("TOWLINE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        println!("seed {seed}: {:#?}", run(seed, Mutant::None).unwrap());
        return;
    }
    let seeds = if env::var_os("TOWLINE_LONG").is_some() { SEEDS * 10 } else { SEEDS };
    let (counters, failures) = sweep(seeds);
    for (kind, count) in &counters {
        println!("{count:8} {kind}");
    }
    assert!(
        failures.is_empty(),
        "{} of {seeds} seeds fail, run one with TOWLINE_SEED=n:\n{}",
        failures.len(),
        failures.join("\n")
    );
    let missing: Vec<&&str> = KINDS.iter().filter(|kind| !counters.contains_key(**kind)).collect();
    assert!(missing.is_empty(), "{seeds} seeds and never: {missing:?}");
}

#[test]
fn a_seed_runs_the_same_every_time() {
    for seed in [3, 14] {
        assert_eq!(run(seed, Mutant::None).unwrap(), run(seed, Mutant::None).unwrap(), "seed {seed}");
    }
}

/// Each planted fault must be found, or the simulation finds nothing.
fn is_found(mutant: Mutant, how: &[&str]) {
    let found = (0..MUTANT_SEEDS).find_map(|seed| run(seed, mutant).err());
    let what = found.unwrap_or_else(|| panic!("{mutant:?} survives {MUTANT_SEEDS} seeds"));
    println!("{what}");
    assert!(how.iter().any(|how| what.contains(how)), "{mutant:?} was found by something else: {what}");
}

#[test]
fn an_early_acknowledgement_is_found() {
    is_found(Mutant::EarlyAck, &["counts as durable"]);
}

#[test]
fn a_skipped_chain_check_is_found() {
    is_found(Mutant::ChainSkipped, &["no prefix"]);
}

#[test]
fn a_gap_on_reconnect_is_found() {
    is_found(Mutant::GapOnReconnect, &["no prefix"]);
}

#[test]
fn an_acknowledgement_of_an_ended_session_is_found() {
    is_found(Mutant::EndedSessionCounted, &["counts as received", "counts as durable"]);
}

#[test]
fn a_skipped_start_gate_is_found() {
    is_found(Mutant::GateSkipped, &["it started after"]);
}

/// Two nodes, every interleaving. Each corner looks at other events; together they hold every one.
#[test]
fn every_interleaving_of_two_nodes_keeps_the_promises() {
    let deeper = if env::var_os("TOWLINE_LONG").is_some() { 2 } else { 0 };
    let (block, alone) = (OnLoss::Block, OnLoss::Alone { after: Duration::ZERO });
    let streams = [Mode::Sync, Mode::SemiSync].into_iter().flat_map(|mode| [(mode, block), (mode, alone)]);
    for (mode, on_loss) in streams.chain([(Mode::Async, block)]) {
        for (corner, budget, depth) in CORNERS {
            let explored = explore(&setup(mode, on_loss, Mutant::None), budget, depth + deeper);
            let explored = explored.unwrap_or_else(|what| panic!("{mode:?}, {on_loss:?}, {corner}: {what}"));
            println!("{mode:?}, {on_loss:?}, {corner}: {explored:?}");
        }
    }
}

/// The exhaustive model must be able to find something too.
#[test]
fn planted_faults_are_found_by_interleaving() {
    for mutant in [Mutant::EarlyAck, Mutant::EndedSessionCounted, Mutant::GateSkipped] {
        let setup = setup(Mode::Sync, OnLoss::Block, mutant);
        let found = CORNERS.iter().find_map(|(_, budget, depth)| explore(&setup, *budget, *depth).err());
        println!("{mutant:?}: {}", found.unwrap_or_else(|| panic!("{mutant:?} survives every interleaving")));
    }
}

/// Runs seeds on every core; counters together, failures in the order of seeds.
fn sweep(seeds: u64) -> (Counters, Vec<String>) {
    let next = AtomicU64::new(0);
    let all = Mutex::new((Counters::new(), Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            let outcome = run(seed, Mutant::None);
            let mut all = all.lock().unwrap();
            match outcome {
                Ok(counters) => counters.into_iter().for_each(|(kind, count)| *all.0.entry(kind).or_default() += count),
                Err(what) => all.1.push((seed, what)),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let (counters, mut failures) = all.into_inner().unwrap();
    failures.sort();
    (counters, failures.into_iter().map(|(_, what)| what).collect())
}
