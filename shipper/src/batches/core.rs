//! One destination's turns: decide, cut, bring, or wait. No thread, no clock of its own: tests drive it by hand.

use std::path::PathBuf;
use std::time::Duration;

use archive::{Cut, Finished, Outbox, Writer};
use journal::{Lsn, LsnRange, Time};
use wire::{DepotState, Place};

use super::decide::Begin;
use super::next::NextCut;
use super::{BatchLog, DepotLink, LogView, ShipError, ShipStatus, Stop, Trouble, next_range};
use crate::schedule::{Due, Schedule};

/// First wait after a failure; it doubles from there.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest wait after a failure that may pass by itself.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Wait after a failure that somebody must look at.
const RETRY_RARELY: Duration = Duration::from_secs(300);
/// Longest wait without looking at clock and log: a clock that is set, or a batch that is full, is noticed this late.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Log bytes asked for at once.
const SLICE_BYTES: usize = 4 << 20;
/// Log bytes in one batch when nobody says otherwise: what an upload that must begin anew costs, and a file that
/// every store takes.
const BATCH_BYTES: u64 = 256 << 20;

/// How one destination is fed.
#[derive(Clone, Debug)]
pub struct BatchOptions {
    /// When.
    pub schedule: Schedule,
    /// zstd level.
    pub level: i32,
    /// Most log bytes in one batch; a longer range becomes several.
    pub batch_bytes: u64,
    /// A folder of its own for the batch that is on its way. Its contents are removed when they are of no use.
    pub spool: PathBuf,
    /// Whose batches they are, and where they go: for the log.
    pub called: String,
}

impl BatchOptions {
    /// The schedule with everything else as usual.
    pub fn new(schedule: Schedule, spool: impl Into<PathBuf>) -> BatchOptions {
        let (level, batch_bytes, spool) = (archive::LEVEL_DEFAULT, BATCH_BYTES, spool.into());
        BatchOptions { schedule, level, batch_bytes, called: spool.display().to_string(), spool }
    }

    /// The same called like this in the log.
    #[must_use]
    pub fn called(self, called: impl Into<String>) -> BatchOptions {
        BatchOptions { called: called.into(), ..self }
    }
}

/// One destination for batches.
#[derive(Debug)]
pub struct BatchCore<L, D> {
    options: BatchOptions,
    log: L,
    depot: D,
    due: Option<Due>,
    /// Ship up to here, as soon as possible.
    goal: Option<Lsn>,
    /// Who waits for the schedule.
    next: NextCut,
    outbox: Outbox,
    spooled: Option<Finished>,
    failures: u32,
    status: ShipStatus,
}

impl<L: BatchLog, D: DepotLink> BatchCore<L, D> {
    /// A destination that hasn't been asked yet where it ends.
    pub fn new(options: BatchOptions, log: L, depot: D) -> BatchCore<L, D> {
        let outbox = Outbox::new(&options.spool);
        let (next, status) = (NextCut::default(), ShipStatus::default());
        BatchCore { options, log, depot, due: None, goal: None, next, outbox, spooled: None, failures: 0, status }
    }

    /// How it does.
    pub fn status(&self) -> &ShipStatus {
        &self.status
    }

    /// min(durable, committed), now.
    pub fn safe(&self) -> Lsn {
        self.log.safe()
    }

    /// Ships up to `goal` in the next turn, whatever the schedule says, also when a retry waits.
    pub fn request(&mut self, goal: Lsn) {
        self.goal = self.goal.max(Some(goal));
        self.status.retry_at = None;
    }

    /// Ships up to `goal` although the schedule doesn't say so yet. Unlike what somebody asked for, it is tried again only
    /// when a retry is due.
    pub fn hurry(&mut self, goal: Lsn) {
        self.goal = self.goal.max(Some(goal));
    }

    /// Whoever has a ticket up to this one waits for the next cut that the schedule makes by itself, in a later turn:
    /// [`ShipStatus::cut`] says what became of it. Nothing is cut earlier for it.
    pub fn await_cut(&mut self, ticket: u64) {
        self.next.ask(ticket);
    }

    /// Does what is due and returns how long to wait for the next turn, at most. `publish` is told the status whenever
    /// it changes. Blocking.
    pub fn turn(&mut self, now: Time, stop: &Stop, publish: &mut dyn FnMut(&ShipStatus)) -> Duration {
        self.ask_schedule(now);
        // the end is asked for once in any case, so that schedule, status and pruning know it
        let wanted = self.status.shipped.is_none() || (self.goal.is_some() && self.pending_bytes(self.safe()) > 0);
        if !wanted {
            self.status.retry_at = None;
        }
        // an instant further away than any that is ever set comes from a clock that was set back
        let waits = self.status.retry_at.is_some_and(|at| now < at && at <= now.saturating_add(RETRY_RARELY));
        if wanted && !waits && !stop.is_set() {
            let done = self.ship(now, stop, publish);
            self.depot.close();
            self.settle(done, now);
        }
        if let Some(shipped) = self.status.shipped {
            self.next.stored(shipped);
        }
        self.note_schedule();
        publish(&self.status);
        let instants = [self.status.next_due, self.status.retry_at];
        let next = instants.into_iter().flatten().min();
        next.map_or(LOOK_AGAIN, |next| next.since(now)).clamp(Duration::from_millis(1), LOOK_AGAIN)
    }

    /// Sets the goal when a batch is due. The schedule begins when the depot has said where it ends.
    fn ask_schedule(&mut self, now: Time) {
        let safe = self.log.safe();
        let pending = self.pending_bytes(safe);
        let Some(due) = &mut self.due else { return };
        if due.poll(now, pending).is_some() {
            if pending > 0 {
                self.goal = self.goal.max(Some(safe));
            }
            self.next.made(safe, pending == 0);
        }
        self.note_schedule();
    }

    /// Says in the status what the schedule waits for, and what it did for those who wait for it.
    fn note_schedule(&mut self) {
        let pending = self.pending_bytes(self.log.safe());
        if let Some(due) = &self.due {
            self.status.next_due = due.next();
            self.status.missing_bytes = due.schedule().bytes().map(|bytes| bytes.saturating_sub(pending));
        }
        self.status.cut = self.next.cut();
    }

    fn pending_bytes(&self, safe: Lsn) -> u64 {
        safe.bytes_since(self.status.shipped.unwrap_or_else(|| self.log.start()))
    }

    fn settle(&mut self, done: Result<(), ShipError>, now: Time) {
        self.status.shipping_to = None;
        match done {
            Ok(()) => {
                self.failures = 0;
                self.status.pruned = None;
                // what was asked for and isn't committed yet stays asked for
                self.goal = self.goal.filter(|goal| self.status.shipped.is_none_or(|shipped| shipped < *goal));
                self.status.last_error = None;
                self.status.retry_at = None;
            }
            Err(error) => {
                if let ShipError::Trouble(Trouble::Pruned { needed, .. }) = error {
                    self.status.pruned = Some(needed);
                }
                let wait = match error.is_transient() {
                    true => (RETRY_FIRST * 2u32.saturating_pow(self.failures.min(16))).min(RETRY_MAX),
                    false => RETRY_RARELY,
                };
                let text = error.to_string();
                if self.status.last_error.as_ref() != Some(&text) {
                    tracing::warn!(of = self.options.called, %error, "ship a batch");
                }
                self.failures = self.failures.saturating_add(1);
                self.status.last_error = Some(text);
                self.status.retry_at = Some(now.saturating_add(wait));
            }
        }
    }

    /// Ships batch by batch until everything below the goal is there.
    fn ship(&mut self, now: Time, stop: &Stop, publish: &mut dyn FnMut(&ShipStatus)) -> Result<(), ShipError> {
        let mut state = self.depot.open(self.log.term())?;
        loop {
            let (begin, last) = self.begin(&state)?;
            self.status.shipped = Some(begin.from);
            self.status.shipped_time = last;
            if self.due.is_none() {
                self.due = Some(Due::new(self.options.schedule.clone(), now, last));
                self.ask_schedule(now);
            }
            if begin.is_nothing() || self.goal.is_none_or(|goal| begin.from >= goal) {
                return Ok(());
            }
            if stop.is_set() {
                return Err(ShipError::Stopped);
            }
            self.status.shipping_to = Some(begin.upto);
            publish(&self.status);
            let Some(batch) = self.cut(&begin)? else {
                // the bound lies inside an entry: that one is for next time
                self.goal = self.goal.filter(|goal| *goal > begin.upto);
                self.next.ends(begin.from, begin.upto);
                return Ok(());
            };
            let end = self.depot.store(&batch, stop);
            if matches!(&end, Err(error) if !error.is_transient()) {
                // whatever the depot didn't like about it, it is cut anew
                self.empty_spool()?;
            }
            let end = end?;
            self.empty_spool()?;
            state = self.stored(&batch, end, now)?;
            publish(&self.status);
        }
    }

    /// Where the next batch begins, checked against this log, and the time of the last entry before it.
    fn begin(&self, state: &DepotState) -> Result<(Begin, Option<Time>), ShipError> {
        let history = self.log.history();
        let (start, end, safe) = (self.log.start(), self.log.end(), self.log.safe());
        let view = LogView { start, end, safe, history: &history, term: self.log.term() };
        let begin = next_range(state, &view)?;
        let here = self.log.tip_at(begin.from)?;
        match begin.chain {
            Some(chain) if here.map(|tip| tip.chain) != Some(chain) => {
                Err(Trouble::Diverged { at: begin.from, depot: chain }.into())
            }
            chain => Ok((begin, chain.and(here).map(|tip| tip.time))),
        }
    }

    fn stored(&mut self, batch: &Finished, end: Place, now: Time) -> Result<DepotState, ShipError> {
        let info = &batch.info;
        if end.lsn < info.last.lsn || (end.lsn == info.last.lsn && end.chain != info.last.chain) {
            return Err(Trouble::Diverged { at: end.lsn, depot: end.chain }.into());
        }
        self.status.batches += 1;
        self.status.raw_bytes += info.range().bytes();
        self.status.file_bytes += info.file_bytes;
        self.status.stored_at = Some(now);
        self.status.last_error = None;
        Ok(DepotState { end: Some(end), term: info.term_seen() })
    }

    /// The batch that begins there: the one in the spool if it still fits, else a new one. `None` when no whole entry
    /// lies in the range.
    fn cut(&mut self, begin: &Begin) -> Result<Option<Finished>, ShipError> {
        if self.spooled.is_none() {
            self.spooled = self.outbox.find()?;
        }
        if let Some(spooled) = &self.spooled {
            let info = &spooled.info;
            let here = self.log.tip_at(info.last.lsn)?;
            let fits = info.stream == self.log.stream()
                && info.first.lsn == begin.from
                && info.last.lsn <= begin.upto
                && self.log.tip_at(info.first.lsn)? == Some(info.first)
                && here == Some(info.last);
            if fits {
                return Ok(Some(spooled.clone()));
            }
        }
        self.empty_spool()?;
        self.spooled = match self.write(begin) {
            Err(ShipError::Archive(archive::Error::Nothing { .. })) => None,
            written => Some(written?),
        };
        Ok(self.spooled.clone())
    }

    fn write(&self, begin: &Begin) -> Result<Finished, ShipError> {
        let LsnRange { from, to } = LsnRange::new(begin.from, begin.upto);
        let first = self.log.tip_at(from)?.ok_or(archive::Error::Nothing { from, upto: to })?;
        let history = self.log.history();
        let opening = history.openings().iter().rev().find(|opening| opening.first < from).copied();
        let (stream, geometry) = (self.log.stream(), self.log.geometry());
        let cut = Cut { stream, geometry, first, opening, upto: to, level: self.options.level };
        let mut writer = Writer::create(&self.outbox.cutting(), cut)?;
        while writer.tip().lsn.bytes_since(from) < self.options.batch_bytes {
            let wanted = to.bytes_since(writer.tip().lsn).min(SLICE_BYTES as u64) as usize;
            if wanted == 0 {
                break;
            }
            let Some(slice) = self.log.slice(writer.tip().lsn, wanted)? else { break };
            if writer.push(&slice)? == 0 {
                break;
            }
        }
        Ok(self.outbox.keep(writer.finish()?)?)
    }

    fn empty_spool(&mut self) -> Result<(), ShipError> {
        self.spooled = None;
        Ok(self.outbox.clear()?)
    }
}
