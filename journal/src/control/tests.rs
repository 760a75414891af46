use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::blocks::BLOCK_BYTES;
use super::*;
use crate::class::Class;
use crate::epoch::{Opening, Term};
use crate::storage::Disk;
use crate::testing::{Keep, SimDisk, Survivors};

const STREAM: StreamId = StreamId::from_bytes([7; 16]);
const ENOSPC: i32 = 28;

/// The openings of runs that were written in one life of the log: another life has others at the same places.
fn openings(runs: std::ops::Range<u32>, life: u64) -> Vec<Opening> {
    let opening = |run: u32| Opening {
        epoch: Epoch { term: Term(1), run: run + 1 },
        term_id: 1,
        run_id: life,
        node: NodeId::from_bytes([9; 16]),
        first: Lsn::new(u64::from(run) * 256),
        chain_in: Chain::from_u64(life << 32 | u64::from(run)),
    };
    runs.map(opening).collect()
}

fn history(runs: u32) -> History {
    History::from_openings(openings(0..runs, 1)).unwrap()
}

fn facts(history: History) -> Facts {
    Facts {
        stream: STREAM,
        geometry: Geometry::default(),
        node: NodeId::from_bytes([9; 16]),
        role: Role::Primary,
        term_seen: TermSeen { term: Term(1), id: 1 },
        opened_last: Epoch::default(),
        start: Tip::empty(STREAM),
        cut: None,
        checkpoint: Lsn::ZERO,
        poisoned: false,
        rebuilt: false,
        history,
    }
}

/// Forgets all but the first runs, and adds as many others.
type Step = (u32, u32);

fn apply(history: &mut History, (kept, added): Step, life: u64) {
    history.cut(Lsn::new(u64::from(kept) * 256));
    let first = history.openings().len() as u32;
    for opening in openings(first..first + added, life) {
        assert!(history.push(opening));
    }
}

/// Around the first block, around the second, and blocks that are taken back and written again for others, at once and
/// in the very next change.
const STEPS: [Step; 8] = [(120, 8), (128, 1), (129, 70), (199, 0), (40, 100), (90, 0), (90, 60), (10, 300)];

struct Place {
    base: tempfile::TempDir,
    disk: SimDisk,
}

impl Place {
    fn new(runs: u32) -> (Place, Control) {
        let place = Place { base: tempfile::tempdir().unwrap(), disk: SimDisk::default() };
        std::fs::create_dir(place.dir()).unwrap();
        let control = Control::create(&place.disk, &place.dir(), facts(history(runs)), Evidence::default()).unwrap();
        (place, control)
    }

    fn dir(&self) -> PathBuf {
        self.base.path().join("live")
    }
}

#[test]
fn no_power_cut_while_blocks_are_written_leaves_another_history() {
    let mut disks = 0;
    for stop in 0.. {
        let (place, mut control) = Place::new(120);
        let stop = place.disk.calls() + stop;
        place.disk.stop_at(stop);
        let mut possible = vec![history(120)];
        let mut ever = possible.clone();
        for (life, step) in (2..).zip(STEPS) {
            let mut wanted = possible[0].clone();
            apply(&mut wanted, step, life);
            let mut cut = possible[0].clone();
            cut.keep_first(wanted.common(&cut));
            ever.extend([cut.clone(), wanted.clone()]);
            possible.extend([cut, wanted.clone()]);
            match control.change(|facts| facts.history = wanted.clone()) {
                Ok(()) => possible = vec![wanted],
                Err(_) => break,
            }
        }
        drop(control);
        let left = |sectors: Keep| {
            let to = place.base.path().join(format!("{sectors:?}"));
            std::fs::create_dir(&to).unwrap();
            place.disk.cut_power(Survivors { names: 0, sectors }, &place.dir(), &to).unwrap();
            std::fs::read(to.join(NAME)).unwrap()
        };
        let (none, all) = (left(Keep::None), left(Keep::All));
        let halves = |slots: &[u8], blocks: &[u8]| {
            let (_, blocks) = blocks.split_at(FILE_BYTES as usize);
            [&slots[..FILE_BYTES as usize], blocks].concat()
        };
        let mut files = vec![halves(&none, &all), halves(&all, &none), none, all];
        files.extend((0..6).map(|n| left(Keep::Random(stop * 100 + n))));
        for (number, bytes) in files.into_iter().enumerate() {
            let told = format!("call {stop}, disk {number}");
            let dir = place.base.path().join(&told);
            let path = dir.join(NAME);
            std::fs::create_dir(&dir).unwrap();
            std::fs::write(&path, &bytes).unwrap();
            let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
            // when a slot rots too, the other one may be older; a mixture of two lives is none of them
            for slot in [0, FACTS_SLOT_BYTES] {
                let crc = &bytes[slot as usize..][..4];
                file.write_all_at(&[!crc[0]], slot).unwrap();
                if let Ok(Stored { facts, .. }) = read(&file, &path) {
                    let epochs = facts.history.openings().len();
                    assert!(ever.contains(&facts.history), "{told}, slot {slot}: {epochs} epochs");
                }
                file.write_all_at(crc, slot).unwrap();
            }
            let found = Control::open(&Disk, &dir).unwrap().facts.history;
            assert!(possible.contains(&found), "{told}: {} epochs", found.openings().len());
            disks += 1;
        }
        if place.disk.calls() <= stop {
            break;
        }
    }
    assert!(disks > 300, "{disks} disks");
}

#[test]
fn one_copy_of_a_block_may_be_damaged_and_not_both() {
    let dir = tempfile::tempdir().unwrap();
    drop(Control::create(&Disk, dir.path(), facts(history(1000)), Evidence::default()).unwrap());
    let path = dir.path().join(NAME);
    let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    let flip = |at: u64| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x20], at).unwrap();
    };
    for number in [0, 7, 13] {
        for offset in (0..BLOCK_BYTES as u64).step_by(31) {
            let copies = copies_of(number).map(|at| at + offset);
            for at in copies {
                flip(at);
                assert_eq!(read(&file, &path).unwrap().facts.history, history(1000));
                flip(at);
            }
            let _flipped = copies.map(flip);
            let error = read(&file, &path).unwrap_err();
            assert_eq!(error.class(), Class::Corrupt);
            assert!(error.to_string().contains("rebuild"), "{error}");
            assert!(
                salvage(&file, &path).unwrap().evidence_of(STREAM).is_some(),
                "the evidence has nothing to do with it"
            );
            let _flipped = copies.map(flip);
        }
    }
    // block 3 where block 2 belongs, in both copies: each is whole, and neither is the right one
    let mut other = [0; BLOCK_BYTES];
    file.read_exact_at(&mut other, copies_of(3)[0]).unwrap();
    let _written = copies_of(2).map(|at| file.write_all_at(&other, at).unwrap());
    assert_eq!(read(&file, &path).unwrap_err().class(), Class::Corrupt);
}

#[test]
fn without_space_for_a_block_the_facts_take_the_openings() {
    let (place, mut control) = Place::new(128);
    let bytes = || std::fs::metadata(place.dir().join(NAME)).unwrap().len();
    // the copy of the facts of before and its sync come first
    let blocks_from = place.disk.calls() + 2;
    place.disk.fail_calls(blocks_from..blocks_from + 1, ENOSPC);
    control.change(|facts| apply(&mut facts.history, (128, 1), 1)).unwrap();
    assert_eq!(place.disk.failed().len(), 1, "it was the block that had no space");
    assert_eq!(Control::open(&place.disk, &place.dir()).unwrap().facts.history, history(129));
    // and the next change finds space again
    control.change(|facts| apply(&mut facts.history, (129, 1), 1)).unwrap();
    assert!(bytes() > FILE_BYTES);
    assert_eq!(Control::open(&place.disk, &place.dir()).unwrap().facts.history, history(130));
}

/// A control file held some 4600 epochs once, all of them in its slots; the next run could not begin.
#[test]
fn a_file_whose_slots_are_full_goes_on() {
    let runs = (FACTS_SLOT_BYTES as u32 - 152) / 56;
    let (place, mut control) = Place::new(1);
    control.facts.history = history(runs);
    control.write_facts().unwrap();
    let mut control = Control::open(&place.disk, &place.dir()).unwrap();
    assert_eq!((control.blocks, control.facts.history.openings().len() as u32), (0, runs));
    control.change(|facts| apply(&mut facts.history, (runs, 1), 1)).unwrap();
    let control = Control::open(&place.disk, &place.dir()).unwrap();
    assert_eq!(control.facts.history, history(runs + 1));
    assert!(control.blocks > 0);
}

/// Whole slots, with numbers that nobody reached by counting: the next change would have begun at zero again.
#[test]
fn a_sequence_without_a_next_one_is_no_slot() {
    let (place, control) = Place::new(3);
    let (sequence, stored) = (control.facts_sequence, control.facts.clone());
    drop(control);
    let path = place.dir().join(NAME);
    let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    let lay = |at: u64, bytes: &[u8]| file.write_all_at(bytes, at).unwrap();
    lay(0, &encode_facts(u64::MAX, &stored, 0));
    lay(EVIDENCE_AT, &encode_evidence(u64::MAX, STREAM, &Evidence::default()));
    let found = read(&file, &path).unwrap();
    assert_eq!((found.facts, found.facts_sequence), (stored.clone(), sequence), "the other slots count");
    let mut control = Control::open(&place.disk, &place.dir()).unwrap();
    control.change(|facts| facts.poisoned = true).unwrap();
    control.note(|evidence| evidence.committed = Lsn::new(8)).unwrap();
    drop(control);

    let facts = file_bytes_at(&file, 0);
    for slot in [0, FACTS_SLOT_BYTES] {
        lay(slot, &encode_facts(u64::MAX, &stored, 0));
    }
    assert_eq!(Control::open(&place.disk, &place.dir()).unwrap_err().class(), Class::Corrupt);
    lay(0, &facts);
    for slot in [0, EVIDENCE_SLOT_BYTES as u64] {
        lay(EVIDENCE_AT + slot, &encode_evidence(u64::MAX, STREAM, &Evidence::default()));
    }
    assert_eq!(Control::open(&place.disk, &place.dir()).unwrap_err().class(), Class::Corrupt);
}

fn file_bytes_at(file: &std::fs::File, at: u64) -> Vec<u8> {
    let mut bytes = vec![0; FACTS_SLOT_BYTES as usize];
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes
}
