//! How a journal is opened.

use crate::geometry::Geometry;
use crate::hold::Retain;
use crate::host::Host;

/// Largest record that a stream takes unless told otherwise: it must fit into memory a few times.
pub const RECORD_BYTES_MAX_DEFAULT: usize = 64 << 20;

/// Options of a journal. The default fits most streams.
#[derive(Clone, Debug)]
pub struct Options {
    /// Used when the journal is created; an existing journal keeps its own.
    pub geometry: Geometry,
    /// Most bytes that segments, spares and branches may take; at the bound log that nobody needs is given up, and an
    /// append gets `Budget` when there is none.
    pub budget_bytes: u64,
    /// What is kept although nobody needs it. `None`: everything, until [`crate::Journal::prune`] is called.
    pub retain: Option<Retain>,
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
            retain: None,
            record_bytes_max: RECORD_BYTES_MAX_DEFAULT,
            host: Host::default(),
        }
    }
}
