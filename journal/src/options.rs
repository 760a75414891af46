//! How a journal is opened.

use std::path::Path;

use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::hold::Retain;
use crate::host::Host;
use crate::segment::file_bytes;

/// Largest record that a stream takes unless told otherwise: it must fit into memory a few times.
pub const RECORD_BYTES_MAX_DEFAULT: usize = 64 << 20;

/// Options of a journal. The default fits most streams.
#[derive(Clone, Debug)]
pub struct Options {
    /// Used when the journal is created; an existing journal keeps its own.
    pub geometry: Geometry,
    /// Most bytes that segments, spares, branches and damaged segments may take, at least two segments; at the bound log
    /// that nobody needs is given up, and an append gets `Budget` when there is none. Each segment and spare holds a file
    /// descriptor, each segment a mapping besides: the process needs as many.
    pub budget_bytes: u64,
    /// What is kept although nobody needs it. `None`: everything, until [`crate::Journal::prune`] is called.
    pub retain: Option<Retain>,
    /// Largest record; a larger one gets `TooLarge`, and the stream is unharmed.
    pub record_bytes_max: usize,
    /// The machine.
    pub host: Host,
}

impl Options {
    /// One segment is written while the next one is made. Errors: `BudgetTooSmall`.
    pub(crate) fn check_budget(&self, dir: &Path, geometry: Geometry) -> Result<()> {
        let (budget_bytes, segment_bytes) = (self.budget_bytes, file_bytes(geometry));
        match budget_bytes < 2 * segment_bytes {
            true => Err(Error::BudgetTooSmall { path: dir.to_owned(), budget_bytes, segment_bytes }),
            false => Ok(()),
        }
    }
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
