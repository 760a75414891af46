//! What to ship next: pure.

use journal::{Chain, History, Lsn, Term, TermSeen};
use wire::DepotState;

/// What a decision looks at, on this side.
#[derive(Clone, Debug)]
pub struct LogView<'a> {
    /// The lowest position that is still kept.
    pub start: Lsn,
    /// Where the log ends.
    pub end: Lsn,
    /// min(durable, committed).
    pub safe: Lsn,
    /// Every epoch in the log.
    pub history: &'a History,
    /// The highest term seen.
    pub term: TermSeen,
}

/// Where the next batch begins, and what must be true there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Where.
    pub from: Lsn,
    /// The chain that this log must have there; `None` at the beginning of the log.
    pub chain: Option<Chain>,
    /// A bound for the end: min(durable, committed), or `from` when everything that may be shipped is there.
    pub upto: Lsn,
}

impl Begin {
    /// True when nothing is to be shipped now.
    pub fn is_nothing(&self) -> bool {
        self.from >= self.upto
    }
}

/// Why nothing can be shipped, although there may be something. Each says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// A newer primary ships there.
    #[error("this depot holds term {depot}, this node is at term {own}: a newer primary ships there")]
    Fenced {
        /// The depot's newest term.
        depot: Term,
        /// The highest term seen here.
        own: Term,
    },
    /// One term, two ids.
    #[error(
        "term {term} exists twice: this node knows it by id {own:016x}, the depot by id {depot:016x}. Two nodes were promoted; promote the one to keep again"
    )]
    SplitBrain {
        /// The term.
        term: Term,
        /// Its id here.
        own: u64,
        /// Its id in the depot.
        depot: u64,
    },
    /// What the depot lacks is gone here.
    #[error(
        "the depot lacks what begins at LSN {needed}, but this node keeps the log from LSN {start} on. Copy the missing batches from another depot that has them"
    )]
    Pruned {
        /// The first position that the depot lacks.
        needed: Lsn,
        /// The first position that is kept.
        start: Lsn,
    },
    /// The depot holds more of this very history than this log.
    #[error(
        "the depot holds this stream up to LSN {depot}, this node only up to LSN {end}: this node lost what was durable. Restore from the depot before writing here"
    )]
    Ahead {
        /// The depot's end.
        depot: Lsn,
        /// This log's end.
        end: Lsn,
    },
    /// The depot's end is no place in this log.
    #[error(
        "the depot's line of this stream ends at LSN {at} with chain {depot}, which is not in this node's log. Compare with towline verify --against; ship to a new depot if this log is the right one"
    )]
    Diverged {
        /// Where.
        at: Lsn,
        /// The depot's chain.
        depot: Chain,
    },
}

/// Where the next batch for a depot begins, and how far it may go.
///
/// A primary of a newer term, whose history left the depot's line below the depot's end, begins a branch with the
/// first entry of that term.
pub fn next_range(depot: &DepotState, log: &LogView<'_>) -> Result<Begin, Trouble> {
    let (own, seen) = (log.term, depot.term);
    if seen.term > own.term {
        return Err(Trouble::Fenced { depot: seen.term, own: own.term });
    }
    if seen.term == own.term && seen.id != own.id && depot.end.is_some() {
        return Err(Trouble::SplitBrain { term: own.term, own: own.id, depot: seen.id });
    }
    let newer = log.history.openings().iter().find(|opening| opening.epoch.term > seen.term);
    let (from, chain) = match (depot.end, newer) {
        (None, _) => (Lsn::ZERO, None),
        (Some(end), Some(opening)) if opening.first < end.lsn => (opening.first, Some(opening.chain_in)),
        (Some(end), _) => (end.lsn, Some(end.chain)),
    };
    if from > log.end {
        return match seen.term == own.term {
            true => Err(Trouble::Ahead { depot: from, end: log.end }),
            // promoted below the depot's end: where the branch begins is known with the term's first entry
            false => Ok(Begin { from: log.start, chain: None, upto: log.start }),
        };
    }
    if from < log.start {
        return Err(Trouble::Pruned { needed: from, start: log.start });
    }
    Ok(Begin { from, chain, upto: log.safe.max(from) })
}

#[cfg(test)]
mod tests {
    use journal::{Epoch, NodeId, Opening};
    use wire::Place;

    use super::*;

    fn opening(term: u32, run: u32, first: u64) -> Opening {
        Opening {
            epoch: Epoch { term: Term(term), run },
            term_id: u64::from(term) * 10,
            run_id: u64::from(run),
            node: NodeId::default(),
            first: Lsn::new(first),
            chain_in: Chain::from_u64(first + 1),
        }
    }

    fn seen(term: u32) -> TermSeen {
        TermSeen { term: Term(term), id: u64::from(term) * 10 }
    }

    fn depot(term: u32, end: u64) -> DepotState {
        DepotState { end: Some(Place { lsn: Lsn::new(end), chain: Chain::from_u64(77) }), term: seen(term) }
    }

    #[test]
    fn what_is_shipped_next() {
        let history = History::from_openings(vec![opening(1, 1, 0), opening(1, 2, 300), opening(2, 1, 600)]);
        let history = history.expect("in order");
        let view =
            LogView { start: Lsn::ZERO, end: Lsn::new(1000), safe: Lsn::new(900), history: &history, term: seen(2) };
        let begin = |from: u64, chain: Option<u64>| {
            Ok(Begin { from: Lsn::new(from), chain: chain.map(Chain::from_u64), upto: Lsn::new(from.max(900)) })
        };
        let pruned = LogView { start: Lsn::new(500), ..view.clone() };
        let fenced = Trouble::Fenced { depot: Term(3), own: Term(2) };
        let other_id = DepotState { term: TermSeen { term: Term(2), id: 21 }, ..depot(2, 700) };
        let promoted = LogView { term: seen(3), ..view.clone() };
        let nothing = Begin { from: Lsn::ZERO, chain: None, upto: Lsn::ZERO };
        let cases: [(&str, DepotState, &LogView<'_>, Result<Begin, Trouble>); 16] = [
            ("promoted, but its term has no entry yet", depot(2, 5000), &promoted, Ok(nothing)),
            ("promoted behind the depot's end", depot(2, 950), &promoted, begin(950, Some(77))),
            ("an empty depot gets everything", DepotState::default(), &view, begin(0, None)),
            ("on from its end", depot(2, 700), &view, begin(700, Some(77))),
            ("an older term's end below the fork", depot(1, 400), &view, begin(400, Some(77))),
            ("an older term's end at the fork", depot(1, 600), &view, begin(600, Some(77))),
            ("an older term's end beyond the fork", depot(1, 700), &view, begin(600, Some(601))),
            ("beyond this log's end, but of an older term", depot(1, 5000), &view, begin(600, Some(601))),
            ("everything is there", depot(2, 900), &view, begin(900, Some(77))),
            ("more is there than is committed here yet", depot(2, 950), &view, begin(950, Some(77))),
            (
                "more is there than was ever written here",
                depot(2, 1001),
                &view,
                Err(Trouble::Ahead { depot: Lsn::new(1001), end: Lsn::new(1000) }),
            ),
            (
                "gone here, and the depot is empty",
                DepotState::default(),
                &pruned,
                Err(Trouble::Pruned { needed: Lsn::ZERO, start: Lsn::new(500) }),
            ),
            ("gone here", depot(1, 499), &pruned, Err(Trouble::Pruned { needed: Lsn::new(499), start: Lsn::new(500) })),
            ("just kept", depot(1, 500), &pruned, begin(500, Some(77))),
            ("a newer primary ships there", depot(3, 700), &view, Err(fenced)),
            ("two promotions", other_id, &view, Err(Trouble::SplitBrain { term: Term(2), own: 20, depot: 21 })),
        ];
        for (name, depot, view, wanted) in cases {
            assert_eq!(next_range(&depot, view), wanted, "{name}");
        }
    }
}
