//! One flipped bit in every byte of everything that has a header or a slot, and in many bytes of bodies.
//!
//! Below the durable point it is refused with the exact range, and no file changes; above it the log is cut at exactly
//! that entry. Opening reads from the segment that holds the durable point on: damage in older segments is found by
//! whoever reads them, by `verify` and by the scrub, and hides nothing but the damaged entry, or behind a damaged header
//! the rest of its segment, which the chain can't prove any more.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use journal::testing::SimDisk;
use journal::{
    Class, Error, HEADER_BYTES, Item, Journal, Kind, Lsn, LsnRange, Options, Role, SEGMENT_HEADER_BYTES, offline,
};

use crate::exhaustive::Told;
use crate::host::{TestClock, folder, options};
use crate::lifecycle::{small, start_run};
use crate::script::{NODE, STREAM, payload};

const BODY: u64 = 64 << 10;
const COPY_BYTES: u64 = 512;
const SECOND_COPY_AT: u64 = 2048;
const FACTS_SLOT_BYTES: u64 = 256 << 10;
const EVIDENCE_AT: u64 = 2 * FACTS_SLOT_BYTES;
const EVIDENCE_SLOT_BYTES: u64 = 4096;

/// An entry of the journal under test.
#[derive(Clone, Copy, Debug)]
struct Place {
    range: LsnRange,
    kind: Option<Kind>,
}

/// A journal of several segments that was killed: two runs, a `Pad` in every segment, and a tail that no sync covers.
struct Killed {
    _base: tempfile::TempDir,
    dir: PathBuf,
    files: BTreeMap<PathBuf, Vec<u8>>,
    was_opened: Cell<bool>,
    durable: Lsn,
    entries: Vec<Place>,
}

impl Killed {
    fn new() -> Killed {
        let base = folder();
        let dir = base.path().join("j");
        // the clock alone is needed of it
        let Options { host, geometry, .. } = options(&SimDisk::default(), &TestClock::default());
        let made = Options { host: journal::Host { storage: small().host.storage, ..host }, geometry, ..small() };
        let journal = Journal::create(&dir, STREAM, NODE, Role::Primary, made.clone()).unwrap();
        let append = |journal: &Journal, lengths: &[usize], serial: u64| {
            for (index, &length) in lengths.iter().enumerate() {
                journal.append(Item::record(&[&payload(serial + index as u64, length)])).unwrap();
            }
        };
        start_run(&journal);
        append(&journal, &[16_000, 60, 12_000, 9_001, 16_000, 300, 16_000, 1, 16_000, 8_000, 100, 16_000, 3_000], 1);
        journal.close().unwrap();
        let journal = Journal::open(&dir, made).unwrap();
        start_run(&journal);
        append(&journal, &[16_000, 16_000, 16_000, 5_003, 40, 9_000, 77], 100);
        let durable = journal.sync().unwrap().lsn();
        append(&journal, &[500, 9, 2_002, 130, 64], 200);
        journal.write().unwrap();
        let mut entries = Vec::new();
        let mut walk = journal.entries(Lsn::ZERO).unwrap();
        while let Some(entry) = walk.next_entry().unwrap() {
            let (range, kind) = (entry.header.range(), entry.header.kind);
            entries.push(Place { range, kind });
        }
        drop((walk, journal));
        let files = contents(&dir);
        let killed = Killed { _base: base, dir, files, was_opened: Cell::new(false), durable, entries };
        let of_kind = |kind| killed.entries.iter().filter(|place| place.kind == Some(kind)).count();
        assert!(of_kind(Kind::Pad) >= 2 && of_kind(Kind::Epoch) == 2 && killed.segments() >= 3);
        killed
    }

    fn segments(&self) -> u64 {
        self.entries.last().unwrap().range.from.get() / BODY + 1
    }

    fn segment(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{:016x}.seg", number * BODY))
    }

    /// File and offset of a position in the log.
    fn at(&self, lsn: u64) -> (PathBuf, u64) {
        (self.segment(lsn / BODY), SEGMENT_HEADER_BYTES as u64 + lsn % BODY)
    }

    /// Flips a bit of each place, looks, and flips them back; what an opening changed is put back too.
    fn with_flipped(&self, places: &[(PathBuf, u64)], look: impl FnOnce()) {
        places.iter().for_each(|(path, offset)| flip(path, *offset));
        look();
        places.iter().for_each(|(path, offset)| flip(path, *offset));
        if self.was_opened.take() {
            for (path, bytes) in &self.files {
                if fs::read(path).ok().as_ref() != Some(bytes) {
                    fs::write(path, bytes).unwrap();
                }
            }
        }
    }

    /// Opening refuses, and every file is as it was.
    fn refused(&self) -> Error {
        let before = contents(&self.dir);
        let error = Journal::open(&self.dir, small()).unwrap_err();
        assert!(contents(&self.dir) == before, "a refused opening changed a file: {error}");
        assert_eq!(error.class(), Class::Corrupt, "{error}");
        error
    }

    fn open(&self) -> Journal {
        self.was_opened.set(true);
        Journal::open(&self.dir, small()).unwrap()
    }

    /// Opens it; the log must end at `end`, whole.
    fn opened(&self, end: Lsn) -> Journal {
        let journal = self.open();
        assert_eq!(journal.written_tip().lsn, end);
        let mut walk = journal.entries(Lsn::ZERO).unwrap();
        for place in self.entries.iter().take_while(|place| place.range.to <= end) {
            assert_eq!(walk.next_entry().unwrap().unwrap().header.range(), place.range);
        }
        journal
    }

    /// The first entry of the segment that holds `lsn`.
    fn at_segment(&self, lsn: Lsn) -> Lsn {
        let first = lsn.get() / BODY * BODY;
        self.entries.iter().map(|entry| entry.range.from).find(|from| from.get() >= first).unwrap()
    }

    fn end(&self) -> Lsn {
        self.entries.last().unwrap().range.to
    }
}

/// Every file but the lock's, and its bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let files = paths.filter(|path| path.is_file() && !path.ends_with("lock"));
    files.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

fn flip(path: &Path, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    // another bit each time
    file.write_all_at(&[byte[0] ^ (1 << ((offset.wrapping_mul(0x9e37_79b9)) >> 7 & 7))], offset).unwrap();
}

fn is_rot(error: &Error, range: LsnRange) {
    let Error::Rot { range: found, .. } = error else { panic!("{error}") };
    assert_eq!((found.from, found.to), (range.from, range.to), "{error}");
    assert!(error.to_string().contains(".seg"), "{error}");
}

/// Reads from outside from the segment that holds `place` on: everything before the damage, then the damage, then
/// everything that can still be proved.
fn reads_around(killed: &Killed, place: &Place, is_header: bool) {
    let log = offline::Log::open(&killed.dir).unwrap();
    let segment = place.range.from.get() / BODY;
    let from = log.segments()[segment as usize].tip.lsn;
    let mut walk = log.entries(Some(from)).unwrap();
    let mut wanted = killed.entries.iter().filter(|entry| entry.range.from >= from).peekable();
    while let Some(before) = wanted.next_if(|entry| entry.range.from < place.range.from) {
        assert_eq!(walk.next_entry().unwrap().unwrap().header.range(), before.range);
    }
    is_rot(&walk.next_entry().unwrap_err(), place.range);
    let is_readable = |entry: &&Place| match is_header {
        true => entry.range.from.get() / BODY > segment,
        false => entry.range.from > place.range.from,
    };
    let mut behind = wanted.filter(is_readable).peekable();
    let goes_on = walk.step_over();
    assert_eq!(goes_on, behind.peek().is_some() || !is_header);
    if goes_on {
        for entry in behind {
            assert_eq!(walk.next_entry().unwrap().unwrap().header.range(), entry.range);
        }
        assert!(walk.next_entry().unwrap().is_none());
    }
}

/// Every byte of every header, and more than a thousand bytes of payloads: (entry, offset inside it).
fn places(entries: &[Place]) -> Vec<(Place, u64)> {
    let mut places = Vec::new();
    for &entry in entries {
        let every =
            (0..HEADER_BYTES as u64).chain(HEADER_BYTES as u64..entry.range.bytes().min(HEADER_BYTES as u64 + 32));
        let spread = (HEADER_BYTES as u64 + 32..entry.range.bytes()).step_by(151);
        places.extend(every.chain(spread).map(|offset| (entry, offset)));
    }
    places
}

#[test]
fn a_flipped_bit_below_the_durable_point_is_refused_with_its_exact_range() {
    let killed = Killed::new();
    let last = killed.durable.get() / BODY;
    let below: Vec<Place> = killed.entries.iter().copied().filter(|entry| entry.range.to <= killed.durable).collect();
    let (mut headers, mut bodies, mut refused) = (0, 0, 0);
    for (entry, offset) in places(&below) {
        let is_header = offset < HEADER_BYTES as u64;
        *if is_header { &mut headers } else { &mut bodies } += 1;
        killed.with_flipped(&[killed.at(entry.range.from.get() + offset)], || {
            let told = Told(format!("byte {offset} of {entry:?}"));
            reads_around(&killed, &entry, is_header);
            if entry.range.from.get() / BODY == last {
                is_rot(&killed.refused(), entry.range);
                refused += 1;
            } else if offset % 88 == 0 {
                // opening doesn't read that far back, and shows what it doesn't vouch for to nobody
                let journal = killed.open();
                let mut walk = journal.entries(killed.at_segment(entry.range.from)).unwrap();
                let error = loop {
                    match walk.next_entry() {
                        Ok(entry) => assert!(entry.is_some(), "damage was passed over"),
                        Err(error) => break error,
                    }
                };
                is_rot(&error, entry.range);
            }
            told.over();
        });
    }
    println!("{headers} bytes of headers, {bodies} of bodies, {refused} refused at opening");
    assert!(bodies > 1_000);
}

#[test]
fn a_flipped_bit_above_the_durable_point_cuts_at_exactly_that_entry() {
    let killed = Killed::new();
    let above: Vec<Place> = killed.entries.iter().copied().filter(|entry| entry.range.from >= killed.durable).collect();
    let mut cuts = 0;
    for (entry, offset) in places(&above) {
        killed.with_flipped(&[killed.at(entry.range.from.get() + offset)], || {
            let journal = killed.opened(entry.range.from);
            let torn = journal.report().torn.map(|torn| torn.from);
            // the last one's own place may be what is damaged: then nothing says that an entry was begun there
            let says = torn == Some(entry.range.from) || (entry.range.to == killed.end() && torn.is_none());
            assert!(says, "{torn:?} {entry:?} {offset}");
            cuts += 1;
        });
    }
    println!("{cuts} cuts");
}

#[test]
fn one_copy_of_a_segment_header_may_be_damaged_and_not_both() {
    let killed = Killed::new();
    for number in 0..killed.segments() {
        let path = killed.segment(number);
        for offset in 0..COPY_BYTES {
            let copies = [(path.clone(), offset), (path.clone(), SECOND_COPY_AT + offset)];
            for copy in &copies {
                killed.with_flipped(std::slice::from_ref(copy), || {
                    assert!(offline::Log::open(&killed.dir).unwrap().unreadable().is_empty());
                    if offset % 16 == 0 {
                        killed.opened(killed.end());
                    }
                });
            }
            killed.with_flipped(&copies, || {
                let error = killed.refused();
                assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
                let log = offline::Log::open(&killed.dir).unwrap();
                let lost: Vec<LsnRange> = log.unreadable().iter().map(|unreadable| unreadable.range).collect();
                let range = LsnRange::new(Lsn::new(number * BODY), Lsn::new((number + 1) * BODY).min(killed.durable));
                assert!(lost.len() == 1 && lost[0].from == range.from && lost[0].to >= range.to, "{lost:?}");
            });
        }
        // what lies between the copies and the body means nothing
        for offset in [COPY_BYTES, SECOND_COPY_AT - 1, SECOND_COPY_AT + COPY_BYTES, SEGMENT_HEADER_BYTES as u64 - 1] {
            killed.with_flipped(&[(path.clone(), offset)], || drop(killed.opened(killed.end())));
        }
    }
}

#[test]
fn one_slot_of_the_control_file_may_be_damaged_and_not_both() {
    let killed = Killed::new();
    let control = killed.dir.join("control");
    let seen = |dir: &Path| {
        let log = offline::Log::open(dir).unwrap();
        (log.stream(), log.node(), log.role(), log.term_seen(), log.history().clone(), log.start())
    };
    let whole = seen(&killed.dir);
    let length = u32::from_le_bytes(killed.files[&control][4..8].try_into().unwrap());
    let facts = (0..8 + u64::from(length)).map(|offset| [offset, FACTS_SLOT_BYTES + offset]);
    let evidence =
        (0..EVIDENCE_SLOT_BYTES).map(|offset| [EVIDENCE_AT, EVIDENCE_AT + EVIDENCE_SLOT_BYTES].map(|at| at + offset));
    for (number, slots) in facts.chain(evidence).enumerate() {
        for slot in slots {
            killed.with_flipped(&[(control.clone(), slot)], || {
                assert_eq!(seen(&killed.dir), whole, "byte {slot}");
                if number % 8 == 0 {
                    killed.opened(killed.end());
                }
            });
        }
        killed.with_flipped(&slots.map(|slot| (control.clone(), slot)), || {
            assert_eq!(offline::Log::open(&killed.dir).unwrap_err().class(), Class::Corrupt);
            if number % 8 == 0 {
                let error = killed.refused();
                assert!(error.to_string().contains("rebuild"), "it says what to do: {error}");
            }
        });
    }
}
