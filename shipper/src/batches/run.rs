//! The thread around the core.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use journal::{Lsn, Time};

use super::core::{BatchCore, BatchOptions};
use super::{BatchLog, DepotLink, ShipStatus, Stop};

/// A running destination for batches: a thread of its own. Dropped, it is told to stop; [`Batches::stop`] waits for it.
#[derive(Debug)]
pub struct Batches {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    stop: Stop,
}

#[derive(Debug, Default)]
struct State {
    status: ShipStatus,
    request: Option<Lsn>,
    ended: bool,
}

/// Why a wait for the depot ended without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitShipped {
    /// The time is over. It is tried further.
    #[error("not shipped in time: the depot has LSN {shipped} of {wanted}{}", why(last_error))]
    Timeout {
        /// Where the depot ends, as far as it is known.
        shipped: Lsn,
        /// What was waited for.
        wanted: Lsn,
        /// Why the last attempt failed, if it did.
        last_error: Option<String>,
    },
    /// This side is stopping.
    #[error("stopped before it was shipped")]
    Stopped,
}

fn why(last_error: &Option<String>) -> String {
    last_error.as_ref().map(|error| format!(". The last attempt failed: {error}")).unwrap_or_default()
}

impl Batches {
    /// Starts the thread. `clock` is the wall clock.
    pub fn spawn<L, D, C>(options: BatchOptions, log: L, depot: D, clock: C) -> std::io::Result<Batches>
    where
        L: BatchLog,
        D: DepotLink + 'static,
        C: Fn() -> Time + Send + 'static,
    {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), stop: Stop::new() });
        let core = BatchCore::new(options, log, depot);
        let ours = shared.clone();
        let thread = thread::Builder::new().name("batches".into()).spawn(move || {
            // waiters must learn of the end, however it comes
            let done = catch_unwind(AssertUnwindSafe(|| ours.run(core, clock)));
            let mut state = ours.lock();
            state.ended = true;
            if done.is_err() {
                state.status.last_error = Some("the thread that ships batches failed: a fault in the program".into());
            }
            ours.changed.notify_all();
        })?;
        Ok(Batches { shared, thread: Some(thread) })
    }

    /// How it does.
    pub fn status(&self) -> ShipStatus {
        self.shared.lock().status.clone()
    }

    /// The lowest position that this depot still needs from the log; 0 while it hasn't said yet.
    pub fn owed(&self) -> Lsn {
        self.shared.lock().status.shipped.unwrap_or(Lsn::ZERO)
    }

    /// Ships up to `upto` now, whatever the schedule says; returns at once. What lies above min(durable, committed) is
    /// not shipped before it is.
    pub fn ship_now(&self, upto: Lsn) {
        let mut state = self.shared.lock();
        state.request = state.request.max(Some(upto));
        self.shared.changed.notify_all();
    }

    /// Waits until everything below `lsn` lies in the depot. Blocking; ships nothing by itself.
    pub fn wait(&self, lsn: Lsn, deadline: Option<Instant>) -> Result<(), WaitShipped> {
        let mut state = self.shared.lock();
        loop {
            if state.status.shipped.is_some_and(|shipped| shipped >= lsn) {
                return Ok(());
            }
            if state.ended {
                return Err(WaitShipped::Stopped);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                let shipped = state.status.shipped.unwrap_or(Lsn::ZERO);
                let last_error = state.status.last_error.clone();
                return Err(WaitShipped::Timeout { shipped, wanted: lsn, last_error });
            }
            let changed = &self.shared.changed;
            state = match left {
                Some(left) => changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Tells the thread to stop and waits for it: at most for the part that it is sending.
    pub fn stop(mut self) {
        self.tell();
        if let Some(thread) = self.thread.take() {
            // a panic was noted in the status by the thread itself
            let _ = thread.join();
        }
    }

    pub(super) fn tell(&self) {
        self.shared.stop.set();
        let _state = self.shared.lock();
        self.shared.changed.notify_all();
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.tell();
    }
}

impl Shared {
    fn run<L: BatchLog, D: DepotLink>(&self, mut core: BatchCore<L, D>, clock: impl Fn() -> Time) {
        while !self.stop.is_set() {
            if let Some(goal) = self.lock().request.take() {
                core.request(goal);
            }
            let wait = core.turn(clock(), &self.stop, &mut |status| self.publish(status));
            let mut state = self.lock();
            if state.request.is_none() && !self.stop.is_set() {
                state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
            }
            drop(state);
        }
    }

    fn publish(&self, status: &ShipStatus) {
        let mut state = self.lock();
        if state.status != *status {
            state.status = status.clone();
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
