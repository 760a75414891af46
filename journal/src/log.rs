//! The journal itself: one folder, one writer process, any number of threads.
//!
//! Locks are always taken in this order: `syncing`, `writer`, `staging`, `maker`, `space`, `control`, `segments`.
//! Whoever cuts or prunes holds `maker`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LockResult, PoisonError};

use crate::append::Staging;
use crate::board::Board;
use crate::chain::Chain;
use crate::commit::{Durable, Writer};
use crate::control::{Control, Evidence, Facts, Role};
use crate::cursor::Tip;
use crate::epoch::{Epoch, History, TermSeen};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::hold::Holders;
use crate::id::{NodeId, StreamId};
use crate::level::End;
use crate::lock::FolderLock;
use crate::lsn::{Lsn, LsnRange};
use crate::maker::Maker;
use crate::options::Options;
use crate::recovery;
use crate::segment::Segment;
use crate::space::Space;
use crate::sync::atomic::AtomicU64;
use crate::sync::thread::JoinHandle;
use crate::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(crate) const PANICKED: &str =
    "a thread panicked while it changed the journal; nothing more is acknowledged. Start this node again";

/// What opening a journal found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Entries above all evidence of durability that were not whole: cut. `None` when the log ended cleanly.
    pub torn: Option<LsnRange>,
    /// The part behind the known durable point, written again and synced before it counts as durable.
    pub rewritten: LsnRange,
    /// A sync had failed before the journal was closed.
    pub was_poisoned: bool,
}

/// A handle to an open journal. Clones share it. Every method is thread-safe and may block on the disk; none needs a
/// runtime. The folder's lock is released when the last handle is dropped; [`Journal::close`] is the clean stop.
#[derive(Clone, Debug)]
pub struct Journal {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) stream: StreamId,
    pub(crate) node: NodeId,
    pub(crate) geometry: Geometry,
    pub(crate) report: OpenReport,
    pub(crate) board: Arc<Board>,
    pub(crate) syncing: Mutex<Durable>,
    pub(crate) writer: Mutex<Writer>,
    pub(crate) staging: Mutex<Staging>,
    pub(crate) maker: Mutex<Maker>,
    pub(crate) space: Mutex<Space>,
    pub(crate) control: Mutex<Control>,
    pub(crate) segments: RwLock<Vec<Arc<Segment>>>,
    /// Syncs of the log so far.
    pub(crate) syncs: AtomicU64,
    pub(crate) holders: Arc<Holders>,
    pub(crate) flusher: Mutex<Option<JoinHandle<()>>>,
    _lock: FolderLock,
}

impl Journal {
    /// Creates an empty journal in `dir`, which must not hold one yet, and opens it as `role`.
    pub fn create(dir: &Path, stream: StreamId, node: NodeId, role: Role, options: Options) -> Result<Journal> {
        options.check_budget(dir, options.geometry)?;
        let storage = &*options.host.storage;
        storage.create_dir(dir).map_err(Error::io("create", dir))?;
        let lock = FolderLock::take(dir)?;
        if recovery::holds_journal(dir)? {
            return Err(Error::Corrupt {
                path: dir.to_owned(),
                what: "there are files of a journal here already; nothing was changed. Choose an empty folder".into(),
            });
        }
        let start = Tip::empty(stream);
        let facts = Facts {
            stream,
            geometry: options.geometry,
            node,
            role,
            term_seen: TermSeen::default(),
            opened_last: Epoch::default(),
            start,
            cut: None,
            checkpoint: Lsn::ZERO,
            poisoned: false,
            rebuilt: false,
            history: History::default(),
        };
        let evidence = Evidence { chain: start.chain, ..Evidence::default() };
        // the control file comes last: with it, and never without the rest, there is a journal
        Space::create_pool(storage, dir)?;
        Control::create(storage, dir, facts, evidence)?;
        Journal::open_locked(dir, options, lock)
    }

    /// Opens the journal in `dir`: recovers the end of the log, cuts a torn tail, and makes what is left durable.
    ///
    /// Errors: `Absent` when there is none, `Locked` when another process has it, `Rot` when an entry that was durable
    /// is damaged, `Corrupt` when a file is not what it should be, `BudgetTooSmall`; none of them changes a file of the
    /// log.
    pub fn open(dir: &Path, options: Options) -> Result<Journal> {
        recovery::find_folder(dir)?;
        if !recovery::holds_journal(dir)? {
            return Err(Error::Absent { path: dir.to_owned(), what: "no control file and no segments" });
        }
        let lock = FolderLock::take(dir)?;
        Journal::open_locked(dir, options, lock)
    }

    fn open_locked(dir: &Path, options: Options, lock: FolderLock) -> Result<Journal> {
        let recovery::Recovered { control, segments, tip, report } = recovery::recover(dir, &options)?;
        let Facts { stream, node, geometry, start, .. } = control.facts;
        let segments_end = segments.last().map(|segment| segment.end()).unwrap_or(geometry.segment_of(start.lsn));
        let storage = Arc::clone(&options.host.storage);
        let space = Space::open(storage, dir, geometry, options.budget_bytes, segments_end)?;
        let board = Arc::new(Board::default());
        board.reset(tip.lsn, control.evidence.committed);
        let shared = Shared {
            dir: dir.to_owned(),
            stream,
            node,
            geometry,
            report,
            board,
            syncing: Mutex::new(Durable::recovered(tip)),
            writer: Mutex::new(Writer::at(tip)),
            staging: Mutex::new(Staging::at(tip, space.reserved_to())),
            maker: Mutex::default(),
            space: Mutex::new(space),
            control: Mutex::new(control),
            segments: RwLock::new(segments),
            syncs: AtomicU64::new(0),
            holders: Arc::default(),
            flusher: Mutex::new(None),
            options,
            _lock: lock,
        };
        Ok(Journal { shared: Arc::new(shared) })
    }

    /// The clean stop: writes and syncs what is staged, syncs the evidence, ends every wait. The error says what is not
    /// durable.
    pub fn close(self) -> Result<()> {
        let synced = match self.board().ended() {
            None => Some(self.sync().and_then(|_| self.control().sync_evidence())),
            Some(_) => None,
        };
        self.end(End::Closed);
        let flusher = self.shared.flusher.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = flusher
            && thread.join().is_err()
        {
            tracing::error!("the flush thread of a journal panicked");
        }
        // after an end: its last sync may have covered what was staged before
        synced.unwrap_or_else(|| match self.board().durable() >= self.board().staged() {
            true => Ok(()),
            false => self.check_end(),
        })
    }

    /// What opening found and did.
    pub fn report(&self) -> &OpenReport {
        &self.shared.report
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// The stream's identity.
    pub fn stream(&self) -> StreamId {
        self.shared.stream
    }

    /// This node's identity.
    pub fn node(&self) -> NodeId {
        self.shared.node
    }

    /// The log's geometry.
    pub fn geometry(&self) -> Geometry {
        self.shared.geometry
    }

    /// Most bytes that its files may take.
    pub fn budget_bytes(&self) -> u64 {
        self.shared.options.budget_bytes
    }

    /// The watermarks.
    pub fn board(&self) -> &Arc<Board> {
        &self.shared.board
    }

    /// The lowest position that is still kept: the horizon.
    pub fn start(&self) -> Lsn {
        self.control().facts.start.lsn
    }

    /// The tip in front of the first entry that is still kept.
    pub fn start_tip(&self) -> Tip {
        self.control().facts.start
    }

    /// What this node is for the stream.
    pub fn role(&self) -> Role {
        self.control().facts.role
    }

    /// Changes the role; synced when it returns. It is somebody's word: a rebuilt control file is believed from now on.
    pub fn set_role(&self, role: Role) -> Result<()> {
        self.change(|facts| {
            facts.role = role;
            facts.rebuilt = false;
        })
    }

    /// The control file was made anew from the log ([`crate::Rebuild`]), and nobody has vouched since for what the log
    /// can't say: whether this node had seen a higher term, and whether it had acknowledged more than is here.
    pub fn is_rebuilt(&self) -> bool {
        self.control().facts.rebuilt
    }

    /// A primary whose log this one has reached vouches for it; synced when it returns.
    pub fn vouched(&self) -> Result<()> {
        self.change(|facts| facts.rebuilt = false)
    }

    /// The highest term seen; synced before anybody is told.
    pub fn term_seen(&self) -> TermSeen {
        self.control().facts.term_seen
    }

    /// Records a term if it is higher than the one seen; synced when it returns.
    pub fn see_term(&self, term: TermSeen) -> Result<()> {
        self.change(|facts| {
            if term.term > facts.term_seen.term {
                facts.term_seen = term;
            }
        })
    }

    /// A higher term exists: records it and the role `Fenced`, and ends every wait. Nothing is acknowledged from the
    /// first moment of this call on, even if recording fails.
    pub fn fence(&self, by: TermSeen) -> Result<()> {
        self.end(End::Fenced(by.term));
        self.change(|facts| {
            if by.term > facts.term_seen.term {
                facts.term_seen = by;
            }
            facts.role = Role::Fenced;
        })
    }

    /// Every epoch of the log, oldest first.
    pub fn history(&self) -> History {
        let mut history = self.control().facts.history.clone();
        history.cut(self.board().staged());
        history
    }

    /// How far the log is known to be durable by this node's own syncs.
    pub fn evidence(&self) -> Lsn {
        self.control().evidence.durable
    }

    /// Remembers what a peer acknowledged as durable: `chain` is this log's chain at `lsn`. Survives `kill -9` at once
    /// and a power cut with the next sync of the evidence.
    pub fn remember_peer(&self, node: NodeId, lsn: Lsn, chain: Chain) -> Result<()> {
        self.checked(self.control().note(|evidence| evidence.remember(node, lsn, chain)))
    }

    /// What is remembered of that peer.
    pub fn peer_remembered(&self, node: NodeId) -> Option<(Lsn, Chain)> {
        let control = self.control();
        control.evidence.peers.iter().find(|(known, _, _)| *known == node).map(|&(_, lsn, chain)| (lsn, chain))
    }

    /// The commit point known here: own promise on a primary, announced on a receiver.
    pub fn committed(&self) -> Lsn {
        self.control().evidence.committed.max(self.board().committed())
    }

    /// A receiver learns the primary's commit point. Bounded by what is durable here; never goes down.
    pub fn learn_committed(&self, committed: Lsn) -> Result<()> {
        let bound = committed.min(self.board().durable());
        self.checked(self.control().note(|evidence| evidence.committed = evidence.committed.max(bound)))
    }

    /// The replica needs no replay below this.
    pub fn checkpoint(&self) -> Lsn {
        self.control().facts.checkpoint
    }

    /// Records how far the replica is synced; synced when it returns.
    pub fn set_checkpoint(&self, lsn: Lsn) -> Result<()> {
        self.change(|facts| facts.checkpoint = lsn)
    }

    /// Ends the stream on this node: every wait that isn't reached fails, every later append too.
    pub fn end(&self, end: End) {
        self.shared.board.end(end);
    }

    /// An error once nothing is acknowledged any more.
    pub(crate) fn check_end(&self) -> Result<()> {
        match self.board().end_reached() {
            None => Ok(()),
            Some(End::Fenced(by)) => Err(Error::Fenced { by: *by }),
            Some(End::Failed(why)) => Err(Error::Ended { why: why.clone() }),
            Some(End::Closed) => Err(Error::Closed),
        }
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Facts)) -> Result<()> {
        let changed = self.control().change(change);
        self.checked(changed)
    }

    /// Passes a result on; a failed sync ends the stream first.
    pub(crate) fn checked<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error @ Error::Poisoned { .. }) = &result {
            tracing::error!(%error, "a sync failed: nothing more is acknowledged");
            self.end(End::Failed(error.to_string()));
        }
        result
    }

    pub(crate) fn syncing(&self) -> MutexGuard<'_, Durable> {
        self.whole(self.shared.syncing.lock())
    }

    pub(crate) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.whole(self.shared.writer.lock())
    }

    pub(crate) fn staging(&self) -> MutexGuard<'_, Staging> {
        self.whole(self.shared.staging.lock())
    }

    pub(crate) fn space(&self) -> MutexGuard<'_, Space> {
        self.whole(self.shared.space.lock())
    }

    pub(crate) fn control(&self) -> MutexGuard<'_, Control> {
        self.whole(self.shared.control.lock())
    }

    pub(crate) fn segments(&self) -> RwLockReadGuard<'_, Vec<Arc<Segment>>> {
        self.whole(self.shared.segments.read())
    }

    pub(crate) fn segments_mut(&self) -> RwLockWriteGuard<'_, Vec<Arc<Segment>>> {
        self.whole(self.shared.segments.write())
    }

    /// What a lock guards. A thread that panicked under it may have left it half changed: nothing is acknowledged after.
    pub(crate) fn whole<G>(&self, locked: LockResult<G>) -> G {
        locked.unwrap_or_else(|poisoned| {
            if self.board().end_reached().is_none() {
                self.end(End::Failed(PANICKED.to_owned()));
            }
            poisoned.into_inner()
        })
    }

    /// The segment that holds position `at`.
    pub(crate) fn segment_at(&self, at: Lsn) -> Option<Arc<Segment>> {
        let first = self.shared.geometry.segment_of(at);
        let segments = self.segments();
        let index = segments.binary_search_by_key(&first, |segment| segment.first()).ok()?;
        segments.get(index).map(Arc::clone)
    }
}
