//! The replica of a stream: the one replay loop, on a thread of its own.
//!
//! ```text
//!  apply_to(min(announced committed, own durable)) --> thread: Replay -> Records -> applied, checkpoint
//! ```
//! A replica that fails stops there and says why; the log goes on being received. Nothing is applied twice or out of
//! order: after a restart the record file stands at its own checkpoint and the journal delivers the rest again.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use journal::{Entry, Journal, Lsn, Machine, Replay, Source, Until};
use volume::records::{Identity, Records};

use crate::error::{Error, Result};

/// A replica that was written to is synced at the latest after this: a power cut costs at most so much replay.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);
/// … and after so many bytes of log.
const CHECKPOINT_BYTES: u64 = 256 << 20;
/// … or a part of the log's budget.
const CHECKPOINTS_PER_BUDGET: u64 = 8;
/// After a failure that may pass (no space), it tries again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The only volume of a stream in this version.
const VOLUME: u16 = 0;

/// A replica that follows its journal.
pub(crate) struct Replica {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("applied", &self.applied()).finish_non_exhaustive()
    }
}

/// Told (applied, checkpoint) when one of them moved.
type Progress = Box<dyn Fn(Lsn, Lsn) + Send + Sync>;

struct Shared {
    progress: OnceLock<Progress>,
    bound: Mutex<Bound>,
    moved: Condvar,
    applied: AtomicU64,
    checkpoint: AtomicU64,
    trouble: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct Bound {
    to: Lsn,
    stop: bool,
}

impl Replica {
    /// Opens the record file in `folder` (or makes it) and starts the thread. It applies what was known to be committed
    /// and durable at once, and further when [`Replica::apply_to`] says so.
    pub(crate) fn start(journal: &Journal, folder: &Path) -> Result<Replica> {
        let identity = Identity { stream: journal.stream(), volume: VOLUME };
        let records = Records::open(folder, identity, journal.checkpoint())?;
        if records.applied() < journal.checkpoint() {
            tracing::warn!(folder = %folder.display(), "the record file is gone: it is built again from the journal");
            journal.set_checkpoint(records.applied())?;
        }
        let to = journal.committed().min(journal.board().durable());
        let shared = Arc::new(Shared {
            progress: OnceLock::new(),
            bound: Mutex::new(Bound { to, stop: false }),
            moved: Condvar::new(),
            applied: AtomicU64::new(records.applied().get()),
            checkpoint: AtomicU64::new(records.applied().get()),
            trouble: Mutex::default(),
        });
        let worker = Worker { journal: journal.clone(), records, source: None, shared: shared.clone() };
        let thread = thread::Builder::new().name("replica".into()).spawn(move || worker.run());
        let thread = thread.map_err(Error::io("start a thread for", folder))?;
        Ok(Replica { shared, thread: Mutex::new(Some(thread)) })
    }

    /// The replica may show everything below `to`: min(announced committed, own durable). Never goes down.
    pub(crate) fn apply_to(&self, to: Lsn) {
        let mut bound = self.shared.bound();
        if to > bound.to {
            bound.to = to;
            self.shared.moved.notify_all();
        }
    }

    /// Calls `progress` on the replica's thread whenever applied or checkpoint moved. Only the first call counts.
    pub(crate) fn on_progress(&self, progress: impl Fn(Lsn, Lsn) + Send + Sync + 'static) {
        progress(self.applied(), self.checkpoint());
        let _ = self.shared.progress.set(Box::new(progress));
    }

    /// Visible in the record file.
    pub(crate) fn applied(&self) -> Lsn {
        Lsn::new(self.shared.applied.load(Ordering::Acquire))
    }

    /// Synced in the record file.
    pub(crate) fn checkpoint(&self) -> Lsn {
        Lsn::new(self.shared.checkpoint.load(Ordering::Acquire))
    }

    /// Why it doesn't go on; `None` while it does.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.shared.trouble().clone()
    }

    /// Ends the thread after what it is doing and a last checkpoint. Blocking.
    pub(crate) fn stop(&self) {
        self.shared.bound().stop = true;
        self.shared.moved.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of a replica panicked");
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn bound(&self) -> MutexGuard<'_, Bound> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Worker {
    journal: Journal,
    records: Records,
    /// Stands where the records do; `None` before the first run and after a failure.
    source: Option<Bounded>,
    shared: Arc<Shared>,
}

impl Worker {
    fn run(mut self) {
        let mut checkpointed = Instant::now();
        loop {
            let (to, stop) = self.next(checkpointed);
            let applied = self.apply(to);
            // the log is kept from the checkpoint on: a small budget has no room for much of it
            let bytes = CHECKPOINT_BYTES.min(self.journal.budget_bytes() / CHECKPOINTS_PER_BUDGET);
            let due = checkpointed.elapsed() >= CHECKPOINT_EVERY || self.behind_checkpoint() >= bytes;
            let kept = if stop || due { self.checkpoint() } else { Ok(()) };
            if due {
                checkpointed = Instant::now();
            }
            if let Some(progress) = self.shared.progress.get() {
                progress(self.records.applied(), Lsn::new(self.shared.checkpoint.load(Ordering::Acquire)));
            }
            let trouble = applied.and(kept).err();
            if let Some(trouble) = &trouble
                && self.shared.trouble().as_ref() != Some(trouble)
            {
                tracing::error!(%trouble, "the replica stands still; the log goes on being received");
            }
            let failed = trouble.is_some();
            *self.shared.trouble() = trouble;
            if stop {
                return;
            }
            if failed {
                // a second look at a full disk costs nothing; at a damaged file it says the same again
                let bound = self.shared.bound();
                let waited = self.shared.moved.wait_timeout_while(bound, RETRY_AFTER, |bound| !bound.stop);
                drop(waited);
            }
        }
    }

    /// Blocks until there is something to apply, to checkpoint, or until the end.
    fn next(&self, checkpointed: Instant) -> (Lsn, bool) {
        let applied = self.records.applied();
        let mut bound = self.shared.bound();
        while bound.to <= applied && !bound.stop {
            if self.behind_checkpoint() == 0 {
                bound = self.shared.moved.wait(bound).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let left = CHECKPOINT_EVERY.saturating_sub(checkpointed.elapsed());
            if left.is_zero() {
                break;
            }
            bound = self.shared.moved.wait_timeout(bound, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        (bound.to, bound.stop)
    }

    fn apply(&mut self, to: Lsn) -> Result<(), String> {
        let applied = self.records.applied();
        if to <= applied {
            return Ok(());
        }
        let mut source = match self.source.take() {
            Some(source) => Bounded { to, ..source },
            None => Bounded { entries: self.journal.entries(applied).map_err(|error| error.to_string())?, to },
        };
        let replayed = Replay::new(&mut source, VOLUME).run(&mut self.records, Until::lsn(to));
        self.shared.applied.store(self.records.applied().get(), Ordering::Release);
        replayed.map_err(|error| error.to_string())?;
        self.source = Some(source);
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), String> {
        if self.behind_checkpoint() == 0 {
            return Ok(());
        }
        let safe = self.records.checkpoint().map_err(|error| error.to_string())?;
        self.journal.set_checkpoint(safe).map_err(|error| error.to_string())?;
        self.shared.checkpoint.store(safe.get(), Ordering::Release);
        Ok(())
    }

    fn behind_checkpoint(&self) -> u64 {
        let checkpoint = Lsn::new(self.shared.checkpoint.load(Ordering::Acquire));
        self.records.applied().bytes_since(checkpoint)
    }
}

/// Entries up to a bound. What lies above may still be cut and replaced: a replay must not even remember it.
#[derive(Debug)]
struct Bounded {
    entries: journal::Entries,
    to: Lsn,
}

impl Source for Bounded {
    type Error = journal::Error;

    fn next_entry(&mut self) -> Result<Option<Entry<'_>>, journal::Error> {
        if self.entries.tip().lsn >= self.to {
            return Ok(None);
        }
        self.entries.next_entry()
    }
}

#[cfg(test)]
mod tests {
    use journal::{Item, NodeId, Options, Reason, Role, RunOpening, StreamId};
    use volume::records::RecordFile;

    use super::*;

    fn journal(dir: &Path) -> Journal {
        let journal = Journal::create(dir, StreamId::random(), NodeId::random(), Role::Receiver, Options::default());
        let journal = journal.expect("a journal");
        open_run(&journal);
        journal
    }

    fn open_run(journal: &Journal) {
        let opening = RunOpening { promote: None, reason: Reason::Started, policy: Vec::new() };
        journal.open_run(opening).expect("a run");
    }

    fn append(journal: &Journal, payload: &str) -> Lsn {
        journal.append(Item::record(&[payload.as_bytes()])).expect("appended");
        journal.sync().expect("synced").lsn()
    }

    fn wait_applied(replica: &Replica, lsn: Lsn) {
        while replica.applied() < lsn {
            assert_eq!(replica.trouble(), None);
            thread::yield_now();
        }
    }

    fn payloads(folder: &Path) -> Vec<String> {
        let file = RecordFile::open(folder).expect("a record file");
        let mut walk = file.walk(Lsn::ZERO).expect("a walk");
        let mut payloads = Vec::new();
        while let Some(record) = walk.next_record().expect("a record") {
            payloads.push(String::from_utf8_lossy(record.payload).into_owned());
        }
        payloads
    }

    #[test]
    fn it_shows_what_it_is_allowed_to_and_no_more() {
        let dir = tempfile::tempdir().expect("a folder");
        let (log, records) = (dir.path().join("journal"), dir.path().join("records"));
        let journal = journal(&log);
        let first = append(&journal, "one");
        append(&journal, "two");
        let replica = Replica::start(&journal, &records).expect("a replica");
        replica.apply_to(first);
        wait_applied(&replica, first);
        replica.apply_to(Lsn::ZERO);
        assert_eq!((replica.applied(), payloads(&records)), (first, vec!["one".to_owned()]));
        replica.stop();
        assert_eq!((replica.checkpoint(), journal.checkpoint()), (first, first));
    }

    /// The operator removed a damaged replica, as its error says: it comes back whole.
    #[test]
    fn a_removed_replica_is_built_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let (log, records) = (dir.path().join("journal"), dir.path().join("records"));
        let journal = journal(&log);
        let end = append(&journal, "one");
        let replica = Replica::start(&journal, &records).expect("a replica");
        replica.apply_to(end);
        wait_applied(&replica, end);
        replica.stop();
        assert_eq!(journal.checkpoint(), end);
        std::fs::remove_dir_all(&records).expect("removed");
        let replica = Replica::start(&journal, &records).expect("a replica");
        replica.apply_to(end);
        wait_applied(&replica, end);
        replica.stop();
        assert_eq!((payloads(&records), journal.checkpoint()), (vec!["one".to_owned()], end));
    }

    /// The log above the bound may be cut and replaced. A replay that had read on would apply what is gone.
    #[test]
    fn what_is_cut_above_the_bound_is_never_applied() {
        let dir = tempfile::tempdir().expect("a folder");
        let (log, records) = (dir.path().join("journal"), dir.path().join("records"));
        let journal = journal(&log);
        let kept = append(&journal, "kept");
        append(&journal, "cut");
        let replica = Replica::start(&journal, &records).expect("a replica");
        replica.apply_to(kept);
        wait_applied(&replica, kept);
        journal.cut(kept).expect("cut");
        open_run(&journal);
        let end = append(&journal, "new");
        replica.apply_to(end);
        wait_applied(&replica, end);
        assert_eq!(payloads(&records), ["kept", "new"]);
    }

    #[test]
    fn a_restart_goes_on_where_it_stopped() {
        let dir = tempfile::tempdir().expect("a folder");
        let (log, records) = (dir.path().join("journal"), dir.path().join("records"));
        let journal = journal(&log);
        let mut end = Lsn::ZERO;
        for round in 0..3 {
            let replica = Replica::start(&journal, &records).expect("a replica");
            end = append(&journal, &format!("round {round}"));
            replica.apply_to(end);
            wait_applied(&replica, end);
        }
        assert_eq!(journal.checkpoint(), end);
        assert_eq!(payloads(&records), ["round 0", "round 1", "round 2"]);
    }
}
