//! A disk for tests: it knows what has been synced, loses what hasn't at a power cut, and fails when told to.
//!
//! Files are real files in a folder of the test's, so that reading and mapping are the real thing; only effects are
//! watched. After [`SimDisk::cut_power`] a new folder holds what a real disk might hold: every synced sector, any
//! subset of the unsynced ones, and names up to some point behind the last folder sync. A file that was never synced
//! may have lost its size too.

mod random;
pub mod readers;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

pub use self::random::Random;
use crate::storage::{Disk, Storage, StorageFile};
use crate::sync::{Mutex, MutexGuard};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// Whether waits with a deadline ever see it pass, for every test that this thread explores from now on.
#[cfg(feature = "shuttle")]
pub fn let_time_pass(passes: bool) {
    crate::sync::let_time_pass(passes);
}

/// What a power cut leaves of everything that no sync has covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survivors {
    /// That many of [`SimDisk::pending_names`], the oldest first.
    pub names: usize,
    /// Which of the unsynced sectors.
    pub sectors: Keep,
}

/// Which of the unsynced sectors are on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// None of them.
    None,
    /// Every one.
    All,
    /// Each with even odds; the seed says which.
    Random(u64),
}

/// A call that changes a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// [`Storage::create`].
    Create,
    /// [`Storage::rename`].
    Rename,
    /// [`Storage::link`].
    Link,
    /// [`Storage::remove`].
    Remove,
    /// [`Storage::create_dir`].
    CreateDir,
    /// [`Storage::sync_dir`].
    SyncDir,
    /// [`StorageFile::write_at`].
    Write,
    /// [`StorageFile::sync`].
    Sync,
}

/// The disk. Clones share it.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    live: BTreeMap<PathBuf, u64>,
    durable: BTreeMap<PathBuf, u64>,
    /// Name changes that no folder sync has covered yet, in order.
    pending: Vec<NameChange>,
    contents: HashMap<u64, Content>,
    syncs: u64,
    fail_sync: BTreeSet<u64>,
    full: bool,
    calls: u64,
    stop_at: Option<u64>,
    faults: Option<(Range<u64>, i32)>,
    failed: Vec<(Call, PathBuf)>,
}

#[derive(Default)]
struct Content {
    durable: Vec<u8>,
    dirty: BTreeSet<u64>,
    /// What the dirty sectors hold; `None` while nobody has opened it.
    live: Option<Arc<File>>,
}

impl fmt::Debug for Content {
    /// Without the bytes: a journal on this disk is printed when a test fails.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, {} sectors dirty", self.durable.len(), self.dirty.len())
    }
}

#[derive(Clone, Debug)]
enum NameChange {
    Set(PathBuf, u64),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, u64),
}

impl NameChange {
    fn touches(&self, dir: &Path) -> bool {
        match self {
            NameChange::Set(path, _) | NameChange::Remove(path) => path.parent() == Some(dir),
            NameChange::Rename(from, to, _) => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            NameChange::Set(path, id) => {
                names.insert(path.clone(), *id);
            }
            NameChange::Remove(path) => {
                names.remove(path);
            }
            NameChange::Rename(from, to, id) => {
                names.remove(from);
                names.insert(to.clone(), *id);
            }
        }
    }
}

impl Default for SimDisk {
    fn default() -> SimDisk {
        SimDisk { state: Arc::new(Mutex::new(State::default())) }
    }
}

impl SimDisk {
    /// A disk that holds what lies in `dir` now, all of it synced.
    pub fn adopt(dir: &Path) -> io::Result<SimDisk> {
        let disk = SimDisk::default();
        disk.adopt_folder(dir)?;
        Ok(disk)
    }

    /// How many syncs there have been, of files and folders.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Fails the sync with that number (the first is 0): it answers EIO, marks the sectors clean and forgets them.
    pub fn fail_sync(&self, number: u64) {
        self.lock().fail_sync.insert(number);
    }

    /// No sync fails any more.
    pub fn heal(&self) {
        self.lock().fail_sync.clear();
    }

    /// From now on allocations answer ENOSPC, or don't.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// How many calls there have been that change the disk.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Every call from number `call` on fails with EIO and changes nothing: the instant of a power cut inside an
    /// operation.
    pub fn stop_at(&self, call: u64) {
        self.lock().stop_at = Some(call);
    }

    /// Calls with these numbers fail with that error. Nothing of them is done, but that half of a write is written and
    /// that a failed sync marks the sectors clean and forgets them.
    pub fn fail_calls(&self, calls: Range<u64>, errno: i32) {
        self.lock().faults = Some((calls, errno));
    }

    /// What failed because of [`SimDisk::fail_calls`], in order.
    pub fn failed(&self) -> Vec<(Call, PathBuf)> {
        self.lock().failed.clone()
    }

    /// How many changes of names no folder sync has covered.
    pub fn pending_names(&self) -> usize {
        self.lock().pending.len()
    }

    /// True when there are sectors that no sync has covered.
    pub fn is_dirty(&self) -> bool {
        self.lock().contents.values().any(|content| !content.dirty.is_empty())
    }

    /// What the disk holds after a power cut now, whatever survives, laid out in `to`.
    pub fn power_cut(&self, random: &mut Random, from: &Path, to: &Path) -> io::Result<SimDisk> {
        let names = random.below(self.pending_names() as u64 + 1) as usize;
        // every/none/random sectors: the extremes are the likeliest to be wrong
        let sectors = match random.below(4) {
            0 => Keep::None,
            1 => Keep::All,
            _ => Keep::Random(random.draw()),
        };
        self.cut_power(Survivors { names, sectors }, from, to)
    }

    /// What the disk holds after a power cut now with exactly these survivors, laid out in `to`, which is empty. Every
    /// path of the disk lay below `from`. This disk stays as it is.
    pub fn cut_power(&self, survivors: Survivors, from: &Path, to: &Path) -> io::Result<SimDisk> {
        let state = self.lock();
        let mut names = state.durable.clone();
        state.pending.iter().take(survivors.names).for_each(|change| change.apply(&mut names));
        let mut after = State { next_id: state.next_id, ..State::default() };
        let mut written: HashMap<u64, PathBuf> = HashMap::new();
        for (path, id) in names {
            let target = to.join(path.strip_prefix(from).map_err(io::Error::other)?);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            after.live.insert(target.clone(), id);
            if let Some(first) = written.get(&id) {
                fs::hard_link(first, &target)?;
                continue;
            }
            let Some(content) = state.contents.get(&id) else { continue };
            let bytes = content.surviving(survivors.sectors, id)?;
            write_sparse(&target, &bytes)?;
            after.contents.insert(id, Content { durable: bytes, ..Content::default() });
            written.insert(id, target);
        }
        after.durable = after.live.clone();
        Ok(SimDisk { state: Arc::new(Mutex::new(after)) })
    }

    fn adopt_folder(&self, dir: &Path) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                self.adopt_folder(&path)?;
                continue;
            }
            let mut state = self.lock();
            let id = state.fresh_id();
            state.live.insert(path.clone(), id);
            state.durable.insert(path.clone(), id);
            state.contents.insert(id, Content { durable: fs::read(&path)?, ..Content::default() });
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, state: &mut State, id: u64, file: File) -> Arc<dyn StorageFile> {
        let file = Arc::new(file);
        state.contents.entry(id).or_default().live = Some(Arc::clone(&file));
        Arc::new(SimFile { id, file, disk: self.clone() })
    }
}

impl Content {
    fn surviving(&self, keep: Keep, id: u64) -> io::Result<Vec<u8>> {
        let mut bytes = self.durable.clone();
        let Some(file) = &self.live else { return Ok(bytes) };
        let sectors = self.dirty.iter().copied();
        match keep {
            Keep::None => {}
            Keep::All => copy_sectors(file, &mut bytes, sectors)?,
            Keep::Random(seed) => {
                let mut random = Random::new(seed ^ id.rotate_left(32));
                copy_sectors(file, &mut bytes, sectors.filter(|_| random.one_in(2)))?;
            }
        }
        Ok(bytes)
    }
}

impl State {
    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn call(&mut self, call: Call, path: &Path) -> io::Result<()> {
        let number = self.calls;
        self.calls += 1;
        if self.stop_at.is_some_and(|stop| number >= stop) {
            return Err(io::Error::other("the power is gone"));
        }
        match &self.faults {
            Some((calls, errno)) if calls.contains(&number) => {
                self.failed.push((call, path.to_owned()));
                Err(io::Error::from_raw_os_error(*errno))
            }
            _ => Ok(()),
        }
    }

    /// Counts a sync; an error if it is one that fails.
    fn sync(&mut self, call: Call, path: &Path) -> io::Result<()> {
        self.call(call, path)?;
        let number = self.syncs;
        self.syncs += 1;
        if self.fail_sync.remove(&number) { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }

    fn path_of(&self, id: u64) -> PathBuf {
        self.live.iter().find(|(_, live)| **live == id).map(|(path, _)| path.clone()).unwrap_or_default()
    }
}

/// Writes what is not zero: most of these files is.
fn write_sparse(path: &Path, bytes: &[u8]) -> io::Result<()> {
    static ZEROS: [u8; 4096] = [0; 4096];
    let file = File::create(path)?;
    file.set_len(bytes.len() as u64)?;
    for (index, page) in bytes.chunks(ZEROS.len()).enumerate() {
        if page != &ZEROS[..page.len()] {
            file.write_all_at(page, (index * ZEROS.len()) as u64)?;
        }
    }
    Ok(())
}

/// Copies sectors, given in order, from `file` into `bytes`: neighbours with one call.
fn copy_sectors(file: &File, bytes: &mut Vec<u8>, sectors: impl Iterator<Item = u64>) -> io::Result<()> {
    let length = file.metadata()?.len();
    let mut sectors = sectors.peekable();
    while let Some(first) = sectors.next() {
        let mut behind = first + 1;
        while sectors.next_if_eq(&behind).is_some() {
            behind += 1;
        }
        let (at, end) = (first * SECTOR_BYTES, (behind * SECTOR_BYTES).min(length));
        if bytes.len() < end as usize {
            bytes.resize(end as usize, 0);
        }
        file.read_exact_at(&mut bytes[at as usize..end as usize], at)?;
    }
    Ok(())
}

impl Storage for SimDisk {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn StorageFile>> {
        let mut state = self.lock();
        state.call(Call::Create, path)?;
        if state.full {
            return Err(io::Error::from_raw_os_error(28));
        }
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        file.set_len(bytes)?;
        let id = state.fresh_id();
        state.live.insert(path.to_owned(), id);
        state.pending.push(NameChange::Set(path.to_owned(), id));
        Ok(self.handle(&mut state, id, file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let file = File::options().read(true).write(true).open(path)?;
        let mut state = self.lock();
        let id = state.live.get(path).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(&mut state, id, file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.call(Call::Rename, from)?;
        fs::rename(from, to)?;
        let id = state.live.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.live.insert(to.to_owned(), id);
        state.pending.push(NameChange::Rename(from.to_owned(), to.to_owned(), id));
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.call(Call::Link, to)?;
        fs::hard_link(from, to)?;
        let id = state.live.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
        state.live.insert(to.to_owned(), id);
        state.pending.push(NameChange::Set(to.to_owned(), id));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.call(Call::Remove, path)?;
        fs::remove_file(path)?;
        state.live.remove(path);
        state.pending.push(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.lock().call(Call::CreateDir, path)?;
        Disk.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.sync(Call::SyncDir, path)?;
        // a journaling file system commits names in order: those before the last one of this folder go with it
        let synced = state.pending.iter().rposition(|change| change.touches(path)).map_or(0, |last| last + 1);
        let synced: Vec<NameChange> = state.pending.drain(..synced).collect();
        for change in synced {
            change.apply(&mut state.durable);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct SimFile {
    id: u64,
    file: Arc<File>,
    disk: SimDisk,
}

impl StorageFile for SimFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        let path = state.path_of(self.id);
        let called = state.call(Call::Write, &path);
        let bytes = match &called {
            Ok(()) => bytes,
            Err(error) if error.raw_os_error().is_none() => return called, // power gone
            Err(_) => &bytes[..bytes.len() / 2],
        };
        self.file.write_all_at(bytes, offset)?;
        if let Some(content) = state.contents.get_mut(&self.id)
            && !bytes.is_empty()
        {
            let last = (offset + bytes.len() as u64 - 1) / SECTOR_BYTES;
            content.dirty.extend(offset / SECTOR_BYTES..=last);
        }
        called
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        let path = state.path_of(self.id);
        let outcome = state.sync(Call::Sync, &path);
        if let Some(content) = state.contents.get_mut(&self.id) {
            let dirty = std::mem::take(&mut content.dirty);
            match &outcome {
                Ok(()) => {
                    copy_sectors(&self.file, &mut content.durable, dirty.into_iter())?;
                    content.durable.resize(self.file.metadata()?.len() as usize, 0);
                }
                // power gone: nothing reaches the disk, and nothing is forgotten either
                Err(error) if error.raw_os_error().is_none() => content.dirty = dirty,
                Err(_) => {}
            }
        }
        outcome
    }

    fn file(&self) -> &File {
        &self.file
    }
}
