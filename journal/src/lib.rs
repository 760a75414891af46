//! The log: entries in mapped segments, made durable by group commit, read back verified.
//!
//! ```text
//!  append -> [active segment] --fdatasync--> durable --> Board --> waiters
//!                 | written (readers may see it)            |
//!                 +--- full: Pad, rotate ------------------+--> replay -> Machine
//! ```

mod chain;
mod class;
mod cursor;
mod entry;
mod epoch;
mod error;
mod geometry;
mod id;
mod lsn;
mod machine;
mod replay;
mod time;

pub use chain::Chain;
pub use class::Class;
pub use cursor::{Cursor, Draft, Fault, FaultKind, Next, Tip, Verified};
pub use entry::{Entry, EpochEntry, Flags, Header, Kind, Reason, crc32c};
pub use epoch::{Epoch, History, Opening, Term, TermSeen};
pub use error::{Error, Result};
pub use geometry::{
    BODY_BYTES_DEFAULT, BODY_BYTES_MAX, BODY_BYTES_MIN, ENTRY_ALIGN, Geometry, HEADER_BYTES, PAYLOAD_BYTES_MAX,
    SEGMENT_HEADER_BYTES, entry_bytes,
};
pub use id::{NodeId, StreamId};
pub use lsn::{Lsn, LsnRange};
pub use machine::{Assembler, Machine, Record};
pub use replay::{Replay, ReplayError, Replayed, Source, Stop, Until};
pub use time::Time;
