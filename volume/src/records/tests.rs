use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use journal::{Chain, Class, Entry, Epoch, Flags, Header, Kind, Lsn, LsnRange, Machine, StreamId, Time, crc32c};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::Error;

const US: Identity = Identity { stream: StreamId::from_bytes([7; 16]), volume: 3 };
const WHOLE: Flags = Flags::FIRST.with(Flags::LAST);

/// Entries in log order, as a source would hand them over.
#[derive(Clone, Debug, Default)]
struct Log {
    entries: Vec<(Header, Vec<u8>)>,
    end: Lsn,
}

impl Log {
    fn push(&mut self, kind: Kind, volume: u16, flags: Flags, payload: &[u8]) -> Lsn {
        let header = Header {
            length: (journal::HEADER_BYTES + payload.len()) as u32,
            kind: Some(kind),
            flags,
            lsn: self.end,
            epoch: Epoch::default(),
            run_id: 1,
            time: Time::from_nanos(self.end.get() + 1000),
            durable: Lsn::ZERO,
            payload_crc: crc32c(payload),
            volume,
            producer: 0,
            sequence: 0,
            chain: Chain::default(),
        };
        self.end = header.range().to;
        self.entries.push((header, payload.to_vec()));
        self.end
    }

    fn record(&mut self, payload: &[u8]) -> Lsn {
        self.push(Kind::Data, US.volume, WHOLE, payload)
    }

    /// A record in one entry per part.
    fn fragments(&mut self, parts: &[&[u8]]) -> Lsn {
        for (number, part) in parts.iter().enumerate() {
            let first = if number == 0 { Flags::FIRST } else { Flags::NONE };
            let last = if number + 1 == parts.len() { Flags::LAST } else { Flags::NONE };
            self.push(Kind::Data, US.volume, first.with(last), part);
        }
        self.end
    }

    /// Hands over the entries in `from..to`.
    fn feed(&self, records: &mut Records, from: Lsn, to: Lsn) -> crate::Result<()> {
        let within = |header: &Header| header.lsn >= from && header.range().to <= to;
        let mut entries = self
            .entries
            .iter()
            .filter(|(header, _)| within(header))
            .map(|(header, payload)| Entry { header: *header, payload });
        records.apply(LsnRange::new(from, to), &mut entries)
    }

    fn feed_all(&self, records: &mut Records) -> crate::Result<()> {
        let from = records.applied();
        self.feed(records, from, self.end)
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn open(dir: &Path) -> Records {
    Records::open(dir, US, Lsn::ZERO).expect("open")
}

fn read(dir: &Path) -> Vec<(Lsn, Vec<u8>)> {
    let file = RecordFile::open(dir).expect("open for reading");
    let mut walk = file.walk(Lsn::ZERO).expect("walk");
    let mut found = Vec::new();
    while let Some(record) = walk.next_record().expect("read") {
        assert_eq!(record.number, found.len() as u64);
        found.push((record.end, record.payload.to_vec()));
    }
    found
}

/// Three records and a checkpoint behind them: bytes 0..9 of the data.
fn three(dir: &Path) -> (Log, Lsn) {
    let mut log = Log::default();
    log.record(b"abc");
    log.record(b"");
    log.fragments(&[b"de", b"fgh", b"i"]);
    let mut records = open(dir);
    log.feed_all(&mut records).expect("apply");
    let checkpoint = records.checkpoint().expect("checkpoint");
    assert_eq!(checkpoint, log.end);
    (log, checkpoint)
}

#[test]
fn records_of_every_shape_come_back_and_other_entries_do_not() {
    let dir = folder();
    let mut log = Log::default();
    log.push(Kind::Epoch, 0, Flags::NONE, b"opens");
    let a = log.record(b"a");
    log.push(Kind::Data, 9, WHOLE, b"another volume's");
    log.push(Kind::Mark, US.volume, Flags::NONE, b"noon");
    let empty = log.record(b"");
    let long = log.fragments(&[&[1; 1000], b"", &[2; 1000]]);
    log.push(Kind::Pad, 0, Flags::NONE, &[0; 64]);
    let open_text = log.push(Kind::Data, US.volume, WHOLE.with(Flags::UNTERMINATED), b"tail");
    let mut records = open(dir.path());
    log.feed_all(&mut records).expect("apply");
    assert_eq!(records.applied(), log.end);
    let whole = [[1; 1000], [2; 1000]].concat();
    assert_eq!(read(dir.path()), [(a, b"a".to_vec()), (empty, vec![]), (long, whole), (open_text, b"tail".to_vec())]);
    let file = RecordFile::open(dir.path()).expect("open");
    assert_eq!(file.identity(), US);
    let mut walk = file.walk(long).expect("walk");
    let last = walk.next_record().expect("read").expect("a record");
    assert_eq!((last.flags, last.time), (Flags::UNTERMINATED, Time::from_nanos(log.entries[9].0.lsn.get() + 1000)));
    assert_eq!(file.find(empty).expect("find"), Some(vec![]));
    assert_eq!(file.find(long).expect("find").map(|payload| payload.len()), Some(2000));
    for nowhere in [Lsn::ZERO, Lsn::new(a.get() - 1), log.end.advance(8)] {
        assert_eq!(file.find(nowhere).expect("find"), None);
    }
}

#[test]
fn entries_that_come_again_change_nothing() {
    let dir = folder();
    let mut log = Log::default();
    let first = log.record(b"one");
    log.fragments(&[b"tw", b"o"]);
    let mut records = open(dir.path());
    for _ in 0..2 {
        log.feed(&mut records, Lsn::ZERO, log.end).expect("apply");
        log.feed(&mut records, Lsn::ZERO, first).expect("apply an older run");
    }
    assert_eq!(records.applied(), log.end);
    assert_eq!(read(dir.path()).len(), 2);
}

#[test]
fn a_gap_is_refused() {
    let dir = folder();
    let mut log = Log::default();
    let first = log.record(b"one");
    log.record(b"two");
    let mut records = open(dir.path());
    let error = log.feed(&mut records, first, log.end).expect_err("the first record is missing");
    assert!(matches!(error, Error::Gap { offered, applied: Lsn::ZERO } if offered == first), "{error}");
    assert_eq!(read(dir.path()), []);
}

#[test]
fn a_record_counts_when_its_last_entry_has_come_and_a_checkpoint_stays_before_it() {
    let dir = folder();
    let mut log = Log::default();
    let first = log.record(b"one");
    log.fragments(&[b"a", b"b", b"c"]);
    let middle = log.entries[2].0.range().to;
    let mut records = open(dir.path());
    log.feed(&mut records, Lsn::ZERO, middle).expect("apply");
    assert_eq!((records.applied(), read(dir.path()).len()), (middle, 1));
    assert_eq!(records.checkpoint().expect("checkpoint"), first);
    drop(records);
    let mut records = open(dir.path());
    assert_eq!(records.applied(), first);
    log.feed_all(&mut records).expect("apply");
    assert_eq!(read(dir.path())[1].1, b"abc");
}

#[test]
fn a_record_without_its_last_entry_leaves_nothing_behind() {
    for written in [false, true] {
        let dir = folder();
        let mut log = Log::default();
        log.record(b"one");
        log.push(Kind::Data, US.volume, Flags::FIRST, b"never finished");
        let stop = if written { log.end } else { Lsn::ZERO };
        log.push(Kind::Epoch, 0, Flags::NONE, b"another run");
        log.push(Kind::Data, US.volume, Flags::LAST, b"a stray end");
        log.record(b"two");
        let mut records = open(dir.path());
        log.feed(&mut records, Lsn::ZERO, stop).expect("apply");
        log.feed_all(&mut records).expect("apply");
        let payloads: Vec<_> = read(dir.path()).into_iter().map(|(_, payload)| payload).collect();
        assert_eq!(payloads, [b"one", b"two"]);
        records.checkpoint().expect("checkpoint");
        assert_eq!(fs::read(dir.path().join(DATA_FILE)).expect("read")[..6], *b"onetwo");
    }
}

#[test]
fn a_large_record_takes_no_large_memory() {
    let dir = folder();
    let mut log = Log::default();
    let part = vec![5; 1 << 20];
    log.fragments(&[part.as_slice(); 8]);
    let mut records = open(dir.path());
    log.feed_all(&mut records).expect("apply");
    assert!(records.pending_capacity() < 4 << 20, "{}", records.pending_capacity());
    assert_eq!(read(dir.path())[0].1.len(), 8 << 20);
}

#[test]
fn what_lies_above_the_checkpoint_is_cut_when_opened_and_comes_again() {
    let dir = folder();
    let (mut log, checkpoint) = three(dir.path());
    let mut records = open(dir.path());
    log.record(b"after");
    log.feed_all(&mut records).expect("apply");
    drop(records);
    // a power cut: the newest blocks are anything
    for file in [DATA_FILE, INDEX_FILE] {
        let path = dir.path().join(file);
        let bytes = fs::metadata(&path).expect("look").len();
        File::options().write(true).open(path).expect("open").write_all_at(&[0xee; 3], bytes - 3).expect("write");
    }
    let torn = RecordFile::open(dir.path()).expect("open").verify().expect("a torn tail is no error");
    assert_eq!((torn.records, torn.end, torn.torn.is_some()), (3, checkpoint, true));
    let mut records = open(dir.path());
    assert_eq!((records.applied(), records.totals()), (checkpoint, (3, 9)));
    log.feed_all(&mut records).expect("apply");
    assert_eq!(read(dir.path())[3].1, b"after");
    let whole = RecordFile::open(dir.path()).expect("open").verify().expect("verify");
    assert_eq!((whole.records, whole.bytes, whole.end, whole.torn), (4, 14, log.end, None));
}

#[test]
fn every_flipped_bit_below_the_checkpoint_is_found_at_its_place() {
    let dir = folder();
    let (_, checkpoint) = three(dir.path());
    for name in [DATA_FILE, INDEX_FILE] {
        let path = dir.path().join(name);
        let right = fs::read(&path).expect("read");
        for at in 0..right.len() {
            if name == INDEX_FILE && (at as u64) < ITEMS_OFFSET {
                continue; // the slots have their own test
            }
            let mut wrong = right.clone();
            wrong[at] ^= 1 << (at % 8);
            fs::write(&path, &wrong).expect("write");
            for error in [
                Records::open(dir.path(), US, checkpoint).expect_err("damaged"),
                RecordFile::open(dir.path()).expect("open").verify().expect_err("damaged"),
            ] {
                assert_eq!(error.class(), Class::Corrupt);
                match error {
                    Error::Damaged { path: named, bytes, .. } => {
                        assert!(named == path && bytes.contains(&(at as u64)), "{at}: {named:?} {bytes:?}");
                    }
                    other => panic!("{at}: {other}"),
                }
            }
            assert_eq!(fs::read(&path).expect("read"), wrong, "the file was left as it is");
        }
        fs::write(&path, right).expect("write");
    }
}

#[test]
fn every_shortened_file_is_found() {
    let dir = folder();
    let (_, checkpoint) = three(dir.path());
    for name in [DATA_FILE, INDEX_FILE] {
        let path = dir.path().join(name);
        let right = fs::read(&path).expect("read");
        for bytes in 0..right.len() {
            if name == INDEX_FILE && (bytes as u64) < ITEMS_OFFSET {
                continue;
            }
            fs::write(&path, &right[..bytes]).expect("write");
            for error in [
                Records::open(dir.path(), US, checkpoint).expect_err("short"),
                RecordFile::open(dir.path()).expect("open").verify().expect_err("short"),
            ] {
                assert!(matches!(&error, Error::Short { path: named, .. } if *named == path), "{bytes}: {error}");
            }
        }
        fs::write(&path, right).expect("write");
    }
}

#[test]
fn one_bad_slot_falls_back_to_the_other_and_two_are_damage() {
    let dir = folder();
    let (mut log, checkpoint) = three(dir.path());
    let mut records = open(dir.path());
    log.record(b"more");
    log.feed_all(&mut records).expect("apply");
    let newest = records.checkpoint().expect("checkpoint");
    drop(records);
    let path = dir.path().join(INDEX_FILE);
    let right = fs::read(&path).expect("read");
    let sequence = |slot: usize| right[SLOT_OFFSETS[slot] as usize + 32];
    let (newer, older) = if sequence(0) > sequence(1) { (0, 1) } else { (1, 0) };
    let mut wrong = right.clone();
    wrong[SLOT_OFFSETS[newer] as usize + 50] ^= 1;
    fs::write(&path, &wrong).expect("write");
    let error = Records::open(dir.path(), US, newest).expect_err("the journal remembers more");
    assert!(matches!(error, Error::Behind { own, remembered, .. } if own == checkpoint && remembered == newest));
    wrong[SLOT_OFFSETS[older] as usize + 50] ^= 1;
    fs::write(&path, &wrong).expect("write");
    let error = Records::open(dir.path(), US, newest).expect_err("no slot");
    assert!(matches!(error, Error::Damaged { bytes, .. } if bytes == (0..ITEMS_OFFSET)));
}

#[test]
fn a_missing_a_foreign_and_a_newer_file_are_told_apart() {
    let dir = folder();
    let emptied = Records::open(dir.path(), US, Lsn::new(80)).expect("it is built again");
    assert_eq!(emptied.applied(), Lsn::ZERO);
    drop(emptied);
    assert_eq!(Records::open(dir.path(), US, Lsn::new(80)).expect_err("half built").class(), Class::Corrupt);
    three(dir.path());
    let other = Identity { volume: 4, ..US };
    assert_eq!(Records::open(dir.path(), other, Lsn::ZERO).expect_err("foreign").class(), Class::Incompatible);
    assert!(matches!(Records::create(dir.path(), US, Lsn::ZERO), Err(Error::Exists { .. })));
    let path = dir.path().join(INDEX_FILE);
    let mut newer = fs::read(&path).expect("read");
    for offset in SLOT_OFFSETS {
        let slot = &mut newer[offset as usize..offset as usize + 96];
        slot[8] = 2;
        let crc = crc32c(&slot[..92]);
        slot[92..].copy_from_slice(&crc.to_le_bytes());
    }
    fs::write(&path, newer).expect("write");
    let error = Records::open(dir.path(), US, Lsn::ZERO).expect_err("newer");
    assert!(error.to_string().contains("format 2"), "{error}");
    fs::remove_file(&path).expect("remove");
    let error = Records::open(dir.path(), US, Lsn::ZERO).expect_err("data without its index");
    assert!(error.to_string().contains("9 bytes"), "{error}");
}

#[test]
fn a_file_that_begins_later_says_so() {
    let dir = folder();
    let mut records = Records::create(dir.path(), US, Lsn::new(800)).expect("create");
    assert_eq!(records.applied(), Lsn::new(800));
    let mut log = Log { end: Lsn::new(800), ..Log::default() };
    log.record(b"late");
    log.feed_all(&mut records).expect("apply");
    records.checkpoint().expect("checkpoint");
    assert_eq!(RecordFile::open(dir.path()).expect("open").start(), Lsn::new(800));
    drop(records);
    assert_eq!(open(dir.path()).applied(), log.end);
}

#[test]
fn a_full_disk_loses_nothing_and_applying_goes_on() {
    let dir = folder();
    let mut log = Log::default();
    log.record(b"one");
    log.fragments(&[b"tw", b"o"]);
    for full in [DATA_FILE, INDEX_FILE] {
        let mut records = open(dir.path());
        records.swap(full, File::options().read(true).write(true).open("/dev/full").expect("open /dev/full"));
        for _ in 0..3 {
            let error = log.feed(&mut records, Lsn::ZERO, log.end).expect_err("no space");
            assert_eq!(error.class(), Class::Full);
            assert_eq!(records.applied(), Lsn::ZERO);
        }
        let path = dir.path().join(full);
        records.swap(full, File::options().read(true).write(true).open(path).expect("open"));
        log.feed(&mut records, Lsn::ZERO, log.end).expect("space again");
        assert_eq!(read(dir.path()).into_iter().map(|(_, payload)| payload).collect::<Vec<_>>(), [b"one", b"two"]);
    }
}

#[test]
fn a_disk_that_stays_full_costs_no_more_memory_with_each_attempt() {
    let dir = folder();
    let mut log = Log::default();
    for _ in 0..100 {
        log.record(&[1; 100 << 10]);
    }
    let mut records = open(dir.path());
    records.swap(DATA_FILE, File::options().read(true).write(true).open("/dev/full").expect("open /dev/full"));
    for _ in 0..100 {
        log.feed_all(&mut records).expect_err("no space");
    }
    assert!(records.pending_capacity() < 1 << 20, "{}", records.pending_capacity());
}

#[test]
fn opening_says_its_checkpoint_again_because_the_page_cache_may_lie() {
    let dir = folder();
    three(dir.path());
    let sequence = || RecordFile::open(dir.path()).expect("open").slot.sequence;
    let before = sequence();
    open(dir.path());
    assert_eq!(sequence(), before + 1);
}

#[test]
fn a_failed_sync_is_final_and_moves_no_checkpoint() {
    for failing in [DATA_FILE, INDEX_FILE] {
        let dir = folder();
        let (mut log, checkpoint) = three(dir.path());
        let mut records = open(dir.path());
        // /dev/null takes every write and refuses to sync
        records.swap(failing, File::options().read(true).write(true).open("/dev/null").expect("open /dev/null"));
        log.record(b"lost");
        log.feed_all(&mut records).expect("apply");
        for _ in 0..2 {
            let error = records.checkpoint().expect_err("the sync failed");
            assert!(matches!(error, Error::Poisoned { checkpoint: safe, .. } if safe == checkpoint), "{error}");
            records.swap(failing, File::options().read(true).write(true).open(dir.path().join(failing)).expect("open"));
        }
        assert!(matches!(log.feed_all(&mut records), Err(Error::Poisoned { .. })));
        drop(records);
        let mut records = open(dir.path());
        assert_eq!(records.applied(), checkpoint);
        log.feed_all(&mut records).expect("apply");
        assert_eq!(records.checkpoint().expect("checkpoint"), log.end);
        assert_eq!(read(dir.path()).len(), 4);
    }
}

#[test]
fn a_walk_sees_what_is_written_meanwhile() {
    let dir = folder();
    let (mut log, _) = three(dir.path());
    let mut records = open(dir.path());
    let file = RecordFile::open(dir.path()).expect("open");
    let mut walk = file.walk(Lsn::ZERO).expect("walk");
    for _ in 0..3 {
        assert!(walk.next_record().expect("read").is_some());
    }
    for number in 0..5u8 {
        assert!(walk.next_record().expect("read").is_none());
        log.record(&vec![number; number as usize * 700]);
        log.feed_all(&mut records).expect("apply");
        let record = walk.next_record().expect("read").expect("the new record");
        assert_eq!((record.end, record.payload), (log.end, &vec![number; number as usize * 700][..]));
    }
    assert_eq!(walk.torn(), None);
}

#[derive(Clone, Debug)]
enum Step {
    Record(Vec<Vec<u8>>),
    Abandoned(Vec<u8>),
    Mark,
    Apply(u8),
    Checkpoint,
    /// The process dies; with `true` the power too, and everything above the checkpoint becomes noise.
    Reopen(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // often empty: such a record shows even where its data file was cut
    let bytes = || prop_oneof![Just(Vec::new()), proptest::collection::vec(any::<u8>(), 0..40)];
    let step = prop_oneof![
        4 => proptest::collection::vec(bytes(), 1..4).prop_map(Step::Record),
        1 => bytes().prop_map(Step::Abandoned),
        1 => Just(Step::Mark),
        4 => any::<u8>().prop_map(Step::Apply),
        2 => Just(Step::Checkpoint),
        1 => any::<bool>().prop_map(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against a plain list: whatever is applied is in the file, whatever was checkpointed survives everything.
    #[test]
    fn the_file_is_the_list_of_records(steps in steps()) {
        let dir = folder();
        let mut log = Log::default();
        let mut all: Vec<(Lsn, Vec<u8>)> = Vec::new();
        let mut records = open(dir.path());
        let mut safe = Lsn::ZERO;
        for step in steps {
            match step {
                Step::Record(parts) => {
                    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                    let end = log.fragments(&parts);
                    all.push((end, parts.concat()));
                }
                Step::Abandoned(part) => {
                    log.push(Kind::Data, US.volume, Flags::FIRST, &part);
                    log.push(Kind::Epoch, 0, Flags::NONE, b"");
                }
                Step::Mark => {
                    log.push(Kind::Mark, 0, Flags::NONE, b"m");
                }
                Step::Apply(share) => {
                    let due: Vec<Lsn> = log.entries.iter().map(|(header, _)| header.range().to).collect();
                    let above: Vec<Lsn> = due.into_iter().filter(|to| *to > records.applied()).collect();
                    if let Some(to) = above.get(above.len() * usize::from(share) / 256) {
                        let from = records.applied();
                        log.feed(&mut records, from, *to).expect("apply");
                    }
                }
                Step::Checkpoint => safe = records.checkpoint().expect("checkpoint"),
                Step::Reopen(power) => {
                    drop(records);
                    if power {
                        scramble_above_checkpoint(dir.path());
                    }
                    records = Records::open(dir.path(), US, safe).expect("open");
                    prop_assert_eq!(records.applied(), safe);
                }
            }
            let applied = records.applied();
            let expected: Vec<_> = all.iter().filter(|(end, _)| *end <= applied).cloned().collect();
            prop_assert_eq!(read(dir.path()), expected);
        }
    }
}

fn scramble_above_checkpoint(dir: &Path) {
    let file = RecordFile::open_with(dir, File::options().read(true).write(true)).expect("open");
    for (file, from) in [(&file.data, file.slot.data_bytes), (&file.index, layout::item_offset(file.slot.items))] {
        let bytes = file.metadata().expect("look").len() - from;
        file.write_all_at(&vec![0xee; bytes as usize], from).expect("write");
    }
}
