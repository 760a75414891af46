//! A primary and the nodes it ships to.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::records::Disk;
use crate::support::{Ended, run, run_with};

#[test]
fn a_receiver_that_is_not_there_is_waited_for_and_nothing_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(&folder, "P");
    // bound and never accepted on: nobody else can take the port meanwhile
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut primary = Daemon::start(["primary", "--data", &data, "--stream", "log", "--to", &nobody]);
    primary.hear("next");
    let words = ["append", "log", "--data", &data, "--acks", "--wait", "peer-durable", "--timeout", "2s"];
    let ended = run_with(words, b"x\n").expect(12).says("unknown").says(&nobody);
    assert_eq!(ended.stdout, "", "nothing is acknowledged");
    run(["status", "--data", &data, "--exit-code"]).expect(5).prints("waits for").prints(&nobody).prints("promote log");
    run(["wait", "log", "--for", "connected", "--timeout", "100ms", "--data", &data]).expect(12);
    primary.stop(Path::new(&data)).expect(0);
}

/// A budget that holds no two segments is said at the start, with the smallest one that does.
#[test]
fn a_budget_of_less_than_two_segments_is_78() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(&folder, "P");
    let depot = path(&folder, "./depot");
    let to = format!("{depot},every=15m");
    let ended = run(["primary", "--data", &data, "--stream", "log", "--to", &to, "--budget", "1 MiB"]).expect(78);
    ended.says("too small").says("--budget").says(&(2 * (4096 + (16 << 20))).to_string());
}

/// Off loopback there is no link without TLS, unless the explicit word is said; nothing is made before that is settled.
#[test]
fn another_machine_without_tls_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(&folder, "P");
    for to in ["192.0.2.1:7400", "192.0.2.1:7400,depot,every=1m"] {
        let ended = run(["primary", "--data", &data, "--stream", "log", "--to", to]).expect(78);
        ended.says("192.0.2.1:7400").says("--plaintext");
        assert!(!Path::new(&data).exists(), "nothing was made");
    }
    run(["receiver", "--data", &data, "--listen", "0.0.0.0:0"]).expect(78).says("--plaintext");
}

/// A primary `P` and a receiver `R` of the stream `log`.
pub(crate) struct Pair {
    folder: TempDir,
    pub(crate) address: String,
    flags: Vec<String>,
    pub(crate) primary: Option<Daemon>,
    pub(crate) receiver: Option<Daemon>,
}

impl Pair {
    pub(crate) fn start(flags: &[&str]) -> Pair {
        let mut pair = Pair {
            folder: tempfile::tempdir().unwrap(),
            address: "127.0.0.1:0".to_owned(),
            flags: flags.iter().map(ToString::to_string).collect(),
            primary: None,
            receiver: None,
        };
        pair.start_receiver();
        pair.start_primary();
        pair
    }

    pub(crate) fn start_receiver(&mut self) {
        let mut receiver = Daemon::start(["receiver", "--data", &self.data("R"), "--listen", &self.address]);
        self.address = receiver.hear("listens on ");
        receiver.hear("next");
        self.receiver = Some(receiver);
    }

    pub(crate) fn start_primary(&mut self) {
        let data = self.data("P");
        let words = ["primary", "--data", &data, "--stream", "log", "--to", &self.address];
        let mut primary = Daemon::start(words.into_iter().chain(self.flags.iter().map(String::as_str)));
        primary.hear("next");
        self.primary = Some(primary);
    }

    pub(crate) fn data(&self, node: &str) -> String {
        path(&self.folder, node)
    }

    pub(crate) fn append(&self, input: &[u8], more: &[&str]) -> Ended {
        run_with([&["append", "log", "--data", &self.data("P")], more].concat(), input)
    }

    pub(crate) fn restored(&self, from: &str) -> Vec<u8> {
        let out = self.data("out");
        run(["restore", "log", "--from", &self.data(from), "--to", &out, "--force"]).expect(0);
        fs::read(out).unwrap()
    }
}

#[test]
fn a_file_is_on_both_sides_after_kill_9_of_both_in_every_mode() {
    let input = fs::read("/etc/services").unwrap_or_else(|_| include_bytes!("peers.rs").to_vec());
    for (mode, level) in [("sync", "peer-durable"), ("semi-sync", "received"), ("async", "durable")] {
        let mut pair = Pair::start(&["--mode", mode]);
        pair.append(&input, &["--wait", level, "--timeout", "60s"]).expect(0).prints(level);
        if mode == "async" {
            run(["wait", "log", "--for", "in-sync", "--timeout", "60s", "--data", &pair.data("P")]).expect(0);
        }
        pair.primary.take().unwrap().kill();
        pair.receiver.take().unwrap().kill();
        assert!(pair.restored("R") == input, "{mode}: the receiver's copy");
        assert!(pair.restored("P") == input, "{mode}: the primary's copy");
    }
}

#[test]
fn a_vanished_peer_leaves_the_outcome_unknown() {
    let mut pair = Pair::start(&[]);
    pair.append(b"one\n", &["--wait", "peer-durable"]).expect(0);
    pair.receiver.take().unwrap().kill();
    pair.append(b"two\n", &["--wait", "peer-durable", "--timeout", "1s"]).expect(12).says("unknown").says("--lsn");
    // it is asked again once the peer is back
    pair.start_receiver();
    run(["wait", "log", "--for", "durable", "--timeout", "60s", "--data", &pair.data("P")]).expect(0);
    pair.primary.take().unwrap().kill();
    assert_eq!(pair.restored("R"), b"one\ntwo\n");
}

#[test]
fn alone_is_said_in_every_answer() {
    let mut pair = Pair::start(&["--on-loss", "alone:200ms", "--dead-after", "500ms"]);
    pair.append(b"together\n", &[]).expect(0);
    pair.receiver.take().unwrap().kill();
    pair.append(b"alone\n", &["--timeout", "60s"]).expect(5).prints("alone");
    run(["status", "--data", &pair.data("P"), "--exit-code"]).expect(5).prints("alone");
    // what a peer must hold is never said of a peer that is not there
    pair.append(b"not there\n", &["--wait", "peer-durable", "--timeout", "500ms"]).expect(12);
    pair.start_receiver();
    let wait = ["wait", "log", "--for", "in-sync", "--timeout", "60s", "--data", &pair.data("P")];
    // it counts again a moment after it has caught up: until then every answer goes on saying that it doesn't
    let counts = (0..10_000).any(|_| match run(wait).code {
        0 => true,
        code => {
            assert_eq!(code, 5);
            false
        }
    });
    assert!(counts, "the peer that is back never counts again");
    pair.append(b"again\n", &["--timeout", "60s"]).expect(0);
}

#[test]
fn a_promoted_receiver_fences_the_old_primary() {
    let mut pair = Pair::start(&["--listen", "127.0.0.1:0"]);
    pair.append(b"before\n", &["--wait", "peer-durable"]).expect(0);
    pair.primary.take().unwrap().kill();
    let promoted = run(["promote", "log", "--data", &pair.data("R")]).expect(0);
    assert!(promoted.stdout.contains("term 2"), "{}", promoted.stdout);
    run_with(["append", "log", "--data", &pair.data("R"), "--wait", "durable"], b"after\n").expect(5).prints("alone");
    assert_eq!(run(["tail", "log", "--data", &pair.data("R")]).expect(0).stdout, "before\nafter\n");

    pair.start_primary();
    let ended = pair.append(b"never\n", &["--timeout", "60s"]).expect(14);
    assert!(!ended.stdout.contains("appended"), "{}", ended.stdout);
    run(["status", "--data", &pair.data("P")]).expect(0).prints("fenced");
    // a restart changes nothing
    pair.primary.take().unwrap().stop(Path::new(&pair.data("P"))).expect(0);
    pair.start_primary();
    pair.append(b"never\n", &["--timeout", "60s"]).expect(14);
}

#[test]
fn links_are_encrypted_and_strangers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| path(&folder, name);
    for (ca, node) in [("ca", "p"), ("ca", "r"), ("other-ca", "stranger")] {
        if !Path::new(&path(ca)).exists() {
            run(["pki", "init", &path(ca)]).expect(0);
        }
        run(["pki", "issue", node, "--ca", &path(ca), "--out", &path(node)]).expect(0);
    }
    let receiver = ["receiver", "--data", &path("R"), "--listen", "127.0.0.1:0", "--tls", &path("r")];
    let mut receiver = Daemon::start(receiver);
    let to = receiver.hear("listens on ");
    let primary = |data: &str, tls: &str| {
        let words = ["primary", "--data", data, "--stream", "log", "--to", &to, "--tls", tls];
        let mut primary = Daemon::start(words);
        primary.hear("next");
        primary
    };
    let node = primary(&path("P"), &path("p"));
    run_with(["append", "log", "--data", &path("P"), "--wait", "peer-durable", "--timeout", "60s"], b"x\n").expect(0);
    drop(node);

    let stranger = primary(&path("S"), &path("stranger"));
    let refused = ["wait", "log", "--for", "connected", "--timeout", "2s", "--data", &path("S")];
    run(refused).expect(13).says("certificate");
    run(["status", "--data", &path("S")]).expect(0).prints("certificate");
    drop(stranger);
    // a folder whose parts don't belong together doesn't start at all
    fs::copy(path("ca/ca.pem"), path("stranger/ca.pem")).unwrap();
    let words = ["primary", "--data", &path("T"), "--stream", "log", "--to", &to, "--tls", &path("stranger")];
    run(words).expect(78).says("cert.pem");
}

#[test]
fn unencrypted_links_off_loopback_need_the_explicit_word() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(&folder, "R");
    run(["receiver", "--data", &data, "--listen", "0.0.0.0:0"]).expect(78).says("--plaintext");
    let mut plain = Daemon::start(["receiver", "--data", &data, "--listen", "0.0.0.0:0", "--plaintext"]);
    plain.hear("listens on ");
}

#[test]
fn batches_lie_in_a_folder_and_on_another_node() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| path(&folder, name);
    let mut keeper = Daemon::start(["receiver", "--data", &path("K"), "--listen", "127.0.0.1:0"]);
    let node = format!("{},depot", keeper.hear("listens on "));
    let local = path("depot");
    let words = ["primary", "--data", &path("P"), "--stream", "log", "--to", &local, "--to", &node];
    let mut primary = Daemon::start(words.into_iter().chain(["--schedule", "every 1h"]));
    primary.hear("next");
    run_with(["append", "log", "--data", &path("P")], b"one\ntwo\n").expect(0);
    run(["mark", "log", "two", "--data", &path("P")]).expect(0);
    run_with(["append", "log", "--data", &path("P")], b"three\n").expect(0);
    // nothing is due for an hour
    run(["wait", "log", "--for", "shipped", "--timeout", "300ms", "--data", &path("P")]).expect(12);
    run(["ship", "log", "--data", &path("P"), "--timeout", "60s"]).expect(0).prints("holds everything up to LSN");
    run(["wait", "log", "--for", "shipped", "--timeout", "60s", "--data", &path("P")]).expect(0);
    primary.kill();
    for depot in [local, path("K")] {
        let out = path("out");
        run(["restore", "log", "--from", &depot, "--to", &out, "--force"]).expect(0);
        assert_eq!(fs::read_to_string(&out).unwrap(), "one\ntwo\nthree\n");
        run(["restore", "log", "--from", &depot, "--to", &out, "--force", "--at", "mark:two"]).expect(0);
        assert_eq!(fs::read_to_string(&out).unwrap(), "one\ntwo\n");
        run(["depot", "ls", &depot]).expect(0).prints("stream log").prints("mark two");
        run(["depot", "verify", &depot]).expect(0).prints("all good");
        run(["restore", "other", "--from", &depot, "--to", &out, "--force"]).expect(10);
        spoil_a_batch(&depot);
        run(["depot", "verify", &depot]).expect(4).prints("FAULT");
        run(["verify", &depot]).expect(4);
        run(["restore", "log", "--from", &depot, "--to", &out, "--force"]).expect(4);
        assert_eq!(fs::read_to_string(&out).unwrap(), "one\ntwo\n", "what was there is kept");
    }
}

/// Flips a bit in the middle of every batch below.
fn spoil_a_batch(folder: &str) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            spoil_a_batch(entry.to_str().unwrap());
        } else if entry.extension().is_some_and(|ext| ext == "batch") {
            let mut bytes = fs::read(&entry).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(entry, bytes).unwrap();
        }
    }
}

/// What a service manager collects is read in files: no colours, no names of types, and one line for one change.
#[test]
fn a_lost_peer_is_one_line_in_plain_words() {
    let folder = tempfile::tempdir().unwrap();
    let data = path(&folder, "P");
    let mut receiver = Daemon::start(["receiver", "--data", &path(&folder, "R"), "--listen", "127.0.0.1:0"]);
    let at = receiver.hear("listens on ");
    let mut primary = Daemon::start(["primary", "--data", &data, "--stream", "log", "--to", &at]);
    primary.hear("next: ");
    run_with(["append", "log", "--data", &data], b"x\n").expect(0);
    receiver.kill();
    let line = primary.hear("a required peer is lost: commits wait for it");
    let shown = run(["status", "--data", &data]).expect(0).prints("blocked").stdout;
    assert!(!shown.contains(&format!("{at} peer {at}")) && !shown.contains(&format!("{at} ({at})")), "{shown}");
    let said = primary.stop(Path::new(&data)).expect(0).stderr + &line;
    assert!(!said.contains('\x1b'), "colours: {said:?}");
    assert_eq!(said.matches("a required peer is lost").count(), 1, "{said}");
}

fn path(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}

/// A primary that is refused tries every few seconds: its own log and the receiver's say so once.
#[test]
fn a_stranger_is_told_at_once_and_is_one_line_in_each_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| path(&folder, name);
    for (ca, node) in [("ca", "r"), ("other-ca", "stranger")] {
        run(["pki", "init", &path(ca)]).expect(0);
        run(["pki", "issue", node, "--ca", &path(ca), "--out", &path(node)]).expect(0);
    }
    let (r, p) = (path("R"), path("P"));
    let mut receiver = Daemon::start(["receiver", "--data", &r, "--listen", "127.0.0.1:0", "--tls", &path("r")]);
    let to = receiver.hear("listens on ");
    let words = ["primary", "--data", &p, "--stream", "log", "--to", &to, "--tls", &path("stranger")];
    let mut primary = Daemon::start(words);
    primary.hear("not connected: ");
    // no --timeout: it doesn't wait for what only a person can mend
    run_with(["append", "log", "--data", &p], b"x\n").expect(13).says("certificate").says("nothing was acknowledged");
    run(["status", "--data", &p]).expect(0).prints("next step").prints("pki issue").prints("Mended, it connects by");
    // long enough for several attempts: 100 ms, 200 ms, 400 ms, …
    run(["wait", "log", "--for", "connected", "--timeout", "2s", "--data", &p]).expect(13);
    let primary = primary.stop(Path::new(&p)).expect(0).stderr;
    assert_eq!(primary.matches("not connected").count(), 1, "{primary}");
    let receiver = receiver.stop(Path::new(&r)).expect(0).stderr;
    assert_eq!(receiver.matches("was refused").count(), 1, "{receiver}");
}

/// A receiver without space accepted every greeting and failed at the first entry: the primary took it for found and lost
/// again every few seconds, wrote that down each time, and never went on alone.
#[test]
fn a_receiver_on_a_full_disk_is_lost_once_and_catches_up_when_there_is_space() {
    let disk = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(disk.path(), "8m") else {
        return eprintln!("skipped: a small file system can't be mounted here");
    };
    let folder = tempfile::tempdir().unwrap();
    let (r, p) = (disk.0.join("R").to_str().unwrap().to_owned(), path(&folder, "P"));
    let ballast = disk.0.join("ballast");
    fs::write(&ballast, vec![1; 5 << 20]).unwrap();
    let mut receiver = Daemon::start(["receiver", "--data", &r, "--listen", "127.0.0.1:0"]);
    let to = receiver.hear("listens on ");
    let words = ["primary", "--data", &p, "--stream", "log", "--to", &to, "--segment", "64 KiB"];
    let mut primary = Daemon::start(words.into_iter().chain(["--on-loss", "alone:6s"]));
    primary.hear("next: ");
    let input: Vec<u8> = (0..2000).flat_map(|number| format!("{number} {}\n", "f".repeat(1000)).into_bytes()).collect();
    // it is refused every five seconds at most: it was tried again by the time that the primary goes on alone
    run_with(["append", "log", "--data", &p, "--timeout", "60s"], &input).expect(5).prints("2000 records");
    run(["status", "--data", &p]).expect(0).prints("No space left").prints("alone");
    run(["status", "--data", &r]).expect(0).prints("free some space");
    fs::remove_file(&ballast).unwrap();
    let wait = ["wait", "log", "--for", "in-sync", "--timeout", "60s", "--data", &p];
    assert!([0, 5].contains(&run(wait).code), "it has everything");
    primary.hear("every required peer counts again");
    assert!(run(["tail", "log", "--data", &r]).expect(0).stdout.as_bytes() == input, "nothing is missing");
    let said = receiver.stop(Path::new(&r)).expect(0).stderr;
    assert_eq!(said.matches("ERROR receive").count(), 1, "{said}");
    let said = primary.stop(Path::new(&p)).expect(0).stderr;
    assert_eq!(said.matches("counts again").count(), 1, "{said}");
    run(["verify", &r]).expect(0);
}
