//! A cut that may have been begun and not finished when the control file was lost.
//!
//! A cut first gives the files of the tail second names in a branch folder, then records itself in the control file, then
//! replaces the first of these files and removes the first names of the others, in order. So as long as the log and the
//! branch share a file, the cut is not finished; when the first one is no longer shared, it had been recorded.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::walk::SegmentFile;
use crate::cursor::Tip;
use crate::cut::{BRANCHES, branch_range};
use crate::error::{Error, Result};
use crate::lsn::LsnRange;
use crate::recovery::segment_paths;

/// An unfinished cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    /// The tail: from where it is cut to where the log ended then.
    pub(super) range: LsnRange,
    /// The control file said so. If not known, only a log that ends where it ended then was cut.
    pub(super) recorded: bool,
}

impl Begun {
    /// The lowest one, as the folder's branches tell.
    pub(super) fn find(dir: &Path, start: Tip, files: &[SegmentFile]) -> Result<Option<Begun>> {
        let branches = dir.join(BRANCHES);
        let listed = match fs::read_dir(&branches) {
            Ok(listed) => listed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("list", &branches)(error)),
        };
        let mut lowest: Option<Begun> = None;
        for entry in listed {
            let branch = entry.map_err(Error::io("list", &branches))?.path();
            let range = branch.file_name().and_then(|name| name.to_str()).and_then(branch_range);
            let Some(range) = range.filter(|range| range.from >= start.lsn) else { continue };
            let mut shared = Vec::new();
            for (first, path) in segment_paths(&branch)? {
                let live = files.iter().find(|file| file.first == first);
                shared.push(match live {
                    Some(live) => same_file(&live.path, &path)?,
                    None => false,
                });
            }
            let begun = Begun { range, recorded: shared.first() == Some(&false) };
            if shared.contains(&true) && lowest.is_none_or(|lowest| range.from < lowest.range.from) {
                lowest = Some(begun);
            }
        }
        Ok(lowest)
    }
}

fn same_file(one: &Path, other: &Path) -> Result<bool> {
    let one = fs::metadata(one).map_err(Error::io("look at", one))?;
    let other = fs::metadata(other).map_err(Error::io("look at", other))?;
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}
