//! The format, version 1, as files that stay: a journal that was made once, kept as text in tests/golden/v1.
//!
//! One test reads it: with the journal, and with nothing but the offsets of docs/FORMAT.md. The other makes the same
//! journal again and finds the same bytes, so that the format can't change unnoticed. `TOWLINE_BLESS=1` writes the files
//! anew: for a new version of the format, never for this one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use journal::{
    Chain, EpochEntry, Flags, Geometry, Host, Ids, Item, Journal, Kind, NodeId, Options, Reason, Role, RunOpening,
    StreamId, Term, TermSeen, crc32c, offline,
};

use crate::host::{TestClock, folder};
use crate::lifecycle::{records, small};

const STREAM: StreamId = StreamId::from_bytes(*b"golden stream v1");
const NODE: NodeId = NodeId::from_bytes(*b"golden node a v1");
const PEER: NodeId = NodeId::from_bytes(*b"golden node b v1");
const POLICY: &[u8] = br#"{"version":1,"members":["a","b"]}"#;
const HOUR: u64 = 3_600_000_000_000;

/// Ids in a row.
#[derive(Debug, Default)]
struct TestIds(AtomicU64);

impl Ids for TestIds {
    fn random(&self) -> u64 {
        0x1d00 + self.0.fetch_add(1, Ordering::Relaxed)
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

/// Every entry of the journal.
const LISTING: &str = "\
\x20    0 Epoch 1.1 id 0x1d00 time 1800000000001000000 durable 0 flags 0x0300 volume 0 bytes 65 producer 0.0
   160 Data  1.1 id 0x1d00 time 1800000000001000001 durable 0 flags 0x0300 volume 0 bytes 16 producer 0.0
   264 Data  1.1 id 0x1d00 time 1800000000002000000 durable 0 flags 0x0300 volume 0 bytes 0 producer 0.0
   352 Data  1.1 id 0x1d00 time 1800000000002000001 durable 0 flags 0x0303 volume 3 bytes 6 producer 7.1
   448 Mark  1.1 id 0x1d00 time 1800000000003000000 durable 0 flags 0x0300 volume 0 bytes 4 producer 0.0
   544 Alone 1.1 id 0x1d00 time 1800000000004000000 durable 0 flags 0x0300 volume 0 bytes 26 producer 0.0
   664 Clock 1.1 id 0x1d00 time 1800000000004000001 durable 664 flags 0x0300 volume 0 bytes 0 producer 0.0
   752 Data  1.1 id 0x1d00 time 1800000000004000002 durable 664 flags 0x0100 volume 0 bytes 16296 producer 0.0
 17136 Data  1.1 id 0x1d00 time 1800000000004000003 durable 664 flags 0x0000 volume 0 bytes 16296 producer 0.0
 33520 Data  1.1 id 0x1d00 time 1800000000004000004 durable 664 flags 0x0200 volume 0 bytes 7408 producer 0.0
 41016 Data  1.1 id 0x1d00 time 1800000000004000005 durable 664 flags 0x0300 volume 0 bytes 16000 producer 0.0
 57104 Pad   1.1 id 0x1d00 time 1800000000004000006 durable 664 flags 0x0300 volume 0 bytes 8344 producer 0.0
 65536 Data  1.1 id 0x1d00 time 1800000000004000007 durable 664 flags 0x0300 volume 0 bytes 16000 producer 0.0
 81624 Epoch 1.2 id 0x1d01 time 1800000000004000008 durable 81624 flags 0x0300 volume 0 bytes 65 producer 0.0
 81784 Clock 1.2 id 0x1d01 time 1800000000004000009 durable 81624 flags 0x0300 volume 0 bytes 0 producer 0.0
 81872 Data  1.2 id 0x1d01 time 1800000000004000010 durable 81624 flags 0x0300 volume 0 bytes 17 producer 0.0
 81984 Epoch 5.1 id 0x1d03 time 1800000000004000011 durable 81984 flags 0x0300 volume 0 bytes 65 producer 0.0
 82144 Clock 5.1 id 0x1d03 time 1800000000004000012 durable 81984 flags 0x0300 volume 0 bytes 0 producer 0.0
 82232 Data  5.1 id 0x1d03 time 1800000000004000013 durable 81984 flags 0x0300 volume 0 bytes 9 producer 0.0
";

/// Makes the journal.
fn make(dir: &Path) {
    let (clock, ids) = (TestClock::default(), Arc::new(TestIds::default()));
    let host = Host { clock: Arc::new(clock.clone()), ids, ..Host::default() };
    let options = Options { geometry: Geometry::new(64 << 10).unwrap(), host, ..small() };
    let run = |journal: &Journal, promote, reason| {
        journal.open_run(RunOpening { promote, reason, policy: POLICY.to_vec() }).unwrap();
    };
    let item = |kind, parts| Item { kind, ..Item::record(parts) };
    let journal = Journal::create(dir, STREAM, NODE, Role::Primary, options.clone()).unwrap();
    run(&journal, None, Reason::Created);
    journal.append(Item::record(&[b"the first record"])).unwrap();
    let stamped = Item { producer: Some((7, 1)), volume: 3, flags: Flags::UNTERMINATED, ..Item::record(&[b"from 7"]) };
    journal.append_many(&[Item::record(&[]), stamped]).unwrap();
    journal.append(item(Kind::Mark, &[b"noon"])).unwrap();
    journal.append(item(Kind::Alone, &[b"alone (going on without b)"])).unwrap();
    let tip = journal.written_tip();
    journal.sync().unwrap();
    clock.step_back(HOUR);
    journal.append(Item::record(&[&[0xc1; 20_000], &[0xc2; 20_000]])).unwrap();
    journal.append(Item::record(&[&[0xd1; 16_000]])).unwrap();
    journal.append(Item::record(&[&[0xd2; 16_000]])).unwrap();
    let durable = journal.sync().unwrap();
    journal.remember_peer(PEER, durable.lsn(), durable.chain()).unwrap();
    journal.remember_peer(NodeId::from_bytes([9; 16]), tip.lsn, tip.chain).unwrap();
    journal.learn_committed(durable.lsn()).unwrap();
    journal.set_checkpoint(durable.lsn()).unwrap();
    journal.close().unwrap();

    let journal = Journal::open(dir, options.clone()).unwrap();
    run(&journal, None, Reason::Started);
    journal.append(Item::record(&[b"in the second run"])).unwrap();
    let kept = journal.sync().unwrap().lsn();
    journal.append(Item::record(&[b"is cut"])).unwrap();
    journal.sync().unwrap();
    journal.cut(kept).unwrap();
    run(&journal, Some(TermSeen { term: Term(5), id: 0x7e57 }), Reason::Promoted);
    journal.begin_run().unwrap();
    journal.append(Item::record(&[b"in term 5"])).unwrap();
    journal.close().unwrap();
}

/// The files of a journal that are its format: not the lock, and not the pool, where nothing has a meaning yet.
fn files(dir: &Path, below: &Path, into: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(dir.join(below)).unwrap() {
        let name = below.join(entry.unwrap().file_name());
        match dir.join(&name).is_dir() {
            true if name.ends_with("pool") => {}
            true => files(dir, &name, into),
            false if name.ends_with("lock") => {}
            false => drop(into.insert(name.to_str().unwrap().to_owned(), fs::read(dir.join(&name)).unwrap())),
        }
    }
}

/// Lines of 32 bytes in hex behind their offset; `*` stands for more of the line before; the size ends it.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut before: &[u8] = &[];
    let mut is_repeated = false;
    for (index, line) in bytes.chunks(32).enumerate() {
        if line == before {
            if !std::mem::replace(&mut is_repeated, true) {
                text.push_str("*\n");
            }
            continue;
        }
        (before, is_repeated) = (line, false);
        write!(text, "{:06x} ", index * 32).unwrap();
        for byte in line {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    writeln!(text, "{:06x}", bytes.len()).unwrap();
    text
}

fn undump(text: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    for line in text.lines().filter(|line| *line != "*") {
        let (at, hex) = line.split_once(' ').unwrap_or((line, ""));
        let at = usize::from_str_radix(at, 16).unwrap();
        while bytes.len() < at {
            let again = bytes[bytes.len() - 32..].to_vec();
            bytes.extend_from_slice(&again[..(at - bytes.len()).min(32)]);
        }
        bytes.extend((0..hex.len() / 2).map(|index| u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).unwrap()));
    }
    bytes
}

/// The bytes that don't depend on how long anything took. Evidence is also synced once a second, and every sync changes
/// which slot is written next: where a machine stands still for a second, the newest is in the other slot.
fn timeless(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if name.ends_with("control") {
        let newest = newest_evidence(&bytes).to_vec();
        bytes.truncate(524_288);
        bytes.extend(newest);
    }
    bytes
}

fn newest_evidence(control: &[u8]) -> &[u8] {
    let slots = [524_288, 528_384].map(|at| &control[at..at + 4096]);
    slots.into_iter().max_by_key(|slot| number(slot, 16, 8)).unwrap()
}

fn dump_name(name: &str) -> String {
    name.replace('/', "_") + ".txt"
}

/// A copy of the journal that was kept.
fn kept(dir: &Path) {
    let index = fs::read_to_string(golden().join("files.txt")).unwrap();
    for name in index.lines() {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, undump(&fs::read_to_string(golden().join(dump_name(name))).unwrap())).unwrap();
    }
}

fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
    let mut field = [0; 8];
    field[..size].copy_from_slice(&bytes[at..at + size]);
    u64::from_le_bytes(field)
}

/// A body read by the offsets of docs/FORMAT.md alone; returns the chain behind it.
fn list(segment: &[u8], mut chain: Chain, listing: &mut String) -> Chain {
    let first = number(segment, 32, 8);
    let mut at = 4096;
    while at < segment.len() && number(segment, at, 4) != 0 {
        let header = &segment[at..at + 88];
        let length = number(header, 0, 4) as usize;
        assert_eq!(number(header, 8, 8), first + at as u64 - 4096, "its own LSN");
        chain = chain.link(&header[..80]);
        assert_eq!(number(header, 80, 8), chain.get(), "the chain");
        assert_eq!(number(header, 48, 4), u64::from(crc32c(&segment[at + 88..at + length])), "the payload's checksum");
        assert_eq!((header[5], number(header, 54, 2), number(header, 72, 8)), (0, 0, 0), "reserved");
        let kind = ["", "Pad", "Epoch", "Data", "Mark", "Clock", "Alone"][usize::from(header[4])];
        writeln!(
            listing,
            "{:6} {kind:5} {}.{} id {:#x} time {} durable {} flags {:#06x} volume {} bytes {} producer {}.{}",
            number(header, 8, 8),
            number(header, 16, 4),
            number(header, 20, 4),
            number(header, 24, 8),
            number(header, 32, 8),
            number(header, 40, 8),
            number(header, 6, 2),
            number(header, 52, 2),
            length - 88,
            number(header, 56, 8),
            number(header, 64, 8),
        )
        .unwrap();
        let end = at + length.next_multiple_of(8);
        assert!(segment[at + length..end].iter().all(|&byte| byte == 0), "zeros behind the payload");
        at = end;
    }
    chain
}

#[test]
fn the_files_of_version_1_are_read_by_their_offsets_alone() {
    let base = folder();
    kept(base.path());
    let read = |name: &str| fs::read(base.path().join(name)).unwrap();
    let segments = [read("0000000000000000.seg"), read("0000000000010000.seg")];
    let mut listing = String::new();
    let mut chain = Chain::seed(STREAM);
    let mut time = 0;
    for (index, segment) in segments.iter().enumerate() {
        assert_eq!(segment.len(), 4096 + 65536);
        assert_eq!(segment[..512], segment[2048..2560], "two copies");
        assert_eq!(&segment[..8], b"TOWLSEG1");
        assert_eq!((number(segment, 8, 2), number(segment, 12, 4)), (1, 65536));
        assert_eq!(&segment[16..32], STREAM.as_bytes());
        assert_eq!((number(segment, 32, 8), number(segment, 40, 8)), (index as u64 * 65536, index as u64 * 65536));
        assert_eq!((number(segment, 48, 8), number(segment, 56, 8)), (chain.get(), time), "chain and time in");
        assert_eq!(number(segment, 508, 4), u64::from(crc32c(&segment[..508])));
        if index == 1 {
            assert_eq!((number(segment, 64, 4), number(segment, 68, 4)), (1, 1), "epoch in");
            assert_eq!(number(segment, 72, 8), number(&segments[0], 4096 + 24, 8), "run id in");
            assert_eq!(&segment[88..104], NODE.as_bytes(), "node in");
            assert_eq!((number(segment, 104, 8), number(segment, 112, 8)), (0, Chain::seed(STREAM).get()));
        } else {
            assert!(segment[64..508].iter().all(|&byte| byte == 0), "nothing is in front of it");
        }
        chain = list(segment, chain, &mut listing);
        let last = listing.lines().last().unwrap().split(" time ").nth(1).unwrap();
        time = last.split(' ').next().unwrap().parse().unwrap();
    }
    assert_eq!(listing, LISTING);

    let payload = 4096 + 88;
    assert_eq!((&segments[0][payload + 8..payload + 24], segments[0][payload + 24]), (&NODE.as_bytes()[..], 1));
    assert_eq!(number(&segments[0], payload + 28, 4), POLICY.len() as u64);
    assert_eq!(&segments[0][payload + 32..payload + 32 + POLICY.len()], POLICY);
    control_by_offsets(&read("control"), chain);
}

fn control_by_offsets(control: &[u8], chain: Chain) {
    assert_eq!(control.len(), 532_480);
    for slot in [0, 262_144] {
        let length = number(control, slot + 4, 4) as usize;
        let facts = &control[slot + 8..slot + 8 + length];
        assert_eq!(number(control, slot, 4), u64::from(crc32c(facts)));
        assert_eq!((&facts[..8], number(facts, 8, 2)), (&b"TOWLCTL1"[..], 1));
        assert_eq!((facts[10], facts[11], facts[12]), (1, 0, 0), "primary, not poisoned, not made anew");
        assert_eq!((&facts[24..40], &facts[40..56]), (&STREAM.as_bytes()[..], &NODE.as_bytes()[..]));
        assert_eq!((number(facts, 56, 4), number(facts, 60, 4), number(facts, 64, 8)), (65536, 5, 0x7e57));
        assert_eq!((number(facts, 72, 4), number(facts, 76, 4)), (5, 1), "the newest epoch opened");
        assert_eq!((number(facts, 80, 8), number(facts, 88, 8)), (0, Chain::seed(STREAM).get()), "the start");
        assert_eq!((number(facts, 120, 8), number(facts, 136, 4)), (u64::MAX, 3), "no cut, three openings");
        assert_eq!(length, 144 + 3 * 56);
        let openings: Vec<_> =
            facts[144..].chunks(56).map(|opening| (number(opening, 0, 4), number(opening, 4, 4))).collect();
        assert_eq!(openings, [(1, 1), (1, 2), (5, 1)]);
    }
    let newest = newest_evidence(control);
    assert_eq!((&newest[..8], number(newest, 8, 2), number(newest, 10, 2)), (&b"TOWLCTL1"[..], 1, 2));
    assert_eq!(&newest[24..40], STREAM.as_bytes());
    assert_eq!(number(newest, 48, 8), chain.get(), "the chain at the durable point, the end");
    assert_eq!((&newest[64..80], &newest[96..112]), (&PEER.as_bytes()[..], &[9; 16][..]));
    assert_eq!(number(newest, 4092, 4), u64::from(crc32c(&newest[..4092])));
}

#[test]
fn the_files_of_version_1_open_and_say_what_was_written() {
    let base = folder();
    kept(base.path());
    let log = offline::Log::open(base.path()).unwrap();
    assert_eq!((log.stream(), log.node(), log.role()), (STREAM, NODE, Role::Primary));
    assert_eq!(log.term_seen(), TermSeen { term: Term(5), id: 0x7e57 });
    assert_eq!(log.segments().len(), 2);
    let journal = Journal::open(base.path(), small()).unwrap();
    assert_eq!(journal.report(), &journal::OpenReport { rewritten: journal.report().rewritten, ..Default::default() });
    let wanted: Vec<Vec<u8>> = vec![
        b"the first record".to_vec(),
        vec![],
        b"from 7".to_vec(),
        [[0xc1; 20_000], [0xc2; 20_000]].concat(),
        vec![0xd1; 16_000],
        vec![0xd2; 16_000],
        b"in the second run".to_vec(),
        b"in term 5".to_vec(),
    ];
    assert_eq!(records(&journal), wanted);
    let epochs: Vec<_> = journal.history().openings().iter().map(|o| (o.epoch.term.0, o.epoch.run, o.node)).collect();
    assert_eq!(epochs, [(1, 1, NODE), (1, 2, NODE), (5, 1, NODE)]);
    let checkpoint = journal.checkpoint();
    assert_eq!(journal.committed(), checkpoint);
    assert_eq!(journal.peer_remembered(PEER).map(|(lsn, _)| lsn), Some(checkpoint));
    let mut entries = journal.entries(journal.start()).unwrap();
    let mut reasons = Vec::new();
    while let Some(entry) = entries.next_entry().unwrap() {
        if entry.header.kind == Some(Kind::Epoch) {
            let epoch = EpochEntry::decode(entry.payload).unwrap();
            assert_eq!(epoch.policy, POLICY);
            reasons.push(epoch.reason);
        }
    }
    assert_eq!(reasons, [Reason::Created, Reason::Started, Reason::Promoted]);
    let branch = fs::read_dir(base.path().join("branches")).unwrap().next().unwrap().unwrap().path();
    let cut = crate::lifecycle::offline_records(&branch);
    assert_eq!(cut.last().map(Vec::as_slice), Some(&b"is cut"[..]));
}

#[test]
fn the_same_journal_is_still_written_byte_for_byte() {
    let base = folder();
    let mut made = BTreeMap::new();
    make(base.path());
    files(base.path(), Path::new(""), &mut made);
    if std::env::var_os("TOWLINE_BLESS").is_some() {
        let _old = fs::remove_dir_all(golden());
        fs::create_dir_all(golden()).unwrap();
        for (name, bytes) in &made {
            fs::write(golden().join(dump_name(name)), dump(bytes)).unwrap();
        }
        let index: String = made.keys().map(|name| format!("{name}\n")).collect();
        fs::write(golden().join("files.txt"), index).unwrap();
    }
    let copy = folder();
    kept(copy.path());
    let mut wanted = BTreeMap::new();
    files(copy.path(), Path::new(""), &mut wanted);
    assert_eq!(made.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    for (name, bytes) in &made {
        let (made, wanted) = (timeless(name, bytes), timeless(name, &wanted[name]));
        let first = made.iter().zip(&wanted).position(|(made, wanted)| made != wanted);
        assert!(made.len() == wanted.len() && first.is_none(), "{name} differs from byte {first:?} on");
    }
}
