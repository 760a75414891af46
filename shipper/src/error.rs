//! What goes wrong on the primary's side.

use journal::Class;

/// Errors of the link thread and of what asks it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The start gate is closed: required peers have not been met since this start.
    #[error(
        "this node may not write yet: it waits for {}. If that peer is gone for good: towline promote STREAM --accept-loss",
        waiting_for.join(" and ")
    )]
    NotReady {
        /// Names of the peers.
        waiting_for: Vec<String>,
    },
    /// The journal.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// The connection.
    #[error(transparent)]
    Wire(#[from] wire::Error),
    /// A thread could not be started.
    #[error("start the link thread: {0}")]
    Thread(std::io::Error),
}

impl Error {
    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            Error::NotReady { .. } => Class::Unknown,
            Error::Journal(error) => error.class(),
            Error::Wire(error) => error.class(),
            Error::Thread(_) => Class::Io,
        }
    }
}
