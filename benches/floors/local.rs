//! One journal alone: appending, durable appending, scanning, opening.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use journal::{Geometry, Item, Journal, Lsn, NodeId, Options, Reason, Role, RunOpening, StreamId, offline};

use crate::floor;
use crate::group;
use crate::table::{Row, Sample, Unit, latencies};

/// Payload of every record here.
pub(crate) const RECORD_BYTES: usize = 1024;
const LARGE_RECORD_BYTES: usize = 64 << 10;
/// Records that are appended at once and then written.
const GROUP: usize = 64;
/// How long writers that wait for the disk go on in one turn.
pub(crate) const TIME: Duration = Duration::from_secs(2);
/// Within the first segment.
const APPENDS: u64 = 50_000;
/// Over four new segments.
const LONG_APPENDS: u64 = 220_000;
pub(crate) const SCANNED_RECORDS: u64 = 120_000;

pub(crate) fn rows() -> Vec<Row> {
    use Unit::{Bytes, Operations};
    vec![
        Row {
            name: "append, staged (1 KiB, 1 thread)",
            unit: Operations,
            // as long as ours takes: a turn that ends within one slice of the scheduler shares the machine with nobody
            floor: |dir| floor::buffered(floor::Recycled::new(dir, "floor"), &entry(RECORD_BYTES), APPENDS),
            ours: |dir| append(dir, APPENDS),
        },
        Row {
            name: "append over new segments (1 KiB, 1 thread)",
            unit: Operations,
            floor: |dir| floor::buffered(floor::Recycled::rolling(dir, "floor"), &entry(RECORD_BYTES), LONG_APPENDS),
            ours: |dir| append(dir, LONG_APPENDS),
        },
        Row {
            name: "append_many of 64, each group written (1 KiB, 1 thread)",
            unit: Operations,
            floor: |dir| floor::buffered(floor::Recycled::new(dir, "floor"), &entry(RECORD_BYTES), APPENDS),
            ours: written_groups,
        },
        Row {
            name: "append, written each (1 KiB, 1 thread)",
            unit: Operations,
            floor: |dir| floor::written(dir, &entry(RECORD_BYTES), APPENDS, false),
            ours: |dir| written(dir, false),
        },
        Row {
            name: "append, written each, beside a thread that syncs without pause (1 KiB)",
            unit: Operations,
            floor: |dir| floor::written(dir, &entry(RECORD_BYTES), APPENDS, true),
            ours: |dir| written(dir, true),
        },
        Row {
            name: "durable append (1 KiB, 1 thread)",
            unit: Operations,
            floor: |dir| durable_floor(dir, RECORD_BYTES, 1),
            ours: |dir| durable(dir, RECORD_BYTES, 1),
        },
        Row {
            name: "durable append (1 KiB, 8 threads)",
            unit: Operations,
            floor: |dir| durable_floor(dir, RECORD_BYTES, 8),
            ours: |dir| durable(dir, RECORD_BYTES, 8),
        },
        Row {
            name: "durable append (1 KiB, 32 threads)",
            unit: Operations,
            floor: |dir| durable_floor(dir, RECORD_BYTES, 32),
            ours: |dir| durable(dir, RECORD_BYTES, 32),
        },
        Row {
            name: "durable append (1 KiB, 64 threads)",
            unit: Operations,
            floor: |dir| durable_floor(dir, RECORD_BYTES, 64),
            ours: |dir| durable(dir, RECORD_BYTES, 64),
        },
        Row {
            name: "durable append (64 KiB, 64 threads)",
            unit: Bytes,
            floor: |dir| bytes(durable_floor(dir, LARGE_RECORD_BYTES, 64), LARGE_RECORD_BYTES),
            ours: |dir| bytes(durable(dir, LARGE_RECORD_BYTES, 64), LARGE_RECORD_BYTES),
        },
        Row { name: "verified scan, warm", unit: Bytes, floor: scan_floor, ours: |dir| scan(dir, |_| ()) },
        Row { name: "verified scan, cold", unit: Bytes, floor: cold_read, ours: |dir| scan(dir, floor::evict) },
        Row { name: "open after kill, warm (verifies the tail)", unit: Bytes, floor: scan_floor, ours: open },
    ]
}

/// What an entry of a record takes in the log.
pub(crate) fn entry(record_bytes: usize) -> Vec<u8> {
    vec![7; journal::entry_bytes(record_bytes) as usize]
}

/// The same turn, counted in bytes of payload.
fn bytes(sample: Sample, record_bytes: usize) -> Sample {
    Sample { count: sample.count * record_bytes as u64, ..sample }
}

/// An empty journal of a stream of its own.
pub(crate) fn fresh_journal(dir: &Path) -> Journal {
    let (stream, node) = (StreamId::random(), NodeId::random());
    let geometry = Geometry::new(floor::FILE_BYTES as u32).expect("a size that a body may have");
    let options = Options { geometry, ..Options::default() };
    Journal::create(&dir.join("journal"), stream, node, Role::Primary, options).expect("create a journal")
}

/// With its first record, whose entry opens the epoch and a segment: not what is measured.
pub(crate) fn warm(dir: &Path) -> Journal {
    let journal = fresh_journal(dir);
    journal.open_run(RunOpening { promote: None, reason: Reason::Created, policy: Vec::new() }).expect("open a run");
    journal.append(Item::record(&[b"first"])).expect("append").durable().expect("durable");
    journal
}

fn append(dir: &Path, count: u64) -> Sample {
    let (journal, record) = (warm(dir), [7; RECORD_BYTES]);
    let begun = Instant::now();
    for _ in 0..count {
        journal.append(Item::record(&[&record])).expect("append");
    }
    journal.write().expect("write");
    Sample::whole(count, begun.elapsed())
}

fn written_groups(dir: &Path) -> Sample {
    let (journal, record) = (warm(dir), [7; RECORD_BYTES]);
    let parts: [&[u8]; 1] = [&record];
    let items = [Item::record(&parts); GROUP];
    let groups = APPENDS / GROUP as u64;
    let begun = Instant::now();
    for _ in 0..groups {
        journal.append_many(&items).expect("append").written().expect("written");
    }
    Sample::whole(groups * GROUP as u64, begun.elapsed())
}

/// With `syncing`, beside a thread that does nothing but sync.
fn written(dir: &Path, syncing: bool) -> Sample {
    let (journal, record) = (warm(dir), [7; RECORD_BYTES]);
    let done = AtomicBool::new(!syncing);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                journal.sync().expect("sync");
            }
        });
        let begun = Instant::now();
        for _ in 0..APPENDS {
            journal.append(Item::record(&[&record])).expect("append").written().expect("written");
        }
        let sample = Sample::whole(APPENDS, begun.elapsed());
        done.store(true, Ordering::Relaxed);
        sample
    })
}

fn durable_floor(dir: &Path, record_bytes: usize, writers: usize) -> Sample {
    group::run(floor::Recycled::new(dir, "floor"), writers, &entry(record_bytes), TIME)
}

/// As in a node: with its flush thread, and with what is a segment behind the end given up, to be recycled.
fn durable(dir: &Path, record_bytes: usize, writers: usize) -> Sample {
    let journal = warm(dir);
    journal.spawn_flusher().expect("a thread");
    let begun = Instant::now();
    let all = std::thread::scope(|scope| {
        let writer = || {
            let mut found = latencies();
            let record = vec![7; record_bytes];
            let mut segment = Lsn::ZERO;
            while begun.elapsed() < TIME {
                let from = Instant::now();
                let ack = journal.append(Item::record(&[&record])).expect("append").durable().expect("durable");
                found.record(from.elapsed().as_nanos() as u64).expect("it grows");
                if journal.geometry().segment_of(ack.lsn) > segment {
                    segment = journal.geometry().segment_of(ack.lsn);
                    journal.prune(segment).expect("prune");
                }
            }
            found
        };
        let threads: Vec<_> = (0..writers).map(|_| scope.spawn(writer)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a writer")).collect()
    });
    let sample = group::sum(all, begun.elapsed());
    journal.close().expect("close");
    sample
}

pub(crate) fn filled(dir: &Path) -> Journal {
    let (journal, record) = (warm(dir), [7; RECORD_BYTES]);
    for _ in 0..SCANNED_RECORDS {
        journal.append(Item::record(&[&record])).expect("append");
    }
    journal.sync().expect("sync");
    journal
}

fn scan_floor(dir: &Path) -> Sample {
    floor::scan(dir, SCANNED_RECORDS * journal::entry_bytes(RECORD_BYTES))
}

/// The machine's cold sequential read: nothing is looked at.
fn cold_read(dir: &Path) -> Sample {
    filled(dir).close().expect("close");
    floor::evict(dir);
    floor::read_through(&dir.join("journal"))
}

fn scan(dir: &Path, before: impl Fn(&Path)) -> Sample {
    filled(dir).close().expect("close");
    before(dir);
    let log = offline::Log::open(&dir.join("journal")).expect("open");
    let begun = Instant::now();
    let mut entries = log.entries(None).expect("entries");
    while entries.next_entry().expect("verified").is_some() {}
    Sample::whole(entries.tip().lsn.bytes_since(Lsn::ZERO), begun.elapsed())
}

fn open(dir: &Path) -> Sample {
    drop(filled(dir)); // as after a kill: nothing is said in order
    let begun = Instant::now();
    let journal = Journal::open(&dir.join("journal"), Options::default()).expect("open");
    Sample::whole(journal.written_tip().lsn.get(), begun.elapsed())
}
