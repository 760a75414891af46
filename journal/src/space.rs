//! Segment files before and after their life: the pool of spares, and the budget over everything in the folder. What is
//! pruned is recycled: a file that was written in full once costs a durable append no file-system metadata.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cut::BRANCHES;
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::lsn::Lsn;
use crate::repair::DAMAGED;
use crate::segment::file_bytes;
use crate::storage::{Storage, StorageFile};

const POOL: &str = "pool";
/// Recycled files beyond this are removed instead of kept.
const SPARES_MAX: usize = 4;

/// A segment file that is ready to be used.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn StorageFile>,
}

/// The spare files of a journal.
#[derive(Debug)]
pub(crate) struct Space {
    storage: Arc<dyn Storage>,
    pool: PathBuf,
    geometry: Geometry,
    budget_bytes: u64,
    spares: VecDeque<Spare>,
    /// Segments that were pruned and could not be removed.
    left: Vec<PathBuf>,
    /// The log has room up to here: end of the last segment, and the spares behind it.
    reserved_to: Lsn,
    /// Bytes that the folder takes: segments, spares, branches and damaged segments.
    used_bytes: u64,
    next_number: u64,
}

impl Space {
    /// The folder of a new journal's spares.
    pub(crate) fn create_pool(storage: &dyn Storage, dir: &Path) -> Result<PathBuf> {
        let pool = dir.join(POOL);
        storage.create_dir(&pool).map_err(Error::io("create", &pool))?;
        Ok(pool)
    }

    /// Opens the pool in `dir`: spares of the right size are kept, half-made ones removed.
    pub(crate) fn open(
        storage: Arc<dyn Storage>,
        dir: &Path,
        geometry: Geometry,
        budget_bytes: u64,
        segments_end: Lsn,
    ) -> Result<Space> {
        let mut space = Space {
            pool: Space::create_pool(&*storage, dir)?,
            storage,
            geometry,
            budget_bytes,
            spares: VecDeque::new(),
            left: Vec::new(),
            reserved_to: segments_end,
            used_bytes: 0,
            next_number: 0,
        };
        for entry in fs::read_dir(&space.pool).map_err(Error::io("list", &space.pool))? {
            let path = entry.map_err(Error::io("list", &space.pool))?.path();
            let whole = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("spare-"));
            let number = whole.and_then(|number| number.parse::<u64>().ok());
            let bytes = fs::metadata(&path).map_err(Error::io("look at", &path))?.len();
            match number {
                Some(number) if bytes == file_bytes(geometry) => {
                    space.next_number = space.next_number.max(number + 1);
                    let file = space.storage.open(&path).map_err(Error::io("open", &path))?;
                    space.keep(Spare { path, file });
                }
                _ => space.storage.remove(&path).map_err(Error::io("remove", &path))?,
            }
        }
        space.count(dir)?;
        Ok(space)
    }

    /// Counts the files that are there. Cut tails and damaged segments take room until somebody removes them, which may be
    /// at any time. True when there is room for one file more.
    ///
    /// Nobody may be making a spare. A file that gets another name meanwhile is seen under one of them: the folders are
    /// listed in the order in which files go through them.
    pub(crate) fn count(&mut self, dir: &Path) -> Result<bool> {
        let branches = dir.join(BRANCHES);
        let mut files = BTreeSet::new();
        let mut folders = vec![self.pool.clone(), dir.to_owned()];
        folders.extend(listed(&branches)?.iter().map(DirEntry::path));
        folders.push(dir.join(DAMAGED));
        for folder in folders {
            let held = listed(&folder)?;
            let is_segment = |file: &&DirEntry| folder == self.pool || file.path().extension() == Some("seg".as_ref());
            files.extend(held.iter().filter(is_segment).map(DirEntry::ino));
        }
        self.used_bytes = files.len() as u64 * file_bytes(self.geometry);
        Ok(self.has_room())
    }

    fn has_room(&self) -> bool {
        self.used_bytes.saturating_add(file_bytes(self.geometry)) <= self.budget_bytes
    }

    /// How much log the budget holds, from the oldest segment's beginning on. A file under way doesn't count yet.
    pub(crate) fn log_bytes_max(&self, oldest: Lsn) -> u64 {
        let more = self.budget_bytes.saturating_sub(self.used_bytes) / file_bytes(self.geometry);
        self.reserved_to.bytes_since(oldest).saturating_add(more.saturating_mul(self.geometry.body_bytes()))
    }

    /// The log has room up to here.
    pub(crate) fn reserved_to(&self) -> Lsn {
        self.reserved_to
    }

    /// Counts one more file and names it while it is made; [`Space::keep`] or [`Space::forget`] follows.
    pub(crate) fn begin(&mut self) -> Result<PathBuf> {
        if !self.has_room() {
            let (path, budget_bytes) = (self.pool.clone(), self.budget_bytes);
            return Err(Error::Budget { path, budget_bytes, why: String::new() });
        }
        self.count_file();
        Ok(self.next_path("new"))
    }

    /// The name of the next spare.
    pub(crate) fn spare_path(&mut self) -> PathBuf {
        self.next_path("spare")
    }

    /// Adds a spare that is counted already.
    pub(crate) fn keep(&mut self, spare: Spare) {
        self.spares.push_back(spare);
        self.reserved_to = self.reserved_to.advance(self.geometry.body_bytes());
    }

    /// Takes a spare out of the pool for the next segment. Its room stays counted: it becomes a segment.
    /// Errors when there is none: whoever takes one has reserved it.
    pub(crate) fn take(&mut self) -> Result<Spare> {
        let none = || io::Error::new(io::ErrorKind::StorageFull, "no spare segment is left");
        self.spares.pop_front().ok_or_else(|| Error::Full { path: self.pool.clone(), source: none() })
    }

    /// Puts a spare back whose use failed.
    pub(crate) fn put_back(&mut self, spare: Spare) {
        self.spares.push_front(spare);
    }

    /// Takes over a pruned segment's file, or removes it when there are spares enough.
    pub(crate) fn recycle(&mut self, old: &Path, file: Arc<dyn StorageFile>) -> Result<()> {
        if self.spares.len() >= SPARES_MAX {
            return self.remove(old);
        }
        let path = self.next_path("spare");
        self.storage.rename(old, &path).map_err(Error::io("rename", old))?;
        self.keep(Spare { path, file });
        Ok(())
    }

    /// Removes a pruned segment's file. Name and count go as one: between them [`Space::count`] would see the file gone, and
    /// it would be taken off once more.
    pub(crate) fn remove(&mut self, old: &Path) -> Result<()> {
        self.storage.remove(old).map_err(Error::io("remove", old))?;
        self.forget();
        Ok(())
    }

    /// A pruned segment's file could not be taken over or removed: it is there, and counted, until it can.
    pub(crate) fn leave(&mut self, path: PathBuf) {
        self.left.push(path);
    }

    /// Tries again to remove what was left.
    pub(crate) fn remove_left(&mut self) {
        for path in std::mem::take(&mut self.left) {
            match self.storage.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::debug!(path = %path.display(), %error, "remove a pruned segment again");
                    self.left.push(path);
                }
                _ => self.forget(),
            }
        }
    }

    /// A segment file left the journal for good.
    pub(crate) fn forget(&mut self) {
        self.used_bytes = self.used_bytes.saturating_sub(file_bytes(self.geometry));
    }

    /// Starts counting again after a cut: the segments now end at `segments_end`; the files of the cut tail live on in
    /// a branch and stay counted.
    pub(crate) fn segments_end_at(&mut self, segments_end: Lsn) {
        self.reserved_to = segments_end.advance(self.geometry.body_bytes() * self.spares.len() as u64);
    }

    /// Counts a segment file that came in without the pool.
    pub(crate) fn count_file(&mut self) {
        self.used_bytes += file_bytes(self.geometry);
    }

    fn next_path(&mut self, prefix: &str) -> PathBuf {
        self.next_number += 1;
        self.pool.join(format!("{prefix}-{}", self.next_number))
    }
}

/// What a folder holds; nothing when it isn't there, or isn't one.
fn listed(folder: &Path) -> Result<Vec<DirEntry>> {
    use io::ErrorKind::{NotADirectory, NotFound};
    let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    match entries {
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(Vec::new()),
        entries => entries.map_err(Error::io("list", folder)),
    }
}
