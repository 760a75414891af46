//! `restore`: a plan, then the one replay loop into a file that appears whole or not at all.

use std::path::{Path, PathBuf};

use archive::{Catalogue, Coverage, Depot, EntryAt, Neighbours, Plan, Point, Source, Wanted, plan};
use jiff::Zoned;
use jiff::tz::TimeZone;
use journal::{Class, Epoch, Lsn, Replay, ReplayError, Term, Until};
use node::control::{Client, Held};
use serde::Serialize;
use volume::Output;
use volume::frames::Frames;

use super::RECORDS_VOLUME;
use crate::exit::{DONE, Failure, IN_PART, Outcome, eprint};
use crate::offline::Offline;
use crate::out::Out;
use crate::place::{Place, stream_in};
use crate::point::{both, utc};

/// Give back the records of a stream, as of any point.
///
/// Reads a node's data folder, a journal, a depot, or a depot and a journal together; nothing of them is changed, and no
/// node needs to run. The output is written beside its target, synced, and moved there when it is complete.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The stream
    stream: String,
    /// Where from: a node's data folder, a journal or a depot; twice for a depot and a journal behind it
    #[arg(long, value_name = "PATH", required = true)]
    from: Vec<PathBuf>,
    /// The file to write; `-` is standard output
    #[arg(long, value_name = "OUT", required_unless_present = "dry_run")]
    to: Option<PathBuf>,
    /// latest, an LSN (lsn:123 or 123), a time (2026-11-17T09:41:59Z, "2026-11-17 09:41" in local time, -15m), or
    /// mark:NAME
    #[arg(long, default_value = "latest", value_name = "POINT", allow_hyphen_values = true, value_parser = point)]
    at: Point,
    /// Along the line of this term and run instead of the newest one
    #[arg(long, value_name = "TERM.RUN", value_parser = epoch)]
    epoch: Option<Epoch>,
    /// How records are told apart: lines, len32 (u32 little endian before each) or raw
    #[arg(long, default_value_t, value_name = "lines|len32|raw")]
    frames: Frames,
    /// Only say what would be read, what it would reach, and the entries before and behind
    #[arg(long)]
    dry_run: bool,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

/// Reads a point; the current time and zone give relative and local times their meaning.
fn point(text: &str) -> Result<Point, String> {
    Point::parse(text, &Zoned::now()).map_err(|fault| fault.to_string())
}

fn epoch(text: &str) -> Result<Epoch, String> {
    let (term, run) = text.split_once('.').ok_or("write TERM.RUN, for example 2.1")?;
    match (term.parse(), run.parse()) {
        (Ok(term), Ok(run)) => Ok(Epoch { term: Term(term), run }),
        _ => Err("write TERM.RUN, for example 2.1".to_owned()),
    }
}

pub(crate) fn execute(args: Args, out: &mut Out) -> Outcome {
    if let Point::Time(time) = args.at
        && time > journal::Time::now()
    {
        let text = format_args!("{} lies in the future: nothing has reached it yet", utc(time));
        return Err(Failure::new(Class::NotReached, text));
    }
    let sources = Sources::open(&args.from, &args.stream)?;
    let wanted = Wanted { point: args.at.clone(), epoch: args.epoch };
    let plan = plan(sources.catalogue.as_ref(), sources.coverage(&args.at)?.as_ref(), &wanted)?;
    if args.dry_run {
        return show(&plan, &sources, &args, out);
    }
    let target = args.to.as_deref().unwrap_or(Path::new("-"));
    let done = write(&plan, &sources, target, &args)?;
    if let Some(short) = plan.short {
        eprint(&format!("towline: {short}\n"));
    }
    match target == Path::new("-") {
        true => {}
        false => {
            let text =
                format_args!("restored {} records, {} bytes, up to LSN {}", done.records, done.bytes, done.reached);
            out.show(&done, text)?;
        }
    }
    Ok(if plan.short.is_some() { IN_PART } else { DONE })
}

/// Everything that was named with `--from`.
struct Sources {
    catalogue: Option<Catalogue>,
    journal: Option<Offline>,
    /// A running node keeps its journal for this process, as long as it has room.
    _held: Option<Held>,
}

impl Sources {
    fn open(paths: &[PathBuf], stream: &str) -> Result<Sources, Failure> {
        let mut sources = Sources { catalogue: None, journal: None, _held: None };
        for path in paths {
            let place = match Place::find(path)? {
                Place::Node(data) => stream_in(&data, stream)?,
                place => place,
            };
            let (depot, journal) = match place {
                Place::Journal(journal) => (None, Some(journal)),
                Place::Depot(depot) => (Some(depot), None),
                Place::Node(other) | Place::Batch(other) => {
                    let text = format_args!("{} is one batch; name the depot that it lies in", other.display());
                    return Err(Failure::usage(text));
                }
            };
            if (depot.is_some() && sources.catalogue.is_some()) || (journal.is_some() && sources.journal.is_some()) {
                return Err(Failure::usage("a restore reads at most one depot and one journal: name each once"));
            }
            if let Some(depot) = depot {
                sources.catalogue = Some(Depot::find(&depot, stream)?.catalogue()?);
            }
            if let Some(journal) = journal {
                // before the look at it
                sources._held = hold(&journal);
                sources.journal = Some(Offline::open(&journal)?);
            }
        }
        Ok(sources)
    }

    /// What the journal covers. A mark may be anywhere in it: for one all of it is read.
    fn coverage(&self, at: &Point) -> Result<Option<Coverage>, Failure> {
        let covers = self.journal.as_ref().map(|journal| match at {
            Point::Mark(_) => Coverage::scan(journal),
            Point::Latest | Point::Time(_) | Point::Lsn(_) => Coverage::ends(journal),
        });
        covers.transpose().map_err(unread)
    }

    fn tail(&self) -> Option<&dyn archive::Tail> {
        self.journal.as_ref().map(|journal| journal as _)
    }
}

/// What a restore gave.
#[derive(Serialize)]
struct Done {
    records: u64,
    bytes: u64,
    reached: u64,
    /// Why it ends before the point that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    short: Option<String>,
}

fn write(plan: &Plan, sources: &Sources, target: &Path, args: &Args) -> Result<Done, Failure> {
    let mut output = match target == Path::new("-") {
        // standard output is ours already; a second handle writes through the same descriptor
        true => Output::to_stream(Box::new(std::io::stdout()), args.frames, RECORDS_VOLUME, Lsn::ZERO),
        false => Output::to_file(target, args.force, args.frames, RECORDS_VOLUME, Lsn::ZERO)?,
    };
    let source = Source::new(plan, sources.tail());
    Replay::new(source, RECORDS_VOLUME).run(&mut output, Until::END).map_err(failure)?;
    let written = output.finish()?;
    Ok(Done {
        records: written.records,
        bytes: written.bytes,
        reached: written.reached.get(),
        short: plan.short.map(|short| short.to_string()),
    })
}

/// Has the node whose journal this is, if one runs, keep it for this process. Without it, or without its word, what is
/// pruned while it is read is noticed all the same.
fn hold(journal: &Path) -> Option<Held> {
    let stream = journal.parent()?;
    let streams = stream.parent().filter(|streams| streams.ends_with("streams"))?;
    let client = Client::connect(streams.parent()?).ok()?;
    client.hold(stream.file_name()?.to_str()?).ok()
}

/// What was to be read couldn't be.
fn unread(error: archive::Error) -> Failure {
    let pruned = matches!(error, archive::Error::Journal(journal::Error::Pruned { .. }));
    let failure = Failure::from(error);
    match pruned {
        true => failure.hint(
            "the node that writes this journal gave that part up while it was read: its budget is used up, or its disk is \
             full. Restore from a depot, or give the stream a larger budget and restore again",
        ),
        false => failure,
    }
}

fn failure(error: ReplayError<archive::Error, volume::Error>) -> Failure {
    match error {
        ReplayError::Source(error) => unread(error),
        ReplayError::Machine(error) => error.into(),
        error => Failure::new(Class::Corrupt, error),
    }
}

/// A plan for people and programs.
#[derive(Serialize)]
struct Shown {
    stream: String,
    point: String,
    steps: Vec<String>,
    reaches: u64,
    before: Option<ShownEntry>,
    after: Option<ShownEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    short: Option<String>,
}

#[derive(Serialize)]
struct ShownEntry {
    lsn: u64,
    end: u64,
    time: String,
    kind: String,
}

fn show(plan: &Plan, sources: &Sources, args: &Args, out: &mut Out) -> Outcome {
    let zone = TimeZone::system();
    let Neighbours { before, after } = Source::neighbours(plan, sources.tail()).map_err(unread)?;
    // an LSN or a time may fall between or into entries: what is reached is the end of the last whole one
    let reaches = before.map_or(0, |entry| entry.end.get());
    let code = if plan.short.is_some() { IN_PART } else { DONE };
    if out.json {
        out.json(&Shown {
            stream: plan.stream.to_string(),
            point: args.at.to_string(),
            steps: plan.steps.iter().map(ToString::to_string).collect(),
            reaches,
            before: before.map(shown),
            after: after.map(shown),
            short: plan.short.map(|short| short.to_string()),
        })?;
        return Ok(code);
    }
    let point = match &args.at {
        Point::Time(time) => both(*time, &zone),
        point => point.to_string(),
    };
    out.line(format_args!("restore {} ({}) to {point}", args.stream, plan.stream))?;
    for (number, step) in plan.steps.iter().enumerate() {
        out.line(format_args!("  {}. {step}", number + 1))?;
    }
    out.line(format_args!("reaches LSN {reaches}"))?;
    for (what, entry) in [("last entry inside ", before), ("first entry behind", after)] {
        match entry {
            Some(entry) => {
                let time = both(entry.time, &zone);
                out.line(format_args!("{what}  LSN {}..{}  {}  {time}", entry.lsn, entry.end, kind(&entry)))?;
            }
            None => out.line(format_args!("{what}  none"))?,
        }
    }
    if let Some(short) = plan.short {
        out.line(format_args!("stops short: {short}"))?;
    }
    Ok(code)
}

fn shown(entry: EntryAt) -> ShownEntry {
    ShownEntry { lsn: entry.lsn.get(), end: entry.end.get(), time: utc(entry.time), kind: kind(&entry) }
}

fn kind(entry: &EntryAt) -> String {
    super::kind_name(entry.kind).to_owned()
}
