//! The flush thread: it syncs for those who have no thread to spare (tasks, receivers), and for tails that nobody waits
//! for. Blocking waiters don't need it: they sync for themselves.

use std::sync::PoisonError;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::log::Journal;
use crate::sync::{now, thread};

/// A tail that nobody waits for is durable at the latest after about twice this.
const IDLE: Duration = Duration::from_millis(100);

impl Journal {
    /// Starts the flush thread; one is enough, a second call does nothing. It ends with [`Journal::close`] or with the
    /// end of the stream, and then lets go of the journal.
    pub fn spawn_flusher(&self) -> Result<()> {
        let mut flusher = self.shared.flusher.lock().unwrap_or_else(PoisonError::into_inner);
        if flusher.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return Ok(());
        }
        let journal = self.clone();
        let thread = thread::Builder::new().name("towline-flush".into()).spawn(move || journal.flush_until_end());
        *flusher = Some(thread.map_err(Error::io("start the flush thread for", self.dir()))?);
        Ok(())
    }

    fn flush_until_end(&self) {
        let mut watch = self.board().watch_demand();
        let mut looked = now();
        let mut before = self.board().staged();
        while self.board().ended().is_none() {
            // a full disk is the appender's error, when it really needs the space
            let pause = self.prepare().unwrap_or_else(|error| {
                tracing::debug!(%error, "prepare the next segment");
                None
            });
            let demanded = watch.wait(pause.unwrap_or(IDLE));
            if !demanded && now() - looked < IDLE {
                continue; // only the pause between two pieces
            }
            let wanted = self.board().sync_wanted() > self.board().durable();
            let idle = !demanded && before > self.board().durable();
            let synced = if wanted || idle {
                self.sync().map(|_| ())
            } else if demanded {
                Ok(())
            } else {
                let kept = self.control().sync_evidence_sometimes();
                self.checked(kept)
            };
            if let Err(error) = synced
                && self.board().ended().is_none()
            {
                // no space: what is staged stays staged and is tried again
                tracing::warn!(%error, "flush");
                thread::sleep(IDLE);
            }
            (looked, before) = (now(), self.board().staged());
        }
    }
}
