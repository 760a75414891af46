//! Batches on their way to a depot: what to ship next, and the thread that does it.
//!
//! ```text
//!  schedule or `ship` -> BatchCore: ask the depot where it ends -> next_range -> cut into the spool -> DepotLink
//!                            ^ retry, later each time                                  folder, or a node |
//!                            +---------------------------------------------------------------- stored <--+
//! ```
//! A batch never reaches above min(durable, committed). The depot alone says where it ends; nothing is remembered here
//! but the spool, so that an upload that was cut off goes on with the very same bytes.

mod core;
mod decide;
mod error;
mod link;
mod log;
mod next;
mod remote;
mod run;
#[cfg(test)]
mod tests;

use std::ops::Deref;

use journal::{Geometry, History, Lsn, StreamId, TermSeen, Time, Tip};

pub use self::core::{BatchCore, BatchOptions};
pub use self::decide::{Begin, LogView, Trouble, next_range};
pub use self::error::ShipError;
pub use self::link::{DepotLink, FolderLink, Stop};
pub use self::next::AwaitedCut;
pub use self::remote::{NodeLink, NodeLinkOptions};
pub use self::run::{AwaitsCut, Batches, WaitShipped};

/// The log that batches are cut from. All calls may block; entries below [`BatchLog::safe`] never change.
pub trait BatchLog: Send + 'static {
    /// Whole entries as they stand in the log.
    type Slice: Deref<Target = [u8]>;

    /// Whose log it is.
    fn stream(&self) -> StreamId;
    /// How it is laid out.
    fn geometry(&self) -> Geometry;
    /// The lowest position that it still keeps.
    fn start(&self) -> Lsn;
    /// Where it ends.
    fn end(&self) -> Lsn;
    /// min(durable, committed): nothing above is ever shipped.
    fn safe(&self) -> Lsn;
    /// Every epoch in it.
    fn history(&self) -> History;
    /// The highest term seen.
    fn term(&self) -> TermSeen;
    /// The tip at an entry boundary; `None` where there is none.
    fn tip_at(&self, lsn: Lsn) -> journal::Result<Option<Tip>>;
    /// Whole entries from `from` on; `None` at the end.
    fn slice(&self, from: Lsn, bytes_max: usize) -> journal::Result<Option<Self::Slice>>;
}

/// How a destination for batches does. A snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShipStatus {
    /// Where the depot's line ends, once it has said so: everything below is shipped.
    pub shipped: Option<Lsn>,
    /// Time of the last entry that is shipped: now minus this bounds what the loss of the site loses.
    pub shipped_time: Option<Time>,
    /// When this process last stored a batch there.
    pub stored_at: Option<Time>,
    /// When the schedule is next due; `None` when it goes by size alone.
    pub next_due: Option<Time>,
    /// How much more must be committed until the schedule cuts by size; `None` when it goes by time alone.
    pub missing_bytes: Option<u64>,
    /// The last cut that somebody waited for; see [`BatchCore::await_cut`].
    pub cut: Option<AwaitedCut>,
    /// A batch is being cut or sent, up to here.
    pub shipping_to: Option<Lsn>,
    /// Why the last attempt failed, until one succeeds.
    pub last_error: Option<String>,
    /// What begins here is the first that the depot lacks, and this log doesn't keep it any more: nothing can be shipped.
    pub pruned: Option<Lsn>,
    /// When it is tried again.
    pub retry_at: Option<Time>,
    /// Batches stored by this process.
    pub batches: u64,
    /// Log bytes in them.
    pub raw_bytes: u64,
    /// Bytes of their files.
    pub file_bytes: u64,
}
