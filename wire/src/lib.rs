//! Bytes in flight: messages, framing, agreement, TLS.

mod message;

pub use message::*;
