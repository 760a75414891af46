//! raft-engine: each writer is a region with one key, so that its memory, which would hold every record, holds only the
//! last. Records aren't compressed: these would vanish. What is behind is purged, to be recycled.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::raft_engine::{Config, Engine, LogBatch, ReadableSize};

use super::{FILE_BYTES, Log, Named, Use};
use crate::turn::RECORDS;

pub(super) const LOG: Named = Named { name: "raft-engine", recycles: true, create, recover };

struct RaftEngine {
    engine: Engine,
    appended_bytes: AtomicUsize,
    /// At how many files' worth of bytes it was last purged.
    purged_at: AtomicUsize,
}

fn open(dir: &Path) -> Engine {
    let config = Config {
        dir: dir.join("raft-engine").to_str().expect("a name in UTF-8").to_owned(),
        batch_compression_threshold: ReadableSize::kb(0),
        enable_log_recycle: true,
        target_file_size: ReadableSize(FILE_BYTES as u64),
        purge_threshold: ReadableSize(4 * FILE_BYTES as u64),
        ..Config::default()
    };
    Engine::open(config).expect("open")
}

fn create(dir: &Path, _: Use) -> Box<dyn Log> {
    Box::new(RaftEngine { engine: open(dir), appended_bytes: AtomicUsize::new(0), purged_at: AtomicUsize::new(0) })
}

/// It reads all of its files; what was overwritten doesn't come back.
fn recover(dir: &Path) -> u64 {
    let engine = open(dir);
    assert!(engine.get(region(0), KEY).is_some(), "the last record");
    RECORDS as u64
}

const KEY: &[u8] = b"record";

fn region(writer: usize) -> u64 {
    writer as u64 + 1
}

impl RaftEngine {
    fn put(&self, writer: usize, records: &[&[u8]], sync: bool) {
        let mut batch = LogBatch::with_capacity(records.len());
        for record in records {
            batch.put(region(writer), KEY.to_vec(), record.to_vec()).expect("put");
        }
        let bytes = self.engine.write(&mut batch, sync).expect("write");
        self.appended_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Log for RaftEngine {
    fn append_durable(&self, writer: usize, record: &[u8]) {
        self.put(writer, &[record], true);
        let files = self.appended_bytes.load(Ordering::Relaxed) / FILE_BYTES;
        if self.purged_at.fetch_max(files, Ordering::Relaxed) < files {
            self.engine.purge_expired_files().expect("purge");
        }
    }

    fn append_written(&self, writer: usize, record: &[u8]) -> bool {
        self.put(writer, &[record], false);
        true
    }

    fn append_group(&self, group: &[&[u8]]) {
        self.put(0, group, false);
    }

    fn close(self: Box<Self>) {
        self.engine.sync().expect("sync");
    }
}
