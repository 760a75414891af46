//! Reading a journal without opening it: no lock, nothing changed, every byte verified in an own buffer. For `verify`,
//! `restore`, `journal dump` and for a node that does not answer.

mod entries;

use std::fs::File;
use std::path::{Path, PathBuf};

pub use self::entries::Entries;
use crate::class::Class;
use crate::control::{self, Evidence, Facts, Role};
use crate::cursor::Tip;
use crate::epoch::{History, TermSeen};
use crate::error::{Error, Result, way_back};
use crate::geometry::Geometry;
use crate::id::{NodeId, StreamId};
use crate::lsn::{Lsn, LsnRange};
use crate::recovery::segment_paths;
use crate::segment::{SegmentHeader, file_name};
use crate::time::Time;

/// A journal on disk, looked at from outside.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    facts: Facts,
    evidence: Evidence,
    segments: Vec<SegmentInfo>,
    unreadable: Vec<Unreadable>,
}

/// One segment file.
#[derive(Clone, Debug)]
pub struct SegmentInfo {
    /// The file.
    pub path: PathBuf,
    /// The part of the log that its body holds.
    pub range: LsnRange,
    /// The tip in front of its first entry.
    pub tip: Tip,
}

/// A segment that is missing, or whose header doesn't say what it should: nothing in it can be verified.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// The file.
    pub path: PathBuf,
    /// The part of the log that is not to be had.
    pub range: LsnRange,
    /// What is wrong, and what to do.
    pub what: String,
}

impl Unreadable {
    /// The same as an error, of class `Corrupt`.
    pub fn error(&self) -> Error {
        Error::Corrupt { path: self.path.clone(), what: self.what.clone() }
    }
}

/// What a segment file's header says; an error of class `Corrupt` where nothing can be believed. For a journal whose
/// control file is lost.
pub fn segments(dir: &Path) -> Result<Vec<Result<SegmentInfo>>> {
    let info = |(first, path): (Lsn, PathBuf)| {
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let header = SegmentHeader::read(&file, &path)?;
        let range = LsnRange::new(first, first.advance(header.geometry.body_bytes()));
        Ok(SegmentInfo { path, range, tip: header.tip })
    };
    Ok(segment_paths(dir)?.into_iter().map(info).collect())
}

impl Log {
    /// Looks at the journal in `dir`. Segments that can't be read are no error here: see [`Log::unreadable`].
    ///
    /// Errors: `Absent`, `Io`; `Corrupt` when the control file is lost.
    pub fn open(dir: &Path) -> Result<Log> {
        let path = dir.join(control::NAME);
        let file = File::open(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => match segment_paths(dir) {
                Ok(segments) if !segments.is_empty() => control::lost(&path, control::MISSING),
                _ => Error::Absent { path: dir.to_owned(), what: "no control file" },
            },
            _ => Error::io("open", &path)(error),
        })?;
        let control::Stored { facts, evidence, .. } = control::read(&file, &path)?;
        let (segments, unreadable) = (Vec::new(), Vec::new());
        let mut log = Log { dir: dir.to_owned(), facts, evidence, segments, unreadable };
        // a node that runs may give up segments, and use their files again, while this looks at them
        let moved = |log: &Log| Ok::<_, Error>(control::read(&file, &path)?.facts.start.lsn != log.start());
        for (first, path) in segment_paths(dir)? {
            let cut = log.facts.cut.is_some_and(|cut| first >= cut);
            if cut || first < log.geometry().segment_of(log.start()) {
                continue;
            }
            match log.segment(first, &path) {
                Ok(segment) => log.segments.push(segment),
                Err(_) if moved(&log)? => return Log::open(dir),
                Err(error) => log.note_unreadable(first, path, error)?,
            }
        }
        if moved(&log)? {
            return Log::open(dir);
        }
        log.note_missing();
        Ok(log)
    }

    /// The segment in the file of this name.
    fn segment(&self, first: Lsn, path: &Path) -> Result<SegmentInfo> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let header = SegmentHeader::read(&file, path)?;
        let facts = &self.facts;
        if header.stream != facts.stream || header.first != first || header.geometry != facts.geometry {
            let what = format!(
                "its header says stream {} at LSN {}, but this is a segment of stream {} at LSN {first}; {}",
                header.stream,
                header.first,
                facts.stream,
                way_back(path)
            );
            return Err(Error::Corrupt { path: path.to_owned(), what });
        }
        let range = LsnRange::new(first, first.advance(facts.geometry.body_bytes()));
        Ok(SegmentInfo { path: path.to_owned(), range, tip: header.tip })
    }

    /// Why the file of a segment that was there is gone: it was pruned since, or else it is missing.
    fn pruned(&self, range: LsnRange) -> Error {
        let path = self.dir.join(control::NAME);
        let stored = File::open(&path).map_err(Error::io("open", &path)).and_then(|file| control::read(&file, &path));
        match stored {
            Ok(stored) if stored.facts.start.lsn >= range.to => {
                Error::Pruned { wanted: range.from.max(self.start()), start: stored.facts.start.lsn }
            }
            Ok(_) => {
                let path = self.dir.join(file_name(range.from));
                let what = format!("this segment is missing; {}", way_back(&path));
                Error::Corrupt { path, what }
            }
            Err(error) => error,
        }
    }

    fn note_unreadable(&mut self, first: Lsn, path: PathBuf, error: Error) -> Result<()> {
        let Error::Corrupt { what, .. } = error else { return Err(error) };
        let range = LsnRange::new(first.max(self.start()), first.advance(self.geometry().body_bytes()));
        let what = format!("entries {range} can't be verified: {what}");
        self.unreadable.push(Unreadable { path, range, what });
        Ok(())
    }

    /// Notes segments that were durable and are not there.
    fn note_missing(&mut self) {
        let durable = self.evidence();
        let mut ranges: Vec<LsnRange> = self.segments.iter().map(|segment| segment.range).collect();
        ranges.extend(self.unreadable.iter().map(|unreadable| unreadable.range));
        ranges.push(LsnRange::new(durable, durable));
        ranges.sort_by_key(|range| range.from);
        let mut expected = self.start();
        for LsnRange { from, to } in ranges {
            let range = LsnRange::new(expected, from.min(durable));
            if !range.is_empty() {
                let path = self.dir.join(file_name(self.geometry().segment_of(expected)));
                let what = format!(
                    "this segment is missing: entries {range} were durable. Nothing was changed; {}",
                    way_back(&path)
                );
                self.unreadable.push(Unreadable { path, range, what });
            }
            expected = expected.max(to);
        }
        self.unreadable.sort_by_key(|unreadable| unreadable.range.from);
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The stream's identity.
    pub fn stream(&self) -> StreamId {
        self.facts.stream
    }

    /// The node that wrote this copy.
    pub fn node(&self) -> NodeId {
        self.facts.node
    }

    /// The log's geometry.
    pub fn geometry(&self) -> Geometry {
        self.facts.geometry
    }

    /// What the node is for the stream.
    pub fn role(&self) -> Role {
        self.facts.role
    }

    /// The highest term it has seen.
    pub fn term_seen(&self) -> TermSeen {
        self.facts.term_seen
    }

    /// Its epochs, as far as the control file knows them.
    pub fn history(&self) -> &History {
        &self.facts.history
    }

    /// Where the log begins.
    pub fn start(&self) -> Lsn {
        self.facts.start.lsn
    }

    /// How far it is known to be durable.
    pub fn evidence(&self) -> Lsn {
        self.evidence.durable
    }

    /// The commit point known to it.
    pub fn committed(&self) -> Lsn {
        self.evidence.committed
    }

    /// A sync failed and the journal has not been opened since.
    pub fn was_poisoned(&self) -> bool {
        self.facts.poisoned
    }

    /// The segment files whose headers can be believed, oldest first.
    pub fn segments(&self) -> &[SegmentInfo] {
        &self.segments
    }

    /// Segments in which nothing can be verified, oldest first: damage, whether a walk comes by or not.
    pub fn unreadable(&self) -> &[Unreadable] {
        &self.unreadable
    }

    /// A verified walk from `from`, or from the start of the log. Damage before `from` is no obstacle, as long as what is
    /// behind it proves itself.
    ///
    /// Errors: `Pruned`, `NotReached`; `Rot` or `Corrupt` where `from` itself lies in what is damaged. A position inside an
    /// entry is noticed by the first step.
    pub fn entries(&self, from: Option<Lsn>) -> Result<Entries<'_>> {
        let from = from.unwrap_or(self.start());
        if from < self.start() {
            return Err(Error::Pruned { wanted: from, start: self.start() });
        }
        let near = self.segments.iter().rev().map(|segment| segment.tip).find(|tip| tip.lsn <= from);
        let mut entries = Entries::new(self, near.filter(|tip| tip.lsn >= self.start()).unwrap_or(self.facts.start));
        while entries.tip().lsn < from {
            match entries.next_entry() {
                Ok(Some(_)) => {}
                Ok(None) => return Err(Error::NotReached { wanted: from, end: entries.tip().lsn }),
                Err(error) => {
                    let behind = error.class() == Class::Corrupt && entries.step_over() && entries.tip().lsn <= from;
                    if !behind {
                        return Err(error);
                    }
                }
            }
        }
        if entries.tip().lsn != from {
            return Err(Error::NotReached { wanted: from, end: entries.tip().lsn });
        }
        Ok(entries)
    }

    /// A verified walk that begins at the last segment whose entries are all younger than `at`, or earlier: for
    /// finding an instant without reading everything before it.
    pub fn entries_near(&self, at: Time) -> Result<Entries<'_>> {
        let behind = self.segments.partition_point(|segment| segment.tip.time <= at);
        let from = behind.checked_sub(1).and_then(|index| self.segments.get(index)).map(|segment| segment.tip.lsn);
        self.entries(from.filter(|&from| from > self.start()))
    }
}
