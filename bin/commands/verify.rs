//! `verify`: every checksum, every link of the chain, offline.

use std::path::{Path, PathBuf};

use archive::verify_file;
use journal::offline::Log;
use volume::records::{INDEX_FILE, RecordFile};

use super::check::{Report, damaged_range};
use super::{depot, repair};
use crate::exit::{DONE, Failure, Outcome};
use crate::out::Out;
use crate::place::{Place, depots_in, streams};
use crate::whereabouts::Whereabouts;

/// Read everything in a node's data folder, a journal, a depot or a batch, and say whether it is whole.
///
/// Nothing is changed and no node needs to run. Damage is named with its file and exact range, and ends with exit code 4.
/// What a crash left unfinished behind the last durable entry is no damage.
///
/// With --repair-from, damaged journals are repaired first: what is put there is proven by what stands before and behind
/// it, the damaged file is kept, and everything is read again. 0: all is good now; 3: some is; 4: nothing could be repaired.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A node's data folder, a journal, a depot, one stream's folder in it, or a batch
    path: PathBuf,
    #[command(flatten)]
    repair: repair::Copies,
}

pub(crate) fn execute(args: Args, at: &Whereabouts, out: &mut Out) -> Outcome {
    let repair = args.repair.is_asked()?;
    let place = Place::find(&args.path)?;
    if !repair {
        return look(place, out);
    }
    let repaired = args.repair.execute(&place, at, out)?;
    let verified = if args.repair.dry_run { DONE } else { look(place, out)? };
    Ok(repaired.code(verified))
}

/// Reads everything.
fn look(place: Place, out: &mut Out) -> Outcome {
    let mut report = Report::new(out);
    match place {
        Place::Node(data) => node(&data, &mut report)?,
        Place::Journal(path) => journal(&path, &mut report)?,
        Place::Depot(path) => depot::verify(&path, &mut report)?,
        Place::Batch(path) => batch(&path, &mut report)?,
    }
    report.conclude()
}

fn node(data: &Path, report: &mut Report<'_>) -> Result<(), Failure> {
    for stream in streams(data)? {
        let folder = data.join("streams").join(stream);
        journal(&folder.join("journal"), report)?;
        let records = folder.join("records");
        if records.join(INDEX_FILE).exists() {
            record_file(&records, report)?;
        }
    }
    if let Some(depots) = depots_in(data) {
        depot::verify(&depots, report)?;
    }
    Ok(())
}

/// Every entry of a journal. Behind damage it goes on where the log proves itself again.
pub(super) fn journal(path: &Path, report: &mut Report<'_>) -> Result<(), Failure> {
    let Some(log) = report.unless_damaged(path, Log::open(path))? else { return Ok(()) };
    let mut walk = log.entries(None)?;
    let (mut entries, mut bytes) = (0, 0);
    loop {
        match walk.next_entry() {
            Ok(Some(entry)) => {
                entries += 1;
                bytes += entry.header.range().bytes();
            }
            Ok(None) => break,
            Err(error) => {
                let range = damaged_range(&log, walk.tip().lsn, &error);
                report.damage(path, range, error)?;
                if !walk.step_over() {
                    break;
                }
            }
        }
    }
    let end = walk.tip().lsn;
    for unreached in log.unreadable().iter().filter(|unreadable| unreadable.range.from > end) {
        report.damage(path, Some(unreached.range), unreached.error())?;
    }
    if let Some(torn) = walk.torn() {
        report.note(path, &format!("ends at LSN {}, behind which a write was not finished ({torn})", torn.at))?;
    }
    if log.was_poisoned() {
        report.note(path, "a sync failed here, and the journal was not opened since")?;
    }
    let what = format!("journal of stream {}, durable up to LSN {}", log.stream(), log.evidence());
    report.looked_at(path, &what, entries, bytes)
}

fn record_file(path: &Path, report: &mut Report<'_>) -> Result<(), Failure> {
    let checked = RecordFile::open(path).and_then(|file| file.verify());
    let Some(checked) = report.unless_damaged(path, checked)? else { return Ok(()) };
    if let Some(torn) = &checked.torn {
        report.note(path, &format!("ends in what a crash left ({torn}); the journal delivers it again"))?;
    }
    let what = format!("record file up to LSN {}, synced up to LSN {}", checked.end, checked.checkpoint);
    report.looked_at(path, &what, checked.records, checked.bytes)
}

fn batch(path: &Path, report: &mut Report<'_>) -> Result<(), Failure> {
    let verdict = verify_file(path)?;
    for bad in &verdict.bad {
        report.fault(path, format_args!("{} damaged: {}", bad.place, bad.what))?;
    }
    let (what, bytes) = match &verdict.info {
        Some(info) => (format!("batch of stream {}, LSN {}", info.stream, info.range()), info.file_bytes),
        None => ("batch".to_owned(), 0),
    };
    report.looked_at(path, &what, verdict.entries, bytes)
}
