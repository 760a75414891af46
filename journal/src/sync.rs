//! Locks, atomics, threads and the time that waits are measured in: `std`, or a scheduler of the tests.
//!
//! With feature `shuttle` every lock, atomic and park is a place where the scheduler may go on with another thread, so
//! that a test walks through interleavings and repeats one by its schedule (tests/interleavings). Outside of that
//! scheduler such a build can't run at all, so no crate switches the feature on but that test.

#[cfg(not(feature = "shuttle"))]
pub(crate) use self::real::*;
#[cfg(feature = "shuttle")]
pub(crate) use self::scheduled::*;

#[cfg(not(feature = "shuttle"))]
mod real {
    pub(crate) use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic};
    pub(crate) use std::thread;
    use std::time::Instant;

    pub(crate) fn now() -> Instant {
        Instant::now()
    }
}

#[cfg(feature = "shuttle")]
mod scheduled {
    use std::cell::Cell;
    use std::sync::LazyLock;
    use std::time::{Duration, Instant};

    pub(crate) use shuttle::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic};

    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

    // one a scheduler: it runs all of its threads on one
    thread_local! {
        static PASSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
        static PASSES: Cell<bool> = const { Cell::new(false) };
    }

    pub(crate) fn now() -> Instant {
        *BEGAN + PASSED.get()
    }

    pub(crate) fn let_time_pass(passes: bool) {
        PASSES.set(passes);
    }

    /// As `std::thread`, as far as the journal needs it.
    pub(crate) mod thread {
        use std::io;
        use std::sync::atomic::{AtomicBool, Ordering};
        use std::sync::{Arc, PoisonError};
        use std::time::Duration;

        use shuttle::rand::Rng;
        use shuttle::sync::{Condvar, Mutex};
        pub(crate) use shuttle::thread::sleep;
        pub(crate) use std::thread::panicking;

        use super::{PASSED, PASSES};

        /// A park of the scheduler's own may end for no reason at any time, which would hide a lost unpark.
        #[derive(Clone, Debug)]
        pub(crate) struct Thread(Arc<Token>);

        #[derive(Debug, Default)]
        struct Token {
            given: Mutex<bool>,
            changed: Condvar,
        }

        shuttle::thread_local! {
            static CURRENT: Thread = Thread(Arc::default());
        }

        pub(crate) fn current() -> Thread {
            CURRENT.with(Thread::clone)
        }

        impl Thread {
            pub(crate) fn unpark(&self) {
                *self.0.given.lock().unwrap_or_else(PoisonError::into_inner) = true;
                self.0.changed.notify_one();
            }
        }

        pub(crate) fn park() {
            let Thread(token) = current();
            let given = token.given.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = token.changed.wait_while(given, |given| !*given);
            *waited.unwrap_or_else(PoisonError::into_inner) = false;
        }

        /// Where time passes it is over at some look, and the looks before are wake-ups for no reason; where it stands
        /// still only an unpark ends it, so that a lost one is found.
        pub(crate) fn park_timeout(timeout: Duration) {
            if !PASSES.get() {
                return park();
            }
            shuttle::thread::yield_now();
            if shuttle::rand::thread_rng().gen_bool(0.5) {
                PASSED.set(PASSED.get() + timeout);
            }
        }

        #[derive(Debug)]
        pub(crate) struct Builder(shuttle::thread::Builder);

        /// A thread that can also be asked whether it is finished.
        #[derive(Debug)]
        pub(crate) struct JoinHandle<T> {
            handle: shuttle::thread::JoinHandle<T>,
            finished: Arc<AtomicBool>,
        }

        impl Builder {
            pub(crate) fn new() -> Builder {
                Builder(shuttle::thread::Builder::new())
            }

            pub(crate) fn name(self, name: String) -> Builder {
                Builder(self.0.name(name))
            }

            pub(crate) fn spawn<T: Send + 'static>(
                self,
                run: impl FnOnce() -> T + Send + 'static,
            ) -> io::Result<JoinHandle<T>> {
                let finished = Arc::new(AtomicBool::new(false));
                let done = Arc::clone(&finished);
                let handle = self.0.spawn(move || {
                    let value = run();
                    done.store(true, Ordering::Release);
                    value
                })?;
                Ok(JoinHandle { handle, finished })
            }
        }

        impl<T> JoinHandle<T> {
            pub(crate) fn is_finished(&self) -> bool {
                self.finished.load(Ordering::Acquire)
            }

            pub(crate) fn join(self) -> std::thread::Result<T> {
                self.handle.join()
            }
        }
    }
}
