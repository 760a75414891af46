//! The logs, each behind the same questions.

mod okaywal;
mod raft_engine;
mod rocksdb;
mod towline;
mod walrus;

use std::path::Path;

pub(crate) const LOGS: [Named; 5] = [towline::LOG, raft_engine::LOG, okaywal::LOG, walrus::LOG, rocksdb::LOG];

/// Size of the files of a log that lets one choose.
const FILE_BYTES: usize = 64 << 20;

/// A log and how to open it.
#[derive(Clone, Copy)]
pub(crate) struct Named {
    pub(crate) name: &'static str,
    /// It writes into files that it has used before.
    pub(crate) recycles: bool,
    /// A new log in a folder of its own.
    pub(crate) create: fn(&Path, Use) -> Box<dyn Log>,
    /// Opens the log that was filled; returns the number of records that came back.
    pub(crate) recover: fn(&Path) -> u64,
}

/// What a log is made for: some are opened differently.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Durable { writers: usize },
    Written,
    Recovered,
}

/// An open log.
pub(crate) trait Log: Sync {
    /// Returns when a power cut can't take the record any more.
    fn append_durable(&self, writer: usize, record: &[u8]);
    /// Returns when the kernel has the record; `false`: this log has no such level.
    fn append_written(&self, writer: usize, record: &[u8]) -> bool;
    /// Appends records together, durable only where the log knows nothing less.
    fn append_group(&self, group: &[&[u8]]);
    /// Closes the log; everything is durable then.
    fn close(self: Box<Self>);
}
