//! What an acknowledgement meant, seen from below: system calls are watched, delayed and failed with `strace`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::checker::Checker;
use crate::kills::{Pair, until};
use crate::nodes::{Feed, signal};
use crate::support::{run, run_with};

/// A process under watch. Let go when it is dropped.
struct Watched {
    strace: Child,
    log: PathBuf,
}

impl Watched {
    /// Attaches to every thread of `pid`; returns when it has.
    fn attach(pid: u32, log: &Path, how: &[&str]) -> Watched {
        let mut strace = Command::new("strace")
            .args(["-f", "-ttt", "-T", "-yy", "-s", "65536", "-o"])
            .arg(log)
            .args(how)
            .args(["-p", &pid.to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .expect("start strace");
        let stderr = strace.stderr.take().expect("a pipe");
        let mut lines = BufReader::new(stderr).lines();
        let attached = lines.by_ref().map_while(Result::ok).any(|line| line.contains("attached"));
        assert!(attached, "strace did not attach");
        std::thread::spawn(move || lines.for_each(drop));
        Watched { strace, log: log.to_owned() }
    }

    /// Lets go, and returns what was seen.
    fn detach(mut self) -> Vec<Call> {
        signal(self.strace.id(), "INT");
        let _ = self.strace.wait();
        self.seen()
    }

    /// What was seen so far.
    fn seen(&self) -> Vec<Call> {
        let text = std::fs::read(&self.log).expect("read what strace saw");
        parse(&String::from_utf8_lossy(&text))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// One system call: when it began and returned, in seconds.
#[derive(Debug)]
struct Call {
    began: f64,
    returned: f64,
    text: String,
}

impl Call {
    fn is(&self, name: &str) -> bool {
        self.text.starts_with(name)
    }

    fn succeeded(&self) -> bool {
        !self.text.contains("= -1 ")
    }
}

/// Joins `unfinished` and `resumed` halves; a call without an end has not returned.
fn parse(text: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut open: Vec<(String, usize)> = Vec::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((began, rest)) = rest.trim_start().split_once(' ') else { continue };
        let Ok(began) = began.parse::<f64>() else { continue };
        let took = rest.rsplit_once('<').and_then(|(_, took)| took.strip_suffix('>')?.parse::<f64>().ok());
        if let Some(resumed) = rest.strip_prefix("<... ") {
            if let Some(at) = open.iter().position(|(of, _)| of == thread) {
                let (_, index) = open.remove(at);
                calls[index].returned = took.map_or(began, |took| calls[index].began + took);
                calls[index].text.push_str(resumed);
            }
            continue;
        }
        let returned = took.map_or(f64::INFINITY, |took| began + took);
        if rest.contains("<unfinished") {
            open.push((thread.to_owned(), calls.len()));
        }
        calls.push(Call { began, returned, text: rest.to_owned() });
    }
    calls
}

/// The syncs that began after the bytes with `marker` had been written to a segment; none if they never were.
fn syncs<'a>(calls: &'a [Call], marker: &str) -> impl Iterator<Item = &'a Call> {
    let writes = |call: &&Call| call.is("pwrite") && call.text.contains(".seg") && call.text.contains(marker);
    let written = calls.iter().find(writes).map_or(f64::INFINITY, |write| write.returned);
    calls.iter().filter(move |call| {
        (call.is("fdatasync") || call.is("fsync")) && call.text.contains(".seg") && call.began >= written
    })
}

/// The first of them that returned.
fn synced<'a>(calls: &'a [Call], marker: &str) -> Option<&'a Call> {
    syncs(calls, marker).find(|call| call.succeeded() && call.returned.is_finite())
}

fn synced_at(calls: &[Call], marker: &str) -> f64 {
    synced(calls, marker).unwrap_or_else(|| panic!("{marker} was never synced")).returned
}

/// When the answer to the client left: the first one behind the write of the record.
fn answered_at(calls: &[Call], marker: &str) -> f64 {
    let written = calls.iter().find(|call| call.is("pwrite") && call.text.contains(marker)).expect("the write").began;
    let answer = calls.iter().find(|call| {
        let sends = call.is("write") || call.is("sendto") || call.is("sendmsg");
        sends && call.text.contains("UNIX") && call.began >= written && call.text.contains("durable")
    });
    answer.expect("an answer to the client").began
}

/// `None` where system calls can't be watched, said so.
fn strace_works() -> Option<()> {
    let tried = Command::new("strace").args(["-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    if tried.is_ok_and(|status| status.success()) {
        return Some(());
    }
    println!("SKIPPED: strace is not here or may not trace; install it and allow ptrace");
    None
}

const WATCH: [&str; 2] = ["-e", "trace=pwrite64,pwritev,fdatasync,fsync,write,writev,sendto,sendmsg"];
/// Until the watch ends.
const HOLD: [&str; 2] = ["-e", "inject=fdatasync:delay_enter=600000000"];

#[test]
fn nothing_is_acknowledged_before_the_sync_that_covers_it_has_returned() {
    if strace_works().is_none() {
        return;
    }
    let pair = Pair::start("sync");
    pair.wait("in-sync");
    let here = Watched::attach(pair.primary().pid(), &pair.data("here"), &WATCH);
    let there = Watched::attach(pair.receiver().pid(), &pair.data("there"), &WATCH);
    let markers: Vec<String> = (0..20).map(|number| format!("marker-{number:04}-of-the-record")).collect();
    let mut feed = Feed::start(&pair.data("p"), "peer-durable");
    for (count, marker) in markers.iter().enumerate() {
        feed.line(marker);
        assert!(feed.until(count as u64 + 1));
        assert_eq!(feed.last().level, "peer-durable");
    }
    feed.finish();
    let (here, there) = (here.detach(), there.detach());
    for marker in &markers {
        let answered = answered_at(&here, marker);
        assert!(answered >= synced_at(&here, marker), "{marker}: acknowledged before the own sync had returned");
        assert!(answered >= synced_at(&there, marker), "{marker}: acknowledged before the peer's sync had returned");
    }
}

fn fail_a_sync(side: &str) {
    if strace_works().is_none() {
        return;
    }
    let mut pair = Pair::start("sync");
    pair.wait("in-sync");
    let pid = if side == "p" { pair.primary().pid() } else { pair.receiver().pid() };
    let how = ["-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=3"];
    let watched = Watched::attach(pid, &pair.data("calls"), &how);
    let mut checker = Checker::default();
    let mut feed = Feed::start(&pair.data("p"), "peer-durable");
    for count in 1..=50 {
        if !feed.line(&checker.next_line()) || (side == "p" && !feed.until(count)) {
            break;
        }
        if side == "r" && pair.receiver_mut().has_ended() {
            break;
        }
    }
    if side == "p" {
        assert_eq!(pair.primary_mut().wait(), 1, "{}", pair.primary().said());
        let (acked, code) = feed.finish();
        assert_ne!(code, 0, "a failed sync was answered with success");
        checker.acknowledge(0, acked.count);
        assert!(pair.primary().said().contains("sync"), "{}", pair.primary().said());
        drop(watched);
        pair.start_primary();
    } else {
        assert_eq!(pair.receiver_mut().wait(), 1, "{}", pair.receiver().said());
        let before = feed.last().count;
        let status = run(["status", "log", "--data", &pair.data("p").display().to_string()]).expect(0);
        assert!(status.stdout.contains("sync"), "the primary was told why:\n{}", status.stdout);
        drop(watched);
        assert!(before < checker.len() as u64, "acknowledged after the peer's failed sync");
        pair.start_receiver();
        let (acked, code) = feed.finish();
        assert_eq!((acked.count, code), (checker.len() as u64, 0), "goes on when the peer is back");
        checker.acknowledge(0, acked.count);
    }
    pair.wait("in-sync");
    let scratch = pair.data("");
    checker.judge_restore("primary", &pair.data("p"), &scratch);
    checker.judge_restore("receiver", &pair.data("r"), &scratch);
}

#[test]
fn a_failed_sync_of_the_primary_ends_it_and_nothing_is_acknowledged_after() {
    fail_a_sync("p");
}

#[test]
fn a_failed_sync_of_the_receiver_ends_it_and_nothing_is_acknowledged_after() {
    fail_a_sync("r");
}

/// The sync of either side is held while the other one begins and returns: neither waits for the other.
#[test]
fn the_two_syncs_run_side_by_side() {
    if strace_works().is_none() {
        return;
    }
    let pair = Pair::start("sync");
    pair.wait("in-sync");
    let mut feed = Feed::start(&pair.data("p"), "peer-durable");
    // the first entry of a run is preceded by syncs of the control files
    feed.line("first");
    assert!(feed.until(1));
    let watch = |side: &str, log: &str, how: &[&str]| {
        let pid = if side == "p" { pair.primary().pid() } else { pair.receiver().pid() };
        // the first segment alone: what else is synced meanwhile is not held
        let segment = pair.data(side).join("streams/log/journal/0000000000000000.seg");
        Watched::attach(pid, &pair.data(log), &[how, &["-P", &segment.display().to_string()]].concat())
    };
    for (acked, (side, other)) in [(1, ("p", "r")), (2, ("r", "p"))] {
        let held = watch(side, "held", &[&WATCH[..], &HOLD].concat());
        let free = watch(other, "free", &WATCH);
        let marker = format!("marker-held-at-{side}");
        feed.line(&marker);
        until(|| synced(&free.seen(), &marker).is_some() && syncs(&held.seen(), &marker).next().is_some());
        assert!(synced(&held.seen(), &marker).is_none(), "it was not held");
        assert_eq!(feed.last().count, acked, "acknowledged before both syncs had returned");
        drop((held, free));
        assert!(feed.until(acked + 1));
    }
    feed.finish();
}

#[test]
fn a_frozen_sync_of_the_peer_is_received_and_not_peer_durable() {
    if strace_works().is_none() {
        return;
    }
    let pair = Pair::start("semi-sync");
    pair.wait("in-sync");
    let data = pair.data("p").display().to_string();
    let append = |wait| run_with(["append", "log", "-", "--wait", wait, "--timeout", "2s", "--data", &data], b"x\n");
    // the first entry of a run is preceded by a sync of the receiver's control file
    append("received").expect(0);
    let how = [&WATCH[..], &HOLD].concat();
    let _there = Watched::attach(pair.receiver().pid(), &pair.data("there"), &how);
    append("received").expect(0).prints("received");
    append("committed").expect(0);
    append("peer-durable").expect(12).says("unknown");
}
