//! The flush thread: it syncs for those who have no thread to spare (tasks, receivers) and for tails that nobody waits
//! for, and makes the next segment. Blocking waiters don't need it: they sync for themselves, and where there is no flush
//! thread each that has synced makes a piece of the next segment.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use crate::board::Board;
use crate::error::{Error, Result};
use crate::level::End;
use crate::log::{Journal, PANICKED, Shared};
use crate::lsn::Lsn;
use crate::sync::{now, thread};

/// A tail that nobody waits for is durable at the latest after about twice this.
const IDLE: Duration = Duration::from_millis(100);

impl Journal {
    /// Starts the flush thread; one is enough, a second call does nothing. It ends with [`Journal::close`], with the end of
    /// the stream, or soon after the last handle of the journal is gone: it keeps nothing open.
    pub fn spawn_flusher(&self) -> Result<()> {
        let mut flusher = self.shared.flusher.lock().unwrap_or_else(PoisonError::into_inner);
        let runs = flusher.as_ref().is_some_and(|thread| !thread.is_finished());
        // behind the end there is nothing to flush, and a waiter is told so without it
        if runs || self.board().ended().is_some() {
            return Ok(());
        }
        let (shared, board) = (Arc::downgrade(&self.shared), Arc::clone(self.board()));
        let thread =
            thread::Builder::new().name("towline-flush".into()).spawn(move || flush_until_end(&shared, &board));
        *flusher = Some(thread.map_err(Error::io("start the flush thread for", self.dir()))?);
        Ok(())
    }

    /// Whoever waits for the disk anyway makes a piece of the next segment, so that no append has to make all of it.
    pub(crate) fn prepare_without_flusher(&self) {
        if self.shared.flusher.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            self.prepare_now();
        }
    }

    /// A piece of the next segment; how long to pause before the next one. A full disk is the appender's error, when it
    /// really needs the space.
    fn prepare_now(&self) -> Option<Duration> {
        self.prepare().unwrap_or_else(|error| {
            tracing::debug!(%error, "prepare the next segment");
            None
        })
    }

    /// A look around: syncs what a task or a receiver waits for, or a tail that has been there since the last look.
    fn flush(&self, demanded: bool, staged_then: Lsn) -> Result<()> {
        // what is wanted may lie ahead of the log, or be what a cut took away
        let wanted = self.board().sync_wanted().min(self.board().staged()) > self.board().durable();
        let idle = !demanded && staged_then > self.board().durable();
        if wanted || idle {
            return self.sync().map(drop);
        }
        if demanded {
            return Ok(());
        }
        let kept = self.control().sync_evidence_sometimes();
        self.checked(kept)
    }
}

/// Ends the stream when the flush thread panics: those who leave the syncing to it would wait for ever.
struct Alarm<'a>(&'a Board);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.end(End::Failed(PANICKED.to_owned()));
        }
    }
}

fn flush_until_end(shared: &Weak<Shared>, board: &Board) {
    let _alarm = Alarm(board);
    let journal = || shared.upgrade().map(|shared| Journal { shared });
    let mut watch = board.watch_demand();
    let mut looked = now();
    let mut staged_then = board.staged();
    while board.ended().is_none() {
        let Some(pause) = journal().map(|journal| journal.prepare_now()) else { return };
        let demanded = watch.wait(pause.unwrap_or(IDLE));
        if !demanded && now() - looked < IDLE {
            continue; // only the pause between two pieces
        }
        let Some(flushed) = journal().map(|journal| journal.flush(demanded, staged_then)) else { return };
        if let Err(error) = flushed
            && board.ended().is_none()
        {
            // no space: what is staged stays staged and is tried again
            tracing::warn!(%error, "flush");
            board.hand_to_thread();
            thread::sleep(IDLE);
        }
        (looked, staged_then) = (now(), board.staged());
    }
}
