//! Opening: where does the log end, and what of it may be believed?
//!
//! ```text
//!  start ........ evidence ........ end | torn tail, or nothing
//!                 |  verified, then written again and synced
//!                 walk begins at the segment that holds the evidence
//! ```
//! A bad entry above all evidence of durability is a torn tail and is cut; one below is rot and refuses.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::control::{self, Control};
use crate::cursor::{Cursor, Fault, FaultKind, Next, Tip};
use crate::entry::{EpochEntry, Header, Kind, RawHeader, crc32c};
use crate::epoch::{History, Opening};
use crate::error::{Error, Result, way_back};
use crate::geometry::{ENTRY_ALIGN, Geometry, HEADER_BYTES};
use crate::id::NodeId;
use crate::log::OpenReport;
use crate::lsn::{Lsn, LsnRange};
use crate::options::Options;
use crate::segment::{Segment, parse_name};
use crate::storage::Storage;

use zerocopy::FromBytes;

/// What recovery hands to the journal.
pub(crate) struct Recovered {
    pub(crate) control: Control,
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) tip: Tip,
    pub(crate) report: OpenReport,
}

/// The tail is written again in pieces of this size.
const REWRITE_BYTES: u64 = 1 << 20;

/// Compared at once where nothing was ever written.
static ZEROS: [u8; 4096] = [0; 4096];

/// `Absent` when there is no such folder; one that can't be looked at may well be there.
pub(crate) fn find_folder(dir: &Path) -> Result<()> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    match fs::metadata(dir) {
        Ok(found) if found.is_dir() => Ok(()),
        Err(error) if !matches!(error.kind(), NotFound | NotADirectory) => Err(Error::io("look at", dir)(error)),
        _ => Err(Error::Absent { path: dir.to_owned(), what: "no such folder" }),
    }
}

/// True when the folder has a control file or a segment.
pub(crate) fn holds_journal(dir: &Path) -> Result<bool> {
    let control = dir.join(control::NAME);
    let is_there = control.try_exists().map_err(Error::io("look at", &control))?;
    Ok(is_there || !segment_paths(dir)?.is_empty())
}

/// The segment files in a folder, by first LSN.
pub(crate) fn segment_paths(dir: &Path) -> Result<Vec<(Lsn, PathBuf)>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let path = entry.map_err(Error::io("list", dir))?.path();
        if let Some(first) = parse_name(&path) {
            paths.push((first, path));
        }
    }
    paths.sort();
    Ok(paths)
}

/// Opens control file and segments, finds the end, and makes everything up to it durable.
pub(crate) fn recover(dir: &Path, options: &Options) -> Result<Recovered> {
    let storage = &*options.host.storage;
    let mut control = Control::open(storage, dir)?;
    options.check_budget(dir, control.facts.geometry)?;
    finish_cut(storage, dir, &mut control)?;
    let (stream, geometry, start) = (control.facts.stream, control.facts.geometry, control.facts.start);
    let segments = open_segments(storage, dir, &control)?;
    let walk = Walk { segments: &segments, geometry, durable: control.evidence.durable };
    let Found { tip, torn, openings } = walk.run(start, &control)?;
    let torn = match torn {
        Some(fault) if is_torn(&segments, &fault, &control)? => Some(torn_range(&fault, geometry)),
        _ => None,
    };
    let durable = control.evidence.durable;
    let leftovers = segments.iter().position(|segment| segment.first() >= tip.lsn).unwrap_or(segments.len());
    let mut segments = segments;
    for segment in segments.split_off(leftovers) {
        // opened in advance, never reached by a whole entry
        storage.remove(&segment.path).map_err(Error::io("remove", &segment.path))?;
    }
    let rewritten = LsnRange::new(durable, tip.lsn);
    rewrite(&segments, rewritten, &control)?;
    storage.sync_dir(dir).map_err(Error::io("sync", dir))?;

    let was_poisoned = control.facts.poisoned;
    let mut history = control.facts.history.clone();
    history.cut(tip.lsn);
    openings.into_iter().for_each(|opening| {
        let _known = history.push(opening);
    });
    // before the evidence: the next start looks for openings behind that alone
    control.change(|facts| {
        facts.poisoned = false;
        facts.history = history;
    })?;
    control.note(|evidence| {
        evidence.durable = tip.lsn;
        evidence.chain = tip.chain;
        evidence.committed = evidence.committed.min(tip.lsn);
    })?;
    control.sync_evidence()?;
    debug_assert_eq!(control.facts.stream, stream);
    Ok(Recovered { control, segments, tip, report: OpenReport { torn, rewritten, was_poisoned } })
}

/// What is cut of a torn tail: the entry, as far as its header can be believed, else to the end of its segment.
fn torn_range(fault: &Fault, geometry: Geometry) -> LsnRange {
    let to = if fault.to > fault.at { fault.to } else { fault.at.advance(geometry.room(fault.at)) };
    LsnRange::new(fault.at, to)
}

/// A cut that was recorded and not finished is finished: nothing above it is ever read.
fn finish_cut(storage: &dyn Storage, dir: &Path, control: &mut Control) -> Result<()> {
    match control.facts.cut {
        None => crate::cut::forget_aside(storage, dir),
        Some(to) => crate::cut::finish_found(storage, dir, control, to),
    }
}

fn open_segments(storage: &dyn Storage, dir: &Path, control: &Control) -> Result<Vec<Arc<Segment>>> {
    let facts = &control.facts;
    let mut expected = facts.geometry.segment_of(facts.start.lsn);
    let mut segments = Vec::new();
    for (first, path) in segment_paths(dir)? {
        if first < expected && segments.is_empty() {
            // pruned: the control file said so before the name went
            storage.remove(&path).map_err(Error::io("remove", &path))?;
            continue;
        }
        if first != expected {
            break;
        }
        segments.push(Arc::new(Segment::open(storage, &path, facts.stream, facts.geometry)?));
        expected = expected.advance(facts.geometry.body_bytes());
    }
    if expected < control.evidence.durable {
        let path = dir.join(crate::segment::file_name(expected));
        let what = format!(
            "this segment is missing, and entries up to LSN {} were durable. Nothing was changed; {}",
            control.evidence.durable,
            way_back(&path)
        );
        return Err(Error::Corrupt { path, what });
    }
    Ok(segments)
}

struct Walk<'a> {
    segments: &'a [Arc<Segment>],
    geometry: Geometry,
    durable: Lsn,
}

struct Found {
    tip: Tip,
    /// Why the walk ended, if not at the end of the last segment.
    torn: Option<Fault>,
    openings: Vec<Opening>,
}

impl Walk<'_> {
    /// Walks from the segment that holds the evidence to the end. Evidence that lies below the start is an older one: the
    /// newest was lost with its slot, or with a sync that failed.
    fn run(&self, start: Tip, control: &Control) -> Result<Found> {
        let known = self.durable.max(start.lsn);
        let holder = self.segments.iter().rposition(|segment| segment.header.tip.lsn <= known);
        let mut found = Found { tip: start, torn: None, openings: Vec::new() };
        let Some(holder) = holder else { return Ok(found) };
        found.tip = self.segments[holder].header.tip.max_lsn(start);
        let mut passed = found.tip.lsn == self.durable;
        for segment in &self.segments[holder..] {
            let mut cursor = Cursor::new(self.geometry, found.tip);
            if segment.header.tip != found.tip && segment.header.tip.lsn >= start.lsn {
                let fault = Fault { at: found.tip.lsn, kind: FaultKind::Chain, to: segment.end() };
                return self.ended(found, fault, segment);
            }
            while cursor.tip().lsn < segment.end() {
                let at = *cursor.tip();
                match cursor.next(segment.bytes(LsnRange::new(at.lsn, segment.end()))) {
                    Ok(Next::Entry(entry)) => {
                        if entry.header.kind == Some(Kind::Epoch)
                            && let Some(epoch) = EpochEntry::decode(entry.payload)
                        {
                            found.openings.push(epoch.opening(&entry.header, at.chain));
                        }
                    }
                    Ok(Next::Need(_)) => {
                        let fault = Fault { at: at.lsn, kind: FaultKind::Short, to: segment.end() };
                        return self.ended(found, fault, segment);
                    }
                    Err(fault) => return self.ended(found, fault, segment),
                }
                found.tip = *cursor.tip();
                if found.tip.lsn == self.durable {
                    passed = true;
                    if found.tip.chain != control.evidence.chain {
                        let fault = Fault { at: at.lsn, kind: FaultKind::Chain, to: found.tip.lsn };
                        return Err(self.rot(&fault, segment));
                    }
                }
            }
        }
        if !passed && self.durable > found.tip.lsn {
            let segment = &self.segments[self.segments.len() - 1];
            let fault = Fault { at: found.tip.lsn, kind: FaultKind::Short, to: self.durable };
            return Err(self.rot(&fault, segment));
        }
        Ok(found)
    }

    fn ended(&self, mut found: Found, fault: Fault, segment: &Segment) -> Result<Found> {
        if fault.kind == FaultKind::Unknown {
            return Err(newer(&segment.path, &fault));
        }
        if fault.at < self.durable {
            return Err(self.rot(&fault, segment));
        }
        found.torn = Some(fault);
        Ok(found)
    }

    fn rot(&self, fault: &Fault, segment: &Segment) -> Error {
        rot(segment, fault, self.durable)
    }
}

impl Tip {
    /// The tip that is further on.
    fn max_lsn(self, other: Tip) -> Tip {
        if other.lsn > self.lsn { other } else { self }
    }
}

/// The error for an entry that is what its writer wrote, but needs a newer reader.
pub(crate) fn newer(path: &Path, fault: &Fault) -> Error {
    Error::Incompatible { path: path.to_owned(), what: format!("{fault}. Open it with a newer version of towline") }
}

/// The error for a damaged entry below what was durable. Where its header can't be believed, the range ends at the next
/// entry that can be found behind it, or at the end of the segment.
pub(crate) fn rot(segment: &Segment, fault: &Fault, durable: Lsn) -> Error {
    let bytes = segment.bytes(LsnRange::new(fault.at, segment.end()));
    let to = if fault.to > fault.at { fault.to } else { next_entry(bytes, fault.at).unwrap_or(segment.end()) };
    Error::Rot { path: segment.path.clone(), range: LsnRange::new(fault.at, to), fault: *fault, durable }
}

/// Where the next believable entry begins behind a damaged one at `at`: a header that names its own place, with a
/// payload that matches it.
pub(crate) fn next_entry(bytes: &[u8], at: Lsn) -> Option<Lsn> {
    let behind = bytes.get(ENTRY_ALIGN..)?;
    believable(behind, at.advance(ENTRY_ALIGN as u64)).map(|header| header.lsn)
}

/// The first believable entry of some bytes, which begin at `at`.
fn believable(bytes: &[u8], at: Lsn) -> Option<Header> {
    let mut offset = 0;
    while offset + HEADER_BYTES <= bytes.len() {
        // what was never written is passed over quickly
        if bytes.get(offset..offset + ZEROS.len()) == Some(&ZEROS) {
            offset += ZEROS.len();
            continue;
        }
        if let Some(header) = believable_at(&bytes[offset..], at.advance(offset as u64)) {
            return Some(header);
        }
        offset += ENTRY_ALIGN;
    }
    None
}

/// The header of an entry at `here` that `bytes` begin with, if it can be believed without knowing what is before it.
pub(crate) fn believable_at(bytes: &[u8], here: Lsn) -> Option<Header> {
    let raw = RawHeader::read_from_prefix(bytes).ok().map(|(raw, _)| raw)?;
    if raw.lsn.get() != here.get() || (raw.length.get() as usize) < HEADER_BYTES {
        return None;
    }
    let header = raw.numbers();
    let payload = bytes.get(HEADER_BYTES..header.length as usize)?;
    (crc32c(payload) == header.payload_crc).then_some(header)
}

/// What stands at a fault above the evidence of the control file, and behind it.
///
/// It may still have been durable: entries of this node's own runs behind it say what was durable when they were written,
/// and then it is rot. `true`: an entry of this log was begun there, a torn tail. `false`: there are only zeros, or what a
/// recycled file held before, and nothing is lost.
fn is_torn(segments: &[Arc<Segment>], fault: &Fault, control: &Control) -> Result<bool> {
    let Some(index) = segments.iter().position(|segment| segment.first() <= fault.at && fault.at < segment.end())
    else {
        return Ok(false);
    };
    let holder = &segments[index];
    let bytes = holder.bytes(LsnRange::new(fault.at, holder.end()));
    let begun = RawHeader::read_from_prefix(bytes).is_ok_and(|(raw, _)| raw.lsn.get() == fault.at.get());
    let mut torn = begun && fault.kind != FaultKind::Zero;
    for segment in &segments[index..] {
        let mut at = segment.first().max(fault.at.advance(ENTRY_ALIGN as u64));
        while at < segment.end()
            && let Some(header) = believable(segment.bytes(LsnRange::new(at, segment.end())), at)
        {
            torn = true;
            if header.durable > fault.at && written_here(&control.facts.history, header.run_id, control.facts.node) {
                return Err(rot(holder, fault, header.durable));
            }
            at = header.range().to;
        }
    }
    Ok(torn)
}

/// True when `node` itself wrote that run.
pub(crate) fn written_here(history: &History, run_id: u64, node: NodeId) -> bool {
    history.openings().iter().any(|opening| opening.run_id == run_id && opening.node == node)
}

/// Writes the same bytes again and syncs them: after a failed sync the page cache shows what the disk doesn't have.
fn rewrite(segments: &[Arc<Segment>], range: LsnRange, control: &Control) -> Result<()> {
    for segment in segments.iter().filter(|segment| segment.end() > range.from && segment.first() < range.to) {
        let mut at = range.from.max(segment.header.tip.lsn);
        let to = range.to.min(segment.end());
        while at < to {
            let piece = LsnRange::new(at, to.min(at.advance(REWRITE_BYTES)));
            let bytes = segment.bytes(piece).to_vec();
            segment.write(at, &bytes).map_err(Error::io("write", &segment.path))?;
            at = piece.to;
        }
        segment.sync().map_err(|source| Error::Poisoned {
            path: segment.path.clone(),
            cause: source.to_string(),
            durable: control.evidence.durable,
        })?;
    }
    Ok(())
}
