//! What a journal must be found to hold, kept beside it in plain memory.

use std::path::{Path, PathBuf};

use journal::{Assembler, Cursor, Epoch, EpochEntry, Geometry, Journal, Kind, Lsn, NodeId, Role, Source, Tip, offline};

/// Something that was handed in: a record, or another entry that is not the journal's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) kind: Kind,
    pub(crate) payload: Vec<u8>,
    /// Position behind it; `None` inside an `append_many`, whose ticket is that of the last.
    pub(crate) end: Option<Lsn>,
}

/// A fact that a change may have reached or not when the power went.
#[derive(Clone, Debug)]
pub(crate) struct Fact<T> {
    sure: T,
    maybe: Vec<T>,
}

impl<T: Copy + PartialEq + std::fmt::Debug> Fact<T> {
    pub(crate) fn new(sure: T) -> Fact<T> {
        Fact { sure, maybe: Vec::new() }
    }

    pub(crate) fn sure(&self) -> T {
        self.sure
    }

    /// The newest value that it may have.
    pub(crate) fn last(&self) -> T {
        self.maybe.last().copied().unwrap_or(self.sure)
    }

    /// A change begins.
    pub(crate) fn may_be(&mut self, value: T) {
        self.maybe.push(value);
    }

    /// It is done, or another end is known.
    pub(crate) fn is(&mut self, value: T) {
        self.sure = value;
        self.maybe.clear();
    }

    fn found(&mut self, value: T, what: &str) {
        assert!(value == self.sure || self.maybe.contains(&value), "{what} is {value:?}, not {self:?}");
        self.is(value);
    }
}

/// A tail that was cut and must be found in its branch.
#[derive(Clone, Debug)]
pub(crate) struct CutTail {
    /// Below the journal's folder; `None` while the cut has not returned.
    pub(crate) path: Option<PathBuf>,
    pub(crate) to: Lsn,
    /// What begins above `to`.
    pub(crate) tail: Vec<Said>,
}

/// The twin of one journal.
#[derive(Clone, Debug)]
pub(crate) struct Twin {
    /// In order; a cut takes from it.
    pub(crate) said: Vec<Said>,
    /// Acknowledged as durable.
    pub(crate) durable: Lsn,
    pub(crate) start: Lsn,
    /// A prune that failed may have reached this.
    pub(crate) start_max: Lsn,
    pub(crate) cutting: Option<CutTail>,
    pub(crate) branches: Vec<CutTail>,
    pub(crate) role: Fact<Role>,
    pub(crate) term: Fact<u32>,
    pub(crate) checkpoint: Fact<Lsn>,
    pub(crate) committed: Fact<Lsn>,
    pub(crate) peer: Fact<Option<Lsn>>,
    /// Up to here the feed was received.
    pub(crate) received: Lsn,
    /// Up to here a call that failed may have received it: those bytes are whole entries too.
    pub(crate) offered: Lsn,
    /// The newest that was opened.
    pub(crate) epoch: Epoch,
}

impl Twin {
    pub(crate) fn new(role: Role) -> Twin {
        Twin {
            said: Vec::new(),
            durable: Lsn::ZERO,
            start: Lsn::ZERO,
            start_max: Lsn::ZERO,
            cutting: None,
            branches: Vec::new(),
            role: Fact::new(role),
            term: Fact::new(0),
            checkpoint: Fact::new(Lsn::ZERO),
            committed: Fact::new(Lsn::ZERO),
            peer: Fact::new(None),
            received: Lsn::ZERO,
            offered: Lsn::ZERO,
            epoch: Epoch::default(),
        }
    }

    /// The evidence that was noted last is what the next opening finds.
    pub(crate) fn noted(&mut self) {
        self.committed.is(self.committed.last());
        self.peer.is(self.peer.last());
    }

    /// Holds a journal that has just been opened against this, and takes over which of the possible ends it was.
    pub(crate) fn compare(&mut self, journal: &Journal, feed: &Feed) {
        let end = journal.written_tip().lsn;
        assert_eq!((journal.board().durable(), journal.board().written()), (end, end));
        self.settle_cut(journal, end);
        assert!(end >= self.durable, "acknowledged up to {}, found up to {end}", self.durable);
        let start = journal.start();
        assert!(start >= self.start && start <= self.start_max.max(self.start), "begins at {start}: {self:?}");
        let found = items(&mut journal.entries(start).unwrap());
        self.said.extend(feed.between(self.received, self.offered));
        self.settle_items(found, start, end);
        feed.compare(journal, self.offered);
        self.offered = self.offered.min(end);
        self.received = self.offered;
        check_history(journal);
        for branch in &self.branches {
            check_branch(journal.dir(), branch);
        }
        (self.start, self.start_max, self.durable) = (start, start, end);
        self.role.found(journal.role(), "the role");
        self.term.found(journal.term_seen().term.0, "the term seen");
        self.checkpoint.found(journal.checkpoint(), "the checkpoint");
        assert!(journal.committed() <= end, "committed beyond the end");
        self.committed.found(journal.committed(), "the commit point");
        self.peer.found(journal.peer_remembered(PEER).map(|(lsn, _)| lsn), "what the peer acknowledged");
    }

    /// A cut in progress has happened or not; never something in between.
    fn settle_cut(&mut self, journal: &Journal, end: Lsn) {
        let Some(mut cut) = self.cutting.take() else { return };
        if end > cut.to || self.durable <= cut.to {
            return;
        }
        assert_eq!(end, cut.to, "a cut ends the log where it was told to");
        let branches = journal.dir().join("branches");
        let held = std::fs::read_dir(&branches).unwrap().map(|entry| entry.unwrap().path());
        let held = held.filter(|path| offline::Log::open(path).is_ok() && holds(path, &cut.tail));
        let path = held.last().expect("the log was cut and no branch holds the tail");
        cut.path = Some(path.strip_prefix(journal.dir()).unwrap().to_owned());
        self.lose(cut.to);
        self.branches.push(cut);
    }

    /// The log ends at `to` now.
    pub(crate) fn lose(&mut self, to: Lsn) {
        self.said.retain(|said| said.end.is_some_and(|end| end <= to));
        for mark in [&mut self.durable, &mut self.received, &mut self.offered] {
            *mark = (*mark).min(to);
        }
        let committed = self.committed.sure().min(to);
        self.committed.may_be(committed);
    }

    /// What is found is what was said, in order, without a gap, from the horizon on and at least up to `durable`.
    fn settle_items(&mut self, found: Vec<Said>, start: Lsn, end: Lsn) {
        let all = &self.said;
        let pruned = match found.first() {
            Some(first) => all.iter().position(|said| said.same(first)).expect("the first record was invented"),
            // a record that begins below the horizon and ends above it is gone too
            None if start > Lsn::ZERO => {
                all.iter().take_while(|said| said.end.is_none_or(|end| end <= start)).count() + 1
            }
            None => 0,
        };
        let pruned = pruned.min(all.len());
        // what begins below the horizon is gone, and no more than that
        let gone_whole = all[..pruned].iter().rev().skip(1).find_map(|said| said.end);
        assert!(gone_whole.is_none_or(|end| end < start), "pruned above {start}: {gone_whole:?}");
        let wanted = &all[pruned..];
        assert!(found.len() <= wanted.len(), "{} records are found, {} were said", found.len(), wanted.len());
        for (index, (found, said)) in found.iter().zip(wanted).enumerate() {
            assert!(found.same(said), "record {index} is altered or out of order: {found:?}, not {said:?}");
        }
        if let Some(lost) = wanted[found.len()..].iter().find_map(|said| said.end) {
            assert!(lost > self.durable && lost > end, "the record up to {lost} is gone, durable {}", self.durable);
        }
        self.said = found;
    }
}

impl Said {
    fn same(&self, other: &Said) -> bool {
        let end = self.end.is_none() || other.end.is_none() || self.end == other.end;
        end && self.kind == other.kind && self.payload == other.payload
    }
}

/// The peer that these tests remember something of.
pub(crate) const PEER: NodeId = NodeId::from_bytes([0xbb; 16]);

/// Everything in a log that was handed in, whole records.
pub(crate) fn items<S: Source<Error: std::fmt::Debug>>(source: &mut S) -> Vec<Said> {
    let mut assembler = Assembler::default();
    let mut found = Vec::new();
    while let Some(entry) = source.next_entry().unwrap() {
        let end = Some(entry.header.range().to);
        match entry.header.kind {
            Some(Kind::Data) => {
                if let Some(record) = assembler.push(&entry) {
                    found.push(Said { kind: Kind::Data, payload: record.payload.to_vec(), end });
                }
            }
            Some(kind @ (Kind::Mark | Kind::Alone)) => {
                found.push(Said { kind, payload: entry.payload.to_vec(), end });
            }
            _ => {}
        }
    }
    found
}

/// Every epoch whose first entry is in the log is in the history, and none that begins behind the end.
fn check_history(journal: &Journal) {
    let mut entries = journal.entries(journal.start()).unwrap();
    let mut chain_in = entries.tip().chain;
    let mut found = Vec::new();
    while let Some(entry) = entries.next_entry().unwrap() {
        if entry.header.kind == Some(Kind::Epoch) {
            found.push(EpochEntry::decode(entry.payload).unwrap().opening(&entry.header, chain_in));
        }
        chain_in = entry.header.chain;
    }
    let history = journal.history();
    let kept: Vec<_> = history.openings().iter().filter(|opening| opening.first >= journal.start()).copied().collect();
    assert_eq!(kept, found, "the history is that of the log");
}

/// Behind the tail there may be what a call that failed had half done.
fn holds(branch: &Path, tail: &[Said]) -> bool {
    let found = items(&mut offline::Log::open(branch).unwrap().entries(None).unwrap());
    tail.is_empty() || found.windows(tail.len()).any(|found| found == tail)
}

fn check_branch(dir: &Path, branch: &CutTail) {
    let path = dir.join(branch.path.as_ref().unwrap());
    assert!(holds(&path, &branch.tail), "the branch of {} has lost its tail", branch.to);
}

/// What a receiver is fed from: the log of a primary with two runs, records of every size and several segments.
pub(crate) struct Feed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) said: Vec<Said>,
    pub(crate) terms: Vec<(Lsn, u32)>,
    geometry: Geometry,
}

impl Feed {
    pub(crate) fn of(journal: &Journal) -> Feed {
        let mut bytes = Vec::new();
        while let Some(slice) = journal.slice(Lsn::new(bytes.len() as u64), 1 << 20).unwrap() {
            bytes.extend_from_slice(&slice);
        }
        let said = items(&mut journal.entries(Lsn::ZERO).unwrap());
        let history = journal.history();
        let terms = history.openings().iter().map(|opening| (opening.first, opening.epoch.term.0)).collect();
        Feed { bytes, said, terms, geometry: journal.geometry() }
    }

    /// A verified run of about `bytes_max` bytes behind `tip`, handed to `take`.
    pub(crate) fn lend<T>(&self, tip: Tip, bytes_max: usize, take: impl FnOnce(&journal::Verified<'_>) -> T) -> T {
        let from = tip.lsn.get() as usize;
        let to = self.bytes.len().min(from + bytes_max);
        take(&Cursor::new(self.geometry, tip).verify(&self.bytes[from..to]).unwrap())
    }

    /// What of it ends inside `from..to`.
    pub(crate) fn between(&self, from: Lsn, to: Lsn) -> Vec<Said> {
        let inside = |said: &&Said| said.end.is_some_and(|end| end > from && end <= to);
        self.said.iter().filter(inside).cloned().collect()
    }

    /// What the log shows up to `offered` is this, byte for byte.
    fn compare(&self, journal: &Journal, offered: Lsn) {
        let mut at = journal.start();
        let to = offered.min(journal.written_tip().lsn);
        while at < to {
            let slice = journal.slice(at, 1 << 20).unwrap().unwrap();
            let until = slice.range().to.min(to);
            let count = until.bytes_since(at) as usize;
            let from = at.get() as usize;
            assert!(slice[..count] == self.bytes[from..from + count], "bytes from {at} on are not the primary's");
            at = until;
        }
    }
}
