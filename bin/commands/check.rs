//! What a look at data finds, said as it is found: shared by `verify`, `journal verify` and `depot verify`.

use std::fmt;
use std::path::Path;

use journal::offline::Log;
use journal::{Lsn, LsnRange};
use serde::Serialize;

use crate::exit::{DATA, DONE, Failure, Outcome, eprint};
use crate::out::Out;

/// Says what was looked at, and what is wrong with it. Keeps nothing but counts, however much there is.
#[derive(Debug)]
pub(super) struct Report<'a> {
    out: &'a mut Out,
    looked_at: u64,
    faults: u64,
}

/// A line of JSON.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    /// Something was read whole.
    LookedAt(Looked<'a>),
    /// Worth knowing, and no damage.
    Note(Finding<'a>),
    /// Something is wrong.
    Fault(Finding<'a>),
}

#[derive(Serialize)]
struct Looked<'a> {
    path: &'a Path,
    what: &'a str,
    entries: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Finding<'a> {
    path: &'a Path,
    what: &'a str,
    /// Where in the log, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<u64>,
}

/// The last line.
#[derive(Serialize)]
struct Verdict {
    good: bool,
    places: u64,
    faults: u64,
}

impl<'a> Report<'a> {
    /// A report that says nothing yet.
    pub(super) fn new(out: &'a mut Out) -> Report<'a> {
        Report { out, looked_at: 0, faults: 0 }
    }

    /// Something was read whole.
    pub(super) fn looked_at(&mut self, path: &Path, what: &str, entries: u64, bytes: u64) -> Result<(), Failure> {
        self.looked_at += 1;
        let text = format_args!("{}: {what}, {entries} entries, {bytes} bytes", path.display());
        self.out.show(&Line::LookedAt(Looked { path, what, entries, bytes }), text)
    }

    /// Something is wrong.
    pub(super) fn fault(&mut self, path: &Path, what: impl fmt::Display) -> Result<(), Failure> {
        self.fault_at(path, None, what)
    }

    /// Something is wrong in this part of a log.
    pub(super) fn fault_at(
        &mut self,
        path: &Path,
        range: Option<LsnRange>,
        what: impl fmt::Display,
    ) -> Result<(), Failure> {
        self.faults += 1;
        let what = what.to_string();
        let (from, to) = (range.map(|range| range.from.get()), range.map(|range| range.to.get()));
        let prefix = path.display().to_string();
        let place = if what.starts_with(&prefix) { String::new() } else { format!("{prefix}: ") };
        self.out.show(&Line::Fault(Finding { path, what: &what, from, to }), format_args!("FAULT {place}{what}"))
    }

    /// Something is worth knowing, and no damage.
    pub(super) fn note(&mut self, path: &Path, what: &str) -> Result<(), Failure> {
        let text = format_args!("note: {}: {what}", path.display());
        self.out.show(&Line::Note(Finding { path, what, from: None, to: None }), text)
    }

    /// Takes damage as a finding; any other error ends the look.
    pub(super) fn damage<E: Into<Failure>>(
        &mut self,
        path: &Path,
        range: Option<LsnRange>,
        error: E,
    ) -> Result<(), Failure> {
        let failure = error.into();
        match failure.code() {
            DATA => self.fault_at(path, range, failure.text()),
            _ => Err(failure),
        }
    }

    /// The value; `None` when damage was found instead of it.
    pub(super) fn unless_damaged<T, E: Into<Failure>>(
        &mut self,
        path: &Path,
        result: Result<T, E>,
    ) -> Result<Option<T>, Failure> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) => self.damage(path, None, error).map(|()| None),
        }
    }

    /// The last word; 4 when something is wrong.
    pub(super) fn conclude(self) -> Outcome {
        let Report { out, looked_at, faults } = self;
        let text = match faults {
            0 if looked_at == 0 => "there is nothing to look at".to_owned(),
            0 => "all good".to_owned(),
            1 => "1 place is damaged".to_owned(),
            count => format!("{count} places are damaged"),
        };
        out.show(&Verdict { good: faults == 0, places: looked_at, faults }, text)?;
        Ok(if faults == 0 { DONE } else { DATA })
    }
}

/// Damage that a listing came upon, for a command that goes on behind it: on standard error, and among JSON lines too,
/// where else nothing would say what is missing between them.
pub(super) fn show_damage(
    out: &mut Out,
    path: &Path,
    range: Option<LsnRange>,
    error: journal::Error,
) -> Result<(), Failure> {
    let failure = Failure::from(error);
    if failure.code() != DATA {
        return Err(failure);
    }
    if out.json {
        let (from, to) = (range.map(|range| range.from.get()), range.map(|range| range.to.get()));
        out.json(&Line::Fault(Finding { path, what: failure.text(), from, to }))?;
    }
    out.flush()?;
    eprint(&format!("towline: {}\n", failure.text()));
    Ok(())
}

/// The part of a log that an error speaks of.
pub(super) fn damaged_range(log: &Log, at: Lsn, error: &journal::Error) -> Option<LsnRange> {
    match error {
        journal::Error::Rot { range, .. } => Some(*range),
        _ => {
            let holds = |range: &LsnRange| range.from <= at && at < range.to;
            log.unreadable().iter().map(|unreadable| unreadable.range).find(holds)
        }
    }
}
