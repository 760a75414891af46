//! What stands behind the last verified entry: a clean end, or something that may be this log's.
//!
//! A clean end is zeros, or stale bytes of a recycled segment: those name other places, and are older than the entry
//! before. Anything else is not decided here, because nothing tells a write that never ended from an entry that was
//! durable and rotted.

use std::fs::File;
use std::path::Path;

use zerocopy::FromBytes;

use super::Loss;
use super::walk::{SegmentFile, Walked};
use crate::control::Evidence;
use crate::cursor::{Fault, Tip};
use crate::entry::{Header, RawHeader, crc32c};
use crate::error::{Error, Result};
use crate::geometry::{ENTRY_ALIGN, Geometry, HEADER_BYTES, PAYLOAD_BYTES_MAX, SEGMENT_HEADER_BYTES, entry_bytes};
use crate::lsn::{Lsn, LsnRange};
use crate::segment::file_name;

/// Read at once, and a header more, so that none is missed between two reads.
const SCAN_BYTES: u64 = 1 << 20;

/// A log and where its walk ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behind<'a> {
    pub(super) dir: &'a Path,
    pub(super) files: &'a [SegmentFile],
    pub(super) geometry: Geometry,
    pub(super) walked: &'a Walked,
    /// Everything from here on is cut anyway.
    pub(super) cut: Option<Lsn>,
    /// What is still known of the durable point.
    pub(super) known: Option<&'a Evidence>,
}

impl Behind<'_> {
    /// What has to be given up, if something has.
    pub(super) fn loss(&self) -> Result<Option<Loss>> {
        let at = self.walked.tip.lsn;
        if self.cut.is_some_and(|cut| at >= cut) {
            return Ok(None);
        }
        let fault = self.walked.fault;
        let later = self.files.iter().find(|file| file.first > at);
        let holder = self.files.iter().find(|file| file.first <= at && at < file.end(self.geometry));
        let there = match holder {
            Some(holder) => self.look(holder, fault)?,
            None => There::default(),
        };
        let durable = self.known.map_or(Lsn::ZERO, |known| known.durable).max(self.cut.unwrap_or(Lsn::ZERO));
        let last = self.files.last().filter(|_| later.is_some()).map(|last| last.end(self.geometry));
        let trace = there.believable.map(|found| found.to).max(last);
        let because = if durable > at {
            format!("it was durable up to LSN {durable}")
        } else if let Some(trace) = trace {
            format!("behind it stands what may be this log's, up to LSN {trace}")
        } else if let Some(cause) = there.cause {
            cause.to_owned()
        } else {
            return Ok(None);
        };
        let segment_end = at.advance(self.geometry.room(at));
        let entry_end = fault.map(|fault| fault.to).filter(|&to| to > at);
        let next = there.believable.map(|found| found.from).or(entry_end);
        let to = match holder {
            Some(_) => next.unwrap_or(segment_end),
            None => later.map_or(durable, |later| later.first),
        };
        let path =
            holder.map_or_else(|| self.dir.join(file_name(self.geometry.segment_of(at))), |holder| holder.path.clone());
        let what = match (fault, holder) {
            (_, None) => "this segment is missing".to_owned(),
            (Some(fault), _) => fault.kind.to_string(),
            (None, _) => "it is not whole".to_owned(),
        };
        let damaged = LsnRange::new(at, to.max(at));
        let given_up = LsnRange::new(at, to.max(durable).max(trace.unwrap_or(at)));
        Ok(Some(Loss { path, damaged, given_up, why: format!("{what}; {because}") }))
    }

    /// Looks at the rest of the segment that holds the end.
    fn look(&self, holder: &SegmentFile, fault: Option<Fault>) -> Result<There> {
        let tip = self.walked.tip;
        let file = File::open(&holder.path).map_err(Error::io("open", &holder.path))?;
        let header = holder.read(&file, tip.lsn, HEADER_BYTES as u64)?;
        let whole_bytes = SEGMENT_HEADER_BYTES as u64 + self.geometry.body_bytes();
        let cause = if holder.bytes < whole_bytes {
            Some("the file is shorter than a segment: it was truncated")
        } else if holder.header.is_none() {
            Some("both copies of the segment's header are damaged")
        } else if holder.header.is_some_and(|header| header.tip.lsn == tip.lsn && header.tip != tip) {
            Some("the segment's header names another history")
        } else if fault.is_some_and(|fault| fault.to > tip.lsn) || begins_an_entry(&header, &tip) {
            Some("an entry of this log was begun there")
        } else {
            None
        };
        Ok(There { cause, believable: self.believable(holder, &file)? })
    }

    /// From the first to the last entry behind the end that names its own place, is younger, and has its payload.
    fn believable(&self, holder: &SegmentFile, file: &File) -> Result<Option<LsnRange>> {
        let tip = self.walked.tip;
        let end = holder.end(self.geometry);
        let mut found: Option<LsnRange> = None;
        let mut at = tip.lsn.advance(ENTRY_ALIGN as u64);
        while at < end {
            let bytes = holder.read(file, at, end.bytes_since(at).min(SCAN_BYTES + HEADER_BYTES as u64))?;
            let mut next = at.advance(SCAN_BYTES);
            for offset in (0..SCAN_BYTES as usize).step_by(ENTRY_ALIGN) {
                let here = at.advance(offset as u64);
                let Some(header) = bytes.get(offset..offset + HEADER_BYTES).and_then(header) else {
                    break;
                };
                if header.lsn != here || !follows(&header, &tip) {
                    continue;
                }
                let to = here.advance(entry_bytes(header.payload_bytes()));
                if to > end || header.payload_bytes() > 2 * PAYLOAD_BYTES_MAX {
                    continue;
                }
                let payload = holder.read(file, here.advance(HEADER_BYTES as u64), header.payload_bytes() as u64)?;
                if crc32c(&payload) == header.payload_crc {
                    found = Some(LsnRange::new(found.map_or(here, |found| found.from), to));
                    next = to;
                    break;
                }
            }
            at = next;
        }
        Ok(found)
    }
}

/// What the segment that holds the end has behind it.
#[derive(Debug, Default)]
struct There {
    /// Why the end is not clean, whatever stands further on.
    cause: Option<&'static str>,
    believable: Option<LsnRange>,
}

fn header(bytes: &[u8]) -> Option<Header> {
    RawHeader::read_from_bytes(bytes).ok().map(|raw| raw.numbers())
}

/// Could an entry with this header come later in the same log?
fn follows(header: &Header, tip: &Tip) -> bool {
    let epoch = match header.epoch == tip.epoch {
        true => header.run_id == tip.run_id,
        false => header.epoch > tip.epoch,
    };
    epoch && header.time > tip.time && header.length as usize >= HEADER_BYTES
}

/// Was an entry of this log begun at `tip`, though its header is not what was written? Its place, its run and its time
/// speak for it; one of them may be what is damaged, and one alone speaks for stale bytes too.
fn begins_an_entry(bytes: &[u8], tip: &Tip) -> bool {
    if bytes.iter().all(|&byte| byte == 0) {
        return false;
    }
    let Some(header) = header(bytes) else { return true };
    let run = header.epoch == tip.epoch && header.run_id == tip.run_id;
    let votes = [header.lsn == tip.lsn, run, header.time > tip.time];
    votes.into_iter().filter(|&vote| vote).count() >= 2
}
