//! What can go wrong around a node, and who must act.

use std::io;
use std::path::PathBuf;

use journal::Class;

use crate::control::Failure;

/// An error of a node, or of talking to one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no data folder.
    #[error("{}: there is no data folder here", path.display())]
    NoFolder {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Nothing answers at the control socket.
    #[error("no node is running for {}: {source}", data.display())]
    NotRunning {
        /// The data folder.
        data: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The connection to the node ended in the middle of a command.
    #[error("the connection to the node ended ({doing}: {source}); what was under way may have happened or not")]
    Broken {
        /// What was being done, in verb form.
        doing: &'static str,
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The other end of the control socket speaks something else.
    #[error("{}: {what}", path.display())]
    Protocol {
        /// The socket.
        path: PathBuf,
        /// What was not understood.
        what: String,
    },
    /// The node answered with an error.
    #[error("{0}")]
    Answer(Failure),
    /// A call to the system failed.
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
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            Error::NoFolder { .. } => Class::Absent,
            Error::NotRunning { .. } | Error::Io { .. } => Class::Io,
            Error::Broken { .. } => Class::Unknown,
            Error::Protocol { .. } => Class::Incompatible,
            Error::Answer(failure) => failure.class(),
        }
    }

    /// What to do next, where there is something to say beyond the message.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::NoFolder { .. } => {
                Some("name the node's folder with --data DIR, or its configuration with -c FILE".into())
            }
            Error::NotRunning { data, .. } => {
                Some(format!("start it: towline run, or towline primary|receiver --data {}", data.display()))
            }
            Error::Broken { .. } => Some("ask the node how far it got: towline status".into()),
            Error::Protocol { .. } => Some("use the towline of the node's own version".into()),
            Error::Answer(failure) => failure.hint.clone(),
            Error::Io { .. } => None,
        }
    }
}
