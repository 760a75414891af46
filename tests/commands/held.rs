//! Who holds the log of a running node, and what people see of one who doesn't any more.

use std::io::Read;
use std::process::{Child, ChildStdout, Stdio};

use crate::records::{Lone, lines};
use crate::support::{code, run, towline};

/// A restore whose output nobody reads: it stands still in the middle.
struct Slow {
    child: Child,
    output: ChildStdout,
    read: Vec<u8>,
}

impl Slow {
    /// Returns when it writes what it has read.
    fn start(data: &str) -> Slow {
        let mut restore = towline(["restore", "log", "--from", data, "--to", "-"]);
        let mut child = restore.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut output, mut first) = (child.stdout.take().unwrap(), [0; 100]);
        output.read_exact(&mut first).unwrap();
        Slow { child, output, read: first.to_vec() }
    }

    /// Reads the rest: the exit code, the output, and what it said.
    fn end(mut self) -> (i32, String, String) {
        self.output.read_to_end(&mut self.read).unwrap();
        let ended = self.child.wait_with_output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        (code(ended.status), String::from_utf8(self.read).unwrap(), said)
    }
}

/// A primary with a depot, of whose log nothing more than a segment is kept without need.
fn writer(budget: &str) -> (Lone, tempfile::TempDir) {
    let depot = tempfile::tempdir().unwrap();
    let to = format!("{}/depot,name=night,schedule=every 1d", depot.path().display());
    let flags = ["--segment", "64 KiB", "--budget", budget, "--keep", "64 KiB", "--to", &to];
    (Lone::start(&flags), depot)
}

fn ship(node: &Lone) {
    run(["ship", "log", "--data", &node.data(), "--timeout", "60s"]).expect(0);
}

fn status(node: &Lone) -> String {
    run(["status", "--data", &node.data()]).expect(0).stdout
}

#[test]
fn what_a_running_restore_reads_is_kept_until_it_is_done() {
    let (mut node, _depot) = writer("64 MiB");
    node.append(lines(2000).as_bytes(), &["--wait", "durable"]).expect(0);
    let slow = Slow::start(&node.data());
    let keeps = format!("kept from 0 for restore by pid {}", slow.child.id());
    for _ in 0..3 {
        node.append(lines(100).as_bytes(), &["--wait", "durable"]).expect(0);
        ship(&node);
        assert!((0..1000).any(|_| status(&node).contains(&keeps)), "{}", status(&node));
    }
    let (code, output, said) = slow.end();
    assert_eq!(code, 0, "{said}");
    assert!(output == lines(2000), "{} bytes", output.len());
    assert!((0..1000).any(|_| !status(&node).contains("kept from 0 ")), "{}", status(&node));
    node.stop();
}

/// Readers don't hold the budget: a restore gives way, and says why it could not go on.
#[test]
fn at_the_budget_a_restore_gives_way_and_ends_with_15() {
    let (mut node, _depot) = writer("4 MiB");
    node.append(lines(2000).as_bytes(), &["--wait", "durable"]).expect(0);
    let slow = Slow::start(&node.data());
    let start = || {
        let status = status(&node);
        let (_, kept) = status.split_once("kept from ").unwrap();
        kept.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    while start() < 2_000_000 {
        ship(&node);
        node.append(lines(100).as_bytes(), &["--wait", "durable"]).expect(0);
    }
    let (code, output, said) = slow.end();
    assert_eq!(code, 15, "{said}");
    assert!(said.contains("no longer kept") && said.contains("budget"), "{said}");
    assert!(lines(2000).starts_with(&output), "what came out is right");
    run(["status", "--data", &node.data(), "--exit-code"]).expect(0);
    node.stop();
}

#[test]
fn a_detached_depot_is_5_in_status_and_15_for_whoever_waits_for_it() {
    let depot = tempfile::tempdir().unwrap();
    let night = depot.path().join("night");
    let to = format!("{},name=night,at-budget=detach,schedule=every 1d", night.display());
    let mut node = Lone::start(&["--segment", "64 KiB", "--budget", "1 MiB", "--to", &to]);
    node.append(lines(50).as_bytes(), &["--wait", "durable"]).expect(0);
    ship(&node);
    std::fs::rename(&night, depot.path().join("away")).unwrap();
    let data = node.data();
    while run(["status", "--data", &data, "--exit-code"]).code == 0 {
        node.append(lines(200).as_bytes(), &["--wait", "durable"]).expect(0);
    }
    let status = run(["status", "--data", &data, "--exit-code"]).expect(5);
    status.prints("detached").prints("lacks what begins at LSN").prints("bring back depot night");
    run(["ship", "log", "--data", &data]).expect(15).says("depot night is detached").says("bring back");
    run(["wait", "log", "--for", "shipped", "--data", &data]).expect(15).says("depot night is detached");
    node.stop();
    let journal = format!("{data}/streams/log/journal");
    run(["journal", "dump", &journal]).expect(0).prints("detached: depot night, which lacks what begins at LSN");

    let words = ["primary", "--data", &data, "--stream", "log", "--to", "127.0.0.1:1,at-budget=detach"];
    run(words).expect(2).says("can't be detached").says("on-loss=");
}

/// Its schedule is rarer than the budget lasts, and that is all that was wrong with it.
#[test]
fn a_depot_that_can_be_reached_gets_its_batch_before_the_budget_is_used_up() {
    for at_budget in ["", ",at-budget=detach", ",at-budget=block"] {
        let depot = tempfile::tempdir().unwrap();
        let night = depot.path().join("night");
        let to = format!("{},name=night{at_budget},schedule=every 1d", night.display());
        let mut node = Lone::start(&["--segment", "64 KiB", "--budget", "1 MiB", "--to", &to]);
        // several times the budget, as fast as it is taken
        let input = lines(8_000);
        assert!(input.len() > 7 << 20, "{}", input.len());
        node.append(input.as_bytes(), &["--wait", "durable"]).expect(0).prints("appended 8000 records");
        let status = run(["status", "--data", &node.data(), "--exit-code"]).expect(0).prints("    cut early  at 2");
        assert!(status.stdout.contains("bytes of log, and "), "{}", status.stdout);
        ship(&node);
        let said = node.stop();
        assert_eq!(said.matches("before the schedule says so").count(), 1, "{said}");
        assert!(!said.contains("detached"), "{said}");
        let out = depot.path().join("out");
        run(["restore", "log", "--from", night.to_str().unwrap(), "--to", out.to_str().unwrap()]).expect(0);
        assert!(std::fs::read(out).unwrap() == input.as_bytes(), "every record");
    }
}
