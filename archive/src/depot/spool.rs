//! An upload in progress: resumed where it stopped, verified whole before it counts.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{Depot, Stored};
use crate::batch::{BatchName, verify_file};
use crate::disk::{remove_if_there, sync_dir};
use crate::error::{Error, Place, Result, What};

/// What a depot answers to an offer.
#[derive(Debug)]
pub enum Offer {
    /// It is stored already.
    Stored(Box<Stored>),
    /// Bytes from [`Spool::have`] on are wanted.
    Have(Spool),
}

/// The half of an upload that has arrived. Dropped, it stays on disk and is resumed by the next equal offer.
#[derive(Debug)]
pub struct Spool {
    depot: Depot,
    name: BatchName,
    path: PathBuf,
    file: File,
    have: u64,
    bytes: u64,
    hash: [u8; 32],
}

impl Spool {
    pub(super) fn open(depot: &Depot, name: BatchName, bytes: u64, hash: [u8; 32]) -> Result<Spool> {
        let short: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let path = depot.incoming().join(format!("{name}.{short}.part"));
        if !path.exists() {
            depot.thin_out()?;
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(Error::io("open upload", &path))?;
        if !try_lock(&file, &path)? {
            return Err(Error::Locked { path });
        }
        let have = file.metadata().map_err(Error::io("open upload", &path))?.len();
        let mut spool = Spool { depot: depot.clone(), name, path, file, have, bytes, hash };
        if have > bytes {
            spool.restart()?;
        }
        Ok(spool)
    }

    /// Bytes that have arrived: where to go on.
    pub fn have(&self) -> u64 {
        self.have
    }

    /// Bytes of the whole file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// `Refused` unless they begin at [`Spool::have`] and end inside the offered size.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        if offset != self.have || bytes.len() as u64 > self.bytes - self.have {
            let what = format!(
                "{} bytes at {offset} of an upload that stands at {} of {}",
                bytes.len(),
                self.have,
                self.bytes
            );
            return Err(Error::Refused { what });
        }
        self.file.write_all_at(bytes, offset).map_err(Error::io("write upload", &self.path))?;
        self.have += bytes.len() as u64;
        Ok(())
    }

    /// Ends the upload: blake3, every entry, name, stream and place in the depot are checked, then it is synced,
    /// renamed and its folder synced. Only then it counts. Blocking.
    ///
    /// # Errors
    /// `Damaged` when it isn't what was offered: the upload is dropped and begins again. `NotNext` or `Diverged` when
    /// it doesn't continue what the depot holds.
    pub fn finish(self) -> Result<Stored> {
        let checked = self.check();
        if checked.as_ref().is_err_and(|error| !error.is_transient()) {
            remove_if_there(&self.path)?;
        }
        checked
    }

    fn check(&self) -> Result<Stored> {
        if self.have != self.bytes {
            let what = format!("an upload ended at {} of {} bytes", self.have, self.bytes);
            return Err(Error::Refused { what });
        }
        let mut hasher = blake3::Hasher::new();
        let mut part = vec![0; 1 << 20];
        let mut at = 0;
        while at < self.bytes {
            let bytes = part.len().min((self.bytes - at) as usize);
            self.file.read_exact_at(&mut part[..bytes], at).map_err(Error::io("read upload", &self.path))?;
            hasher.update(&part[..bytes]);
            at += bytes as u64;
        }
        if hasher.finalize().as_bytes() != &self.hash {
            return Err(Error::damaged(&self.path, Place::Bytes { from: 0, to: self.bytes }, What::Hash));
        }
        let info = verify_file(&self.path)?.into_result()?;
        if info.name() != self.name {
            let what = format!("a batch offered as {} is {} by its contents", self.name, info.name());
            return Err(Error::Refused { what });
        }
        if let Some(wanted) = self.depot.stream.filter(|wanted| *wanted != info.stream) {
            return Err(Error::Stream { path: self.path.clone(), found: info.stream, wanted });
        }
        self.file.sync_all().map_err(Error::io("sync upload", &self.path))?;
        let _lock = self.depot.lock()?;
        self.depot.catalogue()?.accepts(&info)?;
        let path = self.depot.batch_path(&self.name);
        fs::rename(&self.path, &path).map_err(Error::io("rename upload", &self.path))?;
        sync_dir(&self.depot.batches())?;
        let end = self.depot.catalogue()?.end()?.map_or(info.last, |end| end.tip);
        Ok(Stored { path, info, new: true, end })
    }

    fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(Error::io("empty upload", &self.path))?;
        self.have = 0;
        Ok(())
    }
}

/// Takes a half upload if nobody uses it.
pub(super) fn lock_part(path: &Path) -> Result<Option<File>> {
    let file = OpenOptions::new().write(true).open(path).map_err(Error::io("open upload", path))?;
    Ok(try_lock(&file, path)?.then_some(file))
}

fn try_lock(file: &File, path: &Path) -> Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(Error::io("lock upload", path)(error.into())),
    }
}
