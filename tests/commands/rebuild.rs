//! The control file is lost: the error names the command, the command names the next one, and nothing acknowledged is lost.

use std::fs;
use std::path::Path;

use crate::daemon::Daemon;
use crate::peers::Pair;
use crate::support::{Ended, run, run_with};

const RECORDS: usize = 2000;

fn lines(from: usize) -> String {
    (from..from + RECORDS).map(|number| format!("record {number}\n")).collect()
}

fn lose_control(data: &str) {
    fs::remove_file(Path::new(data).join("streams/log/journal/control")).unwrap();
}

/// The command that an error names, run as it stands there, with more words.
#[track_caller]
fn run_named(ended: &Ended, more: &[&str]) -> Ended {
    let (_, named) = ended.stderr.split_once("towline journal rebuild ").expect("it names the command");
    let path = named.split_whitespace().next().unwrap();
    run([&["journal", "rebuild", path], more].concat())
}

/// Done, be it that the stream was alone at that instant: it is until a returning peer has caught up.
#[track_caller]
fn done(ended: Ended) {
    let code = if ended.code == 5 { 5 } else { 0 };
    ended.expect(code);
}

fn status(data: &str) -> serde_json::Value {
    let shown = run(["status", "--data", data, "--json"]).expect(0).stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    shown["streams"][0].clone()
}

#[test]
fn a_stream_without_peers_goes_on_with_the_word_and_every_record() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("P").to_str().unwrap().to_owned();
    let start = ["primary", "--data", &data, "--stream", "log", "--segment", "64 KiB"];
    let mut node = Daemon::start(start);
    node.hear("next");
    let append = ["append", "log", "--data", &data, "--wait", "durable"];
    run_with(append, lines(0).as_bytes()).expect(0);
    node.kill();
    lose_control(&data);
    for ended in [run(start), run(["verify", &data]), run(["restore", "log", "--from", &data, "--to", "-"])] {
        let ended = ended.expect(4);
        assert!(format!("{}{}", ended.stdout, ended.stderr).contains("towline journal rebuild"), "{}", ended.stderr);
    }
    let ended = run(start).expect(4);
    run_named(&ended, &["--dry-run"]).expect(0).prints("nothing was changed").prints("fenced in term 1");
    let dry = run_named(&ended, &["--dry-run", "--json"]).expect(0).stdout;
    let dry: serde_json::Value = serde_json::from_str(&dry).unwrap();
    assert_eq!((&dry["schema"], &dry["written"], &dry["loss"]), (&1.into(), &false.into(), &serde_json::Value::Null));
    run(start).expect(4);
    let next = run_named(&ended, &[]).expect(0).prints("made anew").prints("towline promote log --accept-loss");
    run_named(&ended, &[]).expect(13).says("whole");

    let mut node = Daemon::start(start);
    node.hear("log: it was to start as the primary");
    node.hear("next");
    run_with(append, b"not yet\n").expect(13).says("rebuilt").says("towline promote log --accept-loss");
    run(["status", "--data", &data]).expect(0).prints("rebuilt").prints("towline promote log --accept-loss");
    run(["promote", "log", "--data", &data]).expect(13).says("rebuilt").says("--accept-loss");
    // word for word what the rebuild said
    let (_, named) = next.stdout.rsplit_once("towline promote").unwrap();
    run(["promote"].into_iter().chain(named.split_whitespace())).expect(0).prints("term 2");
    run_with(append, lines(RECORDS).as_bytes()).expect(5);
    node.stop(Path::new(&data)).expect(0);
    run(["verify", &data]).expect(0).prints("all good");
    let restored = run(["restore", "log", "--from", &data, "--to", "-"]).expect(0).stdout;
    assert!(restored == lines(0) + &lines(RECORDS), "every record, in order, and nothing else");
}

#[test]
fn a_receiver_follows_its_primary_again() {
    let mut pair = Pair::start(&[]);
    let (p, r) = (pair.data("P"), pair.data("R"));
    let wait = ["--wait", "peer-durable", "--timeout", "60s"];
    pair.append(lines(0).as_bytes(), &wait).expect(0);
    pair.receiver.take().unwrap().kill();
    lose_control(&r);
    let ended = run(["receiver", "--data", &r, "--listen", &pair.address]).expect(4);
    run_named(&ended, &[]).expect(0).prints("receiver in term 1").prints("it follows its primary");
    pair.start_receiver();
    pair.append(lines(RECORDS).as_bytes(), &wait).expect(0);
    assert_eq!(status(&r)["in_doubt"], false, "it has caught up");

    // both stop, and it is lost again: alone it is in doubt, and no answer for the start gate of the primary
    pair.primary.take().unwrap().kill();
    pair.receiver.take().unwrap().kill();
    lose_control(&r);
    run(["journal", "rebuild", &r]).expect(0);
    pair.start_receiver();
    assert_eq!((&status(&r)["in_doubt"], &status(&r)["role"]), (&true.into(), &"receiver".into()));
    run(["promote", "log", "--data", &r]).expect(13).says("rebuilt").says("--accept-loss");
    pair.start_primary();
    let ended = pair.append(b"late\n", &["--acks", "--timeout", "2s"]).expect(12);
    assert_eq!(ended.stdout, "", "nothing is acknowledged");
    run(["status", "--data", &p]).expect(0).prints("rebuilt").prints("towline promote log --accept-loss");
    // a restart doesn't forget the doubt
    pair.receiver.take().unwrap().kill();
    pair.start_receiver();
    assert_eq!(status(&r)["in_doubt"], true);
    run(["promote", "log", "--accept-loss", "--data", &p]).expect(0).prints("term 2");
    done(run(["wait", "log", "--for", "in-sync", "--timeout", "60s", "--data", &p]));
    assert_eq!(status(&r)["in_doubt"], false);
    done(pair.append(lines(2 * RECORDS).as_bytes(), &wait));
    pair.primary.take().unwrap().kill();
    pair.receiver.take().unwrap().kill();
    let all = lines(0) + &lines(RECORDS) + &lines(2 * RECORDS);
    assert!(pair.restored("R") == all.as_bytes() && pair.restored("P") == all.as_bytes());
}

#[test]
fn a_primary_acknowledges_nothing_by_itself_and_either_side_can_be_promoted() {
    for receiver_goes_on in [false, true] {
        let mut pair = Pair::start(&[]);
        let (p, r) = (pair.data("P"), pair.data("R"));
        pair.append(lines(0).as_bytes(), &["--wait", "peer-durable", "--timeout", "60s"]).expect(0);
        pair.primary.take().unwrap().kill();
        lose_control(&p);
        run(["journal", "rebuild", &p, "--stream", "log"]).expect(0).prints("fenced in term 1");
        pair.start_primary();
        let ended = pair.append(b"not yet\n", &["--acks"]).expect(13).says("rebuilt");
        assert_eq!(ended.stdout, "", "nothing is acknowledged");
        let (data, words): (_, &[&str]) = match receiver_goes_on {
            true => (&r, &["promote", "log", "--data", &r]),
            false => (&p, &["promote", "log", "--accept-loss", "--data", &p]),
        };
        run(words).expect(0).prints("term 2");
        if !receiver_goes_on {
            done(run(["wait", "log", "--for", "in-sync", "--timeout", "60s", "--data", &p]));
        }
        done(run_with(["append", "log", "--data", data], b"after\n"));
        pair.primary.take().unwrap().kill();
        pair.receiver.take().unwrap().kill();
        let restored = pair.restored(if receiver_goes_on { "R" } else { "P" });
        assert!(restored == (lines(0) + "after\n").as_bytes(), "receiver goes on: {receiver_goes_on}");
    }
}

/// The promotion is in the log: losing the control file doesn't let the old primary back in.
#[test]
fn a_promoted_node_still_fences_the_old_primary() {
    let mut pair = Pair::start(&[]);
    let (p, r) = (pair.data("P"), pair.data("R"));
    pair.append(b"one\n", &["--wait", "peer-durable", "--timeout", "60s"]).expect(0);
    pair.primary.take().unwrap().kill();
    run(["promote", "log", "--data", &r]).expect(0).prints("term 2");
    pair.receiver.take().unwrap().kill();
    lose_control(&r);
    run(["journal", "rebuild", &r]).expect(0).prints("fenced in term 2");
    pair.start_receiver();
    pair.start_primary();
    let ended = pair.append(b"late\n", &["--acks", "--timeout", "60s"]).expect(14);
    assert_eq!(ended.stdout, "", "nothing is acknowledged");
    assert_eq!(status(&p)["role"], "fenced");
}

#[test]
fn what_cannot_be_verified_is_4_and_given_up_only_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("P").to_str().unwrap().to_owned();
    let start = ["primary", "--data", &data, "--stream", "log", "--segment", "64 KiB"];
    let mut node = Daemon::start(start);
    node.hear("next");
    run_with(["append", "log", "--data", &data], lines(0).as_bytes()).expect(0);
    node.kill();
    let dump = run(["journal", "dump", &data, "--json"]).expect(0).stdout;
    let entries: Vec<serde_json::Value> = dump.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let bad = &entries[100];
    let (from, to) = (bad["lsn"].as_u64().unwrap(), bad["end"].as_u64().unwrap());
    lose_control(&data);
    let segment = Path::new(&data).join("streams/log/journal/0000000000000000.seg");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[4096 + from as usize + 90] ^= 1;
    fs::write(&segment, &bytes).unwrap();

    let range = format!("{from}..{to}");
    run(["journal", "rebuild", &data]).expect(4).says(&range).says("--accept-loss").says(segment.to_str().unwrap());
    run(["journal", "rebuild", &data, "--dry-run"]).expect(4).prints("can't be verified").prints("--accept-loss");
    assert!(fs::read(&segment).unwrap() == bytes, "the file is as it was");
    run(start).expect(4);
    run(["journal", "rebuild", &data, "--accept-loss", "--dry-run"]).expect(0).prints("given up");
    run(start).expect(4);
    run(["journal", "rebuild", &data, "--accept-loss"]).expect(0).prints("kept as a branch");
    let kept: String = lines(0).split_inclusive('\n').take(99).collect();
    let restored = || run(["restore", "log", "--from", &data, "--to", "-"]).expect(0).stdout;
    assert!(restored() == kept, "before the node has cut it off");
    let mut node = Daemon::start(start);
    node.hear("next");
    node.stop(Path::new(&data)).expect(0);
    assert!(restored() == kept);
    assert_eq!(fs::read_dir(Path::new(&data).join("streams/log/journal/branches")).unwrap().count(), 1);
}
