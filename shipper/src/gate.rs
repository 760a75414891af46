//! When a stream may start, and what it does when a required peer is lost.
//!
//! ```text
//!            Ready                  no connection              `after` is over (Alone)
//!  Unmet ------------> Counted ---------------------> Lost ----------------------------> Away
//!                        ^ ^           connected |     ^ no connection                    |  connected, nearly
//!                        | |                     v     | (the same loss goes on)          v  caught up
//!                        | +-- caught up ----- Returning ---- `after` is over ---> Away  Behind
//!                        +--------------------- caught up to all that was committed -------+
//! ```
//! A connection alone ends no loss: a peer that comes back, fails and comes back again without ever catching up is lost
//! since the first time, so that its returns don't put off what `on_loss` says.
//!
//! `Alone` never covers a peer that is `Unmet`: the reboot of a dead node is how two primaries are born. Only an
//! operator's word ([`Gate::waive`]) does.

use std::time::{Duration, Instant};

use journal::{Lsn, Remote};
use wire::Mode;

use crate::commit::{Marks, Need, Standing, commit, kept_by_all};

/// How close to the durable end a returning peer comes before commits wait for it again. Small, so that they don't wait
/// long; above zero, so that a stream under load doesn't run ahead of it for ever.
const RETURN_SLACK_BYTES: u64 = 1 << 20;

/// What the stream does while a required peer is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnLoss {
    /// Commits wait until it is back: maximum protection.
    #[default]
    Block,
    /// Commits wait this long, then they are answered with an error: unknown.
    Fail {
        /// How long.
        after: Duration,
    },
    /// Commits wait this long, then go on without it; each is stamped as alone.
    Alone {
        /// How long.
        after: Duration,
    },
}

/// What the gate must know of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// The promise asked of it. Peers in [`Mode::Async`] are never waited for.
    pub mode: Mode,
    /// What to do without it.
    pub on_loss: OnLoss,
}

/// What a lost peer means for commits right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Loss {
    /// Enough peers are there.
    #[default]
    None,
    /// Commits wait.
    Waiting,
    /// Commits are to be answered with an error.
    Failing,
    /// Commits go on without somebody.
    Alone,
}

/// The gate's answer for this instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The start gate: a run may be opened. Once open it stays open.
    pub open: bool,
    /// Peers (by index) that the closed gate waits for.
    pub waiting_for: Vec<usize>,
    /// What the peers hold: hand it to the board before anything else is done.
    pub remote: Remote,
    /// What to announce as committed: min(durable, kept by all required peers, nobody left out). Never goes down.
    pub committed: Lsn,
    /// What a loss means now.
    pub loss: Loss,
    /// Peers (by index) that are met and required, and don't count: without a connection, or not caught up since.
    pub lost: Vec<usize>,
}

/// The start gate and the rule of `on_loss` over all peers of a stream. Pure: see [`Gate::update`].
#[derive(Clone, Debug)]
pub struct Gate {
    need: Need,
    members: Vec<(Member, Place)>,
    open: bool,
    committed: Lsn,
    updated: Option<Instant>,
}

/// Where a peer stands: see the diagram above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Unmet,
    Counted,
    Lost {
        since: Instant,
    },
    /// Connected again. What it is owed was written until then; commits go on waiting for it.
    Returning {
        since: Instant,
        owed: Lsn,
    },
    Away {
        committed: Lsn,
    },
    Behind {
        committed: Lsn,
    },
}

impl Gate {
    /// A closed gate before a stream with these peers. What they keep from before is not known yet: the journal's own
    /// commit point may have been reached alone.
    pub fn new(need: Need, members: &[Member]) -> Gate {
        Gate {
            need,
            members: members.iter().map(|&member| (member, Place::Unmet)).collect(),
            open: false,
            committed: Lsn::ZERO,
            updated: None,
        }
    }

    /// The gate's answer. Call it after every batch of events, with this node's durable watermark and, for each peer in
    /// order, what [`crate::Peer::marks`] says: `Some` only while a connection counts (greeting, agreement and take-back
    /// done).
    pub fn update(&mut self, now: Instant, durable: Lsn, marks: &[Option<Marks>]) -> Verdict {
        self.updated = Some(now);
        let marks_of = |index: usize| marks.get(index).copied().flatten();
        for (index, (member, place)) in self.members.iter_mut().enumerate() {
            *place = place.step(now, durable, member, marks_of(index));
        }
        let standings: Vec<Standing> = self
            .members
            .iter()
            .enumerate()
            .map(|(index, (member, place))| place.standing(member.mode, marks_of(index)))
            .collect();
        let waiting_for = self.waiting_for();
        self.open |= waiting_for.is_empty();
        if self.open {
            self.committed = self.committed.max(durable.min(kept_by_all(&standings, self.need)));
        }
        // zero while the gate is closed: fewer than k peers were met, so fewer than k hold anything
        let remote = commit(&standings, self.need);
        let lost = self.lost();
        let loss = self.loss(now, &remote);
        Verdict { open: self.open, waiting_for, remote, committed: self.committed, loss, lost }
    }

    /// The operator's word (`promote --accept-loss`): start without the peers that are not there. They count as away:
    /// commits are stamped as alone until they are back.
    pub fn waive(&mut self) {
        for (_, place) in &mut self.members {
            if *place == Place::Unmet || place.lost_since().is_some() {
                *place = Place::Away { committed: self.committed };
            }
        }
        self.open = true;
    }

    /// When [`Gate::update`] must be called again, though nothing else happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = |(member, place): &(Member, Place)| match member.on_loss {
            OnLoss::Fail { after } | OnLoss::Alone { after } => place.lost_since()?.checked_add(after),
            OnLoss::Block => None,
        };
        // what was due at the last update was done there
        self.members.iter().filter_map(due).filter(|due| self.updated.is_none_or(|updated| updated < *due)).min()
    }

    /// The required peers that were not met, while fewer than needed were; else nobody.
    fn waiting_for(&self) -> Vec<usize> {
        let required = || self.members.iter().enumerate().filter(|(_, (member, _))| member.mode != Mode::Async);
        let unmet: Vec<usize> = required().filter(|(_, (_, place))| *place == Place::Unmet).map(|(at, _)| at).collect();
        let met = required().count() - unmet.len();
        if self.open || met >= self.need.count(required().count()) { Vec::new() } else { unmet }
    }

    fn lost(&self) -> Vec<usize> {
        let gone = |place: &Place| place.lost_since().is_some() || matches!(place, Place::Away { .. });
        let lost =
            self.members.iter().enumerate().filter(|(_, (member, place))| member.mode != Mode::Async && gone(place));
        lost.map(|(index, _)| index).collect()
    }

    fn loss(&self, now: Instant, remote: &Remote) -> Loss {
        let required = || self.members.iter().filter(|(member, _)| member.mode != Mode::Async);
        let there = required().filter(|(_, place)| matches!(place, Place::Counted | Place::Behind { .. })).count();
        let staying = required().filter(|(_, place)| !matches!(place, Place::Away { .. })).count();
        if self.open && there < self.need.count(required().count()).min(staying) {
            let failing = |(member, place): &(Member, Place)| match (place.lost_since(), member.on_loss) {
                (Some(since), OnLoss::Fail { after }) => now.saturating_duration_since(since) >= after,
                _ => false,
            };
            return if required().any(failing) { Loss::Failing } else { Loss::Waiting };
        }
        if remote.alone { Loss::Alone } else { Loss::None }
    }
}

impl Member {
    /// The stream goes on without it by now, lost since then.
    fn goes_on(&self, now: Instant, since: Instant) -> bool {
        matches!(self.on_loss, OnLoss::Alone { after } if now.saturating_duration_since(since) >= after)
    }
}

impl Place {
    /// It counted, and doesn't since then; commits wait for it.
    fn lost_since(&self) -> Option<Instant> {
        match self {
            Place::Lost { since } | Place::Returning { since, .. } => Some(*since),
            Place::Unmet | Place::Counted | Place::Away { .. } | Place::Behind { .. } => None,
        }
    }

    fn step(self, now: Instant, durable: Lsn, member: &Member, marks: Option<Marks>) -> Place {
        match (self, marks) {
            // nothing was committed without it so far: it counts at once
            (Place::Unmet | Place::Counted, Some(_)) => Place::Counted,
            (Place::Unmet, None) => Place::Unmet,
            (Place::Counted, None) => Place::Lost { since: now }.step(now, durable, member, None),
            (Place::Lost { since } | Place::Returning { since, .. }, None) => match member.goes_on(now, since) {
                true => Place::Away { committed: durable },
                false => Place::Lost { since },
            },
            (Place::Lost { since }, Some(_)) => {
                Place::Returning { since, owed: durable }.step(now, durable, member, marks)
            }
            (Place::Returning { owed, .. }, Some(marks)) if marks.promise(member.mode) >= owed => Place::Counted,
            (Place::Returning { since, .. }, Some(_)) => match member.goes_on(now, since) {
                true => Place::Away { committed: durable }.step(now, durable, member, marks),
                false => self,
            },
            // whatever is durable may have been committed alone
            (Place::Away { committed }, None) => Place::Away { committed: committed.max(durable) },
            (Place::Away { committed }, Some(marks)) => {
                let committed = committed.max(durable);
                match durable.bytes_since(marks.promise(member.mode)) <= RETURN_SLACK_BYTES {
                    true => Place::Behind { committed }.step(now, durable, member, Some(marks)),
                    false => Place::Away { committed },
                }
            }
            (Place::Behind { committed }, None) => Place::Away { committed: committed.max(durable) },
            (Place::Behind { committed }, Some(marks)) if marks.promise(member.mode) >= committed => Place::Counted,
            (Place::Behind { .. }, Some(_)) => self,
        }
    }

    fn standing(self, mode: Mode, marks: Option<Marks>) -> Standing {
        Standing { mode, marks, away: matches!(self, Place::Away { .. }), behind: matches!(self, Place::Behind { .. }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(5);

    fn at(lsn: u64) -> Option<Marks> {
        let lsn = Lsn::new(lsn);
        Some(Marks { received: lsn, durable: lsn, ..Marks::default() })
    }

    fn gate(need: Need, modes: &[Mode], on_loss: OnLoss) -> (Gate, Instant) {
        let members: Vec<Member> = modes.iter().map(|&mode| Member { mode, on_loss }).collect();
        (Gate::new(need, &members), Instant::now())
    }

    #[test]
    fn stays_closed_until_every_required_peer_was_met_however_long_it_takes() {
        let alone = OnLoss::Alone { after: AFTER };
        let (mut gate, now) = gate(Need::All, &[Mode::Sync, Mode::SemiSync, Mode::Async], alone);
        let verdict = gate.update(now, Lsn::new(9), &[None, None, None]);
        assert_eq!((verdict.open, verdict.waiting_for, verdict.remote.promised), (false, vec![0, 1], Lsn::ZERO));
        // one of them is met and lost again: no length of absence makes up for the other
        gate.update(now, Lsn::new(9), &[at(9), None, None]);
        let verdict = gate.update(now + AFTER * 100, Lsn::new(9), &[None, None, None]);
        assert_eq!((verdict.open, verdict.waiting_for, verdict.remote.promised), (false, vec![1], Lsn::ZERO));
        assert!(gate.update(now, Lsn::new(9), &[at(9), at(9), None]).open);
        // once open it stays open
        assert!(gate.update(now, Lsn::new(9), &[None, None, None]).open);
    }

    #[test]
    fn peers_that_promise_nothing_are_not_waited_for() {
        let (mut gate, now) = gate(Need::All, &[Mode::Async], OnLoss::Block);
        let verdict = gate.update(now, Lsn::new(9), &[None]);
        assert_eq!((verdict.open, verdict.remote.promised, verdict.committed), (true, Lsn::MAX, Lsn::new(9)));
    }

    #[test]
    fn a_quorum_opens_with_any_k() {
        let (mut gate, now) = gate(Need::Quorum(1), &[Mode::Sync, Mode::Sync], OnLoss::Block);
        assert!(!gate.update(now, Lsn::ZERO, &[None, None]).open);
        let verdict = gate.update(now, Lsn::new(9), &[None, at(7)]);
        assert_eq!((verdict.open, verdict.remote.promised, verdict.loss), (true, Lsn::new(7), Loss::None));
    }

    #[test]
    fn alone_begins_after_its_time_and_ends_when_the_peer_has_caught_up() {
        let (mut gate, now) = gate(Need::All, &[Mode::Sync], OnLoss::Alone { after: AFTER });
        gate.update(now, Lsn::new(5), &[at(5)]);
        let verdict = gate.update(now, Lsn::new(9), &[None]);
        assert_eq!((verdict.remote.promised, verdict.remote.alone, verdict.loss), (Lsn::ZERO, false, Loss::Waiting));
        assert_eq!(gate.poll_timeout(), Some(now + AFTER));

        let verdict = gate.update(now + AFTER, Lsn::new(9), &[None]);
        assert_eq!((verdict.remote.promised, verdict.remote.alone, verdict.loss), (Lsn::MAX, true, Loss::Alone));
        assert_eq!(verdict.committed, Lsn::new(5), "what was committed alone is not announced");

        // back, but far behind: commits go on alone
        let far = 9 + 2 * RETURN_SLACK_BYTES;
        let verdict = gate.update(now + AFTER, Lsn::new(far), &[at(5)]);
        assert_eq!((verdict.remote.promised, verdict.remote.alone), (Lsn::MAX, true));
        // near: commits wait for it again, and are stamped until it has what was committed without it
        let verdict = gate.update(now + AFTER, Lsn::new(far), &[at(far - 8)]);
        assert_eq!((verdict.remote.promised, verdict.remote.alone), (Lsn::new(far - 8), true));
        let verdict = gate.update(now + AFTER, Lsn::new(far + 8), &[at(far)]);
        assert_eq!((verdict.remote.promised, verdict.remote.alone, verdict.loss), (Lsn::new(far), false, Loss::None));
    }

    #[test]
    fn a_peer_that_is_lost_while_it_catches_up_is_away_at_once() {
        let (mut gate, now) = gate(Need::All, &[Mode::Sync], OnLoss::Alone { after: AFTER });
        gate.update(now, Lsn::new(5), &[at(5)]);
        gate.update(now, Lsn::new(9), &[None]);
        gate.update(now + AFTER, Lsn::new(9), &[None]);
        gate.update(now + AFTER, Lsn::new(9), &[at(6)]);
        assert_eq!(gate.update(now + AFTER, Lsn::new(9), &[None]).loss, Loss::Alone);
    }

    /// A receiver on a nearly full disk found room for a little, was counted, and was full again: each such return put off
    /// that the stream went on alone.
    #[test]
    fn a_return_that_does_not_catch_up_puts_nothing_off() {
        let (mut gate, now) = gate(Need::All, &[Mode::Sync], OnLoss::Alone { after: AFTER });
        gate.update(now, Lsn::new(5), &[at(5)]);
        gate.update(now, Lsn::new(9), &[None]);
        let later = now + AFTER - Duration::from_secs(1);
        let verdict = gate.update(later, Lsn::new(9), &[at(8)]);
        assert_eq!((verdict.loss, verdict.lost, verdict.remote.promised), (Loss::Waiting, vec![0], Lsn::new(8)));
        assert_eq!(gate.poll_timeout(), Some(now + AFTER));
        assert_eq!(gate.update(later, Lsn::new(12), &[None]).loss, Loss::Waiting);
        assert_eq!(gate.poll_timeout(), Some(now + AFTER));
        assert_eq!(gate.update(now + AFTER, Lsn::new(12), &[None]).loss, Loss::Alone);
    }

    #[test]
    fn a_return_counts_with_all_that_was_durable_when_it_came() {
        let (mut gate, now) = gate(Need::All, &[Mode::Sync], OnLoss::Alone { after: AFTER });
        gate.update(now, Lsn::new(5), &[at(5)]);
        gate.update(now, Lsn::new(9), &[None]);
        assert_eq!(gate.update(now, Lsn::new(9), &[at(5)]).loss, Loss::Waiting);
        // what is written meanwhile doesn't keep it from counting
        let verdict = gate.update(now, Lsn::new(20), &[at(9)]);
        assert_eq!((verdict.loss, verdict.lost, verdict.remote.promised), (Loss::None, vec![], Lsn::new(9)));
        // a loss behind that is a new one
        gate.update(now + AFTER, Lsn::new(20), &[None]);
        assert_eq!(gate.poll_timeout(), Some(now + AFTER + AFTER));
    }

    #[test]
    fn a_return_that_takes_too_long_is_gone_on_without() {
        let far = Lsn::new(9 + 2 * RETURN_SLACK_BYTES);
        let (mut gate, now) = gate(Need::All, &[Mode::Sync], OnLoss::Alone { after: AFTER });
        gate.update(now, Lsn::new(5), &[at(5)]);
        gate.update(now, far, &[None]);
        gate.update(now, far, &[at(5)]);
        let verdict = gate.update(now + AFTER, far, &[at(6)]);
        assert_eq!((verdict.loss, verdict.remote.promised), (Loss::Alone, Lsn::MAX));
        assert_eq!(gate.update(now + AFTER, far, &[at(far.get())]).loss, Loss::None);
    }

    #[test]
    fn waits_are_failed_until_a_return_has_caught_up() {
        let (mut gate, now) = gate(Need::All, &[Mode::Sync], OnLoss::Fail { after: AFTER });
        gate.update(now, Lsn::new(5), &[at(5)]);
        gate.update(now, Lsn::new(9), &[None]);
        assert_eq!(gate.update(now + AFTER, Lsn::new(9), &[at(8)]).loss, Loss::Failing);
        assert_eq!(gate.update(now + AFTER, Lsn::new(9), &[at(9)]).loss, Loss::None);
    }

    #[test]
    fn fail_answers_after_its_time_and_asks_for_nothing_more() {
        let (mut gate, now) = gate(Need::All, &[Mode::Sync], OnLoss::Fail { after: AFTER });
        gate.update(now, Lsn::new(5), &[at(5)]);
        assert_eq!(gate.update(now, Lsn::new(9), &[None]).loss, Loss::Waiting);
        let verdict = gate.update(now + AFTER, Lsn::new(9), &[None]);
        assert_eq!((verdict.loss, verdict.remote.promised), (Loss::Failing, Lsn::ZERO));
        assert_eq!(gate.poll_timeout(), None, "a driver that follows it would never sleep");
        assert_eq!(gate.update(now + AFTER, Lsn::new(9), &[at(9)]).loss, Loss::None);
    }

    #[test]
    fn block_waits_for_ever() {
        let (mut gate, now) = gate(Need::All, &[Mode::SemiSync], OnLoss::Block);
        gate.update(now, Lsn::new(5), &[at(5)]);
        let verdict = gate.update(now + AFTER * 1000, Lsn::new(9), &[None]);
        assert_eq!((verdict.loss, verdict.remote.promised, gate.poll_timeout()), (Loss::Waiting, Lsn::ZERO, None));
    }

    #[test]
    fn the_operators_word_opens_it_and_every_commit_is_stamped() {
        let (mut gate, now) = gate(Need::All, &[Mode::Sync], OnLoss::Block);
        gate.waive();
        let verdict = gate.update(now, Lsn::new(9), &[None]);
        assert_eq!((verdict.open, verdict.remote.promised, verdict.remote.alone), (true, Lsn::MAX, true));
        assert!(!gate.update(now, Lsn::new(9), &[at(9)]).remote.alone);
    }
}
