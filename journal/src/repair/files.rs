//! The segment files of a journal as they are, damaged or not.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::body::Body;
use crate::control::Facts;
use crate::cursor::Tip;
use crate::error::{Error, Result};
use crate::geometry::SEGMENT_HEADER_BYTES;
use crate::lsn::Lsn;
use crate::segment::{SegmentHeader, file_bytes, file_name};

/// The files of one journal; one is open at a time.
#[derive(Debug)]
pub(super) struct Files<'a> {
    dir: &'a Path,
    facts: &'a Facts,
    open: Option<Local>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Local {
    first: Lsn,
    pub(super) path: PathBuf,
    pub(super) head: Head,
    /// `None` where there is no file.
    pub(super) body: Option<Body>,
    /// It has fewer bytes than a segment.
    pub(super) short: bool,
}

/// What a segment file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// This, twice.
    Whole(SegmentHeader),
    /// This, but only one of the two copies is whole.
    OneCopy(SegmentHeader),
    /// Nothing that can be used.
    Bad(String),
    /// There is no file, or it was cut off.
    Missing,
}

impl Head {
    /// The tip that it names in front of the first entry.
    pub(super) fn tip(&self) -> Option<Tip> {
        match self {
            Head::Whole(header) | Head::OneCopy(header) => Some(header.tip),
            Head::Bad(_) | Head::Missing => None,
        }
    }
}

impl<'a> Files<'a> {
    pub(super) fn new(dir: &'a Path, facts: &'a Facts) -> Files<'a> {
        Files { dir, facts, open: None }
    }

    /// Where the segment at `first` lies, or would.
    pub(super) fn path(&self, first: Lsn) -> PathBuf {
        self.dir.join(file_name(first))
    }

    /// The segment at `first`.
    pub(super) fn local(&mut self, first: Lsn) -> Result<&mut Local> {
        let local = match self.open.take() {
            Some(local) if local.first == first => local,
            _ => self.look(first)?,
        };
        Ok(self.open.insert(local))
    }

    fn look(&self, first: Lsn) -> Result<Local> {
        let path = self.path(first);
        let missing = |path| Local { first, path, head: Head::Missing, body: None, short: false };
        if self.facts.cut.is_some_and(|cut| first >= cut) {
            return Ok(missing(path));
        }
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(missing(path)),
            Err(error) => return Err(Error::io("open", &path)(error)),
        };
        let bytes = file.metadata().map_err(Error::io("look at", &path))?.len();
        let head = self.head(&file, first);
        let body = Some(Body::new(Box::new(file), self.facts.geometry, first));
        Ok(Local { first, path, head, body, short: bytes < file_bytes(self.facts.geometry) })
    }

    fn head(&self, file: &File, first: Lsn) -> Head {
        let mut block = [0; SEGMENT_HEADER_BYTES];
        let mut filled = 0;
        while filled < block.len() {
            match file.read_at(&mut block[filled..], filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Head::Bad(format!("its header can't be read: {error}")),
            }
        }
        let block = &block[..filled];
        let header = match SegmentHeader::decode(block) {
            Ok(header) => header,
            Err(what) => return Head::Bad(what.to_owned()),
        };
        let SegmentHeader { stream, geometry, first: named, .. } = header;
        if stream != self.facts.stream || geometry != self.facts.geometry || named != first {
            return Head::Bad(format!(
                "its header says stream {stream} at LSN {named}, but this is the segment of stream {} at LSN {first}",
                self.facts.stream
            ));
        }
        match SegmentHeader::copies_agree(block) {
            true => Head::Whole(header),
            false => Head::OneCopy(header),
        }
    }
}
