//! What lies in a folder: a node's data, one stream of it, a journal, a depot, or a batch.

use std::fs;
use std::path::{Path, PathBuf};

use archive::Depot;
use journal::Class;

use crate::exit::Failure;

/// Something of ours on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A node's data folder.
    Node(PathBuf),
    /// A journal.
    Journal(PathBuf),
    /// A depot, or one stream's folder in it.
    Depot(PathBuf),
    /// One batch.
    Batch(PathBuf),
}

impl Place {
    /// Finds out what `path` is. 10 when there is nothing, or nothing of ours.
    pub(crate) fn find(path: &Path) -> Result<Place, Failure> {
        let meta = fs::metadata(path).map_err(|cause| Failure::io(path.display(), cause))?;
        let own = || path.to_owned();
        if meta.is_file() {
            return match path.extension().is_some_and(|ext| ext == "batch") {
                true => Ok(Place::Batch(own())),
                false => Err(Failure::new(Class::Absent, format_args!("{}: {NOTHING}", path.display()))),
            };
        }
        if path.join("streams").is_dir() {
            return Ok(Place::Node(own()));
        }
        if path.join("journal").is_dir() {
            return Ok(Place::Journal(path.join("journal")));
        }
        if is_journal(path)? {
            return Ok(Place::Journal(own()));
        }
        if Depot::open(path).is_ok() || !Depot::list(path)?.is_empty() {
            return Ok(Place::Depot(own()));
        }
        Err(Failure::new(Class::Absent, format_args!("{}: {NOTHING}", path.display())))
    }
}

const NOTHING: &str = "this is no node's data folder, no journal, no depot and no batch";

/// A folder with a control file, or with segments that lost theirs.
fn is_journal(path: &Path) -> Result<bool, Failure> {
    let failed = |cause| Failure::io(format_args!("list {}", path.display()), cause);
    for entry in fs::read_dir(path).map_err(failed)? {
        let name = PathBuf::from(entry.map_err(failed)?.file_name());
        if name == Path::new("control") || name.extension().is_some_and(|ext| ext == "seg") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where a node's data folder has `stream`: its journal, or else a depot with its batches.
pub(crate) fn stream_in(data: &Path, stream: &str) -> Result<Place, Failure> {
    let mut names = streams(data)?;
    if names.iter().any(|name| name == stream) {
        return Ok(Place::Journal(data.join("streams").join(stream).join("journal")));
    }
    if let Some(depots) = depots_in(data) {
        let listed = Depot::list(&depots)?;
        if listed.iter().any(|listed| listed.name == stream) {
            return Ok(Place::Depot(depots));
        }
        names.extend(listed.into_iter().map(|listed| listed.name));
    }
    let there = match names.is_empty() {
        true => "none at all".to_owned(),
        false => names.join(", "),
    };
    Err(Failure::new(Class::Absent, format_args!("{}: there is no stream {stream} here, only {there}", data.display())))
}

/// Where a node keeps batches for others, if it keeps any.
pub(crate) fn depots_in(data: &Path) -> Option<PathBuf> {
    Some(data.join("depots")).filter(|depots| depots.is_dir())
}

/// The streams in a node's data folder, by name.
pub(crate) fn streams(data: &Path) -> Result<Vec<String>, Failure> {
    let folder = data.join("streams");
    let failed = |cause| Failure::io(format_args!("list {}", folder.display()), cause);
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        // what begins with a dot is still being made, or was never finished
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
