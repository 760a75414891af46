//! The control file: what a journal knows beside its log. It never says more than the log or a returned sync proves.
//!
//! Facts are written alternately to two slots and synced at every change, then copied to the other slot; evidence of
//! durability is written after every sync of the log, and not synced each time. [`slots`] has the bytes.
//!
//! Evidence survives `kill -9` at once and a power cut at the latest a second later: between two syncs of the control
//! file only one evidence slot is written, so the other one, synced, is always whole.

pub(crate) mod blocks;
pub(crate) mod slots;
#[cfg(all(test, feature = "testing", not(feature = "shuttle")))]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::blocks::{BLOCK_OPENINGS, FACTS_OPENINGS_MAX, copies_of, encode_block};
use self::slots::{EVIDENCE_AT, EVIDENCE_SLOT_BYTES, FACTS_SLOT_BYTES, FILE_BYTES, encode_evidence, encode_facts};
pub(crate) use self::slots::{Salvaged, Stored, lost, read, salvage};
use crate::chain::Chain;
use crate::cursor::Tip;
use crate::epoch::{Epoch, History, TermSeen};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::id::{NodeId, StreamId};
use crate::lsn::Lsn;
use crate::storage::{Storage, StorageFile};

pub(crate) const NAME: &str = "control";
pub(crate) const MISSING: &str = "there are segments, but the control file is missing";
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
    /// This file was made anew from the log, and nobody has vouched since for what the log can't say: whether a higher
    /// term was seen, and whether more was acknowledged.
    pub(crate) rebuilt: bool,
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
    /// How many blocks of older openings the facts count.
    blocks: u32,
    evidence_sequence: u64,
    /// The evidence slot that a sync has made safe; the other one is written.
    evidence_safe: usize,
    /// The other one is whole, and no sync has covered it.
    evidence_dirty: bool,
    /// Writing or syncing the other one failed: it may be half of what it should be, or in the page cache alone.
    evidence_lost: bool,
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
        let stored = Stored { facts, evidence, facts_sequence: 0, blocks: 0, evidence_sequence: 0, evidence_slot: 0 };
        let mut control = Control::with(path.clone(), file, stored);
        control.store_facts(None)?;
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
            std::io::ErrorKind::NotFound => lost(&path, MISSING),
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
        self.write_facts()?;
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
            blocks: stored.blocks,
            evidence_sequence: stored.evidence_sequence,
            evidence_safe: stored.evidence_slot,
            evidence_dirty: false,
            evidence_lost: false,
            evidence_synced: Instant::now(),
        }
    }

    /// Changes the facts; returns when the change is synced. On an error the file still says what it said.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Facts)) -> Result<()> {
        let mut before = self.facts.clone();
        change(&mut self.facts);
        if self.facts == before {
            return Ok(());
        }
        let stored = self.store_change(&mut before);
        if stored.is_err() {
            self.facts = before;
        }
        stored
    }

    /// Where openings of the blocks are gone, a change of its own takes the blocks back before others can take their
    /// place. `before`: what the file says.
    fn store_change(&mut self, before: &mut Facts) -> Result<()> {
        let common = before.history.common(&self.facts.history);
        let kept = (common / BLOCK_OPENINGS) as u32;
        if kept < self.blocks {
            let blocks = std::mem::replace(&mut self.blocks, kept);
            let wanted = std::mem::replace(&mut self.facts, before.clone());
            self.facts.history.keep_first(common);
            if let Err(error) = self.write_facts() {
                self.blocks = blocks;
                return Err(error);
            }
            *before = std::mem::replace(&mut self.facts, wanted);
        }
        self.store_facts(Some(before))
    }

    /// Writes evidence, unsynced: it survives `kill -9` at once.
    pub(crate) fn note(&mut self, change: impl FnOnce(&mut Evidence)) -> Result<()> {
        let before = self.evidence.clone();
        change(&mut self.evidence);
        if self.evidence == before && !self.evidence_lost {
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
        if self.evidence_lost {
            self.store_evidence()?;
        }
        if self.evidence_dirty {
            self.sync()?;
        }
        Ok(())
    }

    /// Writes the facts, and before them blocks of older openings when there are too many for a slot. `before`: what the
    /// file says, if it says anything yet.
    fn store_facts(&mut self, before: Option<&Facts>) -> Result<()> {
        let openings = self.facts.history.openings().len();
        if openings - self.blocks as usize * BLOCK_OPENINGS <= FACTS_OPENINGS_MAX {
            return self.write_facts();
        }
        // one block's worth stays: a cut of a few runs needs no block back
        let blocks = (openings / BLOCK_OPENINGS - 1) as u32;
        match self.write_blocks(before, blocks) {
            // the slots are allocated, so the facts can take them until there is space
            Err(Error::Full { .. }) if self.fits_slot() => return self.write_facts(),
            written => written?,
        }
        let blocks = std::mem::replace(&mut self.blocks, blocks);
        self.write_facts().inspect_err(|_| self.blocks = blocks)
    }

    /// Writes blocks until there are `blocks`, and syncs them.
    fn write_blocks(&mut self, before: Option<&Facts>, blocks: u32) -> Result<()> {
        if let Some(before) = before {
            // an older slot may still count blocks that a cut has taken back
            let slot = encode_facts(self.facts_sequence, before, self.blocks);
            let at = ((self.facts_sequence + 1) % 2) * FACTS_SLOT_BYTES;
            self.file.write_at(&slot, at).map_err(Error::io("write", &self.path))?;
            self.sync()?;
        }
        let full = self.facts.history.openings().chunks(BLOCK_OPENINGS);
        for (number, openings) in (0..blocks).zip(full).skip(self.blocks as usize) {
            let block = encode_block(number, self.facts.stream, openings);
            for at in copies_of(number) {
                self.file.write_at(&block, at).map_err(Error::io("write", &self.path))?;
            }
        }
        self.sync() // before any facts count them
    }

    fn fits_slot(&self) -> bool {
        encode_facts(self.facts_sequence + 1, &self.facts, self.blocks).len() as u64 <= FACTS_SLOT_BYTES
    }

    fn write_facts(&mut self) -> Result<()> {
        let facts = encode_facts(self.facts_sequence + 1, &self.facts, self.blocks);
        let at = ((self.facts_sequence + 1) % 2) * FACTS_SLOT_BYTES;
        self.file.write_at(&facts, at).map_err(Error::io("write", &self.path))?;
        self.sync()?;
        self.facts_sequence += 1;
        // the other slot still has the facts of before: when this one rots, a fenced node must not read there that it is
        // the primary. Not synced: this one is safe, and the next change goes to the other one anyway
        if let Err(error) = self.file.write_at(&facts, FACTS_SLOT_BYTES - at) {
            tracing::warn!(path = %self.path.display(), %error, "write the second copy of the facts");
        }
        Ok(())
    }

    fn store_evidence(&mut self) -> Result<()> {
        self.evidence_sequence += 1;
        (self.evidence_dirty, self.evidence_lost) = (false, true);
        let slot = 1 - self.evidence_safe;
        let block = encode_evidence(self.evidence_sequence, self.facts.stream, &self.evidence);
        let at = EVIDENCE_AT + (slot * EVIDENCE_SLOT_BYTES) as u64;
        self.file.write_at(&block, at).map_err(Error::io("write", &self.path))?;
        (self.evidence_dirty, self.evidence_lost) = (true, false);
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        if let Err(error) = self.file.sync() {
            // a later sync that returns says nothing of what this one should have covered
            self.evidence_lost |= std::mem::take(&mut self.evidence_dirty);
            let (path, cause) = (self.path.clone(), error.to_string());
            return Err(Error::Poisoned { path, cause, durable: self.evidence.durable });
        }
        if self.evidence_dirty {
            self.evidence_safe = 1 - self.evidence_safe;
            self.evidence_dirty = false;
        }
        self.evidence_synced = Instant::now();
        Ok(())
    }
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
