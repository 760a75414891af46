//! Shipping to depots, now and when the schedule does.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::support::{Ended, run, run_with};

/// A primary `P` of the stream `log`.
struct Node {
    folder: TempDir,
    daemon: Daemon,
}

impl Node {
    /// With these destinations; `{}` is its folder.
    fn start(to: &[&str]) -> Node {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().to_str().unwrap().to_owned();
        let to = to.iter().flat_map(|to| ["--to".to_owned(), to.replace("{}", &at)]);
        let words = ["primary", "--data", &format!("{at}/P"), "--stream", "log"].map(str::to_owned);
        let mut daemon = Daemon::start(words.into_iter().chain(to));
        daemon.hear("next");
        Node { folder, daemon }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn run(&self, words: &[&str]) -> Ended {
        run([words, &["--data", &self.path("P")]].concat())
    }

    /// Appends one record; the position behind it.
    fn append(&self) -> u64 {
        let words = ["append", "log", "--wait", "durable", "--json", "--data", &self.path("P")];
        let said: Value = serde_json::from_str(&run_with(words, b"record\n").expect(0).stdout).unwrap();
        said["lsn"].as_u64().or(said["done"]["lsn"].as_u64()).unwrap()
    }

    /// Waits until every depot has said where it ends: what is appended from now on is in no cut that was due at the start.
    fn settled(self) -> Node {
        self.run(&["wait", "log", "--for", "shipped", "--timeout", "60s"]).expect(0);
        self
    }
}

#[test]
fn the_next_cut_is_not_made_earlier() {
    let node = Node::start(&["{}/far,every=1d"]).settled();
    node.append();
    let late = node.run(&["ship", "log", "--next", "--timeout", "200ms"]).expect(12);
    // when it is due, and where: local and UTC at the start, and again at the end
    let late = late.says("log: ").says("far is due at 2").says("Z)\n").says("not yet").says("(the time is up)");
    assert_eq!(late.stdout, "");
    node.run(&["ship", "--next", "--timeout", "200ms", "--quiet"]).expect(12);
    run(["depot", "ls", &node.path("far")]).expect(0).prints(": 0 batches");
    run(["ship", "--now", "--next"]).expect(2).says("cannot be used with");
}

#[test]
fn the_next_cut_holds_what_came_before_it() {
    let node = Node::start(&["{}/a,every=1s,name=a", "{}/b,name=b,schedule=every 1s or 64 KiB"]).settled();
    let lsn = node.append();
    let shipped =
        node.run(&["ship", "--next", "--json", "--timeout", "60s"]).expect(0).says("a is due at").says("or when");
    let depots: Vec<Value> = shipped.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(depots.len(), 2, "a line for each");
    for (depot, name) in depots.iter().zip(["a", "b"]) {
        assert_eq!((&depot["schema"], &depot["stream"], &depot["depot"]), (&1.into(), &"log".into(), &name.into()));
        assert!(depot["lsn"].as_u64().unwrap() >= lsn, "{depot}");
    }
    run(["verify", &node.path("a")]).expect(0);
    // nothing came since
    node.run(&["ship", "log", "--next", "--timeout", "60s"])
        .expect(0)
        .prints(&format!("log: nothing was to be cut; a holds everything up to LSN {lsn} already"));
}

#[test]
fn what_keeps_a_depot_from_being_reached_is_said_while_it_is_waited_for() {
    let node = Node::start(&["{}/P/node/depot,every=1d,name=night"]);
    node.append();
    // `node` is a file: no folder can be made in it
    let place = node.path("P/node/depot");
    for words in [&["ship"][..], &["ship", "--next"]] {
        let mut waiting = Daemon::start([words, &["--data", &node.path("P")]].concat());
        let why = waiting.hear("the last attempt failed and is repeated: ");
        assert!(why.contains(&place), "{why}");
        waiting.kill();
        node.run(&[words, &["--timeout", "100ms"]].concat()).expect(12).says("night").says(&place);
    }
    assert!(!Path::new(&place).exists());
    let words = ["wait", "log", "--for", "shipped", "--timeout", "100ms"];
    node.run(&words).expect(12).says("unknown: night: ").says(&place);
    // the log of the node names stream and depot too
    let data = node.path("P");
    let said = node.daemon.stop(Path::new(&data)).expect(0).stderr;
    assert!(
        said.lines().any(|line| line.contains("ship a batch of=\"log to night\"") && line.contains(&place)),
        "{said}"
    );
}

#[test]
fn the_node_of_a_depot_out_of_reach_is_named_by_its_address() {
    let node = Node::start(&["127.0.0.1:1,depot,every=1d,name=far"]);
    node.append();
    let mut waiting = Daemon::start(["ship", "--data", &node.path("P")]);
    let why = waiting.hear("is to go to far; the last attempt failed and is repeated: ");
    assert!(why.starts_with("depot at 127.0.0.1:1: "), "{why}");
}

/// A depot whose disk isn't mounted is an empty folder: it passed for one that is whole.
#[test]
fn where_no_batches_are_nothing_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (empty, file) = (folder.path().join("empty"), folder.path().join("file"));
    std::fs::create_dir(&empty).unwrap();
    std::fs::write(&file, "").unwrap();
    for look in ["ls", "verify"] {
        let ended = run(["depot", look, empty.to_str().unwrap()]).expect(10);
        assert_eq!(ended.says("no stream has batches here").says("is its disk mounted?").stdout, "");
        run(["depot", look, file.to_str().unwrap()]).expect(10).says("this is a file, no depot");
    }
}

#[test]
fn who_asks_in_the_wrong_place_is_told_so() {
    let node = Node::start(&[]);
    node.append();
    for words in [&["ship"][..], &["ship", "log"], &["ship", "log", "--next"], &["wait", "log", "--for", "shipped"]] {
        node.run(words).expect(10).says("depot").says("nothing is shipped").says("hint: add one: --to ./DEPOT");
    }
    node.run(&["ship", "nope"]).expect(10).says("no stream nope here; there is log");
    let receiver = node.path("R");
    let mut daemon = Daemon::start(["receiver", "--data", &receiver, "--listen", "127.0.0.1:0"]);
    daemon.hear("next");
    run(["ship", "--data", &receiver]).expect(10).says("this node writes no stream that has a depot");
    run(["ship", "log", "--data", &receiver]).expect(10).says("no stream log here; there is none");
}
