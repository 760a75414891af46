//! One stream that this node keeps for another: its log, its [`Intake`], and who does what the intake orders.
//!
//! ```text
//!  connection's thread:  read -> Intake.verify -> Journal.extend -> Ack received -> (Sync asked: sync) -> Ack durable
//!  flush thread:         written > durable -> sync -> Ack durable        (the primary asked for less than Sync)
//!  alive thread:         Alive, with how long the sync in progress has run
//! ```
//! The intake has one lock. What never blocks for long (queueing messages, one write to the log) is done under it, in the
//! intake's order; syncs, cuts and walks are done without it, by the thread that found them.

mod duties;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use journal::{Error, Holder, Journal, Lsn, NodeId, Role, TermSeen, Time};
use wire::{Announce, GREETING_OPENINGS_MAX, Greeting, Message, Mode, NodeInfo, PROTOCOL, Place, Repeats};

use crate::feed::Feed;
use crate::intake::{Found, Intake, IntakeOptions, Log, Notice};

/// A receiver that was full comes back with room for all that it lacks, or for so much of it: about what a primary keeps
/// under way. It is allocated and written before the greeting is answered, so it mustn't take longer than a primary waits.
const RETURN_ROOM_BYTES: u64 = 16 << 20;

/// What the node around a received stream does for it. Nothing here may call back into the stream.
pub trait Keeper: Send + Sync {
    /// The replica may apply up to `to`. Must not block.
    fn apply(&self, to: Lsn);

    /// The log has all that its primary had: note this boot of the machine as the settled one, durably. Blocking. `Err`
    /// in words: nothing more is acknowledged then.
    fn settle(&self) -> Result<(), String>;

    /// Something that people should know. Must not block for long.
    fn notice(&self, notice: &Notice);

    /// A sync failed, the primary was told, and nothing more is acknowledged: the process should end. Must not block.
    fn failed(&self, reason: &str);
}

/// How a stream is received.
#[derive(Clone, Debug)]
pub struct ReceiverOptions {
    /// The stream's name, for people.
    pub stream_name: String,
    /// This node, in this process.
    pub node: NodeInfo,
    /// Time limits.
    pub intake: IntakeOptions,
    /// Visible in the replica.
    pub applied: Lsn,
    /// The replica needs no replay below this.
    pub checkpoint: Lsn,
    /// The node came up under another boot id than the settled one.
    pub in_doubt: bool,
}

/// Where a received stream stands, at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverStatus {
    /// The primary that feeds it now.
    pub fed_by: Option<NodeId>,
    /// That primary's name.
    pub fed_by_name: Option<String>,
    /// When something was last heard of a primary.
    pub last_contact: Option<Time>,
    /// End of the log.
    pub received: Lsn,
    /// Covered by an own sync.
    pub durable: Lsn,
    /// Known to be committed.
    pub committed: Lsn,
    /// Visible in the replica.
    pub applied: Lsn,
    /// What the primary announced last; `None` without one.
    pub announced: Option<Announce>,
    /// It may have lost what it had only received.
    pub in_doubt: bool,
    /// There was no space for what was sent last.
    pub full: bool,
    /// The newest thing that people should know.
    pub last_notice: Option<Notice>,
}

/// A stream that is received. Its connections hold it: [`ReceiverStream::stop`] ends them.
pub struct ReceiverStream {
    journal: Journal,
    options: ReceiverOptions,
    keeper: Arc<dyn Keeper>,
    intake: Mutex<Intake>,
    feeds: Mutex<HashMap<u64, Arc<Feed>>>,
    next_link: AtomicU64,
    /// What the primary said last that its other destinations may need; a fact that outlives the connection. Absent on a
    /// node that is no receiver.
    owed: Option<Holder>,
    /// The connection's thread syncs: its primary asked for `Sync`.
    inline: AtomicBool,
    full: AtomicBool,
    /// A primary tries again and again: that the log can't be written is news once.
    troubles: Repeats<()>,
    /// Committed and durable here, for the control file.
    learnt: AtomicU64,
    failed: AtomicBool,
    stopping: AtomicBool,
    seen: Mutex<Seen>,
    flusher: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Seen {
    last_contact: Option<Time>,
    name: Option<String>,
    notice: Option<Notice>,
}

impl fmt::Debug for ReceiverStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiverStream").field("journal", &self.journal).finish_non_exhaustive()
    }
}

impl ReceiverStream {
    /// Receives into `journal`. A node that is primary or fenced answers greetings too, and refuses: that is how an old
    /// primary learns of a newer one.
    ///
    /// Errors: a thread that can't be started.
    pub fn start(
        journal: Journal,
        options: ReceiverOptions,
        keeper: Arc<dyn Keeper>,
    ) -> journal::Result<Arc<ReceiverStream>> {
        let receives = journal.role() == Role::Receiver;
        let owed = receives.then(|| journal.hold("another destination of its primary", journal.start()));
        journal.spawn_flusher()?; // it has the next segment ready before it is needed
        let tip = journal.written_tip();
        let proof = journal.sync()?;
        let log = Log {
            geometry: journal.geometry(),
            tip,
            durable: Place { lsn: proof.lsn(), chain: proof.chain() },
            committed: journal.committed(),
            applied: options.applied,
            term: journal.term_seen(),
            instead: match journal.role() {
                Role::Receiver => None,
                Role::Primary => Some("the primary".into()),
                Role::Fenced => Some("fenced".into()),
            },
            in_doubt: options.in_doubt || journal.is_rebuilt(),
            rebuilt: journal.is_rebuilt(),
        };
        let mut intake = Intake::new(options.intake, log);
        intake.handle_applied(options.applied, options.checkpoint);
        let stream = Arc::new(ReceiverStream {
            intake: Mutex::new(intake),
            journal,
            options,
            keeper,
            owed,
            feeds: Mutex::default(),
            next_link: AtomicU64::new(1),
            inline: AtomicBool::new(false),
            full: AtomicBool::new(false),
            troubles: Repeats::default(),
            learnt: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            seen: Mutex::default(),
            flusher: Mutex::new(None),
        });
        let thread = thread::Builder::new().name("towline-ack".into()).spawn({
            let (journal, stream) = (stream.journal.clone(), Arc::downgrade(&stream));
            move || duties::flush(&journal, &stream)
        });
        let thread = thread.map_err(|source| Error::Io {
            doing: "start the flush thread of",
            path: stream.journal.dir().to_owned(),
            source,
        })?;
        *stream.flusher.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(stream)
    }

    /// The log.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Where it stands now.
    pub fn status(&self) -> ReceiverStatus {
        let intake = self.intake();
        let seen = self.seen();
        let log = intake.log();
        let fed_by = intake.fed_by();
        ReceiverStatus {
            fed_by,
            fed_by_name: fed_by.and(seen.name.clone()),
            last_contact: seen.last_contact,
            received: log.tip.lsn,
            durable: log.durable.lsn,
            committed: log.committed,
            applied: log.applied,
            announced: intake.announced(),
            in_doubt: intake.in_doubt(),
            full: self.is_full(),
            last_notice: seen.notice.clone(),
        }
    }

    /// The replica shows everything below `applied`, and needs no replay below `checkpoint`.
    pub fn applied(&self, applied: Lsn, checkpoint: Lsn) {
        self.intake().handle_applied(applied, checkpoint);
    }

    /// This node is something else from now on ("the primary"): the connection that feeds it ends, later ones are
    /// refused. `term` is durable in the journal already.
    pub fn retire(&self, instead: &str, term: TermSeen) {
        self.step(|intake| intake.retire(instead, term));
    }

    /// Ends every connection and the flush thread. The journal stays open.
    pub fn stop(&self, reason: &str) {
        self.stopping.store(true, Ordering::Release);
        for feed in self.feeds().values() {
            feed.outlet.send(&Message::Bye { reason: reason.to_owned() });
            feed.outlet.close(reason);
        }
        let flusher = self.flusher.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(flusher) = flusher
            && flusher.thread().id() != thread::current().id()
            && flusher.join().is_err()
        {
            tracing::error!("the flush thread of a received stream panicked");
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    pub(crate) fn name(&self) -> &str {
        &self.options.stream_name
    }
}

/// For the threads of its connections.
impl ReceiverStream {
    /// Numbers a connection. Its messages are sent through `feed` until [`ReceiverStream::remove`].
    pub(crate) fn add(&self, feed: Feed) -> (u64, Arc<Feed>) {
        let link = self.next_link.fetch_add(1, Ordering::Relaxed);
        let feed = Arc::new(feed);
        self.feeds().insert(link, Arc::clone(&feed));
        if self.stopping.load(Ordering::Acquire) {
            feed.outlet.close("stopping");
        }
        (link, feed)
    }

    pub(crate) fn remove(&self, link: u64) {
        self.step(|intake| intake.handle_disconnected(link));
        self.feeds().remove(&link);
    }

    /// The first message of a connection.
    pub(crate) fn greeted(&self, link: u64, greeting: Greeting) {
        {
            let mut seen = self.seen();
            seen.last_contact = Some(Time::now());
            seen.name = Some(greeting.node.name.clone());
        }
        let mode = greeting.mode;
        // a receiver without space must not come back only to be full again at the next entries. One segment is not
        // enough: the flush thread had that one ready when the last entries didn't fit
        let lacks = greeting.end.lsn.bytes_since(self.journal.board().written());
        let room = match self.is_full() {
            true => self.journal.make_room(lacks.min(RETURN_ROOM_BYTES)),
            false => Ok(()),
        };
        self.step(|intake| {
            // under the lock: an older connection may still extend the log, and a history that lacks the epoch of the
            // end it is sent with would have good entries cut
            let own = self.greeting();
            intake.handle_greeting(Instant::now(), link, greeting, own);
            match room {
                Ok(()) => self.full.store(false, Ordering::Relaxed),
                // what can be given up for the budget, only this primary can say: it is let in and not counted
                Err(Error::Budget { .. }) => {}
                Err(error) => self.broken(intake, link, &error),
            }
        });
        // of the newest greeting: one that was turned away costs the older connection a few flushes, nothing else
        self.inline.store(mode == Mode::Sync, Ordering::Relaxed);
    }

    /// Messages that arrived on a connection, one behind the other; `each` hands them in under the intake's lock.
    pub(crate) fn step<T>(&self, each: impl FnOnce(&mut Intake) -> T) -> T {
        let mut intake = self.intake();
        let out = each(&mut intake);
        self.act(intake);
        out
    }

    /// Entries that arrived: verified, written in one go, counted as received.
    pub(crate) fn take(&self, intake: &mut Intake, link: u64, session: u64, at: Lsn, bytes: &[u8]) {
        let Found::Write { run, term } = intake.verify(Instant::now(), link, session, at, bytes) else { return };
        if let Some(term) = term {
            match self.journal.see_term(term) {
                Ok(()) => intake.handle_term_seen(link, term),
                Err(error) => return self.broken(intake, link, &error),
            }
        }
        if let (Some(owed), Some(announced)) = (&self.owed, intake.announced()) {
            owed.set(announced.floor);
        }
        match self.journal.extend(&run) {
            Ok(_) => {
                intake.handle_written(*run.last());
                self.full.store(false, Ordering::Relaxed);
            }
            Err(error) => self.broken(intake, link, &error),
        }
    }

    /// When [`Intake::handle_timeout`] is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.intake().poll_timeout()
    }

    pub(crate) fn contact(&self) {
        self.seen().last_contact = Some(Time::now());
    }

    fn greeting(&self) -> Greeting {
        let tip = self.journal.written_tip();
        let mut history = self.journal.history();
        history.cut(tip.lsn);
        Greeting {
            protocol: PROTOCOL,
            stream: self.journal.stream(),
            stream_name: self.options.stream_name.clone(),
            geometry: self.journal.geometry(),
            node: self.options.node.clone(),
            mode: Mode::Async,
            term: self.journal.term_seen(),
            opened: false,
            history: history.newest(GREETING_OPENINGS_MAX),
            start: self.journal.start(),
            end: Place { lsn: tip.lsn, chain: tip.chain },
            durable: self.journal.board().durable(),
            committed: self.journal.committed(),
            applied: Lsn::ZERO, // the intake counts it
            remembers: None,
            clock: Time::now(),
        }
    }
}

impl ReceiverStream {
    fn intake(&self) -> MutexGuard<'_, Intake> {
        // the intake decides and does nothing else: a panic beside it leaves it whole
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn feeds(&self) -> MutexGuard<'_, HashMap<u64, Arc<Feed>>> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ReceiverStream {
    fn drop(&mut self) {
        self.stop("the stream is closed");
    }
}
