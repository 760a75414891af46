//! One connection that feeds the log, or is about to.

use std::time::{Duration, Instant};

use journal::{Lsn, LsnRange};
use wire::{Ack, Agreement, Announce, Greeting, Mode, Start};

use super::action::Log;

/// A connection whose greeting was taken.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) link: u64,
    pub(super) theirs: Greeting,
    pub(super) heard: Instant,
    pub(super) phase: Phase,
    pub(super) announced: Announce,
    acked: Option<Ack>,
    acked_at: Instant,
    report_every: Duration,
}

/// Transitions: see the diagram in `intake.rs`.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    SeeingTerm { own: Box<Greeting> },
    Greeted { agreement: Agreement },
    Cutting { start: Start },
    Looking { start: Start, range: LsnRange },
    Streaming { session: u64 },
}

impl Session {
    pub(super) fn new(now: Instant, link: u64, theirs: Greeting, phase: Phase, report_every: Duration) -> Session {
        Session {
            link,
            theirs,
            heard: now,
            phase,
            announced: Announce::default(),
            acked: None,
            acked_at: now,
            report_every,
        }
    }

    pub(super) fn streams(&self) -> bool {
        matches!(self.phase, Phase::Streaming { .. })
    }

    /// The number of the session that streams.
    pub(super) fn number(&self) -> Option<u64> {
        match self.phase {
            Phase::Streaming { session } => Some(session),
            _ => None,
        }
    }

    /// True when each received entry is to be synced at once.
    pub(super) fn wants_sync(&self) -> bool {
        self.streams() && self.theirs.mode == Mode::Sync
    }

    /// The acknowledgement that is to be sent now, if one is: at once for received and durable, at leisure for the rest.
    pub(super) fn next_ack(&mut self, now: Option<Instant>, log: &Log, checkpoint: Lsn) -> Option<Ack> {
        let ack = Ack {
            session: self.number()?,
            received: log.tip.lsn.max(log.durable.lsn),
            durable: log.durable.lsn,
            durable_chain: log.durable.chain,
            applied: log.applied,
            checkpoint,
        };
        let moved = self.acked.is_none_or(|acked| (acked.received, acked.durable) != (ack.received, ack.durable));
        let due = now.is_some_and(|now| self.report_due(log.applied, checkpoint).is_some_and(|due| now >= due));
        if !moved && !due {
            return None;
        }
        self.acked = Some(ack);
        self.acked_at = now.unwrap_or(self.heard);
        Some(ack)
    }

    /// When what was applied is to be acknowledged, though nothing else moved.
    pub(super) fn report_due(&self, applied: Lsn, checkpoint: Lsn) -> Option<Instant> {
        let acked = self.acked?;
        ((acked.applied, acked.checkpoint) != (applied, checkpoint)).then(|| self.acked_at + self.report_every)
    }
}
