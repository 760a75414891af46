//! A node that runs as its configuration says.

use std::fs;
use std::path::Path;

use crate::daemon::Daemon;
use crate::support::{run, run_with};

#[test]
fn a_node_finds_its_streams_and_commands_find_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("towline.ron");
    let data = folder.path().join("data");
    let text = format!(
        r#"Towline(
            data: "{}",
            nodes: {{ "a": "127.0.0.1:7400" }},
            streams: {{ "events": (volumes: [Records(name: "events")], starts_on: "a", journal: (segment: "64 KiB")) }},
        )"#,
        data.display()
    );
    fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let mut node = Daemon::start(["-c", config, "--node", "a", "run"]);
    assert!(node.hear("node a,").contains(data.to_str().unwrap()));
    node.hear("next");
    run_with(["-c", config, "append", "events", "--wait", "durable"], b"x\n").expect(0);
    run(["-c", config, "tail", "events"]).expect(0).prints("x\n");
    run(["-c", config, "status", "--json"]).expect(0).prints("\"node\":\"a\"");
    // the folder says it too, and another node's name is not this folder's
    run(["status", "--data", data.to_str().unwrap()]).expect(0).prints("events");
    run(["-c", config, "--node", "b", "run"]).expect(78).says("there is no node \"b\"");
    node.stop(Path::new(&data)).expect(0).says("stopped");
}

#[test]
fn quiet_says_nothing_when_all_is_well() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let path = data.to_str().unwrap();
    let node = Daemon::start(["-q", "primary", "--data", path, "--stream", "log"]);
    while run(["status", "--data", path]).code != 0 {
        std::thread::yield_now();
    }
    assert_eq!(node.stop(&data).expect(0).stderr, "");
}

#[test]
fn flags_that_contradict_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let path = data.to_str().unwrap();
    let primary = ["primary", "--data", path, "--stream", "log"];
    let table: [(&[&str], &str); 6] = [
        (&["--schedule", "every 1s"], "no --to is a depot"),
        (&["--to", "./depot"], "when are batches cut"),
        (&["--to", "depot"], "a folder contains a slash"),
        (&["--to", "127.0.0.1:1", "--to", "127.0.0.1:1"], "two destinations are called"),
        (&["--tls", "x", "--plaintext"], "cannot be used with"),
        (&["--segment", "100 KiB"], "a power of two"),
    ];
    for (flags, said) in table {
        run(primary.iter().chain(flags)).expect(2).says(said);
    }
    run(["primary", "--stream", "log"]).expect(2).says("--data DIR");
    assert!(!data.exists(), "nothing was made");
}
