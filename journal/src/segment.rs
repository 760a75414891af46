//! Segment files: a 4 KiB local header in two copies, and a body that is the same on every node.
//!
//! ```text
//!     0 header, first copy (512 bytes)
//!  2048 header, second copy
//!  4096 body: LSN `first` to `first + body_bytes`
//! ```

use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::chain::Chain;
use crate::codec::{Put, Take};
use crate::cursor::Tip;
use crate::entry::crc32c;
use crate::epoch::{Epoch, Opening, Term};
use crate::error::{Error, Result, way_back};
use crate::geometry::{BODY_BYTES_MAX, BODY_BYTES_MIN, Geometry, SEGMENT_HEADER_BYTES};
use crate::id::{NodeId, StreamId};
use crate::lsn::{Lsn, LsnRange};
use crate::mmap::Map;
use crate::pread::fill;
use crate::storage::{Storage, StorageFile};
use crate::time::Time;

const MAGIC: [u8; 8] = *b"TOWLSEG1";
const VERSION: u16 = 1;
/// One copy of the header: a sector, so that a disk writes it whole or not.
pub(crate) const COPY_BYTES: usize = 512;
pub(crate) const SECOND_COPY_AT: usize = 2048;
pub(crate) const CRC_AT: usize = COPY_BYTES - 4;

/// What a segment file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) stream: StreamId,
    pub(crate) geometry: Geometry,
    /// Address of the body's first byte.
    pub(crate) first: Lsn,
    /// The tip in front of the first entry of the body; its LSN is `first`, except where a log begins inside.
    pub(crate) tip: Tip,
    /// How the epoch of that tip began; `None` in front of the first one. A log whose head was pruned no longer holds
    /// the entry that says so.
    pub(crate) opening: Option<Opening>,
}

impl SegmentHeader {
    /// The whole 4 KiB block.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut put = Put::default();
        put.bytes(&MAGIC).u16(VERSION).u16(0).u32(self.geometry.body_bytes() as u32).bytes(self.stream.as_bytes());
        put.u64(self.first.get()).u64(self.tip.lsn.get()).u64(self.tip.chain.get()).u64(self.tip.time.as_nanos());
        put.u32(self.tip.epoch.term.0).u32(self.tip.epoch.run).u64(self.tip.run_id);
        if let Some(opening) = &self.opening {
            put.u64(opening.term_id)
                .bytes(opening.node.as_bytes())
                .u64(opening.first.get())
                .u64(opening.chain_in.get());
        }
        let mut copy = put.0;
        copy.resize(CRC_AT, 0);
        let crc = crc32c(&copy);
        copy.extend_from_slice(&crc.to_le_bytes());
        let mut block = vec![0; SEGMENT_HEADER_BYTES];
        block[..COPY_BYTES].copy_from_slice(&copy);
        block[SECOND_COPY_AT..SECOND_COPY_AT + COPY_BYTES].copy_from_slice(&copy);
        block
    }

    /// Reads the first copy that is whole; `Err` says what is wrong with both.
    pub(crate) fn decode(block: &[u8]) -> std::result::Result<SegmentHeader, &'static str> {
        let copy = |at: usize| block.get(at..at + COPY_BYTES).ok_or("it is shorter than a segment header");
        SegmentHeader::decode_copy(copy(0)?).or_else(|_| SegmentHeader::decode_copy(copy(SECOND_COPY_AT)?))
    }

    /// True when both copies are whole and say the same.
    pub(crate) fn copies_agree(block: &[u8]) -> bool {
        let copy = |at: usize| block.get(at..at + COPY_BYTES).map(SegmentHeader::decode_copy);
        matches!((copy(0), copy(SECOND_COPY_AT)), (Some(Ok(one)), Some(Ok(two))) if one == two)
    }

    fn decode_copy(copy: &[u8]) -> std::result::Result<SegmentHeader, &'static str> {
        let (fields, crc) = copy.split_at(CRC_AT);
        if fields[..8] != MAGIC {
            return Err("it is not a segment of this format");
        }
        if crc32c(fields).to_le_bytes() != crc {
            return Err("both copies of its header are damaged");
        }
        let mut take = Take(&fields[8..]);
        match SegmentHeader::take(&mut take) {
            Some(Ok(header)) => Ok(header),
            Some(Err(what)) => Err(what),
            None => Err("its header is too short"),
        }
    }

    fn take(take: &mut Take<'_>) -> Option<std::result::Result<SegmentHeader, &'static str>> {
        if take.u16()? != VERSION {
            return Some(Err("it has another format version"));
        }
        take.u16()?;
        let Some(geometry) = Geometry::new(take.u32()?) else { return Some(Err("its body size is impossible")) };
        let stream = StreamId::from_bytes(take.array()?);
        let first = Lsn::new(take.u64()?);
        let tip = Tip {
            lsn: Lsn::new(take.u64()?),
            chain: Chain::from_u64(take.u64()?),
            time: Time::from_nanos(take.u64()?),
            epoch: Epoch { term: Term(take.u32()?), run: take.u32()? },
            run_id: take.u64()?,
        };
        let opening = Opening {
            epoch: tip.epoch,
            term_id: take.u64()?,
            run_id: tip.run_id,
            node: NodeId::from_bytes(take.array()?),
            first: Lsn::new(take.u64()?),
            chain_in: Chain::from_u64(take.u64()?),
        };
        if geometry.segment_of(first) != first || geometry.segment_of(tip.lsn) != first || !geometry.holds(first) {
            return Some(Err("its header contradicts itself"));
        }
        let opening = (opening.node != NodeId::default()).then_some(opening);
        Some(Ok(SegmentHeader { stream, geometry, first, tip, opening }))
    }

    /// Reads the header of a segment file.
    pub(crate) fn read(file: &File, path: &Path) -> Result<SegmentHeader> {
        let mut block = [0; SEGMENT_HEADER_BYTES];
        let filled = fill(file, &mut block, 0).map_err(Error::io("read", path))?;
        SegmentHeader::decode(&block[..filled]).map_err(|what| corrupt(path, what))
    }
}

/// Name of the segment file whose body begins at `first`.
pub(crate) fn file_name(first: Lsn) -> String {
    format!("{:016x}.seg", first.get())
}

/// The first LSN that a segment's file name says; `None` for a name that no segment has, whatever its geometry.
pub(crate) fn parse_name(path: &Path) -> Option<Lsn> {
    let name = path.file_name()?.to_str()?;
    let first = u64::from_str_radix(name.strip_suffix(".seg")?, 16).ok().map(Lsn::new)?;
    let ends = first.checked_add(u64::from(BODY_BYTES_MAX)).is_some();
    (ends && first.get().is_multiple_of(u64::from(BODY_BYTES_MIN)) && file_name(first) == name).then_some(first)
}

/// Size of a whole segment file.
pub(crate) fn file_bytes(geometry: Geometry) -> u64 {
    SEGMENT_HEADER_BYTES as u64 + geometry.body_bytes()
}

fn corrupt(path: &Path, what: &str) -> Error {
    Error::Corrupt { path: path.to_owned(), what: format!("{what}. The file was left as it is; {}", way_back(path)) }
}

/// An open, mapped segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) path: PathBuf,
    file: Arc<dyn StorageFile>,
    map: Map,
}

impl Segment {
    /// Opens the segment file at `path`, which must belong to `stream` and hold the body that its name says.
    pub(crate) fn open(storage: &dyn Storage, path: &Path, stream: StreamId, geometry: Geometry) -> Result<Segment> {
        let file = storage.open(path).map_err(Error::io("open", path))?;
        let header = SegmentHeader::read(file.file(), path)?;
        if header.stream != stream {
            return Err(corrupt(path, &format!("it belongs to stream {}, not to {stream}", header.stream)));
        }
        if header.geometry != geometry || parse_name(path) != Some(header.first) {
            return Err(corrupt(path, "its header says another place or size than its name"));
        }
        Segment::from_file(path.to_owned(), file, header)
    }

    /// The segment in a file that already carries `header`.
    pub(crate) fn from_file(path: PathBuf, file: Arc<dyn StorageFile>, header: SegmentHeader) -> Result<Segment> {
        let map = Map::new(file.file(), file_bytes(header.geometry)).map_err(|source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => corrupt(&path, &source.to_string()),
            _ => Error::io("map", &path)(source),
        })?;
        Ok(Segment { header, path, file, map })
    }

    /// Address of the body's first byte.
    pub(crate) fn first(&self) -> Lsn {
        self.header.first
    }

    /// Address behind the body.
    pub(crate) fn end(&self) -> Lsn {
        self.header.first.advance(self.header.geometry.body_bytes())
    }

    /// The bytes of a range inside the body. The caller knows that they don't change any more.
    pub(crate) fn bytes(&self, range: LsnRange) -> &[u8] {
        let from = self.offset(range.from) as usize;
        self.map.bytes(from..from + range.bytes() as usize)
    }

    /// Writes `bytes` at address `at`; they stay inside the body.
    pub(crate) fn write(&self, at: Lsn, bytes: &[u8]) -> std::io::Result<()> {
        debug_assert!(at.advance(bytes.len() as u64) <= self.end());
        self.file.write_at(bytes, self.offset(at))
    }

    /// Returns when everything written is on stable storage.
    pub(crate) fn sync(&self) -> std::io::Result<()> {
        self.file.sync()
    }

    /// The file, for a new name and a new header when it is recycled.
    pub(crate) fn into_file(self) -> Arc<dyn StorageFile> {
        self.file
    }

    fn offset(&self, at: Lsn) -> u64 {
        SEGMENT_HEADER_BYTES as u64 + at.bytes_since(self.header.first)
    }
}

/// Bytes of the log that don't change any more. Pins its segment: while it lives, the segment is neither recycled nor
/// its file gone.
#[derive(Clone, Debug)]
pub struct Slice {
    segment: Arc<Segment>,
    range: LsnRange,
}

impl Slice {
    pub(crate) fn new(segment: Arc<Segment>, range: LsnRange) -> Slice {
        Slice { segment, range }
    }

    /// The range it covers.
    pub fn range(&self) -> LsnRange {
        self.range
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.segment.bytes(self.range)
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}
