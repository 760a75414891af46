//! The entries of a plan, in order: batch by batch, then the journal, verified as one history.

use std::fmt;
use std::path::Path;

use journal::{Cursor, Entry, Kind, Lsn, Next, Time, Tip};

use crate::batch::{Batch, BatchInfo};
use crate::error::{Error, Place, Result, What};
use crate::plan::{Plan, Step, StepSource, Stop};
use crate::tail::{Tail, TailEntries};

/// A walk along a plan. One cursor goes through all of it, so that every entry links to the one before, across
/// batches and into the journal.
pub struct Source<'a> {
    plan: &'a Plan,
    tail: Option<&'a dyn Tail>,
    next_step: usize,
    now: Now<'a>,
    cursor: Cursor,
    raw: Vec<u8>,
    used: usize,
}

/// An entry as people see it: the one before a point, or behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryAt {
    /// Where it begins.
    pub lsn: Lsn,
    /// Where it ends.
    pub end: Lsn,
    /// When it was written.
    pub time: Time,
    /// What it is; `None` for a kind that this version skips.
    pub kind: Option<Kind>,
}

/// Where exactly a plan ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbours {
    /// The last entry that belongs to the restore.
    pub before: Option<EntryAt>,
    /// The first that doesn't, if it is kept.
    pub after: Option<EntryAt>,
}

enum Now<'a> {
    Between,
    Batch { batch: Box<Batch>, frame: usize, upto: Lsn },
    Journal(Box<dyn TailEntries + 'a>),
    Done,
}

impl<'a> Source<'a> {
    /// The entries of `plan`; `tail` is the journal that it was made with, if it has one. Nothing is read yet.
    pub fn new(plan: &'a Plan, tail: Option<&'a dyn Tail>) -> Source<'a> {
        let cursor = Cursor::new(plan.geometry, Tip::empty(plan.stream));
        Source { plan, tail, next_step: 0, now: Now::Between, cursor, raw: Vec::new(), used: 0 }
    }

    /// Where the walk stands: behind the last entry that was handed out.
    pub fn tip(&self) -> Tip {
        *self.cursor.tip()
    }

    /// The next entry; `None` at the plan's end. Blocking: reads and unpacks a frame (about 1 MiB) at a time.
    ///
    /// # Errors
    /// `Damaged` with file and range; `Diverged` when a step doesn't link to the one before. The walk then stands
    /// where it stood, and gives the same error again.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_>>> {
        self.prepare()?;
        let Stop { lsn, time } = self.plan.stop;
        let inside =
            |entry: &Entry<'_>| entry.header.range().to <= lsn && time.is_none_or(|time| entry.header.time <= time);
        let geometry = self.plan.geometry;
        match &mut self.now {
            Now::Between | Now::Done => Ok(None),
            Now::Journal(entries) => {
                let end = entries.tip();
                let Some(entry) = entries.next_entry()? else {
                    return match end.lsn >= lsn {
                        true => Ok(None),
                        false => Err(ends_early(end.lsn, lsn)),
                    };
                };
                if !inside(&entry) {
                    return Ok(None);
                }
                let header = entry.header;
                let (lsn, chain, time) = (header.range().to, header.chain, header.time);
                let tip = Tip { lsn, chain, time, epoch: header.epoch, run_id: header.run_id };
                self.cursor = Cursor::new(geometry, tip);
                Ok(Some(entry))
            }
            Now::Batch { batch, frame, upto } => {
                let mut ahead = self.cursor;
                let place = batch.frame(frame.saturating_sub(1)).map(|frame| frame.place());
                let place = place.unwrap_or(Place::Bytes { from: 0, to: 0 });
                let next = ahead.next(self.raw.get(self.used..).unwrap_or_default());
                let next = next.map_err(|fault| batch.damaged(place, What::Entry(fault)))?;
                let Next::Entry(entry) = next else { return Err(batch.damaged(place, What::Size)) };
                // nothing moves, so that asking again gives the same answer
                if !inside(&entry) {
                    return Ok(None);
                }
                if entry.header.range().to > *upto {
                    return Err(batch.damaged(place, What::Contradiction("no entry ends where another line leaves it")));
                }
                self.cursor = ahead;
                self.used += entry.header.range().bytes() as usize;
                Ok(Some(entry))
            }
        }
    }

    /// The last entry of the plan and the first one behind it, for people. Reads a few frames of batches at most; a
    /// journal from where the plan enters it.
    pub fn neighbours(plan: &Plan, tail: Option<&dyn Tail>) -> Result<Neighbours> {
        let mut found = Neighbours { before: None, after: None };
        // a time between two batches leaves nothing of the last step: the entry before it ends the step before
        let last = plan.steps.len().saturating_sub(2);
        for step in plan.steps.iter().skip(last).chain(&plan.beyond) {
            look(step, tail, plan.stop, &mut found)?;
            if found.after.is_some() {
                break;
            }
        }
        Ok(found)
    }

    /// Makes sure that the next entry's bytes are there, or that there are none.
    fn prepare(&mut self) -> Result<()> {
        loop {
            match &mut self.now {
                Now::Done | Now::Journal(_) => return Ok(()),
                Now::Between => {
                    let Some(step) = self.plan.steps.get(self.next_step) else {
                        self.now = Now::Done;
                        return Ok(());
                    };
                    self.now = self.enter(step)?;
                    self.next_step += 1;
                    self.raw.clear();
                    self.used = 0;
                }
                Now::Batch { batch, frame, upto } => {
                    let at = self.cursor.tip().lsn;
                    if at >= (*upto).min(self.plan.stop.lsn) {
                        self.now = Now::Between;
                        if at >= self.plan.stop.lsn {
                            self.now = Now::Done;
                        }
                        continue;
                    }
                    if self.used < self.raw.len() {
                        return Ok(());
                    }
                    let Some(next) = batch.frame(*frame) else {
                        let info = batch.info();
                        let place = Place::Bytes { from: 0, to: info.file_bytes };
                        return Err(batch.damaged(place, What::Contradiction("it ends before its last entry")));
                    };
                    let next = *next;
                    batch.unpack(&next, &mut self.raw)?;
                    self.used = 0;
                    *frame += 1;
                }
            }
        }
    }

    fn enter(&self, step: &Step) -> Result<Now<'a>> {
        let here = *self.cursor.tip();
        match &step.source {
            StepSource::Batch { path, info } => {
                let batch = reopen(path, info)?;
                if batch.info().first != here {
                    return Err(diverged(path, &here, &batch.info().first));
                }
                Ok(Now::Batch { batch: Box::new(batch), frame: 0, upto: step.range.to })
            }
            StepSource::Journal { path } => {
                let entries = journal_of(self.tail, path)?.read(here.lsn)?;
                let there = entries.tip();
                if (there.lsn, there.chain) != (here.lsn, here.chain) {
                    return Err(diverged(path, &here, &there));
                }
                Ok(Now::Journal(entries))
            }
        }
    }
}

impl journal::Source for Source<'_> {
    type Error = Error;

    fn next_entry(&mut self) -> Result<Option<Entry<'_>>> {
        Source::next_entry(self)
    }
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("tip", self.cursor.tip()).field("next_step", &self.next_step).finish()
    }
}

fn look(step: &Step, tail: Option<&dyn Tail>, stop: Stop, found: &mut Neighbours) -> Result<()> {
    let mut see = |entry: &Entry<'_>| {
        let header = entry.header;
        let at = EntryAt { lsn: header.lsn, end: header.range().to, time: header.time, kind: header.kind };
        let inside = at.end <= stop.lsn && stop.time.is_none_or(|time| at.time <= time);
        match inside {
            true => found.before = Some(at),
            false => found.after = Some(at),
        }
        inside
    };
    match &step.source {
        StepSource::Journal { path } => {
            let mut entries = journal_of(tail, path)?.read(step.range.from)?;
            while let Some(entry) = entries.next_entry()? {
                if !see(&entry) {
                    break;
                }
            }
            Ok(())
        }
        StepSource::Batch { path, info } => {
            let batch = reopen(path, info)?;
            let by_lsn = batch.frame_holding(stop.lsn);
            let from = stop.time.map_or(by_lsn, |time| by_lsn.min(batch.frame_holding_time(time)));
            let mut raw = Vec::new();
            // the entry before the point may end the frame before
            for frame in (from.saturating_sub(1)..batch.frame_count()).filter_map(|index| batch.frame(index)) {
                batch.unpack(frame, &mut raw)?;
                let mut cursor = Cursor::new(info.geometry, frame.first);
                let mut rest = &raw[..];
                while !rest.is_empty() && cursor.tip().lsn < step.range.to {
                    let next = cursor.next(rest).map_err(|fault| batch.damaged(frame.place(), What::Entry(fault)))?;
                    let Next::Entry(entry) = next else { return Err(batch.damaged(frame.place(), What::Size)) };
                    if !see(&entry) {
                        return Ok(());
                    }
                    rest = rest.get(entry.header.range().bytes() as usize..).unwrap_or_default();
                }
            }
            Ok(())
        }
    }
}

/// Opens a planned batch; a file that changed since the plan was made is not the one that was planned with.
fn reopen(path: &Path, info: &BatchInfo) -> Result<Batch> {
    let batch = Batch::open(path)?;
    if batch.info() != info {
        let what = "this batch is not the one that the plan was made with. Plan again".into();
        return Err(Error::Diverged { path: path.to_owned(), what });
    }
    Ok(batch)
}

fn journal_of<'a>(tail: Option<&'a dyn Tail>, path: &Path) -> Result<&'a dyn Tail> {
    tail.ok_or_else(|| Error::Absent { path: path.to_owned(), what: "the plan needs this journal".into() })
}

fn diverged(path: &Path, here: &Tip, there: &Tip) -> Error {
    let what = format!(
        "it doesn't link to what was read before it: LSN {} chain {} there, LSN {} chain {} here. It belongs to another line; leave it out, or choose one with --epoch",
        here.lsn, here.chain, there.lsn, there.chain
    );
    Error::Diverged { path: path.to_owned(), what }
}

fn ends_early(end: Lsn, wanted: Lsn) -> Error {
    Error::NotReached {
        what: format!("the journal ends at LSN {end}, below LSN {wanted} that it had when the plan was made"),
    }
}
