//! The one verification of entries: recovery, readers, receivers, batches and offline tools all walk with a [`Cursor`].

use std::fmt;

use zerocopy::FromBytes;

use crate::chain::Chain;
use crate::entry::{Entry, EpochEntry, Flags, Header, Kind, RawHeader, crc32c};
use crate::epoch::{Epoch, Opening};
use crate::geometry::{EPOCH_ROOM_BYTES, Geometry, HEADER_BYTES, entry_bytes};
use crate::id::StreamId;
use crate::lsn::{Lsn, LsnRange};
use crate::time::Time;

/// A place between two entries, and everything that the next entry is checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tip {
    /// Where the next entry stands.
    pub lsn: Lsn,
    /// Chain up to here.
    pub chain: Chain,
    /// Time of the entry before.
    pub time: Time,
    /// Epoch of the entry before.
    pub epoch: Epoch,
    /// Run id of the entry before.
    pub run_id: u64,
}

impl Tip {
    /// The tip of a stream's empty log.
    pub fn empty(stream: StreamId) -> Tip {
        Tip { lsn: Lsn::ZERO, chain: Chain::seed(stream), time: Time::ZERO, epoch: Epoch::default(), run_id: 0 }
    }
}

/// Why bytes are not the next entry of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// All zero where a header should stand.
    Zero,
    /// A length that no entry can have here.
    Length,
    /// The header names another LSN.
    Place,
    /// The header doesn't link to the chain: damaged, or from another history.
    Chain,
    /// The epoch doesn't follow.
    Epoch,
    /// Time doesn't increase.
    Time,
    /// The payload doesn't match its checksum.
    Payload,
    /// The zeros behind the payload are not zero.
    Padding,
    /// The bytes end inside the entry.
    Short,
    /// A kind, flag, codec or key that this version must understand and doesn't.
    Unknown,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FaultKind::Zero => "nothing was written there",
            FaultKind::Length => "the length in its header is impossible",
            FaultKind::Place => "its header names another LSN",
            FaultKind::Chain => "its header does not link to the chain before it",
            FaultKind::Epoch => "its epoch does not follow the one before",
            FaultKind::Time => "its time does not increase",
            FaultKind::Payload => "its payload does not match its checksum",
            FaultKind::Padding => "the zeros behind its payload are not zero",
            FaultKind::Short => "the bytes end inside it",
            FaultKind::Unknown => "it uses a feature that this version does not know",
        })
    }
}

/// The first entry of some bytes that is not the next of its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("entry at LSN {at}: {kind}")]
pub struct Fault {
    /// Where the entry begins.
    pub at: Lsn,
    /// What is wrong with it.
    pub kind: FaultKind,
    /// Where it would end, if its header can be believed that far; else `at`.
    pub to: Lsn,
}

impl Fault {
    /// The damaged range as far as it is known.
    pub fn range(&self) -> LsnRange {
        LsnRange::new(self.at, self.to)
    }
}

/// A verified walk along one history.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    geometry: Geometry,
    tip: Tip,
}

/// What [`Cursor::next`] found.
#[derive(Clone, Copy, Debug)]
pub enum Next<'a> {
    /// The next entry; the cursor stands behind it.
    Entry(Entry<'a>),
    /// Fewer bytes than the entry takes: call again with at least this many. The cursor has not moved.
    Need(usize),
}

impl Cursor {
    /// A walk that begins at `tip`.
    pub fn new(geometry: Geometry, tip: Tip) -> Cursor {
        Cursor { geometry, tip }
    }

    /// Where the walk stands.
    pub fn tip(&self) -> &Tip {
        &self.tip
    }

    /// The log's geometry.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Verifies the entry at the beginning of `bytes` and steps behind it.
    ///
    /// Checks length, place, chain, epoch, time, checksum and padding before anything is believed. On a fault the
    /// cursor has not moved.
    pub fn next<'a>(&mut self, bytes: &'a [u8]) -> Result<Next<'a>, Fault> {
        let Some((raw, _)) = RawHeader::read_from_prefix(bytes).ok() else { return Ok(Next::Need(HEADER_BYTES)) };
        let header = self.check_header(&raw)?;
        let whole = entry_bytes(header.payload_bytes()) as usize;
        if bytes.len() < whole {
            return Ok(Next::Need(whole));
        }
        let payload = &bytes[HEADER_BYTES..header.length as usize];
        let to = header.range().to;
        let fault = |kind| Err(Fault { at: header.lsn, kind, to });
        if crc32c(payload) != header.payload_crc {
            return fault(FaultKind::Payload);
        }
        if bytes[header.length as usize..whole].iter().any(|&byte| byte != 0) {
            return fault(FaultKind::Padding);
        }
        if header.kind == Some(Kind::Epoch) && EpochEntry::decode(payload).is_none() {
            return fault(FaultKind::Epoch);
        }
        self.tip = Tip { lsn: to, chain: header.chain, time: header.time, epoch: header.epoch, run_id: header.run_id };
        Ok(Next::Entry(Entry { header, payload }))
    }

    /// Verifies as many whole entries as `bytes` begin with. A half entry at the end is no fault: it is left over.
    ///
    /// On a fault the entries before it are lost to the caller too; verify again up to `fault.at` to keep them.
    pub fn verify<'a>(&mut self, bytes: &'a [u8]) -> Result<Verified<'a>, Fault> {
        let first = self.tip;
        let mut openings = Vec::new();
        let mut boundaries = Vec::new();
        let mut used = 0;
        loop {
            if self.tip.lsn == self.geometry.segment_of(self.tip.lsn) {
                boundaries.push(self.tip);
            }
            let chain_in = self.tip.chain;
            match self.next(&bytes[used..])? {
                Next::Need(_) => break,
                Next::Entry(entry) => {
                    if entry.header.kind == Some(Kind::Epoch)
                        && let Some(epoch) = EpochEntry::decode(entry.payload)
                    {
                        openings.push(epoch.opening(&entry.header, chain_in));
                    }
                    used += entry.header.range().bytes() as usize;
                }
            }
        }
        Ok(Verified { bytes: &bytes[..used], first, last: self.tip, openings, boundaries })
    }

    fn check_header(&self, raw: &RawHeader) -> Result<Header, Fault> {
        let at = self.tip.lsn;
        let header = raw.numbers();
        let fault = |kind| Err(Fault { at, kind, to: at });
        if header.length == 0 {
            return fault(FaultKind::Zero);
        }
        if (header.length as usize) < HEADER_BYTES {
            return fault(FaultKind::Length);
        }
        let bytes = entry_bytes(header.payload_bytes());
        // a Pad is as long as the room that an entry didn't fit into; anything else has a bounded payload
        let allowed = match header.kind {
            Some(Kind::Pad) => bytes == self.geometry.room(at) && self.pad_is_needed(bytes),
            _ => header.payload_bytes() <= self.geometry.payload_bytes_max() && self.geometry.fits(at, bytes),
        };
        if !allowed {
            return fault(FaultKind::Length);
        }
        if header.lsn != at {
            return fault(FaultKind::Place);
        }
        if raw.expected_chain(self.tip.chain) != header.chain {
            return fault(FaultKind::Chain);
        }
        // the header is what its writer wrote: its length can be believed from here on
        let fault = |kind| Err(Fault { at, kind, to: at.advance(bytes) });
        let follows = match header.kind {
            Some(Kind::Epoch) => header.epoch > self.tip.epoch,
            _ => header.epoch == self.tip.epoch && header.run_id == self.tip.run_id,
        };
        if !follows {
            return fault(FaultKind::Epoch);
        }
        if header.time <= self.tip.time {
            return fault(FaultKind::Time);
        }
        let skippable = raw.kind >= 128;
        if (header.kind.is_none() && !skippable)
            || header.flags.unknown() != 0
            || raw.codec != 0
            || raw.key_slot.get() != 0
        {
            return fault(FaultKind::Unknown);
        }
        Ok(header)
    }

    fn pad_is_needed(&self, bytes: u64) -> bool {
        bytes <= entry_bytes(self.geometry.payload_bytes_max()) + EPOCH_ROOM_BYTES
    }
}

/// A run of whole entries that a [`Cursor`] has verified: bytes that may be written to a log as they are.
///
/// Guarantees: `bytes` are `range().bytes()` long, begin behind `first` and end at `last`; `openings` are the epochs
/// that begin inside, in order. Made by [`Cursor::verify`] alone.
#[derive(Clone, Debug)]
pub struct Verified<'a> {
    bytes: &'a [u8],
    first: Tip,
    last: Tip,
    openings: Vec<Opening>,
    boundaries: Vec<Tip>,
}

impl<'a> Verified<'a> {
    /// The entries as they stand in the log.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The tip they follow.
    pub fn first(&self) -> &Tip {
        &self.first
    }

    /// The tip behind them.
    pub fn last(&self) -> &Tip {
        &self.last
    }

    /// What they cover.
    pub fn range(&self) -> LsnRange {
        LsnRange::new(self.first.lsn, self.last.lsn)
    }

    /// The epochs that begin inside.
    pub fn openings(&self) -> &[Opening] {
        &self.openings
    }

    /// The tips at the segment boundaries that the run touches: what the headers of new segments say.
    pub(crate) fn boundaries(&self) -> &[Tip] {
        &self.boundaries
    }
}

/// An entry as a writer lays it out behind `tip`: shared by the append path and by tests that forge histories.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its flags.
    pub flags: Flags,
    /// Its volume.
    pub volume: u16,
    /// Producer and sequence; zero without [`Flags::PRODUCER`].
    pub producer: u64,
    /// See `producer`.
    pub sequence: u64,
    /// The payload in parts, so that callers needn't join them.
    pub parts: &'a [&'a [u8]],
    /// CRC-32C over the parts, computed outside any lock.
    pub payload_crc: u32,
}

impl Draft<'_> {
    /// Bytes of the payload.
    pub fn payload_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    /// Appends the entry to `out` and moves `tip` behind it. The epoch and run are those in `tip`; an `Epoch` entry's
    /// caller sets them there first. The caller has made sure that it fits.
    pub fn lay(&self, tip: &mut Tip, now: Time, durable: Lsn, out: &mut Vec<u8>) -> Header {
        let payload_bytes = self.payload_bytes();
        let time = now.max(Time::from_nanos(tip.time.as_nanos() + 1));
        let mut header = Header {
            length: (HEADER_BYTES + payload_bytes) as u32,
            kind: Some(self.kind),
            flags: self.flags,
            lsn: tip.lsn,
            epoch: tip.epoch,
            run_id: tip.run_id,
            time,
            durable,
            payload_crc: self.payload_crc,
            volume: self.volume,
            producer: self.producer,
            sequence: self.sequence,
            chain: Chain::default(),
        };
        let mut raw = RawHeader::new(&header, self.kind);
        header.chain = raw.link(tip.chain);
        out.reserve(entry_bytes(payload_bytes) as usize);
        out.extend_from_slice(zerocopy::IntoBytes::as_bytes(&raw));
        for part in self.parts {
            out.extend_from_slice(part);
        }
        let padded = entry_bytes(payload_bytes) as usize - header.length as usize;
        out.extend_from_slice(&[0; 8][..padded]);
        *tip = Tip { lsn: header.range().to, chain: header.chain, time, ..*tip };
        header
    }
}
