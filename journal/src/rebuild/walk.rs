//! A verified walk over segment files, in pieces that are read, never mapped: on a disk that fails, a read says so.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::cursor::{Cursor, Fault, FaultKind, Tip, Verified};
use crate::epoch::Opening;
use crate::error::{Error, Result};
use crate::geometry::{Geometry, SEGMENT_HEADER_BYTES};
use crate::lsn::Lsn;
use crate::pread::fill;
use crate::recovery::segment_paths;
use crate::segment::SegmentHeader;

/// Read at once: more than the longest entry.
const PIECE_BYTES: u64 = 4 << 20;

/// A segment file, and what it says of itself.
#[derive(Clone, Debug)]
pub(super) struct SegmentFile {
    pub(super) path: PathBuf,
    /// What its name says.
    pub(super) first: Lsn,
    /// `None` when both copies are damaged.
    pub(super) header: Option<SegmentHeader>,
    /// Size of the file.
    pub(super) bytes: u64,
}

/// How far a log is whole.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) tip: Tip,
    /// Why it ends there; `None` at its bound, and where there is no further file.
    pub(super) fault: Option<Fault>,
    pub(super) openings: Vec<Opening>,
}

/// The segment files in a folder, by first LSN. A name that another segment's header contradicts is `Corrupt`.
pub(super) fn segment_files(dir: &Path) -> Result<Vec<SegmentFile>> {
    let mut files = Vec::new();
    for (first, path) in segment_paths(dir)? {
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let bytes = file.metadata().map_err(Error::io("look at", &path))?.len();
        let header = match SegmentHeader::read(&file, &path) {
            Ok(header) => Some(header),
            Err(Error::Corrupt { .. }) => None,
            Err(error) => return Err(error),
        };
        if let Some(header) = header.filter(|header| header.first != first) {
            let what = format!(
                "its header says that it begins at LSN {}, its name says {first}. Nothing was changed; give it its own \
                 name, or move it to another folder",
                header.first
            );
            return Err(Error::Corrupt { path, what });
        }
        files.push(SegmentFile { path, first, header, bytes });
    }
    Ok(files)
}

impl SegmentFile {
    /// Address behind its body.
    pub(super) fn end(&self, geometry: Geometry) -> Lsn {
        self.first.advance(geometry.body_bytes())
    }

    /// Where the bytes of `at` stand in the file.
    pub(super) fn offset(&self, at: Lsn) -> u64 {
        SEGMENT_HEADER_BYTES as u64 + at.bytes_since(self.first)
    }

    /// At most `bytes` bytes from `at` on; fewer where the file ends.
    pub(super) fn read(&self, file: &File, at: Lsn, bytes: u64) -> Result<Vec<u8>> {
        let mut buffer = vec![0; bytes as usize];
        let filled = fill(file, &mut buffer, self.offset(at)).map_err(Error::io("read", &self.path))?;
        buffer.truncate(filled);
        Ok(buffer)
    }
}

/// Verifies entry by entry from `start` to `bound`, or to the first that is not the next one. `each` gets every verified
/// run; none reaches over the end of a segment.
pub(super) fn walk<'a>(
    files: &'a [SegmentFile],
    geometry: Geometry,
    start: Tip,
    bound: Lsn,
    mut each: impl FnMut(&'a SegmentFile, &Verified<'_>) -> Result<()>,
) -> Result<Walked> {
    let mut walked = Walked { tip: start, fault: None, openings: Vec::new() };
    for segment in files {
        let tip = walked.tip;
        if geometry.segment_of(tip.lsn) != segment.first || tip.lsn >= bound {
            break;
        }
        let follows = segment.header.is_some_and(|header| header.tip == tip || header.tip.lsn < start.lsn);
        if !follows {
            walked.fault = Some(Fault { at: tip.lsn, kind: FaultKind::Chain, to: tip.lsn });
            break;
        }
        let file = File::open(&segment.path).map_err(Error::io("open", &segment.path))?;
        let end = segment.end(geometry).min(bound);
        while walked.fault.is_none() && walked.tip.lsn < end {
            let at = walked.tip;
            let piece = segment.read(&file, at.lsn, end.bytes_since(at.lsn).min(PIECE_BYTES))?;
            let (run, fault) = verify(geometry, at, &piece);
            walked.fault = fault;
            if let Some(run) = run {
                each(segment, &run)?;
                walked.openings.extend(run.openings());
                walked.tip = *run.last();
            }
        }
        if walked.fault.is_some() {
            break;
        }
    }
    Ok(walked)
}

/// What of a piece is whole, and why it ends before the next entry, if not because the piece does.
fn verify(geometry: Geometry, at: Tip, piece: &[u8]) -> (Option<Verified<'_>>, Option<Fault>) {
    let (whole, fault) = match Cursor::new(geometry, at).verify(piece) {
        Ok(run) if run.range().is_empty() => {
            return (None, Some(Fault { at: at.lsn, kind: FaultKind::Short, to: at.lsn }));
        }
        Ok(run) => return (Some(run), None),
        Err(fault) => (fault.at.bytes_since(at.lsn) as usize, fault),
    };
    (Cursor::new(geometry, at).verify(&piece[..whole]).ok(), Some(fault))
}
