//! What goes wrong between two nodes.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use journal::Class;

use crate::message::Refusal;

/// Errors of this crate. Those about bytes in flight don't name the peer: the caller has its address and adds it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, in verb form.
        doing: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The other side closed the connection between two messages.
    #[error("the other side closed the connection")]
    Closed,
    /// The connection ended inside a message.
    #[error("the connection ended inside a message: {have} bytes of it arrived")]
    Truncated {
        /// Bytes of it that arrived.
        have: usize,
    },
    /// Nobody answered in time.
    #[error("{doing}: no answer within {after:?}. Check that the other side runs and that the address is right")]
    Timeout {
        /// What was being done, in verb form.
        doing: &'static str,
        /// The limit.
        after: Duration,
    },
    /// What arrived is not this protocol.
    #[error("the other side does not speak Towline's protocol: {hint}")]
    NotTowline {
        /// What it looks like and what to do.
        hint: String,
    },
    /// Another version of the protocol.
    #[error("the other side speaks protocol version {theirs}, this program {ours}. Run the same version on both")]
    Protocol {
        /// This program's.
        ours: u16,
        /// The other side's.
        theirs: u16,
    },
    /// A message type that this version doesn't know.
    #[error("a message of unknown type {code} arrived. Run the same version on both sides")]
    UnknownType {
        /// Its number.
        code: u8,
    },
    /// A checksum doesn't match: bytes changed on the way.
    #[error("{what} of a message was damaged on the way (checksum). The connection is closed and made again")]
    Damaged {
        /// Which part.
        what: &'static str,
    },
    /// A message is larger than its type may be.
    #[error("a {kind} of {bytes} bytes; at most {bytes_max} are taken")]
    TooLong {
        /// Its type.
        kind: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        bytes_max: usize,
    },
    /// The checksum is right and the content still makes no sense.
    #[error("a {kind} with a wrong {what}. The other side has a fault")]
    Malformed {
        /// Its type.
        kind: &'static str,
        /// The field.
        what: &'static str,
    },
    /// A message that has no place here.
    #[error("a {kind} arrived where none may come. The other side has a fault")]
    Unexpected {
        /// Its type.
        kind: &'static str,
    },
    /// The other side refused, and said why.
    #[error("{0}")]
    Refused(Refusal),
    /// TLS: one of the two sides doesn't trust the other.
    #[error("{0}")]
    Untrusted(String),
    /// A connection off this machine without TLS, and without the word for it.
    #[error(
        "{address} is not this machine, and there is no TLS: anybody on the way could read and change the data. Give --tls DIR (towline pki makes one), or say --plaintext if the network is trusted"
    )]
    PlaintextOffLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// A certificate or key can't be used.
    #[error("{}: {what}", path.display())]
    Pki {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// A file that would be overwritten.
    #[error("{}: exists already and is not overwritten. Choose another folder, or remove it first", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A name that no certificate takes.
    #[error("{name:?} is no name for a certificate: {what}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            Error::Io { .. } | Error::Closed | Error::Truncated { .. } => Class::Io,
            Error::Timeout { .. } => Class::Unknown,
            Error::NotTowline { .. } | Error::Protocol { .. } | Error::UnknownType { .. } => Class::Incompatible,
            Error::Damaged { .. } | Error::TooLong { .. } | Error::Malformed { .. } => Class::Corrupt,
            Error::Unexpected { .. } => Class::Corrupt,
            Error::Refused(refusal) => refusal.class(),
            Error::Untrusted(_) => Class::Refused,
            Error::PlaintextOffLoopback { .. } | Error::Pki { .. } => Class::Config,
            Error::Exists { .. } | Error::Name { .. } => Class::Usage,
        }
    }

    /// Wraps an error of a connection; one of TLS underneath is told apart, because its cause is a certificate.
    pub fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| match source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => crate::tls::explain(tls),
            None => Error::Io { doing, source },
        }
    }
}
