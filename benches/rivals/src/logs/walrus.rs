//! walrus: a topic for each writer, as in its own benchmarks. It never recycles: a file goes once all was read from it.

use std::path::Path;

use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

use super::{Log, Named, Use};

pub(super) const LOG: Named = Named { name: "walrus", recycles: false, create, recover };

struct Open {
    log: Walrus,
    topics: Vec<String>,
}

/// In the folder that the environment names.
fn open(schedule: FsyncSchedule) -> Walrus {
    // where the reader stands is not part of any question
    let reading = ReadConsistency::AtLeastOnce { persist_every: u32::MAX };
    Walrus::with_consistency_and_schedule(reading, schedule).expect("open")
}

fn create(_: &Path, made_for: Use) -> Box<dyn Log> {
    let schedule = match made_for {
        Use::Durable { .. } => FsyncSchedule::SyncEach,
        Use::Written | Use::Recovered => FsyncSchedule::NoFsync,
    };
    // with its mapped files twice as fast for one writer, with the others faster for everything else
    if made_for == (Use::Durable { writers: 1 }) {
        walrus_rust::disable_fd_backend();
    }
    Box::new(Open { log: open(schedule), topics: (0..64).map(topic).collect() })
}

fn topic(writer: usize) -> String {
    format!("topic_{writer}")
}

/// Opening has read all, to know where it ends; the records come back when they are read again.
fn recover(_: &Path) -> u64 {
    const READ_BYTES: usize = 10 << 20;
    let log = open(FsyncSchedule::SyncEach);
    let mut found = 0;
    loop {
        match log.batch_read_for_topic(&topic(0), READ_BYTES, true).expect("read").len() {
            0 => return found,
            more => found += more as u64,
        }
    }
}

impl Log for Open {
    fn append_durable(&self, writer: usize, record: &[u8]) {
        self.log.append_for_topic(&self.topics[writer], record).expect("append");
    }

    fn append_written(&self, writer: usize, record: &[u8]) -> bool {
        self.log.append_for_topic(&self.topics[writer], record).expect("append");
        true
    }

    fn append_group(&self, group: &[&[u8]]) {
        self.log.batch_append_for_topic(&self.topics[0], group).expect("append");
    }

    /// Each group was synced.
    fn close(self: Box<Self>) {}
}
