//! Who still needs the log, and how much of it is kept besides.
//!
//! ```text
//!  pruned | given up | needed by the slowest holder, or kept by the retention | durable
//!         ^ start    ^ the lowest of all of them                              ^ never above
//! ```
//! The budget comes before the retention: at the budget what nobody needs is given up, however young. Holders come before
//! the budget: what one of them needs stays, and an append gets `Budget` with its name. A reader is no holder. While nobody
//! is registered nothing is given up by itself: a node that is only starting has not said yet who needs what.

use std::fmt::{self, Display, Formatter};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::log::Journal;
use crate::lsn::Lsn;
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

/// Keeps the log for somebody until it is dropped.
#[derive(Debug)]
pub struct Holder {
    holders: Arc<Holders>,
    number: u64,
}

impl Holder {
    /// From now on it needs nothing below `needs`. It may go down: what is pruned already stays pruned.
    pub fn set(&self, needs: Lsn) {
        let mut all = self.holders.lock();
        if let Some((_, held)) = all.held.iter_mut().find(|(number, _)| *number == self.number) {
            held.needs = needs;
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.holders.lock().held.retain(|(number, _)| *number != self.number);
    }
}

/// Everybody who needs the log.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    held: Vec<(u64, Held)>,
    next_number: u64,
}

impl Holders {
    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal {
    /// Registers somebody who needs the log from `needs` on: nothing of that is pruned until the holder is moved or
    /// dropped. What is pruned at that moment may be gone: look at [`Journal::start`] afterwards.
    pub fn hold(&self, name: impl Into<String>, needs: Lsn) -> Holder {
        let holders = Arc::clone(&self.shared.holders);
        let mut all = holders.lock();
        let number = all.next_number;
        all.next_number += 1;
        all.held.push((number, Held { name: name.into(), needs }));
        drop(all);
        Holder { holders, number }
    }

    /// Who needs the most of the log; `None`: nobody is registered.
    pub fn held(&self) -> Option<Held> {
        let all = self.shared.holders.lock();
        all.held.iter().map(|(_, held)| held).min_by_key(|held| held.needs).cloned()
    }

    /// Whom the log's beginning is kept for; `None`: for nobody in particular.
    pub fn kept_for(&self) -> Option<Held> {
        let held = self.held().filter(|_| self.shared.options.retain.is_some())?;
        let segment = |lsn| self.geometry().segment_of(lsn);
        let (start, written) = (segment(self.start()), segment(self.board().written()));
        (segment(held.needs) <= start && start < written).then_some(held)
    }

    /// Gives up whole segments that nobody needs and the retention doesn't keep; returns where the journal begins now.
    /// Nothing is given up without [`crate::Options::retain`], or while there is no holder.
    pub fn prune_unneeded(&self) -> Result<Lsn> {
        let Some(Retain { bytes, age }) = self.retain() else { return Ok(self.start()) };
        let by_bytes = Lsn::new(self.board().durable().get().saturating_sub(bytes));
        self.prune(by_bytes.min(self.older_than(age)))
    }

    /// There was no room while the oldest segment was `before`: gives up all that nobody needs. True when that made some.
    pub(crate) fn prune_for_room(&self, before: Lsn) -> Result<bool> {
        if self.retain().is_some() {
            self.prune(Lsn::MAX)?;
        }
        Ok(self.oldest_segment() > before)
    }

    /// Where the oldest segment begins. Asked on the way of appends: it never waits for the control file.
    pub(crate) fn oldest_segment(&self) -> Lsn {
        self.segments().first().map_or(Lsn::ZERO, |segment| segment.first())
    }

    /// What is kept besides; `None`: everything.
    fn retain(&self) -> Option<Retain> {
        self.shared.options.retain.filter(|_| self.held().is_some())
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
