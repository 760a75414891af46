//! Bytes in flight: messages, framing, agreement, TLS.

mod agree;
mod message;

pub use agree::agree;
pub use message::*;
