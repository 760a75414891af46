//! RocksDB's WAL: recycled, in a database that does as little as it can beside it. Each writer overwrites one key, so that a
//! memtable that is full leaves next to nothing to flush; nothing is compacted or compressed.

use std::path::Path;

use ::rocksdb::{DB, DBCompressionType, Options, WriteBatch, WriteOptions};

use super::{FILE_BYTES, Log, Named, Use};

pub(super) const LOG: Named = Named { name: "RocksDB", recycles: true, create, recover };

struct RocksDb {
    database: DB,
    unsynced: WriteOptions,
    synced: WriteOptions,
}

fn open(dir: &Path, memtable_bytes: usize) -> DB {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_recycle_log_file_num(4);
    options.set_enable_pipelined_write(true);
    // with two cores a third faster for 64 writers than many of them in the memtable at once
    options.set_allow_concurrent_memtable_write(false);
    options.set_write_buffer_size(memtable_bytes); // a file of the WAL is as large as a memtable
    options.set_max_write_buffer_number(8);
    options.set_compression_type(DBCompressionType::None);
    options.set_disable_auto_compactions(true);
    options.set_level_zero_slowdown_writes_trigger(i32::MAX);
    options.set_level_zero_stop_writes_trigger(i32::MAX);
    DB::open(&options, dir.join("rocksdb")).expect("open")
}

/// What is recovered is all in the WAL: the memtable takes it whole.
fn memtable_bytes(made_for: Use) -> usize {
    match made_for {
        Use::Durable { .. } | Use::Written => FILE_BYTES,
        Use::Recovered => 16 * FILE_BYTES,
    }
}

fn create(dir: &Path, made_for: Use) -> Box<dyn Log> {
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    let database = open(dir, memtable_bytes(made_for));
    Box::new(RocksDb { database, unsynced: WriteOptions::default(), synced })
}

/// It replays the WAL into a memtable; every record that came back has its number.
fn recover(dir: &Path) -> u64 {
    open(dir, memtable_bytes(Use::Recovered)).latest_sequence_number()
}

impl Log for RocksDb {
    fn append_durable(&self, writer: usize, record: &[u8]) {
        self.database.put_opt(key(writer), record, &self.synced).expect("put");
    }

    fn append_written(&self, writer: usize, record: &[u8]) -> bool {
        self.database.put_opt(key(writer), record, &self.unsynced).expect("put");
        true
    }

    fn append_group(&self, group: &[&[u8]]) {
        let mut batch = WriteBatch::default();
        group.iter().for_each(|record| batch.put(key(0), record));
        self.database.write_opt(batch, &self.unsynced).expect("write");
    }

    fn close(self: Box<Self>) {
        self.database.flush_wal(true).expect("sync");
    }
}

fn key(writer: usize) -> [u8; 8] {
    (writer as u64).to_be_bytes()
}
