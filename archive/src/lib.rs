//! Bytes at rest for DR: batches, depots, the plan of a restore and its source of entries.
//!
//! ```text
//!  log -> Writer -> batch file -> Depot (folder) -> Catalogue -> plan() -> Source -> verified entries
//!                                                        journal tail -----^
//! ```
//! Guarantees: a batch that has its name is whole, synced and never changes; no entry is handed out that doesn't link
//! to the one before, across batches too; a missing range stops and is named, it is never jumped.
//! It does not decide when to ship (`shipper`) and does not know what entries mean (`volume`).
//! Start reading at [`Writer`], [`Depot`], [`plan`].

mod batch;
mod catalogue;
mod depot;
mod disk;
mod error;
#[cfg(test)]
mod forge;
mod outbox;
mod plan;
mod point;
mod ranges;
mod source;
mod tail;

pub use batch::{
    BadRange, Batch, BatchInfo, BatchName, Cut, Finished, LEVEL_DEFAULT, MARK_NAME_BYTES_MAX, Mark, Verdict, Writer,
    verify_file,
};
pub use catalogue::{Catalogue, DepotEnd, Line, LineStep};
pub use depot::{Depot, DepotVerdict, Listed, OFFER_BYTES_MAX, Offer, SPOOLS_MAX, Spool, Stored};
pub use error::{Error, Place, Result, What};
pub use outbox::Outbox;
pub use plan::{Plan, Short, Step, StepSource, Stop, Wanted, plan};
pub use point::Point;
pub use ranges::DepotLine;
pub use source::{EntryAt, Neighbours, Source};
pub use tail::{Coverage, Run, Tail, TailEntries};
