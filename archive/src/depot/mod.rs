//! A folder with the batches of one stream.
//!
//! ```text
//!  DEPOT/<stream name>-<first 8 of its id>/batches/t….batch     stored: whole, verified, synced, never changed
//!                                         /incoming/….part      half of an upload; resumed by name and hash
//!                                         /lock                 one storing process at a time
//! ```

mod spool;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use journal::{LsnRange, StreamId, Tip};
use rustix::fs::{FlockOperation, flock};

pub use spool::{Offer, Spool};

use crate::batch::{Batch, BatchInfo, BatchName, Verdict, verify_file};
use crate::catalogue::Catalogue;
use crate::disk::{make_dir, remove_if_there};
use crate::error::{Error, Result};

/// Largest file that a depot takes: 64 GiB. A shipper cuts far smaller ones.
pub const OFFER_BYTES_MAX: u64 = 64 << 30;
/// Half uploads that a depot keeps per stream; the oldest goes when another begins.
pub const SPOOLS_MAX: usize = 4;

const BATCHES: &str = "batches";
const INCOMING: &str = "incoming";
const LOCK: &str = "lock";
const NAME_BYTES_MAX: usize = 100;

/// One stream's folder in a depot. A cheap handle: it holds no file open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Depot {
    folder: PathBuf,
    stream: Option<StreamId>,
}

/// A stream that a depot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// The first eight digits of its id.
    pub id: String,
    /// Its folder.
    pub folder: PathBuf,
}

/// The answer to a batch that was handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The batch's file.
    pub path: PathBuf,
    /// What it says of itself.
    pub info: BatchInfo,
    /// False when the depot held it already.
    pub new: bool,
    /// Where the depot's newest line ends now.
    pub end: Tip,
}

/// What a full look at a depot found.
#[derive(Debug)]
pub struct DepotVerdict {
    /// Every batch, in name order.
    pub batches: Vec<Verdict>,
    /// Files in the batch folder that are no batches of this stream, or can't be opened.
    pub bad: Vec<Error>,
    /// Ranges that no batch holds although later ones exist.
    pub missing: Vec<LsnRange>,
}

impl DepotVerdict {
    /// Nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.bad.is_empty() && self.missing.is_empty() && self.batches.iter().all(Verdict::is_good)
    }
}

impl Depot {
    /// The stream's folder in the depot at `root`, made if it isn't there. Blocking.
    ///
    /// # Errors
    /// `Refused` when the name can't be that of a folder.
    pub fn create(root: &Path, name: &str, stream: StreamId) -> Result<Depot> {
        let folder = root.join(folder_name(name, stream)?);
        make_dir(&folder.join(BATCHES))?;
        make_dir(&folder.join(INCOMING))?;
        Ok(Depot { folder, stream: Some(stream) })
    }

    /// Whether [`Depot::create`] would find the stream's folder and make nothing. Blocking.
    ///
    /// # Errors
    /// `Refused` when the name can't be that of a folder.
    pub fn exists(root: &Path, name: &str, stream: StreamId) -> Result<bool> {
        Ok(root.join(folder_name(name, stream)?).join(BATCHES).is_dir())
    }

    /// The stream's folder itself, as [`Depot::list`] names it.
    ///
    /// # Errors
    /// `Absent` when it is none.
    pub fn open(folder: &Path) -> Result<Depot> {
        if !folder.join(BATCHES).is_dir() {
            let what = "this is no stream's folder in a depot: it has no folder \"batches\"".into();
            return Err(Error::Absent { path: folder.to_owned(), what });
        }
        Ok(Depot { folder: folder.to_owned(), stream: None })
    }

    /// The stream of this name in the depot at `path`, which may also be the stream's folder itself.
    ///
    /// # Errors
    /// `Absent` when there is none, with what is there; `Diverged` when two streams have that name.
    pub fn find(path: &Path, name: &str) -> Result<Depot> {
        if path.join(BATCHES).is_dir() {
            return Depot::open(path);
        }
        let listed = Depot::list(path)?;
        let mut named = listed.iter().filter(|listed| listed.name == name);
        match (named.next(), named.next()) {
            (Some(one), None) => Depot::open(&one.folder),
            (Some(one), Some(two)) => {
                let (one, two) = (one.folder.display(), two.folder.display());
                let what =
                    format!("two streams are called {name}: {one} and {two}. Name the folder of the one you mean");
                Err(Error::Diverged { path: path.to_owned(), what })
            }
            (None, _) => {
                let names: Vec<_> = listed.iter().map(|listed| listed.name.as_str()).collect();
                let there =
                    if names.is_empty() { "it is empty".into() } else { format!("it has {}", names.join(", ")) };
                Err(Error::Absent { path: path.to_owned(), what: format!("this depot has no stream {name}; {there}") })
            }
        }
    }

    /// The streams in the depot at `root`, by name.
    ///
    /// # Errors
    /// `Absent` when there is no such folder.
    pub fn list(root: &Path) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        let entries = fs::read_dir(root).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::Absent { path: root.to_owned(), what: "there is no such folder".into() },
            _ => Error::io("list depot", root)(source),
        });
        for entry in entries? {
            let folder = entry.map_err(Error::io("list depot", root))?.path();
            let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some((name, id)) = name.rsplit_once('-') else { continue };
            if folder.join(BATCHES).is_dir() && id.len() == 8 {
                listed.push(Listed { name: name.to_owned(), id: id.to_owned(), folder: folder.clone() });
            }
        }
        listed.sort_by(|a, b| a.folder.cmp(&b.folder));
        Ok(listed)
    }

    /// The stream's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Every batch with what it says of itself; no entry is read. Blocking.
    ///
    /// # Errors
    /// `Stream` when a batch of another stream lies here. Damaged files are no error: [`Catalogue::bad`] has them.
    pub fn catalogue(&self) -> Result<Catalogue> {
        let mut batches = Vec::new();
        let mut bad = Vec::new();
        for path in self.files()? {
            match self.look(&path) {
                Ok(info) => batches.push((path, info)),
                // two streams whose ids begin alike, or a copy that went to the wrong place: nothing is mixed
                Err(error @ (Error::Io { .. } | Error::Full { .. } | Error::Stream { .. })) => return Err(error),
                Err(error) => bad.push((path, error)),
            }
        }
        Catalogue::build(&self.folder, batches, bad)
    }

    /// Stores a finished batch file: copied aside, verified, synced, renamed, folder synced. A batch that is stored
    /// already is left alone. Blocking.
    ///
    /// # Errors
    /// `NotNext` when it doesn't continue what the depot holds; see [`Depot::offer`] for more.
    pub fn store(&self, file: &Path, bytes: u64, file_hash: [u8; 32]) -> Result<Stored> {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let mut spool = match self.offer(name, bytes, file_hash)? {
            Offer::Stored(stored) => return Ok(*stored),
            Offer::Have(spool) => spool,
        };
        let mut source = File::open(file).map_err(Error::io("open batch", file))?;
        source.seek(SeekFrom::Start(spool.have())).map_err(Error::io("read batch", file))?;
        let mut part = vec![0; 1 << 20];
        loop {
            match source.read(&mut part).map_err(Error::io("read batch", file))? {
                0 => break,
                bytes => spool.write(spool.have(), &part[..bytes])?,
            }
        }
        spool.finish()
    }

    /// Begins or resumes the upload of a batch file; answers with what is here already.
    ///
    /// # Errors
    /// `Refused` when the name is none of a batch or the size is beyond [`OFFER_BYTES_MAX`]; `Locked` while another
    /// upload of the same file runs.
    pub fn offer(&self, name: &str, bytes: u64, file_hash: [u8; 32]) -> Result<Offer> {
        let named: BatchName =
            name.parse().map_err(|()| Error::Refused { what: format!("{name:?} is no name of a batch") })?;
        if bytes == 0 || bytes > OFFER_BYTES_MAX {
            let what = format!("a batch of {bytes} bytes: a depot takes at most {OFFER_BYTES_MAX}");
            return Err(Error::Refused { what });
        }
        let path = self.batch_path(&named);
        if let Ok(info) = self.look(&path) {
            let end = self.catalogue()?.end()?.map_or(info.last, |end| end.tip);
            return Ok(Offer::Stored(Box::new(Stored { path, info, new: false, end })));
        }
        Spool::open(self, named, bytes, file_hash).map(Offer::Have)
    }

    /// Reads everything: every batch with its blake3 and entries, and how they link. Blocking.
    pub fn verify(&self) -> Result<DepotVerdict> {
        let mut verdict = DepotVerdict { batches: Vec::new(), bad: Vec::new(), missing: Vec::new() };
        let mut good = Vec::new();
        for path in self.files()? {
            if let Err(error) = self.look(&path) {
                verdict.bad.push(error);
                continue;
            }
            let looked = verify_file(&path)?;
            if let (true, Some(info)) = (looked.is_good(), looked.info.clone()) {
                good.push((path, info));
            }
            verdict.batches.push(looked);
        }
        let catalogue = Catalogue::build(&self.folder, good, Vec::new())?;
        for line in catalogue.lines() {
            for missing in line.missing() {
                if !verdict.missing.contains(&missing) {
                    verdict.missing.push(missing);
                }
            }
        }
        verdict.bad.extend(catalogue.loose_branches());
        Ok(verdict)
    }

    /// What a stored batch says of itself; an error when it is not what its name says, or of another stream.
    fn look(&self, path: &Path) -> Result<BatchInfo> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Ok(named) = name.parse::<BatchName>() else {
            let what = "this file does not belong into a depot's batch folder: its name is none of a batch".into();
            return Err(Error::Incompatible { path: path.to_owned(), what });
        };
        let info = Batch::open(path)?.info().clone();
        if info.name() != named {
            let what = format!("this batch is called {} by its contents: somebody renamed it", info.name());
            return Err(Error::Incompatible { path: path.to_owned(), what });
        }
        match self.stream {
            Some(wanted) if wanted != info.stream => {
                Err(Error::Stream { path: path.to_owned(), found: info.stream, wanted })
            }
            _ => Ok(info),
        }
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let folder = self.folder.join(BATCHES);
        let entries = fs::read_dir(&folder).map_err(Error::io("list depot", &folder))?;
        let mut files = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(Error::io("list depot", &folder))?;
        files.sort();
        Ok(files)
    }

    fn batch_path(&self, name: &BatchName) -> PathBuf {
        self.batches().join(name.to_string())
    }

    fn batches(&self) -> PathBuf {
        self.folder.join(BATCHES)
    }

    fn incoming(&self) -> PathBuf {
        self.folder.join(INCOMING)
    }

    /// Waits until no other process or thread stores here; ends with the file.
    fn lock(&self) -> Result<File> {
        let path = self.folder.join(LOCK);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(Error::io("open lock", &path))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|e| Error::io("lock", &path)(e.into()))?;
        Ok(file)
    }

    /// Makes room for another half upload: the oldest go, those in use stay.
    fn thin_out(&self) -> Result<()> {
        let folder = self.incoming();
        let mut parts = Vec::new();
        for entry in fs::read_dir(&folder).map_err(Error::io("list", &folder))? {
            let entry = entry.map_err(Error::io("list", &folder))?;
            let changed = entry.metadata().and_then(|found| found.modified());
            parts.push((changed.map_err(Error::io("list", &folder))?, entry.path()));
        }
        parts.sort();
        let spare = (parts.len() + 1).saturating_sub(SPOOLS_MAX);
        for (_, path) in parts.into_iter().take(spare) {
            if let Some(_free) = spool::lock_part(&path)? {
                remove_if_there(&path)?;
            }
        }
        Ok(())
    }
}

fn folder_name(name: &str, stream: StreamId) -> Result<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('.') || !name.chars().all(plain) {
        let what = format!(
            "{name:?} can't be a stream's name in a depot: use 1 to {NAME_BYTES_MAX} letters, digits, \"-\", \"_\" and \".\", not \".\" first"
        );
        return Err(Error::Refused { what });
    }
    let id = stream.to_string();
    Ok(format!("{name}-{}", id.get(..8).unwrap_or(&id)))
}
