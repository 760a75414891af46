//! Reading a batch: what it says of itself first, its frames on demand, nothing larger than a frame in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use journal::{Cursor, Lsn, LsnRange, Next, Time, Tip, crc32c};

use super::BatchInfo;
use super::frame::{FRAME_RAW_BYTES_MAX, packed_bytes_max, unpack};
use super::layout::{
    FRAME_RECORD_BYTES, FrameRecord, HEAD_BYTES, HEAD_PLACE, Head, HeadFault, SUMMARY_BYTES_MAX, Summary,
    TRAILER_BYTES, Trailer,
};
use crate::error::{Error, Place, Result, What};

/// An open batch file. Its numbers are checked; its entries are believed only behind a [`Cursor`].
#[derive(Debug)]
pub struct Batch {
    path: PathBuf,
    file: File,
    info: BatchInfo,
    frames: Vec<Frame>,
}

/// A frame's place in the file and in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) first: Tip,
    pub(crate) last: Lsn,
    pub(crate) at: u64,
    pub(crate) packed_bytes: usize,
    crc: u32,
}

impl Frame {
    pub(crate) fn range(&self) -> LsnRange {
        LsnRange::new(self.first.lsn, self.last)
    }

    pub(crate) fn place(&self) -> Place {
        Place::Entries { from: self.at, to: self.at + self.packed_bytes as u64, range: self.range() }
    }
}

impl Batch {
    /// Opens a batch and reads head, trailer and summary. Blocking; no entry is unpacked.
    ///
    /// # Errors
    /// `Incompatible` when it is no batch or of another version, `Damaged` with the bytes when it is cut off or
    /// altered.
    pub fn open(path: &Path) -> Result<Batch> {
        let file = File::open(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::Absent { path: path.to_owned(), what: "there is no such batch".into() },
            _ => Error::io("open batch", path)(source),
        })?;
        let found = file.metadata().map_err(Error::io("open batch", path))?;
        if !found.is_file() {
            return Err(Error::Incompatible {
                path: path.to_owned(),
                what: "this is no file. Name a batch file".into(),
            });
        }
        let reader = Reader { path, file: &file, file_bytes: found.len() };
        let head = reader.head()?;
        let (trailer, trailer_at) = reader.trailer()?;
        let summary = reader.summary(&trailer, trailer_at)?;
        let place = Place::Bytes { from: trailer.summary_at, to: trailer_at };
        let contradiction = |which| Error::damaged(path, place, What::Contradiction(which));
        let frames = lay_out(&head, &summary, trailer.summary_at).map_err(contradiction)?;
        check(&head, &summary).map_err(contradiction)?;
        let info = BatchInfo {
            stream: head.stream,
            geometry: head.geometry,
            first: head.first,
            last: summary.last,
            opening: head.opening,
            openings: summary.openings,
            marks: summary.marks,
            first_time: summary.first_time,
            entries: summary.entries,
            file_bytes: found.len(),
            hash: trailer.hash,
        };
        Ok(Batch { path: path.to_owned(), file, info, frames })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says of itself.
    pub fn info(&self) -> &BatchInfo {
        &self.info
    }

    /// Frames inside.
    pub fn frame_count(&self) -> usize {
        self.frames.len()
    }

    /// The frame that holds `lsn`; the last one when `lsn` lies behind.
    pub(crate) fn frame_holding(&self, lsn: Lsn) -> usize {
        self.frames.partition_point(|frame| frame.first.lsn <= lsn).saturating_sub(1)
    }

    /// The frame that holds the last entry with a time at or below `time`.
    pub(crate) fn frame_holding_time(&self, time: Time) -> usize {
        self.frames.partition_point(|frame| frame.first.time <= time).saturating_sub(1)
    }

    pub(crate) fn frame(&self, index: usize) -> Option<&Frame> {
        self.frames.get(index)
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Unpacks a frame into `raw`: checksum first, then exactly as many bytes as its place in the log says.
    /// What it yields is still to be verified with a [`Cursor`].
    pub(crate) fn unpack(&self, frame: &Frame, raw: &mut Vec<u8>) -> Result<()> {
        let mut packed = vec![0; frame.packed_bytes];
        let read = self.file.read_exact_at(&mut packed, frame.at);
        read.map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged(frame.place(), What::Size),
            _ => Error::io("read batch", &self.path)(source),
        })?;
        if crc32c(&packed) != frame.crc {
            return Err(self.damaged(frame.place(), What::Checksum));
        }
        let whole = unpack(&packed, frame.range().bytes() as usize, raw);
        match whole.map_err(Error::io("start zstd for", &self.path))? {
            true => Ok(()),
            false => Err(self.damaged(frame.place(), What::Unpack)),
        }
    }

    /// The tip at `lsn`; `None` when no entry boundary lies there inside this batch. Unpacks one frame.
    pub fn tip_at(&self, lsn: Lsn) -> Result<Option<Tip>> {
        if lsn == self.info.last.lsn {
            return Ok(Some(self.info.last));
        }
        if lsn < self.info.first.lsn || lsn > self.info.last.lsn {
            return Ok(None);
        }
        let Some(frame) = self.frame(self.frame_holding(lsn)) else { return Ok(None) };
        let mut raw = Vec::new();
        self.unpack(frame, &mut raw)?;
        let mut cursor = Cursor::new(self.info.geometry, frame.first);
        let mut rest = &raw[..];
        while cursor.tip().lsn < lsn {
            let next = cursor.next(rest).map_err(|fault| self.damaged(frame.place(), What::Entry(fault)))?;
            let Next::Entry(entry) = next else { return Err(self.damaged(frame.place(), What::Size)) };
            rest = rest.get(entry.header.range().bytes() as usize..).unwrap_or_default();
        }
        Ok((cursor.tip().lsn == lsn).then_some(*cursor.tip()))
    }

    pub(crate) fn damaged(&self, place: Place, what: What) -> Error {
        Error::damaged(&self.path, place, what)
    }
}

struct Reader<'a> {
    path: &'a Path,
    file: &'a File,
    file_bytes: u64,
}

impl Reader<'_> {
    fn head(&self) -> Result<Head> {
        let mut head = [0; HEAD_BYTES];
        let here = self.file_bytes.min(HEAD_BYTES as u64) as usize;
        self.read(&mut head[..here], 0)?;
        match Head::decode(&head) {
            Ok(_) if here < HEAD_BYTES => Err(Error::damaged(self.path, HEAD_PLACE, What::Unfinished)),
            Ok(head) => Ok(head),
            // a file cut off inside the head begins like a batch, or is empty
            Err(_) if here < HEAD_BYTES => Err(Error::damaged(self.path, HEAD_PLACE, What::Unfinished)),
            Err(HeadFault::Damaged(what)) => Err(Error::damaged(self.path, HEAD_PLACE, what)),
            Err(HeadFault::Foreign(what)) => Err(Error::Incompatible { path: self.path.to_owned(), what }),
        }
    }

    fn trailer(&self) -> Result<(Trailer, u64)> {
        let least = (HEAD_BYTES + TRAILER_BYTES) as u64;
        let at = self.file_bytes.saturating_sub(TRAILER_BYTES as u64);
        let place = Place::Bytes { from: at, to: self.file_bytes };
        if self.file_bytes < least {
            return Err(Error::damaged(self.path, place, What::Unfinished));
        }
        let mut bytes = [0; TRAILER_BYTES];
        self.read(&mut bytes, at)?;
        let trailer = Trailer::decode(&bytes).map_err(|what| Error::damaged(self.path, place, what))?;
        let ends = trailer.summary_at.checked_add(trailer.summary_bytes.into());
        if trailer.summary_at < HEAD_BYTES as u64 || ends != Some(at) {
            return Err(Error::damaged(self.path, place, What::Size));
        }
        Ok((trailer, at))
    }

    fn summary(&self, trailer: &Trailer, trailer_at: u64) -> Result<Summary> {
        let place = Place::Bytes { from: trailer.summary_at, to: trailer_at };
        if trailer.summary_bytes as usize > SUMMARY_BYTES_MAX {
            return Err(Error::damaged(self.path, place, What::Contradiction("the summary is larger than one may be")));
        }
        let mut bytes = vec![0; trailer.summary_bytes as usize];
        self.read(&mut bytes, trailer.summary_at)?;
        if crc32c(&bytes) != trailer.summary_crc {
            return Err(Error::damaged(self.path, place, What::Checksum));
        }
        Summary::decode(&bytes).ok_or_else(|| {
            Error::damaged(self.path, place, What::Contradiction("the summary's counts don't fit its length"))
        })
    }

    fn read(&self, into: &mut [u8], at: u64) -> Result<()> {
        self.file.read_exact_at(into, at).map_err(Error::io("read batch", self.path))
    }
}

/// The frames with their places, or the contradiction in them.
fn lay_out(head: &Head, summary: &Summary, frames_end: u64) -> std::result::Result<Vec<Frame>, &'static str> {
    let mut frames = Vec::with_capacity(summary.frames.len());
    let mut at = HEAD_BYTES as u64;
    let ends = summary.frames.iter().skip(1).map(|next| next.first).chain([summary.last]);
    for (record, end) in summary.frames.iter().zip(ends) {
        let FrameRecord { first, packed_bytes, crc } = *record;
        let packed_bytes = packed_bytes as usize;
        let raw_bytes = end.lsn.bytes_since(first.lsn);
        if raw_bytes == 0 || end.time <= first.time || raw_bytes > FRAME_RAW_BYTES_MAX as u64 {
            return Err("a frame's entries are out of order or larger than a frame may be");
        }
        if packed_bytes == 0 || packed_bytes > packed_bytes_max() {
            return Err("a frame's packed size is none that it can have");
        }
        frames.push(Frame { first, last: end.lsn, at, packed_bytes, crc });
        at += packed_bytes as u64;
    }
    match frames.first() {
        Some(frame) if frame.first == head.first && at == frames_end => Ok(frames),
        _ => Err("the frames don't fill the file from head to summary"),
    }
}

/// Openings, marks and counts against the range.
fn check(head: &Head, summary: &Summary) -> std::result::Result<(), &'static str> {
    let (first, last) = (&head.first, &summary.last);
    let mut before = first.epoch;
    let mut at = first.lsn;
    for opening in &summary.openings {
        if opening.epoch <= before || opening.first < at || opening.first >= last.lsn {
            return Err("the epochs it lists are out of order");
        }
        (before, at) = (opening.epoch, opening.first.advance(1));
    }
    let run_id = summary.openings.last().map_or(first.run_id, |opening| opening.run_id);
    if before != last.epoch || run_id != last.run_id {
        return Err("it doesn't end in the last epoch that it lists");
    }
    let mut at = first.lsn;
    for mark in &summary.marks {
        if mark.at < at || mark.end <= mark.at || mark.end > last.lsn {
            return Err("the marks it lists are out of order");
        }
        at = mark.end;
    }
    let entries = summary.entries;
    if entries < summary.frames.len() as u64 || summary.first_time <= first.time || summary.first_time > last.time {
        return Err("its count of entries or its times can't be");
    }
    Ok(())
}

impl Error {
    pub(crate) fn damaged(path: &Path, place: Place, what: What) -> Error {
        Error::Damaged { path: path.to_owned(), place, what }
    }
}

const _: () = assert!(SUMMARY_BYTES_MAX / FRAME_RECORD_BYTES > 100 << 10, "about 100 GiB in 1 MiB frames");
