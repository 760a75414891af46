//! Repair of a journal whose node does not run: damaged entries are taken from another copy of the log, byte-exact by
//! proof, and never silently.
//!
//! ```text
//!  own files --walk--> good | gap ..................... | good        the walk stops at the first entry that fails
//!                            tip --source's entries--> proof          each links to the one before it
//!
//!  proof = the own entry behind links to the fetched ones, or the next segment's header names the same tip,
//!          or the evidence of durability names the same chain there
//! ```
//! A segment is replaced only as a whole, and only when all of it is proven: its new file is written aside, synced, read
//! again and verified; the damaged file gets a second name in `damaged/`, synced; then the new one takes the first name.
//! So a crash leaves the damaged file or the repaired one, and the damaged one is kept in any case.
//!
//! It does not touch the control file, and nothing above the durable point: opening the journal decides about its tail.

mod body;
mod bridge;
mod copy;
mod files;
mod replace;
mod survey;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use self::body::Body;
pub use self::copy::JournalCopy;
pub(crate) use self::replace::DAMAGED;
pub use self::replace::Replaced;
use self::replace::Rewrite;
use crate::chain::Chain;
use crate::control::{self, Facts};
use crate::cursor::{FaultKind, Tip};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::id::StreamId;
use crate::lock::FolderLock;
use crate::lsn::{Lsn, LsnRange};
use crate::recovery::holds_journal;
use crate::storage::Storage;

/// A copy of the log, or of a part of it, that damaged entries can be taken from. Blocking.
///
/// It promises nothing: whatever it gives is verified against what stands before and behind the damage.
pub trait RangeSource {
    /// What to call it in reports.
    fn name(&self) -> String;
    /// Whose log it has.
    fn stream(&self) -> StreamId;
    /// How that is laid out.
    fn geometry(&self) -> Geometry;
    /// The bytes of the log behind `from`: the whole entry that begins there, and as many more as make a good piece
    /// (about 1 MiB). `None`: it doesn't hold that place.
    fn fetch(&mut self, from: &Tip) -> std::result::Result<Option<Vec<u8>>, SourceFault>;
}

/// Why a source can't give what it should have. For people: the next source is asked.
pub type SourceFault = Box<dyn std::error::Error + Send + Sync>;

/// Sources in the order in which they are asked.
pub type Sources<'a> = [Box<dyn RangeSource + 'a>];

/// A journal that is to be repaired. Its folder is locked for as long as this value lives.
#[derive(Debug)]
pub struct Repair {
    dir: PathBuf,
    storage: Arc<dyn Storage>,
    facts: Facts,
    bound: Bound,
    _lock: FolderLock,
}

/// Everything below was durable; there the chain was this one, where that is known.
#[derive(Clone, Copy, Debug)]
struct Bound {
    lsn: Lsn,
    chain: Option<Chain>,
}

impl Repair {
    /// Looks at the journal in `dir` and locks it.
    ///
    /// Errors: `Absent`, `Locked` while a node runs on it, `Corrupt` when the control file can't be used: without it nobody
    /// knows what was durable.
    pub fn open(dir: &Path, storage: Arc<dyn Storage>) -> Result<Repair> {
        if !dir.is_dir() || !holds_journal(dir)? {
            return Err(Error::Absent { path: dir.to_owned(), what: "no control file and no segments" });
        }
        let lock = FolderLock::take(dir)?;
        let path = dir.join(control::NAME);
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => control::lost(&path, control::MISSING),
            _ => Error::io("open", &path)(error),
        })?;
        let control::Stored { facts, evidence, .. } = control::read(&file, &path)?;
        let bound = match facts.cut {
            // the evidence may speak of what was cut
            Some(cut) if cut < evidence.durable => Bound { lsn: cut, chain: None },
            _ => Bound { lsn: evidence.durable, chain: Some(evidence.chain) },
        };
        Ok(Repair { dir: dir.to_owned(), storage, facts, bound, _lock: lock })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The stream's identity.
    pub fn stream(&self) -> StreamId {
        self.facts.stream
    }

    /// Reads everything, finds every damaged place, and looks for what belongs there. Changes nothing.
    ///
    /// Errors: only when the look itself fails. What no source can give is in the plan.
    pub fn plan(&self, sources: &mut Sources<'_>) -> Result<Plan> {
        survey::Survey::new(self, sources).run()
    }

    /// Does what `plan` says, segment by segment, and calls `done` behind each. `sources` are those of the plan.
    ///
    /// Errors: `Full`, `Io`; `Corrupt` when a source no longer gives what it gave to the plan. The segment at hand is then
    /// as it was; those before it are repaired.
    pub fn apply(&self, plan: &Plan, sources: &mut Sources<'_>, mut done: impl FnMut(&Replaced)) -> Result<()> {
        for (first, rewrite) in &plan.rewrites {
            let damages: Vec<&Damage> = plan.damages.iter().filter(|damage| damage.segment == *first).collect();
            done(&replace::replace(self, *first, rewrite, &damages, sources)?);
        }
        Ok(())
    }
}

/// What is damaged, and what can be done about it.
#[derive(Debug, Default)]
pub struct Plan {
    damages: Vec<Damage>,
    /// The segments that can be made whole, by their first LSN.
    rewrites: BTreeMap<Lsn, Rewrite>,
}

impl Plan {
    /// Every damaged place, in the order of the log.
    pub fn damages(&self) -> &[Damage] {
        &self.damages
    }

    /// How many of them can be repaired.
    pub fn curable(&self) -> usize {
        self.damages.iter().filter(|damage| damage.cure.is_some()).count()
    }

    /// A segment is replaced as a whole or not at all: what could be cured in one that can't is not.
    fn settle(&mut self) {
        let incurable: Vec<Damage> = self.damages.iter().filter(|damage| damage.cure.is_none()).cloned().collect();
        for damage in &mut self.damages {
            if let Some(other) = incurable.iter().find(|other| other.segment == damage.segment)
                && damage.cure.take().is_some()
            {
                damage.tried.push(format!("it could be, but {} in the same file can't", other.place()));
            }
        }
        let damages = &self.damages;
        self.rewrites.retain(|first, _| {
            damages.iter().any(|damage| damage.segment == *first)
                && incurable.iter().all(|damage| damage.segment != *first)
        });
    }
}

/// One damaged place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment file.
    pub path: PathBuf,
    /// The damaged entries; empty when only the file's own header is.
    pub range: LsnRange,
    /// What is wrong.
    pub harm: Harm,
    /// Where what belongs there comes from; `None`: from nowhere.
    pub cure: Option<Cure>,
    /// Why it didn't come from elsewhere, a line each.
    pub tried: Vec<String>,
    segment: Lsn,
}

impl Damage {
    /// The place in words.
    pub fn place(&self) -> String {
        match self.range.is_empty() {
            true => format!("the header of the segment at LSN {}", self.segment),
            false => format!("LSN {}", self.range),
        }
    }
}

/// What is wrong with a place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Harm {
    /// An entry fails.
    Entry(FaultKind),
    /// The disk doesn't give the bytes.
    Unreadable(String),
    /// The file is shorter than a segment.
    Truncated,
    /// The file is gone.
    Missing,
    /// The file's header can't be used.
    Header(String),
    /// One of the two copies of the file's header can't be used.
    HeaderCopy,
    /// The entries are whole, but they don't lead to what was durable.
    OtherHistory,
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Harm::Entry(kind) => kind.fmt(f),
            Harm::Unreadable(cause) => write!(f, "it can't be read: {cause}"),
            Harm::Truncated => f.write_str("the file was truncated"),
            Harm::Missing => f.write_str("the file is missing"),
            Harm::Header(what) => f.write_str(what),
            Harm::HeaderCopy => f.write_str("one of its two copies is damaged"),
            Harm::OtherHistory => f.write_str("these entries don't lead to what was durable: another history"),
        }
    }
}

/// Where what belongs to a damaged place comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cure {
    /// These sources, by name.
    Sources(Vec<String>),
    /// The other copy of the header.
    OtherCopy,
    /// A header follows from the entries in front of it.
    Rebuilt,
    /// Nothing durable was there: zeros.
    Zeros,
}

impl fmt::Display for Cure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cure::Sources(names) => f.write_str(&names.join(" and ")),
            Cure::OtherCopy => f.write_str("its other copy"),
            Cure::Rebuilt => f.write_str("the entries in front of it"),
            Cure::Zeros => f.write_str("nothing: no durable entry was there"),
        }
    }
}
