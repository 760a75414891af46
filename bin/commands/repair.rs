//! `verify --repair-from`: damaged entries of a journal are taken from other copies of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use journal::Disk;
use journal::repair::{Damage, Plan, Repair, Replaced};
use serde::Serialize;

use crate::copies::{Copy, sources};
use crate::exit::{DATA, DONE, Failure, IN_PART, eprint};
use crate::links::Links;
use crate::out::Out;
use crate::place::{Place, streams};
use crate::whereabouts::Whereabouts;

/// What of `verify` repairs.
#[derive(clap::Args, Debug)]
pub(super) struct Copies {
    /// Repair damaged journals from this copy: a node that runs, towline://HOST:PORT[,name=NAME] with the name that its
    /// certificate is issued for, or towline://NAME for one of the configuration; the data folder of another node
    /// (running or not), a journal or a depot. Several are asked in order. The node of PATH must be stopped
    #[arg(long = "repair-from", value_name = "COPY")]
    from: Vec<Copy>,
    #[command(flatten)]
    links: Links,
    /// Only say what would be repaired, from where
    #[arg(long, requires = "from")]
    pub(super) dry_run: bool,
}

/// What came of a repair.
#[derive(Debug, Default)]
pub(super) struct Repaired {
    done: usize,
    left: usize,
}

impl Repaired {
    /// The exit code, where a look at everything afterwards ended with `verified`.
    pub(super) fn code(&self, verified: u8) -> u8 {
        match (self.left, verified) {
            (0, DONE) => DONE,
            (_, DONE | DATA) if self.done > 0 => IN_PART,
            (_, DONE) => DATA,
            (_, other) => other,
        }
    }
}

/// One damaged place.
#[derive(Serialize)]
struct Row {
    path: PathBuf,
    place: String,
    from: u64,
    to: u64,
    harm: String,
    /// `repaired`, `would be repaired` or `not repaired`.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    /// Why it didn't come from elsewhere.
    tried: Vec<String>,
}

/// The file that a repaired one took the place of.
#[derive(Serialize)]
struct Kept {
    path: PathBuf,
    kept: PathBuf,
}

impl Copies {
    /// True when something is to be repaired. Errors: words about links, and nobody is to be linked with.
    pub(super) fn is_asked(&self) -> Result<bool, Failure> {
        if self.links.said().is_some() && !self.from.iter().any(|copy| matches!(copy, Copy::Node(_))) {
            let failure = Failure::usage("--tls and --plaintext are for a copy on another node");
            return Err(failure.hint("name it with --repair-from towline://HOST:PORT"));
        }
        Ok(!self.from.is_empty())
    }

    /// Repairs every journal in `place`, and says what it did.
    pub(super) fn execute(&self, place: &Place, at: &Whereabouts, out: &mut Out) -> Result<Repaired, Failure> {
        let journals = match place {
            Place::Journal(journal) => vec![journal.clone()],
            Place::Node(data) => {
                streams(data)?.iter().map(|name| data.join("streams").join(name).join("journal")).collect()
            }
            Place::Depot(path) | Place::Batch(path) => {
                let text = format_args!("{} holds batches: only journals are repaired", path.display());
                return Err(Failure::usage(text).hint("a damaged batch is shipped again once it is moved away"));
            }
        };
        let mut repaired = Repaired::default();
        for journal in &journals {
            self.journal(journal, at, &mut repaired, out)?;
        }
        if repaired.left > 0 {
            eprint(
                "hint: name another copy with --repair-from. Without one, move this data aside and start this node as a \
                 receiver in an empty folder: its primary fills it\n",
            );
        }
        Ok(repaired)
    }

    fn journal(&self, path: &Path, at: &Whereabouts, repaired: &mut Repaired, out: &mut Out) -> Result<(), Failure> {
        let repair = Repair::open(path, Arc::new(Disk))?;
        let mut sources = sources(&self.from, &self.links, at, repair.stream())?;
        let plan = repair.plan(&mut sources)?;
        let left = plan.damages().len() - plan.curable();
        for damage in plan.damages().iter().filter(|damage| damage.cure.is_none()) {
            show(damage, "not repaired", out)?;
        }
        repaired.left += left;
        if self.dry_run {
            for damage in plan.damages().iter().filter(|damage| damage.cure.is_some()) {
                show(damage, "would be repaired", out)?;
            }
            repaired.done += plan.curable();
            return Ok(());
        }
        let mut replaced = Vec::new();
        let applied = repair.apply(&plan, &mut sources, |one| replaced.push(one.clone()));
        for one in &replaced {
            repaired.done += show_replaced(&plan, one, out)?;
        }
        Ok(applied?)
    }
}

fn show_replaced(plan: &Plan, replaced: &Replaced, out: &mut Out) -> Result<usize, Failure> {
    let damages: Vec<&Damage> = plan.damages().iter().filter(|damage| damage.path == replaced.path).collect();
    for damage in &damages {
        show(damage, "repaired", out)?;
    }
    if let Some(kept) = replaced.kept.clone() {
        let row = Kept { path: replaced.path.clone(), kept };
        let text = format_args!("kept the damaged file: {}", row.kept.display());
        out.show(&row, text)?;
    }
    Ok(damages.len())
}

fn show(damage: &Damage, outcome: &'static str, out: &mut Out) -> Result<(), Failure> {
    let row = Row {
        path: damage.path.clone(),
        place: damage.place(),
        from: damage.range.from.get(),
        to: damage.range.to.get(),
        harm: damage.harm.to_string(),
        outcome,
        by: damage.cure.as_ref().map(ToString::to_string),
        tried: damage.tried.clone(),
    };
    if out.json {
        return out.json(&row);
    }
    let Row { path, place, harm, .. } = &row;
    match &row.by {
        Some(by) => {
            let bytes = damage.range.bytes();
            out.line(format_args!("{outcome}: {place} in {} ({harm}): {bytes} bytes from {by}", path.display()))?;
        }
        None => out.line(format_args!("{outcome}: {place} in {} ({harm})", path.display()))?,
    }
    for line in &row.tried {
        out.line(format_args!("  {line}"))?;
    }
    Ok(())
}
