//! One turn: a log, a question, and the line of numbers that answers it.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::logs::{LOGS, Log, Named, Use};

/// How long writers go on.
const TIME: Duration = Duration::from_secs(2);
/// The turns of lone writers, and how long one goes on.
const LONE_TURNS: u32 = 80;
const LONE_TIME: Duration = Duration::from_millis(25);
/// What each log that recycles has taken before it is measured with durable records: six files of most of them.
const WARM_UP_BYTES: usize = 384 << 20;
/// Records that nobody waits for, and of a log that is recovered.
pub(crate) const RECORDS: usize = 512_000;
const RECORD_BYTES: usize = 1 << 10;
/// What is appended at once where a log is only filled, and what one of the records is durable of while it is warmed up.
const GROUP_BYTES: usize = 128 << 10;

/// What one turn found.
pub(crate) struct Sample {
    pub(crate) per_second: f64,
    /// Half of all were as fast as the first, all but a hundredth as the second.
    pub(crate) micros: Option<(u64, u64)>,
}

impl Sample {
    fn of(records: u64, took: Duration) -> Sample {
        Sample { per_second: records as f64 / took.as_secs_f64(), micros: None }
    }

    /// `None`: nothing was measured.
    pub(crate) fn parse(line: &str) -> Option<Sample> {
        let mut numbers = line.split_whitespace();
        let per_second = numbers.next()?.parse().expect("a rate");
        let mut micros = numbers.map(|number| number.parse().expect("microseconds"));
        Some(Sample { per_second, micros: micros.next().zip(micros.next()) })
    }

    fn print(&self) {
        match self.micros {
            Some((p50, p99)) => println!("{} {p50} {p99}", self.per_second),
            None => println!("{}", self.per_second),
        }
    }
}

pub(crate) fn run(name: &str, dir: &Path, question: &[String]) {
    if question == ["lone"] {
        return lone(dir).iter().for_each(Sample::print);
    }
    let log = LOGS.into_iter().find(|log| log.name == name).expect("one of the logs");
    let question: Vec<_> = question.iter().map(String::as_str).collect();
    let sample = match question[..] {
        ["durable", writers, bytes] => {
            let writers: usize = writers.parse().expect("a number of writers");
            let record = vec![7; bytes.parse().expect("the bytes of a record")];
            let open = warm(&log, dir, writers, &record);
            settle(dir);
            Some(durable(&*open, writers, &record))
        }
        ["written"] => written(&*(log.create)(dir, Use::Written)),
        ["fill"] => {
            let log = (log.create)(dir, Use::Recovered);
            let record = vec![7; RECORD_BYTES];
            let group = grouped(&record);
            (0..RECORDS / group.len()).for_each(|_| log.append_group(&group));
            log.close();
            None
        }
        ["recover"] => Some(recovered(&log, dir)),
        _ => panic!("no such question: {question:?}"),
    };
    if let Some(sample) = sample {
        sample.print();
    }
}

/// One writer for all logs, which take turns.
fn lone(dir: &Path) -> Vec<Sample> {
    let record = vec![7; RECORD_BYTES];
    let mut sides = LOGS.map(|log| (warm(&log, dir, 1, &record), latencies()));
    settle(dir);
    for _ in 0..LONE_TURNS {
        sides.iter_mut().for_each(|(log, latencies)| append_for(LONE_TIME, &**log, 0, &record, latencies));
    }
    sides.iter().map(|(_, latencies)| waited(latencies, LONE_TURNS * LONE_TIME)).collect()
}

/// A new log for durable records, warmed up.
fn warm(log: &Named, dir: &Path, writers: usize, record: &[u8]) -> Box<dyn Log> {
    let open = (log.create)(dir, Use::Durable { writers });
    if log.recycles {
        warm_up(&*open, writers, record);
    }
    open
}

/// What is left for the kernel to write is not the next turn's.
fn settle(dir: &Path) {
    rustix::fs::syncfs(File::open(dir).expect("the folder")).expect("a disk that syncs");
}

/// Until the log writes into files that it has used before. One by one and now and then durable, as in the turn itself:
/// where the bytes of a file come in large pieces, the page cache is another one, and the journal makes files otherwise.
fn warm_up(log: &dyn Log, writers: usize, record: &[u8]) {
    let group = grouped(record);
    for number in 0..WARM_UP_BYTES / GROUP_BYTES {
        let writer = number % writers;
        if group[1..].iter().all(|record| log.append_written(writer, record)) {
            log.append_durable(writer, record);
        } else {
            log.append_group(&group);
        }
    }
}

/// `writers` threads, each waiting for its own record to be safe.
fn durable(log: &dyn Log, writers: usize, record: &[u8]) -> Sample {
    let begun = Instant::now();
    let all: Vec<Histogram<u64>> = std::thread::scope(|scope| {
        let writer = |number| {
            let mut found = latencies();
            append_for(TIME, log, number, record, &mut found);
            found
        };
        let threads: Vec<_> = (0..writers).map(|number| scope.spawn(move || writer(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a writer")).collect()
    });
    let took = begun.elapsed();
    let mut latencies = latencies();
    all.into_iter().for_each(|found| latencies.add(found).expect("the same bounds"));
    waited(&latencies, took)
}

fn append_for(time: Duration, log: &dyn Log, writer: usize, record: &[u8], latencies: &mut Histogram<u64>) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        let from = Instant::now();
        log.append_durable(writer, record);
        latencies.record(from.elapsed().as_nanos() as u64).expect("it grows");
    }
}

fn waited(latencies: &Histogram<u64>, took: Duration) -> Sample {
    let micros = |quantile| latencies.value_at_quantile(quantile) / 1000;
    Sample { micros: Some((micros(0.5), micros(0.99))), ..Sample::of(latencies.len(), took) }
}

/// Each record is with the kernel when its append returns.
fn written(log: &dyn Log) -> Option<Sample> {
    let record = vec![7; RECORD_BYTES];
    let begun = Instant::now();
    for _ in 0..RECORDS {
        if !log.append_written(0, &record) {
            return None;
        }
    }
    Some(Sample::of(RECORDS as u64, begun.elapsed()))
}

/// From the files to the last record.
fn recovered(log: &Named, dir: &Path) -> Sample {
    let begun = Instant::now();
    let found = (log.recover)(dir);
    let took = begun.elapsed();
    assert_eq!(found, RECORDS as u64, "records of {} that came back", log.name);
    Sample::of(found, took)
}

fn grouped(record: &[u8]) -> Vec<&[u8]> {
    vec![record; GROUP_BYTES / record.len()]
}

fn latencies() -> Histogram<u64> {
    Histogram::new(3).expect("three digits")
}
