//! Terms, runs and the history of who wrote what.

use std::fmt;
use std::sync::Arc;

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

/// Every epoch of a log in order, oldest first. Guarantees: epochs and first LSNs increase strictly. Clones share it
/// until one of them changes: it may be long, and the facts around it change often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(Arc<Vec<Opening>>);

impl History {
    /// A history of these openings; `None` when they are out of order.
    pub fn from_openings(openings: Vec<Opening>) -> Option<History> {
        let ordered = openings.windows(2).all(|pair| pair[0].epoch < pair[1].epoch && pair[0].first < pair[1].first);
        ordered.then(|| History(Arc::new(openings)))
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
            Arc::make_mut(&mut self.0).push(opening);
        }
        follows
    }

    /// Forgets the epochs that begin at or above `end`: the log was cut there.
    pub fn cut(&mut self, end: Lsn) {
        self.keep_first(self.0.partition_point(|opening| opening.first < end));
    }

    /// The last `count_max` epochs.
    #[must_use]
    pub fn newest(&self, count_max: usize) -> History {
        match self.0.len().checked_sub(count_max) {
            None | Some(0) => self.clone(),
            Some(older) => History(Arc::new(self.0[older..].to_vec())),
        }
    }

    /// Forgets all but the first `count` epochs.
    pub(crate) fn keep_first(&mut self, count: usize) {
        if count < self.0.len() {
            Arc::make_mut(&mut self.0).truncate(count);
        }
    }

    /// How many epochs, from the oldest on, both have.
    pub(crate) fn common(&self, other: &History) -> usize {
        if Arc::ptr_eq(&self.0, &other.0) {
            return self.0.len();
        }
        self.0.iter().zip(other.0.iter()).take_while(|(ours, theirs)| ours == theirs).count()
    }
}
