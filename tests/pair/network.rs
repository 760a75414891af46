//! A network that damages, cuts and stops: it may delay an acknowledgement, never make a false one.

use crate::checker::Checker;
use crate::kills::Pair;
use crate::nodes::{Feed, signal};
use crate::proxy::{Proxy, Weather};
use crate::support::run_with;

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
