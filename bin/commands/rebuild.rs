//! `journal rebuild`: a new control file for a log that lost its own.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use journal::{Class, Host, NodeId, Rebuild, Role};
use serde::Serialize;

use crate::exit::{DATA, DONE, Failure, Outcome};
use crate::out::Out;
use crate::place::{Place, stream_in, streams};

/// Make the control file of a journal anew from its log, when it is lost.
///
/// Reads and verifies everything, writes it again, and syncs it. The node comes back as a receiver that is in doubt, or
/// fenced if it wrote the newest run: the log doesn't say whether another node was promoted. Entries that can't be
/// verified are never cut silently: see --accept-loss.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A journal, or a node's data folder
    path: PathBuf,
    /// The stream, where a node's data folder has several
    #[arg(long)]
    stream: Option<String>,
    /// Read and report; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Give up what can't be verified and may have been durable; it is kept as a branch
    #[arg(long)]
    accept_loss: bool,
}

/// What was found, and what was done.
#[derive(Serialize)]
struct Report {
    path: PathBuf,
    written: bool,
    stream: String,
    node: String,
    role: String,
    term: u32,
    start: u64,
    end: u64,
    epochs: usize,
    kept_facts: bool,
    kept_evidence: bool,
    cut: Option<u64>,
    loss: Option<Loss>,
    next: String,
}

#[derive(Serialize)]
struct Loss {
    damaged_from: u64,
    damaged_to: u64,
    given_up_from: u64,
    given_up_to: u64,
    accepted: bool,
    why: String,
}

pub(crate) fn execute(args: Args, out: &mut Out) -> Outcome {
    let found = find(&args)?;
    let rebuild = Rebuild::plan(&found.journal, found.node, Host::default())?;
    let mut report = report(&args, &found, &rebuild);
    let refused = report.loss.is_some() && !args.accept_loss;
    if !args.dry_run {
        rebuild.write(args.accept_loss)?;
        report.written = true;
    }
    out.show(&report, text(&report))?;
    Ok(if refused { DATA } else { DONE })
}

/// A journal, and the node that it belongs to.
struct Found {
    journal: PathBuf,
    node: Option<NodeId>,
    /// The node's data folder and the stream's name.
    at: Option<(PathBuf, String)>,
}

fn find(args: &Args) -> Result<Found, Failure> {
    let journal = match Place::find(&args.path)? {
        Place::Journal(journal) => journal,
        Place::Node(data) => {
            let stream = match (&args.stream, &streams(&data)?[..]) {
                (Some(stream), _) => stream.clone(),
                (None, [only]) => only.clone(),
                (None, names) => {
                    let names = names.join(", ");
                    return Err(Failure::usage(format_args!("which of them? Say --stream: {names}")));
                }
            };
            match stream_in(&data, &stream)? {
                Place::Journal(journal) => journal,
                _ => {
                    let text = format_args!("{}: has only batches of {stream}", data.display());
                    return Err(Failure::new(Class::Absent, text));
                }
            }
        }
        Place::Depot(_) | Place::Batch(_) => {
            let text = format_args!("{} holds batches, no journal", args.path.display());
            return Err(Failure::new(Class::Absent, text));
        }
    };
    let Some((data, stream)) = home(&journal) else { return Ok(Found { journal, node: None, at: None }) };
    let node = node::Data::identity(&data)?;
    Ok(Found { journal, node: Some(node), at: Some((data, stream)) })
}

/// The node's data folder around `DATA/streams/NAME/journal`, and the name.
fn home(journal: &Path) -> Option<(PathBuf, String)> {
    let journal = std::path::absolute(journal).ok()?;
    let folder = journal.parent()?;
    let streams = folder.parent().filter(|streams| streams.ends_with("streams"))?;
    Some((streams.parent()?.to_owned(), folder.file_name()?.to_str()?.to_owned()))
}

fn report(args: &Args, found: &Found, rebuild: &Rebuild) -> Report {
    let loss = rebuild.loss().map(|loss| Loss {
        damaged_from: loss.damaged.from.get(),
        damaged_to: loss.damaged.to.get(),
        given_up_from: loss.given_up.from.get(),
        given_up_to: loss.given_up.to.get(),
        accepted: args.accept_loss,
        why: format!("{}: {}", loss.path.display(), loss.why),
    });
    Report {
        path: found.journal.clone(),
        written: false,
        stream: rebuild.stream().to_string(),
        node: rebuild.node().to_string(),
        role: rebuild.role().to_string(),
        term: rebuild.term().0,
        start: rebuild.range().from.get(),
        end: rebuild.range().to.get(),
        epochs: rebuild.history().openings().len(),
        kept_facts: rebuild.kept().facts,
        kept_evidence: rebuild.kept().evidence,
        cut: rebuild.cut().map(journal::Lsn::get),
        loss,
        next: next(found, rebuild.role()),
    }
}

/// What the operator does then.
fn next(found: &Found, role: Role) -> String {
    let Some((data, stream)) = &found.at else {
        return "open it with the program that it belongs to; it may write again once it says so: Journal::set_role"
            .into();
    };
    let promote = format!("towline promote {stream} --accept-loss --data {}", data.display());
    match role {
        Role::Primary => "start this node".into(),
        Role::Fenced => format!("start this node; if no other node was promoted: {promote}"),
        Role::Receiver => format!(
            "start this node: it follows its primary, in doubt until it has caught up; if the primary is lost for good: \
             {promote}"
        ),
    }
}

fn text(report: &Report) -> String {
    let Report { path, stream, node, role, term, start, end, epochs, .. } = report;
    let done = if report.written { "made anew from its log" } else { "nothing was changed" };
    let mut text = format!("{}: {done}\n", path.join("control").display());
    let kept = match (report.kept_facts, report.kept_evidence) {
        (true, _) => "role and terms",
        (_, true) => "the durable point and what peers acknowledged",
        _ => "nothing",
    };
    // writing to a string can't fail
    let _ = writeln!(text, "  stream {stream}, node {node}, {role} in term {term}");
    let _ = writeln!(text, "  LSN {start}..{end} is whole; epochs: {epochs}");
    let _ = writeln!(text, "  kept of the old file: {kept}");
    if let Some(cut) = report.cut {
        let _ = writeln!(text, "  a cut at LSN {cut} had been begun: the next start finishes it");
    }
    if let Some(loss) = &report.loss {
        let (what, hint) = match loss.accepted {
            true => ("given up, and kept as a branch", ""),
            false => ("can't be verified and may have been durable", "; --accept-loss gives it up"),
        };
        let Loss { given_up_from, given_up_to, why, .. } = loss;
        let _ = writeln!(text, "  LSN {given_up_from}..{given_up_to} {what}: {why}{hint}");
    }
    let _ = write!(text, "next: {}", report.next);
    text
}
