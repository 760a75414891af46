//! The driver around the cores of a primary: one thread per stream that runs every [`Peer`] and the [`Gate`].
//!
//! ```text
//!  Board (written, durable) --wakes--+
//!  sockets of all peers -------------+--> one turn: hand in events -> Gate -> Board.set_remote -> do the actions
//!  timers, commands -----------------+                                        |
//!                                        slices of the log, lent to the socket, one vectored write <-+
//! ```
//! One lock holds the decisions. The link thread takes it for a turn; other threads take it to look, and to open a run:
//! so no entry that a peer gives back is written behind the back of an open run. Nothing wakes up per record: whatever
//! happened since the last turn is one turn.

mod conn;
mod run;
mod status;

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use journal::{Epoch, Journal, Lsn, Remote, RunOpening, TermSeen, Time};
use tokio::sync::Notify;
use wire::{NodeInfo, Security, own_runtime};

pub use self::status::{LinkTrouble, LinksStatus, PeerStatus};
use crate::commit::Need;
use crate::error::Error;
use crate::gate::{Gate, Loss, Member, OnLoss, Verdict};
use crate::peer::{Notice, Peer, PeerOptions};

/// A peer of a stream, as it is asked for.
#[derive(Clone, Debug)]
pub struct Target {
    /// How it is treated.
    pub peer: PeerOptions,
    /// Where it listens: `HOST:PORT`.
    pub address: String,
    /// The name its certificate must have; `None`: the host that is dialled.
    pub expect_name: Option<String>,
    /// What to do without it.
    pub on_loss: OnLoss,
}

/// How a stream is shipped.
#[derive(Clone, Debug)]
pub struct LinksOptions {
    /// The stream's name, for people and for a receiver that meets it for the first time.
    pub stream_name: String,
    /// This node, in this process.
    pub node: NodeInfo,
    /// How connections are protected.
    pub security: Security,
    /// How many of the required peers a commit waits for.
    pub need: Need,
    /// The peers.
    pub targets: Vec<Target>,
}

/// What the node around the link is told, from the link thread and without its lock. Must not block for long.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The start gate opened: a run may be opened.
    Open,
    /// What a lost peer means for commits changed.
    Loss(Loss),
    /// A higher term exists: nothing is acknowledged any more, term and role are recorded.
    Fenced(TermSeen),
    /// Something that people should know of a peer.
    Notice {
        /// The peer's name.
        peer: String,
        /// What.
        notice: Notice,
    },
}

/// Takes events.
pub type OnEvent = Box<dyn Fn(Event) + Send + Sync>;

/// The connections of one stream to its peers, and the thread that runs them. Dropping it stops it.
pub struct Links {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    journal: Journal,
    options: LinksOptions,
    state: Mutex<State>,
    /// The gate opened, or it never will.
    changed: Condvar,
    /// Wakes the link thread.
    kick: Arc<Notify>,
    on_event: OnEvent,
}

/// The decisions, and what is known beside them.
struct State {
    peers: Vec<Peer>,
    gate: Gate,
    verdict: Verdict,
    /// What the board was told last.
    remote: Option<Remote>,
    opened: bool,
    /// The log says that the stream is alone.
    alone_noted: bool,
    depot_floor: Lsn,
    /// Peers whose lack keeps nothing, in their order.
    detached: Vec<bool>,
    met: Vec<Met>,
    /// Gathered under the lock, told without it.
    events: Vec<Event>,
    stopping: Option<String>,
    /// The board's end was passed on to the peers.
    ended: bool,
}

/// What is known of a peer beside its core.
#[derive(Clone, Debug, Default)]
struct Met {
    node: Option<NodeInfo>,
    names: Vec<String>,
    last_contact: Option<Time>,
    trouble: Option<LinkTrouble>,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl Links {
    /// Starts shipping `journal`. Nothing is acknowledged at any peer's level, and no run may be opened, before the start
    /// gate is open. Without targets it is open at once.
    pub fn start(journal: Journal, options: LinksOptions, on_event: OnEvent) -> Result<Links, Error> {
        let now = Instant::now();
        let members: Vec<Member> =
            options.targets.iter().map(|target| Member { mode: target.peer.mode, on_loss: target.on_loss }).collect();
        let mut gate = Gate::new(options.need, &members);
        let verdict = gate.update(now, journal.board().durable(), &vec![None; members.len()]);
        let peers = options.targets.iter().map(|target| Peer::new(now, target.peer.clone())).collect();
        journal.board().set_remote(verdict.remote);
        let events = if verdict.open { vec![Event::Open] } else { Vec::new() };
        let state = State {
            peers,
            gate,
            remote: Some(verdict.remote),
            verdict,
            opened: false,
            alone_noted: false,
            depot_floor: Lsn::MAX,
            detached: vec![false; options.targets.len()],
            met: vec![Met::default(); options.targets.len()],
            events,
            stopping: None,
            ended: false,
        };
        let shared = Arc::new(Shared {
            journal,
            options,
            state: Mutex::new(state),
            changed: Condvar::new(),
            kick: Arc::new(Notify::new()),
            on_event,
        });
        let runtime = own_runtime()?;
        let thread = thread::Builder::new().name("towline-link".into()).spawn({
            let shared = Arc::clone(&shared);
            move || runtime.block_on(run::run(shared))
        });
        Ok(Links { shared, thread: Mutex::new(Some(thread.map_err(Error::Thread)?)) })
    }

    /// True once the start gate is open.
    pub fn is_open(&self) -> bool {
        self.shared.state().verdict.open
    }

    /// Blocks until the start gate is open, or `timeout` is over, or the stream ended: whether it is open.
    pub fn wait_open(&self, timeout: Duration) -> bool {
        let state = self.shared.state();
        let shut = |state: &mut State| !state.verdict.open && !state.ended && state.stopping.is_none();
        let waited = self.shared.changed.wait_timeout_while(state, timeout, shut);
        waited.unwrap_or_else(PoisonError::into_inner).0.verdict.open
    }

    /// Opens a run of the journal, if the gate is open. With `opening.promote` the term is raised, and every peer is
    /// greeted again. Must be called instead of [`Journal::open_run`].
    ///
    /// Errors: `NotReady` while the gate is closed, `Journal`.
    pub fn open_run(&self, opening: RunOpening) -> Result<Epoch, Error> {
        let mut state = self.shared.state();
        if !state.verdict.open {
            let waiting_for = self.shared.names(&state.verdict.waiting_for);
            return Err(Error::NotReady { waiting_for });
        }
        let promotes = opening.promote.is_some();
        let epoch = self.shared.journal.open_run(opening)?;
        state.opened = true;
        let now = Instant::now();
        let local = self.shared.local(&state);
        for peer in &mut state.peers {
            peer.handle_local(now, local);
            if promotes {
                peer.restart(now);
            }
        }
        drop(state);
        self.shared.kick.notify_one();
        Ok(epoch)
    }

    /// The operator's word (`promote --accept-loss`): go on without the peers that are not there. Commits are stamped as
    /// alone until they are back.
    pub fn waive(&self) {
        self.shared.state().gate.waive();
        self.judge_now();
    }

    /// What a depot still needs of the log: part of what is announced to peers as owed. [`Lsn::MAX`]: nothing.
    pub fn set_depot_floor(&self, floor: Lsn) {
        let before = std::mem::replace(&mut self.shared.state().depot_floor, floor);
        self.kick_if(before != floor);
    }

    /// For each peer, in their order: nothing is kept for what it lacks, and the others need keep nothing for it either.
    pub fn set_detached(&self, detached: Vec<bool>) {
        let news = {
            let mut state = self.shared.state();
            let news = state.detached != detached;
            state.detached = detached;
            news
        };
        self.kick_if(news);
    }

    /// The lowest position owed to any peer or depot: prune nothing above it.
    pub fn floor(&self) -> Lsn {
        self.shared.state().floor()
    }

    /// What a lost peer means for commits now.
    pub fn loss(&self) -> Loss {
        self.shared.state().verdict.loss
    }

    /// Where everything stands at this instant.
    pub fn status(&self) -> LinksStatus {
        status::status(&self.shared.options, &self.shared.state())
    }

    /// Says goodbye to every peer and ends the thread. What the peers hold counts for nothing from here on. Blocks until
    /// it is over, a few seconds at most.
    pub fn stop(&self, reason: &str) {
        self.shared.state().stopping.get_or_insert_with(|| reason.to_owned());
        self.shared.changed.notify_all();
        self.shared.kick.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the link thread panicked");
        }
    }

    /// Each kick is a turn of the link thread.
    fn kick_if(&self, news: bool) {
        if news {
            self.shared.kick.notify_one();
        }
    }

    fn judge_now(&self) {
        let mut state = self.shared.state();
        self.shared.judge(&mut state, Instant::now());
        drop(state);
        self.shared.kick.notify_one();
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.stop("stopping");
    }
}

/// A destination for people: its name, and its address unless that is its name.
fn called(name: &str, address: &str) -> String {
    if name == address { name.to_owned() } else { format!("{name} ({address})") }
}

impl State {
    /// What any peer or depot may still need, of those that anything is kept for.
    fn floor(&self) -> Lsn {
        let attached = self.peers.iter().zip(&self.detached).filter(|(_, detached)| !**detached);
        let owed = attached.map(|(peer, _)| peer.remembered().map_or(Lsn::ZERO, |place| place.lsn));
        owed.chain([self.depot_floor]).min().unwrap_or(Lsn::MAX)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // the cores decide and do nothing else: a panic beside them leaves them whole
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self, indices: &[usize]) -> Vec<String> {
        let names = indices.iter().filter_map(|&index| self.options.targets.get(index));
        names.map(|target| called(&target.peer.name, &target.address)).collect()
    }
}
