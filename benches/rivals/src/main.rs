//! The journal beside other append logs that can be embedded: same disk, same run, in turns.
//!
//! ```text
//! cargo run --release --manifest-path benches/rivals/Cargo.toml [ROUNDS [DIR]]
//! ```
//! Each log is opened as its own documentation recommends for the question asked. What they promise differs: none of the
//! others tells a torn tail from rot, and not all of them verify what they read.

mod logs;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use logs::{Log, OkayWal, RaftEngine, Towline};

/// How long writers go on in one turn.
const TIME: Duration = Duration::from_secs(2);
/// Records of a turn that nobody waits for, and of a log that is recovered.
const RECORDS: u64 = 500_000;
const RECORD_BYTES: usize = 1 << 10;
const LARGE_RECORD_BYTES: usize = 64 << 10;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rounds = arguments.next().map_or(3, |text| text.parse().expect("a number of rounds"));
    let dir = arguments.next().map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    println!("medians of {rounds} turns in {}", dir.display());
    println!("| row | towline-journal | raft-engine | okaywal |");
    println!("| --- | --- | --- | --- |");
    for writers in [1, 8, 64] {
        let name = format!("durable append (1 KiB, threads: {writers})");
        row(&name, &dir, rounds, &|log| durable(log, writers, RECORD_BYTES));
    }
    row("durable append (64 KiB, threads: 64)", &dir, rounds, &|log| durable(log, 64, LARGE_RECORD_BYTES));
    row("append, handed to the kernel (1 KiB, threads: 1)", &dir, rounds, &|log| buffered(log));
    row("recovery, every record read (1 KiB)", &dir, rounds, &recovered);
}

/// What one turn found.
struct Sample {
    per_second: f64,
    latencies: Histogram<u64>,
}

fn row(name: &str, dir: &Path, rounds: usize, measure: &dyn Fn(&mut dyn Log) -> Option<Sample>) {
    let mut sides: [Vec<Sample>; 3] = Default::default();
    for _ in 0..rounds {
        for (side, turns) in sides.iter_mut().enumerate() {
            let folder = tempfile::tempdir_in(dir).expect("a folder for one turn");
            // one at a time: an open log is work for the machine
            let mut log: Box<dyn Log> = match side {
                0 => Box::new(Towline::create(folder.path())),
                1 => Box::new(RaftEngine::create(folder.path())),
                _ => Box::new(OkayWal::create(folder.path())),
            };
            turns.extend(measure(log.as_mut()));
        }
    }
    let cells: Vec<String> = sides.map(cell).into();
    println!("| {name} | {} |", cells.join(" | "));
}

fn cell(mut turns: Vec<Sample>) -> String {
    turns.sort_by(|one, other| one.per_second.total_cmp(&other.per_second));
    let middle = turns.len() / 2;
    let Some(sample) = turns.get(middle) else { return "–".to_owned() };
    let rate = match sample.per_second {
        rate if rate >= 1e6 => format!("{:.2}M/s", rate / 1e6),
        rate => format!("{:.1}k/s", rate / 1e3),
    };
    if sample.latencies.is_empty() {
        return rate;
    }
    let micros = |quantile| sample.latencies.value_at_quantile(quantile) / 1000;
    format!("{rate}, {} / {} µs", micros(0.5), micros(0.99))
}

/// `writers` threads, each waiting for its own record to be safe.
fn durable(log: &mut dyn Log, writers: usize, record_bytes: usize) -> Option<Sample> {
    let log = &*log;
    let begun = Instant::now();
    let all: Vec<Histogram<u64>> = std::thread::scope(|scope| {
        let writer = |number| {
            let mut found = latencies();
            let record = vec![7; record_bytes];
            while begun.elapsed() < TIME {
                let from = Instant::now();
                log.append_durable(number, &record);
                found.record(from.elapsed().as_nanos() as u64).expect("it grows");
            }
            found
        };
        let threads: Vec<_> = (0..writers).map(|number| scope.spawn(move || writer(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a writer")).collect()
    });
    let took = begun.elapsed();
    let mut latencies = latencies();
    all.into_iter().for_each(|found| latencies.add(found).expect("the same bounds"));
    Some(Sample { per_second: latencies.len() as f64 / took.as_secs_f64(), latencies })
}

/// Each record is with the kernel when its append returns.
fn buffered(log: &mut dyn Log) -> Option<Sample> {
    let record = vec![7; RECORD_BYTES];
    let begun = Instant::now();
    for _ in 0..RECORDS {
        if !log.append_written(&record) {
            return None;
        }
    }
    Some(Sample { per_second: RECORDS as f64 / begun.elapsed().as_secs_f64(), latencies: latencies() })
}

/// From the files to the last record.
fn recovered(log: &mut dyn Log) -> Option<Sample> {
    let record = vec![7; RECORD_BYTES];
    log.fill(RECORDS, &record);
    let begun = Instant::now();
    let found = log.recover();
    let took = begun.elapsed();
    // a log that has let go of a part by itself is measured by the rest
    (found > 0).then(|| Sample { per_second: found as f64 / took.as_secs_f64(), latencies: latencies() })
}

fn latencies() -> Histogram<u64> {
    Histogram::new(3).expect("three digits")
}
