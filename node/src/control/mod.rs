//! The control socket: how a command talks to a running node.
//!
//! ```text
//!  client                                        node
//!  {"schema":1,"command":{"append":{…}}}\n  -->
//!                                            <-- {"ok":"go"}\n                        or {"error":{…}}\n
//!  frame frame frame … end                  -->  whatever arrived is one append
//!                                            <-- {"acked":{…}}\n {"acked":{…}}\n …    one line a group, cumulative
//!                                            <-- {"done":{…}}\n                       or {"error":{…}}\n
//! ```
//! Every other command is one request line and one answer line, except `tail`: behind its answer come frames, and `ship`:
//! before its answer come lines that say what it waits for.
//! Both sides bound what they read before they keep it.

mod address;
mod append;
mod client;
mod frame;
mod protocol;
mod server;
mod service;
mod shipping;
mod tail;
#[cfg(test)]
mod tests;

pub use client::{Acks, Client, Held, Sender, Tail, TailRecord};
pub use frame::{FRAME_BODY_BYTES_MAX, FRAME_HEAD_BYTES, FrameHead, FrameKind};
pub use protocol::{
    Acked, Answer, Append, Command, Done, Failure, From, Hold, Holding, Level, Mark, Marked, Promote, Promoted,
    Reached, Request, SCHEMA, Status, StatusOf, Stopping, TailFrom, Tailing, Until, Wait,
};
pub(crate) use server::Listener;
pub(crate) use service::{Appender, Incoming, Over, Patience, Reach, Service, Tailer};
pub use shipping::{Ship, ShipWaits, ShipWhen, Shipped, Shipping};
pub(crate) use tail::push_record;

use std::path::{Path, PathBuf};

/// Name of the socket in the data folder.
pub const SOCKET: &str = "control.sock";
/// Longest request or answer line, newline included. A status of many streams is the longest.
pub const LINE_BYTES_MAX: usize = 4 << 20;

/// Where the node of this data folder listens.
pub fn socket_path(data: &Path) -> PathBuf {
    data.join(SOCKET)
}
