//! Appenders under load: `towline append --acks` processes, fed and listened to.

use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use journal::Class;

use super::cast::towline;
use super::checker::{Bounds, record};
use crate::exit::Failure;

/// Records handed in at once; several, so that groups form, and few, so that kills hit the middle of something.
const BATCH: u64 = 16;
/// Records that may be on their way without an acknowledgement.
const WINDOW: u64 = 2048;
/// Most records per second and appender: a demo need not fill a disk, and everything is restored six times.
const RATE: f64 = 5000.0;

/// Some appenders, each with a process of its own.
#[derive(Debug)]
pub(super) struct Load {
    appenders: Vec<Appender>,
    pace: Arc<Pace>,
}

/// What the feeders are told.
#[derive(Debug, Default)]
struct Pace {
    stop: AtomicBool,
    flood: AtomicBool,
}

#[derive(Debug)]
struct Appender {
    child: Child,
    known: Arc<Known>,
    feeder: JoinHandle<()>,
    listener: JoinHandle<()>,
}

/// What the outside knows of one appender's records.
#[derive(Debug, Default)]
struct Known {
    sent: AtomicU64,
    acked: AtomicU64,
    /// An acknowledgement named another level than the one asked for, or could not be read.
    odd: AtomicBool,
}

/// How a load ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// What each appender knows.
    pub(super) bounds: Vec<Bounds>,
    /// Every acknowledgement named the level asked for.
    pub(super) levels_right: bool,
}

impl Load {
    /// Starts one appender for each of these numbers. Every number is used once: what an appender that lost its node
    /// had handed in and not heard of may be in the stream or not, so nobody can go on behind it.
    pub(super) fn start(
        data: &Path,
        stream: &str,
        level: &'static str,
        seed: u64,
        numbers: Range<usize>,
    ) -> Result<Load, Failure> {
        let pace = Arc::new(Pace::default());
        let mut appenders = Vec::new();
        for appender in numbers {
            let mut command = towline(["append", stream, "-", "--acks", "--wait", level])?;
            command.arg("--data").arg(data).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = command.spawn().map_err(|cause| Failure::io("start an appender", cause))?;
            let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
                return Err(Failure::new(Class::Io, "an appender was started without its pipes"));
            };
            let known = Arc::new(Known::default());
            let feeder = {
                let (known, pace) = (known.clone(), pace.clone());
                thread::spawn(move || feed(stdin, &known, &pace, seed, appender))
            };
            let listener = {
                let known = known.clone();
                thread::spawn(move || listen(stdout, &known, level))
            };
            appenders.push(Appender { child, known, feeder, listener });
        }
        Ok(Load { appenders, pace })
    }

    /// Acknowledged so far, by appender.
    pub(super) fn acked(&self) -> Vec<u64> {
        self.appenders.iter().map(|appender| appender.known.acked.load(Ordering::SeqCst)).collect()
    }

    /// Handed in so far, by appender.
    pub(super) fn sent(&self) -> Vec<u64> {
        self.appenders.iter().map(|appender| appender.known.sent.load(Ordering::SeqCst)).collect()
    }

    /// As fast as it goes from now on: what is killed next shall be in the middle of something.
    pub(super) fn flood(&self) {
        self.pace.flood.store(true, Ordering::SeqCst);
    }

    /// True while some appender could still be acknowledged something.
    pub(super) fn is_alive(&mut self) -> bool {
        self.appenders.iter_mut().any(|appender| matches!(appender.child.try_wait(), Ok(None)))
    }

    /// Hands in nothing more and waits for the end of every appender.
    pub(super) fn finish(self) -> Result<Ended, Failure> {
        self.pace.stop.store(true, Ordering::SeqCst);
        let mut ended = Ended { bounds: Vec::new(), levels_right: true };
        for mut appender in self.appenders {
            let waited = appender.feeder.join().and_then(|()| appender.listener.join());
            waited.map_err(|_| Failure::new(Class::Io, "a thread of the demo panicked"))?;
            appender.child.wait().map_err(|cause| Failure::io("wait for an appender", cause))?;
            ended.levels_right &= !appender.known.odd.load(Ordering::SeqCst);
            ended.bounds.push(Bounds {
                acked: appender.known.acked.load(Ordering::SeqCst),
                sent: appender.known.sent.load(Ordering::SeqCst),
            });
        }
        Ok(ended)
    }
}

/// Hands in records until told to stop or until nobody takes them any more. `sent` counts before the bytes leave: it is
/// what may appear.
fn feed(mut stdin: ChildStdin, known: &Known, pace: &Pace, seed: u64, appender: usize) {
    let began = Instant::now();
    let mut lines = Vec::new();
    while !pace.stop.load(Ordering::SeqCst) {
        let sent = known.sent.load(Ordering::SeqCst);
        let due = began.elapsed().as_secs_f64() * RATE;
        let early = sent as f64 > due && !pace.flood.load(Ordering::SeqCst);
        if early || sent.saturating_sub(known.acked.load(Ordering::SeqCst)) >= WINDOW {
            thread::park_timeout(Duration::from_millis(1));
            continue;
        }
        lines.clear();
        for number in sent..sent + BATCH {
            record(seed, appender, number, &mut lines);
            lines.push(b'\n');
        }
        known.sent.store(sent + BATCH, Ordering::SeqCst);
        if stdin.write_all(&lines).is_err() {
            return;
        }
    }
}

/// Reads `acked COUNT LSN LEVEL` lines; a line without its end doesn't count.
fn listen(stdout: ChildStdout, known: &Known, level: &str) {
    let mut reader = BufReader::new(stdout);
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|bytes| bytes > 0) && line.ends_with('\n') {
        if let Some(acked) = line.strip_prefix("acked ") {
            let mut words = acked.split_whitespace();
            match words.next().map(str::parse::<u64>) {
                Some(Ok(count)) => known.acked.store(count, Ordering::SeqCst),
                _ => known.odd.store(true, Ordering::SeqCst),
            }
            if words.nth(1) != Some(level) {
                known.odd.store(true, Ordering::SeqCst);
            }
        }
        line.clear();
    }
}
