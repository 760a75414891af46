//! Signs of life, from a thread that no sync, read or write of a log ever blocks.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wire::{Alive, Message};

use crate::feed::Feed;

/// How often each connection is told that this node lives.
pub const ALIVE_EVERY: Duration = Duration::from_millis(500);

/// The thread and the connections it speaks on.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Debug, Default)]
struct State {
    feeds: Vec<Weak<Feed>>,
    stop: bool,
}

impl Heartbeat {
    pub(crate) fn start() -> io::Result<Heartbeat> {
        let shared = Arc::new(Shared::default());
        let thread = thread::Builder::new().name("towline-alive".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.beat()
        })?;
        Ok(Heartbeat { shared, thread: Some(thread) })
    }

    /// Speaks on this connection from now on, until it is gone.
    pub(crate) fn add(&self, feed: &Arc<Feed>) {
        let mut state = self.shared.lock();
        state.feeds.retain(|feed| feed.strong_count() > 0);
        state.feeds.push(Arc::downgrade(feed));
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.stopped.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the signs of life panicked");
        }
    }
}

impl Shared {
    fn beat(&self) {
        let mut state = self.lock();
        while !state.stop {
            let feeds: Vec<Arc<Feed>> = state.feeds.iter().filter_map(Weak::upgrade).collect();
            drop(state);
            for feed in feeds {
                if feed.outlet.has_greeted() {
                    feed.outlet.send(&Message::Alive(feed.alive()));
                }
            }
            state = self.lock();
            let waited = self.stopped.wait_timeout_while(state, ALIVE_EVERY, |state| !state.stop);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feed {
    fn alive(&self) -> Alive {
        let running = self.stream.journal().board().sync_running().unwrap_or_default();
        let sync_ms = u32::try_from(running.as_millis()).unwrap_or(u32::MAX);
        Alive { sync_ms, full: self.stream.is_full() }
    }
}
