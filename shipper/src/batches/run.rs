//! The thread around the core.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use journal::{Lsn, Time};

use super::core::{BatchCore, BatchOptions};
use super::{AwaitedCut, BatchLog, DepotLink, ShipStatus, Stop};

/// A running destination for batches: a thread of its own. Dropped, it is told to stop; [`Batches::stop`] waits for it.
#[derive(Debug)]
pub struct Batches {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The next cut that a schedule makes by itself, for one who waits for it. Dropped, it is forgotten.
#[derive(Debug)]
pub struct AwaitsCut {
    shared: Arc<Shared>,
    ticket: u64,
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
    hurry: Option<Lsn>,
    /// The last ticket that was given out.
    ticket: u64,
    /// Everybody who waits for a cut, by ticket, and the cut, once it is made.
    awaited: BTreeMap<u64, Option<AwaitedCut>>,
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
        Ok(Batches { shared, thread: Mutex::new(Some(thread)) })
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

    /// Ships up to `upto` before the schedule says so; returns at once. While a retry waits, this does too.
    pub fn hurry(&self, upto: Lsn) {
        let mut state = self.shared.lock();
        state.hurry = state.hurry.max(Some(upto));
        self.shared.changed.notify_all();
    }

    /// Waits until everything below `lsn` lies in the depot, or it is known that the attempt failed. Blocking; ships nothing
    /// by itself.
    ///
    /// Errors: `Stopped` when there will be none.
    pub fn wait_attempt(&self, lsn: Lsn, deadline: Instant) -> Result<(), WaitShipped> {
        let mut state = self.shared.lock();
        while state.status.shipped.is_none_or(|shipped| shipped < lsn) && state.status.last_error.is_none() {
            if state.ended {
                return Err(WaitShipped::Stopped);
            }
            state = match self.shared.wait_until(state, Some(deadline)) {
                Ok(state) => state,
                Err(_) => break,
            };
        }
        Ok(())
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
            state = match self.shared.wait_until(state, deadline) {
                Ok(state) => state,
                Err(state) => {
                    let shipped = state.status.shipped.unwrap_or(Lsn::ZERO);
                    let last_error = state.status.last_error.clone();
                    return Err(WaitShipped::Timeout { shipped, wanted: lsn, last_error });
                }
            };
        }
    }

    /// Begins to wait for the next cut that the schedule makes: one that holds everything committed and durable until
    /// now. Nothing is cut earlier for it.
    pub fn next_cut(&self) -> AwaitsCut {
        let mut state = self.shared.lock();
        state.ticket += 1;
        let ticket = state.ticket;
        state.awaited.insert(ticket, None);
        AwaitsCut { shared: self.shared.clone(), ticket }
    }

    /// Tells the thread to stop and waits for it: at most for the part that it is sending. Whoever waits is told so.
    pub fn stop(&self) {
        self.tell();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
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

impl AwaitsCut {
    /// Waits until everything in the cut lies in the depot, and says what became of the cut until then: `None` when it
    /// isn't made yet. Blocking.
    ///
    /// Errors: `Stopped` when there will be none.
    pub fn wait(&self, deadline: Option<Instant>) -> Result<Option<AwaitedCut>, WaitShipped> {
        let mut state = self.shared.lock();
        loop {
            let cut = state.awaited.get(&self.ticket).copied().flatten();
            if cut.is_some_and(|cut| cut.stored.is_some()) {
                return Ok(cut);
            }
            if state.ended {
                return Err(WaitShipped::Stopped);
            }
            state = match self.shared.wait_until(state, deadline) {
                Ok(state) => state,
                Err(_) => return Ok(cut),
            };
        }
    }
}

impl Drop for AwaitsCut {
    fn drop(&mut self) {
        self.shared.lock().awaited.remove(&self.ticket);
    }
}

impl Shared {
    fn run<L: BatchLog, D: DepotLink>(&self, mut core: BatchCore<L, D>, clock: impl Fn() -> Time) {
        while !self.stop.is_set() {
            let mut state = self.lock();
            let (request, hurry, ticket) = (state.request.take(), state.hurry.take(), state.ticket);
            drop(state);
            if let Some(goal) = request {
                core.request(goal);
            }
            if let Some(goal) = hurry {
                core.hurry(goal);
            }
            // before the turn looks at the log: its cut holds what was committed when they asked
            core.await_cut(ticket);
            let wait = core.turn(clock(), &self.stop, &mut |status| self.publish(status));
            let mut state = self.lock();
            if state.request.is_none() && state.hurry.is_none() && !self.stop.is_set() {
                state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
            }
            drop(state);
        }
    }

    fn publish(&self, status: &ShipStatus) {
        let mut state = self.lock();
        if state.status == *status {
            return;
        }
        state.status = status.clone();
        if let Some(cut) = status.cut {
            let waiting = state.awaited.range_mut(..=cut.ticket).map(|(_, awaited)| awaited);
            // one that is in the depot is no longer waited for, whatever is cut next
            waiting
                .filter(|awaited| awaited.is_none_or(|before| before.stored.is_none()))
                .for_each(|awaited| *awaited = Some(cut));
        }
        self.changed.notify_all();
    }

    /// Waits until something has changed; an error when the time is over.
    fn wait_until<'a>(
        &self,
        state: MutexGuard<'a, State>,
        deadline: Option<Instant>,
    ) -> Result<MutexGuard<'a, State>, MutexGuard<'a, State>> {
        let Some(deadline) = deadline else {
            return Ok(self.changed.wait(state).unwrap_or_else(PoisonError::into_inner));
        };
        let left = deadline.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(state),
            false => Ok(self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
