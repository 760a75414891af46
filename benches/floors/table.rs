//! Measuring in turns, and the printed table.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hdrhistogram::Histogram;

/// What to measure, and where.
pub(crate) struct Options {
    pub(crate) dir: PathBuf,
    pub(crate) rounds: usize,
    /// Words that a row's name must contain one of; empty: all rows.
    pub(crate) only: Vec<String>,
    /// The journal of 10 GiB instead of the rows.
    pub(crate) large: bool,
}

/// A question: ours beside its floor.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) floor: fn(&Path) -> Sample,
    pub(crate) ours: fn(&Path) -> Sample,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Operations,
    Bytes,
}

/// One turn of one side.
pub(crate) struct Sample {
    pub(crate) count: u64,
    pub(crate) took: Duration,
    /// Nanoseconds per operation; empty where only the whole was timed.
    pub(crate) latencies: Histogram<u64>,
}

impl Sample {
    pub(crate) fn whole(count: u64, took: Duration) -> Sample {
        Sample { count, took, latencies: latencies() }
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.count as f64 / self.took.as_secs_f64()
    }
}

pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new(3).expect("three digits")
}

pub(crate) struct Table<'o> {
    options: &'o Options,
    below: Vec<String>,
}

/// A row below this needs a line in docs/BENCHMARKS.md that says why.
const RATIO_TO_EXPLAIN: f64 = 0.3;

impl<'o> Table<'o> {
    pub(crate) fn new(options: &'o Options) -> Table<'o> {
        println!("medians of {} turns in {}", options.rounds, options.dir.display());
        println!("| row | floor | ours | ratio | floor p50 / p99 | ours p50 / p99 |");
        println!("| --- | --- | --- | --- | --- | --- |");
        Table { options, below: Vec::new() }
    }

    pub(crate) fn measure(&mut self, row: &Row) {
        let only = &self.options.only;
        if !only.is_empty() && !only.iter().any(|word| row.name.contains(word.as_str())) {
            return;
        }
        let (mut floor, mut ours) = (Side::default(), Side::default());
        for _ in 0..self.options.rounds {
            floor.turn(row.floor, &self.options.dir);
            ours.turn(row.ours, &self.options.dir);
        }
        let (base, rate) = (floor.median(), ours.median());
        let ratio = rate / base;
        println!(
            "| {} | {} | {} | {ratio:.2} | {} | {} |",
            row.name,
            rate_text(base, row.unit),
            rate_text(rate, row.unit),
            floor.quantiles(),
            ours.quantiles()
        );
        if ratio < RATIO_TO_EXPLAIN {
            self.below.push(format!("{} ({ratio:.2})", row.name));
        }
    }

    pub(crate) fn finish(self) {
        if self.below.is_empty() {
            println!("no row is below {RATIO_TO_EXPLAIN} of its floor");
        } else {
            println!("below {RATIO_TO_EXPLAIN} of their floor: {}", self.below.join(", "));
        }
    }
}

#[derive(Default)]
struct Side {
    rates: Vec<f64>,
    latencies: Option<Histogram<u64>>,
}

impl Side {
    fn turn(&mut self, run: fn(&Path) -> Sample, dir: &Path) {
        let folder = tempfile::tempdir_in(dir).expect("a folder for one turn");
        let sample = run(folder.path());
        self.rates.push(sample.per_second());
        self.latencies.get_or_insert_with(latencies).add(&sample.latencies).expect("the same bounds");
    }

    fn median(&self) -> f64 {
        median(self.rates.iter().copied())
    }

    fn quantiles(&self) -> String {
        match &self.latencies {
            Some(found) if !found.is_empty() => {
                let micros = |quantile| found.value_at_quantile(quantile) as f64 / 1000.0;
                format!("{:.0} / {:.0} µs", micros(0.5), micros(0.99))
            }
            _ => "–".to_owned(),
        }
    }
}

/// The middle one.
pub(crate) fn median<T: PartialOrd>(samples: impl Iterator<Item = T>) -> T {
    let mut samples: Vec<T> = samples.collect();
    samples.sort_by(|one, other| one.partial_cmp(other).expect("numbers"));
    samples.swap_remove(samples.len() / 2)
}

fn rate_text(rate: f64, unit: Unit) -> String {
    match unit {
        Unit::Operations if rate >= 1e6 => format!("{:.2}M/s", rate / 1e6),
        Unit::Operations if rate >= 1e4 => format!("{:.1}k/s", rate / 1e3),
        Unit::Operations => format!("{rate:.0}/s"),
        Unit::Bytes if rate >= 1e9 => format!("{:.2} GB/s", rate / 1e9),
        Unit::Bytes => format!("{:.0} MB/s", rate / 1e6),
    }
}
