//! The commit rule: what the peers hold, and what that promises.

use journal::{Lsn, Remote};
use wire::Mode;

/// How far a peer is, on the connection that is up. `checkpoint <= applied <= durable <= received`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Marks {
    /// Verified and written to the peer's segment.
    pub received: Lsn,
    /// Covered by one of the peer's own syncs.
    pub durable: Lsn,
    /// Visible in the peer's replica.
    pub applied: Lsn,
    /// The replica itself is synced up to here.
    pub checkpoint: Lsn,
}

impl Marks {
    /// How far a peer of this mode keeps its promise; [`Lsn::MAX`] for one that promises nothing.
    pub fn promise(&self, mode: Mode) -> Lsn {
        match mode {
            Mode::Async => Lsn::MAX,
            Mode::SemiSync => self.received,
            Mode::Sync => self.durable,
        }
    }
}

/// How many of the required peers a commit waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Need {
    /// Every one.
    #[default]
    All,
    /// Any `k` of them.
    Quorum(usize),
}

impl Need {
    /// The number of peers that a commit waits for, of `required` ones.
    pub fn count(self, required: usize) -> usize {
        match self {
            Need::All => required,
            Need::Quorum(k) => k,
        }
    }
}

/// One peer as the rule sees it. A peer in [`Mode::Async`] promises nothing and is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Standing {
    /// What is asked of it.
    pub mode: Mode,
    /// What it acknowledged on the connection that is up; `None` without one.
    pub marks: Option<Marks>,
    /// The stream goes on without it: it does not hold a commit back.
    pub away: bool,
    /// It was away and isn't caught up yet: until then commits are stamped as alone.
    pub behind: bool,
}

/// What the peers hold and what it promises.
///
/// With k = `need` of the n peers that promise something, `received` and `peer_durable` are what at least k of them hold
/// now, whether the stream goes on alone or not. `promised` is what at least min(k, n - away) of those that are not away
/// keep their promise for. No such peer at all: `received` and `peer_durable` are zero, `promised` is [`Lsn::MAX`].
pub fn commit(peers: &[Standing], need: Need) -> Remote {
    let required: Vec<&Standing> = peers.iter().filter(|peer| peer.mode != Mode::Async).collect();
    let k = need.count(required.len());
    if required.is_empty() || k == 0 {
        return Remote { promised: Lsn::MAX, ..Remote::default() };
    }
    let marks = |peer: &Standing| peer.marks.unwrap_or_default();
    let staying = required.iter().filter(|peer| !peer.away);
    // a quorum of more peers than there are is never met, and no absence makes it smaller
    let counted = if k > required.len() { k } else { k.min(staying.clone().count()) };
    let steady = required.iter().filter(|peer| !peer.away && !peer.behind).count();
    let promised = match counted {
        0 => Lsn::MAX,
        counted => held_by(counted, staying.map(|peer| marks(peer).promise(peer.mode))),
    };
    Remote {
        received: held_by(k, required.iter().map(|peer| marks(peer).received)),
        peer_durable: held_by(k, required.iter().map(|peer| marks(peer).durable)),
        promised,
        alone: k.min(required.len()) > steady,
    }
}

/// How far every required promise is kept, nobody left out: what may be applied elsewhere.
pub(crate) fn kept_by_all(peers: &[Standing], need: Need) -> Lsn {
    let nobody_away: Vec<Standing> = peers.iter().map(|peer| Standing { away: false, ..*peer }).collect();
    commit(&nobody_away, need).promised
}

/// The highest position that at least `k` of these reach.
fn held_by(k: usize, positions: impl Iterator<Item = Lsn>) -> Lsn {
    let mut positions: Vec<Lsn> = positions.collect();
    positions.sort_unstable_by(|a, b| b.cmp(a));
    k.checked_sub(1).and_then(|index| positions.get(index)).copied().unwrap_or(Lsn::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(mode: Mode, received: u64, durable: u64) -> Standing {
        let marks = Marks { received: Lsn::new(received), durable: Lsn::new(durable), ..Marks::default() };
        Standing { mode, marks: Some(marks), away: false, behind: false }
    }

    fn lost(mode: Mode) -> Standing {
        Standing { mode, marks: None, away: false, behind: false }
    }

    fn remote(received: u64, peer_durable: u64, promised: Lsn, alone: bool) -> Remote {
        Remote { received: Lsn::new(received), peer_durable: Lsn::new(peer_durable), promised, alone }
    }

    #[test]
    fn each_row_of_the_rule() {
        let (sync, semi, at) = (Mode::Sync, Mode::SemiSync, Lsn::new);
        let away = |peer: Standing| Standing { away: true, ..peer };
        let behind = |peer: Standing| Standing { behind: true, ..peer };
        let rows: &[(&str, Vec<Standing>, Need, Remote)] = &[
            ("nobody", vec![], Need::All, remote(0, 0, Lsn::MAX, false)),
            ("async holds nothing back", vec![peer(Mode::Async, 9, 9)], Need::All, remote(0, 0, Lsn::MAX, false)),
            ("sync waits for durable", vec![peer(sync, 9, 5)], Need::All, remote(9, 5, at(5), false)),
            ("semi-sync waits for received", vec![peer(semi, 9, 5)], Need::All, remote(9, 5, at(9), false)),
            (
                "async beside sync",
                vec![peer(Mode::Async, 1, 1), peer(sync, 9, 5)],
                Need::All,
                remote(9, 5, at(5), false),
            ),
            ("the slowest counts", vec![peer(semi, 9, 2), peer(sync, 8, 4)], Need::All, remote(8, 2, at(4), false)),
            ("a lost peer holds all back", vec![peer(semi, 9, 9), lost(sync)], Need::All, remote(0, 0, at(0), false)),
            ("alone", vec![away(lost(sync))], Need::All, remote(0, 0, Lsn::MAX, true)),
            (
                "alone without one of two",
                vec![peer(semi, 9, 7), away(lost(sync))],
                Need::All,
                remote(0, 0, at(9), true),
            ),
            (
                "a returning peer's bytes don't lift the promise of the one that stayed",
                vec![peer(sync, 5, 5), away(peer(sync, 8, 8))],
                Need::All,
                remote(5, 5, at(5), true),
            ),
            ("back, still behind", vec![behind(peer(sync, 5, 4))], Need::All, remote(5, 4, at(4), true)),
            ("one of two", vec![peer(semi, 9, 3), peer(semi, 6, 5)], Need::Quorum(1), remote(9, 5, at(9), false)),
            ("one of two, one lost", vec![lost(sync), peer(sync, 6, 5)], Need::Quorum(1), remote(6, 5, at(5), false)),
            (
                "one of two, one away",
                vec![away(lost(sync)), peer(sync, 6, 5)],
                Need::Quorum(1),
                remote(6, 5, at(5), false),
            ),
            (
                "two of three, two away",
                vec![away(lost(sync)), away(lost(sync)), peer(sync, 6, 5)],
                Need::Quorum(2),
                remote(0, 0, at(5), true),
            ),
            ("more asked than there are", vec![peer(sync, 6, 5)], Need::Quorum(2), remote(0, 0, at(0), false)),
        ];
        for (name, peers, need, expected) in rows {
            assert_eq!(commit(peers, *need), *expected, "{name}");
        }
    }
}
