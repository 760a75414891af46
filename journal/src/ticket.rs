//! What an append returns, and waiting for it: threads that sync for themselves, and tasks that leave it to the flush
//! thread.

use std::task::Poll;
use std::time::{Duration, Instant};

use crate::board::Turn;
use crate::class::Class;
use crate::epoch::Epoch;
use crate::error::{Error, Result};
use crate::level::{Level, WaitError};
use crate::log::Journal;
use crate::lsn::Lsn;
use crate::sync::now;

/// What an append returns: the place of the record, and the way to wait for it.
#[derive(Clone, Debug)]
pub struct Ticket {
    pub(crate) journal: Journal,
    pub(crate) lsn: Lsn,
    pub(crate) epoch: Epoch,
    /// Cuts of the log before it was staged.
    pub(crate) cuts: u64,
}

/// An acknowledgement: it says how far the record got, and no more than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Position behind the record's last entry: everything below has reached `level` too.
    pub lsn: Lsn,
    /// The epoch that wrote it.
    pub epoch: Epoch,
    /// The highest level reached at this instant, at least the one that was waited for.
    pub level: Level,
    /// The stream goes on without a required peer.
    pub alone: bool,
}

impl Ticket {
    /// Position behind the record: what an acknowledgement names.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// The epoch that it was staged in.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Returns when the record is whole in the segment. Never waits for a sync in progress.
    ///
    /// Errors: those of [`Journal::write`]; `NotReached` when the record was cut off.
    pub fn written(&self) -> Result<Lsn> {
        let outcome = self.journal.write();
        let written = self.journal.board().written();
        if self.is_cut() {
            return Err(Error::NotReached { wanted: self.lsn, end: written });
        }
        match outcome {
            // what failed is a later record's
            Err(_) if self.lsn <= written => Ok(self.lsn),
            outcome => outcome,
        }
    }

    /// Returns when a sync covers the record.
    pub fn durable(&self) -> std::result::Result<Ack, WaitError> {
        self.reach(Level::Durable, None)
    }

    /// Waits for `level`, at most `timeout`.
    pub fn wait(&self, level: Level, timeout: Duration) -> std::result::Result<Ack, WaitError> {
        self.reach(level, now().checked_add(timeout))
    }

    /// For async code: resolves when the record reaches `level`. Starts the flush thread if there is none: a task has no
    /// thread to sync with. Where there is no space, it tries again until there is. Cancel-safe.
    ///
    /// What is only written is so at once: as with [`Ticket::written`], the task writes what nobody has written yet.
    pub async fn level(&self, level: Level) -> std::result::Result<Ack, WaitError> {
        if level == Level::Written
            && let Err(error) = self.journal.write()
            && error.class() != Class::Full
            && self.lsn > self.journal.board().written()
        {
            return Err(self.journal.wait_error(&error));
        }
        self.journal.spawn_flusher().map_err(|error| self.journal.wait_error(&error))?;
        std::future::poll_fn(|cx| match self.journal.board().poll_reached(level, self.lsn, cx) {
            _ if self.is_cut() => Poll::Ready(Err(WaitError::Cut { lsn: self.lsn })),
            polled => polled,
        })
        .await?;
        Ok(self.ack(level))
    }

    fn reach(&self, level: Level, deadline: Option<Instant>) -> std::result::Result<Ack, WaitError> {
        let mut cuts = self.cuts;
        loop {
            let waited = self.journal.wait_unless_cut(level, self.lsn, deadline, Some(cuts));
            if self.is_cut() {
                return Err(WaitError::Cut { lsn: self.lsn });
            }
            let cuts_now = self.journal.board().cuts();
            if cuts_now == cuts {
                return waited.map(|()| self.ack(level));
            }
            cuts = cuts_now;
        }
    }

    /// True when a cut took the record: whatever stands in its place is not it.
    fn is_cut(&self) -> bool {
        self.journal.board().cuts() != self.cuts && !self.journal.holds(self.lsn, self.epoch)
    }

    /// The acknowledgement from the watermarks at this instant. A peer may have gone since `reached` was true: the
    /// level that was waited for has been reached all the same.
    fn ack(&self, reached: Level) -> Ack {
        let board = self.journal.board();
        let now = board.level_of(self.lsn);
        let level = match reached {
            Level::Committed => now.unwrap_or(Level::Durable),
            level => now.map_or(level, |now| now.max(level)),
        };
        Ack { lsn: self.lsn, epoch: self.epoch, level, alone: board.remote().alone }
    }
}

impl Journal {
    /// Waits until `lsn` reaches `level`, syncing for itself and for others if nobody else does. Blocking.
    ///
    /// After `Unknown`, or a failure of class `Full`, the record may still get there: ask again with the same LSN. Where a
    /// cut took the record, another one may come to stand there: only its ticket can tell.
    pub fn wait(&self, level: Level, lsn: Lsn, deadline: Option<Instant>) -> std::result::Result<(), WaitError> {
        self.wait_unless_cut(level, lsn, deadline, None)
    }

    /// The same; returns early when there have been other than so many `cuts`.
    fn wait_unless_cut(
        &self,
        level: Level,
        lsn: Lsn,
        deadline: Option<Instant>,
        cuts: Option<u64>,
    ) -> std::result::Result<(), WaitError> {
        if lsn > self.board().staged() {
            // who appends what comes up to there may not wait for it
            self.spawn_flusher().map_err(|error| self.wait_error(&error))?;
        }
        if level == Level::Written
            && let Err(error) = self.write()
            && lsn > self.board().written()
        {
            return Err(self.wait_error(&error));
        }
        loop {
            match self.board().turn(level, lsn, deadline, cuts, true)? {
                Turn::Reached | Turn::Cut => return Ok(()),
                Turn::Lead(lead) => {
                    let synced = self.sync();
                    drop(lead);
                    self.prepare_without_flusher();
                    if let Err(error) = synced
                        && lsn > self.board().reached(level)
                    {
                        return Err(self.wait_error(&error));
                    }
                }
            }
        }
    }

    /// What a waiter is told when it could not write or sync: the end of the stream is why, if it has ended.
    fn wait_error(&self, error: &Error) -> WaitError {
        match self.board().end_reached() {
            Some(end) => end.wait_error(),
            None if error.class() == Class::Full => {
                let why =
                    format!("{error}. What was waited for has its place, and may still get there: ask again by LSN");
                WaitError::Failed { class: Class::Full, why }
            }
            None => WaitError::Failed { class: error.class(), why: error.to_string() },
        }
    }

    /// True when the log still has what `epoch` wrote up to `lsn`. A cut ends the run: what stands there later is another's.
    fn holds(&self, lsn: Lsn, epoch: Epoch) -> bool {
        let last = Lsn::new(lsn.get().saturating_sub(1));
        lsn <= self.board().staged() && self.history().at(last).is_some_and(|opening| opening.epoch == epoch)
    }
}
