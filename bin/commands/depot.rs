//! `depot`: what lies in a depot, and whether it is whole.

use std::path::{Path, PathBuf};

use archive::{BatchInfo, Depot, Listed};
use clap::Subcommand;
use journal::Class;
use serde::Serialize;

use super::check::Report;
use crate::exit::{DONE, Failure, Outcome};
use crate::out::Out;
use crate::place::depots_in;
use crate::point::utc;

/// Look at a depot.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the streams of a depot, and their batches
    Ls {
        /// The depot, the data folder of a node that keeps one, or one stream's folder
        path: PathBuf,
    },
    /// Read everything: each batch with its blake3, every entry, and how the batches link
    Verify {
        /// The depot, the data folder of a node that keeps one, or one stream's folder
        path: PathBuf,
    },
}

/// A stream in a depot.
#[derive(Serialize)]
struct StreamRow {
    name: String,
    id: String,
    folder: PathBuf,
    batches: Vec<BatchRow>,
    /// Files that can't be used, with the reason.
    bad: Vec<String>,
}

#[derive(Serialize)]
struct BatchRow {
    file: PathBuf,
    from: u64,
    to: u64,
    term: u32,
    run: u32,
    first_time: String,
    last_time: String,
    entries: u64,
    bytes: u64,
    marks: Vec<String>,
}

pub(crate) fn execute(args: Args, out: &mut Out) -> Outcome {
    match args.what {
        What::Ls { path } => {
            for listed in found(&path)? {
                list(listed, out)?;
            }
            Ok(DONE)
        }
        What::Verify { path } => {
            let mut report = Report::new(out);
            found(&path)?;
            verify(&path, &mut report)?;
            report.conclude()
        }
    }
}

/// The streams below a path that somebody named: none at all is no depot, or one whose disk is missing.
fn found(path: &Path) -> Result<Vec<Listed>, Failure> {
    let streams = streams(path)?;
    if streams.is_empty() {
        let text = format_args!("{}: no stream has batches here", path.display());
        return Err(Failure::new(Class::Absent, text)
            .hint("is its disk mounted? A primary makes its folder in a depot when it ships for the first time"));
    }
    Ok(streams)
}

/// The streams of a depot, of a node that keeps batches for others, or the one whose folder this is.
fn streams(path: &Path) -> Result<Vec<Listed>, archive::Error> {
    if let Some(depots) = depots_in(path) {
        return Depot::list(&depots);
    }
    match Depot::open(path) {
        Ok(depot) => {
            let folder = std::path::absolute(depot.folder()).unwrap_or_else(|_| depot.folder().to_owned());
            let full = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let (name, id) = full.rsplit_once('-').unwrap_or((&full, ""));
            Ok(vec![Listed { name: name.to_owned(), id: id.to_owned(), folder }])
        }
        Err(_) if !path.is_dir() => {
            let what = if path.exists() { "this is a file, no depot" } else { "there is no such folder" };
            Err(archive::Error::Absent { path: path.to_owned(), what: what.into() })
        }
        Err(_) => Depot::list(path),
    }
}

/// Reads everything in a depot.
pub(super) fn verify(path: &Path, report: &mut Report<'_>) -> Result<(), Failure> {
    for listed in streams(path)? {
        let verdict = Depot::open(&listed.folder)?.verify()?;
        let (mut entries, mut bytes) = (0, 0);
        for batch in &verdict.batches {
            entries += batch.entries;
            bytes += batch.info.as_ref().map_or(0, |info| info.file_bytes);
            for bad in &batch.bad {
                report.fault(&batch.path, format_args!("{} damaged: {}", bad.place, bad.what))?;
            }
        }
        for bad in &verdict.bad {
            report.fault(&listed.folder, bad)?;
        }
        for missing in &verdict.missing {
            report.fault(&listed.folder, format_args!("entries {missing} are in no batch, although later ones are"))?;
        }
        let what = format!("stream {}: {} batches", listed.name, verdict.batches.len());
        report.looked_at(&listed.folder, &what, entries, bytes)?;
    }
    Ok(())
}

fn list(listed: Listed, out: &mut Out) -> Result<(), Failure> {
    let catalogue = Depot::open(&listed.folder)?.catalogue()?;
    let row = StreamRow {
        name: listed.name,
        id: catalogue.stream().map_or(listed.id, |stream| stream.to_string()),
        folder: listed.folder,
        batches: catalogue.batches().iter().map(|(path, info)| batch_row(path, info)).collect(),
        bad: catalogue.bad().map(ToString::to_string).collect(),
    };
    if out.json {
        return out.json(&row);
    }
    let bytes: u64 = row.batches.iter().map(|batch| batch.bytes).sum();
    out.line(format_args!("stream {} ({}): {} batches, {bytes} bytes", row.name, row.id, row.batches.len()))?;
    for batch in &row.batches {
        let BatchRow { from, to, term, run, first_time, last_time, entries, bytes, .. } = batch;
        out.line(format_args!(
            "  LSN {from}..{to}  term {term}.{run}  {entries} entries  {bytes} bytes  {first_time} .. {last_time}"
        ))?;
        for mark in &batch.marks {
            out.line(format_args!("    mark {mark}"))?;
        }
    }
    for bad in &row.bad {
        out.line(format_args!("  not usable: {bad}"))?;
    }
    Ok(())
}

fn batch_row(path: &Path, info: &BatchInfo) -> BatchRow {
    BatchRow {
        file: path.to_owned(),
        from: info.first.lsn.get(),
        to: info.last.lsn.get(),
        term: info.epoch().term.0,
        run: info.epoch().run,
        first_time: utc(info.first_time),
        last_time: utc(info.last.time),
        entries: info.entries,
        bytes: info.file_bytes,
        marks: info.marks.iter().map(|mark| mark.name.clone()).collect(),
    }
}
