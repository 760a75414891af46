//! What a node does when the system grants it few open files.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use crate::daemon::Daemon;
use crate::support::{run, run_with, towline};

/// A primary in `data` with segments of 64 KiB, behind this word to the shell.
fn primary(ulimit: &str, data: &str) -> Daemon {
    let words = ["primary", "--data", data, "--stream", "log", "--segment", "64 KiB"];
    let program = towline(words);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{ulimit}; exec \"$@\""), "sh"]);
    command.arg(program.get_program()).args(program.get_args());
    let mut node = Daemon::start_as(command);
    node.hear("next");
    node
}

/// Records that fill more segments than these nodes may have files open at first.
fn records() -> String {
    (0..8000).map(|number| format!("{number} {}\n", "x".repeat(1000))).collect()
}

fn append(data: &str) -> [&OsStr; 7] {
    ["append", "log", "--data", data, "--wait", "durable", "-"].map(OsStr::new)
}

#[test]
fn a_node_opens_as_many_files_as_the_system_grants() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("P").to_str().unwrap().to_owned();
    let node = primary("ulimit -S -n 64", &data);
    run_with(append(&data), records().as_bytes()).expect(0).prints("appended 8000 records");
    node.stop(Path::new(&data)).expect(0);
    run(["verify", &data]).expect(0).prints("all good");
}

/// Without another descriptor an append ends like one without space: nothing is lost, and nothing is taken for a disk that
/// failed. With more of them the node goes on.
#[test]
fn without_a_descriptor_an_append_has_no_room_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("P").to_str().unwrap().to_owned();
    let node = primary("ulimit -n 64", &data);
    let ended = run_with(append(&data), records().as_bytes()).expect(16).says("Too many open files");
    let acked = ended.stderr.split_once(" records up to LSN").map(|(before, _)| before.rsplit(' ').next().unwrap());
    let acked: usize = acked.unwrap_or("0").parse().unwrap();
    // its control socket needs a descriptor as well
    node.kill();
    let node = primary("true", &data);
    run_with(append(&data), b"more\n").expect(0);
    node.stop(Path::new(&data)).expect(0);
    run(["verify", &data]).expect(0).prints("all good");
    let out = folder.path().join("out").to_str().unwrap().to_owned();
    run(["restore", "log", "--from", &data, "--to", &out]).expect(0);
    let (restored, all) = (std::fs::read_to_string(out).unwrap(), records());
    let kept = restored.strip_suffix("more\n").expect("the last record");
    assert!(all.starts_with(kept), "these records in this order");
    let kept = kept.lines().count();
    assert!(kept >= acked && kept > 1000, "{kept} of {acked} acknowledged");
}
