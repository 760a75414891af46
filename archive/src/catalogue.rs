//! What a depot holds, as a tree: pure, built from what batches say of themselves.
//!
//! ```text
//!  0 ---- 1.1 ---- 100 ---- 1.1 ---- 200        term 1 goes on to 200
//!                     \
//!                      120 -- 2.1 -- 300 ---    term 2 begins below the depot's end: a branch inside a batch
//! ```

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use journal::{Epoch, Geometry, Lsn, LsnRange, Opening, StreamId, Term, TermSeen, Tip};

use crate::batch::{Batch, BatchInfo, BatchName};
use crate::error::{Error, Result};

/// The batches of one stream.
///
/// Guarantee: all are of one stream and one geometry.
#[derive(Debug)]
pub struct Catalogue {
    folder: PathBuf,
    batches: Vec<(PathBuf, BatchInfo)>,
    parents: Vec<Parent>,
    bad: Vec<(PathBuf, Error)>,
}

/// One way through the tree, from its root (or a gap) to a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The batches in order.
    pub steps: Vec<LineStep>,
}

/// A batch on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineStep {
    /// Index into [`Catalogue::batches`].
    pub batch: usize,
    /// Where the line leaves the batch: its end, or where the next one branches off.
    pub upto: Lsn,
    /// What is missing in front of it.
    pub missing: Option<LsnRange>,
}

/// Where the newest line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DepotEnd {
    /// The tip behind its last entry.
    pub tip: Tip,
    /// The newest term.
    pub term: TermSeen,
}

/// What a batch follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parent {
    /// The beginning of the log.
    Root,
    /// The end of another batch, or a place inside one.
    Batch(usize),
    /// Nothing that is here; the nearest batch below the gap, if there is one.
    Missing(Option<usize>),
}

impl Catalogue {
    /// The catalogue of these batches. `bad` is what lies in the folder and can't be used.
    ///
    /// # Errors
    /// `Stream` when two streams are mixed; `Incompatible` when two geometries are.
    pub fn build(folder: &Path, batches: Vec<(PathBuf, BatchInfo)>, bad: Vec<(PathBuf, Error)>) -> Result<Catalogue> {
        if let Some((_, one)) = batches.first() {
            for (path, info) in &batches {
                if info.stream != one.stream {
                    return Err(Error::Stream { path: path.clone(), found: info.stream, wanted: one.stream });
                }
                if info.geometry != one.geometry {
                    let what = "its segment size is not that of the stream's other batches".into();
                    return Err(Error::Incompatible { path: path.clone(), what });
                }
            }
        }
        let ends = batches.iter().enumerate().map(|(index, (_, info))| (info.last, index)).collect();
        let parents = batches.iter().map(|(_, info)| parent_of(&batches, &ends, info)).collect();
        Ok(Catalogue { folder: folder.to_owned(), batches, parents, bad })
    }

    /// The depot's folder of the stream.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Every usable batch, by name.
    pub fn batches(&self) -> &[(PathBuf, BatchInfo)] {
        &self.batches
    }

    /// Files that can't be used, each with the reason.
    pub fn bad(&self) -> impl ExactSizeIterator<Item = &Error> {
        self.bad.iter().map(|(_, error)| error)
    }

    /// The same by what each should hold, as its name says.
    pub(crate) fn bad_named(&self) -> Vec<(BatchName, String)> {
        let named = self.bad.iter().filter_map(|(path, error)| {
            let name = path.file_name()?.to_str()?.parse::<BatchName>().ok()?;
            Some((name, error.to_string()))
        });
        named.collect()
    }

    /// A batch that can't be used and by its name holds something of `range` in a term from `term` on, with the reason.
    pub(crate) fn bad_in(&self, range: LsnRange, term: Term) -> Option<&Error> {
        let claims = |path: &Path| path.file_name()?.to_str()?.parse::<BatchName>().ok();
        let holds = |name: BatchName| name.term >= term && name.from < range.to && name.to > range.from;
        self.bad.iter().find(|(path, _)| claims(path).is_some_and(holds)).map(|(_, error)| error)
    }

    /// Whose batches these are; `None` when there is none.
    pub fn stream(&self) -> Option<StreamId> {
        self.batches.first().map(|(_, info)| info.stream)
    }

    /// The log's geometry; `None` when there is no batch.
    pub fn geometry(&self) -> Option<Geometry> {
        self.batches.first().map(|(_, info)| info.geometry)
    }

    pub(crate) fn info(&self, index: usize) -> Option<&BatchInfo> {
        self.batches.get(index).map(|(_, info)| info)
    }

    /// Every line, the newest first: by the epoch of its last entry, then by its end.
    pub fn lines(&self) -> Vec<Line> {
        let mut followed = HashSet::new();
        for ((_, child), parent) in self.batches.iter().zip(&self.parents) {
            match parent {
                // what only branches off inside leaves the rest of its parent a line of its own
                Parent::Batch(parent) if self.info(*parent).map(|info| info.last) != Some(child.first) => {}
                Parent::Batch(parent) | Parent::Missing(Some(parent)) => {
                    followed.insert(*parent);
                }
                Parent::Root | Parent::Missing(None) => {}
            }
        }
        let mut leaves: Vec<usize> = (0..self.batches.len()).filter(|index| !followed.contains(index)).collect();
        leaves.sort_by_key(|index| self.info(*index).map(|info| (info.last.epoch, info.last.lsn)));
        leaves.into_iter().rev().map(|leaf| self.line_to(leaf)).collect()
    }

    /// Where the newest line ends; `None` for an empty depot.
    ///
    /// # Errors
    /// `Diverged` when two lines of one epoch end at one place with different entries, or one term has two ids.
    pub fn end(&self) -> Result<Option<DepotEnd>> {
        let lines = self.lines();
        let mut ends = lines.iter().filter_map(|line| self.end_of(line));
        let Some(newest) = ends.next() else { return Ok(None) };
        for other in ends {
            let split = other.term.term == newest.term.term && other.term.id != newest.term.id;
            let doubled = other.tip.epoch == newest.tip.epoch
                && (other.tip.run_id != newest.tip.run_id
                    || (other.tip.lsn == newest.tip.lsn && other.tip.chain != newest.tip.chain));
            if split || doubled {
                let what = format!(
                    "two lines claim term {} here, up to LSN {} and LSN {}: two primaries wrote, or batches were mixed. Choose one by removing the batches of the other",
                    newest.term.term, newest.tip.lsn, other.tip.lsn
                );
                return Err(Error::Diverged { path: self.folder.clone(), what });
            }
        }
        Ok(Some(newest))
    }

    /// Whether a batch may be stored here: it continues the newest line, or begins a branch with a new term.
    ///
    /// # Errors
    /// `NotNext` with what is expected instead; `Diverged` for an old or a doubled term.
    pub fn accepts(&self, info: &BatchInfo) -> Result<()> {
        let not_next = |what: String| Error::NotNext { path: self.folder.clone(), offered: info.first.lsn, what };
        let diverged = |what: String| Error::Diverged { path: self.folder.clone(), what };
        if self.geometry().is_some_and(|geometry| geometry != info.geometry) {
            return Err(diverged("the offered batch has another segment size than the stream's batches here".into()));
        }
        let empty = Tip::empty(info.stream);
        let Some(end) = self.end()? else {
            return match info.first == empty {
                true => Ok(()),
                false => Err(not_next("this depot is empty: the first batch must begin at LSN 0".into())),
            };
        };
        let offered = info.term_seen();
        if offered.term < end.term.term {
            return Err(diverged(format!(
                "the offered batch ends in term {}, but this depot holds term {}: a newer primary ships here",
                offered.term, end.term.term
            )));
        }
        if offered.term == end.term.term && offered.id != end.term.id {
            return Err(diverged(format!(
                "term {} exists twice (ids {:016x} and {:016x}): two nodes were promoted. Promote the one to keep again",
                offered.term, end.term.id, offered.id
            )));
        }
        if info.first == end.tip {
            return Ok(());
        }
        let branches = info.openings.first().is_some_and(|opening| {
            opening.first == info.first.lsn && opening.epoch.term > end.term.term && info.first.lsn <= end.tip.lsn
        });
        if !branches {
            return Err(not_next(format!(
                "this depot ends at LSN {} (chain {}). Ship from there",
                end.tip.lsn, end.tip.chain
            )));
        }
        if info.first == empty || self.holds(&info.first)? {
            return Ok(());
        }
        Err(not_next("no batch here leads to the place where it branches off".into()))
    }

    /// True when some batch has this very tip at its end or inside. Unpacks a frame of each batch that covers it.
    fn holds(&self, tip: &Tip) -> Result<bool> {
        for (path, info) in &self.batches {
            let inside = info.first.lsn < tip.lsn && tip.lsn <= info.last.lsn;
            if inside && Batch::open(path)?.tip_at(tip.lsn)? == Some(*tip) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Branches whose beginning is not where it should be inside the batch they leave. Unpacks a frame each.
    pub(crate) fn loose_branches(&self) -> Vec<Error> {
        let mut loose = Vec::new();
        for (child, parent) in self.parents.iter().enumerate() {
            let (Parent::Batch(parent), Some((path, info))) = (parent, self.batches.get(child)) else { continue };
            let Some((above, _)) = self.batches.get(*parent) else { continue };
            match Batch::open(above).and_then(|batch| batch.tip_at(info.first.lsn)) {
                Ok(Some(tip)) if tip == info.first => {}
                Ok(_) => loose.push(Error::Diverged {
                    path: path.clone(),
                    what: format!("it doesn't link to {} at LSN {}", above.display(), info.first.lsn),
                }),
                Err(error) => loose.push(error),
            }
        }
        loose
    }

    fn end_of(&self, line: &Line) -> Option<DepotEnd> {
        let info = self.info(line.steps.last()?.batch)?;
        Some(DepotEnd { tip: info.last, term: info.term_seen() })
    }

    fn line_to(&self, leaf: usize) -> Line {
        let mut steps = Vec::new();
        let mut next = Some((leaf, Lsn::MAX));
        while let Some((index, upto)) = next
            && let (Some(info), Some(parent)) = (self.info(index), self.parents.get(index))
        {
            let from = info.first.lsn;
            let below = match parent {
                Parent::Root => None,
                Parent::Batch(above) => Some((*above, from)),
                Parent::Missing(below) => below.map(|below| (below, from)),
            };
            let missing = match parent {
                Parent::Missing(below) => {
                    let end = below.and_then(|below| self.info(below)).map_or(Lsn::ZERO, |info| info.last.lsn);
                    Some(LsnRange::new(end, from))
                }
                _ => None,
            };
            steps.push(LineStep { batch: index, upto: upto.min(info.last.lsn), missing });
            next = below;
        }
        steps.reverse();
        Line { steps }
    }

    /// The epochs that begin on a line.
    pub(crate) fn openings<'a>(&'a self, line: &'a Line) -> impl Iterator<Item = &'a Opening> + 'a {
        line.steps
            .iter()
            .filter_map(|step| Some((self.info(step.batch)?, step.upto)))
            .flat_map(|(info, upto)| info.openings.iter().filter(move |opening| opening.first < upto))
    }
}

impl Line {
    /// The gaps on this line.
    pub fn missing(&self) -> impl Iterator<Item = LsnRange> + '_ {
        self.steps.iter().filter_map(|step| step.missing)
    }
}

/// A batch follows the one that ends where it begins; else the one that it branches off from inside.
fn parent_of(batches: &[(PathBuf, BatchInfo)], ends: &HashMap<Tip, usize>, info: &BatchInfo) -> Parent {
    if info.first == Tip::empty(info.stream) {
        return Parent::Root;
    }
    let from = info.first.lsn;
    if let Some(parent) = ends.get(&info.first) {
        return Parent::Batch(*parent);
    }
    let covers = |other: &BatchInfo| {
        other.first.lsn < from && from < other.last.lsn && same_run(other.opening_before(from), info.opening.as_ref())
    };
    if let Some(parent) = batches.iter().position(|(_, other)| covers(other)) {
        return Parent::Batch(parent);
    }
    let before = |other: &BatchInfo| other.last.lsn <= from && other.last.epoch <= info.first.epoch;
    let below = batches.iter().enumerate().filter(|(_, (_, other))| before(other));
    Parent::Missing(below.max_by_key(|(_, (_, other))| other.last.lsn).map(|(index, _)| index))
}

fn same_run(one: Option<&Opening>, two: Option<&Opening>) -> bool {
    let run = |opening: Option<&Opening>| opening.map(|o| (o.epoch, o.run_id)).unwrap_or((Epoch::default(), 0));
    run(one) == run(two)
}
