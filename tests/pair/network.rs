//! A network that damages, cuts and stops: it may delay an acknowledgement, never make a false one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::checker::Checker;
use crate::kills::Pair;
use crate::nodes::{Feed, signal};
use crate::proxy::{Proxy, Weather};
use crate::support::{run, run_with};

fn through(weather: Weather, mode: &'static str, wait: &str, lines: u64) -> (u64, u64) {
    let (pair, proxy) = Pair::start_behind(mode, |listen| Proxy::start(listen, weather, lines));
    let mut checker = Checker::default();
    let mut feed = Feed::start(&pair.data("p"), wait);
    for line in 0..lines {
        assert!(feed.line(&checker.next_line()), "{}", pair.primary().said());
        if line % 50 == 49 {
            assert!(feed.until(line + 1), "it gets through in the end:\n{}", pair.primary().said());
        }
    }
    proxy.calm_down();
    let (acked, code) = feed.finish();
    assert_eq!((acked.count, code), (lines, 0), "{}", pair.primary().said());
    checker.acknowledge(0, acked.count);
    pair.wait("in-sync");
    let scratch = pair.data("");
    checker.judge_restore("primary", &pair.data("p"), &scratch);
    checker.judge_restore("receiver", &pair.data("r"), &scratch);
    proxy.done()
}

#[test]
fn flipped_bits_are_noticed_and_sent_again() {
    let weather = Weather { flip_one_in: 8, cut_one_in: 0, piece_bytes_max: 16 << 10 };
    let (flips, _) = through(weather, "sync", "peer-durable", 600);
    println!("{flips} bits flipped");
    assert!(flips > 0);
}

#[test]
fn connections_cut_inside_a_message_go_on_without_a_gap() {
    let weather = Weather { flip_one_in: 0, cut_one_in: 30, piece_bytes_max: 700 };
    let (_, cuts) = through(weather, "semi-sync", "received", 600);
    println!("{cuts} connections cut");
    assert!(cuts > 0);
}

/// The peer stands still without a word: no acknowledgement at its level, `unknown` in time, and everything goes on
/// when it moves again.
#[test]
fn a_peer_that_stands_still_is_not_counted_and_comes_back() {
    let (pair, proxy) = Pair::start_behind("sync", |listen| {
        Proxy::start(listen, Weather { flip_one_in: 0, cut_one_in: 0, piece_bytes_max: 64 << 10 }, 1)
    });
    pair.wait("in-sync");
    let data = pair.data("p").display().to_string();
    signal(pair.receiver().pid(), "STOP");
    run_with(["append", "log", "-", "--wait", "peer-durable", "--timeout", "1s", "--data", &data], b"1\n")
        .expect(12)
        .says("unknown");
    run_with(["append", "log", "-", "--wait", "durable", "--data", &data], b"2\n").expect(0).prints("durable");
    proxy.cut_all();
    signal(pair.receiver().pid(), "CONT");
    pair.wait("in-sync");
    run_with(["append", "log", "-", "--wait", "peer-durable", "--data", &data], b"3\n").expect(0);
}

/// Damage is mended over a network that flips bits and cuts connections: each try mends whole segments with their own bytes,
/// or leaves them as they are.
#[test]
fn no_network_puts_a_wrong_byte_into_a_repair() {
    let mut pair = Pair::start("sync");
    let data = pair.data("p");
    let lines: String = (0..30_000).map(|line| format!("{line} {}\n", "x".repeat(60))).collect();
    let words = ["append", "log", "-", "--wait", "peer-durable", "--data", data.to_str().unwrap()];
    run_with(words, lines.as_bytes()).expect(0);
    pair.stop_primary();
    let whole = segments(&data);
    // not the last one: what stands behind the end of a log is nobody's
    let damaged: Vec<&PathBuf> = whole.keys().take(14).step_by(2).collect();
    for path in &damaged {
        let mut bytes = whole[*path].clone();
        bytes[4096 + 10_000..4096 + 200_000].fill(0x5a);
        fs::write(path, bytes).unwrap();
    }
    let spoiled = segments(&data);

    let weather = Weather { flip_one_in: 40, cut_one_in: 80, piece_bytes_max: 8 << 10 };
    let proxy = Proxy::start(pair.receiver().listen(), weather, 7);
    let copy = format!("towline://{}", proxy.address());
    let verify = || run(["verify", data.to_str().unwrap(), "--repair-from", &copy]);
    let mut codes = BTreeSet::new();
    for _ in 0..30 {
        codes.insert(verify().code);
        for (path, bytes) in segments(&data) {
            assert!(bytes == whole[&path] || bytes == spoiled[&path], "{}: other bytes", path.display());
        }
    }
    println!("exit codes {codes:?}; {:?} flips and cuts", proxy.done());
    assert!(codes.iter().all(|code| [0, 3, 4, 12, 13].contains(code)), "{codes:?}");
    assert!(codes.len() > 1, "the network was too good or too bad: {codes:?}");
    proxy.calm_down();
    verify().expect(0);
    assert!(segments(&data) == whole, "byte for byte what was there");
}

/// The segment files of a node's stream, with their bytes.
fn segments(data: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(data.join("streams/log/journal")).unwrap().map(|file| file.unwrap().path());
    let segments = files.filter(|path| path.extension().is_some_and(|ext| ext == "seg"));
    segments.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}
