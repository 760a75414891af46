//! How a node and its streams are: what `status` prints and `--json` carries.

mod text;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A node and its streams at one instant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// [`crate::control::SCHEMA`].
    pub schema: u32,
    /// The program's version.
    pub version: String,
    /// The node's name.
    pub node: String,
    /// The node's identity.
    pub node_id: String,
    /// Its process.
    pub pid: u32,
    /// Its data folder.
    pub data: PathBuf,
    /// The bound address for peers; `None`: it takes no connections.
    pub listen: Option<String>,
    /// Every stream of the data folder, by name.
    pub streams: Vec<StreamStatus>,
}

/// What a node is for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoleName {
    /// It writes.
    Primary,
    /// It keeps a copy.
    Receiver,
    /// It was the primary; a higher term exists.
    Fenced,
}

/// How a stream is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Primary: the start gate is closed; nothing is acknowledged. Receiver: no primary is connected.
    Waiting,
    /// Primary: open, and every required peer counts.
    Open,
    /// Primary: open without a required peer.
    Alone,
    /// Primary: open, but a required peer is lost: commits wait or fail.
    Blocked,
    /// Receiver: a primary is connected.
    Following,
    /// A higher term exists; nothing is acknowledged.
    Fenced,
    /// Something failed for good; see the next step.
    Failed,
}

/// Positions of one stream on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermarks {
    /// The lowest position still kept.
    pub start: u64,
    /// Written here.
    pub written: u64,
    /// Durable here.
    pub durable: u64,
    /// Durable here and received by every required peer; `None` when there is none, or on a receiver.
    pub received: Option<u64>,
    /// Durable here and at every required peer; `None` when there is none, or on a receiver.
    pub peer_durable: Option<u64>,
    /// Committed as the modes promise; on a receiver: as last announced by the primary.
    pub committed: u64,
    /// Visible in the replica; `None` where there is none.
    pub applied: Option<u64>,
    /// The replica is synced up to here; `None` where there is none.
    pub checkpoint: Option<u64>,
}

/// Whom the beginning of the log is kept for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFor {
    /// "depot night", "peer b".
    pub who: String,
    /// It needs everything from here on.
    pub from: u64,
}

/// How far something is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lag {
    /// Bytes of log.
    pub bytes: u64,
    /// Age of the oldest entry it lacks; 0 when it lacks none.
    pub seconds: f64,
}

/// A peer or a depot of a primary.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DestinationStatus {
    /// Its name.
    pub name: String,
    /// `peer` or `depot`.
    pub kind: String,
    /// Its address, or its folder.
    pub at: String,
    /// The mode asked of it; depots are `async`.
    pub mode: String,
    /// A commit waits for it.
    pub required: bool,
    /// In one or two words: connected, catching up, in sync, stalled, dead, refused, detached, fenced, idle, shipping.
    pub state: String,
    /// It has been met since this start: the start gate asks for it.
    pub met: bool,
    /// Received by the peer, in the connection that stands.
    pub received: Option<u64>,
    /// Durable at the peer, in the connection that stands; a depot: shipped.
    pub durable: Option<u64>,
    /// Applied in its replica.
    pub applied: Option<u64>,
    /// Behind this node's written end: received.
    pub lag_received: Option<Lag>,
    /// Behind this node's written end: durable, or shipped.
    pub lag_durable: Option<Lag>,
    /// Behind this node's written end: applied.
    pub lag_applied: Option<Lag>,
    /// Milliseconds since something was heard from it.
    pub last_contact_ms: Option<u64>,
    /// A depot: when the next batch is due, RFC 3339.
    pub next_due: Option<String>,
    /// A depot: when and why its last batch was cut before its schedule said so; `None` once that has cut by itself.
    #[serde(default)]
    pub cut_early: Option<String>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// Nothing of the log is kept for it any more; `None` while it is.
    #[serde(default)]
    pub detached: Option<DetachedStatus>,
}

/// A destination that nothing of the log is kept for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetachedStatus {
    /// What begins here it lacks; `None`: it has not said since this node started.
    pub lacks: Option<u64>,
    /// Since when, RFC 3339.
    pub since: String,
    /// What brings it back.
    pub next_step: String,
}

/// The primary that feeds a receiver.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Its name; `None` before the first greeting.
    pub name: Option<String>,
    /// A connection stands.
    pub connected: bool,
    /// Its durable end, as last announced.
    pub durable: Option<u64>,
    /// Milliseconds since something was heard from it.
    pub last_contact_ms: Option<u64>,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// How the look for rot in a stream's log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// How fast it reads; 0: it is off.
    pub bytes_per_second: u64,
    /// When everything had been looked at last, RFC 3339; `None`: not yet.
    pub last_full: Option<String>,
    /// Where the look at hand stands; `None`: none is under way.
    pub at: Option<u64>,
    /// What is damaged.
    pub damaged: Vec<DamageStatus>,
}

/// A damaged place in a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DamageStatus {
    /// The segment file.
    pub path: PathBuf,
    /// The damaged entries begin here …
    pub from: u64,
    /// … and end here; the same when only the file's own header is damaged.
    pub to: u64,
    /// What is wrong.
    pub what: String,
    /// The log has been pruned up to behind it: nobody needs it any more.
    pub pruned: bool,
}

/// One stream on this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamStatus {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub id: String,
    /// What this node is for it.
    pub role: RoleName,
    /// How it is.
    pub state: State,
    /// The highest term seen.
    pub term: u32,
    /// The run that is open here; `None`: none.
    pub run: Option<u32>,
    /// The strongest mode asked for; `None` on a receiver.
    pub mode_asked: Option<String>,
    /// What an acknowledgement means at this moment; `None`: nothing is acknowledged.
    pub mode_in_force: Option<String>,
    /// Positions.
    pub at: Watermarks,
    /// Who keeps log from being given up; `None`: nobody, or it is given up only on command.
    pub kept_for: Option<KeptFor>,
    /// Peers and depots of a primary.
    pub destinations: Vec<DestinationStatus>,
    /// Where a receiver's entries come from.
    pub source: Option<SourceStatus>,
    /// Receiver: its unproved tail may have been lost in a power cut until its primary has been met.
    pub in_doubt: bool,
    /// What it waits for; empty when for nothing.
    pub waits_for: Vec<String>,
    /// The look for rot in its log; `None` where there is none.
    #[serde(default)]
    pub scrub: Option<ScrubStatus>,
    /// What the operator should know: last recovery, warnings.
    pub notes: Vec<String>,
    /// The command or the act that helps; `None` where nothing is wrong.
    pub next_step: Option<String>,
}

impl NodeStatus {
    /// True when some stream goes on alone, has a detached destination, waits, or is worse: `status --exit-code` is then 5.
    pub fn degraded(&self) -> bool {
        self.streams.iter().any(StreamStatus::degraded)
    }

    /// True when damage was found in some stream's log: `status --exit-code` is then 4.
    pub fn damaged(&self) -> bool {
        self.streams.iter().any(StreamStatus::damaged)
    }
}

impl StreamStatus {
    /// True unless the stream is open with all its required peers and nobody detached, or follows its primary.
    pub fn degraded(&self) -> bool {
        let detached = self.destinations.iter().any(|destination| destination.detached.is_some());
        detached || !matches!(self.state, State::Open | State::Following)
    }

    /// True when damage was found in its log.
    pub fn damaged(&self) -> bool {
        self.scrub.as_ref().is_some_and(|scrub| !scrub.damaged.is_empty())
    }
}
