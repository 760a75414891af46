//! One stream on a node, whatever the node is for it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use journal::{Board, End, Geometry, Journal, Role, StreamId};

use super::ready::{ReadyStream, Stopped};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::options::{Options, StreamOptions};
use crate::status::{RoleName, State, StreamStatus};
use crate::stream::{self, Stream, fenced_step, fill_status};

/// A stream and what runs for it.
#[derive(Debug)]
pub(crate) struct Place {
    name: String,
    stream: StreamId,
    running: Mutex<Running>,
}

/// What runs.
#[derive(Debug)]
enum Running {
    /// This node writes it.
    Primary(Stream),
    /// This node was its primary; it keeps what it has and takes nothing.
    Fenced(Journal),
    /// It was closed.
    Closed,
}

impl Place {
    /// Opens a stream that the folder keeps; the role in its control file says what to run.
    pub(super) fn open(data: &Data, options: &Options, name: &str) -> Result<Place> {
        let wanted = options.streams.iter().find(|stream| stream.name == name);
        let journal = Journal::open(&data.stream(name).journal(), journal_options(wanted)?)?;
        if journal.node() != data.node() {
            let what = format!("belongs to node {}, not to this one ({})", journal.node(), data.node());
            return Err(Error::Foreign { path: journal.dir().to_owned(), what });
        }
        let stream = journal.stream();
        let running = match journal.role() {
            Role::Primary => Running::Primary(start_primary(data, options, name, journal)?),
            Role::Fenced => Running::Fenced(journal),
            Role::Receiver => Running::Fenced(journal),
        };
        Ok(Place { name: name.to_owned(), stream, running: Mutex::new(running) })
    }

    /// Makes a new stream of which this node is the first primary.
    pub(super) fn create_primary(data: &Data, options: &Options, wanted: &StreamOptions) -> Result<Place> {
        data.create_stream(&wanted.name, |folder| {
            let options = journal_options(Some(wanted))?;
            let journal = Journal::create(&folder.journal(), StreamId::random(), data.node(), Role::Primary, options)?;
            Ok(journal.close()?)
        })?;
        Place::open(data, options, &wanted.name)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn stream(&self) -> StreamId {
        self.stream
    }

    /// The stream, if this node writes it.
    pub(super) fn primary(&self) -> Result<Stream> {
        match &*self.running() {
            Running::Primary(stream) => Ok(stream.clone()),
            Running::Fenced(journal) => Err(Error::Fenced { by: journal.term_seen().term }),
            Running::Closed => Err(Error::Closed),
        }
    }

    /// The stream's log.
    pub(super) fn journal(&self) -> Result<Journal> {
        match &*self.running() {
            Running::Primary(stream) => Ok(stream.journal().clone()),
            Running::Fenced(journal) => Ok(journal.clone()),
            Running::Closed => Err(Error::Closed),
        }
    }

    pub(super) fn status(&self) -> StreamStatus {
        match &*self.running() {
            Running::Primary(stream) => stream.primary().status(),
            Running::Fenced(journal) => {
                let mut status = fill_status(&self.name, RoleName::Fenced, State::Fenced, journal);
                status.next_step = Some(fenced_step(&self.name, status.term));
                status
            }
            Running::Closed => stream::closed_status(&self.name, "it is closing", None),
        }
    }

    pub(super) fn ready(&self) -> ReadyStream {
        let status = self.status();
        let to = status.destinations.iter().map(|to| format!("{} ({} {})", to.name, to.kind, to.mode)).collect();
        ReadyStream { name: self.name.clone(), role: status.role, to }
    }

    /// Why the stream failed for good, if it did.
    pub(super) fn failure(&self) -> Option<Error> {
        let journal = self.journal().ok()?;
        match journal.board().ended()? {
            end @ End::Failed(_) => Some(stream::ended(end, &journal)),
            _ => None,
        }
    }

    /// Ends it in order, and notes what is unknown.
    pub(super) fn close(&self, stopped: &mut Stopped) {
        let running = std::mem::replace(&mut *self.running(), Running::Closed);
        let closed = match running {
            Running::Primary(stream) => {
                let journal = stream.journal().clone();
                let closed = stream.close();
                stopped.unknown.extend(unknown(&self.name, journal.board()));
                closed
            }
            Running::Fenced(journal) => journal.close().map_err(Error::from),
            Running::Closed => Ok(()),
        };
        if let Err(error) = closed {
            stopped.troubles.push(format!("{}: {error}", self.name));
        }
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was appended and is not known to have met the promise.
fn unknown(name: &str, board: &Board) -> Option<String> {
    let (committed, staged) = (board.committed(), board.staged());
    (committed < staged).then(|| {
        format!(
            "{name}: LSN {committed}..{staged} is unknown: durable here up to {}, not known to have met the stream's promise",
            board.durable()
        )
    })
}

fn start_primary(data: &Data, options: &Options, name: &str, journal: Journal) -> Result<Stream> {
    let mut builder = Stream::builder(journal)
        .name(name)
        .node_name(data.name())
        .security(options.security.clone())
        .dead_after(options.dead_after);
    if let Some(wanted) = options.streams.iter().find(|stream| stream.name == name) {
        builder = builder.need(wanted.need);
        for peer in &wanted.peers {
            builder = builder.peer(peer.clone());
        }
        for depot in &wanted.depots {
            builder = builder.depot(depot.clone());
        }
    }
    builder.start()
}

fn journal_options(wanted: Option<&StreamOptions>) -> Result<journal::Options> {
    let mut options = journal::Options::default();
    let Some(wanted) = wanted else { return Ok(options) };
    if let Some(bytes) = wanted.segment_bytes {
        options.geometry = Geometry::new(bytes).ok_or(Error::Segment { bytes })?;
    }
    options.budget_bytes = wanted.budget_bytes.unwrap_or(options.budget_bytes);
    options.record_bytes_max = wanted.record_bytes_max.unwrap_or(options.record_bytes_max);
    Ok(options)
}
