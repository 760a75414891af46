//! What each destination keeps of the log, and what becomes of that where there is no room.
//!
//! ```text
//!  not known yet: all of the log is kept --- it said what it has ---> that is kept
//!       | it can't be asked                                             |   ^ it holds what the log no longer has
//!       v                                                               v   |
//!  all of it is kept, as long as there is room --- no room ---------> detached: nothing is kept for it
//!                                                     ^ not while what it lacks is on its way (`early`)
//! ```
//! Whether it may be detached at all is what was asked for ([`AtBudget`]); the journal decides when.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use journal::{GiveWay, Holder, Journal, Lsn, Time};
use serde::{Deserialize, Serialize};

use super::status::time_text;
use crate::data::{read_note, write_note};
use crate::error::{Error, Result};
use crate::options::AtBudget;
use crate::status::DetachedStatus;

/// The file beside the spools: no depot's spool has a dot in its name.
const FILE: &str = "detached.json";
/// Its version. 1: the first.
const FORMAT: u32 = 1;

/// What is known of what a destination needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// It is being asked for the first time since this start.
    NotYet,
    /// It can't be asked, or has not said yet.
    Silent,
    /// Nothing below.
    From(Lsn),
    /// It was asked just now: what begins here it lacks, and the log doesn't keep it any more.
    Gone(Lsn),
}

/// Nothing of the log is kept for a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Detached {
    /// What begins here it lacks; `None`: it has not said since the start.
    pub(super) lacks: Option<Lsn>,
    /// Since when.
    pub(super) since: Time,
}

/// What one destination keeps of the log.
#[derive(Debug)]
pub(super) struct Claim {
    /// For people: "depot night".
    name: String,
    holder: Holder,
    give_way: GiveWay,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    needs: Option<Lsn>,
    /// It said itself that it lacks what is gone.
    gone: bool,
    detached: Option<Detached>,
    /// The log says that it is detached.
    logged: bool,
}

impl Claim {
    /// All of the log, until the destination has said what it has.
    fn new(journal: &Journal, name: String, give_way: GiveWay, noted: Option<Detached>) -> Claim {
        let holder = journal.hold(name.clone(), Lsn::ZERO);
        // who must not be detached isn't, whatever was asked for before
        let detached = noted.filter(|_| give_way != GiveWay::Never);
        if detached.is_some() {
            holder.detach();
        }
        let known = Known { detached, logged: noted.is_some(), ..Known::default() };
        Claim { name, holder, give_way, known: Mutex::new(known) }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// It is detached, as far as anybody was told.
    pub(super) fn detached(&self) -> Option<Detached> {
        self.known().detached
    }

    /// The same for people, over a log that begins at `start`. `otherwise`: what is left to do when it lacks what is gone.
    pub(super) fn detached_status(&self, start: Lsn, otherwise: &str) -> Option<DetachedStatus> {
        let Detached { lacks, since } = self.detached()?;
        let (name, gone) = (&self.name, self.known().gone);
        let next_step = match lacks.filter(|_| gone) {
            Some(lacks) => {
                format!("{name} lacks LSN {lacks}..{start}, which this log doesn't keep any more: {otherwise}")
            }
            // what it has acknowledged may be noted a little late
            None => format!("bring back {name}: it goes on by itself if it holds everything below LSN {start}"),
        };
        Some(DetachedStatus { lacks: lacks.map(Lsn::get), since: time_text(since), next_step })
    }

    /// Takes note of what the destination needs of a log that begins at `start`. True when it was detached or attached.
    pub(super) fn look(&self, need: Need, start: Lsn, now: Time) -> bool {
        let mut known = self.known();
        if need != Need::NotYet {
            self.holder.set_give_way(self.give_way);
        }
        if let Need::From(needs) | Need::Gone(needs) = need {
            self.holder.set(needs);
            known.gone = need == Need::Gone(needs);
            known.needs = Some(needs);
            match needs >= start {
                true => self.holder.attach(),
                // nothing that is kept is of use to it
                false if self.give_way != GiveWay::Never => self.holder.detach(),
                false => {}
            }
        }
        let before = known.detached;
        known.detached = match (self.holder.is_detached(), before) {
            (false, _) => None,
            (true, None) => Some(Detached { lacks: known.needs, since: now }),
            (true, Some(before)) => Some(Detached { lacks: known.needs.or(before.lacks), ..before }),
        };
        known.detached.is_some() != before.is_some()
    }

    /// While what it lacks is on its way, it isn't detached.
    pub(super) fn set_awaited(&self, awaited: bool) {
        self.holder.set_awaited(awaited);
    }

    /// What the log is to say and doesn't yet.
    pub(super) fn unlogged(&self) -> Option<String> {
        let known = self.known();
        let name = &self.name;
        match known.detached {
            Some(_) if known.logged => None,
            Some(Detached { lacks: Some(lacks), .. }) => {
                Some(format!("detached: {name}, which lacks what begins at LSN {lacks}"))
            }
            Some(Detached { lacks: None, .. }) => Some(format!("detached: {name}, which has not said what it lacks")),
            None if !known.logged => None,
            None => Some(match known.needs {
                Some(needs) => format!("attached again: {name}, from LSN {needs} on"),
                None => format!("attached again: {name}"),
            }),
        }
    }

    /// The log says now how it is.
    pub(super) fn logged(&self) {
        let mut known = self.known();
        known.logged = known.detached.is_some();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who was detached when the process before ended, and is until it is met.
#[derive(Debug)]
pub(super) struct Noted {
    path: PathBuf,
    detached: Vec<NotedOne>,
}

#[derive(Debug, Serialize, Deserialize)]
struct NotedFile {
    format: u32,
    detached: Vec<NotedOne>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct NotedOne {
    destination: String,
    lacks: Option<u64>,
    since: u64,
}

impl Noted {
    /// Reads the file in the folder of the spools. One that can't be read counts for nothing: whoever was detached is
    /// again, once there is no room.
    pub(super) fn read(spools: &Path) -> Noted {
        let path = spools.join(FILE);
        let file = read_note(&path, |file: &NotedFile| file.format, FORMAT, "nobody is detached");
        let detached = file.map(|file| file.detached).unwrap_or_default();
        Noted { path, detached }
    }

    /// The claim of a destination, detached if it was.
    pub(super) fn claim(&self, journal: &Journal, name: String, give_way: GiveWay) -> Claim {
        let noted = self
            .detached
            .iter()
            .find(|noted| noted.destination == name)
            .map(|noted| Detached { lacks: noted.lacks.map(Lsn::new), since: Time::from_nanos(noted.since) });
        Claim::new(journal, name, give_way, noted)
    }

    /// Writes who is detached now, if the file says anything else. Durable when it returns.
    pub(super) fn keep<'a>(&mut self, claims: impl Iterator<Item = &'a Claim>) -> Result<()> {
        let noted = |claim: &Claim| {
            let Detached { lacks, since } = claim.detached()?;
            let (lacks, since) = (lacks.map(Lsn::get), since.as_nanos());
            Some(NotedOne { destination: claim.name.clone(), lacks, since })
        };
        let detached: Vec<NotedOne> = claims.filter_map(noted).collect();
        if detached == self.detached {
            return Ok(());
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let file = NotedFile { format: FORMAT, detached };
        write_note(&self.path, &file)?;
        self.detached = file.detached;
        Ok(())
    }
}

impl AtBudget {
    /// What the journal is told; `None`: nobody asked for anything.
    pub(super) fn give_way(wanted: Option<AtBudget>) -> GiveWay {
        match wanted {
            Some(AtBudget::Block) => GiveWay::Never,
            Some(AtBudget::Detach) => GiveWay::Always,
            None => GiveWay::UnlessLast,
        }
    }
}
