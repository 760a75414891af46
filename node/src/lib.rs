//! Puts a stream together and changes its role; the control socket and the status model.
//!
//! ```text
//!  command --control.sock--> control --> running: Node --> a place for each stream
//!                                                           |- Primary:  stream: Stream --> journal, links, depots
//!  other nodes ------------> receiver::Server ------------->|- Receiver: receiving: Receiving --> journal, replica (volume)
//!                                                           `- Fenced:   journal
//!  program ------------------> Stream::builder(journal) -------- the same Stream, without a node around it
//! ```
//!
//! Guarantees: the role in a stream's control file beats options and command line; nothing is taken before the start gate
//! is open, and nothing is acknowledged after a higher term was met or a sync failed; a promotion raises the term durably
//! before anything is acknowledged in it; a data folder has one identity and one process.
//!
//! Not here: what an entry is (`journal`), when a write counts as committed (`shipper`), what is verified before it is
//! written (`receiver`). Read [`run`] first, then `running::place` for what a node is for a stream.

pub mod control;
mod copy;
mod data;
mod error;
mod options;
mod promotion;
mod receiving;
mod running;
mod scrub;
mod status;
mod stop;
mod stream;

pub use copy::NodeCopy;
pub use data::{Data, StreamFolder, check_name};
pub use error::{Error, Result};
pub use options::{
    AtBudget, DEAD_AFTER, DepotAt, DepotOptions, FirstRole, Options, PeerOptions, STOP_TIMEOUT, Security, StreamOptions,
};
pub use running::{Ready, ReadyStream, Stopped, run, stop_on_signals};
pub use status::{
    DamageStatus, DestinationStatus, DetachedStatus, Lag, NodeStatus, RoleName, ScrubStatus, SourceStatus, State,
    StreamStatus, Watermarks,
};
pub use stop::Stop;
pub use stream::{OwnedRecord, Records, Stream, StreamBuilder, Ticket, open_or_create, records};
