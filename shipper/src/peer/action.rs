//! What goes into and comes out of a [`crate::Peer`].

use std::time::Duration;

use bytes::Bytes;
use journal::{Lsn, LsnRange, NodeId, TermSeen};
use wire::{Message, Mode, Place, Refusal};

/// How one destination is treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerOptions {
    /// Its name, for people.
    pub name: String,
    /// The promise asked of it.
    pub mode: Mode,
    /// At most this many bytes are sent and not yet received. One entry may exceed it.
    pub window_bytes: u64,
    /// A connection on which nothing is heard for so long is dead; a sync that runs for so long is stalled.
    pub dead_after: Duration,
    /// How often a sign of life is sent.
    pub alive_every: Duration,
    /// First wait after a connection ended; doubles at every failure.
    pub retry_min: Duration,
    /// Longest wait, and the wait after a refusal.
    pub retry_max: Duration,
    /// Announcements are at least so far apart, unless entries go out anyway.
    pub announce_every: Duration,
    /// How often what was acknowledged as durable is compared with the own log and remembered.
    pub remember_every: Duration,
    /// Spreads the waits of many peers. Any number.
    pub seed: u64,
}

impl PeerOptions {
    /// The defaults for a peer of this name and mode.
    pub fn new(name: &str, mode: Mode) -> PeerOptions {
        PeerOptions {
            name: name.into(),
            mode,
            window_bytes: 16 << 20,
            dead_after: Duration::from_secs(5),
            alive_every: Duration::from_millis(500),
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(5),
            announce_every: Duration::from_millis(10),
            remember_every: Duration::from_secs(1),
            seed: 0,
        }
    }
}

/// How far this node is: what [`crate::Peer::handle_local`] is told whenever some of it changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Entries below may be sent.
    pub written: Lsn,
    /// Own durable watermark.
    pub durable: Lsn,
    /// [`crate::Verdict::committed`].
    pub committed: Lsn,
    /// Lowest position owed to any destination.
    pub floor: Lsn,
    /// The stream goes on without a required peer.
    pub alone: bool,
    /// A run was opened since this start.
    pub opened: bool,
    /// How long the own sync in progress has run, in milliseconds.
    pub sync_ms: u32,
    /// This node has no space.
    pub full: bool,
}

/// What the driver does for a peer. `link` numbers the connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Dial. Answer: [`crate::Peer::handle_connected`] or [`crate::Peer::handle_disconnected`].
    Connect {
        /// The new connection's number.
        link: u64,
    },
    /// Close after what was queued before is sent. No answer needed.
    Close {
        /// Which connection.
        link: u64,
        /// Why, for the log.
        reason: String,
    },
    /// Send a message.
    Send {
        /// On which connection.
        link: u64,
        /// What.
        message: Message,
    },
    /// Send whole entries from `range.from` on, as many as end at or before `range.to`, at least one; they may be fewer.
    /// Answer: [`crate::Peer::handle_sent`].
    SendEntries {
        /// On which connection.
        link: u64,
        /// Session to name in the message.
        session: u64,
        /// What.
        range: LsnRange,
    },
    /// Look up the own chain at a position. Answer: [`crate::Peer::handle_looked`].
    Look {
        /// For which connection.
        link: u64,
        /// Where.
        at: Lsn,
    },
    /// Entries of a take-back: verify them with a `Cursor` at the end of the own log and extend the log by them. Answer:
    /// [`crate::Peer::handle_extended`] or, if they don't fit, [`crate::Peer::handle_failed`].
    Extend {
        /// Of which connection.
        link: u64,
        /// Where they begin.
        at: Lsn,
        /// Whole entries, unverified.
        bytes: Bytes,
    },
    /// A higher term exists. Stop acknowledging, then make term and role durable.
    Fence {
        /// The term.
        by: TermSeen,
    },
    /// Keep in the control file: this node acknowledged `place` as durable, and its chain stands in the own log.
    Remember {
        /// Which node.
        node: NodeId,
        /// What.
        place: Place,
    },
    /// Something that people should know.
    Report(Notice),
}

/// What a person should know of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The peer acknowledged more as durable than it has: it lost durable data. It is sent again, but a promise was broken.
    LostDurable {
        /// What it had acknowledged.
        acknowledged: Place,
        /// Where its log ends.
        end: Lsn,
    },
    /// The two clocks differ by more than five seconds.
    ClockSkew {
        /// By how much, in milliseconds; positive when the peer's is ahead.
        skew_ms: i64,
    },
    /// The peer cuts a tail that is not in our history; it keeps it as a branch.
    Cuts {
        /// What it cuts.
        tail: LsnRange,
    },
    /// A longer tail of our own history is taken back from the peer.
    TakesBack {
        /// What we lacked.
        tail: LsnRange,
    },
    /// They don't go together.
    Refused(Refusal),
}

/// Where a peer is: for status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Not connected yet, or the greetings are under way.
    Connecting,
    /// It can't be reached, or the connection was lost.
    Unreachable {
        /// Why.
        reason: String,
    },
    /// This node takes back a tail that the peer holds.
    TakingBack,
    /// Connected; it lacks more than what is under way.
    CatchingUp,
    /// Connected, and it has had everything durable.
    InSync,
    /// It answers, but its sync has run for longer than the limit.
    Stalled {
        /// For how long, in milliseconds.
        sync_ms: u32,
    },
    /// It answers, but has no space.
    Full,
    /// This node no longer keeps what the peer lacks.
    NeedsBase {
        /// The peer's end.
        receiver_end: Lsn,
        /// Where the own log begins.
        primary_start: Lsn,
    },
    /// One of the two sides refused.
    Refused(Refusal),
    /// It knows a higher term: this node is no longer the primary.
    Fenced {
        /// The term.
        by: TermSeen,
    },
    /// This node doesn't ship to it any more.
    Stopped,
}
