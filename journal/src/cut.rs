//! Cutting a tail, and pruning the head.
//!
//! A cut is a fact, in this order: the kept part of the segment that is cut inside is copied aside, the cut segments get
//! second names in a branch folder, all synced; the control file records the new end, synced; the copy takes the
//! segment's place; the others lose their first name. No byte is ever changed in place, nothing behind the record needs
//! space, and opening never reads past a recorded cut.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::commit::{Durable, Writer};
use crate::control::{Control, Evidence, Facts};
use crate::cursor::{Cursor, Fault, FaultKind, Next, Tip};
use crate::error::{Error, Result};
use crate::geometry::{Geometry, SEGMENT_HEADER_BYTES};
use crate::level::End;
use crate::log::Journal;
use crate::lsn::{Lsn, LsnRange};
use crate::recovery::{rot, segment_paths};
use crate::segment::{Segment, file_bytes, file_name};
use crate::storage::Storage;

pub(crate) const BRANCHES: &str = "branches";
/// The kept part of the segment that is cut inside, until it takes the segment's place.
const ASIDE: &str = "cut.new";
const COPY_BYTES: usize = 1 << 20;

/// A cut tail, kept as a journal of its own that offline tools can open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// What was cut.
    pub range: LsnRange,
    /// The folder that holds it.
    pub path: PathBuf,
}

impl Journal {
    /// Cuts everything from `to` on and keeps it as a branch; durable when it returns. `to` must be the end of an
    /// entry that was staged before. Slices of the cut tail stay valid.
    ///
    /// Errors: `Full` changes nothing. An error behind the record ends the stream on this node; opening the journal again
    /// finishes the cut.
    pub fn cut(&self, to: Lsn) -> Result<Branch> {
        self.sync()?;
        let mut synced = self.syncing();
        let mut writer = self.writer();
        let mut staging = self.staging();
        let _nobody_prunes = self.maker();
        self.check_end()?;
        // only now: nobody writes, cuts or prunes any more
        let Some(tip) = self.look_for_tip(to, writer.tip())?.filter(|tip| synced.covers(tip.lsn)) else {
            return Err(Error::NotReached { wanted: to, end: synced.lsn() });
        };
        let range = LsnRange::new(to, staging.tip.lsn);
        let storage = Arc::clone(&self.shared.options.host.storage);
        let is_copied = self.final_if_sync(keep_aside(&*storage, self.dir(), self.geometry(), to))?;
        // if it can't be removed now, opening removes it
        let branched = self.branch_off(range, tip).inspect_err(|_| drop(forget_aside(&*storage, self.dir())));
        let path = self.final_if_sync(branched)?;
        self.change(|facts| facts.cut = Some(to))?;
        let segments_end = self.finish_recorded(&*storage, tip).inspect_err(|error| {
            // whatever was appended now would be cut when the journal is opened again
            let next = format!("{error}. A cut at LSN {to} is recorded: start this node again, it is finished then");
            self.end(End::Failed(next));
        })?;
        *synced = Durable::recovered(tip);
        *writer = Writer::at(tip);
        let reserved_to = {
            let mut space = self.space();
            if is_copied {
                space.count_file();
            }
            space.segments_end_at(segments_end);
            space.reserved_to()
        };
        staging.restart(tip, reserved_to);
        Ok(Branch { range, path })
    }

    /// A failed sync is final here too.
    fn final_if_sync<T>(&self, done: Result<T>) -> Result<T> {
        self.checked(done.map_err(|error| match error {
            Error::Io { doing: "sync", path, source } => self.poisoned(&path, &source),
            other => other,
        }))
    }

    /// What follows the record. Returns where the segments end now.
    fn finish_recorded(&self, storage: &dyn Storage, tip: Tip) -> Result<Lsn> {
        let to = tip.lsn;
        let mut control = self.control();
        finish(storage, self.dir(), &mut control, to)?;
        control.note(|evidence| {
            // the kept part was synced before the cut, and its copy before it got the name
            evidence.durable = to;
            evidence.chain = tip.chain;
            evidence.committed = evidence.committed.min(to);
        })?;
        control.sync_evidence()?;
        control.change(|facts| facts.history.cut(to))?;
        let committed = control.evidence.committed;
        drop(control);
        self.lose_tail(storage, to, committed)
    }

    /// Takes the segments of the cut tail and everything that the board says of it away from readers, at one instant:
    /// see `Journal::view`. Returns where the segments end now.
    fn lose_tail(&self, storage: &dyn Storage, to: Lsn, committed: Lsn) -> Result<Lsn> {
        let copy = match self.segment_at(to).filter(|segment| segment.first() < to) {
            Some(old) => Some(Arc::new(Segment::open(storage, &old.path, self.stream(), self.geometry())?)),
            None => None,
        };
        let mut segments = self.segments_mut();
        segments.retain(|segment| segment.end() <= to);
        segments.extend(copy);
        self.board().cut(to, committed);
        Ok(segments.last().map_or(self.geometry().segment_of(to), |segment| segment.end()))
    }

    /// Removes whole segments below `below`, what is durable and what every holder needs; returns where the journal begins
    /// now. Slices of pruned segments stay valid; their files are recycled or removed. A file that can't be removed is no
    /// part of the log any more; the next call tries again.
    pub fn prune(&self, below: Lsn) -> Result<Lsn> {
        let _nobody_cuts = self.maker();
        self.prune_now(below)
    }

    /// The same, for whoever has the lock of the maker.
    pub(crate) fn prune_now(&self, below: Lsn) -> Result<Lsn> {
        self.space().remove_left();
        let held = self.held().map_or(Lsn::MAX, |held| held.needs);
        let below = below.min(self.board().durable()).min(held);
        let before = self.start();
        let kept = {
            let segments = self.segments();
            let kept = segments.iter().find(|segment| segment.end() > below).or(segments.last());
            kept.map(|segment| segment.header.tip)
        };
        let Some(start) = kept.filter(|tip| tip.lsn > before) else { return Ok(before) };
        self.change(|facts| facts.start = start)?;
        let gone: Vec<_> = {
            let mut segments = self.segments_mut();
            let kept = segments.partition_point(|segment| segment.end() <= start.lsn);
            segments.drain(..kept).collect()
        };
        for segment in gone {
            let path = segment.path.clone();
            let left = match Arc::try_unwrap(segment) {
                Ok(free) => self.space().recycle(&path, free.into_file()),
                // somebody still reads it: the name goes, the bytes stay until the last slice is dropped
                Err(_pinned) => self.space().remove(&path),
            };
            if let Err(error) = left {
                tracing::warn!(%error, "give up a segment; the next pruning tries again");
                self.space().leave(path);
            }
        }
        Ok(start.lsn)
    }

    fn branch_off(&self, range: LsnRange, tip: Tip) -> Result<PathBuf> {
        let tail: Vec<_> = {
            let segments = self.segments();
            segments.iter().filter(|segment| segment.end() > range.from).map(Arc::clone).collect()
        };
        let (mut facts, evidence) = {
            let control = self.control();
            (control.facts.clone(), control.evidence.clone())
        };
        // without a segment it is an empty log that begins and ends here
        let first = tail.first().map_or(tip, |first| first.header.tip);
        if first.lsn > facts.start.lsn {
            facts.start = first;
        }
        let files: Vec<_> = tail.iter().map(|segment| (segment.first(), segment.path.clone())).collect();
        let host = &self.shared.options.host;
        branch_off(&*host.storage, self.dir(), range, host.ids.random(), facts, evidence, &files)
    }
}

/// Gives the files of a tail second names in a branch folder, with a control file of its own, all synced. On an error
/// nothing of it stays: a receiver that has no space is told to cut again and again.
pub(crate) fn branch_off(
    storage: &dyn Storage,
    dir: &Path,
    range: LsnRange,
    id: u64,
    facts: Facts,
    evidence: Evidence,
    files: &[(Lsn, PathBuf)],
) -> Result<PathBuf> {
    let branch = dir.join(BRANCHES).join(format!("{}-{}-{id:016x}", range.from, range.to));
    match fill_branch(storage, &branch, facts, evidence, files) {
        Ok(()) => Ok(branch),
        Err(error) => {
            if let Err(left) = remove_folder(storage, &branch) {
                tracing::debug!(path = %branch.display(), error = %left, "remove a half-made branch");
            }
            Err(error)
        }
    }
}

fn fill_branch(
    storage: &dyn Storage,
    branch: &Path,
    facts: Facts,
    evidence: Evidence,
    files: &[(Lsn, PathBuf)],
) -> Result<()> {
    storage.create_dir(branch).map_err(Error::io("create", branch))?;
    Control::create(storage, branch, facts, evidence)?;
    for (first, path) in files {
        let second = branch.join(file_name(*first));
        storage.link(path, &second).map_err(Error::io("link", &second))?;
    }
    storage.sync_dir(branch).map_err(Error::io("sync", branch))
}

fn remove_folder(storage: &dyn Storage, dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        storage.remove(&entry?.path())?;
    }
    fs::remove_dir(dir)
}

/// The tail that a branch folder of this name holds.
pub(crate) fn branch_range(name: &str) -> Option<LsnRange> {
    let (from, rest) = name.split_once('-')?;
    let (to, _id) = rest.split_once('-')?;
    Some(LsnRange::new(from.parse().ok()?, to.parse().ok()?))
}

/// Finishes the recorded cut at `to` of a journal that is opened: idempotent, and harmless if only the record was left to
/// be cleared. The copy aside is made anew, in the space of the one that is found: that one may be half of what an
/// opening before this one made, and if it has taken the segment's place already it is the same again.
pub(crate) fn finish_found(storage: &dyn Storage, dir: &Path, control: &mut Control, to: Lsn) -> Result<()> {
    keep_aside(storage, dir, control.facts.geometry, to)?;
    finish(storage, dir, control, to)
}

/// Finishes the recorded cut at `to`, the kept part aside.
fn finish(storage: &dyn Storage, dir: &Path, control: &mut Control, to: Lsn) -> Result<()> {
    let geometry = control.facts.geometry;
    for (first, path) in segment_paths(dir)? {
        if first >= to {
            storage.remove(&path).map_err(Error::io("remove", &path))?;
        } else if to < first.advance(geometry.body_bytes()) {
            let aside = dir.join(ASIDE);
            storage.rename(&aside, &path).map_err(Error::io("rename", &aside))?;
        }
    }
    storage.sync_dir(dir).map_err(Error::io("sync", dir))?;
    if control.evidence.durable > to {
        // the evidence spoke of the tail: from now on it speaks of the end of the kept part, which was durable too
        let tip = kept_tip(storage, dir, control, to)?;
        control.note(|evidence| {
            evidence.durable = tip.lsn;
            evidence.chain = tip.chain;
            evidence.committed = evidence.committed.min(to);
        })?;
        control.sync_evidence()?;
    }
    // last: while the record stands, evidence of the tail can't be mistaken for lost bytes
    control.change(|facts| {
        facts.cut = None;
        facts.history.cut(to);
    })
}

/// The tip at the end of what a cut at `to` keeps, verified from the beginning of its last segment. Errors: `Rot`, `Corrupt`
/// when the kept part is damaged; the cut stays recorded.
fn kept_tip(storage: &dyn Storage, dir: &Path, control: &Control, to: Lsn) -> Result<Tip> {
    let (facts, geometry) = (&control.facts, control.facts.geometry);
    if to <= facts.start.lsn {
        return Ok(facts.start);
    }
    let first = geometry.segment_of(Lsn::new(to.get() - 1));
    let segment = Segment::open(storage, &dir.join(file_name(first)), facts.stream, geometry)?;
    let begins = if segment.header.tip.lsn < facts.start.lsn { facts.start } else { segment.header.tip };
    let mut cursor = Cursor::new(geometry, begins);
    while cursor.tip().lsn < to {
        let at = cursor.tip().lsn;
        let fault = match cursor.next(segment.bytes(LsnRange::new(at, to))) {
            Ok(Next::Entry(_)) => continue,
            Ok(Next::Need(_)) => Fault { at, kind: FaultKind::Short, to },
            Err(fault) => fault,
        };
        return Err(rot(&segment, &fault, to));
    }
    Ok(*cursor.tip())
}

/// Copies the kept part of the segment that a cut at `to` goes through to a file aside, zeros behind it; durable when it
/// returns. `false` where segments begin and end: there is nothing to copy. On an error there is none.
fn keep_aside(storage: &dyn Storage, dir: &Path, geometry: Geometry, to: Lsn) -> Result<bool> {
    forget_aside(storage, dir)?;
    let first = geometry.segment_of(to);
    let (path, aside) = (dir.join(file_name(first)), dir.join(ASIDE));
    if first == to || !path.try_exists().map_err(Error::io("look at", &path))? {
        return Ok(false);
    }
    let old = fs::File::open(&path).map_err(Error::io("open", &path))?;
    let kept = SEGMENT_HEADER_BYTES as u64 + to.bytes_since(first);
    let copied = copy(storage, &old, &path, &aside, kept, file_bytes(geometry));
    let synced = copied.and_then(|()| storage.sync_dir(dir).map_err(Error::io("sync", dir)));
    synced.map(|()| true).inspect_err(|_| drop(forget_aside(storage, dir)))
}

/// Removes a copy that no recorded cut waits for; it must not be taken for that of a later one.
pub(crate) fn forget_aside(storage: &dyn Storage, dir: &Path) -> Result<()> {
    let aside = dir.join(ASIDE);
    match storage.remove(&aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &aside)(error)),
        _ => Ok(()),
    }
}

/// Makes a file of `bytes` bytes: the first `kept` of `old`, and zeros.
fn copy(storage: &dyn Storage, old: &fs::File, path: &Path, aside: &Path, kept: u64, bytes: u64) -> Result<()> {
    let new = storage.create(aside, bytes).map_err(Error::io("allocate", aside))?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < bytes {
        let count = buffer.len().min((bytes - at) as usize);
        buffer.fill(0);
        if at < kept {
            let wanted = count.min((kept - at) as usize);
            std::os::unix::fs::FileExt::read_exact_at(old, &mut buffer[..wanted], at)
                .map_err(Error::io("read", path))?;
        }
        new.write_at(&buffer[..count], at).map_err(Error::io("write", aside))?;
        at += count as u64;
    }
    new.sync().map_err(Error::io("sync", aside))
}
