//! A machine for tests: memory to put files on, a disk that forgets, and a clock that a test sets.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use journal::testing::SimDisk;
use journal::{Clock, Geometry, Host, Options, Time};

/// Shared memory when there is some: these tests make thousands of small files.
pub(crate) fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// A clock that goes on by a millisecond whenever it is asked, and can be set.
#[derive(Clone, Debug)]
pub(crate) struct TestClock(Arc<AtomicU64>);

/// Whole seconds, so that they are easy to find in a dump.
const BEGAN: u64 = 1_800_000_000_000_000_000;
const TICK: u64 = 1_000_000;

impl Default for TestClock {
    fn default() -> TestClock {
        TestClock(Arc::new(AtomicU64::new(BEGAN)))
    }
}

impl TestClock {
    pub(crate) fn step_back(&self, nanos: u64) {
        self.0.fetch_sub(nanos, Ordering::Relaxed);
    }

    pub(crate) fn step_on(&self, nanos: u64) {
        self.0.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Time {
        Time::from_nanos(self.0.fetch_add(TICK, Ordering::Relaxed))
    }
}

/// The smallest geometry, on this disk and with this clock.
pub(crate) fn options(disk: &SimDisk, clock: &TestClock) -> Options {
    let host = Host { storage: Arc::new(disk.clone()), clock: Arc::new(clock.clone()), ..Host::default() };
    Options { geometry: Geometry::new(64 << 10).unwrap(), host, ..Options::default() }
}
