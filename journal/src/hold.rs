//! Who still needs the log, and how much of it is kept besides.
//!
//! ```text
//!  pruned | given up | needed by the slowest holder, or kept by the retention | durable
//!         ^ start    ^ the lowest of all of them                              ^ never above
//! ```
//! The budget comes before the retention: where there is no room, what nobody needs is given up, the oldest segment first,
//! however young. Holders come before the budget: what one of them needs stays, and an append gets `Budget` with its name,
//! unless it gives way: then it is detached, and counts no more. A reader is no holder. While nobody is registered nothing
//! is given up by itself: a node that is only starting has not said yet who needs what.

use std::fmt::{self, Display, Formatter};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::log::Journal;
use crate::lsn::Lsn;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// What is kept although nobody needs it: at least the last `bytes` of the log, and everything younger than `age`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retain {
    /// Bytes behind the durable end.
    pub bytes: u64,
    /// Age of an entry.
    pub age: Duration,
}

/// Somebody who needs the log from a position on, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// For people: "depot night".
    pub name: String,
    /// It needs nothing below.
    pub needs: Lsn,
}

impl Display for Held {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} needs everything from LSN {} on", self.name, self.needs)
    }
}

/// What a holder does when an append has no room (the budget is used up, or the disk is full), its hold keeps the oldest
/// segment, and without it that one could go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GiveWay {
    /// The append gets an error.
    #[default]
    Never,
    /// It is detached as long as somebody else stays who doesn't give way as [`GiveWay::Always`] does: what the last one
    /// of them lacks would be nowhere else.
    UnlessLast,
    /// It is detached.
    Always,
}

/// Keeps the log for somebody until it is dropped, or detached.
#[derive(Debug)]
pub struct Holder {
    holders: Arc<Holders>,
    number: u64,
}

impl Holder {
    /// From now on it needs nothing below `needs`. It may go down: what is pruned already stays pruned.
    pub fn set(&self, needs: Lsn) {
        self.change(|holding| holding.held.needs = needs);
    }

    /// What it does where there is no room. At first it never gives way.
    pub fn set_give_way(&self, give_way: GiveWay) {
        self.change(|holding| holding.give_way = give_way);
    }

    /// As long as what it lacks is on its way to it, it doesn't give way yet.
    pub fn set_awaited(&self, awaited: bool) {
        self.change(|holding| holding.awaited = awaited);
    }

    /// Its hold counts no more, until it is attached again.
    pub fn detach(&self) {
        self.change(|holding| holding.detached = holding.detached.or(Some(Lsn::ZERO)));
    }

    /// Its hold counts again, unless it gave way for something that it still needs. What else was pruned meanwhile is gone:
    /// look at [`Journal::start`] afterwards.
    pub fn attach(&self) {
        self.change(|holding| holding.detached = holding.detached.filter(|gone| holding.held.needs < *gone));
    }

    /// True while its hold doesn't count: it gave way, or was told to.
    pub fn is_detached(&self) -> bool {
        let all = self.holders.lock();
        all.holding.iter().any(|holding| holding.number == self.number && !holding.counts())
    }

    fn change(&self, change: impl FnOnce(&mut Holding)) {
        let mut all = self.holders.lock();
        if let Some(holding) = all.holding.iter_mut().find(|holding| holding.number == self.number) {
            change(holding);
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.holders.lock().holding.retain(|holding| holding.number != self.number);
    }
}

/// Everybody who needs the log.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    all: Mutex<All>,
    /// How often somebody gave way.
    gave_way: AtomicU64,
}

#[derive(Debug, Default)]
struct All {
    holding: Vec<Holding>,
    next_number: u64,
}

#[derive(Debug)]
struct Holding {
    number: u64,
    held: Held,
    give_way: GiveWay,
    awaited: bool,
    /// What it gave way for ends here. `None`: its hold counts.
    detached: Option<Lsn>,
}

impl Holding {
    fn counts(&self) -> bool {
        self.detached.is_none()
    }
}

impl Holders {
    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Detaches those who keep what lies below `end`, if all of them give way: true when there was one.
    fn make_way(&self, end: Lsn) -> bool {
        let mut all = self.lock();
        let goes = |holding: &Holding| holding.counts() && holding.held.needs < end;
        let all_give_way = |holding: &Holding| match holding.give_way {
            _ if holding.awaited => false,
            GiveWay::Never => false,
            GiveWay::Always => true,
            GiveWay::UnlessLast => {
                let stays = |other: &&Holding| other.counts() && !goes(other) && other.give_way != GiveWay::Always;
                all.holding.iter().any(|other| stays(&other))
            }
        };
        if !all.holding.iter().filter(|holding| goes(holding)).all(all_give_way) {
            return false;
        }
        let going = all.holding.iter_mut().filter(|holding| goes(holding));
        let gone = going.map(|holding| holding.detached = Some(end)).count() as u64;
        self.gave_way.fetch_add(gone, Ordering::Release);
        gone > 0
    }
}

impl Journal {
    /// Registers somebody who needs the log from `needs` on: nothing of that is pruned until the holder is moved, detached
    /// or dropped. What is pruned at that moment may be gone: look at [`Journal::start`] afterwards.
    pub fn hold(&self, name: impl Into<String>, needs: Lsn) -> Holder {
        let holders = Arc::clone(&self.shared.holders);
        let mut all = holders.lock();
        let number = all.next_number;
        all.next_number += 1;
        let held = Held { name: name.into(), needs };
        all.holding.push(Holding { number, held, give_way: GiveWay::Never, awaited: false, detached: None });
        drop(all);
        Holder { holders, number }
    }

    /// Who needs the most of the log; `None`: nobody is registered whose hold counts.
    pub fn held(&self) -> Option<Held> {
        let all = self.shared.holders.lock();
        let counting = all.holding.iter().filter(|holding| holding.counts());
        counting.map(|holding| &holding.held).min_by_key(|held| held.needs).cloned()
    }

    /// How often a holder gave way since the journal was opened: for whoever wants to know at once.
    pub fn gave_way(&self) -> u64 {
        self.shared.holders.gave_way.load(Ordering::Acquire)
    }

    /// Whom the log's beginning is kept for; `None`: for nobody in particular.
    pub fn kept_for(&self) -> Option<Held> {
        let held = self.held().filter(|_| self.shared.options.retain.is_some())?;
        let segment = |lsn| self.geometry().segment_of(lsn);
        let (start, written) = (segment(self.start()), segment(self.board().written()));
        (segment(held.needs) <= start && start < written).then_some(held)
    }

    /// How much log the budget holds, beside what else lies in the folder: who lacks more keeps what has to be given up.
    /// `None`: nothing is given up by itself.
    pub fn budget_holds(&self) -> Option<u64> {
        self.retain()?;
        let oldest = self.oldest_segment();
        Some(self.space().log_bytes_max(oldest))
    }

    /// The end of what is given up next, where there is no room and nobody needs it. `None`: nothing can be now, or is by
    /// itself.
    pub fn next_to_go(&self) -> Option<Lsn> {
        self.retain()?;
        self.oldest_to_go()
    }

    /// Gives up whole segments that nobody needs and the retention doesn't keep; returns where the journal begins now.
    /// Nothing is given up without [`crate::Options::retain`], or while there is no holder.
    pub fn prune_unneeded(&self) -> Result<Lsn> {
        let Some(Retain { bytes, age }) = self.retain() else { return Ok(self.start()) };
        let by_bytes = Lsn::new(self.board().durable().get().saturating_sub(bytes));
        self.prune(by_bytes.min(self.older_than(age)))
    }

    /// There was no room while the oldest segment was `before`: gives that one up if nobody needs it, or if those who do
    /// give way. True when that made room.
    ///
    /// One at a time, so that the retention is kept as far as there is room, and who gave way still finds what comes behind.
    pub(crate) fn prune_for_room(&self, before: Lsn, make_way: bool) -> Result<bool> {
        if self.retain().is_some()
            && let Some(end) = self.oldest_to_go()
        {
            self.prune_now(end)?;
            if make_way && self.oldest_segment() <= before && self.shared.holders.make_way(end) {
                self.prune_now(end)?;
            }
        }
        Ok(self.oldest_segment() > before)
    }

    /// The end of the oldest segment, if all of it is durable and another one is behind it: without holders it could go.
    fn oldest_to_go(&self) -> Option<Lsn> {
        let durable = self.board().durable();
        let segments = self.segments();
        segments.first().map(|oldest| oldest.end()).filter(|end| segments.len() > 1 && *end <= durable)
    }

    /// Where the oldest segment begins. Asked on the way of appends: it never waits for the control file.
    pub(crate) fn oldest_segment(&self) -> Lsn {
        self.segments().first().map_or(Lsn::ZERO, |segment| segment.first())
    }

    /// What is kept besides; `None`: everything.
    fn retain(&self) -> Option<Retain> {
        self.shared.options.retain.filter(|_| !self.shared.holders.lock().holding.is_empty())
    }

    /// An append's error at the budget says who is in the way.
    pub(crate) fn naming_holder(&self, error: Error) -> Error {
        let Error::Budget { path, budget_bytes, .. } = error else { return error };
        let segment = |lsn| self.geometry().segment_of(lsn);
        let (durable, written) = (segment(self.board().durable()), segment(self.board().written()));
        let why = match (self.held(), self.retain()) {
            (Some(held), _) if segment(held.needs) <= durable && segment(held.needs) < written => {
                format!("{held}. Appending goes on by itself when it doesn't any more, or with a larger budget")
            }
            (_, Some(_)) => "all that is left of the log is in use. Give this stream a larger one".to_owned(),
            (_, None) => "log is given up only on command here. Give this stream a larger one".to_owned(),
        };
        Error::Budget { path, budget_bytes, why }
    }

    /// Everything below is older than `age`.
    fn older_than(&self, age: Duration) -> Lsn {
        if age.is_zero() {
            return Lsn::MAX;
        }
        let now = self.shared.options.host.clock.now();
        let segments = self.segments();
        let old = segments.iter().rev().find(|segment| now.since(segment.header.tip.time) > age);
        old.map_or(Lsn::ZERO, |segment| segment.header.tip.lsn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAYS: [GiveWay; 3] = [GiveWay::Never, GiveWay::UnlessLast, GiveWay::Always];

    /// Three holders of every kind, needing every one of three segments, one of them awaited or none: who is detached for
    /// the first, or the first two.
    #[test]
    fn who_gives_way_makes_room_and_leaves_somebody_behind() {
        let kind = |digit: usize| (WAYS[digit % 3], (digit / 3 % 3) as u64);
        let (mut made_way, mut stayed) = (0, 0);
        for case in 0..4 * 2 * 9 * 9 * 9 {
            let awaited = case / (2 * 9 * 9 * 9);
            let end = case as u64 % 2 + 1;
            let three = [kind(case / 2), kind(case / 18), kind(case / 162)];
            let holding = |(number, (give_way, needs)): (usize, (GiveWay, u64))| Holding {
                number: number as u64,
                held: Held { name: String::new(), needs: Lsn::new(needs) },
                give_way,
                awaited: number == awaited,
                detached: None,
            };
            let holding = three.into_iter().enumerate().map(holding).collect();
            let holders = Holders { all: Mutex::new(All { holding, next_number: 3 }), gave_way: AtomicU64::new(0) };
            let made = holders.make_way(Lsn::new(end));
            let gone: Vec<usize> = (0..3).filter(|&number| !holders.lock().holding[number].counts()).collect();

            let needy: Vec<usize> = (0..3).filter(|&number| three[number].1 < end).collect();
            let mut others = (0..3).filter(|number| !needy.contains(number));
            let somebody_stays = others.any(|number| three[number].0 != GiveWay::Always);
            let goes = |number: &usize| match three[*number].0 {
                _ if *number == awaited => false,
                GiveWay::UnlessLast => somebody_stays,
                give_way => give_way == GiveWay::Always,
            };
            let wanted = if needy.iter().all(goes) { needy } else { Vec::new() };
            assert_eq!((made, &gone), (!wanted.is_empty(), &wanted), "{three:?} {end} {awaited}");
            if made { made_way += 1 } else { stayed += 1 }
        }
        assert!(made_way > 100 && stayed > 100, "{made_way} {stayed}");
    }
}
