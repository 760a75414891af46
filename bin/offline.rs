//! A journal that no node holds open, as a restore reads it.

use std::path::Path;

use archive::{Tail, TailEntries};
use journal::offline::{Entries, Log};
use journal::{Entry, Geometry, Lsn, StreamId, Tip};

use crate::exit::Failure;

/// A journal on disk.
#[derive(Debug)]
pub(crate) struct Offline(Log);

impl Offline {
    /// Looks at the journal in `dir`; changes nothing.
    pub(crate) fn open(dir: &Path) -> Result<Offline, Failure> {
        Ok(Offline(Log::open(dir)?))
    }
}

impl Tail for Offline {
    fn path(&self) -> &Path {
        self.0.dir()
    }

    fn stream(&self) -> StreamId {
        self.0.stream()
    }

    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn start(&self) -> Lsn {
        self.0.start()
    }

    fn read(&self, from: Lsn) -> archive::Result<Box<dyn TailEntries + '_>> {
        Ok(Box::new(Walk(self.0.entries(Some(from))?)))
    }
}

struct Walk<'a>(Entries<'a>);

impl TailEntries for Walk<'_> {
    fn tip(&self) -> Tip {
        *self.0.tip()
    }

    fn next_entry(&mut self) -> archive::Result<Option<Entry<'_>>> {
        Ok(self.0.next_entry()?)
    }
}
