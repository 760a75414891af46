//! Looking for rot before it is needed: a slow walk over everything that is durable, as the disk gives it.
//!
//! ```text
//!  Pace: when --> Scrub::step: pread, verify, forget the pages --> Finding: exact range, what is wrong
//! ```
//! It changes nothing and holds nothing: a segment may be pruned, recycled or cut beside it. What it meets there is
//! looked at again before it counts as damage.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};

use crate::cursor::{Fault, FaultKind, Tip};
use crate::error::{Error, Result};
use crate::geometry::SEGMENT_HEADER_BYTES;
use crate::log::Journal;
use crate::lsn::{Lsn, LsnRange};
use crate::repair::{Body, Harm};
use crate::segment::{SegmentHeader, file_name};

/// How fast to read, and how often to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubPolicy {
    /// Bytes per second; 0: never.
    pub bytes_per_second: u64,
    /// A look at everything begins at most once in this time.
    pub every: Duration,
}

impl Default for ScrubPolicy {
    /// 20 MB/s is a tenth of a slow disk and reads 1.7 TB a day; a day is how long rot may stay unseen.
    fn default() -> ScrubPolicy {
        ScrubPolicy { bytes_per_second: 20_000_000, every: Duration::from_secs(24 * 3600) }
    }
}

/// Decides when the next piece is read. Time is an argument, as the span since any fixed instant.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    policy: ScrubPolicy,
    /// When the pass at hand began, or the next may.
    begin_at: Duration,
    running: bool,
    ready_at: Duration,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Begin to look at everything.
    Begin,
    /// Read the next piece.
    Read,
    /// Nothing for so long.
    Wait(Duration),
}

impl Pace {
    /// `last_full`: how long ago everything had been looked at, if that is known. No log is looked at more often than
    /// once a second.
    pub fn new(policy: ScrubPolicy, now: Duration, last_full: Option<Duration>) -> Pace {
        let policy = ScrubPolicy { every: policy.every.max(Duration::from_secs(1)), ..policy };
        let rest = last_full.map_or(Duration::ZERO, |ago| policy.every.saturating_sub(ago));
        Pace { policy, begin_at: now.saturating_add(rest), running: false, ready_at: now }
    }

    /// What to do now. After `Begin` it is `Read`.
    pub fn turn(&mut self, now: Duration) -> Turn {
        let at = if self.running { self.ready_at } else { self.begin_at.max(self.ready_at) };
        if now < at {
            return Turn::Wait(at - now);
        }
        if !self.running {
            (self.running, self.begin_at) = (true, now);
            return Turn::Begin;
        }
        Turn::Read
    }

    /// So many bytes were read. Time that was lost is not made up for: the disk belongs to others.
    pub fn read(&mut self, bytes: u64, now: Duration) {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.policy.bytes_per_second.max(1));
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.ready_at = self.ready_at.max(now).saturating_add(takes);
    }

    /// Everything was looked at.
    pub fn ended(&mut self) {
        self.running = false;
        self.begin_at = self.begin_at.saturating_add(self.policy.every);
    }
}

/// A damaged place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The segment file.
    pub path: PathBuf,
    /// The damaged entries, as exactly as it is known; empty when only the file's own header is damaged.
    pub range: LsnRange,
    /// What is wrong.
    pub harm: Harm,
}

/// What one step did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scrubbed {
    /// It read this many bytes, and they are good.
    Good(u64),
    /// It found damage, having read this many bytes; the next step goes on behind.
    Damaged(u64, Finding),
    /// There is nothing more.
    End,
}

/// Bytes after which a step returns.
const STEP_BYTES: u64 = 1 << 20;

/// A look at what was durable when it began.
#[derive(Debug)]
pub struct Scrub {
    journal: Journal,
    tip: Tip,
    goal: Lsn,
    cuts: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    body: Body,
}

impl Scrub {
    /// A look at everything.
    pub fn all(journal: &Journal) -> Scrub {
        Scrub::from(journal, LsnRange::new(Lsn::ZERO, Lsn::MAX))
    }

    /// A look at `range`, from the beginning of its segment on.
    pub fn range(journal: &Journal, range: LsnRange) -> Scrub {
        // a header alone is looked at with the first entry behind it
        Scrub::from(journal, LsnRange::new(range.from, range.to.max(range.from.advance(1))))
    }

    fn from(journal: &Journal, range: LsnRange) -> Scrub {
        // first of all: a cut from here on is the walk's to find
        let cuts = journal.board().cuts();
        let start = journal.start_tip();
        let tip = journal.segment_at(range.from).map(|segment| segment.header.tip);
        let tip = tip.filter(|tip| tip.lsn >= start.lsn).unwrap_or(start);
        let goal = range.to.min(journal.board().durable());
        Scrub { journal: journal.clone(), tip, goal, cuts, open: None }
    }

    /// How far it has looked.
    pub fn at(&self) -> Lsn {
        self.tip.lsn
    }

    /// Reads the next piece, about 1 MiB. Blocking. What the disk refuses is damage; an error is that no file could be
    /// opened for want of descriptors or rights.
    pub fn step(&mut self) -> Result<Scrubbed> {
        self.follow();
        let geometry = self.journal.geometry();
        let begun = self.tip.lsn;
        if begun >= self.goal {
            return Ok(Scrubbed::End);
        }
        let end = geometry.segment_of(begun).advance(geometry.body_bytes());
        let goal = self.goal.min(end);
        let mut bytes = 0;
        let open = match self.open.take() {
            Some(open) if open.body.range().to == end => open,
            _ => {
                bytes = SEGMENT_HEADER_BYTES as u64;
                let (open, harm) = self.open(begun)?;
                let Some(open) = open else { return Ok(self.skip(begun, end, Harm::Missing, bytes)) };
                if let Some(harm) = harm
                    && !self.overtaken()
                {
                    let finding = Finding { path: open.path.clone(), range: LsnRange::new(begun, begun), harm };
                    self.open = Some(open);
                    return Ok(Scrubbed::Damaged(bytes, finding));
                }
                open
            }
        };
        let open = self.open.insert(open);
        while self.tip.lsn < goal && bytes < STEP_BYTES {
            match open.body.step(&self.tip) {
                Ok(tip) => {
                    bytes += tip.lsn.bytes_since(self.tip.lsn);
                    self.tip = tip;
                }
                Err(fault) => return self.damaged(fault, end, bytes),
            }
        }
        if self.tip.lsn == end
            && let Some(next) = self.journal.segment_at(end)
            && next.header.tip != self.tip
            && !self.overtaken()
        {
            let first = geometry.segment_of(begun);
            return Ok(self.skip(first, end, Harm::OtherHistory, bytes));
        }
        Ok(Scrubbed::Good(bytes))
    }

    /// Where the log was pruned or cut meanwhile, the walk goes on with what it is now.
    fn follow(&mut self) {
        let start = self.journal.start_tip();
        if self.tip.lsn < start.lsn {
            (self.tip, self.open) = (start, None);
        }
        let cuts = self.journal.board().cuts();
        if cuts != self.cuts {
            self.cuts = cuts;
            self.open = None;
            self.goal = self.goal.min(self.journal.board().durable());
            let segment = self.journal.segment_at(self.tip.lsn);
            let tip = segment.map_or(self.tip, |segment| segment.header.tip);
            self.tip = if tip.lsn < start.lsn { start } else { tip };
        }
    }

    /// True when what was read was not the log, or is no longer: it was pruned or cut meanwhile. Asked only where
    /// something looks damaged.
    fn overtaken(&mut self) -> bool {
        // a cut changes files before it is seen: it is over, or not begun, while nobody can sync
        let _no_cut = self.journal.syncing();
        if self.journal.control().facts.cut.is_some() {
            // one that failed: the files are neither the old nor the new log until the journal is opened again
            self.goal = self.tip.lsn;
            return true;
        }
        self.tip.lsn < self.journal.start() || self.cuts != self.journal.board().cuts()
    }

    /// The file that holds `at`, and what is wrong with its header; `None` when it is gone.
    fn open(&self, at: Lsn) -> Result<(Option<Open>, Option<Harm>)> {
        let Some(segment) = self.journal.segment_at(at) else { return Ok((None, None)) };
        let path = segment.path.clone();
        let file = match File::open(&path) {
            Ok(file) => Uncached(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((None, None)),
            Err(error) => return Err(Error::io("open", &path)(error)),
        };
        let mut block = [0; SEGMENT_HEADER_BYTES];
        let harm = match file.read_exact_at(&mut block, 0) {
            Err(error) => Some(Harm::Unreadable(error.to_string())),
            Ok(()) => match SegmentHeader::decode(&block) {
                Ok(header) if header != segment.header => {
                    Some(Harm::Header("its header is that of another segment".to_owned()))
                }
                Ok(_) if !SegmentHeader::copies_agree(&block) => Some(Harm::HeaderCopy),
                Ok(_) => None,
                Err(what) => Some(Harm::Header(what.to_owned())),
            },
        };
        let body = Body::new(Box::new(file), self.journal.geometry(), segment.first());
        Ok((Some(Open { path, body }), harm))
    }

    /// An entry failed. It is read again, from a file that is opened again: only then it counts.
    fn damaged(&mut self, fault: Fault, end: Lsn, bytes: u64) -> Result<Scrubbed> {
        self.open = None;
        if self.overtaken() {
            return Ok(Scrubbed::Good(bytes));
        }
        let (Some(mut again), _) = self.open(fault.at)? else {
            return Ok(self.skip(fault.at, end, Harm::Missing, bytes));
        };
        let Err(fault) = again.body.step(&self.tip) else {
            self.open = Some(again);
            return Ok(Scrubbed::Good(bytes));
        };
        let harm = match again.body.refusal().filter(|_| fault.kind == FaultKind::Short) {
            Some(cause) => Harm::Unreadable(cause),
            None if fault.kind == FaultKind::Short => Harm::Truncated,
            None => Harm::Entry(fault.kind),
        };
        let to = match fault.to > fault.at {
            true => fault.to,
            false => again.body.believable(fault.at).map_or(end, |header| header.lsn),
        };
        Ok(self.skip(fault.at, to, harm, bytes))
    }

    /// Names damage and goes on behind the segment, with the tip that the next one begins with.
    fn skip(&mut self, from: Lsn, to: Lsn, harm: Harm, bytes: u64) -> Scrubbed {
        self.open = None;
        if self.overtaken() {
            return Scrubbed::Good(bytes);
        }
        let geometry = self.journal.geometry();
        let first = geometry.segment_of(from);
        let end = first.advance(geometry.body_bytes());
        let next = self.journal.segment_at(end).map(|segment| segment.header.tip);
        match next {
            Some(next) => self.tip = next,
            None => self.goal = self.tip.lsn,
        }
        let path = self.journal.dir().join(file_name(first));
        let durable = self.journal.board().durable();
        Scrubbed::Damaged(bytes, Finding { path, range: LsnRange::new(from, to.min(durable)), harm })
    }
}

/// A file that is read from the disk instead of the page cache, and leaves nothing there: pages that somebody has
/// mapped or not yet written back stay.
struct Uncached(File);

impl FileExt for Uncached {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.forget(offset, buffer.len());
        let read = self.0.read_at(buffer, offset);
        self.forget(offset, buffer.len());
        read
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Uncached {
    fn forget(&self, offset: u64, bytes: usize) {
        // only advice: without it the look is into the page cache
        if let Some(bytes) = std::num::NonZeroU64::new(bytes as u64)
            && let Err(error) = fadvise(&self.0, offset, Some(bytes), Advice::DontNeed)
        {
            tracing::debug!(%error, "keep a scrub out of the page cache");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy(bytes_per_second: u64, every: Duration) -> ScrubPolicy {
        ScrubPolicy { bytes_per_second, every }
    }

    #[test]
    fn it_reads_no_faster_than_it_may_and_makes_up_for_nothing() {
        let mut pace = Pace::new(policy(1000, 100 * SECOND), 5 * SECOND, None);
        assert_eq!(pace.turn(5 * SECOND), Turn::Begin);
        assert_eq!(pace.turn(5 * SECOND), Turn::Read);
        pace.read(2000, 5 * SECOND);
        assert_eq!(pace.turn(6 * SECOND), Turn::Wait(SECOND));
        assert_eq!(pace.turn(7 * SECOND), Turn::Read);
        // it stood still: what it didn't read meanwhile is not read at once
        pace.read(1000, 50 * SECOND);
        assert_eq!(pace.turn(50 * SECOND), Turn::Wait(SECOND));
    }

    #[test]
    fn it_begins_once_in_its_time_and_anew_at_once_when_it_took_longer() {
        let mut pace = Pace::new(policy(1000, 100 * SECOND), SECOND, None);
        assert_eq!(pace.turn(SECOND), Turn::Begin);
        pace.ended();
        assert_eq!(pace.turn(2 * SECOND), Turn::Wait(99 * SECOND));
        assert_eq!(pace.turn(101 * SECOND), Turn::Begin);
        pace.read(500_000, 101 * SECOND);
        pace.ended();
        assert_eq!(pace.turn(601 * SECOND), Turn::Begin);
    }

    #[test]
    fn what_was_looked_at_before_a_restart_counts() {
        let policy = policy(1000, 100 * SECOND);
        assert_eq!(Pace::new(policy, SECOND, Some(30 * SECOND)).turn(SECOND), Turn::Wait(70 * SECOND));
        assert_eq!(Pace::new(policy, SECOND, Some(300 * SECOND)).turn(SECOND), Turn::Begin);
    }
}
