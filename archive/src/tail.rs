//! The journal behind the batches, as far as a restore needs it.

use std::path::{Path, PathBuf};

use journal::{Entry, Epoch, EpochEntry, Geometry, Kind, Lsn, StreamId, Time, Tip};

use crate::batch::Mark;
use crate::error::Result;

/// A journal that can be read from an entry on.
pub trait Tail {
    /// Where it lies, for messages.
    fn path(&self) -> &Path;
    /// Whose it is.
    fn stream(&self) -> StreamId;
    /// How it is laid out.
    fn geometry(&self) -> Geometry;
    /// The lowest position that it still keeps.
    fn start(&self) -> Lsn;
    /// Verified entries from `from` on, at which an entry begins.
    fn read(&self, from: Lsn) -> Result<Box<dyn TailEntries + '_>>;
}

/// A walk along a journal.
pub trait TailEntries {
    /// The tip that the next entry follows.
    fn tip(&self) -> Tip;
    /// The next entry; `None` at the end.
    fn next_entry(&mut self) -> Result<Option<Entry<'_>>>;
}

/// What a journal covers: all that a plan wants to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// Where it lies, for messages.
    pub path: PathBuf,
    /// Whose it is.
    pub stream: StreamId,
    /// How it is laid out.
    pub geometry: Geometry,
    /// The lowest position that it still keeps.
    pub start: Lsn,
    /// The tip behind its last entry.
    pub end: Tip,
    /// Time of its first entry.
    pub first_time: Time,
    /// Whose runs its entries belong to, oldest first.
    pub runs: Vec<Run>,
    /// The marks inside.
    pub marks: Vec<Mark>,
}

/// Where a run begins, as far as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its random id.
    pub run_id: u64,
    /// Its first entry, or the start of what is kept.
    pub first: Lsn,
}

impl Coverage {
    /// Reads a journal once, up to `upto`: the caller's bound for what may be restored. Blocking.
    pub fn scan(tail: &dyn Tail, upto: Lsn) -> Result<Coverage> {
        let mut entries = tail.read(tail.start())?;
        let mut found = Coverage {
            path: tail.path().to_owned(),
            stream: tail.stream(),
            geometry: tail.geometry(),
            start: tail.start(),
            end: entries.tip(),
            first_time: Time::ZERO,
            runs: Vec::new(),
            marks: Vec::new(),
        };
        while let Some(entry) = entries.next_entry()? {
            let header = entry.header;
            if header.range().to > upto {
                break;
            }
            if found.first_time == Time::ZERO {
                found.first_time = header.time;
            }
            let begins = header.kind == Some(Kind::Epoch) && EpochEntry::decode(entry.payload).is_some();
            if begins || found.runs.is_empty() {
                found.runs.push(Run { epoch: header.epoch, run_id: header.run_id, first: header.lsn });
            }
            found.marks.extend(Mark::of(&entry));
            found.end = entries.tip();
        }
        Ok(found)
    }
}
