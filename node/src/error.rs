//! What can go wrong around a node, and who must act.

use std::io;
use std::path::{Path, PathBuf};

use journal::{Class, Term};

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
    /// Another process holds the data folder.
    #[error(
        "{} is held by another process{}",
        path.display(), pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The process, if it said so.
        pid: Option<u32>,
    },
    /// A folder or file that belongs to something else.
    #[error("{} {what}", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// A file that this node needs is not what it should be.
    #[error("{} {what}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// A file of another version.
    #[error("{} has format {found}; this version knows {known}", path.display())]
    Version {
        /// Which.
        path: PathBuf,
        /// What it has.
        found: u32,
        /// What is known.
        known: u32,
    },
    /// The folder belongs to a node of another name.
    #[error("{} belongs to node {is}, not to {asked}", path.display())]
    OtherNode {
        /// The folder.
        path: PathBuf,
        /// Its node.
        is: String,
        /// The name that was asked for.
        asked: String,
    },
    /// Something that can't be a name.
    #[error("{name:?} can't name a {of}: 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or a digit")]
    Name {
        /// What it should have named.
        of: &'static str,
        /// The text.
        name: String,
    },
    /// The log refused or failed.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// The replica refused or failed.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// The links to the peers.
    #[error(transparent)]
    Shipper(#[from] shipper::Error),
    /// A schedule that can't be understood.
    #[error(transparent)]
    Schedule(#[from] shipper::ScheduleError),
    /// A link, or its certificates.
    #[error(transparent)]
    Wire(#[from] wire::Error),
    /// The address for other nodes can't be listened at.
    #[error("listen at {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The stream's policy can't be met.
    #[error(transparent)]
    Policy(#[from] shipper::PolicyError),
    /// The start gate is closed: nothing is taken yet.
    #[error("{stream} takes nothing yet: {}", not_ready(waits_for, trouble.as_deref()))]
    NotReady {
        /// The stream.
        stream: String,
        /// Peers that must be met first.
        waits_for: Vec<String>,
        /// What went wrong, if something did.
        trouble: Option<String>,
        /// A peer that won't connect however long one waits: who must act.
        refused: Option<Class>,
    },
    /// A peer that commits wait for is to be detached.
    #[error(
        "commits wait for {peer}: it can't be detached at the budget. Without it `on_loss` decides; leave `at_budget` away, \
         or make the peer async"
    )]
    Required {
        /// The peer.
        peer: String,
    },
    /// A higher term exists.
    #[error("fenced: term {by} exists. This node acknowledges nothing any more")]
    Fenced {
        /// The higher term.
        by: Term,
    },
    /// The control file was made anew from the log: this node takes nothing without somebody's word.
    #[error(
        "{stream} takes nothing here: its control file was rebuilt from its log, which doesn't say whether another node was \
         promoted"
    )]
    Rebuilt {
        /// The stream.
        stream: String,
    },
    /// A write or a sync failed for good.
    #[error("{}: {reason}", path.display())]
    Failed {
        /// The journal's folder.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// The stream was closed.
    #[error("the stream is closed")]
    Closed,
    /// Something that only a primary can do.
    #[error("{stream} can't be written here: this node is its {role}")]
    NotPrimary {
        /// The stream.
        stream: String,
        /// What this node is.
        role: &'static str,
    },
    /// Something about depots that only a primary can do.
    #[error("{stream} is not shipped from here: its primary feeds the depots, and this node is its {role}")]
    NotShipping {
        /// The stream.
        stream: String,
        /// What this node is.
        role: &'static str,
    },
    /// A segment size that can't be.
    #[error("{bytes} bytes can't be the size of a segment: a power of two from 64 KiB to 1 GiB")]
    Segment {
        /// The size.
        bytes: u32,
    },
    /// There is no stream of that name.
    #[error("there is no stream {stream} here; there is {}", there(known))]
    NoStream {
        /// The name.
        stream: String,
        /// Those that are here.
        known: Vec<String>,
    },
    /// Something that can't name a mark.
    #[error("{name:?} can't name a mark: 1 to 200 bytes without control characters")]
    Mark {
        /// The text.
        name: String,
    },
}

fn not_ready(waits_for: &[String], trouble: Option<&str>) -> String {
    match (trouble, waits_for) {
        (Some(trouble), []) => trouble.to_owned(),
        (Some(trouble), peers) => format!("it waits for {} to connect, but {trouble}", peers.join(" and ")),
        (None, []) => "it is starting".into(),
        (None, peers) => format!("it waits for {} to connect", peers.join(" and ")),
    }
}

fn there(known: &[String]) -> String {
    if known.is_empty() { "none".into() } else { known.join(", ") }
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            Error::NoFolder { .. } => Class::Absent,
            Error::NotRunning { .. } => Class::Io,
            Error::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Class::Full,
                _ => Class::Io,
            },
            Error::Broken { .. } => Class::Unknown,
            Error::Protocol { .. } => Class::Incompatible,
            Error::Answer(failure) => failure.class(),
            Error::Locked { .. } => Class::Locked,
            Error::Foreign { .. } => Class::Refused,
            Error::Damaged { .. } => Class::Corrupt,
            Error::Version { .. } => Class::Incompatible,
            Error::OtherNode { .. } | Error::Name { .. } | Error::Segment { .. } => Class::Config,
            Error::Journal(error) => error.class(),
            Error::Policy(error) => error.class(),
            Error::Volume(error) => error.class(),
            Error::Shipper(error) => error.class(),
            Error::Wire(error) => error.class(),
            Error::Listen { .. } | Error::Schedule(_) | Error::Required { .. } => Class::Config,
            Error::NotReady { refused, .. } => refused.unwrap_or(Class::Unknown),
            Error::Closed => Class::Unknown,
            Error::Fenced { .. } => Class::Fenced,
            Error::Failed { .. } => Class::Io,
            Error::NotPrimary { .. } | Error::NotShipping { .. } | Error::Rebuilt { .. } => Class::Refused,
            Error::NoStream { .. } => Class::Absent,
            Error::Mark { .. } => Class::Usage,
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
            Error::Listen { .. } => {
                Some("HOST:PORT of this machine, with a port that nobody uses; port 0 takes a free one".into())
            }
            Error::Locked { .. } => Some("talk to it instead (towline status --data DIR), or stop it first".into()),
            Error::Foreign { .. } => Some("choose another folder; nothing was changed in this one".into()),
            Error::OtherNode { is, .. } => Some(format!("a folder keeps its node's name: leave it away, or say {is}")),
            Error::Version { .. } => Some("use the towline that made it, or a newer one".into()),
            Error::NotReady { stream, .. } => {
                Some(format!("start what it waits for; to go on without: towline promote {stream} --accept-loss"))
            }
            Error::Fenced { .. } => Some("write to the node that was promoted; towline status says more".into()),
            Error::Rebuilt { stream } => Some(format!(
                "if no other node is its primary: towline promote {stream} --accept-loss; else write to that one"
            )),
            Error::NotPrimary { .. } => Some("write to the primary; to make this node it: towline promote".into()),
            Error::NotShipping { .. } => Some("ask the primary: towline status on this node names it".into()),
            Error::Failed { .. } => {
                Some("check the disk, then start the node again; what it acknowledged is kept".into())
            }
            Error::Journal(_)
            | Error::Shipper(_)
            | Error::Schedule(_)
            | Error::Wire(_)
            | Error::Policy(_)
            | Error::Required { .. }
            | Error::Volume(_)
            | Error::Closed
            | Error::NoStream { .. }
            | Error::Mark { .. } => None,
            Error::Io { .. } | Error::Damaged { .. } | Error::Name { .. } | Error::Segment { .. } => None,
        }
    }

    /// Wraps a system error.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { doing, path, source }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::Answer(failure) => failure,
            error => Failure {
                class: error.class().name().into(),
                message: error.to_string(),
                hint: error.hint(),
                lsn: None,
            },
        }
    }
}
