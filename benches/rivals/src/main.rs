//! The journal beside other append logs that can be embedded: same disk, same run, in turns.
//!
//! ```text
//! cargo run --release --manifest-path benches/rivals/Cargo.toml [ROUNDS [DIR]]
//! ```
//! Builds for minutes, and needs a C++ compiler and libclang (`apt install g++ libclang-dev`): RocksDB comes as source.
//!
//! Each log is opened as its own documentation recommends for the question asked. What they promise differs: none of the
//! others tells a torn tail from rot, and not all of them verify what they read. Where they are appended durably, each is
//! first filled until it writes into files that it has used before, if it ever does.

mod logs;
mod turn;

use std::path::{Path, PathBuf};
use std::process::Command;

use logs::{LOGS, Named};
use turn::Sample;

/// What each row asks: turns of a log, of which the last one has the answer.
const ROWS: [(&str, &[&[&str]]); 6] = [
    ("durable append (1 KiB, 1 thread)", &[&["durable", "1", "1024"]]),
    ("durable append (1 KiB, 8 threads)", &[&["durable", "8", "1024"]]),
    ("durable append (1 KiB, 64 threads)", &[&["durable", "64", "1024"]]),
    ("durable append (64 KiB, 64 threads)", &[&["durable", "64", "65536"]]),
    ("append, handed to the kernel (1 KiB, 1 thread)", &[&["written"]]),
    ("recovery, every record read (1 KiB)", &[&["fill"], &["recover"]]),
];
/// What the first argument of a process is that runs one turn.
const TURN: &str = "turn";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, log, dir, question @ ..] = arguments.as_slice()
        && word == TURN
    {
        return turn::run(log, Path::new(dir), question);
    }
    let rounds = arguments.first().map_or(3, |text| text.parse().expect("a number of rounds"));
    let dir = arguments.get(1).map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    println!("medians of {rounds} turns in {}", dir.display());
    println!("| row | {} |", LOGS.map(|log| log.name).join(" | "));
    println!("| --- |{}", " --- |".repeat(LOGS.len()));
    for (row, questions) in ROWS {
        let mut sides = LOGS.map(|log| (log, Vec::new()));
        for _ in 0..rounds {
            for (log, samples) in &mut sides {
                samples.extend(ask(log, &dir, questions));
            }
        }
        println!("| {row} | {} |", sides.map(|(_, samples)| cell(samples)).join(" | "));
    }
}

/// Each turn is a process of its own: walrus has settings that stay for the life of a process.
fn ask(log: &Named, dir: &Path, questions: &[&[&str]]) -> Option<Sample> {
    let folder = tempfile::tempdir_in(dir).expect("a folder for one log");
    let mut answer = String::new();
    for question in questions {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.arg(TURN).arg(log.name).arg(folder.path()).args(*question);
        command.env("WALRUS_QUIET", "1").env("WALRUS_DATA_DIR", folder.path());
        let output = command.output().expect("a turn");
        assert!(output.status.success(), "{}: {}", log.name, String::from_utf8_lossy(&output.stderr));
        answer = String::from_utf8(output.stdout).expect("a line of numbers");
    }
    Sample::parse(&answer)
}

fn cell(mut samples: Vec<Sample>) -> String {
    samples.sort_by(|one, other| one.per_second.total_cmp(&other.per_second));
    let Some(middle) = samples.get(samples.len() / 2) else { return "–".to_owned() };
    let rate = match middle.per_second {
        rate if rate >= 1e6 => format!("{:.2}M/s", rate / 1e6),
        rate => format!("{:.1}k/s", rate / 1e3),
    };
    match middle.micros {
        Some((p50, p99)) => format!("{rate}, {p50} / {p99} µs"),
        None => rate,
    }
}
