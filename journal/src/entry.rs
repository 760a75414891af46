//! The entry: header, payload, zeros up to the next multiple of eight.
//!
//! ```text
//!  0 length u32 | 4 kind u8 | 5 codec u8 | 6 flags u16 | 8 lsn u64 | 16 term u32 | 20 run u32 | 24 run id u64
//! 32 time u64   | 40 durable u64 | 48 payload crc u32 | 52 volume u16 | 54 key slot u16
//! 56 producer u64 | 64 sequence u64 | 72 reserved u64 | 80 chain u64 | 88 payload …
//! ```
//! All integers are little endian. docs/FORMAT.md has the same byte by byte.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::chain::Chain;
use crate::epoch::{Epoch, Opening, Term};
use crate::geometry::{EPOCH_ROOM_BYTES, HEADER_BYTES, entry_bytes};
use crate::id::NodeId;
use crate::lsn::{Lsn, LsnRange};
use crate::time::Time;

/// CRC-32C, the checksum of payloads and of every fixed structure.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// What an entry is. Kinds from 128 on may be skipped by a reader that doesn't know them; lower ones may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Fills a segment to its end.
    Pad = 1,
    /// First entry of an epoch: an [`EpochEntry`].
    Epoch = 2,
    /// What a volume wrote: a record, or a fragment of one.
    Data = 3,
    /// A named restore point; the payload is its name in UTF-8.
    Mark = 4,
    /// The wall clock was stepped; the payload is empty, the entry's time goes on increasing.
    Clock = 5,
    /// The stream went on alone, or stopped being alone; the payload says so.
    Alone = 6,
    /// A destination was detached, or is attached again; the payload says so.
    Detached = 128,
}

impl Kind {
    fn from_u8(kind: u8) -> Option<Kind> {
        Some(match kind {
            1 => Kind::Pad,
            2 => Kind::Epoch,
            3 => Kind::Data,
            4 => Kind::Mark,
            5 => Kind::Clock,
            6 => Kind::Alone,
            128 => Kind::Detached,
            _ => return None,
        })
    }
}

/// Flag bits of an entry: the low byte may be ignored by a reader that doesn't know a bit, the high byte may not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u16);

impl Flags {
    /// Nothing set.
    pub const NONE: Flags = Flags(0);
    /// The record came from text whose last line had no newline.
    pub const UNTERMINATED: Flags = Flags(0x0001);
    /// Producer and sequence are set.
    pub const PRODUCER: Flags = Flags(0x0002);
    /// First fragment of a record.
    pub const FIRST: Flags = Flags(0x0100);
    /// Last fragment of a record.
    pub const LAST: Flags = Flags(0x0200);
    /// Must-understand bits that this version knows.
    const KNOWN: u16 = 0x0300;
    /// Bits that a reader may ignore.
    pub(crate) const MAY_IGNORE: u16 = 0x00ff;

    /// Both sets of bits.
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// True when every bit of `other` is set here.
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Must-understand bits that this version doesn't know.
    pub const fn unknown(self) -> u16 {
        self.0 & !Flags::MAY_IGNORE & !Flags::KNOWN
    }
}

/// An entry header as it stands in the log.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawHeader {
    pub(crate) length: U32,
    pub(crate) kind: u8,
    pub(crate) codec: u8,
    pub(crate) flags: U16,
    pub(crate) lsn: U64,
    pub(crate) term: U32,
    pub(crate) run: U32,
    pub(crate) run_id: U64,
    pub(crate) time: U64,
    pub(crate) durable: U64,
    pub(crate) payload_crc: U32,
    pub(crate) volume: U16,
    pub(crate) key_slot: U16,
    pub(crate) producer: U64,
    pub(crate) sequence: U64,
    pub(crate) reserved: U64,
    pub(crate) chain: U64,
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_BYTES);
/// The chain covers the header up to the chain field.
pub(crate) const CHAINED_BYTES: usize = HEADER_BYTES - 8;

/// A checked entry header: its numbers, without the bytes.
///
/// Guarantees, when it comes from a [`crate::Cursor`]: it stands at `lsn`, belongs to the history that the cursor
/// followed, and its payload matched its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Header and payload, without the zeros behind.
    pub length: u32,
    /// `None`: a kind that this version doesn't know and may skip.
    pub kind: Option<Kind>,
    /// Fragment and other flags.
    pub flags: Flags,
    /// Where the entry stands.
    pub lsn: Lsn,
    /// Who wrote it.
    pub epoch: Epoch,
    /// Random id of the run.
    pub run_id: u64,
    /// When, strictly increasing.
    pub time: Time,
    /// The writing node's durable watermark when the entry was staged: evidence on that node alone.
    pub durable: Lsn,
    /// CRC-32C of the payload.
    pub payload_crc: u32,
    /// Which volume of the stream it belongs to.
    pub volume: u16,
    /// The program's id of the writer, with [`Flags::PRODUCER`].
    pub producer: u64,
    /// The program's own number of the record, with [`Flags::PRODUCER`].
    pub sequence: u64,
    /// Chain behind this entry.
    pub chain: Chain,
}

impl Header {
    /// Bytes of the payload.
    pub const fn payload_bytes(&self) -> usize {
        self.length as usize - HEADER_BYTES
    }

    /// The range that the entry takes, zeros behind it included.
    pub const fn range(&self) -> LsnRange {
        LsnRange::new(self.lsn, self.lsn.advance(entry_bytes(self.payload_bytes())))
    }
}

/// A verified entry and its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The checked header.
    pub header: Header,
    /// The payload, unchanged.
    pub payload: &'a [u8],
}

impl RawHeader {
    /// The header for an entry whose chain is still to be linked.
    pub(crate) fn new(header: &Header, kind: Kind) -> RawHeader {
        RawHeader {
            length: U32::new(header.length),
            kind: kind as u8,
            codec: 0,
            flags: U16::new(header.flags.0),
            lsn: U64::new(header.lsn.get()),
            term: U32::new(header.epoch.term.0),
            run: U32::new(header.epoch.run),
            run_id: U64::new(header.run_id),
            time: U64::new(header.time.as_nanos()),
            durable: U64::new(header.durable.get()),
            payload_crc: U32::new(header.payload_crc),
            volume: U16::new(header.volume),
            key_slot: U16::new(0),
            producer: U64::new(header.producer),
            sequence: U64::new(header.sequence),
            reserved: U64::new(0),
            chain: U64::new(0),
        }
    }

    /// Sets the chain field to the link behind `before`, and returns it.
    pub(crate) fn link(&mut self, before: Chain) -> Chain {
        let chain = before.link(&self.as_bytes()[..CHAINED_BYTES]);
        self.chain = U64::new(chain.get());
        chain
    }

    /// The chain that this header must carry behind `before`.
    pub(crate) fn expected_chain(&self, before: Chain) -> Chain {
        before.link(&self.as_bytes()[..CHAINED_BYTES])
    }

    /// The numbers as they stand, unchecked but for their types.
    pub(crate) fn numbers(&self) -> Header {
        Header {
            length: self.length.get(),
            kind: Kind::from_u8(self.kind),
            flags: Flags(self.flags.get()),
            lsn: Lsn::new(self.lsn.get()),
            epoch: Epoch { term: Term(self.term.get()), run: self.run.get() },
            run_id: self.run_id.get(),
            time: Time::from_nanos(self.time.get()),
            durable: Lsn::new(self.durable.get()),
            payload_crc: self.payload_crc.get(),
            volume: self.volume.get(),
            producer: self.producer.get(),
            sequence: self.sequence.get(),
            chain: Chain::from_u64(self.chain.get()),
        }
    }
}

/// Why an epoch was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The very first run of a new stream.
    Created = 1,
    /// A primary started again within its term.
    Started = 2,
    /// An operator promoted this node.
    Promoted = 3,
}

/// The payload of an epoch's first entry: who opened it and under which policy.
///
/// ```text
/// 0 term id u64 | 8 node 16 bytes | 24 reason u8 | 25 zero 3 bytes | 28 policy length u32 | 32 policy … | zeros
/// ```
/// Zeros behind the policy stretch the entry to the end of its segment where it would leave less than
/// [`EPOCH_ROOM_BYTES`] there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    /// Random id of the promotion that opened the term.
    pub term_id: u64,
    /// The node that writes the run.
    pub node: NodeId,
    /// Why.
    pub reason: Reason,
    /// Members, modes, k and destinations, as the layer above encodes them; at most [`POLICY_BYTES_MAX`].
    pub policy: Vec<u8>,
}

/// Bytes in front of the policy.
const EPOCH_FIXED_BYTES: usize = 32;
/// Largest policy: an epoch's first entry always fits into the room that other entries leave.
pub const POLICY_BYTES_MAX: usize = EPOCH_ROOM_BYTES as usize - HEADER_BYTES - EPOCH_FIXED_BYTES;

impl EpochEntry {
    /// The payload for a place with `room` bytes left in its segment.
    pub fn encode(&self, room: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(EPOCH_FIXED_BYTES + self.policy.len());
        out.extend_from_slice(&self.term_id.to_le_bytes());
        out.extend_from_slice(self.node.as_bytes());
        out.extend_from_slice(&[self.reason as u8, 0, 0, 0]);
        out.extend_from_slice(&(self.policy.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.policy);
        if entry_bytes(out.len()) + EPOCH_ROOM_BYTES > room {
            out.resize((room as usize).saturating_sub(HEADER_BYTES).max(out.len()), 0);
        }
        out
    }

    /// Reads a payload; `None` when it is none.
    pub fn decode(payload: &[u8]) -> Option<EpochEntry> {
        let (fixed, rest) = payload.split_at_checked(EPOCH_FIXED_BYTES)?;
        let reason = match fixed[24] {
            1 => Reason::Created,
            2 => Reason::Started,
            3 => Reason::Promoted,
            _ => return None,
        };
        let policy_bytes = u32::from_le_bytes(fixed[28..].try_into().ok()?) as usize;
        if policy_bytes > POLICY_BYTES_MAX {
            return None;
        }
        Some(EpochEntry {
            term_id: u64::from_le_bytes(fixed[..8].try_into().ok()?),
            node: NodeId::from_bytes(fixed[8..24].try_into().ok()?),
            reason,
            policy: rest.get(..policy_bytes)?.to_vec(),
        })
    }

    /// The opening that this entry, standing behind `chain_in`, is.
    pub fn opening(&self, header: &Header, chain_in: Chain) -> Opening {
        Opening {
            epoch: header.epoch,
            term_id: self.term_id,
            run_id: header.run_id,
            node: self.node,
            first: header.lsn,
            chain_in,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody writes one: an epoch's first entry fits where every other entry leaves room for it.
    #[test]
    fn an_epoch_entry_with_a_policy_that_is_too_large_is_none() {
        let entry = |policy| EpochEntry { term_id: 7, node: NodeId::default(), reason: Reason::Started, policy };
        let largest = entry(vec![b'x'; POLICY_BYTES_MAX]);
        assert!(EpochEntry::decode(&largest.encode(u64::MAX)).is_some_and(|read| read == largest));
        let larger = entry(vec![b'x'; POLICY_BYTES_MAX + 1]);
        assert!(EpochEntry::decode(&larger.encode(u64::MAX)).is_none());
    }
}
