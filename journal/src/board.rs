//! The watermarks of a stream, and everybody who waits for them.
//!
//! ```text
//!  journal   --written, durable-->  Board  <--remote--  commit rule (shipper)
//!                                     |
//!            waiters: threads, wakers; only those that are reached are woken
//! ```
//! staged >= written >= durable; reached(Received) <= durable; reached(PeerDurable) <= durable; committed <= durable.

mod watch;

use std::ops::{Deref, DerefMut};
use std::sync::{OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

pub use self::watch::Watch;
use crate::level::{End, Level, Remote, WaitError};
use crate::lsn::Lsn;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::thread::{self, Thread};
use crate::sync::{Mutex, MutexGuard, now};

/// The board of one journal: watermarks that can be read at any time and waited for.
#[derive(Debug, Default)]
pub struct Board {
    staged: AtomicU64,
    written: AtomicU64,
    durable: AtomicU64,
    committed: AtomicU64,
    changes: AtomicU64,
    demands: AtomicU64,
    /// Raised by every cut: what stands above it is another history's. A walk that stands in a segment of before must look
    /// it up again, and a record that is waited for may be gone.
    cuts: AtomicU64,
    /// The one place that says so, to appenders and waiters alike. Set before `inner` is locked to wake the waiters.
    ended: OnceLock<End>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    remote: Remote,
    waiters: Vec<Waiter>,
    next_ticket: u64,
    watchers: Vec<Watcher>,
    next_watch: u64,
    leader: Leader,
    sync_wanted: Lsn,
    sync_began: Option<Instant>,
}

/// Who syncs for the waiters.
#[derive(Debug, Default, PartialEq, Eq)]
enum Leader {
    /// Nobody: the next blocking waiter does it himself.
    #[default]
    None,
    /// Somebody is at it, or has been handed the lead and woken.
    Present,
}

#[derive(Debug)]
struct Waiter {
    level: Level,
    lsn: Lsn,
    who: Who,
}

impl Waiter {
    fn is_thread(&self, ticket: u64) -> bool {
        matches!(self.who, Who::Thread(_, number) | Who::Onlooker(_, number) if number == ticket)
    }

    fn wake(self) {
        match self.who {
            Who::Thread(thread, _) | Who::Onlooker(thread, _) => thread.unpark(),
            Who::Task(waker) => waker.wake(),
        }
    }
}

#[derive(Debug)]
struct Watcher {
    id: u64,
    interest: Interest,
    waker: Waker,
}

/// What a watch wakes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interest {
    /// Every change.
    Everything,
    /// The flush thread's: a sync is wanted, a spare was used up, or the end. A waiter's own sync is none of these.
    Demand,
}

#[derive(Debug)]
enum Who {
    /// One that can be woken to take the lead.
    Thread(Thread, u64),
    /// One that leaves the syncing to others.
    Onlooker(Thread, u64),
    Task(Waker),
}

/// What a parked thread finds when it looks up.
pub(crate) enum Turn<'a> {
    /// Its level is reached.
    Reached,
    /// It holds the lead: sync, then let go of it.
    Lead(Lead<'a>),
    /// The log was cut since: what it waits for may be gone.
    Cut,
}

/// The lead; it is handed over when this is dropped, however the sync ended.
pub(crate) struct Lead<'a>(&'a Board);

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.0.hand_over();
    }
}

impl Board {
    /// Everything below has its place; survives nothing.
    pub fn staged(&self) -> Lsn {
        Lsn::new(self.staged.load(Ordering::Acquire))
    }

    /// Everything below is whole in the segments.
    pub fn written(&self) -> Lsn {
        Lsn::new(self.written.load(Ordering::Acquire))
    }

    /// Everything below is covered by a sync of this node that returned.
    pub fn durable(&self) -> Lsn {
        Lsn::new(self.durable.load(Ordering::Acquire))
    }

    /// Everything below has met the stream's promise. Never goes down while the journal is open.
    pub fn committed(&self) -> Lsn {
        Lsn::new(self.committed.load(Ordering::Acquire))
    }

    /// What the required peers hold now.
    pub fn remote(&self) -> Remote {
        self.lock().remote
    }

    /// How far `level` reaches now.
    pub fn reached(&self, level: Level) -> Lsn {
        self.reached_with(&self.lock().remote, level)
    }

    /// The highest level that position `lsn` has reached now; `None` below `written`.
    pub fn level_of(&self, lsn: Lsn) -> Option<Level> {
        let remote = self.lock().remote;
        [Level::PeerDurable, Level::Received, Level::Durable, Level::Written]
            .into_iter()
            .find(|&level| lsn <= self.reached_with(&remote, level))
    }

    /// Why nothing is acknowledged any more; `None` while all is well.
    pub fn ended(&self) -> Option<End> {
        self.end_reached().cloned()
    }

    /// The same without a copy.
    pub(crate) fn end_reached(&self) -> Option<&End> {
        self.ended.get()
    }

    /// How long the sync in progress has run; `None` when none runs.
    pub fn sync_running(&self) -> Option<Duration> {
        self.lock().sync_began.map(|began| now().saturating_duration_since(began))
    }

    /// Publishes what the required peers hold now. Wakes whom it reaches.
    pub fn set_remote(&self, remote: Remote) {
        let mut inner = self.lock();
        inner.remote = remote;
        self.settle(inner);
    }

    /// Ends the stream: every wait that isn't reached fails. The first end stays.
    pub fn end(&self, end: End) {
        let _first_stays = self.ended.set(end);
        self.settle(self.lock());
    }

    /// Blocks until `lsn` reaches `level`, or until `deadline`. Does not sync by itself: see
    /// [`crate::Journal::wait`]. Once reached it succeeds even after the end.
    pub fn wait(&self, level: Level, lsn: Lsn, deadline: Option<Instant>) -> Result<(), WaitError> {
        self.turn(level, lsn, deadline, None, false).map(|_| ())
    }

    /// For async code: ready when `lsn` reaches `level`. Registers the waker otherwise, and asks the flush thread to
    /// sync if the level needs it. Cancel-safe: dropping the future leaves one stale waker behind until the level is
    /// reached.
    pub fn poll_reached(&self, level: Level, lsn: Lsn, cx: &mut Context<'_>) -> Poll<Result<(), WaitError>> {
        let mut inner = self.lock();
        if lsn <= self.reached_with(&inner.remote, level) {
            return Poll::Ready(Ok(()));
        }
        if let Some(end) = self.end_reached() {
            return Poll::Ready(Err(end.wait_error()));
        }
        let known = |waiter: &Waiter| matches!(&waiter.who, Who::Task(waker) if waker.will_wake(cx.waker()));
        if !inner.waiters.iter().any(|waiter| known(waiter) && waiter.lsn == lsn && waiter.level == level) {
            inner.waiters.push(Waiter { level, lsn, who: Who::Task(cx.waker().clone()) });
        }
        if level != Level::Written && lsn > self.durable() {
            self.want_sync_from(&mut inner, lsn);
        }
        Poll::Pending
    }

    /// A watch that wakes at every change of a watermark, of the remote side or of the end.
    pub fn watch(&self) -> Watch<'_> {
        self.watch_for(Interest::Everything)
    }

    /// A watch that wakes when the flush thread has something to do; what was asked for before counts too.
    pub(crate) fn watch_demand(&self) -> Watch<'_> {
        let mut watch = self.watch_for(Interest::Demand);
        watch.seen = 0;
        watch
    }

    fn watch_for(&self, interest: Interest) -> Watch<'_> {
        let mut inner = self.lock();
        inner.next_watch += 1;
        Watch { board: self, id: inner.next_watch, interest, seen: self.seen(interest) }
    }

    fn seen(&self, interest: Interest) -> u64 {
        match interest {
            Interest::Everything => self.changes.load(Ordering::Acquire),
            Interest::Demand => self.demands.load(Ordering::Acquire),
        }
    }

    /// Asks the flush thread to sync up to `lsn` now.
    pub fn want_sync(&self, lsn: Lsn) {
        self.want_sync_from(&mut self.lock(), lsn);
    }

    fn want_sync_from(&self, inner: &mut Locked<'_>, lsn: Lsn) {
        if inner.sync_wanted < lsn {
            inner.sync_wanted = lsn;
            self.demand_from(inner);
        }
    }

    /// Gives the flush thread a look around.
    pub(crate) fn demand(&self) {
        self.demand_from(&mut self.lock());
    }

    /// The position that somebody without a thread to spare wants durable.
    pub(crate) fn sync_wanted(&self) -> Lsn {
        self.lock().sync_wanted
    }

    /// How often the log was cut since it was opened.
    pub(crate) fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Acquire)
    }

    /// The log was cut and ends at `end` now. Everybody who waits looks whether what he waits for is still there.
    pub(crate) fn cut(&self, end: Lsn, committed: Lsn) {
        // before anything of the new tail is shown: see `Entries::next_entry`
        self.cuts.fetch_add(1, Ordering::AcqRel);
        self.reset(end, committed);
        let waiters = std::mem::take(&mut self.lock().waiters);
        waiters.into_iter().for_each(Waiter::wake);
    }

    /// Sets every local watermark, when a journal is opened or cut.
    pub(crate) fn reset(&self, end: Lsn, committed: Lsn) {
        let inner = self.lock();
        for mark in [&self.staged, &self.written, &self.durable] {
            mark.store(end.get(), Ordering::Release);
        }
        self.committed.store(committed.min(end).get(), Ordering::Release);
        self.settle(inner);
    }

    pub(crate) fn set_staged(&self, lsn: Lsn) {
        self.staged.store(lsn.get(), Ordering::Release);
    }

    pub(crate) fn advance_written(&self, lsn: Lsn) {
        let inner = self.lock();
        self.written.fetch_max(lsn.get(), Ordering::AcqRel);
        self.settle(inner);
    }

    pub(crate) fn sync_begins(&self) {
        self.lock().sync_began = Some(now());
    }

    /// The sync in progress ended; `durable` is what it covered, `None` if it failed.
    pub(crate) fn sync_ended(&self, durable: Option<Lsn>) {
        let mut inner = self.lock();
        inner.sync_began = None;
        if let Some(lsn) = durable {
            self.durable.fetch_max(lsn.get(), Ordering::AcqRel);
        }
        self.settle(inner);
    }

    /// Waits for one turn. With `may_lead`, a waiter whose level still needs a sync of this node is given the lead
    /// when nobody has it. With `cuts`, a cut beyond so many ends the wait.
    pub(crate) fn turn(
        &self,
        level: Level,
        lsn: Lsn,
        deadline: Option<Instant>,
        cuts: Option<u64>,
        may_lead: bool,
    ) -> Result<Turn<'_>, WaitError> {
        let mut inner = self.lock();
        inner.next_ticket += 1;
        let ticket = inner.next_ticket;
        loop {
            let queued = inner.waiters.iter().position(|waiter| waiter.is_thread(ticket));
            let reached = lsn <= self.reached_with(&inner.remote, level);
            let ended = self.end_reached().map(End::wait_error);
            let expired = deadline.is_some_and(|deadline| now() >= deadline);
            // ahead of the log there is nothing to sync
            let needs_sync = lsn > self.durable() && self.staged() > self.durable();
            let lead = may_lead && inner.leader == Leader::None && needs_sync;
            let cut = cuts.is_some_and(|cuts| cuts != self.cuts());
            if reached || ended.is_some() || expired || lead || cut {
                if let Some(index) = queued {
                    inner.waiters.remove(index);
                }
                let outcome = match (reached, ended) {
                    (true, _) => Ok(Turn::Reached),
                    (false, Some(error)) => Err(error),
                    (false, None) if cut => Ok(Turn::Cut),
                    (false, None) if expired => Err(WaitError::Unknown { lsn }),
                    (false, None) => {
                        inner.leader = Leader::Present;
                        return Ok(Turn::Lead(Lead(self)));
                    }
                };
                // it may have been woken to take the lead and leaves instead: the lead must not be lost with it
                if inner.leader == Leader::None {
                    self.wake_next_leader(&mut inner);
                }
                return outcome;
            }
            if queued.is_none() {
                let who = if may_lead { Who::Thread } else { Who::Onlooker };
                inner.waiters.push(Waiter { level, lsn, who: who(thread::current(), ticket) });
            }
            drop(inner);
            match deadline {
                Some(deadline) => thread::park_timeout(deadline.saturating_duration_since(now())),
                None => thread::park(),
            }
            inner = self.lock();
        }
    }

    /// The leader is done: the first waiter who still needs a sync is woken to take the lead, nobody else.
    fn hand_over(&self) {
        let mut inner = self.lock();
        inner.leader = Leader::None;
        self.wake_next_leader(&mut inner);
    }

    /// The flush thread could not sync: a thread that waits tries for itself, and is told why not. Tasks wait until the
    /// flush thread can.
    pub(crate) fn hand_to_thread(&self) {
        let inner = self.lock();
        let durable = self.durable();
        let needs_sync = |waiter: &&Waiter| waiter.level > Level::Written && waiter.lsn > durable;
        let thread = inner.waiters.iter().filter(needs_sync).find_map(|waiter| match &waiter.who {
            Who::Thread(thread, _) => Some(thread),
            Who::Onlooker(..) | Who::Task(_) => None,
        });
        if let Some(thread) = thread {
            thread.unpark();
        }
    }

    fn wake_next_leader(&self, inner: &mut Locked<'_>) {
        let durable = self.durable();
        let needs_sync = inner.waiters.iter().filter(|waiter| waiter.level > Level::Written && waiter.lsn > durable);
        match needs_sync.map(|waiter| &waiter.who).find(|who| !matches!(who, Who::Onlooker(..))) {
            Some(Who::Thread(thread, _)) => thread.unpark(),
            Some(Who::Task(_)) => self.demand_from(inner), // the flush thread serves tasks
            Some(Who::Onlooker(..)) | None => {}
        }
    }

    fn reached_with(&self, remote: &Remote, level: Level) -> Lsn {
        match level {
            Level::Written => self.written(),
            Level::Durable => self.durable(),
            Level::Received => self.durable().min(remote.received),
            Level::PeerDurable => self.durable().min(remote.peer_durable),
            Level::Committed => self.committed(),
        }
    }

    /// Recomputes what follows from the watermarks and wakes those that are reached, after the lock is gone.
    fn settle(&self, mut inner: Locked<'_>) {
        let committed = self.durable().min(inner.remote.promised);
        let ended = self.end_reached().is_some();
        if !ended {
            self.committed.fetch_max(committed.get(), Ordering::AcqRel);
        }
        let remote = inner.remote;
        let reached = |waiter: &mut Waiter| ended || waiter.lsn <= self.reached_with(&remote, waiter.level);
        // in the order in which they came: who waits longest is not kept waiting for the others
        let woken: Vec<_> = inner.waiters.extract_if(.., reached).collect();
        self.changes.fetch_add(1, Ordering::AcqRel);
        if ended {
            self.demand_from(&mut inner);
        }
        inner.wake(Interest::Everything);
        drop(inner);
        woken.into_iter().for_each(Waiter::wake);
    }

    fn demand_from(&self, inner: &mut Locked<'_>) {
        self.demands.fetch_add(1, Ordering::AcqRel);
        inner.wake(Interest::Demand);
    }

    fn lock(&self) -> Locked<'_> {
        // nothing under this lock panics half-way; a panicking waiter elsewhere must not stop the others
        Locked { inner: self.inner.lock().unwrap_or_else(PoisonError::into_inner), woken: Woken::default() }
    }
}

/// The board's inside while it is locked. Whoever is to be woken is woken when it is not any more: a waker is the
/// program's, and may look at the board.
struct Locked<'a> {
    // first: fields are dropped in order
    inner: MutexGuard<'a, Inner>,
    woken: Woken,
}

#[derive(Default)]
struct Woken(Vec<Waker>);

impl Drop for Woken {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

impl Locked<'_> {
    fn wake(&mut self, whom: Interest) {
        let watchers = self.inner.watchers.extract_if(.., |watcher| watcher.interest == whom);
        self.woken.0.extend(watchers.map(|watcher| watcher.waker));
    }
}

impl Deref for Locked<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}
