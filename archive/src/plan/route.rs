//! Ways from the beginning of a log to an end: lines of a depot, with or without a journal behind.

use journal::{Epoch, Lsn, LsnRange, Time};

use crate::batch::Mark;
use crate::catalogue::{Catalogue, Line};
use crate::tail::{Coverage, Run};

/// One way.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// In order; each begins where the one before ends, unless something is missing in front of it.
    pub(crate) pieces: Vec<Piece>,
    /// The runs along it.
    pub(crate) runs: Vec<Run>,
}

/// A part of a route.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) kind: PieceKind,
    pub(crate) range: LsnRange,
    /// At or below the time of its first entry.
    pub(crate) first_time: Time,
    /// At or above the time of its last entry; exact when the piece is not cut.
    pub(crate) last_time: Time,
    pub(crate) marks: Vec<Mark>,
    pub(crate) missing: Option<LsnRange>,
}

/// Where a piece lies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PieceKind {
    /// Index into the catalogue's batches.
    Batch(usize),
    /// The journal.
    Journal,
}

/// Every route there is.
pub(crate) fn routes(catalogue: Option<&Catalogue>, journal: Option<&Coverage>) -> Vec<Route> {
    let lines: Vec<Route> = catalogue
        .map(|catalogue| catalogue.lines().iter().map(|line| of_line(catalogue, line)).collect())
        .unwrap_or_default();
    let tail = journal.filter(|journal| journal.start < journal.end.lsn).map(|journal| with_journal(&lines, journal));
    // behind the lines: of equal routes the last one wins, and a journal is nearer than a depot
    lines.into_iter().rev().chain(tail).collect()
}

impl Route {
    /// Orders routes: by the epoch at their end, then by the end.
    pub(crate) fn newest(&self) -> (Option<Epoch>, Lsn) {
        (self.runs.last().map(|run| run.epoch), self.end())
    }

    pub(crate) fn end(&self) -> Lsn {
        self.pieces.last().map_or(Lsn::ZERO, |piece| piece.range.to)
    }

    /// The part below `bound`.
    pub(crate) fn cut(mut self, bound: Lsn) -> Route {
        self.pieces.retain(|piece| piece.range.from < bound);
        if let Some(last) = self.pieces.last_mut() {
            last.range.to = last.range.to.min(bound);
            last.marks.retain(|mark| mark.end <= bound);
        }
        self.runs.retain(|run| run.first < bound);
        self
    }

    /// The runs that entries in `range` belong to, and where each begins there.
    fn runs_in(&self, range: LsnRange) -> Vec<Run> {
        runs_in(&self.runs, range)
    }
}

fn of_line(catalogue: &Catalogue, line: &Line) -> Route {
    let pieces = line.steps.iter().filter_map(|step| {
        let info = catalogue.info(step.batch)?;
        Some(Piece {
            kind: PieceKind::Batch(step.batch),
            range: LsnRange::new(info.first.lsn, step.upto),
            first_time: info.first_time,
            last_time: info.last.time,
            marks: info.marks.iter().filter(|mark| mark.end <= step.upto).cloned().collect(),
            missing: step.missing,
        })
    });
    let runs = catalogue.openings(line);
    let runs = runs.map(|o| Run { epoch: o.epoch, run_id: o.run_id, first: o.first }).collect();
    Route { pieces: pieces.collect(), runs }
}

/// The way that ends with the journal: alone if it is whole, else behind the line that leads furthest into it.
fn with_journal(lines: &[Route], journal: &Coverage) -> Route {
    let joined = match journal.start {
        Lsn::ZERO => None,
        _ => {
            let joins = lines.iter().filter_map(|line| Some((join(line, journal)?, line)));
            joins.max_by_key(|(at, line)| (*at, line.newest()))
        }
    };
    let (at, mut route) = match joined {
        Some((at, line)) => (at, line.clone().cut(at)),
        None => (journal.start, Route { pieces: Vec::new(), runs: Vec::new() }),
    };
    let complete = joined.is_some() || journal.start == Lsn::ZERO;
    if at < journal.end.lsn {
        route.pieces.push(Piece {
            kind: PieceKind::Journal,
            range: LsnRange::new(at, journal.end.lsn),
            first_time: journal.first_time,
            last_time: journal.end.time,
            marks: journal.marks.iter().filter(|mark| mark.at >= at).cloned().collect(),
            missing: (!complete).then(|| LsnRange::new(Lsn::ZERO, at)),
        });
    }
    let known = route.runs.last().map(|run| run.epoch);
    route.runs.extend(journal.runs.iter().filter(|run| Some(run.epoch) > known));
    route
}

/// The highest boundary of the line inside the journal up to which both have the same runs. The chain is compared
/// when the entries are read.
fn join(line: &Route, journal: &Coverage) -> Option<Lsn> {
    let kept = LsnRange::new(journal.start, journal.end.lsn);
    let ends = line.pieces.iter().map(|piece| piece.range.to);
    let boundaries = ends.chain([kept.from]).filter(|at| kept.from <= *at && *at <= kept.to && *at <= line.end());
    let agree = |at: &Lsn| {
        let both = LsnRange::new(kept.from, *at);
        line.runs_in(both) == runs_in(&journal.runs, both)
    };
    boundaries.filter(agree).max()
}

fn runs_in(runs: &[Run], range: LsnRange) -> Vec<Run> {
    if range.is_empty() {
        return Vec::new();
    }
    let before = runs.iter().rposition(|run| run.first <= range.from).unwrap_or(0);
    let inside = runs.iter().skip(before).filter(|run| run.first < range.to);
    inside.map(|run| Run { first: run.first.max(range.from), ..*run }).collect()
}
