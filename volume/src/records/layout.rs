//! Bytes of the index: two slots in blocks of their own, then items of one size. All integers are little endian.
//!
//! ```text
//! slot  0 magic 8 bytes | 8 version u16 | 10 volume u16 | 12 zero u32 | 16 stream 16 bytes | 32 sequence u64
//!      40 start u64 | 48 checkpoint u64 | 56 items u64 | 64 data bytes u64 | 72 zero 20 bytes | 92 crc32c u32
//! item  0 end lsn u64 | 8 data end u64 | 16 time u64 | 24 payload crc32c u32 | 28 flags u16 | 30 zero u16
//!      32 zero u32 | 36 crc32c u32
//! ```

use journal::{Flags, Lsn, StreamId, Time, crc32c};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Where the two slots begin: each in a 4 KiB block of its own, so that one torn write can't take both.
pub const SLOT_OFFSETS: [u64; 2] = [0, 4096];
/// Where the items begin.
pub const ITEMS_OFFSET: u64 = 8192;
/// Size of an item.
pub const ITEM_BYTES: u64 = 40;
/// Size of a slot.
pub(crate) const SLOT_BYTES: usize = 96;
/// The version that this code writes and reads. 1: the first.
pub(crate) const VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"TWLNRECS";

const _: () = assert!(size_of::<RawSlot>() == SLOT_BYTES);
const _: () = assert!(size_of::<RawItem>() == ITEM_BYTES as usize);
const _: () = assert!(SLOT_OFFSETS[1] + SLOT_BYTES as u64 <= ITEMS_OFFSET);

/// Whose records a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The stream.
    pub stream: StreamId,
    /// The volume within the stream.
    pub volume: u16,
}

/// What a slot says: everything below `checkpoint` was synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) identity: Identity,
    /// Raised with each write; the higher of two valid slots counts.
    pub(crate) sequence: u64,
    /// Records that ended at or below this are not in the file.
    pub(crate) start: Lsn,
    pub(crate) checkpoint: Lsn,
    /// Records that end at or below `checkpoint`, and their bytes.
    pub(crate) items: u64,
    pub(crate) data_bytes: u64,
}

/// What a slot's bytes are.
pub(crate) enum SlotFound {
    Slot(Slot),
    /// A newer format.
    Version(u16),
    Bad,
}

/// One record in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// Position behind the record's last entry.
    pub(crate) end: Lsn,
    /// Position behind its payload in the data file.
    pub(crate) data_end: u64,
    pub(crate) time: Time,
    pub(crate) payload_crc: u32,
    pub(crate) flags: Flags,
}

impl Slot {
    pub(crate) fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut raw = RawSlot {
            magic: MAGIC,
            version: U16::new(VERSION),
            volume: U16::new(self.identity.volume),
            zero: U32::ZERO,
            stream: *self.identity.stream.as_bytes(),
            sequence: U64::new(self.sequence),
            start: U64::new(self.start.get()),
            checkpoint: U64::new(self.checkpoint.get()),
            items: U64::new(self.items),
            data_bytes: U64::new(self.data_bytes),
            reserved: [0; 20],
            crc: U32::ZERO,
        };
        raw.crc = U32::new(crc32c(&raw.as_bytes()[..SLOT_BYTES - 4]));
        let mut bytes = [0; SLOT_BYTES];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> SlotFound {
        let Ok((raw, _)) = RawSlot::read_from_prefix(bytes) else { return SlotFound::Bad };
        if raw.magic != MAGIC || raw.crc.get() != crc32c(&raw.as_bytes()[..SLOT_BYTES - 4]) {
            return SlotFound::Bad;
        }
        if raw.version.get() != VERSION {
            return SlotFound::Version(raw.version.get());
        }
        SlotFound::Slot(Slot {
            identity: Identity { stream: StreamId::from_bytes(raw.stream), volume: raw.volume.get() },
            sequence: raw.sequence.get(),
            start: Lsn::new(raw.start.get()),
            checkpoint: Lsn::new(raw.checkpoint.get()),
            items: raw.items.get(),
            data_bytes: raw.data_bytes.get(),
        })
    }
}

impl Item {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut raw = RawItem {
            end: U64::new(self.end.get()),
            data_end: U64::new(self.data_end),
            time: U64::new(self.time.as_nanos()),
            payload_crc: U32::new(self.payload_crc),
            flags: U16::new(self.flags.0),
            reserved: [0; 6],
            crc: U32::ZERO,
        };
        raw.crc = U32::new(crc32c(&raw.as_bytes()[..ITEM_BYTES as usize - 4]));
        out.extend_from_slice(raw.as_bytes());
    }

    /// The item in these bytes if its checksum is right and it can stand behind `before`.
    pub(crate) fn decode_after(bytes: &[u8], before: Before) -> Result<Item, &'static str> {
        let item = Item::decode(bytes)?;
        if item.end <= before.end {
            return Err("its LSN does not increase");
        }
        if item.data_end < before.data_end {
            return Err("its data lies before that of the record before");
        }
        Ok(item)
    }

    /// The item in these bytes if its checksum is right.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Item, &'static str> {
        let Ok((raw, _)) = RawItem::read_from_prefix(bytes) else { return Err("it is cut off") };
        if raw.crc.get() != crc32c(&raw.as_bytes()[..ITEM_BYTES as usize - 4]) {
            return Err("its checksum is wrong");
        }
        Ok(Item {
            end: Lsn::new(raw.end.get()),
            data_end: raw.data_end.get(),
            time: Time::from_nanos(raw.time.get()),
            payload_crc: raw.payload_crc.get(),
            flags: Flags(raw.flags.get()),
        })
    }
}

/// A place between two records of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Before {
    /// Records in front of it.
    pub(crate) items: u64,
    /// End of the record in front of it.
    pub(crate) end: Lsn,
    /// Bytes in front of it.
    pub(crate) data_end: u64,
}

impl Before {
    /// The beginning of a file.
    pub(crate) fn beginning(slot: &Slot) -> Before {
        Before { items: 0, end: slot.start, data_end: 0 }
    }

    /// The place behind `item`, which stands here.
    pub(crate) fn behind(self, item: &Item) -> Before {
        Before { items: self.items + 1, end: item.end, data_end: item.data_end }
    }

    /// Where the item that stands here begins in the index.
    pub(crate) fn item_offset(self) -> u64 {
        item_offset(self.items)
    }
}

/// Where item `number` begins in the index.
pub(crate) fn item_offset(number: u64) -> u64 {
    ITEMS_OFFSET.saturating_add(number.saturating_mul(ITEM_BYTES))
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSlot {
    magic: [u8; 8],
    version: U16,
    volume: U16,
    zero: U32,
    stream: [u8; 16],
    sequence: U64,
    start: U64,
    checkpoint: U64,
    items: U64,
    data_bytes: U64,
    reserved: [u8; 20],
    crc: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawItem {
    end: U64,
    data_end: U64,
    time: U64,
    payload_crc: U32,
    flags: U16,
    reserved: [u8; 6],
    crc: U32,
}
