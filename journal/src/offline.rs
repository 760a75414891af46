//! Reading a journal without opening it: no lock, nothing changed, every byte verified in an own buffer. For `verify`,
//! `restore`, `journal dump` and for a node that does not answer.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::control::{self, Evidence, Facts, Role};
use crate::cursor::{Cursor, Fault, FaultKind, Next, Tip};
use crate::entry::Entry;
use crate::epoch::{History, TermSeen};
use crate::error::{Error, Result, way_back};
use crate::geometry::{Geometry, HEADER_BYTES, SEGMENT_HEADER_BYTES, entry_bytes};
use crate::id::{NodeId, StreamId};
use crate::lsn::{Lsn, LsnRange};
use crate::recovery::{next_entry, segment_paths};
use crate::segment::{SegmentHeader, file_name};
use crate::time::Time;

/// Read at once from a segment file.
const READ_BYTES: usize = 1 << 20;

/// A journal on disk, looked at from outside.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    facts: Facts,
    evidence: Evidence,
    segments: Vec<SegmentInfo>,
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

impl Log {
    /// Looks at the journal in `dir`. Errors: `Absent`, `Corrupt`, `Io`.
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
        let mut segments = Vec::new();
        let start = facts.geometry.segment_of(facts.start.lsn);
        for (first, path) in segment_paths(dir)? {
            if first < start || facts.cut.is_some_and(|cut| first >= cut) {
                continue;
            }
            let file = File::open(&path).map_err(Error::io("open", &path))?;
            let header = SegmentHeader::read(&file, &path)?;
            if header.stream != facts.stream || header.first != first || header.geometry != facts.geometry {
                let what = format!(
                    "its header says stream {} at LSN {}, but this is a segment of stream {} at LSN {first}; {}",
                    header.stream,
                    header.first,
                    facts.stream,
                    way_back(&path)
                );
                return Err(Error::Corrupt { path, what });
            }
            let range = LsnRange::new(first, first.advance(facts.geometry.body_bytes()));
            segments.push(SegmentInfo { path, range, tip: header.tip });
        }
        Ok(Log { dir: dir.to_owned(), facts, evidence, segments })
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

    /// The segment files, oldest first.
    pub fn segments(&self) -> &[SegmentInfo] {
        &self.segments
    }

    /// A verified walk from `from`, or from the start of the log.
    ///
    /// Errors: `Pruned`, `NotReached`. A position inside an entry is noticed by the first step.
    pub fn entries(&self, from: Option<Lsn>) -> Result<Entries<'_>> {
        let from = from.unwrap_or(self.start());
        if from < self.start() {
            return Err(Error::Pruned { wanted: from, start: self.start() });
        }
        let first = self.facts.geometry.segment_of(from);
        let segment = self.segments.iter().position(|segment| segment.range.from == first);
        let tip = match segment.and_then(|index| self.segments.get(index)) {
            Some(segment) if segment.tip.lsn >= self.start() => segment.tip,
            _ => self.facts.start,
        };
        let mut entries = Entries {
            log: self,
            cursor: Cursor::new(self.facts.geometry, tip),
            buffer: Vec::new(),
            buffer_at: tip.lsn,
            used: 0,
            file: None,
            torn: None,
        };
        while entries.tip().lsn < from {
            if entries.next_entry()?.is_none() {
                return Err(Error::NotReached { wanted: from, end: entries.tip().lsn });
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

/// A verified walk over the files of a journal.
#[derive(Debug)]
pub struct Entries<'a> {
    log: &'a Log,
    cursor: Cursor,
    buffer: Vec<u8>,
    /// LSN of the buffer's first byte.
    buffer_at: Lsn,
    /// Bytes of the buffer that the cursor has passed.
    used: usize,
    file: Option<(LsnRange, File)>,
    torn: Option<Fault>,
}

impl Entries<'_> {
    /// The next entry; `None` at the end of the log. A bad entry above the known durable point ends the log (see
    /// [`Entries::torn`]); one below it is `Rot` with the exact range.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_>>> {
        if self.torn.is_some() {
            return Ok(None);
        }
        let at = self.cursor.tip().lsn;
        if self.log.facts.cut.is_some_and(|cut| at >= cut) {
            return Ok(None);
        }
        self.load_entry()?;
        let durable = self.log.evidence.durable;
        match self.cursor.next(&self.buffer[self.used..]) {
            Ok(Next::Entry(entry)) => {
                self.used += entry.header.range().bytes() as usize;
                Ok(Some(entry))
            }
            Ok(Next::Need(_)) if at < durable => Err(self.missing(at)),
            Ok(Next::Need(_)) => Ok(None),
            Err(fault) if fault.at < durable => Err(self.rot(fault)),
            Err(fault) => {
                self.torn = Some(fault);
                Ok(None)
            }
        }
    }

    /// Where the walk stands.
    pub fn tip(&self) -> &Tip {
        self.cursor.tip()
    }

    /// Why the log ended where it did, if something stood there that is not an entry of it.
    pub fn torn(&self) -> Option<&Fault> {
        self.torn.as_ref().filter(|fault| fault.kind != FaultKind::Zero)
    }

    /// Has the whole next entry in the buffer, as far as the files have it. Its header is believed for nothing but how
    /// much to read, and no further than to the end of the segment.
    fn load_entry(&mut self) -> Result<()> {
        if self.buffer.len() - self.used < HEADER_BYTES && !self.fill(HEADER_BYTES)? {
            return Ok(());
        }
        let Some((length, _)) = self.buffer[self.used..].split_first_chunk() else { return Ok(()) };
        let payload_bytes = (u32::from_le_bytes(*length) as usize).saturating_sub(HEADER_BYTES);
        let room = self.log.facts.geometry.room(self.cursor.tip().lsn);
        let wanted = entry_bytes(payload_bytes).min(room) as usize;
        if self.buffer.len() - self.used < wanted {
            self.fill(wanted)?;
        }
        Ok(())
    }

    /// Has at least `wanted` unread bytes in the buffer; `false` when the files don't have them.
    fn fill(&mut self, wanted: usize) -> Result<bool> {
        let at = self.cursor.tip().lsn;
        if self.file.as_ref().is_none_or(|(range, _)| at >= range.to || at < range.from) {
            let Some(segment) = self.log.segments.iter().find(|s| s.range.from <= at && at < s.range.to) else {
                return Ok(false);
            };
            let file = File::open(&segment.path).map_err(Error::io("open", &segment.path))?;
            self.file = Some((segment.range, file));
        }
        let Some((range, file)) = &self.file else { return Ok(false) };
        let room = range.to.bytes_since(at);
        let count = (READ_BYTES.max(wanted) as u64).min(room) as usize;
        self.buffer.resize(count, 0);
        self.buffer_at = at;
        self.used = 0;
        let offset = SEGMENT_HEADER_BYTES as u64 + at.bytes_since(range.from);
        let mut filled = 0;
        while filled < count {
            let read = file.read_at(&mut self.buffer[filled..], offset + filled as u64);
            match read.map_err(Error::io("read", &self.path(at)))? {
                0 => break,
                more => filled += more,
            }
        }
        self.buffer.truncate(filled);
        // a running node may have recycled the file meanwhile: what was read counts only if it is still the segment
        let header = SegmentHeader::read(file, &self.path(at))?;
        if header.first != range.from || header.stream != self.log.facts.stream {
            return Err(Error::Pruned { wanted: at, start: range.to });
        }
        Ok(filled >= wanted)
    }

    /// The error for a position that was durable and that the files don't have.
    fn missing(&self, at: Lsn) -> Error {
        let log = self.log;
        let durable = log.evidence.durable;
        if log.segments.iter().any(|segment| segment.range.from <= at && at < segment.range.to) {
            return self.rot(Fault { at, kind: FaultKind::Short, to: durable });
        }
        let next = log.segments.iter().map(|segment| segment.range.from).find(|&from| from > at);
        let range = LsnRange::new(at, next.unwrap_or(durable).min(durable));
        let path = log.dir.join(file_name(log.facts.geometry.segment_of(at)));
        let what =
            format!("this segment is missing: entries {range} were durable. Nothing was changed; {}", way_back(&path));
        Error::Corrupt { path, what }
    }

    fn path(&self, at: Lsn) -> PathBuf {
        let segment = self.log.segments.iter().find(|segment| segment.range.from <= at && at < segment.range.to);
        segment.map_or_else(|| self.log.dir.clone(), |segment| segment.path.clone())
    }

    fn rot(&self, fault: Fault) -> Error {
        let to = if fault.to > fault.at {
            fault.to
        } else {
            let behind = fault.at.bytes_since(self.buffer_at) as usize;
            let rest = self.buffer.get(behind..).unwrap_or_default();
            let geometry = self.log.facts.geometry;
            next_entry(rest, fault.at).unwrap_or(fault.at.advance(geometry.room(fault.at)))
        };
        Error::Rot {
            path: self.path(fault.at),
            range: LsnRange::new(fault.at, to),
            fault,
            durable: self.log.evidence.durable,
        }
    }
}
