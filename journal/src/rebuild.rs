//! A new control file for a log that lost its own, in which nothing stands but what the log proves.
//!
//! ```text
//!  segment headers -> stream, geometry, start      epoch entries -> history, terms, who wrote
//!  start ... verified, written again, synced ... end | nothing that belongs to this log: else refused
//! ```
//! What the log can't prove is gone, and what comes of it is decided here:
//! - *The durable point.* Nothing says which entries a sync had covered. So nothing is cut silently: whatever stands behind
//!   the last verified entry and may belong to this log is refused, until somebody gives it up by name; then it becomes a
//!   branch.
//! - *The role and the highest term.* This node may have promised a higher term than the log shows. So it never comes back
//!   as a primary: the writer of the newest run comes back as fenced, anybody else as a receiver, and both as *rebuilt*
//!   (see [`crate::Journal::is_rebuilt`]) until somebody vouches for them.
//! - *The commit point, the checkpoint, what peers acknowledged.* Forgotten: zero.
//! - *A recorded cut.* Told from the branch: as long as its files are the log's own files, the cut is not finished.
//!
//! Slots that are whole are kept: lost facts don't cost the evidence, nor the other way round.

mod begun;
mod behind;
mod walk;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::begun::Begun;
use self::behind::Behind;
use self::walk::{SegmentFile, Walked, segment_files, walk};
use crate::control::{self, Control, Evidence, Facts, Role, Salvaged};
use crate::cursor::{FaultKind, Tip};
use crate::cut::branch_off;
use crate::epoch::{Epoch, History, Term};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::host::Host;
use crate::id::{NodeId, StreamId};
use crate::lock::FolderLock;
use crate::lsn::{Lsn, LsnRange};
use crate::recovery::find_folder;
use crate::storage::StorageFile;

/// What a rebuild found, and what it would write. Holds the folder's lock; nothing is changed before
/// [`Rebuild::write`].
#[derive(Debug)]
pub struct Rebuild {
    dir: PathBuf,
    host: Host,
    files: Vec<SegmentFile>,
    tip: Tip,
    facts: Facts,
    evidence: Evidence,
    kept: Kept,
    loss: Option<Loss>,
    _lock: FolderLock,
}

/// Which slots of the old control file were whole, and are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Role, terms, start and the like.
    pub facts: bool,
    /// The durable point, and what peers acknowledged.
    pub evidence: bool,
}

/// A part of the log that can't be verified and may have been durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The file that holds the first of it, or should.
    pub path: PathBuf,
    /// What is damaged, as exactly as it is known.
    pub damaged: LsnRange,
    /// What has to be given up: everything from there to the last trace of this log.
    pub given_up: LsnRange,
    /// What is wrong, and why it can't be taken for a write that never ended.
    pub why: String,
}

impl Rebuild {
    /// Reads the log in `dir` and finds out what its control file may say. Changes nothing but the lock file.
    ///
    /// `node`: who this node is. Without it nobody knows which runs it wrote: it gets a new identity, and counts as the
    /// writer of the newest one.
    ///
    /// Errors: `ControlWhole` when there is nothing to rebuild; `Absent` without a segment, `Locked`; `Corrupt` when the
    /// segments contradict each other.
    pub fn plan(dir: &Path, node: Option<NodeId>, host: Host) -> Result<Rebuild> {
        find_folder(dir)?;
        let lock = FolderLock::take(dir)?;
        let mut salvaged = salvaged(dir)?;
        let mut files = segment_files(dir)?;
        let (stream, geometry) = identity(dir, salvaged.facts.as_ref(), &files)?;
        let known = salvaged.evidence_of(stream);
        let kept = Kept { facts: salvaged.facts.is_some(), evidence: known.is_some() };
        let start = match &salvaged.facts {
            Some(facts) => facts.start,
            None => start_of(dir, &files)?,
        };
        files.retain(|file| file.first >= geometry.segment_of(start.lsn));

        let begun = match &salvaged.facts {
            Some(_) => None,
            None => Begun::find(dir, start, &files)?,
        };
        let mut cut = match &salvaged.facts {
            Some(facts) => facts.cut,
            None => begun.filter(|begun| begun.recorded).map(|begun| begun.range.from),
        };
        let read = |cut: Option<Lsn>| walk(&files, geometry, start, cut.unwrap_or(Lsn::MAX), |_, _| Ok(()));
        let mut walked = read(cut)?;
        if let Some(begun) = begun
            && cut.is_none()
            && walked.tip.lsn <= begun.range.to
        {
            // nothing was written since: it may have been recorded, and a cut tail must not come back
            cut = Some(begun.range.from);
            walked = read(cut)?;
        }
        if walked.fault.is_some_and(|fault| fault.kind == FaultKind::Unknown) {
            let what = "it uses a feature that this version does not know. Use a newer version of towline".into();
            return Err(Error::Incompatible { path: dir.to_owned(), what });
        }
        let behind = Behind { dir, files: &files, geometry, walked: &walked, cut, known: known.as_ref() };
        let loss = behind.loss()?;
        let tip = walked.tip;
        let facts = match salvaged.facts {
            Some(facts) => {
                let mut history = facts.history.clone();
                history.cut(tip.lsn);
                Facts { rebuilt: facts.role != Role::Primary, history: continued(history, walked), ..facts }
            }
            None => {
                let history = continued(beginning(dir, &files, start)?, walked);
                proven(stream, geometry, node, start, cut, history, tip)
            }
        };
        let known = known.unwrap_or_default();
        let committed = known.committed.min(tip.lsn);
        let evidence = Evidence { durable: tip.lsn, chain: tip.chain, committed, peers: known.peers };
        Ok(Rebuild { dir: dir.to_owned(), host, files, tip, facts, evidence, kept, loss, _lock: lock })
    }

    /// Writes the log again as it was verified and syncs it, and then makes the control file: aside, synced, renamed,
    /// the folder synced. What is lost becomes a branch, if that is accepted; the next opening cuts it off.
    ///
    /// Errors: `Unproven` when something is lost and that was not accepted: nothing is changed then. After any other
    /// error, or a power cut, the control file is as lost as before, and it can be tried again.
    pub fn write(mut self, accept_loss: bool) -> Result<()> {
        if let Some(loss) = self.loss.take() {
            if !accept_loss {
                return Err(Error::Unproven(loss));
            }
            self.keep_as_branch(&loss)?;
            self.facts.cut = Some(loss.given_up.from);
        }
        self.write_again()?;
        let storage = &*self.host.storage;
        storage.sync_dir(&self.dir).map_err(Error::io("sync", &self.dir))?;
        Control::create(storage, &self.dir, self.facts, self.evidence).map(drop)
    }

    /// The page cache may show what the disk doesn't have: what is claimed to be durable is written again and synced.
    fn write_again(&self) -> Result<()> {
        let mut open: Option<(&SegmentFile, Arc<dyn StorageFile>)> = None;
        let storage = &*self.host.storage;
        let walked = walk(&self.files, self.facts.geometry, self.facts.start, self.tip.lsn, |file, run| {
            let handle = match &open {
                Some((last, handle)) if last.first == file.first => Arc::clone(handle),
                _ => {
                    let handle = storage.open(&file.path).map_err(Error::io("open", &file.path))?;
                    if let Some((last, written)) = open.replace((file, Arc::clone(&handle))) {
                        written.sync().map_err(Error::io("sync", &last.path))?;
                    }
                    handle
                }
            };
            handle.write_at(run.bytes(), file.offset(run.range().from)).map_err(Error::io("write", &file.path))
        })?;
        if let Some((last, written)) = open {
            written.sync().map_err(Error::io("sync", &last.path))?;
        }
        if walked.tip != self.tip {
            let what = format!(
                "it read well up to LSN {} before, and now only up to {}: the disk is not to be trusted. Copy this folder to \
                 another one and try again there",
                self.tip.lsn, walked.tip.lsn
            );
            return Err(Error::Corrupt { path: self.dir.clone(), what });
        }
        Ok(())
    }

    fn keep_as_branch(&self, loss: &Loss) -> Result<()> {
        let tail = self.files.iter().filter(|file| file.end(self.facts.geometry) > loss.given_up.from);
        let files: Vec<_> = tail.clone().map(|file| (file.first, file.path.clone())).collect();
        // what behind the damage can be read alone begins at the next header that is whole
        let start = tail.filter_map(|file| file.header).map(|header| header.tip).next().unwrap_or(self.facts.start);
        let durable = if start.lsn > self.tip.lsn { start } else { self.tip };
        let facts = Facts { start, cut: None, ..self.facts.clone() };
        let evidence = Evidence { durable: durable.lsn, chain: durable.chain, ..Evidence::default() };
        let id = self.host.ids.random();
        branch_off(&*self.host.storage, &self.dir, loss.given_up, id, facts, evidence, &files).map(drop)
    }
}

/// What it found.
impl Rebuild {
    /// The stream's identity.
    pub fn stream(&self) -> StreamId {
        self.facts.stream
    }

    /// Who the node is from now on.
    pub fn node(&self) -> NodeId {
        self.facts.node
    }

    /// What the node is from now on.
    pub fn role(&self) -> Role {
        self.facts.role
    }

    /// The highest term that is known.
    pub fn term(&self) -> Term {
        self.facts.term_seen.term
    }

    /// The epochs of the log.
    pub fn history(&self) -> &History {
        &self.facts.history
    }

    /// The part of the log that is whole.
    pub fn range(&self) -> LsnRange {
        LsnRange::new(self.facts.start.lsn, self.tip.lsn)
    }

    /// A cut that was begun before, and that the next opening finishes.
    pub fn cut(&self) -> Option<Lsn> {
        self.facts.cut
    }

    /// What of the old control file is kept.
    pub fn kept(&self) -> Kept {
        self.kept
    }

    /// What can't be verified and may have been durable; `None` when the log ends cleanly.
    pub fn loss(&self) -> Option<&Loss> {
        self.loss.as_ref()
    }
}

/// What is whole of the old control file; `ControlWhole` when everything that an opening needs is.
fn salvaged(dir: &Path) -> Result<Salvaged> {
    let path = dir.join(control::NAME);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Salvaged::default()),
        Err(error) => return Err(Error::io("open", &path)(error)),
    };
    match control::read(&file, &path) {
        Ok(_) => Err(Error::ControlWhole { path }),
        Err(Error::Corrupt { .. }) => control::salvage(&file, &path),
        Err(error) => Err(error),
    }
}

/// Stream and geometry, as the facts and every header that is whole say; they must agree.
fn identity(dir: &Path, facts: Option<&Facts>, files: &[SegmentFile]) -> Result<(StreamId, Geometry)> {
    let mut said = files.iter().filter_map(|file| Some((&file.path, file.header.as_ref()?)));
    let (stream, geometry) = match (facts, said.clone().next()) {
        (Some(facts), _) => (facts.stream, facts.geometry),
        (None, Some((_, header))) => (header.stream, header.geometry),
        (None, None) if files.is_empty() => {
            return Err(Error::Absent { path: dir.to_owned(), what: "no segments: there is no log to rebuild from" });
        }
        (None, None) => {
            return Err(Error::Corrupt {
                path: dir.to_owned(),
                what: "no segment has a header that is whole. Nothing was changed; restore this log from a peer or a \
                       depot"
                    .into(),
            });
        }
    };
    let other = said.find(|(_, header)| header.stream != stream || header.geometry != geometry);
    if let Some((path, header)) = other {
        let what = format!(
            "its header says stream {} with segments of {} bytes, the rest of this log says stream {stream} with {}. \
             Nothing was changed; move the file that doesn't belong here to another folder",
            header.stream,
            header.geometry.body_bytes(),
            geometry.body_bytes()
        );
        return Err(Error::Corrupt { path: path.clone(), what });
    }
    Ok((stream, geometry))
}

/// Where a log without facts begins: what the header of its first segment says.
fn start_of(dir: &Path, files: &[SegmentFile]) -> Result<Tip> {
    let first = files.first();
    first.and_then(|file| file.header).map(|header| header.tip).ok_or_else(|| Error::Corrupt {
        path: first.map_or_else(|| dir.to_owned(), |file| file.path.clone()),
        what:
            "both copies of its header are damaged, and it is the first segment: nothing says what its entries follow. \
               Nothing was changed; restore it from a copy, or give it up: moved to another folder, the log begins \
               behind it"
                .into(),
    })
}

/// The epoch that a log begins in, when it began before.
fn beginning(dir: &Path, files: &[SegmentFile], start: Tip) -> Result<History> {
    if start.epoch == Epoch::default() {
        return Ok(History::default());
    }
    let opening = files.first().and_then(|file| file.header).and_then(|header| header.opening);
    let history = opening.and_then(|opening| History::from_openings(vec![opening]));
    history.ok_or_else(|| Error::Incompatible {
        path: dir.to_owned(),
        what: format!(
            "the log begins inside epoch {}, and its first segment doesn't say how that began: an older version wrote \
             it. Nothing was changed; restore this log from a peer or a depot",
            start.epoch
        ),
    })
}

fn continued(mut history: History, walked: Walked) -> History {
    walked.openings.into_iter().for_each(|opening| {
        let _known = history.push(opening);
    });
    history
}

/// The facts that a log alone proves.
fn proven(
    stream: StreamId,
    geometry: Geometry,
    node: Option<NodeId>,
    start: Tip,
    cut: Option<Lsn>,
    history: History,
    tip: Tip,
) -> Facts {
    let wrote_last = history.last().is_some_and(|last| node.is_none_or(|node| last.node == node));
    Facts {
        stream,
        geometry,
        node: node.unwrap_or_else(NodeId::random),
        role: if wrote_last { Role::Fenced } else { Role::Receiver },
        term_seen: history.term_seen(),
        opened_last: tip.epoch,
        start,
        cut,
        checkpoint: Lsn::ZERO,
        poisoned: false,
        rebuilt: true,
        history,
    }
}
