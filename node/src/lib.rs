//! Puts a stream together and changes its role; the control socket and the status model.
//!
//! ```text
//!  command --control.sock--> [control] --> a stream of this node --> journal, shipper | receiver, volume
//! ```

pub mod control;
mod error;
mod status;

pub use error::{Error, Result};
pub use status::{DestinationStatus, Lag, NodeStatus, RoleName, SourceStatus, State, StreamStatus, Watermarks};
