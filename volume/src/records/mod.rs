//! The live record file: what a replica of a records volume looks like on disk.
//!
//! ```text
//!  verified entries -> Records (Machine) -> records.dat   payloads in a row, nothing between them
//!                                        -> records.idx   two slots, then one item per record
//!                                              | RecordFile, any process, while the node runs
//!                                              +-> walk from an LSN, find one, verify all
//! ```
//! A record is visible to readers once its item stands in the index; its bytes were written before that. The newest
//! valid slot says up to where both files were synced: below it a wrong byte is damage, above it is a tail that a crash
//! may have left torn, and the journal delivers it again. docs/FORMAT.md, "Records", has the bytes.

mod layout;
mod live;
mod read;

pub use layout::{ITEM_BYTES, ITEMS_OFFSET, Identity, SLOT_OFFSETS};
pub use live::Records;
pub use read::{Checked, FileRecord, RecordFile, Walk};

/// File with the payloads, below the volume's folder.
pub const DATA_FILE: &str = "records.dat";
/// File with the index, below the volume's folder.
pub const INDEX_FILE: &str = "records.idx";

#[cfg(test)]
mod tests;
