//! A disk with an eye on the segment files that are being made on it, and on the room that files take.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use journal::testing::{Call, SimDisk};
use journal::{Options, Role, Storage, StorageFile};

use crate::world::{World, open_run, options, pick};

/// As many files as the budget allows.
pub(crate) const FILES_MAX: u64 = 9;
const FILE_BYTES: u64 = crate::world::GEOMETRY.body_bytes() + journal::SEGMENT_HEADER_BYTES as u64;

#[derive(Clone, Debug)]
pub(crate) struct Workshop {
    disk: SimDisk,
    // not the scheduler's lock: nothing else goes on under it
    made: Arc<Mutex<Made>>,
}

#[derive(Debug, Default)]
struct Made {
    under_way: BTreeSet<PathBuf>,
    trouble: Option<Trouble>,
    failures: u64,
}

/// A call on a file under way that fails, the first time after `after` others of its kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trouble {
    pub(crate) call: Call,
    pub(crate) after: u64,
    pub(crate) times: u64,
    pub(crate) errno: i32,
}

#[derive(Debug)]
struct WorkFile {
    aside: PathBuf,
    file: Arc<dyn StorageFile>,
    shop: Workshop,
}

impl Workshop {
    /// An empty journal on a disk with room for [`FILES_MAX`] files.
    pub(crate) fn new(role: Role) -> (Workshop, World) {
        let shop = Workshop { disk: SimDisk::default(), made: Arc::default() };
        let world = World::on(shop.disk.clone(), role, shop.options());
        (shop, world)
    }

    /// The same of a primary with an open run.
    pub(crate) fn primary() -> (Workshop, World) {
        let (shop, world) = Workshop::new(Role::Primary);
        open_run(&world.journal);
        (shop, world)
    }

    pub(crate) fn options(&self) -> Options {
        Options { budget_bytes: FILES_MAX * FILE_BYTES, ..options(Arc::new(self.clone())) }
    }

    /// A call on a file that is made will fail.
    pub(crate) fn trouble(&self, call: Call, times: u64, errno: i32) {
        self.made().trouble = Some(Trouble { call, after: pick(5), times, errno });
    }

    /// Nothing fails any more.
    pub(crate) fn heal(&self) {
        self.made().trouble = None;
    }

    /// How many calls failed.
    pub(crate) fn failures(&self) -> u64 {
        self.made().failures
    }

    /// How many files are half made.
    pub(crate) fn under_way(&self) -> usize {
        self.made().under_way.len()
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap()
    }

    fn call(&self, call: Call) -> io::Result<()> {
        let mut made = self.made();
        let Some(trouble) = made.trouble.as_mut().filter(|trouble| trouble.call == call) else { return Ok(()) };
        if trouble.after > 0 {
            trouble.after -= 1;
            return Ok(());
        }
        if trouble.times == 0 {
            return Ok(());
        }
        trouble.times -= 1;
        let errno = trouble.errno;
        made.failures += 1;
        Err(io::Error::from_raw_os_error(errno))
    }
}

/// How many files take the journal's room: under whatever names, each once.
pub(crate) fn files(journal: &Path) -> u64 {
    let mut found = BTreeSet::new();
    let mut folders = vec![journal.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.len() == FILE_BYTES {
                found.insert(metadata.ino());
            }
        }
    }
    found.len() as u64
}

fn is_made(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("new-"))
}

impl Storage for Workshop {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn StorageFile>> {
        if !is_made(path) {
            return self.disk.create(path, bytes);
        }
        self.call(Call::Create)?;
        let file = self.disk.create(path, bytes)?;
        let mut made = self.made();
        made.under_way.insert(path.to_owned());
        assert!(made.under_way.len() == 1, "more than one file under way: {:?}", made.under_way);
        Ok(Arc::new(WorkFile { aside: path.to_owned(), file, shop: self.clone() }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.disk.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if is_made(from) {
            self.call(Call::Rename)?;
            self.made().under_way.remove(from);
        }
        self.disk.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.made().under_way.remove(path);
        self.disk.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
}

impl WorkFile {
    fn is_under_way(&self) -> bool {
        self.shop.made().under_way.contains(&self.aside)
    }
}

impl StorageFile for WorkFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.is_under_way() {
            self.shop.call(Call::Write)?;
        }
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        if self.is_under_way() {
            self.shop.call(Call::Sync)?;
        }
        self.file.sync()
    }

    fn file(&self) -> &File {
        self.file.file()
    }
}
