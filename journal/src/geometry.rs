//! Sizes that are part of the format, and the geometry chosen per stream.

use crate::lsn::Lsn;

/// Size of an entry header.
pub const HEADER_BYTES: usize = 88;
/// Entries begin at multiples of this.
pub const ENTRY_ALIGN: usize = 8;
/// Largest payload of one entry; larger records are several entries.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// The local part of a segment file, in front of the shared body.
pub const SEGMENT_HEADER_BYTES: usize = 4096;
/// Smallest and largest segment body.
pub const BODY_BYTES_MIN: u32 = 64 << 10;
/// See [`BODY_BYTES_MIN`].
pub const BODY_BYTES_MAX: u32 = 1 << 30;
/// Room that every entry leaves in its segment, unless it fills it: the first entry of an epoch fits into it.
pub const EPOCH_ROOM_BYTES: u64 = 4096;
/// Body of a new stream when nobody says otherwise: a rotation costs a few flushes, a new stream 16 MiB of zeros.
pub const BODY_BYTES_DEFAULT: u32 = 16 << 20;

const _: () = assert!(HEADER_BYTES.is_multiple_of(ENTRY_ALIGN));
const _: () = assert!((BODY_BYTES_MIN as usize).is_multiple_of(4096));

/// How a stream's log is laid out: fixed when the stream is created, the same on every node, part of the greeting.
///
/// Guarantee: the body is a power of two between [`BODY_BYTES_MIN`] and [`BODY_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    body_bytes: u32,
}

impl Default for Geometry {
    fn default() -> Geometry {
        Geometry { body_bytes: BODY_BYTES_DEFAULT }
    }
}

impl Geometry {
    /// The geometry with bodies of this size; `None` unless it is a power of two within the bounds.
    pub const fn new(body_bytes: u32) -> Option<Geometry> {
        if body_bytes.is_power_of_two() && body_bytes >= BODY_BYTES_MIN && body_bytes <= BODY_BYTES_MAX {
            Some(Geometry { body_bytes })
        } else {
            None
        }
    }

    /// Bytes of one segment body.
    pub const fn body_bytes(self) -> u64 {
        self.body_bytes as u64
    }

    /// Largest payload of one entry here: small bodies hold smaller entries, so that padding stays below a quarter.
    pub const fn payload_bytes_max(self) -> usize {
        let quarter = self.body_bytes as usize / 4 - HEADER_BYTES;
        if quarter < PAYLOAD_BYTES_MAX { quarter } else { PAYLOAD_BYTES_MAX }
    }

    /// Where the segment that holds `lsn` begins.
    pub const fn segment_of(self, lsn: Lsn) -> Lsn {
        Lsn::new(lsn.get() & !(self.body_bytes() - 1))
    }

    /// True when the segment that holds `lsn` ends inside the address space: true of every position that was ever
    /// written, so a file that says another one is damaged.
    pub(crate) const fn holds(self, lsn: Lsn) -> bool {
        self.segment_of(lsn).checked_add(self.body_bytes()).is_some()
    }

    /// Bytes from `lsn` to the end of its segment; a whole body when `lsn` begins one.
    pub const fn room(self, lsn: Lsn) -> u64 {
        self.body_bytes() - (lsn.get() & (self.body_bytes() - 1))
    }

    /// True when an entry of `bytes` (aligned, header included) may stand at `lsn`: it stays inside the segment and
    /// leaves room for nothing or for at least [`EPOCH_ROOM_BYTES`], so that the first entry of an epoch, or a `Pad`,
    /// always fits. (A `Pad` in front of an epoch's first entry would belong to the epoch before, which another node
    /// may have gone on writing.)
    pub const fn fits(self, lsn: Lsn, bytes: u64) -> bool {
        let room = self.room(lsn);
        bytes == room || bytes + EPOCH_ROOM_BYTES <= room
    }
}

/// Bytes that an entry with this payload takes in the log: header, payload, zeros up to [`ENTRY_ALIGN`].
pub const fn entry_bytes(payload_bytes: usize) -> u64 {
    ((HEADER_BYTES + payload_bytes).next_multiple_of(ENTRY_ALIGN)) as u64
}
