//! The journal beside other append logs that can be embedded: same disk, same run, in turns.
//!
//! ```text
//! cargo run --release --manifest-path benches/rivals/Cargo.toml [ROUNDS [DIR]]
//! ```
//! RocksDB comes as source: it needs a C++ compiler and libclang (`apt install g++ libclang-dev`), and builds for half an
//! hour on two cores.
//!
//! Each log is opened as its own documentation recommends for the question asked. What they promise differs: none of the
//! others tells a torn tail from rot, and not all of them verify what they read. Where they are appended durably, each is
//! first filled until it writes into files that it has used before, if it ever does.

mod logs;
mod turn;

use std::path::{Path, PathBuf};
use std::process::Command;

use logs::LOGS;
use turn::Sample;

/// The row of lone writers. A flush costs now 70, now 100 µs for seconds on end, and hardly any two logs differ by more than
/// a few: all are open in one process, and turns are short.
const LONE: &str = "durable append (1 KiB, 1 thread)";
/// What each other row asks: turns of a log, of which the last one has the answer.
const ROWS: [(&str, &[&[&str]]); 5] = [
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
    let mut sides = LOGS.map(|_| Vec::new());
    for _ in 0..rounds {
        let answers = ask("all", &dir, &[&["lone"]]);
        sides.iter_mut().zip(answers.lines()).for_each(|(samples, answer)| samples.extend(Sample::parse(answer)));
    }
    println!("| {LONE} | {} |", sides.map(cell).join(" | "));
    for (row, questions) in ROWS {
        let mut sides = LOGS.map(|log| (log, Vec::new()));
        for _ in 0..rounds {
            for (log, samples) in &mut sides {
                samples.extend(Sample::parse(&ask(log.name, &dir, questions)));
            }
        }
        println!("| {row} | {} |", sides.map(|(_, samples)| cell(samples)).join(" | "));
    }
}

/// Each turn is a process of its own: walrus has settings that stay for the life of a process.
fn ask(log: &str, dir: &Path, questions: &[&[&str]]) -> String {
    let folder = tempfile::tempdir_in(dir).expect("a folder for one log");
    let mut answer = String::new();
    for question in questions {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.arg(TURN).arg(log).arg(folder.path()).args(*question);
        command.env("WALRUS_QUIET", "1").env("WALRUS_DATA_DIR", folder.path());
        let output = command.output().expect("a turn");
        assert!(output.status.success(), "{log}: {}", String::from_utf8_lossy(&output.stderr));
        answer = String::from_utf8(output.stdout).expect("a line of numbers");
    }
    answer
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
