//! What an acknowledgement can say, what the peers hold, and why a wait ends.

use crate::class::Class;
use crate::epoch::Term;
use crate::lsn::Lsn;

/// How far a write got: what an acknowledgement names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The whole entry is in the primary's segment: survives `kill -9` of the primary.
    Written,
    /// A sync of the primary covers it: survives its power cut.
    Durable,
    /// Durable here, and every required peer has received it: survives the loss of the primary.
    Received,
    /// Durable here and at every required peer: survives the loss of the primary and a power cut of the peer.
    PeerDurable,
    /// The stream's own promise is met, whatever it is (and if the stream goes on alone, its own sync).
    Committed,
}

/// What the required peers hold at this instant, as the commit rule computed it. May go down: a peer's watermarks end
/// with its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remote {
    /// Received by every required peer.
    pub received: Lsn,
    /// Durable at every required peer.
    pub peer_durable: Lsn,
    /// What the promise of every required peer allows to be committed; [`Lsn::MAX`] when none restricts it.
    pub promised: Lsn,
    /// True while the stream goes on without a required peer.
    pub alone: bool,
}

/// Why a wait ended without its level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// Time ran out: neither success nor failure. Ask again by LSN.
    #[error("the outcome of LSN {lsn} is unknown: its level was not reached in time. Ask again later")]
    Unknown {
        /// The position that was waited for.
        lsn: Lsn,
    },
    /// A higher term exists; this node acknowledges nothing any more.
    #[error("fenced: term {by} exists; what was not acknowledged before is unknown")]
    Fenced {
        /// The higher term.
        by: Term,
    },
    /// The tail that it stood in was cut off, and is kept as a branch: it is no part of the log.
    #[error("the record up to LSN {lsn} was cut off: it is in a branch of the journal, and no part of it any more")]
    Cut {
        /// The position that was waited for.
        lsn: Lsn,
    },
    /// A write or a sync failed: for good, but for one of class `Full`, which is tried again.
    #[error("{why}")]
    Failed {
        /// Who must act.
        class: Class,
        /// What failed.
        why: String,
    },
    /// The journal was closed.
    #[error("the journal was closed before the level was reached")]
    Closed,
}

impl WaitError {
    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            WaitError::Unknown { .. } | WaitError::Closed => Class::Unknown,
            WaitError::Fenced { .. } => Class::Fenced,
            WaitError::Cut { .. } => Class::NotReached,
            WaitError::Failed { class, .. } => *class,
        }
    }
}

/// Why a stream acknowledges nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A higher term exists.
    Fenced(Term),
    /// A sync failed; the text says which.
    Failed(String),
    /// Closed in order.
    Closed,
}

impl End {
    pub(crate) fn wait_error(&self) -> WaitError {
        match self {
            End::Fenced(by) => WaitError::Fenced { by: *by },
            End::Failed(why) => WaitError::Failed { class: Class::Io, why: why.clone() },
            End::Closed => WaitError::Closed,
        }
    }
}
