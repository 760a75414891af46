//! The demo shows what it says, and its checker sees what it should.

use crate::support::run;

#[test]
fn everything_holds() {
    let folder = tempfile::tempdir().unwrap();
    let keep = folder.path().join("kept");
    let ended = run(["demo", "--seconds", "1", "--keep", keep.to_str().unwrap()]).expect(0).says("everything held");
    for what in ["the receiver's copy", "the primary's own copy", "the depot alone", "back to", "verify"] {
        assert!(ended.stdout.contains(what), "{what}:\n{}", ended.stdout);
    }
    assert!(!ended.stdout.contains("FAULT"));
    assert!(keep.join("receiver/streams/demo").exists(), "it is kept");
    run(["demo", "--keep", keep.to_str().unwrap()]).expect(1).says("File exists");
}

#[test]
fn one_lost_record_is_seen() {
    let ended = run(["--json", "demo", "--seconds", "1", "--mode", "semi-sync", "--plant", "lose-one"]).expect(4);
    let rows: Vec<serde_json::Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let fault = rows.iter().find(|row| row["held"] == false).expect("a row that did not hold");
    assert!(fault["found"].as_str().unwrap().contains("missing"), "{fault}");
}
