//! How a stream is put together, by a node or by a program that embeds it.

use std::path::PathBuf;
use std::time::Duration;

use journal::Journal;
use shipper::{Need, OnLoss, Policy, PolicyMember};
use wire::{Mode, NodeInfo};

use super::{Stream, primary};
use crate::error::Result;
use crate::options::{AtBudget, DEAD_AFTER, DepotAt, DepotOptions, PeerOptions, Security};
use crate::receiving::boot_id;

/// Collects what a stream is made of; [`StreamBuilder::start`] makes it.
#[derive(Debug)]
pub struct StreamBuilder {
    pub(super) journal: Journal,
    pub(super) name: String,
    pub(super) node: NodeInfo,
    pub(super) peers: Vec<PeerOptions>,
    pub(super) need: Need,
    pub(super) depots: Vec<DepotOptions>,
    pub(super) security: Security,
    pub(super) dead_after: Duration,
    pub(super) spool: PathBuf,
    pub(super) promotion: Option<Promotion>,
}

/// The stream was just promoted: its term is raised, its first entry written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promotion {
    /// It takes nothing before its required peers were met.
    pub(super) wait_for_peer: bool,
}

impl StreamBuilder {
    pub(super) fn new(journal: Journal) -> StreamBuilder {
        // a name is for people: the folder's is the one they know
        let name = journal.dir().file_name().map(|name| name.to_string_lossy().into_owned());
        StreamBuilder {
            name: name.unwrap_or_else(|| journal.stream().to_string()),
            node: NodeInfo {
                id: journal.node(),
                name: journal.node().to_string(),
                start_id: journal::Host::default().ids.random(),
                boot_id: boot_id(),
            },
            peers: Vec::new(),
            need: Need::All,
            depots: Vec::new(),
            security: Security::default(),
            dead_after: DEAD_AFTER,
            // beside the journal, whose folder is its own
            spool: journal.dir().with_extension("spool"),
            promotion: None,
            journal,
        }
    }

    /// Names the stream, for people and for a receiver that meets it for the first time. Unnamed, it is called like its
    /// folder.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> StreamBuilder {
        self.name = name.into();
        self
    }

    /// Names this node, for people.
    #[must_use]
    pub fn node_name(mut self, name: impl Into<String>) -> StreamBuilder {
        self.node.name = name.into();
        self
    }

    /// Adds a peer that keeps the log.
    #[must_use]
    pub fn peer(mut self, peer: PeerOptions) -> StreamBuilder {
        self.peers.push(peer);
        self
    }

    /// How many of the required peers a commit waits for; all unless said otherwise.
    #[must_use]
    pub fn need(mut self, need: Need) -> StreamBuilder {
        self.need = need;
        self
    }

    /// Adds a place for batches.
    #[must_use]
    pub fn depot(mut self, depot: DepotOptions) -> StreamBuilder {
        self.depots.push(depot);
        self
    }

    /// How links are protected; unencrypted and on loopback only unless said otherwise.
    #[must_use]
    pub fn security(mut self, security: Security) -> StreamBuilder {
        self.security = security;
        self
    }

    /// A peer from which nothing is heard for so long is dead.
    #[must_use]
    pub fn dead_after(mut self, dead_after: Duration) -> StreamBuilder {
        self.dead_after = dead_after;
        self
    }

    /// A folder for batches on their way to a depot.
    pub(crate) fn spool(mut self, spool: PathBuf) -> StreamBuilder {
        self.spool = spool;
        self
    }

    /// A commit waits for a peer.
    pub(crate) fn has_required(&self) -> bool {
        self.policy().required() > 0
    }

    /// This node, in this process.
    pub(crate) fn node(mut self, node: NodeInfo) -> StreamBuilder {
        self.node = node;
        self
    }

    /// The stream is being promoted: unless it waits for its peers, it goes on without them, and says so.
    pub(crate) fn promoted(mut self, wait_for_peer: bool) -> StreamBuilder {
        self.promotion = Some(Promotion { wait_for_peer });
        self
    }

    /// What the first entry of its run says.
    pub(crate) fn policy(&self) -> Policy {
        let member = |peer: &PeerOptions| PolicyMember {
            name: peer.name.clone(),
            address: peer.address.clone(),
            mode: peer.mode,
        };
        Policy {
            members: self.peers.iter().map(member).collect(),
            need: self.need,
            depots: self.depots.iter().map(|depot| depot.name.clone()).collect(),
        }
    }

    /// Starts the stream: it dials its peers, and takes appends once the start gate is open
    /// ([`Stream::wait_ready`]). Returns at once.
    ///
    /// Errors: `Fenced` when a higher term exists, `Refused` when this journal is a receiver's, `Config` for a policy
    /// that can't be met, or a peer that commits wait for and that is to be detached.
    pub fn start(self) -> Result<Stream> {
        primary::start(self)
    }
}

impl PeerOptions {
    /// A peer at HOST:PORT in [`Mode::Sync`] that commits wait for as long as it takes.
    pub fn at(address: impl Into<String>) -> PeerOptions {
        let address = address.into();
        let (mode, on_loss) = (Mode::Sync, OnLoss::Block);
        PeerOptions { name: address.clone(), address, tls_name: None, mode, on_loss, at_budget: None }
    }

    /// The same under a name, for people.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> PeerOptions {
        self.name = name.into();
        self
    }

    /// A write is committed when it is durable here and at the peer.
    #[must_use]
    pub fn sync(mut self) -> PeerOptions {
        self.mode = Mode::Sync;
        self
    }

    /// A write is committed when it is durable here and received by the peer.
    #[must_use]
    pub fn semi_sync(mut self) -> PeerOptions {
        self.mode = Mode::SemiSync;
        self
    }

    /// A write is committed when it is durable here.
    #[must_use]
    pub fn asynchronous(mut self) -> PeerOptions {
        self.mode = Mode::Async;
        self
    }

    /// What happens while it is lost.
    #[must_use]
    pub fn on_loss(mut self, on_loss: OnLoss) -> PeerOptions {
        self.on_loss = on_loss;
        self
    }

    /// What happens at the budget when it lacks what would be given up; for a peer that commits wait for, `on_loss` says it.
    #[must_use]
    pub fn at_budget(mut self, at_budget: AtBudget) -> PeerOptions {
        self.at_budget = Some(at_budget);
        self
    }

    /// The name that its certificate must carry, when that isn't the host that is dialled.
    #[must_use]
    pub fn tls_name(mut self, name: impl Into<String>) -> PeerOptions {
        self.tls_name = Some(name.into());
        self
    }
}

impl DepotOptions {
    /// A folder on this machine that takes a batch every 15 minutes.
    pub fn folder(path: impl Into<PathBuf>) -> DepotOptions {
        let path = path.into();
        let (name, schedule) = (path.display().to_string(), "every 15m".into());
        DepotOptions { name, at: DepotAt::Folder(path), schedule, at_budget: None }
    }

    /// What happens at the budget when it lacks what would be given up.
    #[must_use]
    pub fn at_budget(mut self, at_budget: AtBudget) -> DepotOptions {
        self.at_budget = Some(at_budget);
        self
    }

    /// When a batch is cut, as text: `every 15m`, a cron line with a zone, or a size.
    #[must_use]
    pub fn schedule(mut self, schedule: impl Into<String>) -> DepotOptions {
        self.schedule = schedule.into();
        self
    }
}
