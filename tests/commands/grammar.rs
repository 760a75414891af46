//! Usage, configuration and output, without a running node.

use std::fs::{self, File};
use std::process::Stdio;

use crate::support::{code, run, towline};

#[test]
fn usage_is_2_and_help_is_0() {
    run(["--help"]).expect(0).prints("Exit codes:").prints("78");
    run(["nonsense"]).expect(2).says("unrecognized subcommand");
    run(["wait"]).expect(2).says("STREAM");
    run(["wait", "log", "--for", "christmas"]).expect(2).says("connected, in-sync, durable or shipped");
    run(["wait", "log", "--for", "durable", "--timeout", "5"]).expect(2).says("its unit is missing");
}

#[test]
fn a_node_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    run(["wait", "log", "--for", "durable", "--data", &format!("{data}/none")]).expect(10).says("no data folder");
    run(["wait", "log", "--for", "durable", "--data", data])
        .expect(1)
        .says("no node is running")
        .says("hint: start it");
}

#[test]
fn an_unknown_config_key_is_78_with_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("towline.ron");
    fs::write(&path, "Towline(\n    dta: \"/d\",\n)\n").unwrap();
    let path = path.to_str().unwrap();
    run(["config", "check", path]).expect(78).says(&format!("{path}:2:5: unknown key `dta`"));
    run(["-c", path, "config", "show"]).expect(78).says(":2:5:");
    run(["-c", path, "wait", "log", "--for", "durable"]).expect(78).says(":2:5:");
    run(["-c", "/does/not/exist.ron", "config", "show"]).expect(78).says("no such file");
}

#[test]
fn what_init_prints_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    for (flags, node) in [(&["config", "init"][..], "b"), (&["config", "init", "--dr"], "dr")] {
        let path = folder.path().join("towline.ron");
        fs::write(&path, run(flags).expect(0).stdout).unwrap();
        let path = path.to_str().unwrap();
        run(["config", "check", path]).expect(0).prints("fine");
        run(["-c", path, "--node", node, "config", "show"]).expect(0).prints(&format!("node {node}"));
        let shown = run(["--json", "-c", path, "--node", node, "config", "show"]).expect(0).stdout;
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!((&shown["schema"], &shown["name"]), (&1.into(), &node.into()));
    }
}

#[test]
fn a_closed_or_full_standard_output_is_no_panic() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = towline(["completions", "bash"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(output.status), output.stderr.as_slice()), (141, &b""[..]));

    let full = File::options().write(true).open("/dev/full").unwrap();
    let child = towline(["completions", "bash"]).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(output.status), 16);
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("towline: write to standard output"));
}

#[test]
fn every_manual_page_is_written() {
    let folder = tempfile::tempdir().unwrap();
    run(["man", folder.path().to_str().unwrap()]).expect(0);
    assert!(folder.path().join("towline.1").exists());
    assert!(folder.path().join("towline-wait.1").exists());
    assert!(run(["completions", "zsh"]).expect(0).stdout.contains("promote"));
}
