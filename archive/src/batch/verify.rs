//! Looking at everything in a batch: blake3, every frame, every entry, every list.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use journal::{Cursor, EpochEntry, Kind, Next, Opening};

use super::layout::TRAILER_BYTES;
use super::read::Frame;
use super::{Batch, BatchInfo, Mark};
use crate::error::{Error, Place, Result, What};

/// What a full look at a batch found. Frames stand alone, so one bad frame doesn't hide the others.
#[derive(Debug)]
pub struct Verdict {
    /// The file.
    pub path: PathBuf,
    /// What it says of itself; `None` when not even that can be read.
    pub info: Option<BatchInfo>,
    /// What is damaged; empty for a good batch.
    pub bad: Vec<BadRange>,
    /// Entries that were read and verified.
    pub entries: u64,
}

/// A damaged part of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRange {
    /// Which.
    pub place: Place,
    /// What is wrong with it.
    pub what: What,
}

impl Verdict {
    /// Nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.bad.is_empty()
    }

    /// The first damage as an error; `Ok` for a good batch.
    pub fn into_result(self) -> Result<BatchInfo> {
        match (self.bad.first(), self.info) {
            (None, Some(info)) => Ok(info),
            (Some(bad), _) => Err(Error::damaged(&self.path, bad.place, bad.what)),
            (None, None) => Err(Error::damaged(&self.path, Place::Bytes { from: 0, to: 0 }, What::Unfinished)),
        }
    }
}

/// Reads the whole file once for its blake3 and once for its entries, a frame at a time. Blocking.
///
/// # Errors
/// Only when the file can't be read at all or is no batch; damage is in the verdict.
pub fn verify_file(path: &Path) -> Result<Verdict> {
    let batch = match Batch::open(path) {
        Ok(batch) => batch,
        Err(Error::Damaged { place, what, .. }) => {
            let bad = vec![BadRange { place, what }];
            return Ok(Verdict { path: path.to_owned(), info: None, bad, entries: 0 });
        }
        Err(error) => return Err(error),
    };
    let mut walk = Walk { batch: &batch, bad: Vec::new(), entries: 0, openings: Vec::new(), marks: Vec::new() };
    for index in 0..batch.frame_count() {
        walk.frame(index)?;
    }
    walk.lists();
    walk.hash()?;
    let Walk { bad, entries, .. } = walk;
    Ok(Verdict { path: path.to_owned(), info: Some(batch.info().clone()), bad, entries })
}

struct Walk<'a> {
    batch: &'a Batch,
    bad: Vec<BadRange>,
    entries: u64,
    openings: Vec<Opening>,
    marks: Vec<Mark>,
}

impl Walk<'_> {
    fn frame(&mut self, index: usize) -> Result<()> {
        let Some(frame) = self.batch.frame(index) else { return Ok(()) };
        let mut raw = Vec::new();
        match self.batch.unpack(frame, &mut raw) {
            Err(Error::Damaged { place, what, .. }) => self.bad.push(BadRange { place, what }),
            Err(error) => return Err(error),
            Ok(()) => {
                if let Err(what) = self.entries(index, frame, &raw) {
                    self.bad.push(BadRange { place: frame.place(), what });
                }
            }
        }
        Ok(())
    }

    fn entries(&mut self, index: usize, frame: &Frame, raw: &[u8]) -> std::result::Result<(), What> {
        let mut cursor = Cursor::new(self.batch.info().geometry, frame.first);
        let mut rest = raw;
        while !rest.is_empty() {
            let chain_in = cursor.tip().chain;
            let Next::Entry(entry) = cursor.next(rest).map_err(What::Entry)? else { return Err(What::Size) };
            if entry.header.kind == Some(Kind::Epoch)
                && let Some(epoch) = EpochEntry::decode(entry.payload)
            {
                self.openings.push(epoch.opening(&entry.header, chain_in));
            }
            self.marks.extend(Mark::of(&entry));
            self.entries += 1;
            rest = rest.get(entry.header.range().bytes() as usize..).unwrap_or_default();
        }
        let next = self.batch.frame(index + 1).map_or(self.batch.info().last, |next| next.first);
        match *cursor.tip() == next {
            true => Ok(()),
            false => Err(What::Contradiction("they don't end where the next frame begins")),
        }
    }

    fn lists(&mut self) {
        let info = self.batch.info();
        let whole = self.bad.is_empty();
        if whole && (self.entries != info.entries || self.openings != info.openings || self.marks != info.marks) {
            let place = Place::Bytes { from: 0, to: info.file_bytes };
            self.bad.push(BadRange { place, what: What::Contradiction("its lists are not what its entries say") });
        }
    }

    fn hash(&mut self) -> Result<()> {
        let info = self.batch.info();
        let hashed = info.file_bytes - TRAILER_BYTES as u64;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        while at < hashed {
            let part = buffer.len().min((hashed - at) as usize);
            match self.batch.file().read_exact_at(&mut buffer[..part], at) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                done => done.map_err(Error::io("read batch", self.batch.path()))?,
            }
            hasher.update(&buffer[..part]);
            at += part as u64;
        }
        if hasher.finalize().as_bytes() != &info.hash {
            let place = Place::Bytes { from: 0, to: hashed };
            self.bad.push(BadRange { place, what: What::Hash });
        }
        Ok(())
    }
}
