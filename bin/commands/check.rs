//! What a look at data found: shared by `verify` and `depot verify`.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::exit::{DATA, DONE, Failure, Outcome};
use crate::out::Out;

/// Everything that was looked at, and everything that is wrong with it.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    good: bool,
    looked_at: Vec<Looked>,
    /// Worth knowing, and no damage.
    notes: Vec<Fault>,
    faults: Vec<Fault>,
}

#[derive(Debug, Serialize)]
struct Looked {
    path: PathBuf,
    what: String,
    entries: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Fault {
    path: PathBuf,
    what: String,
}

impl Report {
    /// Something was read whole.
    pub(super) fn looked_at(&mut self, path: &Path, what: impl Into<String>, entries: u64, bytes: u64) {
        self.looked_at.push(Looked { path: path.to_owned(), what: what.into(), entries, bytes });
    }

    /// Something is wrong.
    pub(super) fn fault(&mut self, path: &Path, what: fmt::Arguments<'_>) {
        self.faults.push(Fault { path: path.to_owned(), what: what.to_string() });
    }

    /// Something is worth knowing, and no damage.
    pub(super) fn note(&mut self, path: &Path, what: &str) {
        self.notes.push(Fault { path: path.to_owned(), what: what.to_owned() });
    }

    /// Takes damage as a finding; any other error ends the look.
    pub(super) fn damage<E: Into<Failure>>(&mut self, path: &Path, error: E) -> Result<(), Failure> {
        let failure = error.into();
        match failure.code() {
            DATA => {
                self.fault(path, format_args!("{}", failure.text()));
                Ok(())
            }
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
            Err(error) => self.damage(path, error).map(|()| None),
        }
    }

    /// Prints it; 4 when something is wrong.
    pub(super) fn conclude(mut self, out: &mut Out) -> Outcome {
        self.good = self.faults.is_empty();
        if out.json {
            out.json(&self)?;
        } else {
            for Looked { path, what, entries, bytes } in &self.looked_at {
                out.line(format_args!("{}: {what}, {entries} entries, {bytes} bytes", path.display()))?;
            }
            for Fault { path, what } in &self.notes {
                out.line(format_args!("note: {}: {what}", path.display()))?;
            }
            for Fault { path, what } in &self.faults {
                let prefix = path.display().to_string();
                match what.starts_with(&prefix) {
                    true => out.line(format_args!("FAULT {what}"))?,
                    false => out.line(format_args!("FAULT {prefix}: {what}"))?,
                }
            }
            match self.faults.len() {
                0 if self.looked_at.is_empty() => out.line(format_args!("there is nothing to look at"))?,
                0 => out.line(format_args!("all good"))?,
                1 => out.line(format_args!("1 place is damaged"))?,
                count => out.line(format_args!("{count} places are damaged"))?,
            }
        }
        Ok(if self.good { DONE } else { DATA })
    }
}
