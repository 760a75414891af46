//! The policy that a log carries, for a start without options.

use std::net::{ToSocketAddrs, UdpSocket};

use journal::{EpochEntry, Journal, Kind, Opening, Reason};
use shipper::{OnLoss, Policy, PolicyMember};

use crate::options::PeerOptions;

/// The policy in the newest epoch's first entry; `None` when there is none to be read.
pub(crate) fn newest_policy(journal: &Journal) -> Option<Policy> {
    let history = journal.history();
    Policy::decode(&entry_of(journal, history.last()?)?.policy).ok()
}

/// True when the newest term was opened by a promotion and its policy asks nobody for anything: the promise that the
/// term before it made is not kept any more.
pub(super) fn went_alone(journal: &Journal) -> bool {
    let history = journal.history();
    let term = history.term_seen().term;
    let (older, own) = history.openings().split_at(history.openings().partition_point(|run| run.epoch.term < term));
    let Some(first) = own.first() else { return false };
    let Some(entry) = entry_of(journal, first) else { return false };
    let nobody = Policy::decode(&entry.policy).is_ok_and(|policy| policy.required() == 0);
    let promised = |opening: &Opening| {
        let policy = entry_of(journal, opening).and_then(|entry| Policy::decode(&entry.policy).ok());
        policy.is_some_and(|policy| policy.required() > 0)
    };
    // each look reads an entry, and there may be thousands: the last runs before it are the likeliest
    entry.reason == Reason::Promoted && nobody && older.iter().rev().chain(own).any(promised)
}

/// The peers that the stream's own policy names: whoever starts a primary and says nothing of peers must not get past
/// the start gate by that.
///
/// `me`: who this node is, when the policy is another primary's, in which it is a member itself.
pub(crate) fn peers_of(policy: &Policy, me: Option<&Me>) -> Vec<PeerOptions> {
    // whoever received from that primary is one of its members: the only one is this node, whatever it is called there
    let is_me = |member: &PolicyMember| me.is_some_and(|me| policy.members.len() == 1 || me.is(member));
    let others = policy.members.iter().filter(|member| !is_me(member));
    let peer = |member: &PolicyMember| PeerOptions {
        name: member.name.clone(),
        address: member.address.clone(),
        tls_name: None,
        mode: member.mode,
        on_loss: OnLoss::Block,
        at_budget: None,
    };
    others.map(peer).collect()
}

/// How a node may be called in a policy that another node wrote.
#[derive(Clone, Debug, Default)]
pub(crate) struct Me {
    /// Its name, and the addresses that it was told to listen at.
    pub(crate) names: Vec<String>,
    /// The port that it really listens at.
    pub(crate) port: Option<u16>,
}

impl Me {
    fn is(&self, member: &PolicyMember) -> bool {
        self.names.contains(&member.name) || self.names.contains(&member.address) || self.listens_at(&member.address)
    }

    /// True for an address of this machine with the port that this node listens at.
    fn listens_at(&self, address: &str) -> bool {
        let Some(port) = self.port else { return false };
        let mut found = address.to_socket_addrs().into_iter().flatten();
        // only an address of this machine can be bound, and port 0 takes nothing away from anybody
        found.any(|at| at.port() == port && UdpSocket::bind((at.ip(), 0)).is_ok())
    }
}

fn entry_of(journal: &Journal, opening: &Opening) -> Option<EpochEntry> {
    let mut entries = journal.entries(opening.first).ok()?;
    let entry = entries.next_entry().ok()??;
    if entry.header.kind != Some(Kind::Epoch) {
        return None;
    }
    EpochEntry::decode(entry.payload)
}

#[cfg(test)]
mod tests {
    use wire::Mode;

    use super::*;

    fn policy(addresses: &[&str]) -> Policy {
        let member = |address: &&str| PolicyMember {
            name: format!("at {address}"),
            address: (*address).into(),
            mode: Mode::Sync,
        };
        Policy { members: addresses.iter().map(member).collect(), ..Policy::default() }
    }

    fn others(policy: &Policy, me: Option<&Me>) -> Vec<String> {
        peers_of(policy, me).into_iter().map(|peer| peer.address).collect()
    }

    #[test]
    fn a_member_is_this_node_by_name_by_address_or_as_the_only_one() {
        let two = policy(&["127.0.0.1:7400", "192.0.2.7:7400"]);
        let both = ["127.0.0.1:7400", "192.0.2.7:7400"];
        assert_eq!(others(&two, None), both, "the own policy names others only");
        assert_eq!(others(&two, Some(&Me::default())), both, "nothing says which one it is");
        let me = Me { names: vec!["b".into(), "at 192.0.2.7:7400".into()], port: None };
        assert_eq!(others(&two, Some(&me)), both[..1], "by its name");
        let me = Me { names: vec!["192.0.2.7:7400".into()], port: None };
        assert_eq!(others(&two, Some(&me)), both[..1], "by its address");
        // an address of the documentation's own network is no machine's
        let me = Me { names: vec!["0.0.0.0:7400".into()], port: Some(7400) };
        assert_eq!(others(&two, Some(&me)), both[1..], "it listens everywhere: by machine and port");
        let me = Me { names: Vec::new(), port: Some(7401) };
        assert_eq!(others(&two, Some(&me)), both, "another node on the same machine");
        assert_eq!(others(&policy(&["192.0.2.7:7400"]), Some(&Me::default())), [""; 0]);
    }
}
