//! How a journal is opened.

use crate::geometry::Geometry;
use crate::host::Host;

/// Largest record that a stream takes unless told otherwise: it must fit into memory a few times.
pub const RECORD_BYTES_MAX_DEFAULT: usize = 64 << 20;

/// Options of a journal. The default fits most streams.
#[derive(Clone, Debug)]
pub struct Options {
    /// Used when the journal is created; an existing journal keeps its own.
    pub geometry: Geometry,
    /// Most bytes that segments, spares and branches may take; at the bound an append gets `Full`.
    pub budget_bytes: u64,
    /// Largest record; a larger one gets `TooLarge`, and the stream is unharmed.
    pub record_bytes_max: usize,
    /// The machine.
    pub host: Host,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            geometry: Geometry::default(),
            budget_bytes: u64::MAX,
            record_bytes_max: RECORD_BYTES_MAX_DEFAULT,
            host: Host::default(),
        }
    }
}
