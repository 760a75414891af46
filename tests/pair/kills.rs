//! `kill -9` of either side under load, in each mode.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::checker::Checker;
use crate::nodes::{Daemon, Feed, PATIENCE, primary, receiver};
use crate::proxy::Proxy;
use crate::support::run;

/// Of these about half kill the primary, half the receiver.
const CYCLES: usize = 40;
const LINES_MAX: u64 = 400;

/// Small deterministic dice.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What lies between the two.
pub(crate) trait Network {
    /// Where to connect to; `None`: directly.
    fn address(&self) -> Option<&str>;
}

impl Network for () {
    fn address(&self) -> Option<&str> {
        None
    }
}

impl Network for Proxy {
    fn address(&self) -> Option<&str> {
        Some(Proxy::address(self))
    }
}

/// A primary and a receiver.
pub(crate) struct Pair {
    folder: tempfile::TempDir,
    mode: &'static str,
    listen: String,
    to: String,
    primary: Option<Daemon>,
    receiver: Option<Daemon>,
}

impl Pair {
    pub(crate) fn start(mode: &'static str) -> Pair {
        Pair::start_behind(mode, |_| ()).0
    }

    /// The primary reaches the receiver at the address that `network` says, if it says one.
    pub(crate) fn start_behind<N: Network>(mode: &'static str, network: impl FnOnce(&str) -> N) -> (Pair, N) {
        let folder = tempfile::tempdir().unwrap();
        let receiver = receiver(&folder.path().join("r"), "127.0.0.1:0");
        let listen = receiver.listen().to_owned();
        let network = network(&listen);
        let to = network.address().unwrap_or(&listen).to_owned();
        let mut pair = Pair { folder, mode, listen, to, primary: None, receiver: Some(receiver) };
        pair.start_primary();
        (pair, network)
    }

    pub(crate) fn start_primary(&mut self) {
        self.primary = None;
        let to = self.to.clone();
        self.primary = Some(primary(&self.data("p"), &["--to", &to, "--mode", self.mode]));
    }

    pub(crate) fn stop_primary(&mut self) {
        let primary = self.primary.take().expect("a primary");
        assert_eq!(primary.stop(), 0);
    }

    pub(crate) fn start_receiver(&mut self) {
        self.receiver = None;
        self.receiver = Some(receiver(&self.data("r"), &self.listen));
    }

    pub(crate) fn primary(&self) -> &Daemon {
        self.primary.as_ref().expect("a primary")
    }

    pub(crate) fn primary_mut(&mut self) -> &mut Daemon {
        self.primary.as_mut().expect("a primary")
    }

    pub(crate) fn receiver(&self) -> &Daemon {
        self.receiver.as_ref().expect("a receiver")
    }

    pub(crate) fn receiver_mut(&mut self) -> &mut Daemon {
        self.receiver.as_mut().expect("a receiver")
    }

    pub(crate) fn data(&self, side: &str) -> PathBuf {
        self.folder.path().join(side)
    }

    pub(crate) fn wait(&self, what: &str) {
        let data = self.data("p").display().to_string();
        run(["wait", "log", "--for", what, "--timeout", "60s", "--data", &data]).expect(0);
    }
}

/// Waits until something holds; how long that takes decides nothing.
pub(crate) fn until(mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "it never held");
        thread::sleep(Duration::from_millis(1));
    }
}

fn cycles(mode: &'static str, wait: &str) {
    let mut pair = Pair::start(mode);
    let mut checker = Checker::default();
    let mut dice = Dice(mode.len() as u64);
    for cycle in 0..CYCLES {
        let from = checker.len();
        let mut feed = Feed::start(&pair.data("p"), wait);
        let lines = 1 + dice.below(LINES_MAX);
        let killed_after = dice.below(lines);
        let kill_primary = dice.below(2) == 0;
        let mut gone = false;
        for line in 0..lines {
            gone |= !feed.line(&checker.next_line());
            if line == killed_after {
                if dice.below(4) != 0 && !gone {
                    gone |= !feed.until(dice.below(line + 1));
                }
                if kill_primary {
                    pair.primary.take().unwrap().kill();
                    gone = true;
                } else {
                    pair.receiver.take().unwrap().kill();
                    pair.start_receiver();
                }
            }
        }
        let (acked, code) = feed.finish();
        checker.acknowledge(from, acked.count);
        println!(
            "cycle {cycle}: killed {}, {} of {lines} acknowledged",
            if gone { "primary" } else { "receiver" },
            acked.count
        );
        if !gone {
            assert_eq!((acked.count, code), (lines, 0), "a receiver that comes back loses nothing");
        }
        if pair.primary.is_none() {
            pair.start_primary();
        }
    }
    let mut feed = Feed::start(&pair.data("p"), wait);
    let from = checker.len();
    feed.line(&checker.next_line());
    let (acked, code) = feed.finish();
    assert_eq!((acked.count, code), (1, 0));
    checker.acknowledge(from, 1);
    pair.wait("in-sync");
    assert!(checker.acknowledged() > CYCLES, "the load was acknowledged");

    let tailed = run(["tail", "log", "--from", "start", "--data", &pair.data("p").display().to_string()]).expect(0);
    checker.judge("tail of the primary", &tailed.stdout);
    let scratch = pair.folder.path().to_owned();
    checker.judge_restore("running primary", &pair.data("p"), &scratch);
    checker.judge_restore("running receiver", &pair.data("r"), &scratch);
    pair.primary.take().unwrap().kill();
    assert_eq!(pair.receiver.take().unwrap().stop(), 0);
    checker.judge_restore("primary", &pair.data("p"), &scratch);
    checker.judge_restore("receiver", &pair.data("r"), &scratch);
    checker.judge("the receiver's record file", &record_file(&pair.data("r")));
}

/// What lies in the receiver's record file.
pub(crate) fn record_file(data: &Path) -> String {
    let file = volume::records::RecordFile::open(&data.join("streams/log/records")).unwrap();
    let mut walk = file.walk(file.start()).unwrap();
    let mut text = String::new();
    while let Some(record) = walk.next_record().unwrap() {
        text.push_str(std::str::from_utf8(record.payload).unwrap());
        text.push('\n');
    }
    text
}

#[test]
fn sync_survives_kills_of_either_side() {
    cycles("sync", "peer-durable");
}

#[test]
fn semi_sync_survives_kills_of_either_side() {
    cycles("semi-sync", "received");
}

#[test]
fn async_survives_kills_of_either_side() {
    cycles("async", "durable");
}
