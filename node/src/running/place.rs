//! One stream on a node, whatever the node is for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use journal::{Board, Class, End, Geometry, Journal, Role, StreamId};
use receiver::ReceiverStream;
use wire::{Greeting, Repeats};

use super::ready::{ReadyStream, Stopped};
use super::{Node, listen, random};
use crate::control::{Failure, Promote, Promoted};
use crate::data::StreamFolder;
use crate::error::{Error, Result};
use crate::options::{FirstRole, StreamOptions};
use crate::promotion::{self, Before};
use crate::receiving::Receiving;
use crate::scrub::{Scrubber, repair_command};
use crate::status::{RoleName, State, StreamStatus};
use crate::stream::{
    self, Stream, StreamBuilder, fenced_step, fill_status, newest_policy, peers_of, rebuilt_step, take_over,
};

/// A stream and what runs for it.
#[derive(Debug)]
pub(crate) struct Place {
    name: String,
    stream: StreamId,
    folder: StreamFolder,
    running: Mutex<Running>,
    scrubber: Mutex<Scrubber>,
    /// What greetings were refused with.
    refusals: Repeats<()>,
}

/// What runs.
#[derive(Debug)]
enum Running {
    /// This node writes it.
    Primary(Stream),
    /// This node keeps a copy of it.
    Receiver(Receiving),
    /// This node was its primary; it keeps what it has and takes nothing.
    Fenced(Journal),
    /// It was closed.
    Closed,
}

impl Place {
    /// Opens a stream that the folder keeps; the role in its control file says what to run.
    pub(super) fn open(node: &Node, name: &str) -> Result<Place> {
        let folder = node.data.stream(name);
        let journal = Journal::open(&folder.journal(), journal_options(node.wanted(name))?)?;
        if journal.node() != node.data.node() {
            let what = format!("belongs to node {}, not to this one ({})", journal.node(), node.data.node());
            return Err(Error::Foreign { path: journal.dir().to_owned(), what });
        }
        let stream = journal.stream();
        let policy = node.wanted(name).and_then(|wanted| wanted.scrub).unwrap_or(node.options.scrub);
        let scrubber = Scrubber::start(name, &journal, folder.scrub(), policy)?;
        let running = match journal.role() {
            Role::Primary => Running::Primary(builder(node, name, journal).start()?),
            Role::Receiver => Running::Receiver(receive(node, name, journal, &folder)?),
            Role::Fenced => Running::Fenced(journal),
        };
        let (running, scrubber) = (Mutex::new(running), Mutex::new(scrubber));
        Ok(Place { name: name.to_owned(), stream, folder, running, scrubber, refusals: Repeats::default() })
    }

    /// Makes a new stream of which this node is the first primary.
    pub(super) fn create_primary(node: &Node, wanted: &StreamOptions) -> Result<Place> {
        node.data.create_stream(&wanted.name, |folder| {
            let options = journal_options(Some(wanted))?;
            let (stream, id) = (StreamId::random(), node.data.node());
            Ok(Journal::create(&folder.journal(), stream, id, Role::Primary, options)?.close()?)
        })?;
        Place::open(node, &wanted.name)
    }

    /// Makes the copy of a stream that a primary has greeted for.
    pub(super) fn create_receiver(node: &Node, greeting: &Greeting) -> Result<Place> {
        let name = &greeting.stream_name;
        node.data.create_stream(name, |folder| {
            let options = journal::Options { geometry: greeting.geometry, ..journal_options(node.wanted(name))? };
            let id = node.data.node();
            Ok(Journal::create(&folder.journal(), greeting.stream, id, Role::Receiver, options)?.close()?)
        })?;
        Place::open(node, name)
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
            Running::Receiver(_) => Err(Error::NotPrimary { stream: self.name.clone(), role: "receiver" }),
            Running::Fenced(journal) if journal.is_rebuilt() => Err(Error::Rebuilt { stream: self.name.clone() }),
            Running::Fenced(journal) => Err(Error::Fenced { by: journal.term_seen().term }),
            Running::Closed => Err(Error::Closed),
        }
    }

    pub(super) fn has_depots(&self) -> bool {
        self.primary().is_ok_and(|stream| stream.primary().has_depots())
    }

    /// Asks the receiver, if this node is one.
    pub(super) fn with_receiving<T>(&self, ask: impl FnOnce(&Receiving) -> T) -> Option<T> {
        match &*self.running() {
            Running::Receiver(receiving) => Some(ask(receiving)),
            _ => None,
        }
    }

    /// The stream's log.
    pub(super) fn journal(&self) -> Result<Journal> {
        match &*self.running() {
            Running::Primary(stream) => Ok(stream.journal().clone()),
            Running::Receiver(receiving) => Ok(receiving.journal().clone()),
            Running::Fenced(journal) => Ok(journal.clone()),
            Running::Closed => Err(Error::Closed),
        }
    }

    pub(super) fn status(&self) -> StreamStatus {
        let mut status = self.running_status();
        status.scrub = Some(self.scrubber().status());
        let mendable = status.scrub.iter().flat_map(|scrub| &scrub.damaged).any(|damage| !damage.pruned);
        if mendable && let Ok(journal) = self.journal() {
            status.next_step.get_or_insert(repair_command(&journal));
        }
        status
    }

    fn running_status(&self) -> StreamStatus {
        match &*self.running() {
            Running::Primary(stream) => stream.primary().status(),
            Running::Receiver(receiving) => receiving.status(),
            Running::Fenced(journal) => {
                let mut status = fill_status(&self.name, RoleName::Fenced, State::Fenced, journal);
                status.next_step = Some(match journal.is_rebuilt() {
                    true => rebuilt_step(&self.name),
                    false => fenced_step(&self.name, status.term),
                });
                status
            }
            Running::Closed => stream::closed_status(&self.name, "it is closing", None),
        }
    }

    pub(super) fn ready(&self, node: &Node) -> ReadyStream {
        let status = self.status();
        let to = status.destinations.iter().map(|to| format!("{} ({} {})", to.name, to.kind, to.mode)).collect();
        let wanted = node.wanted(&self.name).is_some_and(|wanted| wanted.first == FirstRole::Primary);
        let overruled = wanted && status.role != RoleName::Primary;
        ReadyStream { name: self.name.clone(), role: status.role, to, overruled }
    }

    /// What answers the greeting of a primary.
    pub(super) fn answer(&self, node: &Node) -> Result<Arc<ReceiverStream>> {
        let journal = match &*self.running() {
            Running::Receiver(receiving) => return Ok(receiving.stream().clone()),
            Running::Primary(stream) => stream.journal().clone(),
            Running::Fenced(journal) => journal.clone(),
            Running::Closed => return Err(Error::Closed),
        };
        listen::refusing(node, &self.name, journal, self.refusals.clone())
    }

    /// What is to be done now and then.
    pub(super) fn tick(&self) {
        let done = match &*self.running() {
            Running::Receiver(receiving) => receiving.tick(),
            // a stream looks after itself
            Running::Primary(_) | Running::Fenced(_) | Running::Closed => Ok(()),
        };
        if let Err(error) = done {
            tracing::warn!(stream = self.name, %error, "prune");
        }
    }

    /// Why the stream failed for good, if it did.
    pub(super) fn failure(&self) -> Option<Error> {
        if let Running::Receiver(receiving) = &*self.running()
            && let Some(reason) = receiving.failure()
        {
            return Some(Error::Failed { path: receiving.journal().dir().to_owned(), reason });
        }
        let journal = self.journal().ok()?;
        match journal.board().ended()? {
            end @ End::Failed(_) => Some(stream::ended(end, &journal)),
            _ => None,
        }
    }

    /// Makes this node the primary of the stream.
    pub(super) fn promote(&self, node: &Node, wanted: &Promote) -> Result<Promoted, Failure> {
        let mut running = self.running();
        let (before, journal, role) = match &*running {
            Running::Primary(stream) => return stream.primary().promote(wanted, random()),
            Running::Receiver(receiving) => (before(node, receiving), receiving.journal().clone(), Role::Receiver),
            Running::Fenced(journal) => {
                let policy = newest_policy(journal);
                (Before { policy, ..Before::of(node.data.name(), journal) }, journal.clone(), Role::Fenced)
            }
            Running::Closed => return Err(Error::Closed.into()),
        };
        before.doubts(role).settle(&self.name, wanted.accept_loss)?;
        if wanted.wait_for_peer && !builder(node, &self.name, journal.clone()).has_required() {
            let message = format!("{} has no peer to wait for", self.name);
            return Err(
                Failure::new(Class::Usage, message).hint("promote it without --wait-for-peer, or configure a peer")
            );
        }
        let term = promotion::next_term(&journal, random())?;
        if let Running::Receiver(receiving) = &*running {
            // under the old term: the new one is not durable yet, so nobody may be fenced by it
            receiving.retire("the primary", journal.term_seen());
        }
        let promoted = take_over(&journal, term).and_then(|kept| {
            let builder = builder(node, &self.name, journal.clone());
            Ok((kept, builder.promoted(wanted.wait_for_peer).start()?))
        });
        match promoted {
            Ok((kept, stream)) => {
                let alone = stream.primary().alone();
                *running = Running::Primary(stream);
                Ok(promotion::promoted(&self.name, term.term, kept, before.loss(kept), &before, alone))
            }
            Err(error) => {
                *running = reopened(node, &self.name, journal, &self.folder);
                Err(error.into())
            }
        }
    }

    /// Ends it in order, and notes what is unknown.
    pub(super) fn close(&self, stopped: &mut Stopped) {
        self.scrubber().stop();
        let running = std::mem::replace(&mut *self.running(), Running::Closed);
        let closed = match running {
            Running::Primary(stream) => {
                let journal = stream.journal().clone();
                let closed = stream.close();
                stopped.unknown.extend(unknown(&self.name, journal.board()));
                closed
            }
            Running::Receiver(receiving) => receiving.close(),
            Running::Fenced(journal) => journal.close().map_err(Error::from),
            Running::Closed => Ok(()),
        };
        if let Err(error) = closed {
            stopped.troubles.push(format!("{}: {error}", self.name));
        }
    }

    fn scrubber(&self) -> MutexGuard<'_, Scrubber> {
        self.scrubber.lock().unwrap_or_else(PoisonError::into_inner)
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

/// What is known of a received stream before its promotion.
fn before(node: &Node, receiving: &Receiving) -> Before {
    let now = receiving.stream().status();
    Before {
        policy: newest_policy(receiving.journal()),
        in_doubt: now.in_doubt,
        alone: now.announced.is_some_and(|announced| announced.alone),
        last_contact: now.last_contact,
        committed: now.committed,
        ..Before::of(node.data.name(), receiving.journal())
    }
}

/// What a primary is made of: the options, or what the stream's own policy says where they say nothing of peers.
fn builder(node: &Node, name: &str, journal: Journal) -> StreamBuilder {
    let policy = newest_policy(&journal);
    // what another primary wrote names this node as well
    let foreign = journal.history().last().is_some_and(|opening| opening.node != journal.node());
    let me = foreign.then(|| node.me());
    let mut builder = Stream::builder(journal)
        .name(name)
        .node(node.info())
        .spool(node.data.stream(name).spool())
        .security(node.options.security.clone())
        .dead_after(node.options.dead_after);
    let wanted = node.wanted(name);
    if let Some(wanted) = wanted {
        builder = builder.need(wanted.need);
        builder = wanted.peers.iter().cloned().fold(builder, StreamBuilder::peer);
        builder = wanted.depots.iter().cloned().fold(builder, StreamBuilder::depot);
    }
    if wanted.is_none_or(|wanted| wanted.peers.is_empty())
        && let Some(policy) = policy
    {
        builder = builder.need(policy.need);
        builder = peers_of(&policy, me.as_ref()).into_iter().fold(builder, StreamBuilder::peer);
    }
    builder
}

fn receive(node: &Node, name: &str, journal: Journal, folder: &StreamFolder) -> Result<Receiving> {
    Receiving::start(name, journal, folder, node.info(), node.options.dead_after)
}

/// After a promotion that failed half-way: whatever the control file says now.
fn reopened(node: &Node, name: &str, journal: Journal, folder: &StreamFolder) -> Running {
    let running = match journal.role() {
        Role::Primary => builder(node, name, journal).start().map(Running::Primary),
        Role::Receiver => receive(node, name, journal, folder).map(Running::Receiver),
        Role::Fenced => Ok(Running::Fenced(journal)),
    };
    running.unwrap_or_else(|error| {
        tracing::error!(stream = name, %error, "go on after a promotion that failed: start this node again");
        Running::Closed
    })
}

fn journal_options(wanted: Option<&StreamOptions>) -> Result<journal::Options> {
    let mut options = journal::Options::default();
    let Some(wanted) = wanted else { return Ok(options) };
    if let Some(bytes) = wanted.segment_bytes {
        options.geometry = Geometry::new(bytes).ok_or(Error::Segment { bytes })?;
    }
    options.budget_bytes = wanted.budget_bytes.unwrap_or(options.budget_bytes);
    options.retain = wanted.retain();
    options.record_bytes_max = wanted.record_bytes_max.unwrap_or(options.record_bytes_max);
    Ok(options)
}
