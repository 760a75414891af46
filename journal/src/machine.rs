//! What consumes a log: the image of a primary, the replica of a receiver, a restore.

use crate::entry::{Entry, Flags};
use crate::lsn::{Lsn, LsnRange};

/// A consumer of verified entries. The replication path never looks inside them; a machine does.
///
/// Duties of the caller, in order: entries arrive in log order and without a gap from [`Machine::applied`] on; only
/// entries at or below min(committed, durable) arrive; entries above the checkpoint may arrive again after a restart.
pub trait Machine: Send {
    /// What goes wrong inside.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Applies a run of entries; it ends at `range.to`, entries of other volumes left out. Applying entries at or
    /// below [`Machine::applied`] again changes nothing.
    fn apply(&mut self, range: LsnRange, entries: &mut dyn Iterator<Item = Entry<'_>>) -> Result<(), Self::Error>;

    /// Everything below is visible in the machine.
    fn applied(&self) -> Lsn;

    /// Syncs the machine and returns the position up to which it needs no replay after a power cut. Blocking.
    fn checkpoint(&mut self) -> Result<Lsn, Self::Error>;
}

/// Puts the fragments of records together: hand in `Data` entries in order, get whole records out.
#[derive(Debug, Default)]
pub struct Assembler {
    parts: Vec<u8>,
    open: Option<Lsn>,
}

/// A whole record from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// LSN of its first entry.
    pub first: Lsn,
    /// Position behind its last entry: what an acknowledgement of it names.
    pub end: Lsn,
    /// Flags of its last entry.
    pub flags: Flags,
    /// What the program handed in.
    pub payload: &'a [u8],
}

impl Assembler {
    /// The record that `entry` completes, if it does. A continuation without a beginning, as at the start of a pruned
    /// log, completes nothing.
    pub fn push<'a>(&'a mut self, entry: &Entry<'a>) -> Option<Record<'a>> {
        let flags = entry.header.flags;
        let end = entry.header.range().to;
        if flags.has(Flags::FIRST.with(Flags::LAST)) {
            self.open = None;
            return Some(Record { first: entry.header.lsn, end, flags, payload: entry.payload });
        }
        if flags.has(Flags::FIRST) {
            self.parts.clear();
            self.open = Some(entry.header.lsn);
        }
        let first = self.open?;
        self.parts.extend_from_slice(entry.payload);
        if flags.has(Flags::LAST) {
            self.open = None;
            return Some(Record { first, end, flags, payload: &self.parts });
        }
        None
    }

    /// True between the first and the last fragment of a record.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }
}
