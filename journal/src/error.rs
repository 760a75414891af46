//! What can go wrong in the log, and who must act.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::class::Class;
use crate::cursor::Fault;
use crate::epoch::Term;
use crate::lsn::{Lsn, LsnRange};
use crate::rebuild::Loss;

/// An error of the journal. It names the file, the range and what to do.
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
    /// A sync failed once; what it covered may be lost although the page cache still shows it.
    #[error(
        "a sync of {} failed ({cause}); nothing after LSN {durable} is acknowledged. Stop this node, check the disk, start it again",
        path.display()
    )]
    Poisoned {
        /// The file whose sync failed.
        path: PathBuf,
        /// What the system said.
        cause: String,
        /// The last durable position.
        durable: Lsn,
    },
    /// No space for the next segment, or no descriptor for its file. Nothing acknowledged is lost; appending goes on when
    /// there is some.
    #[error("no space for {}: {source}. {}; appending then goes on by itself", path.display(), what_helps(source))]
    Full {
        /// What was to be allocated.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The stream's budget is used up. Nothing acknowledged is lost; appending goes on when log can be given up.
    #[error("no space for {}: the budget of {budget_bytes} bytes is used up, and {why}", path.display())]
    Budget {
        /// The journal.
        path: PathBuf,
        /// The budget.
        budget_bytes: u64,
        /// Who needs the log, and what to do.
        why: String,
    },
    /// The budget doesn't even hold the segments that a stream needs at once.
    #[error(
        "{}: a budget of {budget_bytes} bytes is too small: a segment of this stream takes {segment_bytes}, and it needs two at \
         once. Give it at least {} bytes: --budget, or journal: (budget: …) of the stream in the configuration",
        path.display(),
        segment_bytes * 2
    )]
    BudgetTooSmall {
        /// The journal.
        path: PathBuf,
        /// The budget.
        budget_bytes: u64,
        /// What one segment takes.
        segment_bytes: u64,
    },
    /// A byte that was durable is not what was written.
    #[error(
        "{}: entries {range} are damaged: {fault}. They were durable (known durable point {durable}), so the file was left as it is; {}",
        path.display(),
        way_back(path)
    )]
    Rot {
        /// The file.
        path: PathBuf,
        /// The damaged range, as exactly as it is known.
        range: LsnRange,
        /// What is wrong with the first entry of it.
        #[source]
        fault: Fault,
        /// How far this log is known to have been durable.
        durable: Lsn,
    },
    /// A file is not what it should be.
    #[error("{}: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// A part of the log that lost its control file can't be verified, and may have been durable.
    #[error(
        "{}: LSN {} can't be verified: {}. It may have been durable, so nothing was changed; put the file back from a copy, \
         or restore this log from a peer or a depot. To give up LSN {} for good, which is then kept as a branch: the same \
         command with --accept-loss",
        .0.path.display(), .0.damaged, .0.why, .0.given_up
    )]
    Unproven(Loss),
    /// A control file that needs no rebuilding.
    #[error("{} is whole: there is nothing to rebuild, and nothing was changed", path.display())]
    ControlWhole {
        /// The control file.
        path: PathBuf,
    },
    /// Another version or another identity.
    #[error("{}: {what}", path.display())]
    Incompatible {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// Another process holds the journal.
    #[error("{} is in use by another process{}. Stop it first, or talk to it: towline status --data DIR", path.display(), holder(*pid))]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The process that holds it, if it said so.
        pid: Option<u32>,
    },
    /// There is no journal there.
    #[error("{}: there is no journal here ({what})", path.display())]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
        /// What was missing.
        what: &'static str,
    },
    /// The position is below what the journal still keeps.
    #[error("LSN {wanted} is no longer kept: this journal begins at {start}")]
    Pruned {
        /// What was asked for.
        wanted: Lsn,
        /// Where the journal begins now.
        start: Lsn,
    },
    /// The position is above what is there, or between two entries' starts.
    #[error("LSN {wanted} is not reached, or no entry begins there: this journal ends at {end}")]
    NotReached {
        /// What was asked for.
        wanted: Lsn,
        /// Where the journal ends.
        end: Lsn,
    },
    /// The record is larger than a stream takes. The stream is unharmed.
    #[error("the record has {bytes} bytes; a stream takes at most {bytes_max}. Split it")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// What was handed in can't be an entry. The stream is unharmed.
    #[error("this can't be appended: {what}")]
    Unfit {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Bytes offered to the log don't continue it.
    #[error("offered entries begin at {offered}, but the log ends at {end}")]
    Gap {
        /// Where the offered bytes begin.
        offered: Lsn,
        /// Where the log ends.
        end: Lsn,
    },
    /// Nobody opened an epoch here: this node is not the primary.
    #[error("this journal takes no appends: no epoch is open on this node")]
    NoEpoch,
    /// A higher term exists.
    #[error("fenced: term {by} exists. This node no longer acknowledges anything")]
    Fenced {
        /// The higher term.
        by: Term,
    },
    /// A sync failed earlier; the text says which.
    #[error("{why}")]
    Ended {
        /// The first failure.
        why: String,
    },
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
}

/// What helps when a segment file is damaged or gone.
pub(crate) fn way_back(segment: &Path) -> String {
    let journal = segment.parent().unwrap_or(segment).display();
    format!(
        "stop this node and repair it from a copy: towline verify {journal} --repair-from COPY (towline://HOST:PORT of another node, its data, a journal or a depot)"
    )
}

/// What a [`Error::Full`] needs.
fn what_helps(source: &io::Error) -> &'static str {
    match is_out_of_descriptors(source) {
        true => "Let it open more files (ulimit -n, LimitNOFILE=)",
        false => "Free some space",
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            Error::Io { .. } | Error::Poisoned { .. } | Error::Ended { .. } | Error::Closed => Class::Io,
            Error::Full { .. } | Error::Budget { .. } => Class::Full,
            Error::BudgetTooSmall { .. } => Class::Config,
            Error::Rot { .. } | Error::Corrupt { .. } | Error::Unproven(_) | Error::Gap { .. } => Class::Corrupt,
            Error::Incompatible { .. } => Class::Incompatible,
            Error::Locked { .. } => Class::Locked,
            Error::Absent { .. } => Class::Absent,
            Error::Pruned { .. } | Error::NotReached { .. } => Class::NotReached,
            Error::TooLarge { .. } | Error::Unfit { .. } => Class::Usage,
            Error::NoEpoch | Error::ControlWhole { .. } => Class::Refused,
            Error::Fenced { .. } => Class::Fenced,
        }
    }

    /// Wraps a system error; running out of space, or of descriptors for files, is its own variant, but not of a sync: what
    /// a sync didn't make durable then is lost, and no room that returns brings it back.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| match source.kind() {
            _ if doing == "sync" => Error::Io { doing, path, source },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full { path, source },
            _ if is_out_of_descriptors(&source) => Error::Full { path, source },
            _ => Error::Io { doing, path, source },
        }
    }
}

/// This process, or the system, has as many files open as it may.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error())).contains(&code)
}
