//! A timer for loops that compute anew, at every turn, when they are due.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::{Sleep, sleep_until};

/// Rings at the latest when it was last set to, and may ring earlier: it is moved only when it has to ring earlier than
/// before, because a loop under load would move it at every message. Whoever is rung looks at the clock and sets it anew.
/// Needs a runtime with a clock.
#[derive(Debug)]
pub struct Alarm {
    sleep: Pin<Box<Sleep>>,
    set: bool,
}

impl Default for Alarm {
    fn default() -> Alarm {
        Alarm::new()
    }
}

impl Alarm {
    /// One that doesn't ring.
    pub fn new() -> Alarm {
        Alarm { sleep: Box::pin(sleep_until(tokio::time::Instant::now())), set: false }
    }

    /// Rings at `due`, or not at all.
    pub fn set(&mut self, due: Option<Instant>) {
        if let Some(due) = due.map(tokio::time::Instant::from_std)
            && (!self.set || due < self.sleep.deadline() || self.sleep.is_elapsed())
        {
            self.sleep.as_mut().reset(due);
        }
        self.set = due.is_some();
    }

    /// Ready when it rings. Cancel-safe.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.set {
            return Poll::Pending;
        }
        self.sleep.as_mut().poll(cx)
    }
}
