//! What goes into and comes out of an [`crate::Intake`].

use std::time::Duration;

use journal::{Chain, Geometry, Lsn, LsnRange, NodeId, TermSeen, Tip};
use wire::{Message, Place, Refusal};

/// How a stream is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntakeOptions {
    /// A connection on which nothing is heard for so long is dead.
    pub dead_after: Duration,
    /// What was applied is acknowledged at least this often, though nothing else is to be said.
    pub report_every: Duration,
}

impl Default for IntakeOptions {
    fn default() -> IntakeOptions {
        IntakeOptions { dead_after: Duration::from_secs(5), report_every: Duration::from_millis(500) }
    }
}

/// What the node's log and control file say when an [`crate::Intake`] is made. From then on it keeps count itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The stream's geometry.
    pub geometry: Geometry,
    /// The end of what is written.
    pub tip: Tip,
    /// The place up to which an own sync covers it.
    pub durable: Place,
    /// What was known to be committed.
    pub committed: Lsn,
    /// Visible in the replica.
    pub applied: Lsn,
    /// The highest term seen; durable.
    pub term: TermSeen,
    /// `None` for a receiver; else what the node is instead ("primary", "fenced"): it answers greetings, and refuses.
    pub instead: Option<String>,
    /// The node came up under another boot id than the one that was last settled: it may have lost what it had only
    /// received.
    pub in_doubt: bool,
    /// The control file was made anew from the log: a higher term that was seen may be forgotten. It answers for no
    /// start, and is in doubt as well.
    pub rebuilt: bool,
}

/// Proof that a sync of the log returned: what makes a durable acknowledgement possible. `journal::Durable` is the real
/// one, made by a sync alone; a simulated log has its own.
pub trait Proof {
    /// Everything below is durable.
    fn lsn(&self) -> Lsn;
    /// Chain at [`Proof::lsn`].
    fn chain(&self) -> Chain;
}

impl Proof for journal::Durable {
    fn lsn(&self) -> Lsn {
        journal::Durable::lsn(self)
    }

    fn chain(&self) -> Chain {
        journal::Durable::chain(self)
    }
}

/// What the driver does for an intake. `link` numbers the connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A higher term than the one seen. A node that is primary stops acknowledging first and becomes fenced. Make the
    /// term durable. Answer: [`crate::Intake::handle_term_seen`].
    SeeTerm {
        /// For which connection.
        link: u64,
        /// The term.
        term: TermSeen,
    },
    /// Send a message.
    Send {
        /// On which connection.
        link: u64,
        /// What.
        message: Message,
    },
    /// Close after what was queued before is sent. No answer needed.
    Close {
        /// Which connection.
        link: u64,
        /// Why, for the log.
        reason: String,
    },
    /// Look up the own chain at a position. Answer: [`crate::Intake::handle_looked`].
    Look {
        /// For which connection.
        link: u64,
        /// Where.
        at: Lsn,
    },
    /// Cut the log: the tail durable in a branch file, then the new end durable in the control file. Answer:
    /// [`crate::Intake::handle_cut`], or [`crate::Intake::handle_failed`].
    Cut {
        /// For which connection.
        link: u64,
        /// The new end.
        to: Lsn,
    },
    /// Send whole entries of this range, in as many messages as it takes: the primary takes them back.
    SendEntries {
        /// On which connection.
        link: u64,
        /// Session to name in the messages.
        session: u64,
        /// What.
        range: LsnRange,
    },
    /// Sync the log now. Answer: [`crate::Intake::handle_durable`] with this generation, or
    /// [`crate::Intake::handle_sync_failed`].
    Sync {
        /// Names the log between two cuts.
        generation: u64,
    },
    /// The replica may apply up to here.
    Apply {
        /// min(announced committed, own durable).
        to: Lsn,
    },
    /// What is known to be committed, for the control file. Needn't be synced at once.
    Committed {
        /// min(announced committed, own written).
        lsn: Lsn,
    },
    /// The log has all that its primary had: make this boot id the settled one, durably, before later acknowledgements
    /// of what is only received leave. The node is not in doubt any more.
    Settle,
    /// Something that people should know.
    Report(Notice),
}

/// What [`crate::Intake::verify`] says of arrived entries.
#[derive(Clone, Debug)]
pub enum Found<'a> {
    /// Extend the log by these, in one write. If `term` is set, make it durable before. Answer:
    /// [`crate::Intake::handle_written`], or [`crate::Intake::handle_failed`].
    Write {
        /// The verified entries.
        run: journal::Verified<'a>,
        /// A term that begins in them and that this node hadn't seen.
        term: Option<TermSeen>,
    },
    /// Of an ended connection or session: they count for nothing.
    Nothing,
    /// They don't continue the log. The connection was ended; poll the actions.
    Refused,
}

/// What a person should know of a stream that is received.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// This node acknowledged more as durable than its log holds: durable data was lost. It is fetched again, but a
    /// promise was broken.
    LostDurable {
        /// What it had acknowledged.
        acknowledged: Place,
        /// Where the log ends.
        end: Lsn,
    },
    /// A newer connection replaces one that is still open.
    Replaced {
        /// The primary.
        node: NodeId,
    },
    /// They don't go together.
    Refused(Refusal),
    /// This node lost its promise for good: a sync failed.
    Failed {
        /// What happened.
        reason: String,
    },
}
