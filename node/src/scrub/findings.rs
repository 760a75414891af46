//! What the scrub knows: when everything was looked at last, and what is damaged. Kept in a file, so that a restart
//! hides nothing.

use std::path::Path;

use jiff::Timestamp;
use journal::Time;
use serde::{Deserialize, Serialize};

use crate::data::{read_note, write_note};
use crate::error::Result;
use crate::status::DamageStatus;
use crate::stream::time_text;

/// What is damaged, as the looks at it say.
#[derive(Debug, Default)]
pub(super) struct Findings {
    last_full: Option<Time>,
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    damage: DamageStatus,
    /// The look at hand has met it.
    seen: bool,
}

/// The file. Version 1: the first.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Noted {
    format: u32,
    last_full: Option<String>,
    damaged: Vec<DamageStatus>,
}

const FORMAT: u32 = 1;

impl Findings {
    /// What was noted.
    pub(super) fn of(noted: Noted) -> Findings {
        let last_full = noted.last_full.and_then(|text| text.parse::<Timestamp>().ok());
        let last_full = last_full.and_then(|at| u64::try_from(at.as_nanosecond()).ok()).map(Time::from_nanos);
        let known = noted.damaged.into_iter().map(|damage| Known { damage, seen: false });
        Findings { last_full, known: known.collect() }
    }

    /// When everything was looked at last.
    pub(super) fn last_full(&self) -> Option<String> {
        self.last_full.map(time_text)
    }

    pub(super) fn last_full_time(&self) -> Option<Time> {
        self.last_full
    }

    /// What is damaged.
    pub(super) fn damaged(&self) -> impl Iterator<Item = &DamageStatus> {
        self.known.iter().map(|known| &known.damage)
    }

    /// A look begins.
    pub(super) fn begin(&mut self) {
        self.known.iter_mut().for_each(|known| known.seen = false);
    }

    /// It met damage; true when that is new.
    pub(super) fn found(&mut self, damage: DamageStatus) -> bool {
        let same = |known: &&mut Known| {
            (&known.damage.path, known.damage.from, &known.damage.what) == (&damage.path, damage.from, &damage.what)
        };
        match self.known.iter_mut().find(same) {
            Some(known) => {
                known.seen = true;
                false
            }
            None => {
                self.known.push(Known { damage, seen: true });
                true
            }
        }
    }

    /// The look is over; the log begins at `start` now. What it didn't meet again is mended and returned, unless it was
    /// given up with the beginning of the log: that stays, and says so.
    pub(super) fn settle(&mut self, start: u64) -> Vec<DamageStatus> {
        let (mut kept, mut mended) = (Vec::new(), Vec::new());
        for mut known in self.known.drain(..) {
            known.damage.pruned |= known.damage.from < start;
            match known.seen || known.damage.pruned {
                true => kept.push(known),
                false => mended.push(known.damage),
            }
        }
        self.known = kept;
        mended
    }

    /// Everything was looked at.
    pub(super) fn looked_at_everything(&mut self, now: Time) {
        self.last_full = Some(now);
    }
}

impl Noted {
    /// What outlives this process. What is pruned is told until the node is started again.
    pub(super) fn of(findings: &Findings) -> Noted {
        let damaged = findings.damaged().filter(|damage| !damage.pruned).cloned().collect();
        Noted { format: FORMAT, last_full: findings.last_full(), damaged }
    }
}

/// Reads the file; one that is not there, or of no use, is as if nothing had been looked at yet.
pub(super) fn read(path: &Path) -> Noted {
    read_note(path, |noted: &Noted| noted.format, FORMAT, "scrub anew").unwrap_or_default()
}

/// Writes the file, whole or not at all.
pub(super) fn write(path: &Path, noted: &Noted) -> Result<()> {
    write_note(path, noted)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn damage(from: u64) -> DamageStatus {
        DamageStatus { path: "0.seg".into(), from, to: from + 8, what: "rot".into(), pruned: false }
    }

    #[test]
    fn damage_is_told_once_and_stays_until_it_is_mended() {
        let mut findings = Findings::default();
        findings.begin();
        assert!(findings.found(damage(100)));
        assert!(findings.settle(0).is_empty());
        findings.begin();
        assert!(!findings.found(damage(100)), "known already");
        assert!(findings.found(damage(200)));
        assert!(findings.settle(0).is_empty());
        findings.begin();
        findings.found(damage(200));
        assert_eq!(findings.settle(0), [damage(100)]);
        assert_eq!(findings.damaged().count(), 1);
    }

    #[test]
    fn pruning_hides_no_damage() {
        let mut findings = Findings::default();
        findings.begin();
        findings.found(damage(100));
        findings.settle(0);
        findings.begin();
        assert!(findings.settle(4096).is_empty(), "it is not mended");
        assert!(findings.damaged().all(|damage| damage.pruned), "and said to be pruned");
        assert_eq!(findings.damaged().count(), 1);
    }

    #[test]
    fn a_restart_hides_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("scrub");
        assert_eq!(read(&path).last_full, None);
        let mut findings = Findings::default();
        findings.begin();
        findings.found(damage(100));
        let at = Time::from_nanos(1_764_344_460_000_000_000);
        findings.looked_at_everything(at);
        write(&path, &Noted::of(&findings)).expect("written");
        let again = Findings::of(read(&path));
        assert_eq!(again.damaged().cloned().collect::<Vec<_>>(), [damage(100)]);
        assert_eq!(again.last_full_time(), Some(at));
        // one that can't be read is no reason not to start
        fs::write(&path, "{").expect("spoils it");
        assert_eq!(read(&path).last_full, None);
    }
}
