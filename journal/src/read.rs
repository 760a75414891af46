//! Reading a live journal: slices of the map below `written`, and verified walks over them.

use std::sync::Arc;

use zerocopy::FromBytes;

use crate::cursor::{Cursor, Fault, FaultKind, Next, Tip};
use crate::entry::{Entry, RawHeader};
use crate::error::{Error, Result};
use crate::geometry::HEADER_BYTES;
use crate::log::Journal;
use crate::lsn::{Lsn, LsnRange};
use crate::recovery;
use crate::segment::{Segment, Slice};
use crate::time::Time;

impl Journal {
    /// Whole entries from `from` on, at most `bytes_max` bytes unless the first entry alone is larger, inside one
    /// segment; `None` at the end of what is written. `from` must be the beginning of an entry.
    ///
    /// The bytes are not verified here: whoever receives them does. Errors: `Pruned`, `NotReached`, `Rot`.
    pub fn slice(&self, from: Lsn, bytes_max: usize) -> Result<Option<Slice>> {
        let view = self.view(from);
        if from == view.written {
            return Ok(None);
        }
        let written = view.written;
        let segment = self.reachable(from, view)?;
        let end = written.min(segment.end());
        let to = if end.bytes_since(from) <= bytes_max as u64 {
            end
        } else {
            self.whole_entries(&segment, LsnRange::new(from, end), bytes_max as u64)?
        };
        Ok(Some(Slice::new(segment, LsnRange::new(from, to))))
    }

    /// A verified walk from `from` on, up to what is written whenever it looks. `from` must be the beginning of an
    /// entry.
    pub fn entries(&self, from: Lsn) -> Result<Entries> {
        let cuts = self.board().cuts(); // a cut from here on is the walk's to find
        match self.tip_at(from)? {
            Some(tip) => {
                Ok(Entries { journal: self.clone(), cursor: Cursor::new(self.geometry(), tip), segment: None, cuts })
            }
            None => Err(Error::NotReached { wanted: from, end: self.board().written() }),
        }
    }

    /// The tip at `lsn`, if an entry begins or ends there: its chain is what another node's log must have. Verifies
    /// from the beginning of the segment on.
    pub fn tip_at(&self, lsn: Lsn) -> Result<Option<Tip>> {
        self.without_cut(|| self.look_for_tip(lsn, self.written_tip()))
    }

    /// The same in a log that is written up to `tip`.
    pub(crate) fn look_for_tip(&self, lsn: Lsn, tip: Tip) -> Result<Option<Tip>> {
        if lsn == tip.lsn {
            return Ok(Some(tip));
        }
        let segment = self.segment_at(lsn);
        // behind the look at the segments: where pruning has taken one away, the beginning has moved before
        let start = self.start_tip();
        if lsn < start.lsn {
            return Err(Error::Pruned { wanted: lsn, start: start.lsn });
        }
        let Some(segment) = segment.filter(|_| lsn < tip.lsn) else { return Ok(None) };
        let first = if segment.header.tip.lsn < start.lsn { start } else { segment.header.tip };
        let mut cursor = Cursor::new(self.geometry(), first);
        while cursor.tip().lsn < lsn {
            self.step(&mut cursor, &segment, tip.lsn)?;
        }
        Ok((cursor.tip().lsn == lsn).then(|| *cursor.tip()))
    }

    /// The position behind the last entry that is not younger than `at`: everything written up to that instant.
    /// Looks at segment headers first, then walks one segment.
    pub fn find_time(&self, at: Time) -> Result<Lsn> {
        self.without_cut(|| self.look_for_time(at))
    }

    fn look_for_time(&self, at: Time) -> Result<Lsn> {
        let written = self.written_tip();
        let start = self.start_tip();
        if written.time <= at {
            return Ok(written.lsn);
        }
        let segment = {
            let segments = self.segments();
            let behind = segments.partition_point(|segment| segment.header.tip.time <= at);
            behind.checked_sub(1).and_then(|index| segments.get(index)).map(Arc::clone)
        };
        let Some(segment) = segment else { return Ok(start.lsn) };
        let first = if segment.header.tip.lsn < start.lsn { start } else { segment.header.tip };
        let mut cursor = Cursor::new(self.geometry(), first);
        let mut found = first.lsn;
        while cursor.tip().lsn < written.lsn.min(segment.end()) {
            self.step(&mut cursor, &segment, written.lsn)?;
            if cursor.tip().time > at {
                break;
            }
            found = cursor.tip().lsn;
        }
        Ok(found)
    }

    /// The segment that holds `at` and the end of what is written, of one instant: a cut changes both at once.
    fn view(&self, at: Lsn) -> View {
        let first = self.geometry().segment_of(at);
        let segments = self.segments();
        let index = segments.binary_search_by_key(&first, |segment| segment.first());
        let segment = index.ok().and_then(|index| segments.get(index)).map(Arc::clone);
        View { segment, written: self.board().written(), cuts: self.board().cuts() }
    }

    /// Looks again when a cut came between the looks at the tip and at the segments.
    fn without_cut<T>(&self, look: impl Fn() -> Result<T>) -> Result<T> {
        loop {
            let before = self.board().cuts();
            let found = look();
            if self.board().cuts() == before {
                return found;
            }
        }
    }

    /// The segment in which `from`, below the end of what is written, is found.
    fn reachable(&self, from: Lsn, view: View) -> Result<Arc<Segment>> {
        let start = self.start();
        if from < start {
            return Err(Error::Pruned { wanted: from, start });
        }
        if from > view.written {
            return Err(Error::NotReached { wanted: from, end: view.written });
        }
        // pruned between the two looks
        view.segment.ok_or_else(|| Error::Pruned { wanted: from, start: self.start() })
    }

    /// The end of the last whole entry within `bytes_max` of the range, or of its first entry.
    fn whole_entries(&self, segment: &Segment, range: LsnRange, bytes_max: u64) -> Result<Lsn> {
        let mut to = range.from;
        while to < range.to {
            let bytes = segment.bytes(LsnRange::new(to, range.to));
            let length = RawHeader::read_from_prefix(bytes).map(|(raw, _)| raw.length.get() as usize).unwrap_or(0);
            let entry = length.next_multiple_of(crate::geometry::ENTRY_ALIGN) as u64;
            if length < HEADER_BYTES || entry > bytes.len() as u64 {
                let fault = Fault { at: to, kind: FaultKind::Length, to };
                return Err(recovery::rot(segment, &fault, self.evidence()));
            }
            let next = to.advance(entry);
            if next.bytes_since(range.from) > bytes_max && to > range.from {
                break;
            }
            to = next;
        }
        Ok(to)
    }

    /// One verified step inside `segment`, below `written`.
    fn step<'a>(&self, cursor: &mut Cursor, segment: &'a Segment, written: Lsn) -> Result<Entry<'a>> {
        let at = cursor.tip().lsn;
        let end = written.min(segment.end());
        let fault = match cursor.next(segment.bytes(LsnRange::new(at, end))) {
            Ok(Next::Entry(entry)) => return Ok(entry),
            Ok(Next::Need(_)) => Fault { at, kind: FaultKind::Short, to: end },
            Err(fault) => fault,
        };
        Err(recovery::rot(segment, &fault, self.board().durable()))
    }
}

/// What a reader finds at one instant.
struct View {
    segment: Option<Arc<Segment>>,
    written: Lsn,
    cuts: u64,
}

/// A verified walk over a live journal. See [`Journal::entries`].
#[derive(Debug)]
pub struct Entries {
    journal: Journal,
    cursor: Cursor,
    segment: Option<Arc<Segment>>,
    cuts: u64,
}

impl Entries {
    /// The next entry; `None` at the end of what is written now: ask again after it moved.
    ///
    /// Errors: `Rot` with the exact range, `Pruned` when the walk was overtaken, `NotReached` when a cut took where it
    /// stood: nothing of the cut tail is returned after the cut.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_>>> {
        let at = self.cursor.tip().lsn;
        let mut written = self.journal.board().written();
        if at >= written {
            return Ok(None);
        }
        // after `written`: what a cut published since is then seen with the cut itself
        while self.segment.as_ref().is_none_or(|segment| segment.end() <= at)
            || self.journal.board().cuts() != self.cuts
        {
            let view = self.journal.view(at);
            if view.cuts != self.cuts {
                if self.journal.tip_at(at)? != Some(*self.cursor.tip()) {
                    return Err(Error::NotReached { wanted: at, end: view.written });
                }
                (self.segment, self.cuts) = (None, view.cuts);
                continue;
            }
            written = view.written;
            if at >= written {
                return Ok(None);
            }
            self.segment = Some(self.journal.reachable(at, view)?);
        }
        let Some(segment) = &self.segment else { return Ok(None) };
        self.journal.step(&mut self.cursor, segment, written).map(Some)
    }

    /// Where the walk stands.
    pub fn tip(&self) -> &Tip {
        self.cursor.tip()
    }
}
