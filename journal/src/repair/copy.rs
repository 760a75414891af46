//! Another journal folder as a source: a peer's, a restored one, that of a running node.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::body::ENTRY_BYTES_MAX;
use super::{RangeSource, SourceFault};
use crate::control;
use crate::cursor::Tip;
use crate::error::{Error, Result};
use crate::geometry::{Geometry, SEGMENT_HEADER_BYTES};
use crate::id::StreamId;
use crate::lsn::Lsn;
use crate::segment::{SegmentHeader, file_name};

/// A journal on a disk, damaged or not, its node running or not: it is read by `pread`, and nothing of it is changed.
#[derive(Debug)]
pub struct JournalCopy {
    dir: PathBuf,
    stream: StreamId,
    geometry: Geometry,
    cut: Option<Lsn>,
}

impl JournalCopy {
    /// Looks at the journal in `dir`. Errors: as for [`crate::offline::Log::open`], damaged segments apart.
    pub fn open(dir: &Path) -> Result<JournalCopy> {
        let path = dir.join(control::NAME);
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::Absent { path: dir.to_owned(), what: "no control file" },
            _ => Error::io("open", &path)(error),
        })?;
        let facts = control::read(&file, &path)?.facts;
        Ok(JournalCopy { dir: dir.to_owned(), stream: facts.stream, geometry: facts.geometry, cut: facts.cut })
    }
}

impl RangeSource for JournalCopy {
    fn name(&self) -> String {
        self.dir.display().to_string()
    }

    fn stream(&self) -> StreamId {
        self.stream
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn fetch(&mut self, from: &Tip) -> std::result::Result<Option<Vec<u8>>, SourceFault> {
        let at = from.lsn;
        if self.cut.is_some_and(|cut| at >= cut) {
            return Ok(None);
        }
        let first = self.geometry.segment_of(at);
        let path = self.dir.join(file_name(first));
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Box::new(Error::io("open", &path)(error))),
        };
        let mut piece = vec![0; (ENTRY_BYTES_MAX as u64).min(self.geometry.room(at)) as usize];
        let offset = SEGMENT_HEADER_BYTES as u64 + at.bytes_since(first);
        let mut filled = 0;
        while filled < piece.len() {
            match file.read_at(&mut piece[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                // what was read before it may be all that is needed
                Err(_) if filled > 0 => break,
                Err(error) => return Err(Box::new(Error::io("read", &path)(error))),
            }
        }
        piece.truncate(filled);
        // a running node may have recycled the file meanwhile; a damaged header says nothing about its entries
        match SegmentHeader::read(&file, &path) {
            Ok(header) if header.first != first || header.stream != self.stream => Ok(None),
            _ => Ok(Some(piece)),
        }
    }
}
