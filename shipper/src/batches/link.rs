//! The way to a depot: a folder here, or a node elsewhere.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use archive::{Depot, Finished};
use journal::{StreamId, TermSeen};
use wire::{DepotState, Place};

use super::ShipError;

/// Says that this side is stopping. Clones are one flag.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// A flag that is not set.
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Sets it, for good.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A way to a depot. Every call may block, but looks at the stop flag between parts.
pub trait DepotLink: Send {
    /// Opens the way and asks where the depot's newest line ends.
    fn open(&mut self, own: TermSeen) -> Result<DepotState, ShipError>;

    /// Brings one batch there and answers where the depot's line then ends: it is verified, synced, renamed and its
    /// folder synced. Bytes that an earlier attempt brought are not sent again.
    fn store(&mut self, batch: &Finished, stop: &Stop) -> Result<Place, ShipError>;

    /// Closes the way until the next [`DepotLink::open`].
    fn close(&mut self);
}

/// A depot in a folder of this machine.
///
/// Made where there is none, once: a depot that was there before and is gone is not made anew, because the disk that it
/// lies on may not be mounted.
#[derive(Debug)]
pub struct FolderLink {
    root: PathBuf,
    name: String,
    stream: StreamId,
    depot: Option<Depot>,
    /// The file that remembers which depot was there.
    met: Option<PathBuf>,
}

impl FolderLink {
    /// The depot at `root`; the stream's folder in it is made when the way is opened.
    pub fn new(root: &Path, name: &str, stream: StreamId) -> FolderLink {
        FolderLink { root: root.to_owned(), name: name.to_owned(), stream, depot: None, met: None }
    }

    /// The same, remembered in this file from the first time on that it was opened.
    #[must_use]
    pub fn remembered_in(self, met: impl Into<PathBuf>) -> FolderLink {
        FolderLink { met: Some(met.into()), ..self }
    }

    fn depot(&mut self) -> Result<&Depot, ShipError> {
        if self.depot.is_none() {
            self.depot = Some(self.open_or_create()?);
        }
        self.depot.as_ref().ok_or(ShipError::Stopped)
    }

    fn open_or_create(&self) -> Result<Depot, ShipError> {
        let Some(met) = &self.met else { return Ok(Depot::create(&self.root, &self.name, self.stream)?) };
        // another place under the same name is another depot
        let says = format!("{} {}\n", self.stream, self.root.display());
        let known = match fs::read(met) {
            Ok(text) => text == says.as_bytes(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(cause) => return Err(ShipError::Remember { path: met.clone(), cause }),
        };
        if known && !Depot::exists(&self.root, &self.name, self.stream)? {
            return Err(ShipError::Gone { root: self.root.clone(), met: met.clone() });
        }
        let depot = Depot::create(&self.root, &self.name, self.stream)?;
        if !known {
            remember(met, &says).map_err(|cause| ShipError::Remember { path: met.clone(), cause })?;
        }
        Ok(depot)
    }
}

impl DepotLink for FolderLink {
    fn open(&mut self, _own: TermSeen) -> Result<DepotState, ShipError> {
        let end = self.depot()?.catalogue()?.end()?;
        Ok(end.map_or(DepotState::default(), |end| DepotState {
            end: Some(Place { lsn: end.tip.lsn, chain: end.tip.chain }),
            term: end.term,
        }))
    }

    fn store(&mut self, batch: &Finished, _stop: &Stop) -> Result<Place, ShipError> {
        let stored = self.depot()?.store(&batch.path, batch.info.file_bytes, batch.file_hash)?;
        Ok(Place { lsn: stored.end.lsn, chain: stored.end.chain })
    }

    fn close(&mut self) {
        // the next time its absence is noticed
        self.depot = None;
    }
}

fn remember(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    File::open(folder)?.sync_all()
}
