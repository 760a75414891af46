//! Terms, runs and the history of who wrote what.

use std::fmt;

use crate::chain::Chain;
use crate::id::NodeId;
use crate::lsn::Lsn;

/// Generation of primaryship: raised by `promote` and `switchover` alone. Fencing compares terms and nothing else.
/// Zero means "none yet"; the first primary of a stream opens term 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u32);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// (term, run): ordered by term, then by the start of a primary within its term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// The generation of primaryship.
    pub term: Term,
    /// The start within the term, from 1.
    pub run: u32,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.run)
    }
}

/// A term as a node knows it: its number and the random id of the promotion that opened it. Equal numbers with
/// different ids are split brain. Id 0 belongs to term 0, "none yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TermSeen {
    /// The number.
    pub term: Term,
    /// Random id of the promotion that opened it.
    pub id: u64,
}

/// How an epoch began: who opened it and where. What the epoch's first entry says, with the place it stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Opening {
    /// The epoch.
    pub epoch: Epoch,
    /// Random id of the promotion that opened the term; the same for every run of the term.
    pub term_id: u64,
    /// Random id of the start that opened the run.
    pub run_id: u64,
    /// The node that wrote the run: only its syncs are evidence for the durable points in these entries.
    pub node: NodeId,
    /// LSN of the epoch's first entry.
    pub first: Lsn,
    /// Chain before that entry.
    pub chain_in: Chain,
}

impl Opening {
    /// The term with its id.
    pub fn term_seen(&self) -> TermSeen {
        TermSeen { term: self.epoch.term, id: self.term_id }
    }
}

/// Every epoch of a log in order, oldest first. Guarantees: epochs increase strictly, first LSNs do not decrease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(Vec<Opening>);

impl History {
    /// A history of these openings; `None` when they are out of order.
    pub fn from_openings(openings: Vec<Opening>) -> Option<History> {
        let ordered = openings.windows(2).all(|pair| pair[0].epoch < pair[1].epoch && pair[0].first < pair[1].first);
        ordered.then_some(History(openings))
    }

    /// The epochs, oldest first.
    pub fn openings(&self) -> &[Opening] {
        &self.0
    }

    /// The newest epoch.
    pub fn last(&self) -> Option<&Opening> {
        self.0.last()
    }

    /// The newest term that wrote something here.
    pub fn term_seen(&self) -> TermSeen {
        self.last().map(Opening::term_seen).unwrap_or_default()
    }

    /// The epoch that entry `lsn` belongs to.
    pub fn at(&self, lsn: Lsn) -> Option<&Opening> {
        self.0.iter().rev().find(|opening| opening.first <= lsn)
    }

    /// How that epoch began.
    pub(crate) fn of(&self, epoch: Epoch) -> Option<&Opening> {
        self.0.iter().rev().find(|opening| opening.epoch == epoch)
    }

    /// Adds the next epoch; `false` and unchanged when it is not a later one.
    #[must_use]
    pub fn push(&mut self, opening: Opening) -> bool {
        let follows = self.last().is_none_or(|last| last.epoch < opening.epoch && last.first < opening.first);
        if follows {
            self.0.push(opening);
        }
        follows
    }

    /// Forgets the epochs that begin at or above `end`: the log was cut there.
    pub fn cut(&mut self, end: Lsn) {
        self.0.retain(|opening| opening.first < end);
    }
}
