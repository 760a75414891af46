//! `append` from the control socket into a stream.

use journal::{Class, Level, Lsn, WaitError};

use crate::control::{self, Appender, Failure, Incoming, Patience, Reach};
use crate::error::{Error, Result};
use crate::stream::Stream;

/// One client's way into a stream.
#[derive(Debug)]
pub(super) struct StreamAppender {
    stream: Stream,
    record_bytes_max: usize,
}

impl StreamAppender {
    /// Waits for the start gate first: before it nothing is taken.
    pub(super) fn new(
        stream: Stream,
        level: control::Level,
        record_bytes_max: usize,
        patience: &Patience<'_>,
    ) -> Result<StreamAppender, Failure> {
        reachable(&stream, level)?;
        wait_taking(&stream, patience)?;
        Ok(StreamAppender { stream, record_bytes_max })
    }
}

impl Appender for StreamAppender {
    fn record_bytes_max(&self) -> usize {
        self.record_bytes_max
    }

    fn append(&self, records: &[Incoming<'_>]) -> Result<Lsn, Failure> {
        Ok(self.stream.append_flagged(records)?.lsn())
    }

    fn wait(&self, lsn: Lsn, level: control::Level, patience: &Patience<'_>) -> Result<Reach, Failure> {
        wait(&self.stream, lsn, level, patience)
    }
}

/// An error for a level that can't be reached, however long one waits.
pub(super) fn reachable(stream: &Stream, level: control::Level) -> Result<(), Failure> {
    let of_peers = matches!(level, control::Level::Received | control::Level::PeerDurable);
    if !of_peers || stream.primary().has_required() {
        return Ok(());
    }
    let message = format!("{} asks no peer for a promise: nothing ever reaches {level}", stream.name());
    Err(Failure::new(Class::Usage, message).hint("wait for durable, or give it a peer: --to HOST:PORT,mode=sync"))
}

/// Blocks until records are taken. What only a person can mend (a stranger's certificate) is said at once: nothing was
/// taken yet, and whoever appends without a time limit would wait for ever without a word.
fn wait_taking(stream: &Stream, patience: &Patience<'_>) -> Result<()> {
    loop {
        let until = match patience.slice() {
            Ok(until) if !patience.stopping() => until,
            _ => return Err(stream.primary().not_ready()),
        };
        match stream.primary().wait_ready(Some(until)) {
            Ok(_) => return Ok(()),
            Err(Error::NotReady { refused: None, .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Blocks until the start gate is open.
pub(super) fn wait_ready(stream: &Stream, patience: &Patience<'_>) -> Result<()> {
    loop {
        let until = match patience.slice() {
            Ok(until) if !patience.stopping() => until,
            _ => return Err(stream.primary().not_ready()),
        };
        match stream.primary().wait_ready(Some(until)) {
            Ok(_) => return Ok(()),
            Err(Error::NotReady { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Blocks until `lsn` has reached `level`, or until the patience is over.
pub(super) fn wait(
    stream: &Stream,
    lsn: Lsn,
    level: control::Level,
    patience: &Patience<'_>,
) -> Result<Reach, Failure> {
    let mut over = None;
    let waited =
        stream.primary().wait_in_slices(level.into(), lsn, || patience.slice().map_err(|why| over = Some(why)).ok());
    match waited {
        Ok(()) => {
            let board = stream.journal().board();
            let alone = board.remote().alone;
            let level = match level {
                control::Level::Committed => board.level_of(lsn).map_or(control::Level::Durable, control::Level::from),
                level => level,
            };
            Ok(Reach { level, epoch: stream.primary().epoch().unwrap_or_default(), alone })
        }
        Err(error) => Err(failure(stream, &error, level, over.map(|over| over.to_string()))),
    }
}

fn failure(stream: &Stream, error: &WaitError, level: control::Level, over: Option<String>) -> Failure {
    let failure = match error {
        WaitError::Unknown { lsn } => {
            let why = over.unwrap_or_else(|| "a required peer is lost".into());
            let message = format!("unknown: LSN {lsn} had not reached {level} when the wait ended ({why})");
            let name = stream.name();
            Failure::new(error.class(), message)
                .hint(format!("it may still get there; ask again: towline wait {name} --for durable --lsn {lsn}"))
                .at(*lsn)
        }
        WaitError::Fenced { by } => Error::Fenced { by: *by }.into(),
        error => Failure::new(error.class(), error.to_string()),
    };
    let peers = stream.primary().waits_for();
    if failure.lsn.is_none() || peers.is_empty() {
        return failure;
    }
    Failure { message: format!("{}. It waits for {}", failure.message, peers.join(" and ")), ..failure }
}

impl From<Level> for control::Level {
    fn from(level: Level) -> control::Level {
        match level {
            Level::Written => control::Level::Written,
            Level::Durable => control::Level::Durable,
            Level::Received => control::Level::Received,
            Level::PeerDurable => control::Level::PeerDurable,
            Level::Committed => control::Level::Committed,
        }
    }
}

impl From<control::Level> for Level {
    fn from(level: control::Level) -> Level {
        match level {
            control::Level::Written => Level::Written,
            control::Level::Durable => Level::Durable,
            control::Level::Received => Level::Received,
            control::Level::PeerDurable => Level::PeerDurable,
            control::Level::Committed => Level::Committed,
        }
    }
}
