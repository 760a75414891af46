//! Waiting for any change of the board.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{Board, Interest, Watcher};
use crate::sync::now;
use crate::sync::thread::{self, Thread};

/// Sees that something on the board changed. Never misses a change; several may be seen as one.
#[derive(Debug)]
pub struct Watch<'a> {
    pub(super) board: &'a Board,
    pub(super) id: u64,
    pub(super) interest: Interest,
    pub(super) seen: u64,
}

impl Watch<'_> {
    /// Ready when something changed since the last time this was ready. Cancel-safe.
    pub fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.board.lock();
        let now = self.board.seen(self.interest);
        if now != self.seen {
            self.seen = now;
            return Poll::Ready(());
        }
        inner.watchers.retain(|watcher| watcher.id != self.id);
        inner.watchers.push(Watcher { id: self.id, interest: self.interest, waker: cx.waker().clone() });
        Poll::Pending
    }

    /// Waits for a change. Cancel-safe.
    pub async fn changed(&mut self) {
        std::future::poll_fn(|cx| self.poll_changed(cx)).await;
    }

    /// Blocks until something changes or `timeout` is over; `true` for a change.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        let waker = Waker::from(std::sync::Arc::new(Unpark(thread::current())));
        let deadline = now().checked_add(timeout);
        loop {
            if self.poll_changed(&mut Context::from_waker(&waker)).is_ready() {
                return true;
            }
            let Some(deadline) = deadline else {
                thread::park();
                continue;
            };
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() {
                return false;
            }
            thread::park_timeout(left);
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.board.lock().watchers.retain(|watcher| watcher.id != self.id);
    }
}

struct Unpark(Thread);

impl std::task::Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
}
