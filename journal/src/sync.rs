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
}

#[cfg(feature = "shuttle")]
mod scheduled {
    pub(crate) use shuttle::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic};

    /// As `std::thread`, as far as the journal needs it.
    pub(crate) mod thread {
        use std::io;
        use std::sync::Arc;
        use std::sync::atomic::{AtomicBool, Ordering};

        pub(crate) use shuttle::thread::{Thread, current, park, park_timeout, sleep};

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
