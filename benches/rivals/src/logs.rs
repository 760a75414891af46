//! The logs, each behind the same three questions.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use journal::{Geometry, Item, Journal, Lsn, NodeId, Options, Reason, Role, RunOpening, StreamId};
use okaywal::{Entry, EntryId, LogManager, SegmentReader, WriteAheadLog};
use raft_engine::{Config, Engine, LogBatch, ReadableSize};

const SEGMENT_BYTES: u64 = 64 << 20;
/// Records that are appended at once where a log is only filled.
const GROUP: u64 = 100;

/// An append log that can be embedded.
pub(crate) trait Log: Sync {
    /// Returns when a power cut can't take the record any more.
    fn append_durable(&self, writer: usize, record: &[u8]);
    /// Returns when the kernel has the record; `false`: this log has no such level.
    fn append_written(&mut self, record: &[u8]) -> bool;
    /// Appends records, durable in the end, and closes the log.
    fn fill(&mut self, records: u64, record: &[u8]);
    /// Opens the log that was filled; returns the number of records that came back.
    fn recover(&mut self) -> u64;
}

/// What is a segment behind the end is given up, to be recycled.
pub(crate) struct Towline {
    dir: PathBuf,
    journal: Option<Journal>,
    pruned: AtomicU64,
}

impl Towline {
    pub(crate) fn create(dir: &Path) -> Towline {
        let dir = dir.join("journal");
        let geometry = Geometry::new(SEGMENT_BYTES as u32).expect("a size that a body may have");
        let options = Options { geometry, ..Options::default() };
        let journal = Journal::create(&dir, StreamId::random(), NodeId::random(), Role::Primary, options);
        let journal = journal.expect("create a journal");
        journal
            .open_run(RunOpening { promote: None, reason: Reason::Created, policy: Vec::new() })
            .expect("open a run");
        journal.spawn_flusher().expect("a thread");
        Towline { dir, journal: Some(journal), pruned: AtomicU64::new(0) }
    }

    fn journal(&self) -> &Journal {
        self.journal.as_ref().expect("open")
    }
}

impl Log for Towline {
    fn append_durable(&self, _: usize, record: &[u8]) {
        let journal = self.journal();
        let ack = journal.append(Item::record(&[record])).expect("append").durable().expect("durable");
        let segment = journal.geometry().segment_of(ack.lsn);
        if self.pruned.fetch_max(segment.get(), Ordering::Relaxed) < segment.get() {
            journal.prune(segment).expect("prune");
        }
    }

    fn append_written(&mut self, record: &[u8]) -> bool {
        self.journal().append(Item::record(&[record])).expect("append").written().expect("written");
        true
    }

    fn fill(&mut self, records: u64, record: &[u8]) {
        let parts = [record];
        for _ in 0..records / GROUP {
            self.journal().append_many(&[Item::record(&parts); GROUP as usize]).expect("append");
        }
        self.journal.take().expect("open").close().expect("close");
    }

    fn recover(&mut self) -> u64 {
        let journal = Journal::open(&self.dir, Options::default()).expect("open");
        let mut entries = journal.entries(Lsn::ZERO).expect("entries");
        let mut found = 0;
        while entries.next_entry().expect("verified").is_some() {
            found += 1;
        }
        found
    }
}

/// Each writer is a region with one key: its memory, which would hold every record, then holds only the last.
pub(crate) struct RaftEngine {
    dir: PathBuf,
    engine: Option<Arc<Engine>>,
    records: u64,
}

impl RaftEngine {
    pub(crate) fn create(dir: &Path) -> RaftEngine {
        RaftEngine { dir: dir.to_owned(), engine: Some(open_engine(dir)), records: 0 }
    }

    fn put(&self, region: u64, records: u64, record: &[u8], sync: bool) {
        let mut batch = LogBatch::with_capacity(records as usize);
        for _ in 0..records {
            batch.put(region, b"record".to_vec(), record.to_vec()).expect("put");
        }
        self.engine.as_ref().expect("open").write(&mut batch, sync).expect("write");
    }
}

/// Recycled and uncompressed: records that don't shrink, files as ours.
fn open_engine(dir: &Path) -> Arc<Engine> {
    let config = Config {
        dir: dir.join("raft").to_str().expect("a name in UTF-8").to_owned(),
        batch_compression_threshold: ReadableSize::kb(0),
        enable_log_recycle: true,
        target_file_size: ReadableSize(SEGMENT_BYTES),
        ..Config::default()
    };
    Arc::new(Engine::open(config).expect("open"))
}

impl Log for RaftEngine {
    fn append_durable(&self, writer: usize, record: &[u8]) {
        self.put(writer as u64 + 1, 1, record, true);
    }

    fn append_written(&mut self, record: &[u8]) -> bool {
        self.put(1, 1, record, false);
        true
    }

    fn fill(&mut self, records: u64, record: &[u8]) {
        (0..records / GROUP).for_each(|_| self.put(1, GROUP, record, false));
        self.engine.take().expect("open").sync().expect("sync");
        self.records = records;
    }

    /// It reads all of its files; what was overwritten doesn't come back.
    fn recover(&mut self) -> u64 {
        drop(open_engine(&self.dir));
        self.records
    }
}

/// It has one level: committed.
pub(crate) struct OkayWal {
    dir: PathBuf,
    log: Option<WriteAheadLog>,
}

impl OkayWal {
    pub(crate) fn create(dir: &Path) -> OkayWal {
        let dir = dir.join("okaywal");
        let log = WriteAheadLog::recover(&dir, Recovered::default()).expect("open");
        OkayWal { dir, log: Some(log) }
    }

    fn commit(&self, records: u64, record: &[u8]) {
        let mut entry = self.log.as_ref().expect("open").begin_entry().expect("begin");
        for _ in 0..records {
            entry.write_chunk(record).expect("write");
        }
        entry.commit().expect("commit");
    }
}

impl Log for OkayWal {
    fn append_durable(&self, _: usize, record: &[u8]) {
        self.commit(1, record);
    }

    fn append_written(&mut self, _: &[u8]) -> bool {
        false
    }

    /// A log that has checkpointed what it was given has nothing to recover: as many as it holds back.
    fn fill(&mut self, records: u64, record: &[u8]) {
        (0..records / GROUP).for_each(|_| self.commit(GROUP, record));
        self.log.take().expect("open").shutdown().expect("close");
    }

    fn recover(&mut self) -> u64 {
        let recovered = Recovered::default();
        let found = Arc::clone(&recovered.records);
        let log = WriteAheadLog::recover(&self.dir, recovered).expect("open");
        drop(log);
        found.load(Ordering::Relaxed)
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
