//! The least group commit: whoever finds nobody at it takes the open group, makes it safe, and wakes everyone.

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::table::{Sample, latencies};

/// What makes a group safe.
pub(crate) trait Commit: Send {
    /// Returns when these bytes keep the promise. Called by one thread at a time, in order.
    fn commit(&mut self, bytes: &[u8]);
}

struct Open {
    group: Vec<u8>,
    staged: u64,
    safe: u64,
    leading: bool,
}

/// `writers` threads, each waiting for its own operation, for `time`.
pub(crate) fn run(commit: impl Commit, writers: usize, operation: &[u8], time: Duration) -> Sample {
    let open = Mutex::new(Open { group: Vec::new(), staged: 0, safe: 0, leading: false });
    let commit = Mutex::new((commit, Vec::new()));
    let woken = Condvar::new();
    let begun = Instant::now();
    let write_one = || {
        let mut state = open.lock().expect("lock");
        state.group.extend_from_slice(operation);
        state.staged += 1;
        let own = state.staged;
        while state.safe < own {
            if state.leading {
                state = woken.wait(state).expect("lock");
                continue;
            }
            state.leading = true;
            let mut commit = commit.lock().expect("lock");
            let (commit, group) = &mut *commit;
            group.clear();
            std::mem::swap(group, &mut state.group);
            let reaches = state.staged;
            drop(state);
            commit.commit(group);
            state = open.lock().expect("lock");
            state.leading = false;
            state.safe = reaches;
            woken.notify_all();
        }
    };
    let all: Vec<_> = std::thread::scope(|scope| {
        let writer = || {
            let mut found = latencies();
            while begun.elapsed() < time {
                let from = Instant::now();
                write_one();
                found.record(from.elapsed().as_nanos() as u64).expect("it grows");
            }
            found
        };
        let threads: Vec<_> = (0..writers).map(|_| scope.spawn(writer)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a writer")).collect()
    });
    sum(all, begun.elapsed())
}

/// One sample of the writers' latencies.
pub(crate) fn sum(all: Vec<hdrhistogram::Histogram<u64>>, took: Duration) -> Sample {
    let mut sample = Sample::whole(0, took);
    for found in all {
        sample.latencies.add(found).expect("the same bounds");
    }
    sample.count = sample.latencies.len();
    sample
}
