//! okaywal: it has one level, committed, and checkpoints and recycles its files by itself.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::okaywal::{Configuration, Entry, EntryId, LogManager, SegmentReader, WriteAheadLog};

use super::{FILE_BYTES, Log, Named, Use};

pub(super) const LOG: Named = Named { name: "okaywal", recycles: true, create, recover };

struct OkayWal {
    log: WriteAheadLog,
}

/// A log that has checkpointed what it was given has nothing to recover: the one that is recovered never does.
fn open(dir: &Path, checkpoints: bool, recovered: Recovered) -> WriteAheadLog {
    let checkpoint_after_bytes = match checkpoints {
        true => FILE_BYTES as u64 / 4 * 3, // of a file, as in its default, whose files of 1 MiB are slower
        false => u64::MAX,
    };
    let configuration = Configuration::default_for(dir.join("okaywal")).preallocate_bytes(FILE_BYTES as u32);
    configuration.checkpoint_after_bytes(checkpoint_after_bytes).open(recovered).expect("open")
}

fn create(dir: &Path, made_for: Use) -> Box<dyn Log> {
    Box::new(OkayWal { log: open(dir, made_for != Use::Recovered, Recovered::default()) })
}

fn recover(dir: &Path) -> u64 {
    let recovered = Recovered::default();
    let records = Arc::clone(&recovered.records);
    open(dir, false, recovered);
    records.load(Ordering::Relaxed)
}

impl Log for OkayWal {
    fn append_durable(&self, _: usize, record: &[u8]) {
        self.append_group(&[record]);
    }

    fn append_written(&self, _: usize, _: &[u8]) -> bool {
        false
    }

    fn append_group(&self, group: &[&[u8]]) {
        let mut entry = self.log.begin_entry().expect("begin");
        for record in group {
            entry.write_chunk(record).expect("write");
        }
        entry.commit().expect("commit");
    }

    fn close(self: Box<Self>) {
        self.log.shutdown().expect("close");
    }
}

#[derive(Debug, Default)]
struct Recovered {
    records: Arc<AtomicU64>,
}

impl LogManager for Recovered {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        let records = entry.read_all_chunks()?.map_or(0, |chunks| chunks.len());
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        Ok(())
    }

    fn checkpoint_to(&mut self, _: EntryId, _: &mut SegmentReader, _: &WriteAheadLog) -> io::Result<()> {
        Ok(())
    }
}
