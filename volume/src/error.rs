//! What can go wrong in a volume, and who must act.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use journal::{Class, Lsn};

/// An error of a volume or of one of its doors. It names the file, the place in it and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A call to the file system failed.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done, in verb form.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// No space. Nothing that was acknowledged or applied is lost. A live volume goes on where it stopped when space
    /// returns; a restore has to be started again.
    #[error("no space for {}: {source}. Free some space", path.display())]
    Full {
        /// The file that was to grow.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A sync failed once; what it covered may be lost although the page cache still shows it.
    #[error(
        "a sync of {} failed ({cause}); the volume is trusted up to LSN {checkpoint} only. Stop this node, check the disk, start it again",
        path.display()
    )]
    Poisoned {
        /// The file whose sync failed.
        path: PathBuf,
        /// What the system said.
        cause: String,
        /// The last checkpoint that is safe.
        checkpoint: Lsn,
    },
    /// Bytes below the checkpoint are not what was written.
    #[error(
        "{}: bytes {}..{} are damaged: {what}. The file was left as it is; remove the folder and start the node to build it again from the journal",
        path.display(), bytes.start, bytes.end
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The damaged bytes of it, as exactly as they are known.
        bytes: Range<u64>,
        /// What is wrong.
        what: String,
    },
    /// A file is shorter than its checkpoint says.
    #[error(
        "{} has {bytes} bytes, but {needed} were synced. Somebody cut it; remove the folder and start the node to build it again from the journal",
        path.display()
    )]
    Short {
        /// The file.
        path: PathBuf,
        /// What it has.
        bytes: u64,
        /// What it must have.
        needed: u64,
    },
    /// There is no such volume, although there must be one.
    #[error("{}: there is no record file here ({what})", path.display())]
    Absent {
        /// The file that was looked for.
        path: PathBuf,
        /// Why it must be there.
        what: String,
    },
    /// The volume's own checkpoint is below the one that was remembered for it: it is an older copy.
    #[error(
        "{}: synced up to LSN {own}, but it was at {remembered} before: this is an older copy. Bring back the right one, or remove the folder to build it again from the journal",
        path.display()
    )]
    Behind {
        /// The file.
        path: PathBuf,
        /// Its own checkpoint.
        own: Lsn,
        /// What the journal remembers of it.
        remembered: Lsn,
    },
    /// Another version, or another stream's volume.
    #[error("{}: {what}", path.display())]
    Incompatible {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// Entries were handed over that don't continue what was applied.
    #[error("entries from LSN {offered} were to be applied, but the volume stands at {applied}")]
    Gap {
        /// Where the entries begin.
        offered: Lsn,
        /// Where the volume stands.
        applied: Lsn,
    },
    /// A record in the input is larger than a stream takes. The records before it are unharmed.
    #[error(
        "record {record} (at byte {offset} of the input) has more than {bytes_max} bytes. Split it, or use --frames raw"
    )]
    TooLarge {
        /// Its number, from 0.
        record: u64,
        /// Where it begins in the input.
        offset: u64,
        /// The limit.
        bytes_max: usize,
    },
    /// The input ends inside a record.
    #[error("the input ends inside record {record} (at byte {offset}): {present} of {needed} bytes are there")]
    CutShort {
        /// Its number, from 0.
        record: u64,
        /// Where it begins in the input.
        offset: u64,
        /// Bytes that are there, its length prefix included.
        present: u64,
        /// Bytes that it takes, its length prefix included.
        needed: u64,
    },
    /// The target of a restore exists.
    #[error("{} exists. Choose another target, or say --force to replace it", path.display())]
    Exists {
        /// The target.
        path: PathBuf,
    },
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            Error::Io { .. } | Error::Poisoned { .. } => Class::Io,
            Error::Full { .. } => Class::Full,
            Error::Damaged { .. } | Error::Short { .. } | Error::Behind { .. } | Error::Gap { .. } => Class::Corrupt,
            Error::Absent { .. } => Class::Absent,
            Error::Incompatible { .. } => Class::Incompatible,
            Error::TooLarge { .. } | Error::CutShort { .. } => Class::Usage,
            Error::Exists { .. } => Class::Refused,
        }
    }

    /// Wraps a system error; running out of space is its own variant.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full { path, source },
            _ => Error::Io { doing, path, source },
        }
    }
}
