//! What a restore will read, and where it will end: decided before anything is touched. Pure.
//!
//! ```text
//!  lines of a depot --+-> routes -> the newest (or --epoch) -> the point on it -> steps
//!  a journal ---------+
//! ```

mod route;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;

use journal::{Class, Epoch, Geometry, Lsn, LsnRange, StreamId, Term, Time};

use crate::batch::BatchInfo;
use crate::catalogue::Catalogue;
use crate::error::{Error, Result};
use crate::plan::route::{Piece, PieceKind, Route, routes};
use crate::point::{Point, utc};
use crate::tail::Coverage;

/// What is asked of a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// How far.
    pub point: Point,
    /// Along the longest line of this epoch's term that the epoch is on, instead of the newest line.
    pub epoch: Option<Epoch>,
}

/// The steps of a restore.
///
/// Guarantees: the steps follow each other from LSN 0 without a gap; only the last may be a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whose.
    pub stream: StreamId,
    /// How its log is laid out.
    pub geometry: Geometry,
    /// What is read, in order. Empty for LSN 0.
    pub steps: Vec<Step>,
    /// What would come next: for the entry behind the point.
    pub beyond: Option<Step>,
    /// Where it ends.
    pub stop: Stop,
    /// Why it ends before the point that was asked for, if it does.
    pub short: Option<Short>,
}

/// Something that a restore reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub source: StepSource,
    /// The part of the log that is taken from it.
    pub range: LsnRange,
}

/// Where a step's entries come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepSource {
    /// A batch.
    Batch {
        /// Its file.
        path: PathBuf,
        /// What it says of itself.
        info: Box<BatchInfo>,
    },
    /// A journal.
    Journal {
        /// Its folder.
        path: PathBuf,
    },
}

/// Where a restore ends: behind the last entry that ends at or below `lsn` and is not later than `time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Upper bound.
    pub lsn: Lsn,
    /// Upper bound of entries' times, both included.
    pub time: Option<Time>,
}

/// Everything there is was taken, but the point lies behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    /// The instant that was asked for.
    pub asked: Time,
    /// The time of the last entry there is. Whether anything was written between the two can't be told from here.
    pub last: Time,
    /// Where it ends.
    pub end: Lsn,
}

/// The plan for `wanted` from a depot's catalogue, a journal, or both.
///
/// The route is the one with the newest epoch at its end. Batches come first as far as they go, then the journal; a
/// journal that begins at LSN 0 is taken alone.
///
/// # Errors
/// `NotReached` when the point is not kept or not reached, with what is; `Gap` when batches on the way to it are
/// missing; `Unusable` when a batch that may hold it is damaged: an earlier end is never taken for the latest; `Diverged`
/// when two lines claim one term; `Absent` when there is nothing at all.
pub fn plan(catalogue: Option<&Catalogue>, journal: Option<&Coverage>, wanted: &Wanted) -> Result<Plan> {
    let planned = plan_of_what_is_whole(catalogue, journal, wanted);
    let Some(catalogue) = catalogue else { return planned };
    // in which range, and from which term on, a batch that can't be used would change the answer
    let (doubt, whole, term) = match &planned {
        Ok(plan) if wanted.point == Point::Latest || plan.short.is_some() => {
            (LsnRange::new(plan.reaches(), Lsn::MAX), plan.reaches(), plan.term())
        }
        Ok(_) => return planned,
        Err(Error::Gap { missing, .. }) => (*missing, missing.from, Term::default()),
        Err(Error::NotReached { .. } | Error::Absent { .. }) => {
            let latest = Wanted { point: Point::Latest, epoch: wanted.epoch };
            let latest = plan_of_what_is_whole(Some(catalogue), journal, &latest).ok();
            let whole = latest.as_ref().map_or(Lsn::ZERO, Plan::reaches);
            (LsnRange::new(whole, Lsn::MAX), whole, latest.map_or(Term::default(), |plan| plan.term()))
        }
        Err(_) => return planned,
    };
    match catalogue.bad_in(doubt, term) {
        Some(bad) => Err(Error::Unusable { why: bad.to_string().trim_end_matches('.').to_owned(), whole }),
        None => planned,
    }
}

fn plan_of_what_is_whole(catalogue: Option<&Catalogue>, journal: Option<&Coverage>, wanted: &Wanted) -> Result<Plan> {
    let (stream, geometry) = whose(catalogue, journal)?;
    if let (Some(catalogue), None) = (catalogue, wanted.epoch) {
        catalogue.end()?;
    }
    let routes = routes(catalogue, journal);
    let route = match wanted.epoch {
        None => routes.into_iter().max_by_key(|route| route.newest()),
        Some(epoch) => Some(on_epoch(routes, epoch)?),
    };
    let place = match (catalogue, journal) {
        (Some(catalogue), _) => catalogue.folder().to_owned(),
        (None, Some(journal)) => journal.path.clone(),
        (None, None) => PathBuf::new(),
    };
    let nothing = || Error::Absent { path: place.clone(), what: "nothing of this stream is kept here".into() };
    let route = route.filter(|route| !route.pieces.is_empty()).ok_or_else(nothing)?;
    let aim = aim(&route, &wanted.point)?;
    let (taken, rest) = route.pieces.split_at(aim.pieces);
    for (index, piece) in taken.iter().enumerate() {
        if let Some(missing) = piece.missing {
            let next = taken.get(index).map(|piece| piece.range.from);
            return Err(Error::Gap { path: place, missing, next });
        }
    }
    let step = |piece: &Piece| Step { source: source(piece, catalogue, journal), range: piece.range };
    Ok(Plan {
        stream,
        geometry,
        steps: taken.iter().map(step).collect(),
        beyond: rest.first().filter(|piece| piece.missing.is_none()).map(step),
        stop: aim.stop,
        short: aim.short,
    })
}

impl Plan {
    /// The term of its last batch; a journal alone has all of its own.
    fn term(&self) -> Term {
        let batches = self.steps.iter().rev().filter_map(|step| match &step.source {
            StepSource::Batch { info, .. } => Some(info.last.epoch.term),
            StepSource::Journal { .. } => None,
        });
        batches.max().unwrap_or_default()
    }

    /// Upper bound of what it reaches; exact unless it ends at a time.
    pub fn reaches(&self) -> Lsn {
        self.steps.last().map_or(Lsn::ZERO, |step| step.range.to.min(self.stop.lsn))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            StepSource::Batch { path, info } => {
                let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
                write!(f, "batch {name}: LSN {} (epoch {}, {} entries)", self.range, info.epoch(), info.entries)
            }
            StepSource::Journal { path } => write!(f, "journal {}: LSN {}", path.display(), self.range),
        }
    }
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} was asked for, but what is kept here ends at LSN {} with an entry of {}; later entries, if there were any, are not here",
            utc(self.asked),
            self.end,
            utc(self.last)
        )
    }
}

impl Short {
    /// How a caller that must not accept less reports it.
    pub fn class(&self) -> Class {
        Class::NotReached
    }
}

/// How many pieces a point needs, and where in the last one it ends.
struct Aim {
    pieces: usize,
    stop: Stop,
    short: Option<Short>,
}

fn aim(route: &Route, point: &Point) -> Result<Aim> {
    let pieces = &route.pieces;
    let all = pieces.len();
    let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else {
        return Ok(Aim { pieces: 0, stop: Stop { lsn: Lsn::ZERO, time: None }, short: None });
    };
    let end = last.range.to;
    let at = |pieces: usize, lsn: Lsn| Aim { pieces, stop: Stop { lsn, time: None }, short: None };
    match point {
        Point::Latest => Ok(at(all, end)),
        Point::Lsn(lsn) if *lsn == Lsn::ZERO => Ok(at(0, Lsn::ZERO)),
        Point::Lsn(lsn) => match pieces.iter().position(|piece| *lsn <= piece.range.to) {
            Some(index) => Ok(at(index + 1, *lsn)),
            None => {
                let what =
                    format!("LSN {lsn} is not reached: what is kept here ends at LSN {end} ({})", utc(last.last_time));
                Err(Error::NotReached { what })
            }
        },
        Point::Time(time) if *time < first.first_time => {
            let what = format!(
                "{} is not kept: the first entry here is of {} (LSN {})",
                utc(*time),
                utc(first.first_time),
                first.range.from
            );
            Err(Error::NotReached { what })
        }
        Point::Time(time) => {
            // a piece too many costs a look, one too few would lose entries: pieces may be cut, so that only the time
            // of their first entry is sure
            let begun = pieces.iter().rposition(|piece| piece.first_time <= *time).unwrap_or(0);
            let in_gap =
                |next: &Piece| next.missing.is_some() && pieces.get(begun).is_some_and(|p| *time > p.last_time);
            let index = if pieces.get(begun + 1).is_some_and(in_gap) { begun + 1 } else { begun };
            let short = (*time > last.last_time).then_some(Short { asked: *time, last: last.last_time, end });
            let stop = Stop { lsn: pieces.get(index).map_or(end, |piece| piece.range.to), time: Some(*time) };
            Ok(Aim { pieces: index + 1, stop, short })
        }
        Point::Mark(name) => {
            let found = pieces.iter().enumerate().rev().find_map(|(index, piece)| {
                let mark = piece.marks.iter().rev().find(|mark| mark.name == *name)?;
                Some(at(index + 1, mark.end))
            });
            found.ok_or_else(|| no_mark(route, name))
        }
    }
}

fn no_mark(route: &Route, name: &str) -> Error {
    let names: Vec<&str> = route.pieces.iter().flat_map(|piece| &piece.marks).map(|mark| mark.name.as_str()).collect();
    let there = match names.len() {
        0 => "there are no marks here".to_owned(),
        count => format!("the last of {count} here are {}", names[count.saturating_sub(5)..].join(", ")),
    };
    Error::NotReached { what: format!("no mark {name:?} is kept here: {there}") }
}

/// The route that follows the epoch's term longest, cut where a later term begins.
fn on_epoch(routes: Vec<Route>, epoch: Epoch) -> Result<Route> {
    let known: Vec<String> = routes.iter().flat_map(|route| &route.runs).map(|run| run.epoch.to_string()).collect();
    let with = routes.into_iter().filter(|route| route.runs.iter().any(|run| run.epoch == epoch));
    let cut = with.map(|route| {
        let later = route.runs.iter().find(|run| run.epoch.term > epoch.term);
        let bound = later.map_or(Lsn::MAX, |run| run.first);
        route.cut(bound)
    });
    cut.max_by_key(Route::end).ok_or_else(|| {
        let mut known = known;
        known.sort();
        known.dedup();
        Error::NotReached { what: format!("no line here has epoch {epoch}; there are {}", known.join(", ")) }
    })
}

fn source(piece: &Piece, catalogue: Option<&Catalogue>, journal: Option<&Coverage>) -> StepSource {
    let batch = match piece.kind {
        PieceKind::Batch(index) => catalogue.and_then(|catalogue| catalogue.batches().get(index)),
        PieceKind::Journal => None,
    };
    match (batch, journal) {
        (Some((path, info)), _) => StepSource::Batch { path: path.clone(), info: Box::new(info.clone()) },
        (None, journal) => {
            StepSource::Journal { path: journal.map(|journal| journal.path.clone()).unwrap_or_default() }
        }
    }
}

fn whose(catalogue: Option<&Catalogue>, journal: Option<&Coverage>) -> Result<(StreamId, Geometry)> {
    let depot = catalogue.and_then(|c| Some((c.stream()?, c.geometry()?)));
    match (depot, journal) {
        (Some((found, _)), Some(journal)) if found != journal.stream => {
            Err(Error::Stream { path: journal.path.clone(), found: journal.stream, wanted: found })
        }
        (Some((_, found)), Some(journal)) if found != journal.geometry => {
            let what = "its segment size is not that of the depot's batches".into();
            Err(Error::Incompatible { path: journal.path.clone(), what })
        }
        (Some(one), _) => Ok(one),
        (None, Some(journal)) => Ok((journal.stream, journal.geometry)),
        (None, None) => {
            let path = catalogue.map(|catalogue| catalogue.folder().to_owned()).unwrap_or_default();
            Err(Error::Absent { path, what: "there are no batches here, and no journal was named".into() })
        }
    }
}
