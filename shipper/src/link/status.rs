//! Where the peers of a stream stand, for people.

use journal::{Class, Lsn, NodeId, Remote, Time};
use wire::{Mode, Place};

use super::{LinksOptions, State};
use crate::commit::Marks;
use crate::gate::{Loss, OnLoss};
use crate::peer::PeerState;

/// All peers, at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinksStatus {
    /// The start gate is open.
    pub open: bool,
    /// Names of the peers that the closed gate waits for.
    pub waiting_for: Vec<String>,
    /// Names of the required peers that were met and have no connection now.
    pub lost: Vec<String>,
    /// What a loss means now.
    pub loss: Loss,
    /// What the required peers hold.
    pub remote: Remote,
    /// Met by all required promises, nobody left out.
    pub committed: Lsn,
    /// The lowest position owed to any destination.
    pub floor: Lsn,
    /// Each peer, in the order of the options.
    pub peers: Vec<PeerStatus>,
}

/// One peer, at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its name here.
    pub name: String,
    /// Where it is dialled.
    pub address: String,
    /// The promise asked of it.
    pub mode: Mode,
    /// What to do without it.
    pub on_loss: OnLoss,
    /// Where it stands.
    pub state: PeerState,
    /// What it acknowledged on the connection that is up.
    pub marks: Option<Marks>,
    /// The last place that it acknowledged as durable and whose chain was compared.
    pub remembered: Option<Place>,
    /// The node that answered there.
    pub node: Option<NodeId>,
    /// The name that node gives itself.
    pub node_name: Option<String>,
    /// The names in its certificate.
    pub certificate: Vec<String>,
    /// When something was last heard of it, in this process.
    pub last_contact: Option<Time>,
    /// What went wrong last, even if it goes well now.
    pub trouble: Option<LinkTrouble>,
}

impl PeerStatus {
    /// It for people: its name, and its address unless that is its name.
    pub fn called(&self) -> String {
        super::called(&self.name, &self.address)
    }
}

/// What went wrong with a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTrouble {
    /// When.
    pub at: Time,
    /// Who must act.
    pub class: Class,
    /// What, and what to do.
    pub text: String,
}

pub(super) fn status(options: &LinksOptions, state: &State) -> LinksStatus {
    let name = |&index: &usize| options.targets.get(index).map(|target| target.peer.name.clone());
    let peers = options.targets.iter().zip(&state.peers).zip(&state.met).map(|((target, peer), met)| PeerStatus {
        name: target.peer.name.clone(),
        address: target.address.clone(),
        mode: target.peer.mode,
        on_loss: target.on_loss,
        state: peer.state(),
        marks: peer.marks(),
        remembered: peer.remembered(),
        node: met.node.as_ref().map(|node| node.id),
        node_name: met.node.as_ref().map(|node| node.name.clone()),
        certificate: met.names.clone(),
        last_contact: met.last_contact,
        trouble: met.trouble.clone(),
    });
    LinksStatus {
        open: state.verdict.open,
        waiting_for: state.verdict.waiting_for.iter().filter_map(name).collect(),
        lost: state.verdict.lost.iter().filter_map(name).collect(),
        loss: state.verdict.loss,
        remote: state.verdict.remote,
        committed: state.verdict.committed,
        floor: state.floor(),
        peers: peers.collect(),
    }
}
