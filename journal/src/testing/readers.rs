//! What holds of every reader of journal bytes, whatever the bytes are: each function panics where it doesn't, and says
//! how much the reader accepted of the bytes as they are.
//!
//! Fuzz targets and the kept corpus call these. Each looks a second time with every checksum and link made right, so that
//! an invented field gets past them.

use zerocopy::{FromBytes, IntoBytes};

use crate::chain::Chain;
use crate::control::blocks::{BLOCK_BYTES, BLOCK_OPENINGS, decode_block, encode_block};
use crate::control::slots::{
    EVIDENCE_SLOT_BYTES, FactsSlot, decode_evidence, decode_facts, encode_evidence, encode_facts,
};
use crate::cursor::{Cursor, Draft, Fault, Next, Tip};
use crate::entry::{Entry, EpochEntry, Kind, POLICY_BYTES_MAX, RawHeader, crc32c};
use crate::epoch::{Epoch, Term};
use crate::geometry::{Geometry, HEADER_BYTES, SEGMENT_HEADER_BYTES, entry_bytes};
use crate::id::StreamId;
use crate::lsn::Lsn;
use crate::segment::{COPY_BYTES, CRC_AT, SECOND_COPY_AT, SegmentHeader};
use crate::time::Time;

/// Bytes of a segment header's fields: the rest of a copy is zero.
const FIELDS_BYTES: usize = 120;
/// Where the opening begins in them, which is all zero in front of the first epoch.
const OPENING_AT: usize = 80;

/// The local header in front of a segment's body.
pub fn segment_header(bytes: &[u8]) -> usize {
    let mut sealed = fitted(bytes, SEGMENT_HEADER_BYTES);
    for at in [0, SECOND_COPY_AT] {
        seal(&mut sealed[at..at + COPY_BYTES], CRC_AT);
    }
    check_segment_header(&sealed);
    check_segment_header(bytes)
}

fn check_segment_header(block: &[u8]) -> usize {
    let Ok(header) = SegmentHeader::decode(block) else { return 0 };
    assert_eq!(header.geometry.segment_of(header.tip.lsn), header.first, "the tip stands in the body");
    assert!(header.geometry.holds(header.first), "the body ends behind every address");
    let again = header.encode();
    assert_eq!(SegmentHeader::decode(&again), Ok(header));
    let mut written = again[..COPY_BYTES].to_vec();
    written[FIELDS_BYTES..].fill(0);
    let copies = [0, SECOND_COPY_AT].into_iter().filter_map(|at| block.get(at..at + COPY_BYTES));
    let says = |copy: &[u8]| {
        let mut copy = copy.to_vec();
        copy[10..12].fill(0); // reserved, and what follows the fields
        copy[if header.opening.is_some() { FIELDS_BYTES } else { OPENING_AT }..].fill(0);
        copy == written
    };
    assert!(copies.into_iter().any(says), "it says what neither copy says: {header:?}");
    1
}

/// Bytes of an epoch in the facts.
const OPENING_BYTES: usize = 56;

/// One slot of the facts in a control file.
pub fn control_facts(bytes: &[u8]) -> usize {
    let mut sealed = bytes.to_vec();
    if let Some((head, fields)) = sealed.split_at_mut_checked(8) {
        let length = fields.len().min(u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize);
        head[..4].copy_from_slice(&crc32c(&fields[..length]).to_le_bytes());
        head[4..].copy_from_slice(&(length as u32).to_le_bytes());
        check_facts(&sealed);
    }
    check_facts(bytes)
}

fn check_facts(slot: &[u8]) -> usize {
    let Some(FactsSlot { sequence, facts, blocks }) = decode_facts(slot) else { return 0 };
    let openings = facts.history.openings();
    assert!(facts.geometry.holds(facts.start.lsn), "the log begins behind every address");
    assert!(openings.len() <= slot.len() / OPENING_BYTES, "it took more memory than there are bytes");
    assert!(openings.windows(2).all(|pair| pair[0].epoch < pair[1].epoch && pair[0].first < pair[1].first));
    let mut again = encode_facts(sequence, &facts, 0).split_off(8);
    // what the blocks hold is counted too
    let count = openings.len() as u32 + blocks * BLOCK_OPENINGS as u32;
    again[136..140].copy_from_slice(&count.to_le_bytes());
    again[140..144].copy_from_slice(&blocks.to_le_bytes());
    let mut fields = slot[8..8 + again.len()].to_vec(); // what follows is a later writer's
    for flag in [11, 12] {
        fields[flag] = u8::from(fields[flag] != 0);
    }
    fields[13..16].fill(0);
    assert!(again == fields, "it says what the slot doesn't: {facts:?}");
    1
}

/// A block of older openings in a control file, as what it says it is.
pub fn control_block(bytes: &[u8]) -> usize {
    let mut sealed = fitted(bytes, BLOCK_BYTES);
    seal(&mut sealed, BLOCK_BYTES - 4);
    check_block(&sealed);
    check_block(bytes)
}

fn check_block(block: &[u8]) -> usize {
    let (Some(number), Some(stream)) = (block.get(12..16), block.get(16..32)) else { return 0 };
    let number = u32::from_le_bytes(number.try_into().unwrap_or_default());
    let stream = StreamId::from_bytes(stream.try_into().unwrap_or_default());
    let Some(openings) = decode_block(number, stream, block) else { return 0 };
    let again = encode_block(number, stream, &openings);
    assert_eq!(again.len(), BLOCK_BYTES);
    assert_eq!(decode_block(number, stream, &again), Some(openings.clone()));
    assert_eq!(decode_block(number ^ 1, stream, block), None, "it is another block");
    let fields = 32 + BLOCK_OPENINGS * OPENING_BYTES;
    assert!(again[..fields] == block[..fields], "it says what the block doesn't: {openings:?}");
    1
}

/// One slot of the evidence in a control file.
pub fn control_evidence(bytes: &[u8]) -> usize {
    let mut sealed = fitted(bytes, EVIDENCE_SLOT_BYTES);
    seal(&mut sealed, EVIDENCE_SLOT_BYTES - 4);
    check_evidence(&sealed);
    check_evidence(bytes)
}

fn check_evidence(block: &[u8]) -> usize {
    let Some((sequence, stream, evidence)) = decode_evidence(block) else { return 0 };
    let again = encode_evidence(sequence, stream, &evidence);
    assert_eq!(again.len(), EVIDENCE_SLOT_BYTES);
    assert_eq!(decode_evidence(&again), Some((sequence, stream, evidence.clone())));
    let mut fields = block[..64 + 32 * evidence.peers.len()].to_vec();
    fields[12..16].fill(0);
    assert!(again[..fields.len()] == fields, "it says what the slot doesn't: {evidence:?}");
    1
}

/// The payload of an epoch's first entry; the first four bytes say how much room its segment has.
pub fn epoch_entry(bytes: &[u8]) -> usize {
    let Some((room, payload)) = bytes.split_first_chunk::<4>() else { return 0 };
    let Some(entry) = EpochEntry::decode(payload) else { return 0 };
    assert!(entry.policy.len() <= POLICY_BYTES_MAX.min(payload.len()), "it took more than may be there");
    let again = entry.encode(u64::MAX);
    let mut fields = payload[..again.len()].to_vec(); // zeros may follow
    fields[25..28].fill(0);
    assert!(again == fields, "it says what the payload doesn't: {entry:?}");
    let room = u64::from(u32::from_le_bytes(*room) % (2 << 20));
    assert_eq!(EpochEntry::decode(&entry.encode(room)), Some(entry));
    1
}

/// Bytes in front of the entries: where the walk begins.
pub const SEED_BYTES: usize = 48;

/// What [`entries`] takes: `tip` and then the bytes that follow it in a log with bodies of `geometry`.
pub fn seeded(geometry: Geometry, tip: &Tip, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![geometry.body_bytes().trailing_zeros() as u8, 0, 0, 0, 0, 0, 0, 0];
    for number in [tip.lsn.get(), tip.chain.get(), tip.time.as_nanos()] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&tip.epoch.term.0.to_le_bytes());
    out.extend_from_slice(&tip.epoch.run.to_le_bytes());
    out.extend_from_slice(&tip.run_id.to_le_bytes());
    out.extend_from_slice(bytes);
    out
}

/// A walk along entries: [`SEED_BYTES`] that say from where, then the entries.
pub fn entries(bytes: &[u8]) -> usize {
    let Some((seed, log)) = bytes.split_at_checked(SEED_BYTES) else { return 0 };
    let cursor = cursor_of(seed);
    check_walk(cursor, &linked(cursor, log));
    check_walk(cursor, log)
}

fn cursor_of(seed: &[u8]) -> Cursor {
    let number = |at: usize| seed[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes)).unwrap_or_default();
    let geometry = Geometry::new(1 << (16 + seed[0].wrapping_sub(16) % 15)).unwrap_or_default();
    let tip = Tip {
        // no log gets that far
        lsn: Lsn::new(number(8) & (u64::MAX >> 1) & !7),
        chain: Chain::from_u64(number(16)),
        time: Time::from_nanos(number(24)),
        epoch: Epoch { term: Term(number(32) as u32), run: (number(32) >> 32) as u32 },
        run_id: number(40),
    };
    Cursor::new(geometry, tip)
}

/// The same entries with their places, checksums and links made right, as far as they can be told apart.
fn linked(mut cursor: Cursor, log: &[u8]) -> Vec<u8> {
    let mut log = log.to_vec();
    let mut at = 0;
    while let Ok((mut raw, rest)) = RawHeader::read_from_prefix(&log[at..]) {
        raw.lsn = cursor.tip().lsn.get().into();
        let payload_bytes = (raw.length.get() as usize).saturating_sub(HEADER_BYTES);
        if let Some(payload) = rest.get(..payload_bytes) {
            raw.payload_crc = crc32c(payload).into();
        }
        raw.link(cursor.tip().chain);
        log[at..at + HEADER_BYTES].copy_from_slice(raw.as_bytes());
        match cursor.next(&log[at..]) {
            Ok(Next::Entry(entry)) => at += entry.header.range().bytes() as usize,
            Ok(Next::Need(_)) | Err(_) => break,
        }
    }
    log
}

fn check_walk(mut cursor: Cursor, log: &[u8]) -> usize {
    let begin = cursor;
    let mut accepted = 0;
    let mut used = 0;
    let fault = loop {
        let before = *cursor.tip();
        match cursor.next(&log[used..]) {
            Ok(Next::Entry(entry)) => {
                let bytes = entry.header.range().bytes() as usize;
                check_entry(cursor.geometry(), before, &entry, &log[used..used + bytes]);
                used += bytes;
                accepted += 1;
                assert_eq!(cursor.tip().lsn, before.lsn.advance(bytes as u64));
            }
            Ok(Next::Need(bytes)) => {
                assert_eq!(*cursor.tip(), before, "moved without an entry");
                assert!(bytes > log.len() - used, "it needs what it has");
                assert!(bytes as u64 <= cursor.geometry().body_bytes(), "it needs more than any entry takes");
                break None;
            }
            Err(fault) => {
                assert_eq!(*cursor.tip(), before, "moved on a fault");
                assert!(fault.at == before.lsn && fault.to >= fault.at, "{fault:?}");
                assert!(
                    fault.range().bytes() <= cursor.geometry().room(fault.at),
                    "{fault:?} reaches over its segment"
                );
                break Some(fault);
            }
        }
    };
    check_run(begin, cursor.tip(), &log[..used], log, fault);
    accepted
}

/// A run verified at once is what its steps are.
fn check_run(begin: Cursor, end: &Tip, whole: &[u8], log: &[u8], fault: Option<Fault>) {
    let mut cursor = begin;
    assert_eq!(cursor.verify(log).err(), fault);
    let mut cursor = begin;
    let run = cursor.verify(whole).expect("entries that were verified one by one");
    assert_eq!((run.bytes(), run.first(), run.last(), cursor.tip()), (whole, begin.tip(), end, end));
    assert!(run.openings().windows(2).all(|pair| pair[0].epoch < pair[1].epoch && pair[0].first < pair[1].first));
    assert!(run.openings().iter().all(|opening| run.range().from <= opening.first && opening.first < run.range().to));
}

fn check_entry(geometry: Geometry, before: Tip, entry: &Entry<'_>, bytes: &[u8]) {
    let Entry { header, payload } = entry;
    assert_eq!((header.lsn, header.payload_bytes()), (before.lsn, payload.len()));
    assert!(header.time > before.time && header.epoch >= before.epoch);
    assert_eq!(geometry.segment_of(header.lsn), geometry.segment_of(header.lsn.advance(bytes.len() as u64 - 1)));
    let opens = header.kind == Some(Kind::Epoch);
    assert!(opens || (header.epoch, header.run_id) == (before.epoch, before.run_id));
    if opens {
        assert!(EpochEntry::decode(payload).is_some() && header.epoch > before.epoch);
    }
    assert_eq!(bytes.len() as u64, entry_bytes(payload.len()));
    let reserved = RawHeader::read_from_prefix(bytes).map(|(raw, _)| raw.reserved.get());
    if let Some(kind) = header.kind
        && reserved == Ok(0)
    {
        let draft = Draft {
            kind,
            flags: header.flags,
            volume: header.volume,
            producer: header.producer,
            sequence: header.sequence,
            parts: &[payload],
            payload_crc: header.payload_crc,
        };
        let mut tip = Tip { epoch: header.epoch, run_id: header.run_id, ..before };
        let mut again = Vec::new();
        assert_eq!(draft.lay(&mut tip, header.time, header.durable, &mut again), *header);
        assert!(again == bytes, "its bytes are not what a writer writes: {header:?}");
    }
}

/// `bytes`, cut or filled up with zeros to `length`.
fn fitted(bytes: &[u8], length: usize) -> Vec<u8> {
    let mut fitted = bytes[..bytes.len().min(length)].to_vec();
    fitted.resize(length, 0);
    fitted
}

/// Writes the checksum of what stands before `crc_at` there.
fn seal(bytes: &mut [u8], crc_at: usize) {
    let crc = crc32c(&bytes[..crc_at]).to_le_bytes();
    bytes[crc_at..crc_at + 4].copy_from_slice(&crc);
}
