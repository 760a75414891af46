//! Replacing a segment file: the new one is whole and on the disk before it gets the name, and the old one is kept.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::body::Body;
use super::bridge::Patch;
use super::{Damage, Repair, Sources};
use crate::cursor::{Cursor, Next, Tip};
use crate::error::{Error, Result};
use crate::geometry::SEGMENT_HEADER_BYTES;
use crate::lsn::{Lsn, LsnRange};
use crate::segment::{SegmentHeader, file_bytes, file_name};
use crate::storage::StorageFile;

/// The folder of damaged files, in the journal's.
pub(crate) const DAMAGED: &str = "damaged";
const ASIDE: &str = "repair.new";
const COPY_BYTES: usize = 1 << 20;
/// What a disk refuses is left out in pieces of this size.
const BLOCK_BYTES: usize = 4096;

/// What the new file of a segment is made of: the old one, with these entries in the place of damaged ones.
#[derive(Clone, Debug)]
pub(super) struct Rewrite {
    header: SegmentHeader,
    /// Where its verified entries begin.
    pub(super) first: Tip,
    /// Where they end: behind the segment, or at the end of what was durable.
    pub(super) last: Tip,
    pub(super) patches: Vec<Patch>,
}

impl Rewrite {
    pub(super) fn new(header: SegmentHeader, first: Tip) -> Rewrite {
        Rewrite { header, first, last: first, patches: Vec::new() }
    }
}

/// A segment file that was replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// The file, whole now.
    pub path: PathBuf,
    /// Where the damaged one is kept; `None` when there was none.
    pub kept: Option<PathBuf>,
}

/// Makes the segment at `first` whole. Before the last step nothing of the log is changed, and that one is atomic.
pub(super) fn replace(
    repair: &Repair,
    first: Lsn,
    rewrite: &Rewrite,
    damages: &[&Damage],
    sources: &mut Sources<'_>,
) -> Result<Replaced> {
    let storage = &*repair.storage;
    let aside = repair.dir.join(ASIDE);
    match storage.remove(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", &aside)(error)),
        _ => {}
    }
    let path = repair.dir.join(file_name(first));
    let old = match File::open(&path) {
        Ok(old) => Some(old),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("open", &path)(error)),
    };
    let geometry = repair.facts.geometry;
    let new = storage.create(&aside, file_bytes(geometry)).map_err(Error::io("allocate", &aside))?;
    new.write_at(&rewrite.header.encode(), 0).map_err(Error::io("write", &aside))?;
    copy(old.as_ref(), &*new, file_bytes(geometry)).map_err(Error::io("write", &aside))?;
    for patch in &rewrite.patches {
        lay(repair, patch, first, &*new, &aside, sources)?;
    }
    new.sync().map_err(Error::io("sync", &aside))?;
    verify(&aside, rewrite)?;
    let kept = match old {
        Some(_) => Some(keep(repair, &path, first, damages)?),
        None => None,
    };
    storage.rename(&aside, &path).map_err(Error::io("rename", &aside))?;
    storage.sync_dir(&repair.dir).map_err(Error::io("sync", &repair.dir))?;
    Ok(Replaced { path, kept })
}

/// Copies the body as it is; what can't be read, or isn't there, is zeros.
fn copy(old: Option<&File>, new: &dyn StorageFile, bytes: u64) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = SEGMENT_HEADER_BYTES as u64;
    while at < bytes {
        let count = COPY_BYTES.min((bytes - at) as usize);
        let piece = &mut buffer[..count];
        piece.fill(0);
        if let Some(old) = old {
            read_what_can_be(old, piece, at);
        }
        new.write_at(piece, at)?;
        at += count as u64;
    }
    Ok(())
}

/// Fills `piece` from `at` on; behind a bad place it goes on with the next block, and what is behind the end stays.
fn read_what_can_be(old: &File, piece: &mut [u8], at: u64) {
    let mut done = 0;
    while done < piece.len() {
        match old.read_at(&mut piece[done..], at + done as u64) {
            Ok(0) => return,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => done = (done + 1).next_multiple_of(BLOCK_BYTES),
        }
    }
}

/// Writes the entries of one patch, verified again: a source may have changed since it was asked.
fn lay(
    repair: &Repair,
    patch: &Patch,
    first: Lsn,
    new: &dyn StorageFile,
    aside: &Path,
    sources: &mut Sources<'_>,
) -> Result<()> {
    let source = &mut sources[patch.source];
    let changed = |source: &str, at: Lsn, why: &dyn std::fmt::Display| Error::Corrupt {
        path: aside.to_owned(),
        what: format!("{source} no longer gives LSN {at} as it did ({why}). This segment was not changed; try again"),
    };
    let mut cursor = Cursor::new(repair.facts.geometry, patch.first);
    while cursor.tip().lsn < patch.last.lsn {
        let at = *cursor.tip();
        let piece = match source.fetch(&at) {
            Ok(Some(piece)) => piece,
            Ok(None) => return Err(changed(&source.name(), at.lsn, &"it is gone")),
            Err(fault) => return Err(changed(&source.name(), at.lsn, &fault)),
        };
        let mut used = 0;
        while cursor.tip().lsn < patch.last.lsn {
            match cursor.next(piece.get(used..).unwrap_or_default()) {
                Ok(Next::Entry(entry)) => used += entry.header.range().bytes() as usize,
                Ok(Next::Need(_)) if used > 0 => break,
                Ok(Next::Need(_)) => return Err(changed(&source.name(), at.lsn, &"it ends there")),
                Err(fault) => return Err(changed(&source.name(), at.lsn, &fault)),
            }
        }
        let offset = SEGMENT_HEADER_BYTES as u64 + at.lsn.bytes_since(first);
        new.write_at(&piece[..used], offset).map_err(Error::io("write", aside))?;
    }
    match *cursor.tip() == patch.last {
        true => Ok(()),
        false => Err(changed(&source.name(), patch.last.lsn, &"it leads elsewhere")),
    }
}

/// Reads the new file as an opening would: every entry, from the header on, to the very tip that was planned.
fn verify(aside: &Path, rewrite: &Rewrite) -> Result<()> {
    let differs = |how: &dyn std::fmt::Display| Error::Corrupt {
        path: aside.to_owned(),
        what: format!("what was written there doesn't read back ({how}). The log was not changed; check the disk"),
    };
    let file = File::open(aside).map_err(Error::io("open", aside))?;
    let header = rewrite.header;
    if SegmentHeader::read(&file, aside)? != header {
        return Err(differs(&"its header"));
    }
    let mut body = Body::new(Box::new(file), header.geometry, header.first);
    let mut tip = rewrite.first;
    while tip.lsn < rewrite.last.lsn {
        tip = body.step(&tip).map_err(|fault| differs(&fault))?;
    }
    match tip == rewrite.last {
        true => Ok(()),
        false => Err(differs(&format_args!("it leads to another chain at LSN {}", tip.lsn))),
    }
}

/// Gives the damaged file a second name that says what is damaged in it; it is never deleted here.
fn keep(repair: &Repair, path: &Path, first: Lsn, damages: &[&Damage]) -> Result<PathBuf> {
    let storage = &*repair.storage;
    let folder = repair.dir.join(DAMAGED);
    storage.create_dir(&folder).map_err(Error::io("create", &folder))?;
    let ranges = damages.iter().filter(|damage| !damage.range.is_empty()).map(|damage| damage.range);
    let span = ranges.reduce(|a, b| LsnRange::new(a.from.min(b.from), a.to.max(b.to)));
    let what = span.map_or("header".to_owned(), |span| format!("{}-{}", span.from, span.to));
    let old = fs::metadata(path).map_err(Error::io("look at", path))?;
    for number in 0u32.. {
        let again = if number == 0 { String::new() } else { format!("-{number}") };
        let kept = folder.join(format!("{:016x}-{what}{again}.seg", first.get()));
        match fs::metadata(&kept) {
            // a repair that was interrupted had got that far
            Ok(there) if (there.dev(), there.ino()) == (old.dev(), old.ino()) => {}
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                storage.link(path, &kept).map_err(Error::io("link", &kept))?;
            }
            Err(error) => return Err(Error::io("look at", &kept)(error)),
        }
        storage.sync_dir(&folder).map_err(Error::io("sync", &folder))?;
        return Ok(kept);
    }
    Err(Error::Corrupt { path: folder, what: "it holds as many damaged files as there are numbers".into() })
}
