//! Puts a stream together and changes its role; the control socket and the status model.
//!
//! ```text
//!  command --control.sock--> [control] --> a stream of this node --> journal, shipper | receiver, volume
//! ```

pub mod control;
mod data;
mod error;
mod options;
mod promotion;
mod receiving;
mod running;
mod status;
mod stop;
mod stream;

pub use data::{Data, StreamFolder, check_name};
pub use error::{Error, Result};
pub use options::{
    DEAD_AFTER, DepotAt, DepotOptions, FirstRole, Options, PeerOptions, STOP_TIMEOUT, Security, StreamOptions,
};
pub use running::{Ready, ReadyStream, Stopped, run, stop_on_signals};
pub use status::{DestinationStatus, Lag, NodeStatus, RoleName, SourceStatus, State, StreamStatus, Watermarks};
pub use stop::Stop;
pub use stream::{OwnedRecord, Records, Stream, StreamBuilder, Ticket, open_or_create, records};
