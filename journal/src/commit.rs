//! Written and durable: one pwrite per group and segment, one sync for everything written before it.
//!
//! Whoever needs `written` takes the open group and writes it; whoever needs `durable` syncs. The two have locks of
//! their own, so writing goes on beside a running sync.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use crate::append::Staging;
use crate::chain::Chain;
use crate::cursor::{Tip, Verified};
use crate::error::{Error, Result};
use crate::log::Journal;
use crate::lsn::Lsn;
use crate::segment::{Segment, SegmentHeader, file_name};
use crate::space::Spare;
use crate::sync::atomic::Ordering;

/// Proof that a sync which covers `lsn` has returned. Only a sync makes one: who has to show it can't acknowledge
/// early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durable {
    tip: Tip,
}

impl Durable {
    /// What recovery has synced.
    pub(crate) fn recovered(tip: Tip) -> Durable {
        Durable { tip }
    }

    /// Everything below is durable.
    pub fn lsn(&self) -> Lsn {
        self.tip.lsn
    }

    /// Chain there.
    pub fn chain(&self) -> Chain {
        self.tip.chain
    }

    /// True when the proof covers `lsn`.
    pub fn covers(&self, lsn: Lsn) -> bool {
        lsn <= self.lsn()
    }
}

/// The group that is being written, and where the segments stand.
#[derive(Debug)]
pub(crate) struct Writer {
    /// Behind the last written entry.
    tip: Tip,
    /// Taken from staging, not all written yet.
    group: Vec<u8>,
    /// How much of it is written.
    done: usize,
    /// The tip behind the group.
    group_end: Tip,
    /// Tips at the segment boundaries inside the group.
    boundaries: Vec<Tip>,
    active: Option<Arc<Segment>>,
}

/// A larger buffer isn't kept for the next group.
const GROUP_BYTES_KEPT: usize = 4 << 20;

impl Writer {
    pub(crate) fn at(tip: Tip) -> Writer {
        Writer { tip, group: Vec::new(), done: 0, group_end: tip, boundaries: Vec::new(), active: None }
    }

    /// Behind the last written entry.
    pub(crate) fn tip(&self) -> Tip {
        self.tip
    }
}

impl Journal {
    /// The end of what is written.
    pub fn written_tip(&self) -> Tip {
        self.writer().tip
    }

    /// Writes everything staged to the segments; returns the written watermark. Never waits for a sync in progress.
    ///
    /// On `Full` what is left stays staged and is written by a later call, when space returns.
    pub fn write(&self) -> Result<Lsn> {
        let staged = self.board().staged();
        if self.board().written() >= staged {
            return Ok(staged);
        }
        let mut writer = self.writer();
        self.write_staged(&mut writer)
    }

    /// Syncs everything written, after writing everything staged. One sync runs at a time; a caller that comes during
    /// one waits for it and starts the next only if it still has to.
    ///
    /// The first error of a sync is final: nothing is acknowledged after it.
    pub fn sync(&self) -> Result<Durable> {
        let staged = self.board().staged();
        let mut last = self.syncing();
        if last.covers(staged) {
            return Ok(*last);
        }
        let target = {
            let mut writer = self.writer();
            self.write_staged(&mut writer)?;
            writer.tip
        };
        if last.covers(target.lsn) {
            return Ok(*last);
        }
        let before = last.lsn();
        self.board().sync_begins();
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        let synced = self.sync_segments(before, target);
        let durable = synced.is_ok().then_some(target.lsn);
        let noted = synced.and_then(|()| {
            let committed = self.board().committed();
            self.control().note(|evidence| {
                evidence.durable = target.lsn;
                evidence.chain = target.chain;
                evidence.committed = evidence.committed.max(committed);
            })
        });
        if durable.is_some() {
            *last = Durable { tip: target };
        }
        self.board().sync_ended(durable);
        self.checked(noted)?;
        // after the waiters have been woken: once a second, and once a segment, this costs one more flush
        let rotated = self.geometry().segment_of(before) != self.geometry().segment_of(target.lsn);
        let kept = match rotated {
            true => self.control().sync_evidence(),
            false => self.control().sync_evidence_sometimes(),
        };
        // what this sync covers is durable all the same; a failure ends whatever would come after it
        if let Err(error) = self.checked(kept) {
            tracing::warn!(%error, "sync the evidence");
        }
        Ok(*last)
    }

    /// A receiver's append: writes verified entries that continue the log, one pwrite per segment.
    ///
    /// Errors: `Gap` when they don't continue it, `Full` (try again when space returns).
    pub fn extend(&self, run: &Verified<'_>) -> Result<Lsn> {
        let mut writer = self.writer();
        let mut staging = self.staging();
        self.check_end()?;
        if staging.tip != *run.first() || writer.tip != *run.first() {
            return Err(Error::Gap { offered: run.range().from, end: staging.tip.lsn });
        }
        let end = run.range().to;
        if run.range().is_empty() {
            return Ok(end);
        }
        self.discard_unreached(&mut writer, &mut staging)?;
        // only when it must: the flush thread may be syncing a spare, on a disk that hangs, and this one only receives
        let reserved_to = match end > staging.reserved_to {
            true => self.reserve_to(end)?,
            false => staging.reserved_to,
        };
        if !run.openings().is_empty() {
            // before evidence can move past an opening, the control file knows it
            self.change(|facts| {
                for opening in run.openings() {
                    facts.history.cut(opening.first);
                    if facts.history.push(*opening) {
                        facts.opened_last = facts.opened_last.max(opening.epoch);
                    }
                    if opening.epoch.term > facts.term_seen.term {
                        facts.term_seen = opening.term_seen();
                    }
                }
            })?;
        }
        self.write_run(&mut writer, run.range().from, run.bytes(), run.boundaries())?;
        writer.tip = *run.last();
        staging.restart(*run.last(), reserved_to);
        self.board().set_staged(end);
        self.board().advance_written(end);
        Ok(end)
    }

    fn write_staged(&self, writer: &mut Writer) -> Result<Lsn> {
        loop {
            self.check_end()?;
            if writer.done == writer.group.len() {
                writer.group.clear();
                writer.group.shrink_to(GROUP_BYTES_KEPT);
                writer.done = 0;
                let mut staging = self.staging();
                if staging.group.is_empty() {
                    return Ok(writer.tip.lsn);
                }
                std::mem::swap(&mut writer.group, &mut staging.group);
                writer.boundaries.clear();
                std::mem::swap(&mut writer.boundaries, &mut staging.boundaries);
                writer.group_end = staging.tip;
            }
            let group = std::mem::take(&mut writer.group);
            let boundaries = std::mem::take(&mut writer.boundaries);
            let from = writer.tip.lsn;
            let written = self.write_run(writer, from, &group, &boundaries);
            writer.group = group;
            writer.boundaries = boundaries;
            written?;
            writer.done = writer.group.len();
            writer.tip = writer.group_end;
            self.board().advance_written(writer.tip.lsn);
        }
    }

    /// Writes `bytes` from `from` on, opening the segments that they reach into. Written twice it is the same bytes.
    fn write_run(&self, writer: &mut Writer, from: Lsn, bytes: &[u8], boundaries: &[Tip]) -> Result<()> {
        let mut at = from;
        let mut rest = bytes;
        while !rest.is_empty() {
            let segment = self.active_at(writer, at, boundaries)?;
            let room = segment.end().bytes_since(at) as usize;
            let (chunk, behind) = rest.split_at(room.min(rest.len()));
            if let Err(source) = segment.write(at, chunk) {
                let error = Error::io("write", &segment.path)(source);
                return match error {
                    Error::Full { .. } => Err(error),
                    // a write that failed for another reason leaves the page cache in doubt, like a failed sync
                    _ => self.checked(Err(self.poisoned(&segment.path, &error))),
                };
            }
            at = at.advance(chunk.len() as u64);
            rest = behind;
        }
        Ok(())
    }

    fn active_at(&self, writer: &mut Writer, at: Lsn, boundaries: &[Tip]) -> Result<Arc<Segment>> {
        let first = self.geometry().segment_of(at);
        if let Some(active) = &writer.active
            && active.first() == first
        {
            return Ok(Arc::clone(active));
        }
        let segment = match self.segment_at(at) {
            Some(segment) => segment,
            None => {
                let tip = boundaries.iter().chain([&writer.tip]).find(|tip| tip.lsn == at).copied();
                self.open_segment(first, tip.ok_or(Error::Gap { offered: at, end: writer.tip.lsn })?)?
            }
        };
        writer.active = Some(Arc::clone(&segment));
        Ok(segment)
    }

    /// Removes the segments behind the one that the log ends in; durable when it returns. They were opened for entries that
    /// didn't come whole: others will come instead, and what the headers say of those before them is then wrong. Not
    /// recycled: bytes of another history stand where new ones will.
    pub(crate) fn discard_unreached(&self, writer: &mut Writer, staging: &mut Staging) -> Result<()> {
        let behind = self.geometry().segment_of(writer.tip.lsn).advance(self.geometry().body_bytes());
        let is_unreached = |segment: &&Arc<Segment>| segment.first() >= behind;
        if self.segments().last().filter(is_unreached).is_none() {
            return Ok(());
        }
        let storage = &self.shared.options.host.storage;
        let mut space = self.space();
        let mut segments = self.segments_mut();
        writer.active = None;
        let mut removed = Ok(());
        while removed.is_ok()
            && let Some(last) = segments.last().filter(is_unreached)
        {
            removed = storage.remove(&last.path).map_err(Error::io("remove", &last.path));
            if removed.is_ok() {
                segments.pop();
                space.forget();
            }
        }
        space.segments_end_at(segments.last().map_or(behind, |last| last.end()));
        staging.reserved_to = space.reserved_to();
        drop((space, segments));
        removed?;
        let synced = storage.sync_dir(self.dir());
        synced.or_else(|source| self.checked(Err(self.poisoned(self.dir(), &source))))
    }

    /// Turns a spare into the segment at `first`: header, sync, name, folder sync, and only then the first entry.
    fn open_segment(&self, first: Lsn, tip: Tip) -> Result<Arc<Segment>> {
        self.reserve_to(first.advance(self.geometry().body_bytes()))?;
        let spare = self.space().take()?;
        let path = self.dir().join(file_name(first));
        match self.dress(&spare, &path, first, tip) {
            Ok(segment) => {
                let segment = Arc::new(segment);
                self.segments_mut().push(Arc::clone(&segment));
                self.board().demand(); // the next one is to be made ready
                Ok(segment)
            }
            Err(error) => {
                self.space().put_back(spare); // after a failed sync nobody takes it any more
                Err(error)
            }
        }
    }

    fn dress(&self, spare: &Spare, path: &Path, first: Lsn, tip: Tip) -> Result<Segment> {
        let storage = &self.shared.options.host.storage;
        let opening = self.control().facts.history.of(tip.epoch).copied();
        let header = SegmentHeader { stream: self.stream(), geometry: self.geometry(), first, tip, opening };
        spare.file.write_at(&header.encode(), 0).map_err(Error::io("write", &spare.path))?;
        let synced = spare.file.sync();
        synced.or_else(|source| self.checked(Err(self.poisoned(&spare.path, &source))))?;
        let segment = Segment::from_file(path.to_owned(), Arc::clone(&spare.file), header)?;
        // a folder that can't be opened would be a sync that failed: a descriptor is kept back for it
        let kept_back = File::open(self.dir()).map_err(Error::io("open", self.dir()))?;
        storage.rename(&spare.path, path).map_err(Error::io("rename", &spare.path))?;
        drop(kept_back);
        let named = storage.sync_dir(self.dir());
        named.or_else(|source| self.checked(Err(self.poisoned(self.dir(), &source))))?;
        Ok(segment)
    }

    fn sync_segments(&self, durable: Lsn, target: Tip) -> Result<()> {
        let dirty: Vec<_> = {
            let segments = self.segments();
            let touched = segments.iter().filter(|segment| segment.end() > durable && segment.first() < target.lsn);
            touched.map(Arc::clone).collect()
        };
        for segment in dirty {
            segment.sync().or_else(|source| {
                let poisoned = self.poisoned(&segment.path, &source);
                self.note_poison();
                self.checked(Err(poisoned))
            })?;
        }
        Ok(())
    }

    /// Makes sure that there is room for `bytes` more and for a whole segment behind them: what a receiver that had none
    /// asks before it lets itself be counted on again. Blocking: segments may be written in full.
    ///
    /// Errors: `Full`; the segments that could be made are kept for the next attempt.
    pub fn make_room(&self, bytes: u64) -> Result<()> {
        let end = self.board().staged().advance(bytes);
        self.reserve_to(end.advance(self.geometry().body_bytes())).map(drop)
    }

    pub(crate) fn poisoned(&self, path: &Path, cause: &dyn std::fmt::Display) -> Error {
        Error::Poisoned { path: path.to_owned(), cause: cause.to_string(), durable: self.board().durable() }
    }

    /// Best effort: the next opening trusts nothing behind the known durable point anyway.
    fn note_poison(&self) {
        if let Err(error) = self.control().change(|facts| facts.poisoned = true) {
            tracing::warn!(%error, "note the failed sync in the control file");
        }
    }
}
