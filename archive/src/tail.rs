//! The journal behind the batches, as far as a restore needs it.

use std::path::{Path, PathBuf};

use journal::{Entry, Epoch, EpochEntry, Geometry, Kind, Lsn, StreamId, Time, Tip};

use crate::batch::Mark;
use crate::error::Result;

/// A journal that can be read from an entry on.
pub trait Tail {
    /// Where it lies, for messages.
    fn path(&self) -> &Path;
    /// Whose it is.
    fn stream(&self) -> StreamId;
    /// How it is laid out.
    fn geometry(&self) -> Geometry;
    /// The lowest position that it still keeps.
    fn start(&self) -> Lsn;
    /// A place, not far before its end, that is known to be part of it: a walk to the end may begin there.
    fn near_end(&self) -> Lsn;
    /// Every run that it knows to have begun below [`Tail::near_end`], oldest first.
    fn runs(&self) -> Vec<Run>;
    /// Verified entries from `from` on, at which an entry begins.
    fn read(&self, from: Lsn) -> Result<Box<dyn TailEntries + '_>>;
}

/// A walk along a journal.
pub trait TailEntries {
    /// The tip that the next entry follows.
    fn tip(&self) -> Tip;
    /// The next entry; `None` at the end.
    fn next_entry(&mut self) -> Result<Option<Entry<'_>>>;
}

/// What a journal covers: all that a plan wants to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// Where it lies, for messages.
    pub path: PathBuf,
    /// Whose it is.
    pub stream: StreamId,
    /// How it is laid out.
    pub geometry: Geometry,
    /// The lowest position that it still keeps.
    pub start: Lsn,
    /// The tip behind its last entry.
    pub end: Tip,
    /// Time of its first entry.
    pub first_time: Time,
    /// Whose runs its entries belong to, oldest first.
    pub runs: Vec<Run>,
    /// The marks inside.
    pub marks: Vec<Mark>,
}

/// Where a run begins, as far as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its random id.
    pub run_id: u64,
    /// Its first entry, or the start of what is kept.
    pub first: Lsn,
}

impl Coverage {
    /// Reads and verifies a whole journal. Blocking.
    pub fn scan(tail: &dyn Tail) -> Result<Coverage> {
        Coverage::nothing(tail).walk(tail, tail.start())
    }

    /// The same without its marks, from its two ends: whoever restores from it reads and verifies what lies between.
    /// Blocking, but not for long.
    pub fn ends(tail: &dyn Tail) -> Result<Coverage> {
        let (start, near) = (tail.start(), tail.near_end());
        let mut found = Coverage::nothing(tail);
        let runs = tail.runs();
        let in_force = runs.iter().rposition(|run| run.first <= start);
        let (Some(in_force), true) = (in_force, near > start) else { return Coverage::scan(tail) };
        let kept = runs.iter().skip(in_force).filter(|run| run.first < near);
        found.runs.extend(kept.map(|run| Run { first: run.first.max(start), ..*run }));
        if let Some(first) = tail.read(start)?.next_entry()? {
            found.first_time = first.header.time;
        }
        found.walk(tail, near)
    }

    fn nothing(tail: &dyn Tail) -> Coverage {
        Coverage {
            path: tail.path().to_owned(),
            stream: tail.stream(),
            geometry: tail.geometry(),
            start: tail.start(),
            end: Tip::empty(tail.stream()),
            first_time: Time::ZERO,
            runs: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// Goes on from `from` to the end.
    fn walk(mut self, tail: &dyn Tail, from: Lsn) -> Result<Coverage> {
        let mut entries = tail.read(from)?;
        self.end = entries.tip();
        while let Some(entry) = entries.next_entry()? {
            let header = entry.header;
            if self.first_time == Time::ZERO {
                self.first_time = header.time;
            }
            let begins = header.kind == Some(Kind::Epoch) && EpochEntry::decode(entry.payload).is_some();
            if begins || self.runs.is_empty() {
                self.runs.push(Run { epoch: header.epoch, run_id: header.run_id, first: header.lsn });
            }
            self.marks.extend(Mark::of(&entry));
            self.end = entries.tip();
        }
        Ok(self)
    }
}
