//! The journal's threads under a scheduler: whoever waits is answered, what was acknowledged is there, and what a
//! reader holds never changes, in every interleaving that was walked through.
//!
//! Every lock, atomic, park and call to the disk is a place where another thread may go on. A failure prints its
//! schedule; `TOWLINE_SCHEDULE=… cargo nextest run -p towline-journal --features shuttle --test interleavings NAME`
//! repeats that one alone. `TOWLINE_SEED=n` walks through others, `TOWLINE_LONG=1` through fifty times as many.

mod answers;
mod making;
mod readers;
mod rules;
mod workshop;
mod world;

use std::env;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, MaxSteps, Runner};

/// Most changes of the running thread that a bug may need and still be looked for on purpose.
const DEPTH: usize = 4;
/// A scenario takes a few thousand at most; more is a thread that spins for something that never comes.
const STEPS_MAX: usize = 100_000;

/// Whether a wait with a deadline ever sees it pass.
#[derive(Clone, Copy)]
enum Time {
    /// Never: the flush thread does nothing that nobody asked for, and a lost wake-up is a deadlock.
    StandsStill,
    /// At any look of a waiter, or not yet.
    Passes,
}

/// Runs `scenario` under `times` random schedules, and under as many that let each thread run as far as it gets but
/// for a few changes.
fn explore(times: usize, time: Time, scenario: impl Fn() + Send + Sync + 'static) {
    journal::testing::let_time_pass(matches!(time, Time::Passes));
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.silence_warnings = true;
    if let Ok(schedule) = env::var("TOWLINE_SCHEDULE") {
        let scheduler = shuttle::scheduler::ReplayScheduler::new_from_encoded(&schedule);
        Runner::new(scheduler, config).run(scenario);
        return;
    }
    let seed = env::var("TOWLINE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let times = if env::var_os("TOWLINE_LONG").is_some() { times * 50 } else { times };
    let scenario = std::sync::Arc::new(scenario);
    let again = std::sync::Arc::clone(&scenario);
    Runner::new(RandomScheduler::new_from_seed(seed, times), config.clone()).run(move || scenario());
    Runner::new(PctScheduler::new_from_seed(seed, DEPTH, times), config).run(move || again());
}
