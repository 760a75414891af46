//! What a node is told from outside. Nothing here reads a file or the environment.

use std::path::PathBuf;
use std::time::Duration;

use journal::Retain;
use journal::scrub::ScrubPolicy;
use shipper::{Need, OnLoss};
use wire::{Mode, Tls};

use crate::error::Result;

/// How long a node may drain when it is told to stop.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer from which nothing is heard for so long is dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(5);

/// One node.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its data folder; made if it isn't there.
    pub data: PathBuf,
    /// Its name; `None`: the one it has, or the host's for a new folder.
    pub name: Option<String>,
    /// HOST:PORT to take connections at; port 0 takes a free one. `None`: it takes none.
    pub listen: Option<String>,
    /// How its links are protected.
    pub security: Security,
    /// See [`DEAD_AFTER`].
    pub dead_after: Duration,
    /// See [`STOP_TIMEOUT`].
    pub stop_timeout: Duration,
    /// How rot is looked for in the logs of streams that say nothing themselves.
    pub scrub: ScrubPolicy,
    /// What it knows of streams. Streams in the data folder that are not named here run all the same, as what they are,
    /// without destinations; a listening node takes streams that no one named.
    pub streams: Vec<StreamOptions>,
}

impl Options {
    /// A node in this folder that does nothing yet.
    pub fn new(data: impl Into<PathBuf>) -> Options {
        Options {
            data: data.into(),
            name: None,
            listen: None,
            security: Security::default(),
            dead_after: DEAD_AFTER,
            stop_timeout: STOP_TIMEOUT,
            scrub: ScrubPolicy::default(),
            streams: Vec::new(),
        }
    }
}

/// How links to other nodes are protected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// TLS 1.3, both sides with certificates of this folder (`ca.pem`, `cert.pem`, `key.pem`).
    Tls(PathBuf),
    /// Unencrypted, said explicitly.
    Plaintext,
    /// Nothing was said: unencrypted on loopback, refused elsewhere.
    #[default]
    Loopback,
}

impl Security {
    /// Reads the certificates.
    pub(crate) fn load(&self) -> Result<wire::Security> {
        Ok(match self {
            Security::Tls(dir) => wire::Security::Tls(Tls::from_dir(dir)?),
            Security::Plaintext => wire::Security::Plaintext { anywhere: true },
            Security::Loopback => wire::Security::Plaintext { anywhere: false },
        })
    }

    /// Refuses an address that may not be spoken to without TLS, before anything is begun. A name is looked up only
    /// when it is dialled; then the link refuses.
    pub(crate) fn allows(security: &wire::Security, address: &str) -> Result<()> {
        match address.parse() {
            Ok(address) => Ok(security.check(address)?),
            Err(_) => Ok(()),
        }
    }
}

impl StreamOptions {
    /// Whether every destination may be spoken to like this.
    pub(crate) fn allowed(&self, security: &wire::Security) -> Result<()> {
        let peers = self.peers.iter().map(|peer| &peer.address);
        let depots = self.depots.iter().filter_map(|depot| match &depot.at {
            DepotAt::Node { address, .. } => Some(address),
            DepotAt::Folder(_) => None,
        });
        peers.chain(depots).try_for_each(|address| Security::allows(security, address))
    }
}

/// One stream on a node.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// Its name.
    pub name: String,
    /// What the node is at the very first start. Later the control file decides.
    pub first: FirstRole,
    /// The other members, as they are when this node is the primary.
    pub peers: Vec<PeerOptions>,
    /// How many required peers a commit waits for.
    pub need: Need,
    /// Where its batches go while this node is the primary.
    pub depots: Vec<DepotOptions>,
    /// Most bytes of log on disk; `None`: no bound.
    pub budget_bytes: Option<u64>,
    /// At least so many bytes of log are kept though nobody needs them; `None`: half of the budget, if `keep_for` says
    /// nothing either.
    pub keep_bytes: Option<u64>,
    /// Log that is younger is kept though nobody needs it, as far as the budget goes.
    pub keep_for: Option<Duration>,
    /// Body of one segment when the stream is created; `None`: the default.
    pub segment_bytes: Option<u32>,
    /// Largest record; `None`: the default.
    pub record_bytes_max: Option<usize>,
    /// How rot is looked for in its log; `None`: as the node does.
    pub scrub: Option<ScrubPolicy>,
}

impl StreamOptions {
    /// A stream of this name with nothing decided.
    pub fn new(name: impl Into<String>, first: FirstRole) -> StreamOptions {
        StreamOptions {
            name: name.into(),
            first,
            peers: Vec::new(),
            need: Need::All,
            depots: Vec::new(),
            budget_bytes: None,
            keep_bytes: None,
            keep_for: None,
            segment_bytes: None,
            record_bytes_max: None,
            scrub: None,
        }
    }

    /// What is kept of the log though nobody needs it. `None`: everything, nothing was said.
    pub(crate) fn retain(&self) -> Option<Retain> {
        match (self.keep_bytes, self.keep_for, self.budget_bytes) {
            (None, None, None) => None,
            // the other half is for what arrives while somebody lags
            (None, None, Some(budget)) => Some(Retain { bytes: budget / 2, age: Duration::ZERO }),
            (bytes, age, _) => Some(Retain { bytes: bytes.unwrap_or(0), age: age.unwrap_or_default() }),
        }
    }
}

/// What a node is at the very first start of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstRole {
    /// It makes the stream.
    Primary,
    /// It waits for the greeting of a primary.
    Receiver,
}

/// A peer of a primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerOptions {
    /// Its name, for people.
    pub name: String,
    /// HOST:PORT.
    pub address: String,
    /// The name in its certificate; `None`: the host that is dialled.
    pub tls_name: Option<String>,
    /// The promise asked of it.
    pub mode: Mode,
    /// What to do without it.
    pub on_loss: OnLoss,
    /// See [`AtBudget`].
    pub at_budget: Option<AtBudget>,
}

/// What happens where an append has no room (the budget is used up, or the disk is full) because a destination that no
/// commit waits for lacks what would be given up. For one that commits wait for, `on_loss` decides. A depot that can be
/// reached gets a batch before its schedule says so, and time to take it, before any of this happens.
///
/// When nothing is said, it is detached as long as another destination stays that is not to be detached at any price: so
/// the last one blocks, for what it lacks would be nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtBudget {
    /// Appends get an error until it has what it lacks.
    Block,
    /// Nothing is kept for it any more, until it is back and lacks nothing that is gone; also where what it lacks is then
    /// nowhere else.
    Detach,
}

/// A place for batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepotOptions {
    /// Its name, for people.
    pub name: String,
    /// Where it is.
    pub at: DepotAt,
    /// When a batch is cut, as text: `every 15m`, a cron line with a zone, or a size. One is cut earlier when the depot
    /// lacks half of the log that the budget holds.
    pub schedule: String,
    /// See [`AtBudget`].
    pub at_budget: Option<AtBudget>,
}

/// Where a depot is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DepotAt {
    /// A folder on this machine.
    Folder(PathBuf),
    /// A node that keeps batches.
    Node {
        /// HOST:PORT.
        address: String,
        /// As in [`PeerOptions`].
        tls_name: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_without_need_is_half_of_the_budget_unless_somebody_says() {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let rows = [
            (None, None, None, None),
            (Some(100), None, None, Some((50, Duration::ZERO))),
            (Some(100), Some(30), None, Some((30, Duration::ZERO))),
            (Some(100), None, Some(DAY), Some((0, DAY))),
            (None, Some(30), Some(DAY), Some((30, DAY))),
        ];
        for (budget_bytes, keep_bytes, keep_for, wanted) in rows {
            let new = StreamOptions::new("log", FirstRole::Primary);
            let retain = StreamOptions { budget_bytes, keep_bytes, keep_for, ..new }.retain();
            assert_eq!(retain, wanted.map(|(bytes, age)| Retain { bytes, age }));
        }
    }
}
