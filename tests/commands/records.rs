//! Records in and out of a running node.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::support::{Ended, run, run_with, towline};

/// A primary of the stream `log` without peers.
pub(crate) struct Lone {
    folder: TempDir,
    daemon: Option<Daemon>,
}

impl Lone {
    pub(crate) fn start(more: &[&str]) -> Lone {
        let mut lone = Lone { folder: tempfile::tempdir().unwrap(), daemon: None };
        lone.again(more);
        lone
    }

    fn again(&mut self, more: &[&str]) {
        let data = self.data();
        let mut daemon = Daemon::start([&["primary", "--data", &data, "--stream", "log"], more].concat());
        daemon.hear("next");
        self.daemon = Some(daemon);
    }

    pub(crate) fn data(&self) -> String {
        self.folder.path().join("P").to_str().unwrap().to_owned()
    }

    pub(crate) fn append(&self, input: &[u8], more: &[&str]) -> Ended {
        run_with([&["append", "log", "--data", &self.data()], more].concat(), input)
    }

    fn tail(&self, more: &[&str]) -> String {
        run([&["tail", "log", "--data", &self.data()], more].concat()).expect(0).stdout
    }

    /// Ends it in order: what it said.
    pub(crate) fn stop(&mut self) -> String {
        let data = self.data();
        let daemon = self.daemon.take().unwrap();
        daemon.stop(Path::new(&data)).expect(0).stderr
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }
}

#[test]
fn what_goes_in_comes_out() {
    let mut node = Lone::start(&[]);
    let input = b"one\n\nthree, after an empty one\nno newline at the end";
    node.append(input, &["--wait", "durable"]).expect(0).prints("appended 4 records, last LSN").prints("durable");
    assert_eq!(node.tail(&[]).as_bytes(), input);
    node.append(b"next\n", &[]).expect(0).prints("appended 1 record,");
    assert_eq!(node.tail(&[]), format!("{}\nnext\n", String::from_utf8_lossy(input)));
    node.append(b"", &[]).expect(0).prints("appended 0 records");

    let json = node.tail(&["--json"]);
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((&first["schema"], &first["payload"]), (&1.into(), &"one".into()));
    let third = json.lines().nth(2).unwrap();
    let third: serde_json::Value = serde_json::from_str(third).unwrap();
    assert_eq!(node.tail(&["--from", &third["first"].to_string()]).lines().next(), Some("three, after an empty one"));
    assert_eq!(node.tail(&["--from", "end"]), "");

    node.stop();
    let out = node.out();
    run(["restore", "log", "--from", &node.data(), "--to", out.to_str().unwrap()]).expect(0);
    assert_eq!(fs::read_to_string(out).unwrap(), format!("{}\nnext\n", String::from_utf8_lossy(input)));
}

#[test]
fn every_framing_gives_its_input_back() {
    let bytes: Vec<u8> = (0..200_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut len32 = Vec::new();
    for piece in [&bytes[..0], &bytes[..1], &bytes[1..70_000], b"\n\n"] {
        len32.extend_from_slice(&(piece.len() as u32).to_le_bytes());
        len32.extend_from_slice(piece);
    }
    for (frames, input) in [("raw", &bytes), ("len32", &len32), ("lines", &bytes)] {
        let mut node = Lone::start(&[]);
        node.append(input, &["--frames", frames, "--wait", "durable"]).expect(0);
        node.stop();
        let out = node.out();
        let words = ["restore", "log", "--from", &node.data(), "--frames", frames, "--to", out.to_str().unwrap()];
        run(words).expect(0);
        assert!(fs::read(out).unwrap() == *input, "{frames}");
    }
}

#[test]
fn acknowledgements_are_cumulative_and_name_their_level() {
    let node = Lone::start(&[]);
    let input: String = (0..5000).map(|number| format!("{number}\n")).collect();
    let ended = node.append(input.as_bytes(), &["--acks", "--wait", "durable"]).expect(0);
    let mut before = (0, 0);
    for line in ended.stdout.lines().filter(|line| line.starts_with("acked ")) {
        let words: Vec<&str> = line.split(' ').collect();
        let now: (u64, u64) = (words[1].parse().unwrap(), words[2].parse().unwrap());
        assert!(now.0 > before.0 && now.1 > before.1, "{line}");
        assert_eq!(words[3..], ["durable"]);
        before = now;
    }
    assert!(ended.stdout.lines().last().unwrap().starts_with("appended 5000 records"));
    let json = node.append(b"x\n", &["--acks", "--json"]).expect(0).stdout;
    let last: serde_json::Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    assert_eq!((&last["schema"], &last["done"]["count"]), (&1.into(), &1.into()));
}

#[test]
fn an_acknowledgement_is_printed_when_it_arrives_not_at_the_end() {
    let node = Lone::start(&[]);
    let words = ["append", "log", "--acks", "--data", &node.data()];
    let mut child = towline(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (send, lines) = channel();
    thread::spawn(move || stdout.lines().map_while(Result::ok).all(|line| send.send(line).is_ok()));
    for count in 1..=3 {
        stdin.write_all(b"record\n").unwrap();
        let line = lines.recv_timeout(Duration::from_secs(60)).expect("an acknowledgement before the input ends");
        assert!(line.starts_with(&format!("acked {count} ")), "{line}");
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_mark_is_a_point_to_restore_to() {
    let mut node = Lone::start(&[]);
    node.append(b"before\n", &[]).expect(0);
    run(["mark", "log", "here", "--data", &node.data()]).expect(0).prints("marked here at LSN");
    node.append(b"after\n", &[]).expect(0);
    node.stop();
    let out = node.out();
    run(["restore", "log", "--from", &node.data(), "--at", "mark:here", "--to", out.to_str().unwrap()]).expect(0);
    assert_eq!(fs::read_to_string(out).unwrap(), "before\n");
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let mut node = Lone::start(&[]);
    node.append(b"one\ntwo\n", &["--wait", "written"]).expect(0);
    node.daemon.take().unwrap().kill();
    node.again(&[]);
    assert_eq!(node.tail(&[]), "one\ntwo\n");
    node.append(b"three\n", &[]).expect(0);
    node.stop();
    run(["journal", "info", &node.data()]).expect(0).prints("epoch 1.1 ").prints("epoch 1.2 ");
}

#[test]
fn a_second_process_on_one_folder_is_11() {
    let mut node = Lone::start(&[]);
    run(["primary", "--data", &node.data(), "--stream", "log"]).expect(11).says("held by another process");
    node.append(b"unharmed\n", &[]).expect(0);
    node.stop();
}

#[test]
fn a_stream_that_is_not_there_is_10() {
    let node = Lone::start(&[]);
    let data = node.data();
    run_with(["append", "nope", "--data", &data], b"x\n").expect(10).says("nope").says("log");
    run(["tail", "nope", "--data", &data]).expect(10);
    run(["mark", "nope", "m", "--data", &data]).expect(10);
    run(["status", "nope", "--data", &data]).expect(10);
    run(["wait", "nope", "--for", "durable", "--data", &data]).expect(10);
}

#[test]
fn a_record_above_the_limit_harms_nothing() {
    let mut node = Lone::start(&["--record-max", "1 KiB"]);
    let input = format!("fine\n{}\nnever seen\n", "x".repeat(1025));
    node.append(input.as_bytes(), &[]).expect(2).says("1025 bytes").says("at most 1024");
    node.append(format!("{}\n", "y".repeat(1024)).as_bytes(), &[]).expect(0);
    assert_eq!(node.tail(&[]), format!("fine\n{}\n", "y".repeat(1024)));
    node.stop();
    run(["verify", &node.data()]).expect(0);
}

#[test]
fn at_its_budget_a_stream_says_16_and_keeps_what_it_acknowledged() {
    let mut node = Lone::start(&["--segment", "64 KiB", "--budget", "512 KiB"]);
    let (_, acked) = fill(&node);
    node.stop();
    // with more room it goes on where it was
    node.again(&["--segment", "64 KiB", "--budget", "8 MiB"]);
    assert!(node.tail(&[]).starts_with(&lines(acked)));
    node.append(b"room again\n", &["--wait", "durable"]).expect(0);
    node.stop();
    run(["verify", &node.data()]).expect(0);
}

/// Somebody needs the log: it is named, nothing of it is given up, and the stream goes on by itself as soon as that one has
/// what it needs.
#[test]
fn at_its_budget_a_stream_names_who_needs_the_log_and_goes_on_without_a_restart() {
    let depot = tempfile::tempdir().unwrap();
    let (night, away) = (depot.path().join("depot"), depot.path().join("away"));
    let to = format!("{},name=night,schedule=every 1h", night.display());
    let mut node = Lone::start(&["--segment", "64 KiB", "--budget", "1 MiB", "--to", &to]);
    run(["wait", "log", "--for", "shipped", "--data", &node.data(), "--timeout", "60s"]).expect(0);
    for _ in 0..3 {
        // not mounted: in reach it would have it early
        fs::rename(&night, &away).unwrap();
        // in groups that are smaller than a segment, so that none is left
        let mut small = (0..1000).map(|_| node.append(lines(50).as_bytes(), &["--wait", "durable"]));
        let ended = small.find(|ended| ended.code != 0).expect("it is never full").expect(16);
        ended.says("the budget of 1048576 bytes is used up").says("depot night needs everything from LSN");
        run(["status", "--data", &node.data()]).expect(0).prints(" for depot night");
        fs::rename(&away, &night).unwrap();
        run(["ship", "log", "--data", &node.data(), "--timeout", "60s"]).expect(0);
        let room = (0..1000).any(|_| node.append(lines(200).as_bytes(), &["--wait", "durable"]).code == 0);
        assert!(room, "the depot has everything, and there is no room");
    }
    let status = run(["status", "--data", &node.data()]).expect(0).stdout;
    assert!(!status.contains("kept from 0 "), "{status}");
    node.stop();
    run(["verify", &node.data()]).expect(0);
}

#[test]
fn on_a_full_disk_nothing_acknowledged_is_lost_and_it_goes_on_when_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::mount(folder.path(), "8m");
    let Some(disk) = disk else { return eprintln!("skipped: a small file system can't be mounted here") };
    let ballast = disk.0.join("ballast");
    fs::write(&ballast, vec![1; 4 << 20]).unwrap();
    let mut node = Lone { folder: tempfile::tempdir_in(&disk.0).unwrap(), daemon: None };
    node.again(&["--segment", "64 KiB"]);
    let (code, acked) = fill(&node);
    assert_eq!(code, 16);
    fs::remove_file(&ballast).unwrap();
    // without a restart
    node.append(b"room again\n", &["--wait", "durable"]).expect(0);
    let tail = node.tail(&[]);
    assert!(tail.starts_with(&lines(acked)) && tail.ends_with("room again\n"));
    node.daemon.take().unwrap().kill();
    node.again(&[]);
    assert_eq!(node.tail(&[]), tail);
    node.stop();
    run(["verify", &node.data()]).expect(0);
    drop(node);
    drop(disk);
}

/// A small file system of its own, gone when dropped.
pub(crate) struct Disk(pub(crate) PathBuf);

impl Disk {
    pub(crate) fn mount(at: &Path, size: &str) -> Option<Disk> {
        let size = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Disk(at.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // lazily: a node that a failed test left behind may still have files open there
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn line(number: u64) -> String {
    format!("{number} {}\n", "z".repeat(1000))
}

pub(crate) fn lines(count: u64) -> String {
    (0..count).map(line).collect()
}

/// Appends until it is full: the exit code, and how many records were acknowledged.
fn fill(node: &Lone) -> (i32, u64) {
    let ended = node.append(lines(20_000).as_bytes(), &["--acks", "--wait", "durable"]).expect(16).says("no space");
    let lines = ended.stdout.lines().rev();
    let last = lines.filter_map(|line| line.strip_prefix("acked ")?.split(' ').next()?.parse().ok()).next();
    let acked = last.unwrap_or(0);
    assert!(acked > 0, "something fits");
    (ended.code, acked)
}

#[test]
fn a_len32_input_that_is_cut_short_says_how_far_it_got() {
    let node = Lone::start(&[]);
    let input = [&[2, 0, 0, 0][..], b"ab", &[9, 0, 0, 0], b"cut"].concat();
    node.append(&input, &["--frames", "len32"])
        .expect(2)
        .says("ends inside record 1")
        .says("1 record before it is in the stream");
    assert_eq!(node.tail(&[]), "ab\n");
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("precious"), "mine").unwrap();
    let data = folder.path().to_str().unwrap();
    run(["primary", "--data", data, "--stream", "log"]).expect(13);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

    let file = folder.path().join("precious");
    assert_ne!(run(["primary", "--data", file.to_str().unwrap(), "--stream", "log"]).code, 0);
    assert_eq!(fs::read_to_string(file).unwrap(), "mine");
}

#[test]
fn a_damaged_journal_is_refused_with_4() {
    let mut node = Lone::start(&[]);
    node.append(b"one\ntwo\n", &["--wait", "durable"]).expect(0);
    node.stop();
    let journal = node.folder.path().join("P/streams/log/journal");
    let segment = journal.join("0000000000000000.seg");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[4096 + 30] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    run(["primary", "--data", &node.data(), "--stream", "log"]).expect(4).says("0000000000000000.seg").says("0..");
    assert!(fs::read(&segment).unwrap() == bytes, "the file is as it was");
}

#[test]
fn a_page_that_cannot_be_read_ends_the_node_with_file_and_offset() {
    let mut node = Lone::start(&["--segment", "64 KiB"]);
    node.append(lines(200).as_bytes(), &["--wait", "durable"]).expect(0);
    let segment = node.folder.path().join("P/streams/log/journal/0000000000000000.seg");
    cut_to(&segment, 8192);
    let daemon = node.daemon.take().unwrap();
    assert_ne!(run(["tail", "log", "--data", &node.data()]).code, 0);
    let said = format!("{}: the page at byte 8192 can't be read", segment.display());
    daemon.end().expect(128 + 7).says(&said).says("towline verify");
}

/// What happened to a folder, and what a node must say of it at its start.
type Damage = (&'static str, fn(&Path), &'static str);

#[test]
fn a_node_whose_files_are_damaged_refuses_to_start_and_changes_nothing() {
    let second = "0000000000010000.seg";
    let damages: [Damage; 7] = [
        ("a segment is truncated", |dir| cut_to(&dir.join("0000000000010000.seg"), 1000), second),
        ("a segment is empty", |dir| cut_to(&dir.join("0000000000010000.seg"), 0), second),
        ("a segment is missing", |dir| fs::remove_file(dir.join("0000000000010000.seg")).unwrap(), second),
        (
            "a segment is another one",
            |dir| {
                fs::copy(dir.join("0000000000000000.seg"), dir.join("0000000000010000.seg")).unwrap();
            },
            second,
        ),
        ("the control file is missing", |dir| fs::remove_file(dir.join("control")).unwrap(), "control"),
        ("the control file is empty", |dir| cut_to(&dir.join("control"), 0), "control"),
        ("both copies of the control file are damaged", |dir| fill_with_noise(&dir.join("control")), "control"),
    ];
    let mut node = Lone::start(&["--segment", "64 KiB"]);
    node.append(lines(200).as_bytes(), &["--wait", "durable"]).expect(0);
    node.stop();
    let journal = node.folder.path().join("P/streams/log/journal");
    let whole = contents(&journal);
    for (what, damage, part) in damages {
        damage(&journal);
        let damaged = contents(&journal);
        run(["primary", "--data", &node.data(), "--stream", "log"]).expect(4).says(part);
        run(["verify", &node.data()]).expect(4);
        let out = node.out();
        run(["restore", "log", "--from", &node.data(), "--to", out.to_str().unwrap()]).expect(4);
        assert!(!out.exists(), "{what}");
        assert!(contents(&journal) == damaged, "{what}: nothing is changed");
        for (name, bytes) in &whole {
            fs::write(journal.join(name), bytes).unwrap();
        }
    }
    node.again(&[]);
    assert_eq!(node.tail(&[]), lines(200));
}

/// The segments and the control file.
fn contents(dir: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let ours = files.filter(|path| path.extension().is_some_and(|ext| ext == "seg") || path.ends_with("control"));
    ours.map(|path| (name(&path), fs::read(&path).unwrap())).collect()
}

fn cut_to(path: &Path, bytes: u64) {
    fs::File::options().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

fn fill_with_noise(path: &Path) {
    let bytes = fs::metadata(path).unwrap().len();
    fs::write(path, (0..bytes).map(|at| (at * 131 % 251) as u8).collect::<Vec<u8>>()).unwrap();
}

#[test]
fn a_folder_of_a_node_with_another_name_is_78() {
    let mut node = Lone::start(&["--name", "first"]);
    node.stop();
    run(["primary", "--data", &node.data(), "--stream", "log", "--name", "other"]).expect(78).says("say first");
}
