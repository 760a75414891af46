//! The slots of a control file as bytes.
//!
//! ```text
//!       0 facts, slot A   crc u32 | length u32 | fields …
//!  262144 facts, slot B
//!  524288 evidence, slot A (4 KiB)   fields … | crc u32 at 4092
//!  528384 evidence, slot B (4 KiB)
//!  532480 older part of the history, if it is long: see `blocks`
//! ```

use std::fs::File;
use std::path::Path;

use super::blocks::{BLOCK_OPENINGS, read_blocks};
use super::{Evidence, Facts, Role};
use crate::chain::Chain;
use crate::codec::{Put, Take};
use crate::cursor::Tip;
use crate::entry::crc32c;
use crate::epoch::{Epoch, History, Opening, Term, TermSeen};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::id::{NodeId, StreamId};
use crate::lsn::Lsn;
use crate::pread::fill;
use crate::time::Time;

const MAGIC: [u8; 8] = *b"TOWLCTL1";
const VERSION: u16 = 1;
/// No file is changed so often: a slot that says so was not written here, and the next number must exist.
const SEQUENCE_MAX: u64 = u64::MAX / 2;
pub(super) const FACTS_SLOT_BYTES: u64 = 256 << 10;
pub(super) const EVIDENCE_AT: u64 = 2 * FACTS_SLOT_BYTES;
pub(crate) const EVIDENCE_SLOT_BYTES: usize = 4096;
pub(super) const FILE_BYTES: u64 = EVIDENCE_AT + 2 * EVIDENCE_SLOT_BYTES as u64;

/// What stands in a control file: the newest slots that are whole.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) facts: Facts,
    pub(crate) evidence: Evidence,
    pub(super) facts_sequence: u64,
    pub(super) blocks: u32,
    pub(super) evidence_sequence: u64,
    pub(super) evidence_slot: usize,
}

/// A facts slot that is whole.
#[derive(Debug)]
pub(crate) struct FactsSlot {
    pub(crate) sequence: u64,
    /// Their history lacks what the blocks have.
    pub(crate) facts: Facts,
    /// How many blocks count.
    pub(crate) blocks: u32,
}

/// What of a damaged control file is whole, each kind of slot alone.
#[derive(Debug, Default)]
pub(crate) struct Salvaged {
    pub(crate) facts: Option<Facts>,
    facts_sequence: u64,
    blocks: u32,
    evidence: Vec<Spoken>,
}

/// An evidence slot: of which stream it speaks, and what it says.
#[derive(Debug)]
struct Spoken {
    sequence: u64,
    slot: usize,
    stream: StreamId,
    evidence: Evidence,
}

/// Reads the facts and the evidence of a control file, without changing anything.
pub(crate) fn read(file: &File, path: &Path) -> Result<Stored> {
    let length = file.metadata().map_err(Error::io("look at", path))?.len();
    if length < FILE_BYTES {
        let what = format!("the control file has {length} bytes instead of {FILE_BYTES}: it was truncated");
        return Err(lost(path, &what));
    }
    let mut salvaged = salvage(file, path)?;
    let Some(facts) = salvaged.facts.take() else {
        return Err(lost(path, "both copies of the facts, or of a part of their history, are damaged"));
    };
    let (facts_sequence, blocks) = (salvaged.facts_sequence, salvaged.blocks);
    let Some(newest) = salvaged.newest_of(facts.stream) else {
        return Err(lost(path, "both copies of the durability evidence are damaged"));
    };
    let Spoken { sequence: evidence_sequence, slot: evidence_slot, evidence, .. } = newest;
    Ok(Stored { facts, evidence, facts_sequence, blocks, evidence_sequence, evidence_slot })
}

/// Reads whatever slots are whole, also of a file that is too short. `Incompatible` for one of another version: that is
/// no damage.
pub(crate) fn salvage(file: &File, path: &Path) -> Result<Salvaged> {
    let mut bytes = vec![0; FILE_BYTES as usize];
    // what a file lacks that is too short is zero: no slot that counts
    fill(file, &mut bytes, 0).map_err(Error::io("read", path))?;
    let (facts_area, evidence_area) = bytes.split_at(EVIDENCE_AT as usize);
    let (slot_a, slot_b) = facts_area.split_at(FACTS_SLOT_BYTES as usize);
    let other = [slot_a, slot_b].into_iter().filter_map(version_of).find(|&version| version != VERSION);
    if let Some(found) = other {
        let what = format!("it has format version {found}; this version of towline knows {VERSION}. Use a newer one");
        return Err(Error::Incompatible { path: path.to_owned(), what });
    }
    let mut salvaged = Salvaged::default();
    // the newest or none: what an older one says may have been taken back
    if let Some(newest) = [slot_a, slot_b].into_iter().filter_map(decode_facts).max_by_key(|slot| slot.sequence) {
        (salvaged.facts_sequence, salvaged.blocks) = (newest.sequence, newest.blocks);
        let older = read_blocks(file, path, newest.facts.stream, newest.blocks)?;
        salvaged.facts = older.and_then(|older| newest.facts.behind(older));
    }
    let evidence = evidence_area.chunks(EVIDENCE_SLOT_BYTES).enumerate().filter_map(|(slot, block)| {
        let (sequence, stream, evidence) = decode_evidence(block)?;
        Some(Spoken { sequence, slot, stream, evidence })
    });
    salvaged.evidence = evidence.collect();
    Ok(salvaged)
}

impl Facts {
    /// These facts, with older openings in front of those that they have; `None` when they are out of order.
    fn behind(self, mut older: Vec<Opening>) -> Option<Facts> {
        older.extend_from_slice(self.history.openings());
        Some(Facts { history: History::from_openings(older)?, ..self })
    }
}

impl Salvaged {
    /// The newest evidence for the log of `stream`.
    pub(crate) fn evidence_of(&mut self, stream: StreamId) -> Option<Evidence> {
        self.newest_of(stream).map(|spoken| spoken.evidence)
    }

    fn newest_of(&mut self, stream: StreamId) -> Option<Spoken> {
        let spoken = std::mem::take(&mut self.evidence).into_iter().filter(|spoken| spoken.stream == stream);
        spoken.max_by_key(|spoken| spoken.sequence)
    }
}

/// The error for a control file that can't be used, with the way back.
pub(crate) fn lost(path: &Path, what: &str) -> Error {
    let journal = path.parent().unwrap_or(path).display();
    Error::Corrupt {
        path: path.to_owned(),
        what: format!("{what}. Nothing was changed; make it anew from the log: towline journal rebuild {journal}"),
    }
}

/// A slot of facts, whose older openings are in the first `blocks` blocks.
pub(crate) fn encode_facts(sequence: u64, facts: &Facts, blocks: u32) -> Vec<u8> {
    let mut put = Put::default();
    put.bytes(&MAGIC).u16(VERSION).u8(facts.role as u8).u8(u8::from(facts.poisoned));
    put.u8(u8::from(facts.rebuilt)).bytes(&[0; 3]).u64(sequence);
    put.bytes(facts.stream.as_bytes()).bytes(facts.node.as_bytes());
    put.u32(facts.geometry.body_bytes() as u32).u32(facts.term_seen.term.0).u64(facts.term_seen.id);
    put.u32(facts.opened_last.term.0).u32(facts.opened_last.run);
    put.u64(facts.start.lsn.get()).u64(facts.start.chain.get()).u64(facts.start.time.as_nanos());
    put.u32(facts.start.epoch.term.0).u32(facts.start.epoch.run).u64(facts.start.run_id);
    put.u64(facts.cut.unwrap_or(Lsn::MAX).get()).u64(facts.checkpoint.get());
    let openings = facts.history.openings();
    put.u32(openings.len() as u32).u32(blocks);
    openings.iter().skip(blocks as usize * BLOCK_OPENINGS).for_each(|opening| put_opening(&mut put, opening));
    let fields = put.0;
    let mut slot = Put::default();
    slot.u32(crc32c(&fields)).u32(fields.len() as u32).bytes(&fields);
    slot.0
}

pub(super) fn put_opening(put: &mut Put, opening: &Opening) {
    put.u32(opening.epoch.term.0).u32(opening.epoch.run).u64(opening.term_id).u64(opening.run_id);
    put.bytes(opening.node.as_bytes()).u64(opening.first.get()).u64(opening.chain_in.get());
}

pub(super) fn take_opening(take: &mut Take<'_>) -> Option<Opening> {
    Some(Opening {
        epoch: Epoch { term: Term(take.u32()?), run: take.u32()? },
        term_id: take.u64()?,
        run_id: take.u64()?,
        node: NodeId::from_bytes(take.array()?),
        first: Lsn::new(take.u64()?),
        chain_in: Chain::from_u64(take.u64()?),
    })
}

/// The fields of a facts slot that is whole.
fn whole_fields(slot: &[u8]) -> Option<&[u8]> {
    let mut take = Take(slot);
    let crc = take.u32()?;
    let length = take.u32()? as usize;
    take.bytes(length).filter(|fields| crc32c(fields) == crc)
}

fn version_of(slot: &[u8]) -> Option<u16> {
    let mut take = Take(whole_fields(slot)?);
    (take.array()? == MAGIC).then(|| take.u16())?
}

pub(crate) fn decode_facts(slot: &[u8]) -> Option<FactsSlot> {
    let mut take = Take(whole_fields(slot)?);
    if take.array()? != MAGIC || take.u16()? != VERSION {
        return None;
    }
    let role = Role::from_u8(take.u8()?)?;
    let poisoned = take.u8()? != 0;
    let rebuilt = take.u8()? != 0;
    take.bytes(3)?;
    let sequence = take.u64().filter(|sequence| (1..=SEQUENCE_MAX).contains(sequence))?;
    let stream = StreamId::from_bytes(take.array()?);
    let node = NodeId::from_bytes(take.array()?);
    let geometry = Geometry::new(take.u32()?)?;
    let term_seen = TermSeen { term: Term(take.u32()?), id: take.u64()? };
    let opened_last = Epoch { term: Term(take.u32()?), run: take.u32()? };
    let start = Tip {
        lsn: Lsn::new(take.u64()?),
        chain: Chain::from_u64(take.u64()?),
        time: Time::from_nanos(take.u64()?),
        epoch: Epoch { term: Term(take.u32()?), run: take.u32()? },
        run_id: take.u64()?,
    };
    let cut = Some(Lsn::new(take.u64()?)).filter(|&cut| cut != Lsn::MAX);
    let checkpoint = Lsn::new(take.u64()?);
    let (count, blocks) = (take.u32()?, take.u32()?);
    let here = u64::from(count).checked_sub(u64::from(blocks) * BLOCK_OPENINGS as u64)?;
    let mut openings = Vec::new();
    for _ in 0..here {
        openings.push(take_opening(&mut take)?);
    }
    if !geometry.holds(start.lsn) {
        return None;
    }
    let history = History::from_openings(openings)?;
    let facts = Facts {
        stream,
        geometry,
        node,
        role,
        term_seen,
        opened_last,
        start,
        cut,
        checkpoint,
        poisoned,
        rebuilt,
        history,
    };
    Some(FactsSlot { sequence, facts, blocks })
}

/// A slot of evidence.
pub(crate) fn encode_evidence(sequence: u64, stream: StreamId, evidence: &Evidence) -> Vec<u8> {
    let mut put = Put::default();
    put.bytes(&MAGIC).u16(VERSION).u16(evidence.peers.len() as u16).u32(0).u64(sequence).bytes(stream.as_bytes());
    put.u64(evidence.durable.get()).u64(evidence.chain.get()).u64(evidence.committed.get());
    for (node, lsn, chain) in &evidence.peers {
        put.bytes(node.as_bytes()).u64(lsn.get()).u64(chain.get());
    }
    let mut block = put.0;
    block.resize(EVIDENCE_SLOT_BYTES - 4, 0);
    let crc = crc32c(&block);
    block.extend_from_slice(&crc.to_le_bytes());
    block
}

pub(crate) fn decode_evidence(block: &[u8]) -> Option<(u64, StreamId, Evidence)> {
    let (fields, crc) = block.split_at_checked(EVIDENCE_SLOT_BYTES - 4)?;
    if crc32c(fields).to_le_bytes() != crc {
        return None;
    }
    let mut take = Take(fields);
    if take.array()? != MAGIC || take.u16()? != VERSION {
        return None;
    }
    let count = take.u16()?;
    take.u32()?;
    let sequence = take.u64().filter(|sequence| (1..=SEQUENCE_MAX).contains(sequence))?;
    let stream = StreamId::from_bytes(take.array()?);
    let mut evidence = Evidence {
        durable: Lsn::new(take.u64()?),
        chain: Chain::from_u64(take.u64()?),
        committed: Lsn::new(take.u64()?),
        peers: Vec::new(),
    };
    for _ in 0..count {
        let peer = (NodeId::from_bytes(take.array()?), Lsn::new(take.u64()?), Chain::from_u64(take.u64()?));
        evidence.peers.push(peer);
    }
    Some((sequence, stream, evidence))
}
