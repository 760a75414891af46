//! One node without peers.

use journal::Class;
use node::control::{From, Level, Mark, TailFrom, Until};
use node::{Options, State};

use crate::support::{LONG, STREAM, class, primary, receiver, start, try_start, until};

#[test]
fn what_was_appended_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let a = start(primary(dir.path(), "a", []));
    assert_eq!(a.stream().state, State::Open);
    let acked = a.append(Level::Durable, LONG, &["one", "", "three"]).expect("acknowledged");
    assert_eq!((acked.count, acked.term, acked.run, acked.alone), (3, 1, 1, false));
    assert_eq!(a.records(), ["one", "", "three"]);
    let stopped = a.stop();
    assert_eq!((stopped.unknown.len(), stopped.troubles.len()), (0, 0), "{stopped}");
    // options without the stream: the control file knows what this node is
    let a = start(Options::new(dir.path().join("a")));
    assert_eq!(a.records(), ["one", "", "three"]);
    let acked = a.append(Level::Committed, LONG, &["four"]).expect("acknowledged");
    assert_eq!((acked.term, acked.run), (1, 2));
}

#[test]
fn a_stream_that_is_not_there_is_named_with_those_that_are() {
    let dir = tempfile::tempdir().expect("a folder");
    let a = start(primary(dir.path(), "a", []));
    let from = TailFrom { stream: "other".into(), from: From::Start, follow: false };
    let error = a.client().tail(from).expect_err("no such stream");
    assert_eq!(error.class(), Class::Absent);
    assert!(error.to_string().contains(STREAM), "{error}");
}

#[test]
fn a_second_node_on_one_folder_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = primary(dir.path(), "a", []);
    let a = start(options.clone());
    let error = try_start(options).map(|_| ()).expect_err("it is held");
    assert_eq!(error.class(), Class::Locked);
    a.append(Level::Durable, LONG, &["unharmed"]).expect("acknowledged");
}

#[test]
fn a_copied_stream_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    start(primary(dir.path(), "a", [])).stop();
    let streams = dir.path().join("a/streams");
    let copied =
        std::process::Command::new("cp").arg("-r").arg(streams.join(STREAM)).arg(streams.join("copy")).status();
    assert!(copied.expect("cp").success());
    let error = try_start(Options::new(dir.path().join("a"))).map(|_| ()).expect_err("two of one identity");
    assert_eq!(error.class(), Class::Refused, "{error}");
    // the same folder under another node
    start(receiver(dir.path(), "b", None)).stop();
    std::fs::rename(streams.join("copy"), dir.path().join("b/streams").join(STREAM)).expect("moved");
    let error = try_start(receiver(dir.path(), "b", None)).map(|_| ()).expect_err("another node's");
    assert_eq!(error.class(), Class::Refused, "{error}");
}

#[test]
fn a_follower_sees_what_comes_and_ends_with_the_node() {
    let dir = tempfile::tempdir().expect("a folder");
    let a = start(primary(dir.path(), "a", []));
    a.append(Level::Durable, LONG, &["before"]).expect("acknowledged");
    let from = TailFrom { stream: STREAM.into(), from: From::End, follow: true };
    let mut tail = a.client().tail(from).expect("a tail");
    for payload in ["one", "two"] {
        let acked = a.append(Level::Durable, LONG, &[payload]).expect("acknowledged");
        let record = tail.next_record().expect("no error").expect("a record");
        assert_eq!((record.payload, record.end.get()), (payload.as_bytes(), acked.lsn));
    }
    let ending = std::thread::spawn(move || a.stop());
    assert_eq!(tail.next_record().expect("no error"), None);
    ending.join().expect("no panic");
}

#[test]
fn a_tail_begins_where_it_was_told_to() {
    let dir = tempfile::tempdir().expect("a folder");
    let a = start(primary(dir.path(), "a", []));
    let first = a.append(Level::Durable, LONG, &["one"]).expect("acknowledged").lsn;
    a.append(Level::Durable, LONG, &["two", "three"]).expect("acknowledged");
    let from = |from| -> Vec<(Vec<u8>, u64)> {
        let mut tail = a.client().tail(TailFrom { stream: STREAM.into(), from, follow: false }).expect("a tail");
        let mut records = Vec::new();
        while let Some(record) = tail.next_record().expect("a record") {
            records.push((record.payload.to_vec(), record.time.as_nanos()));
        }
        records
    };
    let all = from(From::Start);
    assert_eq!(all.len(), 3);
    assert_eq!(from(From::Lsn(first)), all[1..]);
    assert_eq!(from(From::Lsn(first - 1)), all[1..], "inside a record: the next one");
    assert_eq!(from(From::Time(all[1].1)), all[2..], "later than that instant");
    assert_eq!(from(From::End), []);
    let beyond = TailFrom { stream: STREAM.into(), from: From::Lsn(1 << 40), follow: false };
    assert_eq!(a.client().tail(beyond).expect_err("not reached").class(), Class::NotReached);
}

#[test]
fn a_mark_is_an_entry_with_a_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let a = start(primary(dir.path(), "a", []));
    let before = a.append(Level::Durable, LONG, &["x"]).expect("acknowledged").lsn;
    let mark = |name: &str| Mark { stream: STREAM.into(), name: name.into(), wait: Level::Durable, timeout_ms: None };
    let marked = a.client().mark(mark("before the migration")).expect("marked");
    assert!(marked.lsn > before);
    for name in ["", "two\nlines", &"x".repeat(201)] {
        assert_eq!(a.client().mark(mark(name)).expect_err("no name").class(), Class::Usage);
    }
    assert_eq!(a.records(), ["x"]);
}

#[test]
fn a_record_above_the_limit_leaves_the_stream_unharmed() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut options = primary(dir.path(), "a", []);
    options.streams[0].record_bytes_max = Some(1000);
    let a = start(options);
    let large = "x".repeat(1001);
    assert_eq!(class(a.append(Level::Durable, LONG, &["before", &large, "after"])), Class::Usage);
    a.append(Level::Durable, LONG, &["next"]).expect("acknowledged");
    assert_eq!(a.records(), ["before", "next"]);
}

#[test]
fn waiting_for_durable_answers_at_once_without_peers() {
    let dir = tempfile::tempdir().expect("a folder");
    let a = start(primary(dir.path(), "a", []));
    a.append(Level::Written, LONG, &["x"]).expect("acknowledged");
    a.wait(Until::Durable);
    a.wait(Until::Connected);
    until(|| a.stream().at.durable == a.stream().at.written);
}
