//! The bytes of a batch file. docs/FORMAT.md, "Batches and depots", has the same byte by byte.
//!
//! ```text
//!  head 136 | frame | frame | … | summary | trailer 64
//!   stream,   zstd, each of whole  last tip,   where the summary is,
//!   first tip entries, <= 1 MiB    marks,      blake3 of everything before
//!                                  frame table
//! ```
//! All integers are little endian; every byte lies under a checksum that is looked at before it is believed.

use journal::{Chain, Epoch, Geometry, Lsn, NodeId, Opening, StreamId, Term, Time, Tip, crc32c};

use super::Mark;
use crate::error::{Place, What};

pub(crate) const MAGIC: [u8; 8] = *b"TOWLBTCH";
pub(crate) const MAGIC_END: [u8; 8] = *b"BTCHTOWL";
/// Version of the format. 1: the first.
pub(crate) const VERSION: u16 = 1;
/// Frames are zstd.
const CODEC_ZSTD: u8 = 1;

pub(crate) const HEAD_BYTES: usize = 136;
pub(crate) const TRAILER_BYTES: usize = 64;
const TIP_BYTES: usize = 40;
const OPENING_BYTES: usize = 56;
pub(crate) const FRAME_RECORD_BYTES: usize = TIP_BYTES + 8;
const MARK_FIXED_BYTES: usize = 26;
const SUMMARY_FIXED_BYTES: usize = TIP_BYTES + 8 + 8 + 16;

const _: () = assert!(HEAD_BYTES == 16 + 16 + TIP_BYTES + OPENING_BYTES + 8);

/// Largest summary: a reader allocates no more than this for it. Enough for about 100 GiB of log in one batch.
pub(crate) const SUMMARY_BYTES_MAX: usize = 8 << 20;

/// What stands in front of the frames: known before the first entry is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) stream: StreamId,
    pub(crate) geometry: Geometry,
    pub(crate) first: Tip,
    pub(crate) opening: Option<Opening>,
}

/// Where a frame's entries begin, and how its packed bytes are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameRecord {
    pub(crate) first: Tip,
    pub(crate) packed_bytes: u32,
    pub(crate) crc: u32,
}

/// What stands behind the frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) last: Tip,
    pub(crate) first_time: Time,
    pub(crate) entries: u64,
    pub(crate) openings: Vec<Opening>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) frames: Vec<FrameRecord>,
}

/// The last bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) summary_at: u64,
    pub(crate) summary_bytes: u32,
    pub(crate) summary_crc: u32,
    pub(crate) hash: [u8; 32],
}

/// Why a head can't be used: damaged, or of another making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeadFault {
    Damaged(What),
    Foreign(String),
}

impl Head {
    pub(crate) fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut out = Vec::with_capacity(HEAD_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[CODEC_ZSTD, 0]);
        out.extend_from_slice(&(self.geometry.body_bytes() as u32).to_le_bytes());
        out.extend_from_slice(self.stream.as_bytes());
        put_tip(&mut out, &self.first);
        put_opening(&mut out, &self.opening.unwrap_or(NO_OPENING));
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&crc32c(&out).to_le_bytes());
        let mut head = [0; HEAD_BYTES];
        head.copy_from_slice(&out);
        head
    }

    pub(crate) fn decode(bytes: &[u8; HEAD_BYTES]) -> Result<Head, HeadFault> {
        let mut input = Input(bytes);
        let damaged = HeadFault::Damaged;
        let short = || HeadFault::Damaged(What::Size);
        if input.take(8) != Some(&MAGIC[..]) {
            return Err(HeadFault::Foreign("this is no batch: it doesn't begin like one. Name a batch file".into()));
        }
        let version = input.u16().ok_or_else(short)?;
        if version != VERSION {
            return Err(HeadFault::Foreign(format!(
                "a batch of format {version}; this version of towline reads format {VERSION}. Use a newer one, if the file isn't damaged"
            )));
        }
        if crc32c(&bytes[..HEAD_BYTES - 4]).to_le_bytes() != bytes[HEAD_BYTES - 4..] {
            return Err(damaged(What::Checksum));
        }
        let codec = input.u8().ok_or_else(short)?;
        let flags = input.u8().ok_or_else(short)?;
        if codec != CODEC_ZSTD || flags != 0 {
            return Err(HeadFault::Foreign(
                "a batch with features that this version doesn't know. Use a newer one".into(),
            ));
        }
        let body_bytes = input.u32().ok_or_else(short)?;
        let geometry = Geometry::new(body_bytes)
            .ok_or(damaged(What::Contradiction("the segment size is none that a stream can have")))?;
        let stream = StreamId::from_bytes(input.array().ok_or_else(short)?);
        let first = input.tip().ok_or_else(short)?;
        let opening = input.opening().ok_or_else(short)?;
        let opening = (opening != NO_OPENING).then_some(opening);
        let agree = match opening {
            None => first.epoch == Epoch::default(),
            Some(o) => o.epoch == first.epoch && o.run_id == first.run_id && o.first < first.lsn,
        };
        if !agree {
            return Err(damaged(What::Contradiction("the epoch it begins in is not the one it names")));
        }
        Ok(Head { stream, geometry, first, opening })
    }
}

impl Summary {
    /// Bytes that this many things take, so that a writer can stop in time.
    pub(crate) fn bytes(frames: usize, openings: usize, marks: usize, name_bytes: usize) -> usize {
        SUMMARY_FIXED_BYTES
            + frames * FRAME_RECORD_BYTES
            + openings * OPENING_BYTES
            + marks * MARK_FIXED_BYTES
            + name_bytes
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_tip(&mut out, &self.last);
        out.extend_from_slice(&self.first_time.as_nanos().to_le_bytes());
        out.extend_from_slice(&self.entries.to_le_bytes());
        for count in [self.openings.len(), self.marks.len(), self.frames.len(), 0] {
            out.extend_from_slice(&(count as u32).to_le_bytes());
        }
        for opening in &self.openings {
            put_opening(&mut out, opening);
        }
        for mark in &self.marks {
            for number in [mark.at.get(), mark.end.get(), mark.time.as_nanos()] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(&(mark.name.len() as u16).to_le_bytes());
            out.extend_from_slice(mark.name.as_bytes());
        }
        for frame in &self.frames {
            put_tip(&mut out, &frame.first);
            out.extend_from_slice(&frame.packed_bytes.to_le_bytes());
            out.extend_from_slice(&frame.crc.to_le_bytes());
        }
        out
    }

    /// Reads a summary whose checksum matched. `None`: its counts and its length contradict each other.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Summary> {
        let mut input = Input(bytes);
        let last = input.tip()?;
        let first_time = Time::from_nanos(input.u64()?);
        let entries = input.u64()?;
        let (openings, marks, frames, zero) = (input.u32()?, input.u32()?, input.u32()?, input.u32()?);
        let least = Summary::bytes(frames as usize, openings as usize, marks as usize, 0);
        if zero != 0 || least > bytes.len() {
            return None;
        }
        let openings = (0..openings).map(|_| input.opening()).collect::<Option<Vec<_>>>()?;
        let marks = (0..marks).map(|_| input.mark()).collect::<Option<Vec<_>>>()?;
        let frames = (0..frames).map(|_| input.frame()).collect::<Option<Vec<_>>>()?;
        input.0.is_empty().then_some(Summary { last, first_time, entries, openings, marks, frames })
    }
}

impl Trailer {
    pub(crate) fn encode(&self) -> [u8; TRAILER_BYTES] {
        let mut out = [0; TRAILER_BYTES];
        out[..8].copy_from_slice(&self.summary_at.to_le_bytes());
        out[8..12].copy_from_slice(&self.summary_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&self.summary_crc.to_le_bytes());
        out[16..48].copy_from_slice(&self.hash);
        out[48..56].copy_from_slice(&MAGIC_END);
        let crc = crc32c(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8; TRAILER_BYTES]) -> Result<Trailer, What> {
        let mut input = Input(bytes);
        let mut fixed = || {
            let (summary_at, summary_bytes, summary_crc) = (input.u64()?, input.u32()?, input.u32()?);
            let hash = input.array()?;
            let (magic, zero, crc) = (input.take(8)?, input.u32()?, input.u32()?);
            Some((Trailer { summary_at, summary_bytes, summary_crc, hash }, magic, zero, crc))
        };
        let (trailer, magic, zero, crc) = fixed().ok_or(What::Size)?;
        if magic != MAGIC_END {
            return Err(What::Unfinished);
        }
        if zero != 0 || crc != crc32c(&bytes[..60]) {
            return Err(What::Checksum);
        }
        Ok(trailer)
    }
}

/// The bytes of the head as a place.
pub(crate) const HEAD_PLACE: Place = Place::Bytes { from: 0, to: HEAD_BYTES as u64 };

/// Stands for "no epoch yet": the batch begins at the beginning of the log.
const NO_OPENING: Opening = Opening {
    epoch: Epoch { term: Term(0), run: 0 },
    term_id: 0,
    run_id: 0,
    node: NodeId::from_bytes([0; 16]),
    first: Lsn::ZERO,
    chain_in: Chain::from_u64(0),
};

fn put_tip(out: &mut Vec<u8>, tip: &Tip) {
    for number in [tip.lsn.get(), tip.chain.get(), tip.time.as_nanos()] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&tip.epoch.term.0.to_le_bytes());
    out.extend_from_slice(&tip.epoch.run.to_le_bytes());
    out.extend_from_slice(&tip.run_id.to_le_bytes());
}

fn put_opening(out: &mut Vec<u8>, opening: &Opening) {
    out.extend_from_slice(&opening.epoch.term.0.to_le_bytes());
    out.extend_from_slice(&opening.epoch.run.to_le_bytes());
    for number in [opening.term_id, opening.run_id, opening.first.get(), opening.chain_in.get()] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(opening.node.as_bytes());
}

/// Bytes still to be read; every step answers `None` at their end.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn epoch(&mut self) -> Option<Epoch> {
        Some(Epoch { term: Term(self.u32()?), run: self.u32()? })
    }

    fn tip(&mut self) -> Option<Tip> {
        let (lsn, chain, time) = (Lsn::new(self.u64()?), Chain::from_u64(self.u64()?), Time::from_nanos(self.u64()?));
        Some(Tip { lsn, chain, time, epoch: self.epoch()?, run_id: self.u64()? })
    }

    fn opening(&mut self) -> Option<Opening> {
        let epoch = self.epoch()?;
        let (term_id, run_id) = (self.u64()?, self.u64()?);
        let (first, chain_in) = (Lsn::new(self.u64()?), Chain::from_u64(self.u64()?));
        Some(Opening { epoch, term_id, run_id, node: NodeId::from_bytes(self.array()?), first, chain_in })
    }

    fn mark(&mut self) -> Option<Mark> {
        let (at, end, time) = (Lsn::new(self.u64()?), Lsn::new(self.u64()?), Time::from_nanos(self.u64()?));
        let name_bytes = self.u16()?;
        let name = std::str::from_utf8(self.take(name_bytes.into())?).ok()?.to_owned();
        Some(Mark { name, at, end, time })
    }

    fn frame(&mut self) -> Option<FrameRecord> {
        Some(FrameRecord { first: self.tip()?, packed_bytes: self.u32()?, crc: self.u32()? })
    }
}
