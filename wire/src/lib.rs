//! Bytes in flight: messages, framing, agreement, TLS.

mod agree;
mod alarm;
mod codec;
mod dialogue;
mod error;
mod fields;
mod frame;
mod link;
mod message;
pub mod pki;
mod reader;
mod refusal;
mod repeats;
mod tls;
mod writer;

pub use agree::agree;
pub use alarm::Alarm;
pub use dialogue::{Dialogue, own_runtime};
pub use error::{Error, Result};
pub use frame::{
    CONTROL_BYTES_MAX, ENTRIES_BYTES_MAX, GREETING_BYTES_MAX, GREETING_OPENINGS_MAX, HOLDINGS_MAX, NAME_BYTES_MAX,
    PART_BYTES_MAX, Phase, TEXT_BYTES_MAX,
};
pub use link::{CONNECT_TIME_MAX, HANDSHAKE_TIME_MAX, Link};
pub use message::*;
pub use reader::{Frame, Reader};
pub use repeats::Repeats;
pub use tls::{CA_FILE, CERT_FILE, KEY_FILE, Security, Tls};
pub use writer::Writer;

#[cfg(test)]
mod tests;
