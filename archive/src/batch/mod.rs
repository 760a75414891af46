//! A batch: a self-describing, compressed, immutable pack of a contiguous range of a log, at entry boundaries.
//!
//! ```text
//!  log bytes -> Writer -> file aside -> sync -> rename -> folder synced -> Batch -> frames -> Cursor -> entries
//! ```

mod frame;
pub(crate) mod layout;
mod name;
mod read;
mod verify;
mod write;

#[cfg(test)]
mod tests;

use journal::{Epoch, Geometry, Lsn, LsnRange, Opening, StreamId, TermSeen, Time, Tip};

pub use name::BatchName;
pub use read::Batch;
pub use verify::{BadRange, Verdict, verify_file};
pub use write::{Cut, Finished, LEVEL_DEFAULT, Writer};

/// Longest name of a mark that batches list, in bytes. A longer one is kept in the log, but can't be restored to by name.
pub const MARK_NAME_BYTES_MAX: usize = 1024;

/// A named restore point inside a batch or a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its name.
    pub name: String,
    /// Where its entry begins.
    pub at: Lsn,
    /// Position behind it: what a restore to the mark reaches.
    pub end: Lsn,
    /// When it was made.
    pub time: Time,
}

/// What a batch says of itself, without its entries.
///
/// Guarantees, when it was read from a file: every number lay under a checksum that matched; `first.lsn < last.lsn`;
/// openings and marks lie inside, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchInfo {
    /// The stream.
    pub stream: StreamId,
    /// Its geometry.
    pub geometry: Geometry,
    /// The tip that the entries follow: from here they can be verified alone.
    pub first: Tip,
    /// The tip behind the last entry.
    pub last: Tip,
    /// The epoch in force at `first`; `None` at the beginning of the log.
    pub opening: Option<Opening>,
    /// The epochs that begin inside.
    pub openings: Vec<Opening>,
    /// The marks inside.
    pub marks: Vec<Mark>,
    /// Time of the first entry; that of the last is `last.time`.
    pub first_time: Time,
    /// How many entries.
    pub entries: u64,
    /// Size of the file.
    pub file_bytes: u64,
    /// blake3 of the file up to its trailer.
    pub hash: [u8; 32],
}

impl BatchInfo {
    /// What the batch covers.
    pub fn range(&self) -> LsnRange {
        LsnRange::new(self.first.lsn, self.last.lsn)
    }

    /// Its name in a depot.
    pub fn name(&self) -> BatchName {
        BatchName { term: self.last.epoch.term, from: self.first.lsn, to: self.last.lsn, chain: self.last.chain }
    }

    /// The epoch in force at `lsn`, which lies inside or at the end: the one that the entry before `lsn` belongs to.
    pub fn opening_before(&self, lsn: Lsn) -> Option<&Opening> {
        self.openings.iter().rev().find(|opening| opening.first < lsn).or(self.opening.as_ref())
    }

    /// The term at its end.
    pub fn term_seen(&self) -> TermSeen {
        self.opening_before(self.last.lsn).map(Opening::term_seen).unwrap_or_default()
    }

    /// The epoch at its end.
    pub fn epoch(&self) -> Epoch {
        self.last.epoch
    }
}
