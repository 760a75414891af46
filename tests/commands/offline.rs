//! Looking at data without a node: restore, verify, journal.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use journal::{Geometry, Item, Journal, Kind, NodeId, Options, Reason, Role, RunOpening, StreamId};
use tempfile::TempDir;

use crate::support::{Ended, run};

/// A node's data folder with one stream `log`, made without a node.
struct Data {
    folder: TempDir,
    /// Position behind each record.
    ends: Vec<u64>,
}

/// Records of the stream: longer than a segment together, so that there are several.
const RECORDS: u64 = 3000;

fn record(number: u64) -> String {
    format!("record {number} {}", "x".repeat((number % 50) as usize))
}

fn text(records: u64) -> String {
    (0..records).map(|number| record(number) + "\n").collect()
}

impl Data {
    fn new() -> Data {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("streams/log");
        fs::create_dir_all(&dir).unwrap();
        let options = Options { geometry: Geometry::new(64 << 10).unwrap(), ..Options::default() };
        let stream = StreamId::random();
        let journal = Journal::create(&dir.join("journal"), stream, NodeId::random(), Role::Primary, options).unwrap();
        journal.open_run(RunOpening { promote: None, reason: Reason::Created, policy: b"{}".to_vec() }).unwrap();
        let mut ends = Vec::new();
        for number in 0..RECORDS {
            if number == 1000 {
                journal.append(Item { kind: Kind::Mark, ..Item::record(&[b"before 1000"]) }).unwrap();
            }
            let record = record(number);
            ends.push(journal.append(Item::record(&[record.as_bytes()])).unwrap().lsn().get());
        }
        journal.close().unwrap();
        Data { folder, ends }
    }

    fn path(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("streams/log/journal")
    }

    fn segments(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.journal()).unwrap().map(|file| file.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|ext| ext == "seg"));
        files.sort();
        files
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out.txt")
    }

    fn restore(&self, more: &[&str]) -> Ended {
        let out = self.out();
        let _ = fs::remove_file(&out);
        run([&["restore", "log", "--from", self.path(), "--to", out.to_str().unwrap()], more].concat())
    }

    #[track_caller]
    fn restored(&self, more: &[&str], records: u64) {
        self.restore(more).expect(0).prints(&format!("restored {records} records"));
        assert!(fs::read_to_string(self.out()).unwrap() == text(records), "{records} records, unaltered");
    }
}

#[test]
fn restore_to_any_point() {
    let data = Data::new();
    let lsn = |records: u64| data.ends[records as usize - 1].to_string();
    data.restored(&[], RECORDS);
    data.restored(&["--at", "lsn:0"], 0);
    data.restored(&["--at", &lsn(1)], 1);
    data.restored(&["--at", &format!("lsn:{}", lsn(1500))], 1500);
    // a position inside a record leaves it out
    data.restored(&["--at", &(data.ends[1499] - 8).to_string()], 1499);
    data.restored(&["--at", "mark:before 1000"], 1000);
    // the time of an entry belongs to it
    let dump = run(["journal", "dump", data.path(), "--from", &lsn(1499), "--limit", "1", "--json"]).expect(0);
    let entry: serde_json::Value = serde_json::from_str(&dump.stdout).unwrap();
    assert_eq!(entry["end"], data.ends[1499]);
    data.restored(&["--at", entry["time"].as_str().unwrap()], 1500);
}

#[test]
fn a_point_out_of_range_is_15_and_nothing_is_written() {
    let data = Data::new();
    let end = data.ends.last().unwrap();
    for point in [&(end + 8).to_string(), "mark:nobody", "1999-01-01T00:00:00Z", "2399-01-01T00:00:00Z"] {
        data.restore(&["--at", point]).expect(15);
        assert!(!data.out().exists(), "{point}");
    }
    data.restore(&["--at", "yesterday"]).expect(2).says("latest, lsn:123");
}

#[test]
fn a_plan_says_where_it_ends_and_changes_nothing() {
    let data = Data::new();
    let at = data.ends[99].to_string();
    let before = data.restore(&["--at", &at, "--dry-run"]).expect(0);
    assert!(!data.out().exists());
    let before = before.prints(&format!("reaches LSN {at}")).prints("last entry inside").prints("first entry behind");
    assert!(before.stdout.contains(&format!("LSN {at}..{}", data.ends[100])), "{}", before.stdout);
    let plan = data.restore(&["--at", "mark:before 1000", "--dry-run", "--json"]).expect(0).stdout;
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    assert_eq!((&plan["schema"], &plan["before"]["kind"]), (&1.into(), &"mark".into()));
    assert_eq!(plan["after"]["end"], data.ends[1000]);
}

#[test]
fn an_existing_target_is_replaced_only_by_force() {
    let data = Data::new();
    fs::write(data.out(), "precious").unwrap();
    let words = ["restore", "log", "--from", data.path(), "--to", data.out().to_str().unwrap()].map(String::from);
    run(&words).expect(13).says("--force");
    assert_eq!(fs::read_to_string(data.out()).unwrap(), "precious");
    run(words.iter().map(String::as_str).chain(["--force"])).expect(0);
    assert_eq!(fs::read_to_string(data.out()).unwrap(), text(RECORDS));
    let aside = fs::read_dir(data.folder.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".part"));
    assert_eq!(aside.count(), 0, "nothing is left beside it");
}

#[test]
fn a_target_in_no_folder_names_the_folder() {
    let data = Data::new();
    let nowhere = data.folder.path().join("nowhere");
    let ended = run(["restore", "log", "--from", data.path(), "--to", nowhere.join("out").to_str().unwrap()]).expect(1);
    assert_eq!(ended.stderr, format!("towline: create a file in {}: entity not found\n", nowhere.display()));
}

#[test]
fn restore_to_standard_output() {
    let data = Data::new();
    let shown = run(["restore", "log", "--from", data.path(), "--to", "-"]).expect(0);
    assert_eq!(shown.stdout, text(RECORDS));
}

#[test]
fn what_is_not_there_is_10() {
    let data = Data::new();
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().to_str().unwrap();
    run(["restore", "other", "--from", data.path(), "--dry-run"]).expect(10).says("only log");
    for path in ["/does/not/exist", empty] {
        run(["restore", "log", "--from", path, "--dry-run"]).expect(10);
        run(["verify", path]).expect(10);
        run(["journal", "info", path]).expect(10);
    }
    run(["restore", "log", "--from", data.path(), "--from", data.path(), "--dry-run"]).expect(2).says("at most one");
}

#[test]
fn whole_data_verifies() {
    let data = Data::new();
    run(["verify", data.path()]).expect(0).prints("all good").prints(&format!("{} entries", entries(&data)));
    run(["verify", data.journal().to_str().unwrap()]).expect(0);
    run(["journal", "ls", data.path()]).expect(0).prints("0000000000000000.seg");
    run(["journal", "info", data.path()]).expect(0).prints("primary of stream").prints("epoch 1.1");
}

fn entries(data: &Data) -> usize {
    run(["journal", "dump", data.path()]).expect(0).stdout.lines().count()
}

#[test]
fn a_flipped_bit_below_the_durable_point_is_4_with_its_range_and_the_file_is_left_alone() {
    let data = Data::new();
    let segment = &data.segments()[1];
    // in the middle of the second segment: read the entry that lies there from a dump
    let dump = run(["journal", "dump", data.path(), "--from", "98304", "--limit", "1", "--json"]);
    let at = match dump.code {
        0 => 98304,
        _ => *data.ends.iter().find(|end| **end > 98304).unwrap(),
    };
    let end = data.ends.iter().find(|end| **end > at).unwrap();
    let offset = 4096 + (at - (64 << 10)) + 100;
    flip(segment, offset);
    let spoiled = fs::read(segment).unwrap();

    let range = format!("{at}..{end}");
    run(["verify", data.path()]).expect(4).prints(&range).prints(segment.to_str().unwrap());
    data.restore(&[]).expect(4).says(&range);
    assert!(!data.out().exists());
    data.restore(&["--at", &at.to_string()]).expect(4).says(&range);
    run(["journal", "dump", data.path()]).expect(4).says(&range);
    assert!(fs::read(segment).unwrap() == spoiled, "the file is as it was");
}

#[test]
fn every_damaged_segment_is_named_not_only_the_first() {
    let data = Data::new();
    let segments = data.segments();
    flip(&segments[0], 4096 + 300);
    flip(&segments[2], 4096 + 300);
    let found = run(["verify", data.path()]).expect(4).prints("2 places are damaged");
    for segment in [&segments[0], &segments[2]] {
        assert!(found.stdout.contains(segment.to_str().unwrap()));
    }
}

#[test]
fn a_truncated_or_foreign_segment_is_4() {
    let data = Data::new();
    let segment = data.segments()[1].clone();
    let whole = fs::read(&segment).unwrap();
    fs::write(&segment, &whole[..whole.len() / 2]).unwrap();
    run(["verify", data.path()]).expect(4).prints(segment.to_str().unwrap());
    data.restore(&[]).expect(4);

    let other = Data::new();
    fs::copy(&other.segments()[1], &segment).unwrap();
    run(["verify", data.path()]).expect(4).prints("its header says stream").prints(segment.to_str().unwrap());
    data.restore(&[]).expect(4);

    fs::write(&segment, &whole).unwrap();
    data.restored(&[], RECORDS);
}

#[test]
fn a_journal_without_its_control_file_is_4() {
    let data = Data::new();
    fs::remove_file(data.journal().join("control")).unwrap();
    run(["verify", data.path()]).expect(4).prints("control");
}

fn flip(file: &Path, offset: u64) {
    let file = fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}
