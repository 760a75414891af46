//! Damage in a journal, and the way back: `verify --repair-from`, with real nodes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::support::{run, run_with};

/// A primary `P` whose stream `log` has a receiver `R` and a depot, all with the same records. The primary is stopped.
pub(crate) struct Nodes {
    pub(crate) folder: TempDir,
    pub(crate) address: String,
    pub(crate) receiver: Daemon,
    /// What else the primary is told.
    more: Vec<String>,
}

impl Nodes {
    pub(crate) fn new() -> Nodes {
        Nodes::with(tempfile::tempdir().unwrap(), &[], |_| Vec::new())
    }

    /// With these words for the receiver, and those for the primary that follow from its address.
    pub(crate) fn with(folder: TempDir, receiver: &[String], more: impl Fn(&str) -> Vec<String>) -> Nodes {
        let words = ["receiver", "--data", &path(&folder, "R"), "--listen", "127.0.0.1:0"].map(str::to_owned);
        let mut receiver = Daemon::start(words.iter().chain(receiver));
        let address = receiver.hear("listens on ");
        receiver.hear("next");
        let more = more(&address);
        let nodes = Nodes { folder, address, receiver, more };
        let primary = nodes.start_primary();
        let data = nodes.data("P");
        let lines: String = (0..20_000).map(|number| format!("line {number} {}\n", "x".repeat(40))).collect();
        let words = ["append", "log", "--data", &data, "--wait", "peer-durable", "--timeout", "60s"];
        run_with(words, lines.as_bytes()).expect(0);
        run(["ship", "log", "--data", &data, "--timeout", "60s"]).expect(0);
        primary.stop(Path::new(&data)).expect(0);
        nodes
    }

    fn words(&self) -> Vec<String> {
        let (data, depot) = (self.data("P"), self.data("depot"));
        let words = ["primary", "--data", &data, "--stream", "log", "--segment", "256 KiB", "--mode", "sync"];
        let to = [format!("--to={}", self.address), format!("--to={depot},every=1h")];
        words.into_iter().map(str::to_owned).chain(to).chain(self.more.clone()).collect()
    }

    pub(crate) fn start_primary(&self) -> Daemon {
        let mut primary = Daemon::start(self.words());
        primary.hear("next");
        primary
    }

    pub(crate) fn data(&self, name: &str) -> String {
        path(&self.folder, name)
    }

    /// The primary's segment files, by name.
    pub(crate) fn segments(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        self.segments_of("P")
    }

    pub(crate) fn segments_of(&self, node: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let journal = PathBuf::from(self.data(node)).join("streams/log/journal");
        let files = fs::read_dir(journal).unwrap().map(|file| file.unwrap().path());
        let segments = files.filter(|path| path.extension().is_some_and(|ext| ext == "seg"));
        segments.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    /// The segment of this number, oldest first.
    pub(crate) fn segment(&self, number: usize) -> PathBuf {
        self.segments().keys().nth(number).unwrap().clone()
    }

    /// The last segment with records, and a place in the last quarter of what was durable.
    fn spot_in_the_tail(&self) -> (PathBuf, u64) {
        let info = run(["journal", "info", &self.data("P"), "--json"]).expect(0).stdout;
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        let at = info["durable"].as_u64().unwrap() - 200;
        let body = info["segment_bytes"].as_u64().unwrap();
        let path = self.segments().keys().find(|path| name_of(path) == at / body * body).unwrap().clone();
        (path, 4096 + at % body)
    }
}

fn name_of(segment: &Path) -> u64 {
    u64::from_str_radix(segment.file_stem().unwrap().to_str().unwrap(), 16).unwrap()
}

pub(crate) fn path(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}

pub(crate) fn flip(file: &Path, offset: u64) {
    let file = fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

/// The node refuses to start and names the command; the command brings back every byte from the running receiver; the
/// node starts and goes on.
#[test]
fn a_damaged_primary_is_repaired_from_its_running_receiver_and_starts_again() {
    let nodes = Nodes::new();
    let (data, copy) = (nodes.data("P"), nodes.data("R"));
    let whole = nodes.segments();
    let (segment, offset) = nodes.spot_in_the_tail();
    flip(&segment, offset);
    let spoiled = fs::read(&segment).unwrap();
    let journal = segment.parent().unwrap().display().to_string();
    run(nodes.words()).expect(4).says(&format!("towline verify {journal} --repair-from"));
    run(["verify", &data]).expect(4).prints("1 place is damaged");

    let words = ["verify", &data, "--repair-from", &copy];
    let shown = run(words.iter().chain(&["--dry-run"])).expect(0).prints("would be repaired: LSN ").prints(&copy);
    assert!(!shown.stdout.contains("all good"), "nothing was done: {}", shown.stdout);
    assert!(fs::read(&segment).unwrap() == spoiled, "a dry run changes nothing");

    let done = run(words).expect(0).prints("\nkept the damaged file: ").prints("all good");
    let kept = done.stdout.lines().find_map(|line| line.strip_prefix("kept the damaged file: ")).unwrap();
    assert!(fs::read(kept).unwrap() == spoiled, "the damaged file is kept as it was");
    assert!(nodes.segments() == whole, "byte for byte what was there");
    run(["verify", &data]).expect(0).prints("all good");
    run(words).expect(0).prints("all good");
    let primary = nodes.start_primary();
    run_with(["append", "log", "--data", &data, "--wait", "peer-durable", "--timeout", "60s"], b"more\n").expect(0);
    primary.stop(Path::new(&data)).expect(0);
}

#[test]
fn lost_segments_come_back_from_a_depot() {
    let nodes = Nodes::new();
    let (data, depot) = (nodes.data("P"), nodes.data("depot"));
    let whole = nodes.segments();
    let [first, second, third] = [0, 1, 2].map(|number| nodes.segment(number));
    fs::remove_file(first).unwrap();
    fs::write(second, b"").unwrap();
    flip(&third, 4096 + 100_000);
    let done = run(["verify", &data, "--repair-from", &depot, "--json"]).expect(0).stdout;
    let rows: Vec<serde_json::Value> = done.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let repaired = rows.iter().filter(|row| row["outcome"] == "repaired").count();
    assert!(repaired >= 3 && rows.last().unwrap()["good"] == true, "{done}");
    assert!(rows.iter().all(|row| row["schema"] == 1), "{done}");
    assert!(nodes.segments() == whole, "byte for byte what was there");
    run(["verify", &data]).expect(0);
}

#[test]
fn what_nobody_has_is_named_and_nothing_is_changed() {
    let nodes = Nodes::new();
    let data = nodes.data("P");
    // the receiver lost the same place, and more of it is only there
    let here = [0, 1].map(|number| nodes.segment(number));
    let there = here.clone().map(|path| PathBuf::from(path.to_str().unwrap().replace("/P/", "/R/")));
    flip(&here[0], 4096 + 50_000);
    flip(&there[0], 4096 + 50_000);
    let spoiled = nodes.segments();
    let words = ["verify", &data, "--repair-from", &nodes.data("R")];
    let ended = run(words).expect(4).prints("not repaired: LSN ").prints("doesn't follow").says("hint: ");
    assert!(ended.stdout.contains(&nodes.data("R")), "{}", ended.stdout);
    assert!(nodes.segments() == spoiled, "nothing is changed");
    // a second place that can be repaired: done in part
    flip(&here[1], 4096 + 50_000);
    run(words).expect(3).prints("\nrepaired: LSN ").prints("1 place is damaged");
    // both copies together have everything
    run(words.iter().chain(&["--repair-from", &nodes.data("depot")])).expect(0).prints("all good");
}

#[test]
fn another_streams_copy_and_a_running_node_are_refused() {
    let nodes = Nodes::new();
    let data = nodes.data("P");
    let other = nodes.data("other");
    let mut stranger = Daemon::start(["primary", "--data", &other, "--stream", "log"]);
    stranger.hear("next");
    run_with(["append", "log", "--data", &other], b"x\n").expect(0);
    stranger.stop(Path::new(&other)).expect(0);
    flip(&nodes.segment(0), 4096 + 50_000);
    let spoiled = nodes.segments();
    let ended = run(["verify", &data, "--repair-from", &other]).expect(4);
    ended.prints("not repaired").says("has nothing of stream");
    assert!(nodes.segments() == spoiled, "nothing is changed");
    run(["verify", &data, "--repair-from", "/does/not/exist"]).expect(10);
    run(["verify", &nodes.data("depot"), "--repair-from", &data]).expect(2).says("only journals are repaired");
    run(["verify", &data, "--dry-run"]).expect(2);
    run(["verify", &nodes.data("R"), "--repair-from", &data]).expect(11).says("in use by another process");
    drop(nodes.receiver);
}

/// Nothing here takes so long unless it hangs.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// Asks a node how its stream is until `holds`; a scrub tells nobody that it has come by.
fn until(data: &str, holds: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    let deadline = Instant::now() + HANGS_AFTER;
    loop {
        let text = run(["status", "--data", data, "--json"]).expect(0).stdout;
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        if holds(&status["streams"][0]["scrub"]) {
            return status["streams"][0]["scrub"].clone();
        }
        assert!(Instant::now() < deadline, "it never came to that: {text}");
    }
}

/// A byte of an old segment rots under a running node. It goes on, and says so: exactly, at every start, until it is
/// mended.
#[test]
fn a_running_node_finds_rot_and_says_so_until_it_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let (data, copy) = (path(&folder, "P"), path(&folder, "copy"));
    let start = |scrub: &str| {
        let words = ["primary", "--data", &data, "--stream", "log", "--segment", "64 KiB", "--scrub", scrub];
        let mut node = Daemon::start(words);
        node.hear("next");
        node
    };
    let mut node = start("1 GB/s every 1s");
    let lines: String = (0..5000).map(|number| format!("line {number} {}\n", "x".repeat(40))).collect();
    run_with(["append", "log", "--data", &data], lines.as_bytes()).expect(0);
    let scrub = until(&data, |scrub| scrub["last_full"].is_string());
    assert_eq!(scrub["damaged"], serde_json::json!([]));
    run(["status", "--data", &data, "--exit-code"]).expect(0).prints("scrub        last full 2");
    let journal = Path::new(&data).join("streams/log/journal");
    fs::create_dir(&copy).unwrap();
    for file in fs::read_dir(&journal).unwrap().map(|file| file.unwrap().path()).filter(|path| path.is_file()) {
        fs::copy(&file, Path::new(&copy).join(file.file_name().unwrap())).unwrap();
    }

    let segment = journal.join(format!("{:016x}.seg", 1 << 16));
    flip(&segment, 4096 + 20_000);
    let scrub = until(&data, |scrub| scrub["damaged"] != serde_json::json!([]));
    let (from, to) = (scrub["damaged"][0]["from"].as_u64().unwrap(), scrub["damaged"][0]["to"].as_u64().unwrap());
    assert!(from <= (1 << 16) + 20_000 && to > (1 << 16) + 20_000 && to - from < 200, "{scrub}");
    let command = format!("towline verify {} --repair-from", journal.display());
    let range = format!("LSN {from}..{to} in {}", segment.display());
    node.hear(&format!("rot: {range}"));
    let status = run(["status", "--data", &data, "--exit-code"]).expect(4);
    status.prints(&format!("DAMAGED      {range}")).prints(&command);
    run(["verify", &data]).expect(4).prints(&format!("{from}..{to}"));
    // it is said, and the node goes on
    run_with(["append", "log", "--data", &data], b"more\n").expect(0);
    node.stop(Path::new(&data)).expect(0);

    let node = start("off");
    run(["status", "--data", &data, "--exit-code"]).expect(4).prints(&range);
    node.stop(Path::new(&data)).expect(0);
    run(["verify", &data, "--repair-from", &copy]).expect(0).prints(&format!("repaired: LSN {from}..{to}"));
    let node = start("off");
    until(&data, |scrub| scrub["damaged"] == serde_json::json!([]));
    run(["status", "--data", &data, "--exit-code"]).expect(0).prints(", off");
    node.stop(Path::new(&data)).expect(0);
}
