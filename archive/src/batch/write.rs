//! Writing a batch: streaming, in bounded memory, verified while it is packed.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use journal::{Cursor, EpochEntry, Geometry, Kind, Lsn, Next, Opening, StreamId, Time, Tip, crc32c};

use super::frame::{FRAME_RAW_BYTES, Packer};
use super::layout::{FrameRecord, HEAD_BYTES, Head, SUMMARY_BYTES_MAX, Summary, TRAILER_BYTES, Trailer};
use super::{BatchInfo, MARK_NAME_BYTES_MAX, Mark};
use crate::disk::{remove_if_there, sync_dir};
use crate::error::{Error, Result};

/// zstd level when nobody says otherwise: 1 packs a gigabyte per second and core and loses little (docs/BENCHMARKS.md).
pub const LEVEL_DEFAULT: i32 = 1;

/// Room that is left in a summary when a writer says it is full, so that one more frame always fits.
const SUMMARY_RESERVE: usize = 64 << 10;

/// What a batch is to be cut from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The stream.
    pub stream: StreamId,
    /// Its geometry.
    pub geometry: Geometry,
    /// The tip that the first entry follows.
    pub first: Tip,
    /// The epoch in force there; `None` at the beginning of the log.
    pub opening: Option<Opening>,
    /// No entry that ends above this goes in: the caller's min(durable, committed).
    pub upto: Lsn,
    /// zstd level.
    pub level: i32,
}

/// A batch that lies finished under a temporary name, synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Where it lies.
    pub path: PathBuf,
    /// What it says of itself.
    pub info: BatchInfo,
    /// blake3 over the whole file: what an offer names.
    pub file_hash: [u8; 32],
}

/// Packs verified entries into a file. Nothing of it counts before [`Writer::finish`]; dropped earlier, it removes
/// the file. Blocking.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    written: u64,
    packer: Packer,
    cut: Cut,
    cursor: Cursor,
    frame: Vec<u8>,
    frame_first: Tip,
    summary: Summary,
    name_bytes: usize,
    finished: bool,
}

impl Writer {
    /// Begins a batch at `path`, a temporary name; what lies there is overwritten.
    pub fn create(path: &Path, cut: Cut) -> Result<Writer> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path);
        let file = BufWriter::with_capacity(1 << 20, file.map_err(Error::io("create batch", path))?);
        let packer = Packer::new(cut.level).map_err(Error::io("start zstd for", path))?;
        let summary = Summary {
            last: cut.first,
            first_time: Time::ZERO,
            entries: 0,
            openings: Vec::new(),
            marks: Vec::new(),
            frames: Vec::new(),
        };
        let mut writer = Writer {
            path: path.to_owned(),
            file,
            hasher: blake3::Hasher::new(),
            written: 0,
            packer,
            cut,
            cursor: Cursor::new(cut.geometry, cut.first),
            frame: Vec::with_capacity(FRAME_RAW_BYTES),
            frame_first: cut.first,
            summary,
            name_bytes: 0,
            finished: false,
        };
        let head = Head { stream: cut.stream, geometry: cut.geometry, first: cut.first, opening: cut.opening };
        writer.put(&head.encode())?;
        Ok(writer)
    }

    /// Where the batch ends so far.
    pub fn tip(&self) -> &Tip {
        self.cursor.tip()
    }

    /// Bytes of the file so far; those of the open frame are not among them.
    pub fn file_bytes(&self) -> u64 {
        self.written
    }

    /// True when the batch takes no further entry: it has as many frames and marks as one may have.
    pub fn is_full(&self) -> bool {
        let summary = &self.summary;
        let bytes = Summary::bytes(summary.frames.len(), summary.openings.len(), summary.marks.len(), self.name_bytes);
        bytes + SUMMARY_RESERVE > SUMMARY_BYTES_MAX
    }

    /// Takes log bytes from [`Writer::tip`] on and returns how many it took: whole entries that end at or below the
    /// cut's `upto`, until it is full. Zero means that no more go in.
    ///
    /// # Errors
    /// `Log` when an entry doesn't verify: nothing damaged leaves this node.
    pub fn push(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut used = 0;
        while !self.is_full() {
            let before = *self.cursor.tip();
            let mut probe = self.cursor;
            let Next::Entry(entry) = probe.next(&bytes[used..]).map_err(Error::Log)? else { break };
            let range = entry.header.range();
            if range.to > self.cut.upto {
                break;
            }
            let entry_bytes = range.bytes() as usize;
            if !self.frame.is_empty() && self.frame.len() + entry_bytes > FRAME_RAW_BYTES {
                self.close_frame()?;
            }
            self.cursor = probe;
            self.frame.extend_from_slice(&bytes[used..used + entry_bytes]);
            used += entry_bytes;
            if self.summary.entries == 0 {
                self.summary.first_time = entry.header.time;
            }
            self.summary.entries += 1;
            match entry.header.kind {
                Some(Kind::Epoch) => {
                    let opening = EpochEntry::decode(entry.payload).map(|e| e.opening(&entry.header, before.chain));
                    self.summary.openings.extend(opening);
                }
                Some(Kind::Mark) => {
                    if let Some(mark) = Mark::of(&entry) {
                        self.name_bytes += mark.name.len();
                        self.summary.marks.push(mark);
                    }
                }
                _ => {}
            }
        }
        Ok(used)
    }

    /// Ends the batch: last frame, summary, trailer, sync. The file still has its temporary name.
    ///
    /// # Errors
    /// `Nothing` when no entry went in.
    pub fn finish(mut self) -> Result<Finished> {
        if self.summary.entries == 0 {
            return Err(Error::Nothing { from: self.cut.first.lsn, upto: self.cut.upto });
        }
        self.close_frame()?;
        self.summary.last = *self.cursor.tip();
        let summary = self.summary.encode();
        assert!(summary.len() <= SUMMARY_BYTES_MAX, "a writer stops taking entries before its summary is too large");
        let summary_at = self.written;
        self.put(&summary)?;
        let hash = *self.hasher.finalize().as_bytes();
        let summary_crc = crc32c(&summary);
        self.put(&Trailer { summary_at, summary_bytes: summary.len() as u32, summary_crc, hash }.encode())?;
        self.file.flush().map_err(Error::io("write batch", &self.path))?;
        self.file.get_ref().sync_all().map_err(Error::io("sync batch", &self.path))?;
        self.finished = true;
        let summary = &self.summary;
        let info = BatchInfo {
            stream: self.cut.stream,
            geometry: self.cut.geometry,
            first: self.cut.first,
            last: summary.last,
            opening: self.cut.opening,
            openings: summary.openings.clone(),
            marks: summary.marks.clone(),
            first_time: summary.first_time,
            entries: summary.entries,
            file_bytes: self.written,
            hash,
        };
        Ok(Finished { path: self.path.clone(), info, file_hash: *self.hasher.finalize().as_bytes() })
    }

    fn close_frame(&mut self) -> Result<()> {
        let packed = self.packer.pack(&self.frame).map_err(Error::io("pack a frame of", &self.path))?;
        let record = FrameRecord { first: self.frame_first, packed_bytes: packed.len() as u32, crc: crc32c(packed) };
        self.hasher.update(packed);
        self.file.write_all(packed).map_err(Error::io("write batch", &self.path))?;
        self.written += packed.len() as u64;
        self.summary.frames.push(record);
        self.frame.clear();
        self.frame_first = *self.cursor.tip();
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(Error::io("write batch", &self.path))?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = remove_if_there(&self.path)
        {
            tracing::warn!(%error, "remove an unfinished batch");
        }
    }
}

impl Finished {
    /// Gives the batch its name in `folder`, on the same file system: renamed, folder synced. From then on it counts.
    pub fn publish(self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join(self.info.name().to_string());
        fs::rename(&self.path, &path).map_err(Error::io("rename batch", &self.path))?;
        sync_dir(folder)?;
        Ok(path)
    }
}

impl Mark {
    /// The mark that an entry is; `None` when it is none, or its name is no text or too long to be listed.
    pub fn of(entry: &journal::Entry<'_>) -> Option<Mark> {
        let name = std::str::from_utf8(entry.payload).ok()?;
        (entry.header.kind == Some(Kind::Mark) && name.len() <= MARK_NAME_BYTES_MAX).then(|| Mark {
            name: name.to_owned(),
            at: entry.header.lsn,
            end: entry.header.range().to,
            time: entry.header.time,
        })
    }
}

const _: () = assert!(SUMMARY_RESERVE > HEAD_BYTES + TRAILER_BYTES + 2 * MARK_NAME_BYTES_MAX);
