//! The 64-bit chain over entry headers.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::id::StreamId;

/// The history of a log in 64 bits: a non-linear hash over the previous chain and the header it ends with, seeded by
/// the stream id. Equal (LSN, chain, epoch) means equal history against accident, not against an adversary.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Chain(u64);

impl Chain {
    /// The chain of a stream's empty log.
    pub fn seed(stream: StreamId) -> Chain {
        Chain(xxh3_64_with_seed(stream.as_bytes(), 0))
    }

    /// The chain behind an entry whose header has these bytes (without the chain field itself).
    #[inline] // with the length known it is half of the work
    pub fn link(self, header: &[u8]) -> Chain {
        Chain(xxh3_64_with_seed(header, self.0))
    }

    /// As it stands in formats.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Read from a format.
    pub const fn from_u64(value: u64) -> Chain {
        Chain(value)
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
