//! Both cores under faults: simulated disks, network, crashes, promotions, all from one seed; and every interleaving of
//! a handful of events on two nodes (`exhaustive`).
//!
//! `TOWLINE_SEED=n` runs that seed alone. `TOWLINE_LONG=1` runs ten times as many, and explores larger handfuls.

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

use crate::mutant::Mutant;
use crate::world::{Counters, KINDS, run};

const SEEDS: u64 = 600;
const MUTANT_SEEDS: u64 = 100;

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
