//! Every interleaving of a handful of events on two nodes, until nothing is left to do. The real greeting, agreement,
//! commit rule, gate and both cores; the driver and the checker of the simulation.
//!
//! ```text
//!  state --every step that may come next--> states --fingerprint--> seen with as much left: dropped, else the next level
//! ```
//! - **Events** (see `Step`): append, deliver, sync (at once, or with others in between), kill, power cut (each entry
//!   that no sync covers is once the last that is kept; what was noted in the control file without a sync is there or
//!   isn't), start, connect, reset (each end learns it by itself), a lost frame, promotion (alone, or waiting for the
//!   peer), rejoin. A [`Budget`] bounds those that nothing else bounds, so every path ends.
//! - **Time** stands still: whatever waits for time is zero (back-off, `Alone`) or never comes (heartbeats).
//! - **States that go on alike are one** (see `sketch`). `states_that_look_alike_go_on_alike` compares what they lead to.
//! - **Less left is nothing new**: a state that was seen with at least as much of every event left is not looked at again.
//!   Whatever it could do could be done there, in as many steps, and the checker doesn't know the budget.
//! - Levels are one step apart, so the first path that breaks a promise is a shortest one.

mod node;
mod sketch;
mod state;
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use journal::StreamId;
use shipper::OnLoss;
use wire::Mode;

pub(crate) use self::sketch::Sketch;
use self::state::{State, Step};
use crate::mutant::Mutant;
use crate::node::Setup;

/// How often each event may happen on one path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Budget {
    appends: u8,
    /// Kills and power cuts.
    crashes: u8,
    resets: u8,
    connects: u8,
    promotions: u8,
    /// Syncs during which something else happens.
    slow_syncs: u8,
    /// Frames lost on the way.
    losses: u8,
}

impl Budget {
    fn counts(&self) -> [u8; 7] {
        let Budget { appends, crashes, resets, connects, promotions, slow_syncs, losses } = *self;
        [appends, crashes, resets, connects, promotions, slow_syncs, losses]
    }

    /// As much of every event.
    fn covers(&self, other: &Budget) -> bool {
        self.counts().iter().zip(other.counts()).all(|(own, other)| *own >= other)
    }
}

/// What was explored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Explored {
    states: usize,
    steps: usize,
    /// Length of the longest path that led to something new.
    depth: usize,
    /// Nothing was left to do there.
    complete: bool,
}

/// A path that breaks a promise.
#[derive(Debug)]
struct Broken {
    what: String,
    path: Vec<Step>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, after {} steps:", self.what, self.path.len())?;
        self.path.iter().try_for_each(|step| write!(f, "\n  {step:?}"))
    }
}

/// A state and the way to it.
#[derive(Debug)]
struct Found {
    state: State,
    fingerprint: u128,
    trail: Option<Arc<Trail>>,
}

#[derive(Debug)]
struct Trail {
    step: Step,
    before: Option<Arc<Trail>>,
}

/// The budgets with which each state was seen: none covers another.
#[derive(Debug, Default)]
struct Seen(HashMap<u128, Vec<Budget>>);

fn setup(mode: Mode, on_loss: OnLoss, mutant: Mutant) -> Setup {
    Setup {
        stream: StreamId::from_bytes(*b"exhaustive model"),
        modes: vec![mode; 2],
        on_loss,
        window_bytes: 1 << 20,
        retry: Duration::ZERO,
        dead_after: Duration::from_secs(3600),
        report: Duration::ZERO,
        mutant,
    }
}

/// Every path from a connected pair on, on every core.
fn explore(setup: &Setup, budget: Budget) -> Result<Explored, Broken> {
    let now = Instant::now();
    let first = State::connected(setup, now, budget).map_err(|what| Broken { what, path: Vec::new() })?;
    let fingerprint = first.fingerprint();
    let mut seen = Seen::default();
    seen.note(fingerprint, first.left);
    let mut front = vec![Found { state: first, fingerprint, trail: None }];
    let mut explored = Explored { states: 1, ..Explored::default() };
    while !explored.complete {
        let level = Level { setup, now, front: front.into(), steps: AtomicUsize::new(0), seen: seen.into() };
        let after = level.explore()?;
        explored.steps += after.steps;
        seen = after.seen;
        front = after.front;
        explored.complete = front.is_empty();
        explored.states += front.len();
        explored.depth += usize::from(!front.is_empty());
    }
    Ok(explored)
}

/// All states that are as many steps away.
struct Level<'a> {
    setup: &'a Setup,
    now: Instant,
    /// What is still to be looked at; forgotten as soon as it is.
    front: Mutex<Vec<Found>>,
    steps: AtomicUsize,
    seen: Mutex<Seen>,
}

/// What a level leaves behind.
struct After {
    /// The next level.
    front: Vec<Found>,
    steps: usize,
    seen: Seen,
}

impl Level<'_> {
    fn explore(self) -> Result<After, Broken> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let outcome: Result<Vec<Vec<Found>>, Broken> = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| self.work())).collect();
            workers.into_iter().map(|worker| worker.join().expect("a worker ends with what it found")).collect()
        });
        let mut front: Vec<Found> = outcome?.into_iter().flatten().collect();
        let seen = self.seen.into_inner().expect("workers don't panic");
        // what was found with more left meanwhile
        front.retain(|found| seen.has(found.fingerprint, found.state.left));
        Ok(After { front, steps: self.steps.into_inner(), seen })
    }

    fn work(&self) -> Result<Vec<Found>, Broken> {
        let mut next = Vec::new();
        let take = || self.front.lock().expect("workers don't panic").pop();
        while let Some(found) = take() {
            for step in found.state.steps(self.now) {
                self.steps.fetch_add(1, Ordering::Relaxed);
                let mut state = found.state.clone();
                state.take(self.setup, self.now, step).map_err(|what| found.broken(what, step))?;
                let fingerprint = state.fingerprint();
                if self.seen.lock().expect("workers don't panic").note(fingerprint, state.left) {
                    let trail = Some(Arc::new(Trail { step, before: found.trail.clone() }));
                    next.push(Found { state, fingerprint, trail });
                }
            }
        }
        Ok(next)
    }
}

impl Found {
    fn broken(&self, what: String, last: Step) -> Broken {
        let mut path = vec![last];
        let mut trail = &self.trail;
        while let Some(Trail { step, before }) = trail.as_deref() {
            path.push(*step);
            trail = before;
        }
        path.reverse();
        Broken { what, path }
    }
}

impl Seen {
    /// True for a state that wasn't seen with as much left.
    fn note(&mut self, fingerprint: u128, left: Budget) -> bool {
        let budgets = self.0.entry(fingerprint).or_default();
        if budgets.iter().any(|budget| budget.covers(&left)) {
            return false;
        }
        budgets.retain(|budget| !left.covers(budget));
        budgets.push(left);
        true
    }

    fn has(&self, fingerprint: u128, left: Budget) -> bool {
        self.0.get(&fingerprint).is_some_and(|budgets| budgets.contains(&left))
    }
}
