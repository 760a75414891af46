//! What replaying a log costs: into a restored file, and into a replica's record file.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use journal::{Lsn, Machine, Replay, Until, offline};
use volume::Output;
use volume::frames::Frames;
use volume::records::{Identity, Records};

use crate::local::{RECORD_BYTES, SCANNED_RECORDS, filled};
use crate::table::{Row, Sample, Unit};

const BYTES: u64 = SCANNED_RECORDS * RECORD_BYTES as u64;

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row { name: "restore from a journal, lines (1 KiB)", unit: Unit::Bytes, floor: copy_floor, ours: restore },
        Row { name: "replica's record file (1 KiB)", unit: Unit::Bytes, floor: copy_floor, ours: replica },
    ]
}

/// Reads a file and writes it to another one, synced at the end.
fn copy_floor(dir: &Path) -> Sample {
    let source = dir.join("source");
    let piece = vec![7; 1 << 20];
    let mut file = File::create(&source).expect("create");
    for _ in 0..BYTES / piece.len() as u64 {
        file.write_all(&piece).expect("write");
    }
    file.sync_all().expect("sync");
    let mut buffer = vec![0; 256 << 10];
    let mut source = File::open(source).expect("open");
    let begun = Instant::now();
    let target = File::create(dir.join("target")).expect("create");
    let mut at = 0;
    loop {
        let read = source.read(&mut buffer).expect("read");
        if read == 0 {
            break;
        }
        target.write_all_at(&buffer[..read], at).expect("write");
        at += read as u64;
    }
    target.sync_data().expect("sync");
    Sample::whole(at, begun.elapsed())
}

fn restore(dir: &Path) -> Sample {
    filled(dir).close().expect("close");
    let log = offline::Log::open(&dir.join("journal")).expect("open");
    let begun = Instant::now();
    let mut output = Output::to_file(&dir.join("out"), false, Frames::Lines, 0, Lsn::ZERO).expect("begin");
    Replay::new(log.entries(None).expect("entries"), 0).run(&mut output, Until::END).expect("replay");
    output.finish().expect("finish");
    Sample::whole(BYTES, begun.elapsed())
}

fn replica(dir: &Path) -> Sample {
    let journal = filled(dir);
    let identity = Identity { stream: journal.stream(), volume: 0 };
    let mut records = Records::create(&dir.join("records"), identity, Lsn::ZERO).expect("create");
    let begun = Instant::now();
    let entries = journal.entries(Lsn::ZERO).expect("entries");
    Replay::new(entries, 0).run(&mut records, Until::END).expect("replay");
    records.checkpoint().expect("checkpoint");
    Sample::whole(BYTES, begun.elapsed())
}
