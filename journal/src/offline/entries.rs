//! A verified walk over the files of a journal. Memory is bounded by the longest entry, whatever a damaged header claims.

use std::fs::File;
use std::io;

use zerocopy::FromBytes;

use super::{Log, SegmentInfo};
use crate::cursor::{Cursor, Fault, FaultKind, Next, Tip};
use crate::entry::{Entry, Header, RawHeader};
use crate::error::{Error, Result};
use crate::geometry::{
    ENTRY_ALIGN, EPOCH_ROOM_BYTES, HEADER_BYTES, PAYLOAD_BYTES_MAX, SEGMENT_HEADER_BYTES, entry_bytes,
};
use crate::id::StreamId;
use crate::lsn::{Lsn, LsnRange};
use crate::pread::fill;
use crate::recovery::{believable_at, newer, next_entry, written_here};
use crate::segment::SegmentHeader;

/// Read at once from a segment file.
const READ_BYTES: u64 = 1 << 20;
/// No entry is longer: a `Pad` is the longest.
const ENTRY_BYTES_MAX: u64 = entry_bytes(PAYLOAD_BYTES_MAX) + EPOCH_ROOM_BYTES;

/// A verified walk over the files of a journal.
#[derive(Debug)]
pub struct Entries<'a> {
    log: &'a Log,
    cursor: Cursor,
    buffer: Vec<u8>,
    /// Bytes of the buffer that the cursor has passed.
    used: usize,
    file: Option<(&'a SegmentInfo, File)>,
    /// Why there is no next entry, once the end was met.
    end: Option<Fault>,
    /// An entry of this log was begun there.
    torn: bool,
}

impl<'a> Entries<'a> {
    pub(super) fn new(log: &'a Log, tip: Tip) -> Entries<'a> {
        let cursor = Cursor::new(log.facts.geometry, tip);
        Entries { log, cursor, buffer: Vec::new(), used: 0, file: None, end: None, torn: false }
    }

    /// The next entry; `None` at the end of the log. A bad entry above the known durable point ends the log (see
    /// [`Entries::torn`]), unless entries behind it say that it was durable; one below it is `Rot` with the exact range.
    /// One that needs a newer version is `Incompatible`, wherever it stands.
    ///
    /// After an error the walk stands where it stood; [`Entries::step_over`] goes on.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_>>> {
        if self.end.is_some() {
            return Ok(None);
        }
        let at = self.cursor.tip().lsn;
        if self.log.facts.cut.is_some_and(|cut| at >= cut) {
            return Ok(None);
        }
        self.load_entry()?;
        let mut durable = self.log.evidence.durable;
        let mut step = self.step();
        if let Err(fault) = step
            && fault.at >= durable
        {
            let behind = self.behind(fault.at)?;
            if behind.is_something {
                // where a node writes on, that may be younger than what was read here
                self.forget();
                self.load_entry()?;
                step = self.step();
            }
            durable = durable.max(behind.durable);
            self.torn = behind.is_something || self.begins_here(fault.at);
        }
        match step {
            Ok(Some(header)) => {
                let payload = self.used + HEADER_BYTES..self.used + header.length as usize;
                self.used += header.range().bytes() as usize;
                Ok(Some(Entry { header, payload: &self.buffer[payload] }))
            }
            Ok(None) if at < durable => {
                let segment_end = at.advance(self.log.facts.geometry.room(at));
                Err(self.rot(Fault { at, kind: FaultKind::Short, to: durable.min(segment_end) }, durable)?)
            }
            Ok(None) => Ok(None),
            Err(fault) if fault.kind == FaultKind::Unknown => {
                let path = self.file.as_ref().map_or(&self.log.dir, |(segment, _)| &segment.path);
                Err(newer(path, &fault))
            }
            Err(fault) if fault.at < durable => Err(self.rot(fault, durable)?),
            Err(fault) => {
                self.end = Some(fault);
                Ok(None)
            }
        }
    }

    /// Moves the cursor behind the next entry in the buffer; `None` when it isn't there whole.
    fn step(&mut self) -> std::result::Result<Option<Header>, Fault> {
        Ok(match self.cursor.next(&self.buffer[self.used..])? {
            Next::Entry(entry) => Some(entry.header),
            Next::Need(_) => None,
        })
    }

    /// Where the walk stands.
    pub fn tip(&self) -> &Tip {
        self.cursor.tip()
    }

    /// Why the log ended where it did, if an entry of it was begun there: not over zeros, and not over what a recycled file
    /// held before.
    pub fn torn(&self) -> Option<&Fault> {
        self.end.as_ref().filter(|_| self.torn)
    }

    /// After damage: goes to where the log can be verified again. That is right behind an entry of which the payload alone
    /// is damaged, for the chain proves its header; else the next segment, which carries the chain up to it. `false` when
    /// there is none.
    pub fn step_over(&mut self) -> bool {
        let at = *self.cursor.tip();
        let bytes = match self.load_entry() {
            Ok(()) => &self.buffer[self.used..],
            Err(_) => &[],
        };
        let mut probe = self.cursor;
        if let Err(Fault { kind: FaultKind::Payload | FaultKind::Padding, to, .. }) = probe.next(bytes)
            && let Some(Header { chain, time, epoch, run_id, .. }) = header(bytes)
        {
            self.used += to.bytes_since(at.lsn) as usize;
            self.cursor = Cursor::new(self.log.facts.geometry, Tip { lsn: to, chain, time, epoch, run_id });
            return true;
        }
        let later = |from: &Lsn| *from > at.lsn;
        let segment = self.log.segments.iter().map(|segment| segment.tip).find(|tip| later(&tip.lsn));
        // nothing is read there but the error; the tip counts for its place alone
        let unreadable = self.log.unreadable.iter().map(|bad| bad.range.from).find(later).map(|lsn| Tip { lsn, ..at });
        let Some(next) = [segment, unreadable].into_iter().flatten().min_by_key(|tip| tip.lsn) else { return false };
        self.cursor = Cursor::new(self.log.facts.geometry, next);
        self.forget();
        true
    }

    /// Has the whole next entry in the buffer, as far as the files have it. Its header is believed for nothing but how
    /// much to read, and no further than an entry can reach.
    fn load_entry(&mut self) -> Result<()> {
        if self.buffer.len() - self.used < HEADER_BYTES && !self.fill(HEADER_BYTES as u64)? {
            return Ok(());
        }
        let Some((length, _)) = self.buffer[self.used..].split_first_chunk() else { return Ok(()) };
        let payload_bytes = (u32::from_le_bytes(*length) as usize).saturating_sub(HEADER_BYTES);
        let room = self.log.facts.geometry.room(self.cursor.tip().lsn);
        let wanted = entry_bytes(payload_bytes).min(room).min(ENTRY_BYTES_MAX);
        if ((self.buffer.len() - self.used) as u64) < wanted {
            self.fill(wanted)?;
        }
        Ok(())
    }

    /// Has at least `wanted` unread bytes in the buffer; `false` when the files don't have them.
    fn fill(&mut self, wanted: u64) -> Result<bool> {
        let at = self.cursor.tip().lsn;
        let holds = |range: LsnRange| range.from <= at && at < range.to;
        if self.file.as_ref().is_none_or(|(segment, _)| !holds(segment.range)) {
            self.forget();
            if let Some(bad) = self.log.unreadable.iter().find(|bad| holds(bad.range)) {
                return Err(bad.error());
            }
            let Some(segment) = self.log.segments.iter().find(|segment| holds(segment.range)) else {
                return Ok(false);
            };
            let file = self.open(segment)?;
            self.file = Some((segment, file));
        }
        let Some((segment, file)) = &self.file else { return Ok(false) };
        self.used = 0;
        let read = read(segment, file, self.log.facts.stream, at, READ_BYTES.max(wanted), &mut self.buffer);
        if read.is_err() {
            self.forget();
        }
        read.map(|()| self.buffer.len() as u64 >= wanted)
    }

    fn open(&self, segment: &SegmentInfo) -> Result<File> {
        File::open(&segment.path).map_err(|error| match error.kind() {
            // a running node may have given it up meanwhile
            io::ErrorKind::NotFound => self.log.pruned(segment.range),
            _ => Error::io("open", &segment.path)(error),
        })
    }

    fn forget(&mut self) {
        self.buffer.clear();
        (self.used, self.file) = (0, None);
    }

    /// Whether the bytes at `at` claim to be the entry there.
    fn begins_here(&self, at: Lsn) -> bool {
        let header = header(&self.buffer[self.used..]);
        header.is_some_and(|header| header.length > 0 && header.lsn == at)
    }

    /// What stands behind `at`, in its segment and in later ones.
    fn behind(&self, at: Lsn) -> Result<Behind> {
        let facts = &self.log.facts;
        let mut behind = Behind { is_something: false, durable: Lsn::ZERO };
        for segment in self.log.segments.iter().filter(|segment| segment.range.to > at) {
            let file = self.open(segment)?;
            let mut from = segment.range.from.max(at.advance(ENTRY_ALIGN as u64));
            while let Some(header) = self.search(segment, &file, from)? {
                behind.is_something = true;
                // entries that this node itself wrote say what was durable when they were written
                if header.durable > at && written_here(&facts.history, header.run_id, facts.node) {
                    behind.durable = behind.durable.max(header.durable);
                }
                from = header.range().to;
            }
        }
        Ok(behind)
    }

    /// The first entry of this segment at or behind `from` that can be believed by itself: its header names its place, and
    /// its payload matches.
    fn search(&self, segment: &SegmentInfo, file: &File, from: Lsn) -> Result<Option<Header>> {
        let (mut from, mut bytes) = (from, Vec::new());
        while from < segment.range.to {
            // an entry that begins in the first part lies in the whole of it
            read(segment, file, self.log.facts.stream, from, READ_BYTES + ENTRY_BYTES_MAX, &mut bytes)?;
            let found = match believable_at(&bytes, from) {
                Some(_) => Some(from),
                None => next_entry(&bytes, from).filter(|lsn| lsn.bytes_since(from) < READ_BYTES),
            };
            if let Some(lsn) = found {
                return Ok(header(&bytes[lsn.bytes_since(from) as usize..]));
            }
            from = from.advance(READ_BYTES);
        }
        Ok(None)
    }

    /// The error for an entry that was durable. Where its header can't be believed, the range ends at the next entry that
    /// can be found behind it, or at the end of its segment.
    fn rot(&self, fault: Fault, durable: Lsn) -> Result<Error> {
        let Some((segment, file)) = &self.file else {
            let what = format!("the log ends at LSN {}, but was durable up to {durable}", fault.at);
            return Ok(Error::Corrupt { path: self.log.dir.clone(), what });
        };
        let to = match fault.to > fault.at {
            true => fault.to,
            false => self
                .search(segment, file, fault.at.advance(ENTRY_ALIGN as u64))?
                .map_or(segment.range.to, |header| header.lsn),
        };
        Ok(Error::Rot { path: segment.path.clone(), range: LsnRange::new(fault.at, to), fault, durable })
    }
}

/// Reads at most `wanted` bytes from `at` on, no further than to the end of the segment or of its file.
fn read(
    segment: &SegmentInfo,
    file: &File,
    stream: StreamId,
    at: Lsn,
    wanted: u64,
    buffer: &mut Vec<u8>,
) -> Result<()> {
    buffer.resize(wanted.min(segment.range.to.bytes_since(at)) as usize, 0);
    let offset = SEGMENT_HEADER_BYTES as u64 + at.bytes_since(segment.range.from);
    let filled = fill(file, buffer, offset).map_err(Error::io("read", &segment.path))?;
    buffer.truncate(filled);
    // a running node may have recycled the file meanwhile: what was read counts only if it is still the segment
    let header = SegmentHeader::read(file, &segment.path)?;
    if header.first != segment.range.from || header.stream != stream {
        return Err(Error::Pruned { wanted: at, start: segment.range.to });
    }
    Ok(())
}

/// What stands behind a place where the next entry doesn't.
struct Behind {
    /// An entry that can be believed.
    is_something: bool,
    /// How far the log was durable by its word.
    durable: Lsn,
}

fn header(bytes: &[u8]) -> Option<Header> {
    RawHeader::read_from_prefix(bytes).ok().map(|(raw, _)| raw.numbers())
}
