//! A disk for tests: it knows what has been synced, loses what hasn't at a power cut, and fails when told to.
//!
//! Files are real files in a folder of the test's, so that reading and mapping are the real thing; only effects are
//! watched. After [`SimDisk::power_cut`] a new folder holds what a real disk might hold: every synced sector, any
//! subset of the unsynced ones, and names up to some point behind the last folder sync.

pub mod readers;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use crate::storage::{Disk, Storage, StorageFile};
use crate::sync::{Mutex, MutexGuard};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// Deterministic random numbers (SplitMix64): a seed reproduces a run.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence that belongs to `seed`.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// Whether waits with a deadline ever see it pass, for every test that this thread explores from now on.
#[cfg(feature = "shuttle")]
pub fn let_time_pass(passes: bool) {
    crate::sync::let_time_pass(passes);
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
}

#[derive(Debug, Default)]
struct Content {
    durable: Vec<u8>,
    dirty: BTreeSet<u64>,
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

    /// What the disk holds after a power cut now, laid out in `to`, which is empty. Every path of the disk lay below
    /// `from`.
    pub fn power_cut(&self, random: &mut Random, from: &Path, to: &Path) -> io::Result<SimDisk> {
        let state = self.lock();
        let mut names = state.durable.clone();
        let kept = random.below(state.pending.len() as u64 + 1) as usize;
        state.pending[..kept].iter().for_each(|change| change.apply(&mut names));
        // every/none/random sectors: the extremes are the likeliest to be wrong
        let style = random.below(4);
        let mut written: HashMap<u64, PathBuf> = HashMap::new();
        for (path, id) in names {
            let target = to.join(path.strip_prefix(from).map_err(io::Error::other)?);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            if let Some(first) = written.get(&id) {
                fs::hard_link(first, &target)?;
                continue;
            }
            let Some(content) = state.contents.get(&id) else { continue };
            let mut bytes = content.durable.clone();
            if let Some(live) = state.live.iter().find(|(_, live)| **live == id).map(|(path, _)| path) {
                let file = File::open(live)?;
                let kept = content.dirty.iter().copied().filter(|_| match style {
                    0 => false,
                    1 => true,
                    _ => random.one_in(2),
                });
                copy_sectors(&file, &mut bytes, kept)?;
            }
            fs::write(&target, bytes)?;
            written.insert(id, target);
        }
        drop(state);
        SimDisk::adopt(to)
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
            state.contents.insert(id, Content { durable: fs::read(&path)?, dirty: BTreeSet::new() });
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, id: u64, file: File) -> Arc<dyn StorageFile> {
        Arc::new(SimFile { id, file, disk: self.clone() })
    }
}

impl State {
    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        match self.stop_at {
            Some(stop) if self.calls > stop => Err(io::Error::other("the power is gone")),
            _ => Ok(()),
        }
    }

    /// Counts a sync; an error if it is one that fails.
    fn sync(&mut self) -> io::Result<()> {
        self.call()?;
        let number = self.syncs;
        self.syncs += 1;
        if self.fail_sync.remove(&number) { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }
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
        state.call()?;
        if state.full {
            return Err(io::Error::from_raw_os_error(28));
        }
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        file.set_len(bytes)?;
        let id = state.fresh_id();
        state.live.insert(path.to_owned(), id);
        state.pending.push(NameChange::Set(path.to_owned(), id));
        state.contents.insert(id, Content { durable: vec![0; bytes as usize], dirty: BTreeSet::new() });
        drop(state);
        Ok(self.handle(id, file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let file = File::options().read(true).write(true).open(path)?;
        let id = self.lock().live.get(path).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(id, file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.call()?;
        fs::rename(from, to)?;
        let id = state.live.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.live.insert(to.to_owned(), id);
        state.pending.push(NameChange::Rename(from.to_owned(), to.to_owned(), id));
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.call()?;
        fs::hard_link(from, to)?;
        let id = state.live.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
        state.live.insert(to.to_owned(), id);
        state.pending.push(NameChange::Set(to.to_owned(), id));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.call()?;
        fs::remove_file(path)?;
        state.live.remove(path);
        state.pending.push(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.lock().call()?;
        Disk.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.sync()?;
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
    file: File,
    disk: SimDisk,
}

impl StorageFile for SimFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.call()?;
        self.file.write_all_at(bytes, offset)?;
        if let Some(content) = state.contents.get_mut(&self.id)
            && !bytes.is_empty()
        {
            let last = (offset + bytes.len() as u64 - 1) / SECTOR_BYTES;
            content.dirty.extend(offset / SECTOR_BYTES..=last);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        let outcome = state.sync();
        if let Some(content) = state.contents.get_mut(&self.id) {
            let dirty = std::mem::take(&mut content.dirty);
            match &outcome {
                Ok(()) => {
                    copy_sectors(&self.file, &mut content.durable, dirty.into_iter())?;
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
