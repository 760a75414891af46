//! What an append returns.

use std::time::{Duration, Instant};

use journal::{Ack, Epoch, Level, Lsn, WaitError};

use super::handle::Handle;

/// The place of a record, and the way to wait for it. Dropping it changes nothing: the record is in the stream.
#[derive(Clone, Debug)]
pub struct Ticket {
    primary: Handle,
    ticket: journal::Ticket,
}

impl Ticket {
    pub(super) fn new(primary: Handle, ticket: journal::Ticket) -> Ticket {
        Ticket { primary, ticket }
    }

    /// Position behind the record: what an acknowledgement names, and what to ask by after an unknown outcome.
    pub fn lsn(&self) -> Lsn {
        self.ticket.lsn()
    }

    /// The epoch that wrote it.
    pub fn epoch(&self) -> Epoch {
        self.ticket.epoch()
    }

    /// Blocks until the record is whole in the segment: it survives `kill -9` of this process. Never waits for a sync.
    pub fn written(&self) -> Result<Lsn, journal::Error> {
        self.ticket.written()
    }

    /// Blocks until a sync of this node covers the record.
    pub fn durable(&self) -> Result<Ack, WaitError> {
        self.ticket.durable()
    }

    /// Blocks until the record has reached `level`, at most `timeout`.
    ///
    /// [`WaitError::Unknown`] is neither success nor failure: the record may still get there. So it ends when the time
    /// is up, and when a required peer is lost whose `on_loss` is `Fail`.
    pub fn wait(&self, level: Level, timeout: Duration) -> Result<Ack, WaitError> {
        self.wait_until(level, Instant::now().checked_add(timeout))
    }

    /// The same with a deadline, or without one.
    pub fn wait_until(&self, level: Level, deadline: Option<Instant>) -> Result<Ack, WaitError> {
        self.primary.wait(level, self.lsn(), deadline)?;
        // what was reached stays reached, even if the peer that held it is lost at this very moment
        let board = self.primary.journal.board();
        let now = board.level_of(self.lsn());
        let level = match level {
            Level::Committed => now.unwrap_or(Level::Durable),
            level => now.map_or(level, |now| now.max(level)),
        };
        Ok(Ack { lsn: self.lsn(), epoch: self.epoch(), level, alone: board.remote().alone })
    }

    /// For async code: resolves when the record has reached `level`, however long that takes: neither a time nor `Fail`
    /// ends it. Cancel-safe.
    pub async fn level(&self, level: Level) -> Result<Ack, WaitError> {
        self.ticket.level(level).await
    }
}
