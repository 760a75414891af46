//! The real disk, with something that happens before a file is written or synced.

use std::fmt::{self, Debug, Formatter};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use journal::testing::Call;
use journal::{Disk, Host, Options, Storage, StorageFile};

use crate::lifecycle::small;

type Hook = Arc<dyn Fn(Call) + Send + Sync>;

struct Hooked(Hook);

struct HookedFile {
    file: Arc<dyn StorageFile>,
    hook: Hook,
}

/// Options whose storage calls `hook` before each [`Call::Write`] and [`Call::Sync`].
pub(crate) fn hooked(hook: impl Fn(Call) + Send + Sync + 'static) -> Options {
    let host = Host { storage: Arc::new(Hooked(Arc::new(hook))), ..Host::default() };
    Options { host, ..small() }
}

impl Hooked {
    fn with_hook(&self, file: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        Arc::new(HookedFile { file, hook: Arc::clone(&self.0) })
    }
}

impl Debug for Hooked {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Hooked")
    }
}

impl Debug for HookedFile {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Debug::fmt(&self.file, f)
    }
}

impl Storage for Hooked {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn StorageFile>> {
        Disk.create(path, bytes).map(|file| self.with_hook(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        Disk.open(path).map(|file| self.with_hook(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        Disk.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        Disk.sync_dir(path)
    }
}

impl StorageFile for HookedFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        (self.hook)(Call::Write);
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        (self.hook)(Call::Sync);
        self.file.sync()
    }

    fn file(&self) -> &File {
        self.file.file()
    }
}
