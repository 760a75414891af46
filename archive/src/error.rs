//! What can go wrong with bytes at rest, and who must act.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use journal::{Class, Fault, Lsn, LsnRange, StreamId};

/// An error of the archive. It names the file, the range and what to do.
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
    /// No space. Nothing stored is lost; the same batch can be stored again when there is space.
    #[error("no space to {doing} {}: {source}. Free some space; shipping then goes on by itself", path.display())]
    Full {
        /// What was being done, in verb form.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Bytes of a batch are not what was written.
    #[error(
        "{}: {place} damaged: {what}. Nothing of it was used. Copy this batch again from another depot, or remove it and ship its range again",
        path.display()
    )]
    Damaged {
        /// The batch.
        path: PathBuf,
        /// Which part of it.
        place: Place,
        /// What is wrong.
        what: What,
    },
    /// Not a batch, or one that this version can't read.
    #[error("{}: {what}", path.display())]
    Incompatible {
        /// The file.
        path: PathBuf,
        /// What it is instead, and what to do.
        what: String,
    },
    /// The log that a batch is cut from is damaged.
    #[error("the log to be shipped is damaged: {0}. Run towline verify on this node's data")]
    Log(#[source] Fault),
    /// A batch was to be cut, but no whole entry lies in the range.
    #[error("no whole entry lies between LSN {from} and {upto}: there is nothing to put into a batch")]
    Nothing {
        /// Where it would begin.
        from: Lsn,
        /// Where it would end.
        upto: Lsn,
    },
    /// Batches are missing between two others, or in front of the first.
    #[error(
        "{}: no batch holds LSN {missing}{}. Copy the missing batches from another depot, or restore to a point at or below LSN {}",
        path.display(), behind(*next), missing.from
    )]
    Gap {
        /// The depot.
        path: PathBuf,
        /// The range that is missing.
        missing: LsnRange,
        /// Where the batches go on behind the gap.
        next: Option<Lsn>,
    },
    /// What was asked for may lie in a batch that can't be used.
    #[error("{why}. The rest is whole up to LSN {whole}: --at lsn:{whole} restores that")]
    Unusable {
        /// Which batch, and what is wrong with it.
        why: String,
        /// Everything below can be restored.
        whole: Lsn,
    },
    /// What is offered doesn't continue what the depot holds.
    #[error("{}: the offered batch begins at LSN {offered}, but {what}", path.display())]
    NotNext {
        /// The depot.
        path: PathBuf,
        /// Where the offered batch begins.
        offered: Lsn,
        /// What the depot holds instead, and what to do.
        what: String,
    },
    /// Two histories claim the same place.
    #[error("{}: {what}", path.display())]
    Diverged {
        /// The depot or journal.
        path: PathBuf,
        /// Which, and what to do.
        what: String,
    },
    /// Another stream's batch.
    #[error("{}: belongs to stream {found}, not to {wanted}", path.display())]
    Stream {
        /// The file or folder.
        path: PathBuf,
        /// The stream in it.
        found: StreamId,
        /// The stream that was expected.
        wanted: StreamId,
    },
    /// The wanted point is not kept, or not reached.
    #[error("{what}")]
    NotReached {
        /// Which point, what is there instead, and what to do.
        what: String,
    },
    /// There is nothing there.
    #[error("{}: {what}", path.display())]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
        /// What was missing.
        what: String,
    },
    /// Another process stores into this depot.
    #[error("{} is in use by another process. Wait for it, or stop it", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// An offer that breaks a bound.
    #[error("refused: {what}")]
    Refused {
        /// Which bound.
        what: String,
    },
    /// Words that are no point.
    #[error("{text:?} is no point in the log: {what}")]
    Point {
        /// What was given.
        text: String,
        /// What is wrong, with examples.
        what: String,
    },
    /// The journal said no.
    #[error(transparent)]
    Journal(#[from] journal::Error),
}

/// A part of a batch file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// These bytes of the file, which hold no entries of their own.
    Bytes {
        /// First byte.
        from: u64,
        /// First byte behind.
        to: u64,
    },
    /// These bytes of the file, which hold these entries.
    Entries {
        /// First byte.
        from: u64,
        /// First byte behind.
        to: u64,
        /// The entries that can't be read.
        range: LsnRange,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Bytes { from, to } => write!(f, "bytes {from}..{to} are"),
            Place::Entries { from, to, range } => write!(f, "entries {range} (bytes {from}..{to}) are"),
        }
    }
}

/// What is wrong with a part of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// The file ends too early, or has bytes that belong to nothing.
    Size,
    /// The end of the file doesn't say that a batch ends here.
    Unfinished,
    /// A checksum doesn't match.
    Checksum,
    /// The blake3 of the whole file doesn't match.
    Hash,
    /// Numbers that contradict each other.
    Contradiction(&'static str),
    /// The compressed bytes don't unpack to what the batch says.
    Unpack,
    /// An entry is not the next of its history.
    Entry(Fault),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Size => f.write_str("the file is not as long as it says"),
            What::Unfinished => f.write_str("the file doesn't end like a batch: it is cut off, or was never finished"),
            What::Checksum => f.write_str("they don't match their checksum"),
            What::Hash => f.write_str("the file doesn't match its blake3"),
            What::Contradiction(which) => write!(f, "{which}"),
            What::Unpack => f.write_str("they don't unpack to what the batch says it holds"),
            What::Entry(fault) => write!(f, "{fault}"),
        }
    }
}

fn behind(next: Option<Lsn>) -> String {
    next.map(|lsn| format!(", although others go on at LSN {lsn}")).unwrap_or_default()
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            Error::Io { .. } => Class::Io,
            Error::Full { .. } => Class::Full,
            Error::Damaged { .. }
            | Error::Log(_)
            | Error::Gap { .. }
            | Error::Unusable { .. }
            | Error::NotNext { .. } => Class::Corrupt,
            Error::Diverged { .. } => Class::Refused,
            Error::Incompatible { .. } | Error::Stream { .. } => Class::Incompatible,
            Error::NotReached { .. } | Error::Nothing { .. } => Class::NotReached,
            Error::Absent { .. } => Class::Absent,
            Error::Locked { .. } => Class::Locked,
            Error::Refused { .. } => Class::Refused,
            Error::Point { .. } => Class::Usage,
            Error::Journal(error) => error.class(),
        }
    }

    /// True when the same call may succeed later without anybody acting on the data.
    pub fn is_transient(&self) -> bool {
        matches!(self.class(), Class::Io | Class::Full | Class::Locked)
    }

    /// Wraps a system error; running out of space is its own variant.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full { doing, path, source },
            _ => Error::Io { doing, path, source },
        }
    }
}
