//! The kept corpus of the fuzz targets through the properties of the readers, with mutations of every input and no
//! fuzzer; and what a journal writes today. `TOWLINE_SEED=n` mutates otherwise, `TOWLINE_LONG=1` fifty times as often.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use journal::testing::{Random, readers};
use journal::{
    Cursor, EpochEntry, Flags, HEADER_BYTES, Item, Journal, Kind, Lsn, Next, NodeId, Reason, Role,
    SEGMENT_HEADER_BYTES, StreamId, Tip,
};

use crate::lifecycle::{small, start_run};

const MUTATIONS: u64 = 3000;
/// Most bytes of the kept corpus: it is for reading too.
const CORPUS_BYTES_MAX: usize = 200 << 10;
const CONTROL_SLOT_B: usize = 256 << 10;
const CONTROL_EVIDENCE: usize = 512 << 10;
const CONTROL_BLOCKS: usize = CONTROL_EVIDENCE + 2 * 4096;
/// So many that the oldest are in blocks.
const RUNS: u8 = 200;

type Property = fn(&[u8]) -> usize;

const TARGETS: [(&str, Property); 6] = [
    ("segment_header", readers::segment_header),
    ("entries", readers::entries),
    ("epoch_entry", readers::epoch_entry),
    ("control_facts", readers::control_facts),
    ("control_block", readers::control_block),
    ("control_evidence", readers::control_evidence),
];

#[test]
fn the_readers_hold_on_the_kept_corpus_and_on_mutations_of_it() {
    let seed = std::env::var("TOWLINE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let mutations = if std::env::var_os("TOWLINE_LONG").is_some() { MUTATIONS * 50 } else { MUTATIONS };
    let mut bytes_kept = 0;
    for (target, property) in TARGETS {
        let inputs = kept(target);
        bytes_kept += inputs.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        let accepted: usize =
            inputs.iter().map(|(name, bytes)| hold(property, bytes, &format!("{target}/{name}"))).sum();
        assert!(accepted > 0, "{target}: nothing in the corpus is read at all");
        for (name, bytes) in &inputs {
            let mut random = Random::new(seed);
            for number in 0..mutations {
                let mutant = mutate(bytes, &inputs, &mut random);
                hold(property, &mutant, &format!("{target}/{name}, mutation {number} of seed {seed}"));
            }
        }
    }
    assert!(bytes_kept <= CORPUS_BYTES_MAX, "the kept corpus has {bytes_kept} bytes");
}

#[test]
fn what_a_journal_writes_is_read() {
    for (target, bytes) in written() {
        let (_, property) = TARGETS.into_iter().find(|(name, _)| *name == target).unwrap();
        assert!(property(&bytes) > 0, "{target}: {} bytes that a journal wrote are refused", bytes.len());
    }
}

fn hold(property: Property, bytes: &[u8], what: &str) -> usize {
    catch_unwind(|| property(bytes)).unwrap_or_else(|_| panic!("{what}: the property above does not hold"))
}

/// The files of a target's corpus.
fn kept(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut found: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|file| {
            let path = file.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())
        })
        .collect();
    found.sort();
    found
}

/// Changes one to three places.
fn mutate(bytes: &[u8], others: &[(String, Vec<u8>)], random: &mut Random) -> Vec<u8> {
    let mut mutant = bytes.to_vec();
    for _ in 0..1 + random.below(3) {
        let at = random.below(mutant.len() as u64 + 1) as usize;
        match random.below(7) {
            0 => mutant.truncate(at),
            1 => flip(&mut mutant, at, 1 << random.below(8)),
            2 => flip(&mut mutant, at, random.draw() as u8),
            3 => overwrite(&mut mutant, at, &interesting(random).to_le_bytes()[..1 << random.below(4)]),
            4 => overwrite(&mut mutant, at & !7, &interesting(random).to_le_bytes()[..1 << random.below(4)]),
            5 => overwrite(&mut mutant, at, &vec![0; random.below(64) as usize]),
            _ => {
                let (_, other) = &others[random.below(others.len() as u64) as usize];
                mutant.truncate(at);
                mutant.extend_from_slice(&other[at.min(other.len())..]);
            }
        }
    }
    mutant
}

fn flip(bytes: &mut [u8], at: usize, bits: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= bits;
    }
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    for (byte, new) in bytes.iter_mut().skip(at).zip(with) {
        *byte = *new;
    }
}

fn interesting(random: &mut Random) -> u64 {
    let near = [0, 1 << 7, 1 << 15, 1 << 16, 1 << 31, 1 << 32, 1 << 63, u64::MAX, HEADER_BYTES as u64, 4096];
    near[random.below(near.len() as u64) as usize].wrapping_add(random.below(5)).wrapping_sub(2)
}

/// What a journal with many runs, every kind of entry, a fragmented record and a remembered peer has on disk.
fn written() -> Vec<(&'static str, Vec<u8>)> {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::create(dir.path(), StreamId::random(), NodeId::random(), Role::Primary, small()).unwrap();
    for run in 0..RUNS {
        start_run(&journal);
        if run > 1 {
            journal.begin_run().unwrap();
            continue;
        }
        journal.append(Item { producer: Some((7, u64::from(run))), ..Item::record(&[b"a record"]) }).unwrap();
        journal.append(Item { flags: Flags::UNTERMINATED, volume: 3, ..Item::record(&[]) }).unwrap();
        journal.append(Item { kind: Kind::Mark, ..Item::record(&[b"a mark"]) }).unwrap();
        journal.append(Item { kind: Kind::Alone, ..Item::record(&[&[1]]) }).unwrap();
    }
    journal.append(Item::record(&[&[9; 40_000], &[8; 40_000]])).unwrap();
    let end = journal.sync().unwrap();
    journal.remember_peer(NodeId::random(), end.lsn(), end.chain()).unwrap();
    let (stream, geometry) = (journal.stream(), journal.geometry());
    journal.close().unwrap();
    let control = fs::read(dir.path().join("control")).unwrap();
    let newest = |a: usize, b: usize| if control[b..b + 8] == [0; 8] { a } else { b };
    let facts = &control[newest(0, CONTROL_SLOT_B)..];
    let length = u32::from_le_bytes(*facts[4..].first_chunk().unwrap()) as usize;
    let mut found = vec![
        ("control_facts", facts[..8 + length].to_vec()),
        ("control_block", control[CONTROL_BLOCKS..][..4096].to_vec()),
        ("control_block", control[CONTROL_BLOCKS + 3 * 4096..][..4096].to_vec()),
        ("control_evidence", control[CONTROL_EVIDENCE..][..4096].to_vec()),
        ("control_evidence", control[CONTROL_EVIDENCE + 4096..][..4096].to_vec()),
    ];
    let mut cursor = Cursor::new(geometry, Tip::empty(stream));
    for first in [0, geometry.body_bytes()] {
        let segment = fs::read(dir.path().join(format!("{first:016x}.seg"))).unwrap();
        let (header, body) = segment.split_at(SEGMENT_HEADER_BYTES);
        found.push(("segment_header", header.to_vec()));
        found.push(("entries", readers::seeded(geometry, cursor.tip(), body)));
        while cursor.tip().lsn < Lsn::new(first + geometry.body_bytes()) && cursor.tip().lsn < end.lsn() {
            let at = cursor.tip().lsn.bytes_since(Lsn::new(first)) as usize;
            let Ok(Next::Entry(entry)) = cursor.next(&body[at..]) else { panic!("a journal's own entry at {at}") };
            if entry.header.kind == Some(Kind::Epoch) {
                assert_eq!(EpochEntry::decode(entry.payload).unwrap().reason, Reason::Started);
                found.push(("epoch_entry", [&4096u32.to_le_bytes()[..], entry.payload].concat()));
            }
        }
    }
    found
}
