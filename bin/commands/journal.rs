//! `journal`: an offline look at the entries themselves.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use jiff::Zoned;
use journal::offline::{self, Log, SegmentInfo};
use journal::{Class, Entry, EpochEntry, Flags, Kind, Lsn};
use serde::Serialize;

use super::check::{Report, damaged_range, show_damage};
use super::{kind_name, rebuild, verify};
use crate::exit::{DATA, DONE, Failure, Outcome, eprint};
use crate::out::Out;
use crate::place::{Place, stream_in, streams};
use crate::point::utc;

/// Look at a journal offline; no node needs to run, and nothing but `rebuild` changes anything.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the segment files
    Ls {
        /// A journal, or a node's data folder
        path: PathBuf,
    },
    /// Show what a journal says of itself: stream, role, terms, epochs, durable and committed positions
    Info {
        /// A journal, or a node's data folder
        path: PathBuf,
    },
    /// Print every entry, one a line; checks everything on the way. Damage is named, and passed over
    Dump {
        /// A journal, or a node's data folder
        path: PathBuf,
        /// The stream, where a node's data folder has several
        #[arg(long)]
        stream: Option<String>,
        /// Begin at this LSN or instant (as in `restore --at`)
        #[arg(long, value_name = "POINT", allow_hyphen_values = true, value_parser = from)]
        from: Option<From>,
        /// End behind so many entries
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
        /// Print the beginning of each payload too
        #[arg(long)]
        payload: bool,
    },
    /// Read every entry and say whether all is whole; `towline verify` does the same for everything, and repairs
    Verify {
        /// A journal, or a node's data folder
        path: PathBuf,
        /// The stream, where a node's data folder has several [default: all of them]
        #[arg(long)]
        stream: Option<String>,
    },
    /// Make the control file anew from the log, when it is lost
    Rebuild(rebuild::Args),
}

/// Where a dump begins.
#[derive(Clone, Copy, Debug)]
enum From {
    Lsn(Lsn),
    Time(journal::Time),
}

fn from(text: &str) -> Result<From, String> {
    match archive::Point::parse(text, &Zoned::now()).map_err(|fault| fault.to_string())? {
        archive::Point::Lsn(lsn) => Ok(From::Lsn(lsn)),
        archive::Point::Time(time) => Ok(From::Time(time)),
        _ => Err("a dump begins at an LSN or a time".to_owned()),
    }
}

pub(crate) fn execute(args: Args, out: &mut Out) -> Outcome {
    match args.what {
        What::Ls { path } => each(&journals(&path, None)?, |journal| list(journal, out)),
        What::Info { path } => each(&journals(&path, None)?, |journal| info(journal, out)),
        What::Dump { path, stream, from, limit, payload } => {
            let journals = journals(&path, stream.as_deref())?;
            let [journal] = &journals[..] else {
                let names = streams(&path)?.join(", ");
                return Err(Failure::usage(format_args!("which of them? Say --stream: {names}")));
            };
            dump(journal, from, limit.unwrap_or(u64::MAX), payload, out)
        }
        What::Verify { path, stream } => {
            let mut report = Report::new(out);
            for journal in journals(&path, stream.as_deref())? {
                verify::journal(&journal, &mut report)?;
            }
            report.conclude()
        }
        What::Rebuild(args) => rebuild::execute(args, out),
    }
}

/// Does it for each; 4 when one of them is damaged.
fn each(journals: &[PathBuf], mut look: impl FnMut(&Path) -> Outcome) -> Outcome {
    journals.iter().try_fold(DONE, |code, journal| Ok(code.max(look(journal)?)))
}

/// The journals below a path; of a node's data folder all of them, or the one of `stream`.
fn journals(path: &Path, stream: Option<&str>) -> Result<Vec<PathBuf>, Failure> {
    match (Place::find(path)?, stream) {
        (Place::Journal(journal), _) => Ok(vec![journal]),
        (Place::Node(data), Some(stream)) => match stream_in(&data, stream)? {
            Place::Journal(journal) => Ok(vec![journal]),
            _ => Err(Failure::new(Class::Absent, format_args!("{}: has only batches of {stream}", data.display()))),
        },
        (Place::Node(data), None) => {
            Ok(streams(&data)?.iter().map(|name| data.join("streams").join(name).join("journal")).collect())
        }
        (Place::Depot(_) | Place::Batch(_), _) => {
            let text = format_args!("{} holds batches, no journal", path.display());
            Err(Failure::new(Class::Absent, text)
                .hint("look at it with towline depot ls, or read it with towline verify"))
        }
    }
}

/// A segment file.
#[derive(Serialize)]
struct Segment {
    file: PathBuf,
    from: u64,
    to: u64,
    term: u32,
    run: u32,
    chain: String,
}

fn list(path: &Path, out: &mut Out) -> Outcome {
    let log = match Log::open(path) {
        Ok(log) => log,
        Err(error) if error.class() == Class::Corrupt => return list_without_control(path, error, out),
        Err(error) => return Err(error.into()),
    };
    log.segments().iter().try_for_each(|segment| list_segment(segment, out))?;
    unreadable(&log, out)
}

/// The control file is lost: what the segments say of themselves.
fn list_without_control(path: &Path, lost: journal::Error, out: &mut Out) -> Outcome {
    for segment in offline::segments(path)? {
        match segment {
            Ok(segment) => list_segment(&segment, out)?,
            Err(error) => show_damage(out, path, None, error)?,
        }
    }
    show_damage(out, path, None, lost)?;
    Ok(DATA)
}

/// Says which segments can't be read, and gives the exit code for it.
fn unreadable(log: &Log, out: &mut Out) -> Outcome {
    for unreadable in log.unreadable() {
        show_damage(out, log.dir(), Some(unreadable.range), unreadable.error())?;
    }
    Ok(if log.unreadable().is_empty() { DONE } else { DATA })
}

fn list_segment(segment: &SegmentInfo, out: &mut Out) -> Result<(), Failure> {
    let tip = &segment.tip;
    let row = Segment {
        file: segment.path.clone(),
        from: segment.range.from.get(),
        to: segment.range.to.get(),
        term: tip.epoch.term.0,
        run: tip.epoch.run,
        chain: tip.chain.to_string(),
    };
    let (file, chain) = (row.file.display(), &row.chain);
    out.show(&row, format_args!("{file}  LSN {}  behind epoch {}  chain in {chain}", segment.range, tip.epoch))
}

/// What a journal says of itself.
#[derive(Serialize)]
struct Info {
    path: PathBuf,
    stream: String,
    node: String,
    role: String,
    term: u32,
    segment_bytes: u64,
    start: u64,
    durable: u64,
    committed: u64,
    poisoned: bool,
    segments: usize,
    epochs: Vec<EpochRow>,
}

#[derive(Serialize)]
struct EpochRow {
    term: u32,
    run: u32,
    node: String,
    first: u64,
}

fn info(path: &Path, out: &mut Out) -> Outcome {
    let log = Log::open(path)?;
    let epochs = log.history().openings().iter().map(|opening| EpochRow {
        term: opening.epoch.term.0,
        run: opening.epoch.run,
        node: opening.node.to_string(),
        first: opening.first.get(),
    });
    let info = Info {
        path: path.to_owned(),
        stream: log.stream().to_string(),
        node: log.node().to_string(),
        role: format!("{:?}", log.role()).to_lowercase(),
        term: log.term_seen().term.0,
        segment_bytes: log.geometry().body_bytes(),
        start: log.start().get(),
        durable: log.evidence().get(),
        committed: log.committed().get(),
        poisoned: log.was_poisoned(),
        segments: log.segments().len(),
        epochs: epochs.collect(),
    };
    if out.json {
        out.json(&info)?;
        return unreadable(&log, out);
    }
    out.line(format_args!("{}: {} of stream {}", info.path.display(), info.role, info.stream))?;
    out.line(format_args!(
        "  node {}, term {}, {} segments of {} bytes",
        info.node, info.term, info.segments, info.segment_bytes
    ))?;
    out.line(format_args!(
        "  begins at LSN {}, known durable up to {}, committed up to {}",
        info.start, info.durable, info.committed
    ))?;
    for epoch in &info.epochs {
        out.line(format_args!("  epoch {}.{} from LSN {} by node {}", epoch.term, epoch.run, epoch.first, epoch.node))?;
    }
    if info.poisoned {
        out.line(format_args!("  a sync failed here, and the journal was not opened since"))?;
    }
    unreadable(&log, out)
}

/// An entry.
#[derive(Serialize)]
struct Row {
    lsn: u64,
    end: u64,
    term: u32,
    run: u32,
    time: String,
    kind: &'static str,
    bytes: usize,
    flags: Vec<&'static str>,
    chain: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// Bytes of a payload that `--payload` shows.
const PAYLOAD_SHOWN_BYTES: usize = 64;

fn dump(path: &Path, from: Option<From>, limit: u64, payload: bool, out: &mut Out) -> Outcome {
    let log = Log::open(path)?;
    let mut entries = match from {
        None => log.entries(None)?,
        Some(From::Lsn(lsn)) => log.entries(Some(lsn))?,
        Some(From::Time(time)) => log.entries_near(time)?,
    };
    let (mut printed, mut code) = (0, DONE);
    while printed < limit {
        match entries.next_entry() {
            Ok(None) => break,
            Ok(Some(entry)) if matches!(from, Some(From::Time(time)) if entry.header.time < time) => {}
            Ok(Some(entry)) => {
                printed += 1;
                print(&row(&entry, payload), out)?;
            }
            Err(error) => {
                let range = damaged_range(&log, entries.tip().lsn, &error);
                show_damage(out, path, range, error)?;
                code = DATA;
                if !entries.step_over() {
                    break;
                }
            }
        }
    }
    if let Some(torn) = entries.torn() {
        eprint(&format!("towline: behind LSN {} a write was not finished ({torn})\n", torn.at));
    }
    Ok(code)
}

fn print(row: &Row, out: &mut Out) -> Result<(), Failure> {
    let Row { lsn, end, term, run, time, kind, bytes, chain, .. } = row;
    let flags = row.flags.join(",");
    let shown = row.text.as_deref().unwrap_or_default();
    let text = format_args!("{lsn}..{end}  {term}.{run}  {time}  {kind:<5} {bytes:>7}  {chain}  {flags}{shown}");
    out.show(row, text)
}

fn row(entry: &Entry<'_>, payload: bool) -> Row {
    let header = &entry.header;
    let flags = [
        (Flags::FIRST, "first"),
        (Flags::LAST, "last"),
        (Flags::PRODUCER, "producer"),
        (Flags::UNTERMINATED, "unterminated"),
    ];
    let text = match header.kind {
        Some(Kind::Mark | Kind::Alone | Kind::Detached) => Some(String::from_utf8_lossy(entry.payload).into_owned()),
        Some(Kind::Epoch) => EpochEntry::decode(entry.payload)
            .map(|epoch| format!("{:?} by {}, {}", epoch.reason, epoch.node, String::from_utf8_lossy(&epoch.policy))),
        Some(Kind::Data) if payload => {
            let shown = &entry.payload[..entry.payload.len().min(PAYLOAD_SHOWN_BYTES)];
            Some(String::from_utf8_lossy(shown).escape_debug().to_string())
        }
        _ => None,
    };
    Row {
        lsn: header.lsn.get(),
        end: header.range().to.get(),
        term: header.epoch.term.0,
        run: header.epoch.run,
        time: utc(header.time),
        kind: kind_name(header.kind),
        bytes: header.payload_bytes(),
        flags: flags.iter().filter(|(flag, _)| header.flags.has(*flag)).map(|(_, name)| *name).collect(),
        chain: header.chain.to_string(),
        text: text.map(|text| format!("  {text}")),
    }
}
