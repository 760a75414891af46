//! The few calls that change a disk, so that a test can own it.
//!
//! Only effects go through [`Storage`]; reading is always from the real file, mapped or by `pread`. A test disk wraps
//! [`Disk`], keeps a shadow of what has been synced, and can forget, refuse or fail.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FallocateFlags;
use rustix::io::retry_on_intr;

/// A disk as the journal uses it. All calls block.
pub trait Storage: Send + Sync + Debug {
    /// Creates a file of `bytes` bytes, allocated for real (never a hole) and reading as zeros. Fails if it exists.
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn StorageFile>>;
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>>;
    /// Gives `from` the name `to`, replacing what had it. Durable once the folder is synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives the file a second name. Durable once the folder is synced.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a name. Durable once the folder is synced.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Creates a folder and those above it that are missing; syncs the folders that got a new name.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// An open file of a [`Storage`].
pub trait StorageFile: Send + Sync + Debug {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns when everything written before the call is on stable storage.
    fn sync(&self) -> io::Result<()>;
    /// The file itself, for reading and mapping.
    fn file(&self) -> &File;
}

/// The real disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

#[derive(Debug)]
struct DiskFile(File);

/// Files of the journal belong to their owner alone.
const FILE_MODE: u32 = 0o600;

impl Storage for Disk {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn StorageFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)?;
        // allocated up front, so that a full disk answers here and not as SIGBUS or in the middle of a commit
        if let Err(refused) = allocate(&file, bytes) {
            // the name must not stay behind, or the next attempt would find a half-made file
            fs::remove_file(path)?;
            return Err(refused);
        }
        Ok(Arc::new(DiskFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(DiskFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        if path.as_os_str().is_empty() || path.is_dir() {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(Path::new("/"));
        self.create_dir(parent)?;
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            other => other?,
        }
        if parent.as_os_str().is_empty() { self.sync_dir(Path::new(".")) } else { self.sync_dir(parent) }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

/// Gives an empty file `bytes` bytes of zeros, with their blocks.
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    match retry_on_intr(|| rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes)).map_err(io::Error::from) {
        // not every file system can without writing
        Err(error) if error.kind() == io::ErrorKind::Unsupported => write_zeros(file, bytes),
        allocated => allocated,
    }
}

fn write_zeros(file: &File, bytes: u64) -> io::Result<()> {
    static ZEROS: [u8; 128 << 10] = [0; 128 << 10];
    let mut at = 0;
    while at < bytes {
        let count = ZEROS.len().min((bytes - at) as usize);
        file.write_all_at(&ZEROS[..count], at)?;
        at += count as u64;
    }
    Ok(())
}

impl StorageFile for DiskFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn file(&self) -> &File {
        &self.0
    }
}
