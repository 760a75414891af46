//! The control file: what a journal knows beside its log. It never says more than the log or a returned sync proves.
//!
//! ```text
//!       0 facts, slot A   crc u32 | length u32 | fields …       written alternately, synced at every change
//!  262144 facts, slot B
//!  524288 evidence, slot A (4 KiB)   fields … | crc u32 at 4092  written after every sync of the log, not synced each time
//!  528384 evidence, slot B (4 KiB)
//! ```
//! Evidence survives `kill -9` at once and a power cut at the latest a second later: between two syncs of the control
//! file only one evidence slot is written, so the other one, synced, is always whole.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::chain::Chain;
use crate::codec::{Put, Take};
use crate::cursor::Tip;
use crate::entry::crc32c;
use crate::epoch::{Epoch, History, Opening, Term, TermSeen};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::id::{NodeId, StreamId};
use crate::lsn::Lsn;
use crate::storage::{Storage, StorageFile};
use crate::time::Time;

pub(crate) const NAME: &str = "control";
const MAGIC: [u8; 8] = *b"TOWLCTL1";
const VERSION: u16 = 1;
const FACTS_SLOT_BYTES: u64 = 256 << 10;
const EVIDENCE_AT: u64 = 2 * FACTS_SLOT_BYTES;
const EVIDENCE_SLOT_BYTES: usize = 4096;
const FILE_BYTES: u64 = EVIDENCE_AT + 2 * EVIDENCE_SLOT_BYTES as u64;
/// Peers whose acknowledgements are remembered; the longest silent one gives way.
const PEERS_MAX: usize = 64;
/// Evidence that changed is synced at the latest after this.
const EVIDENCE_SYNC_EVERY: Duration = Duration::from_secs(1);

/// What this node is for the stream. Kept here because a command line may be wrong about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// Takes writes.
    Primary = 1,
    /// Keeps what a primary sends.
    Receiver = 2,
    /// Was a primary; a higher term exists. Stays so until `promote` or `rejoin`.
    Fenced = 3,
}

impl Role {
    fn from_u8(role: u8) -> Option<Role> {
        Some(match role {
            1 => Role::Primary,
            2 => Role::Receiver,
            3 => Role::Fenced,
            _ => return None,
        })
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Role::Primary => "primary",
            Role::Receiver => "receiver",
            Role::Fenced => "fenced",
        })
    }
}

/// Facts that change rarely; each change is synced before anybody relies on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) stream: StreamId,
    pub(crate) geometry: Geometry,
    pub(crate) node: NodeId,
    pub(crate) role: Role,
    pub(crate) term_seen: TermSeen,
    /// The newest epoch that was ever opened here, whether its first entry reached the log or not: a number is never
    /// given twice.
    pub(crate) opened_last: Epoch,
    /// Where the log begins: before the first entry, or at a base, or at the horizon.
    pub(crate) start: Tip,
    /// A cut in progress: nothing at or above it may be read.
    pub(crate) cut: Option<Lsn>,
    pub(crate) checkpoint: Lsn,
    /// A sync failed and the log has not been opened since.
    pub(crate) poisoned: bool,
    pub(crate) history: History,
}

/// Evidence of durability: it changes with every sync of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// Everything below was covered by a sync of this node that returned.
    pub(crate) durable: Lsn,
    /// Chain there.
    pub(crate) chain: Chain,
    /// The commit point known here.
    pub(crate) committed: Lsn,
    /// What other nodes acknowledged as durable, most recent last.
    pub(crate) peers: Vec<(NodeId, Lsn, Chain)>,
}

/// The open control file.
#[derive(Debug)]
pub(crate) struct Control {
    path: PathBuf,
    file: Arc<dyn StorageFile>,
    pub(crate) facts: Facts,
    pub(crate) evidence: Evidence,
    facts_sequence: u64,
    evidence_sequence: u64,
    /// The evidence slot that a sync has made safe; the other one is written.
    evidence_safe: usize,
    evidence_dirty: bool,
    evidence_synced: Instant,
}

impl Control {
    /// Creates the control file of a new journal, synced, and its name with `dir`.
    pub(crate) fn create(storage: &dyn Storage, dir: &Path, facts: Facts, evidence: Evidence) -> Result<Control> {
        let path = dir.join(NAME);
        let aside = dir.join("control.new");
        match storage.remove(&aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &aside)(error));
            }
            _ => {}
        }
        let file = storage.create(&aside, FILE_BYTES).map_err(Error::io("create", &aside))?;
        file.write_at(&vec![0; FILE_BYTES as usize], 0).map_err(Error::io("write", &aside))?;
        let stored = Stored { facts, evidence, facts_sequence: 0, evidence_sequence: 0, evidence_slot: 0 };
        let mut control = Control::with(path.clone(), file, stored);
        control.store_facts()?;
        control.store_evidence()?;
        control.sync_evidence()?;
        storage.rename(&aside, &path).map_err(Error::io("rename", &path))?;
        storage.sync_dir(dir).map_err(Error::io("sync", dir))?;
        Ok(control)
    }

    /// Opens the control file in `dir`, where other files of a journal were found.
    pub(crate) fn open(storage: &dyn Storage, dir: &Path) -> Result<Control> {
        let path = dir.join(NAME);
        let file = storage.open(&path).map_err(|error| match error.kind() {
            // not `Absent`: nobody may take it for a place where a journal can be made
            std::io::ErrorKind::NotFound => Error::Corrupt {
                path: path.clone(),
                what: "there are segments, but the control file is missing. Restore this log from a peer or a depot"
                    .into(),
            },
            _ => Error::io("open", &path)(error),
        })?;
        let stored = read(file.file(), &path)?;
        let mut control = Control::with(path, file, stored);
        control.settle()?;
        Ok(control)
    }

    /// Writes what was read to where it was read from, and syncs it: the newest slots may be in the page cache alone,
    /// and the other ones must not be touched before these are safe.
    fn settle(&mut self) -> Result<()> {
        self.facts_sequence -= 1;
        self.store_facts()?;
        let block = encode_evidence(self.evidence_sequence, self.facts.stream, &self.evidence);
        let at = EVIDENCE_AT + (self.evidence_safe * EVIDENCE_SLOT_BYTES) as u64;
        self.file.write_at(&block, at).map_err(Error::io("write", &self.path))?;
        self.sync()
    }

    fn with(path: PathBuf, file: Arc<dyn StorageFile>, stored: Stored) -> Control {
        Control {
            path,
            file,
            facts: stored.facts,
            evidence: stored.evidence,
            facts_sequence: stored.facts_sequence,
            evidence_sequence: stored.evidence_sequence,
            evidence_safe: stored.evidence_slot,
            evidence_dirty: false,
            evidence_synced: Instant::now(),
        }
    }

    /// Changes the facts; returns when the change is synced. On an error the file still says what it said.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Facts)) -> Result<()> {
        let before = self.facts.clone();
        change(&mut self.facts);
        if self.facts == before {
            return Ok(());
        }
        self.store_facts().inspect_err(|_| self.facts = before)
    }

    /// Writes evidence, unsynced: it survives `kill -9` at once.
    pub(crate) fn note(&mut self, change: impl FnOnce(&mut Evidence)) -> Result<()> {
        let before = self.evidence.clone();
        change(&mut self.evidence);
        if self.evidence == before {
            return Ok(());
        }
        self.store_evidence()
    }

    /// Syncs evidence if it changed and the last sync is long enough ago.
    pub(crate) fn sync_evidence_sometimes(&mut self) -> Result<()> {
        if self.evidence_dirty && self.evidence_synced.elapsed() >= EVIDENCE_SYNC_EVERY {
            self.sync_evidence()?;
        }
        Ok(())
    }

    /// Syncs evidence if it changed.
    pub(crate) fn sync_evidence(&mut self) -> Result<()> {
        if self.evidence_dirty {
            self.sync()?;
        }
        Ok(())
    }

    fn store_facts(&mut self) -> Result<()> {
        let fields = encode_facts(self.facts_sequence + 1, &self.facts);
        if fields.len() as u64 + 8 > FACTS_SLOT_BYTES {
            return Err(Error::Corrupt {
                path: self.path.clone(),
                what: "the history has more epochs than the control file holds".into(),
            });
        }
        let mut slot = Put::default();
        slot.u32(crc32c(&fields)).u32(fields.len() as u32).bytes(&fields);
        let at = ((self.facts_sequence + 1) % 2) * FACTS_SLOT_BYTES;
        self.file.write_at(&slot.0, at).map_err(Error::io("write", &self.path))?;
        self.sync()?;
        self.facts_sequence += 1;
        Ok(())
    }

    fn store_evidence(&mut self) -> Result<()> {
        self.evidence_sequence += 1;
        let slot = 1 - self.evidence_safe;
        let block = encode_evidence(self.evidence_sequence, self.facts.stream, &self.evidence);
        let at = EVIDENCE_AT + (slot * EVIDENCE_SLOT_BYTES) as u64;
        self.file.write_at(&block, at).map_err(Error::io("write", &self.path))?;
        self.evidence_dirty = true;
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.file.sync().map_err(|error| Error::Poisoned {
            path: self.path.clone(),
            cause: error.to_string(),
            durable: self.evidence.durable,
        })?;
        if self.evidence_dirty {
            self.evidence_safe = 1 - self.evidence_safe;
            self.evidence_dirty = false;
        }
        self.evidence_synced = Instant::now();
        Ok(())
    }
}

/// What stands in a control file: the newest slots that are whole.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) facts: Facts,
    pub(crate) evidence: Evidence,
    facts_sequence: u64,
    evidence_sequence: u64,
    evidence_slot: usize,
}

/// Reads the facts and the evidence of a control file, without changing anything.
pub(crate) fn read(file: &File, path: &Path) -> Result<Stored> {
    let length = file.metadata().map_err(Error::io("look at", path))?.len();
    let corrupt = |what: &str| Error::Corrupt {
        path: path.to_owned(),
        what: format!("{what}. Nothing was changed; restore this node from its peer or a depot"),
    };
    if length < FILE_BYTES {
        return Err(corrupt(&format!("the control file has {length} bytes instead of {FILE_BYTES}: it was truncated")));
    }
    let mut bytes = vec![0; FILE_BYTES as usize];
    file.read_exact_at(&mut bytes, 0).map_err(Error::io("read", path))?;
    let (facts_area, evidence_area) = bytes.split_at(EVIDENCE_AT as usize);
    let (slot_a, slot_b) = facts_area.split_at(FACTS_SLOT_BYTES as usize);
    let facts = [slot_a, slot_b]
        .into_iter()
        .filter_map(decode_facts)
        .filter(|(sequence, _)| *sequence > 0)
        .max_by_key(|(sequence, _)| *sequence);
    let Some((facts_sequence, facts)) = facts else {
        return Err(corrupt("both copies of the control file are damaged"));
    };
    let (block_a, block_b) = evidence_area.split_at(EVIDENCE_SLOT_BYTES);
    let evidence = [block_a, block_b]
        .into_iter()
        .enumerate()
        .filter_map(|(slot, block)| {
            decode_evidence(block, facts.stream).map(|(sequence, evidence)| (sequence, slot, evidence))
        })
        .max_by_key(|(sequence, _, _)| *sequence);
    let Some((evidence_sequence, evidence_slot, evidence)) = evidence else {
        return Err(corrupt("both copies of the durability evidence are damaged"));
    };
    Ok(Stored { facts, evidence, facts_sequence, evidence_sequence, evidence_slot })
}

fn encode_facts(sequence: u64, facts: &Facts) -> Vec<u8> {
    let mut put = Put::default();
    put.bytes(&MAGIC).u16(VERSION).u8(facts.role as u8).u8(u8::from(facts.poisoned)).u32(0).u64(sequence);
    put.bytes(facts.stream.as_bytes()).bytes(facts.node.as_bytes());
    put.u32(facts.geometry.body_bytes() as u32).u32(facts.term_seen.term.0).u64(facts.term_seen.id);
    put.u32(facts.opened_last.term.0).u32(facts.opened_last.run);
    put.u64(facts.start.lsn.get()).u64(facts.start.chain.get()).u64(facts.start.time.as_nanos());
    put.u32(facts.start.epoch.term.0).u32(facts.start.epoch.run).u64(facts.start.run_id);
    put.u64(facts.cut.unwrap_or(Lsn::MAX).get()).u64(facts.checkpoint.get());
    put.u32(facts.history.openings().len() as u32).u32(0);
    for opening in facts.history.openings() {
        put.u32(opening.epoch.term.0).u32(opening.epoch.run).u64(opening.term_id).u64(opening.run_id);
        put.bytes(opening.node.as_bytes()).u64(opening.first.get()).u64(opening.chain_in.get());
    }
    put.0
}

fn decode_facts(slot: &[u8]) -> Option<(u64, Facts)> {
    let mut take = Take(slot);
    let crc = take.u32()?;
    let length = take.u32()? as usize;
    let fields = take.bytes(length)?;
    if crc32c(fields) != crc {
        return None;
    }
    let mut take = Take(fields);
    if take.array()? != MAGIC || take.u16()? != VERSION {
        return None;
    }
    let role = Role::from_u8(take.u8()?)?;
    let poisoned = take.u8()? != 0;
    take.u32()?;
    let sequence = take.u64()?;
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
    let count = take.u32()?;
    take.u32()?;
    let mut openings = Vec::new();
    for _ in 0..count {
        openings.push(Opening {
            epoch: Epoch { term: Term(take.u32()?), run: take.u32()? },
            term_id: take.u64()?,
            run_id: take.u64()?,
            node: NodeId::from_bytes(take.array()?),
            first: Lsn::new(take.u64()?),
            chain_in: Chain::from_u64(take.u64()?),
        });
    }
    let history = History::from_openings(openings)?;
    let facts =
        Facts { stream, geometry, node, role, term_seen, opened_last, start, cut, checkpoint, poisoned, history };
    Some((sequence, facts))
}

fn encode_evidence(sequence: u64, stream: StreamId, evidence: &Evidence) -> Vec<u8> {
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

fn decode_evidence(block: &[u8], stream: StreamId) -> Option<(u64, Evidence)> {
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
    let sequence = take.u64()?;
    if StreamId::from_bytes(take.array()?) != stream {
        return None;
    }
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
    Some((sequence, evidence))
}

impl Evidence {
    /// Remembers what a peer acknowledged as durable.
    pub(crate) fn remember(&mut self, node: NodeId, lsn: Lsn, chain: Chain) {
        self.peers.retain(|(known, _, _)| *known != node);
        if self.peers.len() == PEERS_MAX {
            self.peers.remove(0);
        }
        self.peers.push((node, lsn, chain));
    }
}
