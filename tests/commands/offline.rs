//! Looking at data without a node: restore, verify, journal.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use journal::{Geometry, Item, Journal, Kind, NodeId, Options, Reason, Role, RunOpening, StreamId};
use tempfile::TempDir;

use crate::support::{Ended, code, run, towline};

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
    let whole = entries(&data);
    flip(segment, offset);
    let spoiled = fs::read(segment).unwrap();

    let range = format!("{at}..{end}");
    run(["verify", data.path()]).expect(4).prints(&range).prints(segment.to_str().unwrap());
    data.restore(&[]).expect(4).says(&range);
    assert!(!data.out().exists());
    data.restore(&["--at", &at.to_string()]).expect(4).says(&range);
    let dump = run(["journal", "dump", data.path()]).expect(4).says(&range);
    assert_eq!(dump.stdout.lines().count(), whole - 1, "everything before and behind it");
    let dump = run(["journal", "dump", data.path(), "--json"]).expect(4).says(&range);
    let rows = json(&dump.stdout);
    let gap = rows.iter().position(|row| !row["fault"].is_null()).unwrap();
    assert_eq!((&rows[gap]["fault"]["from"], &rows[gap]["fault"]["to"]), (&at.into(), &(*end).into()));
    assert_eq!((&rows[gap - 1]["end"], &rows[gap + 1]["lsn"]), (&at.into(), &(*end).into()), "in its place");
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

/// Every line of it.
fn json(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_journal_is_listed_as_far_as_it_is_readable() {
    let data = Data::new();
    let segments = data.segments();
    let files = |ended: &Ended| json(&ended.stdout).iter().filter(|row| !row["file"].is_null()).count();
    let lost = segments[1].to_str().unwrap();
    // both copies of its header
    flip(&segments[1], 100);
    flip(&segments[1], 2148);
    let range = format!("{}..{}", 64 << 10, 128 << 10);
    for look in ["ls", "info", "dump"] {
        let ended = run(["journal", look, data.path(), "--json"]).expect(4).says(&range).says(lost);
        let faults: Vec<_> = json(&ended.stdout).into_iter().filter(|row| !row["fault"].is_null()).collect();
        assert_eq!((faults.len(), &faults[0]["fault"]["from"]), (1, &(64 << 10).into()), "{look}");
        run(["journal", look, data.path()]).expect(4).says(&range);
    }
    let listed = run(["journal", "ls", data.path(), "--json"]);
    assert_eq!(files(&listed), segments.len() - 1);
    let dump = run(["journal", "dump", data.path()]);
    assert!(dump.stdout.lines().any(|line| line.starts_with(&format!("{}..", 128 << 10))), "what is behind it");
    run(["journal", "verify", data.path()]).expect(4).prints(&range).prints("1 place is damaged");

    fs::remove_file(data.journal().join("control")).unwrap();
    let listed = run(["journal", "ls", data.path(), "--json"]).expect(4).says("towline journal rebuild").says(lost);
    assert_eq!(files(&listed), segments.len() - 1);
    run(["journal", "info", data.path()]).expect(4).says("towline journal rebuild");
}

#[test]
fn journal_verify_is_verify_of_a_journal() {
    let data = Data::new();
    let path = data.journal();
    let path = path.to_str().unwrap();
    for damaged in [false, true] {
        if damaged {
            flip(&data.segments()[1], 4096 + 300);
        }
        for more in [&[][..], &["--json"]] {
            let words = |first: &[&'static str]| [first, &[path], more].concat();
            let (one, other) = (run(words(&["journal", "verify"])), run(words(&["verify"])));
            assert_eq!((one.code, &one.stdout), (other.code, &other.stdout));
            assert_eq!(one.code, if damaged { 4 } else { 0 });
        }
    }
    run(["journal", "verify", data.path(), "--stream", "log"]).expect(4).prints("1 place is damaged");
    run(["journal", "verify", data.path(), "--stream", "other"]).expect(10).says("only log");
}

#[test]
fn every_line_of_json_carries_its_schema() {
    let data = Data::new();
    flip(&data.segments()[1], 4096 + 300);
    for look in ["info", "ls", "dump", "verify"] {
        let ended = run(["journal", look, data.path(), "--json"]);
        let rows = json(&ended.stdout);
        assert!(!rows.is_empty() && rows.iter().all(|row| row["schema"] == 1), "{look}: {}", ended.stdout);
    }
    let verify = json(&run(["journal", "verify", data.path(), "--json"]).expect(4).stdout);
    let [fault, looked_at, verdict] = &verify[..] else { panic!("{verify:?}") };
    assert!(fault["fault"]["from"].is_u64() && looked_at["looked_at"]["entries"].is_u64());
    assert_eq!((&verdict["good"], &verdict["faults"]), (&false.into(), &1.into()));
}

#[test]
fn whoever_has_read_enough_ends_it_quietly() {
    let data = Data::new();
    let words: [&[&str]; 4] = [
        &["journal", "dump", data.path()],
        &["journal", "dump", data.path(), "--json"],
        &["journal", "ls", data.path()],
        &["journal", "verify", data.path()],
    ];
    for words in words {
        let mut child = towline(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        // `| head -1`, and for what is short a reader that is gone already
        if words[1] == "dump" {
            stdout.read_line(&mut String::new()).unwrap();
        }
        drop(stdout);
        let output = child.wait_with_output().unwrap();
        assert_eq!((code(output.status), String::from_utf8_lossy(&output.stderr).as_ref()), (141, ""), "{words:?}");
    }
}

/// Memory that a process has for itself, in KiB: now, and at most so far (with what it mapped of files).
fn memory(pid: u32) -> Option<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some((number("RssAnon:")?, number("VmHWM:")?.saturating_sub(number("RssFile:")?)))
}

/// Most KiB that looking at a journal of any size may take.
const MEMORY_KIB: u64 = 16 << 10;

#[test]
fn a_large_journal_is_looked_at_in_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("journal");
    let options = Options { geometry: Geometry::new(128 << 20).unwrap(), ..Options::default() };
    let stream = StreamId::random();
    let journal = Journal::create(&dir, stream, NodeId::random(), Role::Primary, options).unwrap();
    journal.open_run(RunOpening { promote: None, reason: Reason::Created, policy: b"{}".to_vec() }).unwrap();
    // 300 MiB, of which many entries are small
    let (small, large) = ([7; 40], vec![7; 1 << 20]);
    for _ in 0..300 {
        journal.append_many(&[Item::record(&[&small]); 200]).unwrap();
        journal.append(Item::record(&[&large[..1_000_000]])).unwrap();
    }
    journal.close().unwrap();
    let path = dir.to_str().unwrap();
    for words in [&["journal", "dump", path][..], &["journal", "dump", path, "--json", "--payload"]] {
        let (lines, peak) = watched(words);
        assert!(lines > 300 * 201, "every record, and what belongs to the log itself: {lines}");
        assert!(peak < MEMORY_KIB, "{words:?} took {peak} KiB");
    }
    // a header that claims to be gigabytes long is not believed, and what is behind it is searched piece by piece
    let last = fs::read_dir(&dir).unwrap().map(|file| file.unwrap().path());
    let mut segments: Vec<_> = last.filter(|path| path.extension().is_some_and(|ext| ext == "seg")).collect();
    segments.sort();
    let file = fs::File::options().write(true).open(&segments[1]).unwrap();
    file.write_all_at(&[0xff; 4], 4096).unwrap();
    for words in [&["journal", "verify", path][..], &["journal", "dump", path]] {
        let (_, peak) = watched(words);
        assert!(peak < MEMORY_KIB, "{words:?} took {peak} KiB");
    }
}

/// Runs it, reads its output, and looks at its memory as long as it runs: the number of lines, and the most KiB.
fn watched(words: &[&str]) -> (u64, u64) {
    let mut child = towline(words).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (pid, ended) = (child.id(), AtomicBool::new(false));
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (lines, peak) = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while !ended.load(Ordering::Relaxed) {
                peak = peak.max(memory(pid).map_or(0, |(now, most)| now.max(most)));
                // leaves the processor to the one that is watched
                thread::sleep(Duration::from_millis(1));
            }
            peak
        });
        let lines = lines.map(Result::unwrap).count() as u64;
        ended.store(true, Ordering::Relaxed);
        (lines, watcher.join().unwrap())
    });
    child.wait().unwrap();
    assert!(peak > 0, "it was seen while it ran");
    (lines, peak)
}

fn flip(file: &Path, offset: u64) {
    let file = fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}
