//! The policy that a log carries, for a start without options.

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
    let Some(first) = history.openings().iter().find(|opening| opening.epoch.term == term) else { return false };
    let Some(entry) = entry_of(journal, first) else { return false };
    let nobody = Policy::decode(&entry.policy).is_ok_and(|policy| policy.required() == 0);
    let promised = |opening: &Opening| {
        let policy = entry_of(journal, opening).and_then(|entry| Policy::decode(&entry.policy).ok());
        policy.is_some_and(|policy| policy.required() > 0)
    };
    entry.reason == Reason::Promoted && nobody && history.openings().iter().any(promised)
}

/// The peers that the stream's own policy names: whoever starts a primary and says nothing of peers must not get past
/// the start gate by that.
///
/// `me`: this node's name and addresses, when the policy is another primary's, in which it is a member itself.
pub(crate) fn peers_of(policy: &Policy, me: &[String]) -> Vec<PeerOptions> {
    let is_me = |member: &PolicyMember| me.contains(&member.name) || me.contains(&member.address);
    // whoever received from that primary is one of its members: the only one is this node, whatever it is called there
    let only_me = !me.is_empty() && policy.members.len() == 1;
    let others = policy.members.iter().filter(|member| !only_me && !is_me(member));
    let peer = |member: &PolicyMember| PeerOptions {
        name: member.name.clone(),
        address: member.address.clone(),
        tls_name: None,
        mode: member.mode,
        on_loss: OnLoss::Block,
    };
    others.map(peer).collect()
}

fn entry_of(journal: &Journal, opening: &Opening) -> Option<EpochEntry> {
    let mut entries = journal.entries(opening.first).ok()?;
    let entry = entries.next_entry().ok()??;
    if entry.header.kind != Some(Kind::Epoch) {
        return None;
    }
    EpochEntry::decode(entry.payload)
}
