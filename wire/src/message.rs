//! What two nodes say to each other. docs/FORMAT.md, "Wire", has the bytes; `codec` turns one into the other.
//!
//! ```text
//!  primary                                   receiver
//!  Greeting ------------------------------->  syncs a higher term before it answers
//!           <------------------------------- Greeting
//!  agree()                                    agree()           the same pure function on both sides
//!  Start(agreement) ----------------------->  compares with its own; cuts its tail if told so, durably
//!           <------------------------------- Ready              from here on it counts as connected
//!  Entries … ----------------------------->   verify, write     <- Ack received, then durable
//!  Announce, Alive ------------------------>                    <- Alive (own thread)
//! ```
//! Either side may send [`Message::Refused`] instead of its next message, and closes.

use bytes::Bytes;
use journal::{Chain, Geometry, History, Lsn, LsnRange, NodeId, StreamId, TermSeen, Time, Tip};

/// Version of this protocol. 1: the first.
pub const PROTOCOL: u16 = 1;

/// The promise that a destination is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// A write is committed when it is durable here.
    Async,
    /// … and received by the peer.
    SemiSync,
    /// … and durable at the peer.
    Sync,
}

/// A place in a history that can be compared: equal (LSN, chain) means equal history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Place {
    /// Where.
    pub lsn: Lsn,
    /// Chain up to there.
    pub chain: Chain,
}

/// Who a node is, in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its identity.
    pub id: NodeId,
    /// Its name, for people.
    pub name: String,
    /// Random id of this process start.
    pub start_id: u64,
    /// The machine's boot id: a receiver that came up under another one may have lost what it had only received.
    pub boot_id: [u8; 16],
}

/// What a node says of itself and of its log before anything flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// [`PROTOCOL`] of the sender.
    pub protocol: u16,
    /// Which stream.
    pub stream: StreamId,
    /// Its name, for people and for a receiver that meets it for the first time.
    pub stream_name: String,
    /// Its geometry.
    pub geometry: Geometry,
    /// Who speaks.
    pub node: NodeInfo,
    /// Primary: the mode asked of this peer. Receiver: echoes `Async` (ignored).
    pub mode: Mode,
    /// The highest term the sender has seen; synced before it is said.
    pub term: TermSeen,
    /// Primary: it has opened a run since its start (so its log may have diverged). Receiver: false.
    pub opened: bool,
    /// The epochs in the sender's log: the newest [`crate::GREETING_OPENINGS_MAX`], if there are more.
    pub history: History,
    /// The lowest LSN that the sender still keeps.
    pub start: Lsn,
    /// The end of the sender's log: primary written, receiver written.
    pub end: Place,
    /// How far the sender's log is known to be durable by its own syncs.
    pub durable: Lsn,
    /// The commit point known to the sender. A receiver refuses to cut below it.
    pub committed: Lsn,
    /// Receiver: applied to its replica. A receiver refuses to cut below it.
    pub applied: Lsn,
    /// What the sender remembers the other side to have acknowledged as durable.
    pub remembers: Option<Place>,
    /// The sender's wall clock, to warn of skew.
    pub clock: Time,
}

/// How two logs go on together: the result of `agree`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// The receiver's log is a prefix of the primary's: stream from its end.
    Stream {
        /// The receiver's end.
        from: Place,
    },
    /// The receiver holds a tail that is not in the primary's history: it cuts to here, keeps the tail as a branch.
    Cut {
        /// Last position that both share.
        to: Lsn,
        /// What is cut.
        tail: LsnRange,
    },
    /// The receiver holds a longer tail of the primary's own history: the primary takes it back before it opens a run.
    TakeBack {
        /// The primary's end.
        from: Place,
        /// The receiver's end.
        to: Lsn,
    },
    /// The primary no longer keeps what the receiver lacks.
    Base {
        /// The receiver's end.
        receiver_end: Lsn,
        /// Where the primary's log begins.
        primary_start: Lsn,
    },
    /// They don't go together.
    Refused(Refusal),
}

/// Why two nodes don't go together. Both sides print both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// Another protocol version.
    Protocol {
        /// What the primary speaks.
        primary: u16,
        /// What the receiver speaks.
        receiver: u16,
    },
    /// Not the same stream.
    Stream {
        /// The primary's.
        primary: StreamId,
        /// The receiver's.
        receiver: StreamId,
    },
    /// The same stream with another geometry.
    Geometry {
        /// The primary's body size.
        primary: u64,
        /// The receiver's body size.
        receiver: u64,
    },
    /// The receiver knows a higher term: the primary is fenced.
    Fenced {
        /// The primary's term.
        primary: TermSeen,
        /// The higher term.
        receiver: TermSeen,
    },
    /// Equal terms with different ids: both were promoted.
    SplitBrain {
        /// The primary's.
        primary: TermSeen,
        /// The receiver's.
        receiver: TermSeen,
    },
    /// Equal runs with different ids: somebody copied a data folder.
    CopiedFolder {
        /// Primary's run id.
        primary: u64,
        /// Receiver's run id.
        receiver: u64,
    },
    /// Two nodes with one identity.
    SameNode {
        /// The identity.
        node: NodeId,
    },
    /// Equal epochs, different bytes: (LSN, chain) of the one isn't in the other's log.
    Diverged {
        /// Where.
        at: Lsn,
        /// Chain on the primary; `None` when no entry ends there.
        primary: Option<Chain>,
        /// Chain on the receiver; `None` when no entry ends there.
        receiver: Option<Chain>,
    },
    /// The receiver would have to cut what it knows to be committed or has applied.
    CutBelowCommitted {
        /// Where it would have to cut.
        to: Lsn,
        /// max(committed, applied) on the receiver.
        committed: Lsn,
    },
    /// The primary's log is shorter than the receiver's, and the receiver no longer keeps what the primary lacks.
    Pruned {
        /// The primary's end.
        primary_end: Lsn,
        /// Where the receiver's log begins.
        receiver_start: Lsn,
    },
    /// The other side is not a receiver for this stream (it is a primary itself, or sealed).
    NotReceiver {
        /// What it is.
        role: String,
    },
    /// Another connection feeds the stream already.
    Busy,
    /// The two sides computed different agreements: a fault in the program.
    Disagree,
    /// The other side can't go on: disk, space, damage. The text says what and what to do.
    Unable {
        /// What happened.
        reason: String,
    },
}

/// The primary's word after both greetings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Names this connection: everything that counts for it carries it.
    pub session: u64,
    /// What the primary's `agree` said.
    pub agreement: Agreement,
}

/// The receiver's word after it did what the agreement asks of it, durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The session it belongs to.
    pub session: u64,
    /// Where its log ends now.
    pub end: Place,
    /// How far it is durable.
    pub durable: Lsn,
}

/// How far the receiver is. Cumulative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Ack {
    /// The session it belongs to.
    pub session: u64,
    /// Verified and written to its segment.
    pub received: Lsn,
    /// Covered by one of its syncs.
    pub durable: Lsn,
    /// Chain at `durable`: what the primary remembers it by.
    pub durable_chain: Chain,
    /// Visible in its replica.
    pub applied: Lsn,
    /// The replica itself is synced up to here.
    pub checkpoint: Lsn,
}

/// What the primary tells the receiver of the whole stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Announce {
    /// The session it belongs to.
    pub session: u64,
    /// Reached at the promised level by all required peers: the replica may apply up to here.
    pub committed: Lsn,
    /// The primary's own durable watermark, for people and loss statements.
    pub durable: Lsn,
    /// Nobody needs the log below this any more: lowest LSN owed to any destination.
    pub floor: Lsn,
    /// The primary goes on without a required peer.
    pub alone: bool,
}

/// Sign of life, from a thread that no sync blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Alive {
    /// How long the sender's current sync has run, in milliseconds; 0 when none runs.
    pub sync_ms: u32,
    /// The sender has no space.
    pub full: bool,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// See [`Greeting`].
    Greeting(Box<Greeting>),
    /// See [`Refusal`]; the sender closes.
    Refused(Refusal),
    /// See [`Start`].
    Start(Start),
    /// See [`Ready`].
    Ready(Ready),
    /// Whole entries as they stand in the log; primary to receiver, or back in a take-back.
    Entries {
        /// The session they belong to.
        session: u64,
        /// LSN of the first.
        at: Lsn,
        /// The entries; verified by the reader with a `journal::Cursor`, never trusted.
        bytes: Bytes,
    },
    /// See [`Ack`].
    Ack(Ack),
    /// See [`Announce`].
    Announce(Announce),
    /// See [`Alive`].
    Alive(Alive),
    /// An orderly end; the sender closes.
    Bye {
        /// For people.
        reason: String,
    },
    /// First message of a depot link, instead of a greeting.
    DepotHello(DepotHello),
    /// The depot's answer: where its newest line ends.
    DepotState(DepotState),
    /// A batch is offered; answered by `BatchHave` or, if it is stored already, by `BatchStored`.
    BatchOffer(BatchOffer),
    /// Bytes of the offered batch that the depot has already, from an earlier attempt: send from here.
    BatchHave {
        /// Offset to continue at.
        offset: u64,
    },
    /// A part of the offered batch.
    BatchPart {
        /// Where it belongs.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// The batch is verified, synced, renamed, and its folder synced: it is *shipped*.
    BatchStored {
        /// Its name.
        name: String,
        /// Where the depot's line ends now.
        end: Place,
    },
    /// First message of a link that reads, instead of a greeting.
    CopyHello(CopyHello),
    /// What the other side has of the stream.
    CopyState(CopyState),
    /// Asks for log; answered by `Entries` of session 0, or by `CopyLacks`.
    CopyAsk(CopyAsk),
    /// What was asked for can't be given.
    CopyLacks {
        /// Why it should be there and isn't; empty where this copy doesn't reach.
        why: String,
    },
}

/// A primary opens a link to a depot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepotHello {
    /// [`PROTOCOL`] of the sender.
    pub protocol: u16,
    /// Which stream.
    pub stream: StreamId,
    /// Its name.
    pub stream_name: String,
    /// Its geometry.
    pub geometry: Geometry,
    /// Who speaks.
    pub node: NodeInfo,
    /// Its term.
    pub term: TermSeen,
}

/// Where a depot's line of a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct DepotState {
    /// The end of the newest batch on the newest term's line; `None` for an empty depot.
    pub end: Option<Place>,
    /// The newest term in the depot.
    pub term: TermSeen,
}

/// A batch about to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchOffer {
    /// Its file name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its blake3, over the whole file.
    pub hash: [u8; 32],
}

/// Somebody opens a link to read what its own log has lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyHello {
    /// [`PROTOCOL`] of the sender.
    pub protocol: u16,
    /// Which stream.
    pub stream: StreamId,
}

/// The copies that a node has of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CopyState {
    /// In the order in which they should be asked; at most [`crate::HOLDINGS_MAX`].
    pub holdings: Vec<Holding>,
}

/// One copy of a log, or of a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// The node's own journal.
    Journal {
        /// How it is laid out.
        geometry: Geometry,
    },
    /// A line of the depot that the node keeps.
    Line {
        /// How the log in it is laid out.
        geometry: Geometry,
        /// Where it ends.
        end: Lsn,
    },
}

/// A question for the log behind a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyAsk {
    /// Which of the holdings.
    pub holding: u16,
    /// The tip that the entries follow.
    pub from: Tip,
}
