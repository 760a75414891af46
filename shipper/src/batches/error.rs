//! Why a batch didn't arrive.

use std::io;
use std::path::PathBuf;

use journal::Class;

use super::Trouble;

/// An error of shipping a batch. Nothing is lost by it: what isn't shipped stays in the log and is tried again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShipError {
    /// Nothing may be shipped.
    #[error(transparent)]
    Trouble(#[from] Trouble),
    /// Cutting the batch, or storing it in a folder, failed.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// The link to the other node failed, or it refused.
    #[error(transparent)]
    Wire(#[from] wire::Error),
    /// The depot's node can't be reached, or refused at once.
    #[error("depot at {address}: {cause}")]
    Reach {
        /// Its address.
        address: String,
        /// The cause.
        #[source]
        cause: wire::Error,
    },
    /// Reading the log failed.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// The runtime of the link could not be started.
    #[error("start the link's runtime: {0}")]
    Runtime(#[source] io::Error),
    /// A depot that was there before is gone.
    #[error(
        "{}: this stream's depot was here before and is gone. Is its disk mounted? Nothing is shipped until it is back. To begin a new depot here, remove {}",
        root.display(), met.display()
    )]
    Gone {
        /// Where it was.
        root: PathBuf,
        /// What remembers it.
        met: PathBuf,
    },
    /// What remembers a depot can't be read or written.
    #[error("remember the depot in {}: {cause}", path.display())]
    Remember {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// The depot's node answered out of turn.
    #[error("the depot's node answered {found} where {wanted} was due")]
    OutOfTurn {
        /// What came.
        found: &'static str,
        /// What was due.
        wanted: &'static str,
    },
    /// This side is stopping.
    #[error("stopped while shipping; it goes on at the next start")]
    Stopped,
}

impl ShipError {
    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            ShipError::Trouble(trouble) => match trouble {
                Trouble::Fenced { .. } => Class::Fenced,
                Trouble::SplitBrain { .. } | Trouble::Diverged { .. } => Class::Refused,
                Trouble::Pruned { .. } => Class::NotReached,
                Trouble::Ahead { .. } => Class::Corrupt,
            },
            ShipError::Archive(error) => error.class(),
            ShipError::Wire(error) | ShipError::Reach { cause: error, .. } => error.class(),
            ShipError::Journal(error) => error.class(),
            ShipError::Runtime(_) => Class::Io,
            // a disk that is mounted again should be noticed soon
            ShipError::Gone { .. } => Class::Io,
            ShipError::Remember { cause, .. } => match cause.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Class::Full,
                _ => Class::Io,
            },
            ShipError::OutOfTurn { .. } => Class::Incompatible,
            ShipError::Stopped => Class::Unknown,
        }
    }

    /// True when trying again may help without anybody acting: it is then tried soon, else rarely.
    pub fn is_transient(&self) -> bool {
        matches!(self.class(), Class::Io | Class::Full | Class::Locked | Class::Unknown)
    }
}
