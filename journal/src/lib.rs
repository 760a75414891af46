//! The log: entries in mapped segments, made durable by group commit, read back verified.
//!
//! ```text
//!  append -> [open group] -pwrite-> [active segment] -fdatasync-> durable --> Board --> waiters
//!                                        | written (readers may see it)
//!                                        +--- full: Pad, rotate --> slices, entries --> replay -> Machine
//! ```
//! It guarantees:
//! 1. What is acknowledged as durable is there after `kill -9` and after a power cut; a failed sync ends every promise.
//! 2. Bytes below `written` never change while anyone can see them; a slice pins its segment.
//! 3. Nothing is read that was not verified: place, chain, epoch, time and checksum of every entry.
//! 4. A torn tail is told from rot by evidence; rot is refused with its exact range, never cut.
//! 5. A full disk is the error of the append that needed the room; what was staged before is written.
//!
//! It does not know what a payload means, who the peers are, or a runtime: every call blocks or polls, and the only
//! thread is [`Journal::spawn_flusher`], for those who ask for it or wait in tasks. One process at a time opens a journal;
//! [`offline::Log`] reads one from outside, [`repair::Repair`] mends one that nobody has open, and [`scrub::Scrub`] looks
//! for rot in one that is.
//!
//! Start reading at [`Journal`] (log.rs), then append.rs, ticket.rs, commit.rs and recovery.rs; docs/FORMAT.md has the
//! bytes.

mod append;
mod board;
mod chain;
mod class;
mod codec;
mod commit;
mod control;
mod cursor;
mod cut;
mod entry;
mod epoch;
mod error;
mod flusher;
mod geometry;
mod hold;
mod host;
mod id;
mod level;
mod lock;
mod log;
mod lsn;
mod machine;
mod maker;
mod mmap;
pub mod offline;
mod options;
mod pread;
mod read;
mod rebuild;
mod recovery;
pub mod repair;
mod replay;
pub mod scrub;
mod segment;
mod space;
mod storage;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod ticket;
mod time;

pub use append::{Item, RunOpening};
pub use board::{Board, Watch};
pub use chain::Chain;
pub use class::Class;
pub use commit::Durable;
pub use control::Role;
pub use cursor::{Cursor, Draft, Fault, FaultKind, Next, Tip, Verified};
pub use cut::Branch;
pub use entry::{Entry, EpochEntry, Flags, Header, Kind, POLICY_BYTES_MAX, Reason, crc32c};
pub use epoch::{Epoch, History, Opening, Term, TermSeen};
pub use error::{Error, Result};
pub use geometry::{
    BODY_BYTES_DEFAULT, BODY_BYTES_MAX, BODY_BYTES_MIN, ENTRY_ALIGN, EPOCH_ROOM_BYTES, Geometry, HEADER_BYTES,
    PAYLOAD_BYTES_MAX, SEGMENT_HEADER_BYTES, entry_bytes,
};
pub use hold::{GiveWay, Held, Holder, Retain};
pub use host::{Clock, Host, Ids};
pub use id::{NodeId, StreamId};
pub use level::{End, Level, Remote, WaitError};
pub use lock::FolderLock;
pub use log::{Journal, OpenReport};
pub use lsn::{Lsn, LsnRange};
pub use machine::{Assembler, Machine, Record};
pub use options::{Options, RECORD_BYTES_MAX_DEFAULT};
pub use read::Entries;
pub use rebuild::{Kept, Loss, Rebuild};
pub use replay::{Replay, ReplayError, Replayed, Source, Stop, Until};
pub use segment::Slice;
pub use storage::{Disk, Storage, StorageFile};
pub use ticket::{Ack, Ticket};
pub use time::Time;
