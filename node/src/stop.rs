//! The one signal that ends a node.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Told once, seen by everybody: threads that poll a descriptor, threads that wait, and threads that look now and then.
#[derive(Clone, Debug)]
pub struct Stop {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    told: Condvar,
    /// Reads the end of the stream once the node is stopping.
    ended: UnixStream,
}

#[derive(Debug)]
struct State {
    deadline: Option<Instant>,
    why: Option<String>,
    /// Dropping it is what wakes the pollers.
    open: Option<UnixStream>,
}

impl Stop {
    /// A signal nobody has given yet.
    pub fn new() -> std::io::Result<Stop> {
        let (ended, open) = UnixStream::pair()?;
        let state = Mutex::new(State { deadline: None, why: None, open: Some(open) });
        Ok(Stop { shared: Arc::new(Shared { state, told: Condvar::new(), ended }) })
    }

    /// Tells everybody to end. What is under way may take up to `drain` from now. Only the first call counts.
    pub fn begin(&self, why: &str, drain: Duration) {
        let mut state = self.state();
        if state.deadline.is_none() {
            state.deadline = Some(Instant::now() + drain);
            state.why = Some(why.to_owned());
            state.open = None;
            self.shared.told.notify_all();
        }
    }

    /// Since when it must be over; `None` while nobody has called [`Stop::begin`].
    pub fn deadline(&self) -> Option<Instant> {
        self.state().deadline
    }

    /// Why it ends.
    pub fn why(&self) -> Option<String> {
        self.state().why.clone()
    }

    /// Blocks until somebody calls [`Stop::begin`], or until the timeout. True when the node is to end.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        let state = self.state();
        let state = match timeout {
            None => self.shared.told.wait_while(state, |state| state.deadline.is_none()),
            Some(timeout) => self
                .shared
                .told
                .wait_timeout_while(state, timeout, |state| state.deadline.is_none())
                .map(|(state, _)| state)
                .map_err(|poisoned| PoisonError::new(poisoned.into_inner().0)),
        };
        state.unwrap_or_else(PoisonError::into_inner).deadline.is_some()
    }

    /// Blocks until somebody calls [`Stop::begin`], by way of the descriptor: for a thread of an async runtime that
    /// waits in a blocking call.
    pub fn wait_descriptor(&self) {
        let mut ended = &self.shared.ended;
        let mut byte = [0];
        // an end of stream, or an error that says the same
        while matches!(ended.read(&mut byte), Ok(1..)) {}
    }

    /// Readable (at its end) once the node is to end.
    pub(crate) fn descriptor(&self) -> &UnixStream {
        &self.shared.ended
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // the state is whole at every moment: a panic elsewhere doesn't spoil it
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_sees_the_first_call() {
        let stop = Stop::new().expect("a signal");
        assert!(!stop.wait(Some(Duration::ZERO)));
        let waiter = std::thread::spawn({
            let stop = stop.clone();
            move || stop.wait(None)
        });
        let reader = std::thread::spawn({
            let stop = stop.clone();
            move || stop.wait_descriptor()
        });
        stop.begin("told to", Duration::from_secs(10));
        stop.begin("again", Duration::from_secs(99));
        assert!(waiter.join().expect("no panic"));
        reader.join().expect("no panic");
        assert_eq!(stop.why().as_deref(), Some("told to"));
        assert!(stop.deadline().expect("told") <= Instant::now() + Duration::from_secs(10));
    }
}
