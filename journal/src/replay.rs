//! The one replay loop: entries from wherever they are kept into whatever consumes them, up to a bound.
//!
//! ```text
//!  journal | offline log | batches -> Source -> Replay -> runs -> Machine: image, replica, restored file
//!                                                 ^ bound: min(committed, durable), an LSN, a time
//! ```
//! A run is copied once, so that a source may lend one entry at a time and a machine still writes large pieces.

use std::ops::Range;

use crate::entry::{Entry, Kind};
use crate::lsn::{Lsn, LsnRange};
use crate::machine::Machine;
use crate::time::Time;
use crate::{HEADER_BYTES, Header};

/// Bytes gathered before a machine gets them; the last entry may exceed it.
const RUN_BYTES: usize = 1 << 20;

/// Where a replay reads.
pub trait Source {
    /// What goes wrong there.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The next entry, verified, in log order and without a gap. `None`: there is no more now; a source that follows a
    /// growing log may have more when it is asked again. Blocking.
    fn next_entry(&mut self) -> Result<Option<Entry<'_>>, Self::Error>;
}

impl<S: Source + ?Sized> Source for &mut S {
    type Error = S::Error;

    fn next_entry(&mut self) -> Result<Option<Entry<'_>>, S::Error> {
        (**self).next_entry()
    }
}

impl Source for crate::Entries {
    type Error = crate::Error;

    fn next_entry(&mut self) -> crate::Result<Option<Entry<'_>>> {
        crate::Entries::next_entry(self)
    }
}

impl Source for crate::offline::Entries<'_> {
    type Error = crate::Error;

    fn next_entry(&mut self) -> crate::Result<Option<Entry<'_>>> {
        crate::offline::Entries::next_entry(self)
    }
}

/// How far a replay may go: an entry is replayed when it ends at or below `lsn` and its time is at most `time`.
///
/// A record counts when its last entry is replayed; a bound in the middle of one leaves it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until {
    /// No entry that ends above. For a replica: at most min(committed, durable).
    pub lsn: Lsn,
    /// No entry that is younger.
    pub time: Time,
}

impl Until {
    /// As far as the source goes.
    pub const END: Until = Until { lsn: Lsn::MAX, time: Time::MAX };

    /// Up to this position.
    pub const fn lsn(lsn: Lsn) -> Until {
        Until { lsn, ..Until::END }
    }

    /// Up to this instant.
    pub const fn time(time: Time) -> Until {
        Until { time, ..Until::END }
    }
}

/// Why a replay returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    /// The next entry lies beyond the bound.
    Bound,
    /// The source has no more.
    End,
}

/// What one call of [`Replay::run`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Where the machine stands now.
    pub reached: Lsn,
    /// Entries of any kind and volume passed in this call.
    pub entries: u64,
    /// Time of the last of them.
    pub time: Option<Time>,
    /// Why it stopped here.
    pub stop: Stop,
}

/// Why a replay failed. Call again once the cause is gone: nothing is skipped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError<S, M> {
    /// Reading failed.
    #[error(transparent)]
    Source(S),
    /// The machine failed.
    #[error(transparent)]
    Machine(M),
    /// The source doesn't continue where the machine stands.
    #[error("the replay stands at LSN {expected}, but the next entry there is begins at {found}")]
    Gap {
        /// Where the next entry must begin.
        expected: Lsn,
        /// Where it begins.
        found: Lsn,
    },
}

/// A replay from one source into one machine. Keep it for as long as both live: it remembers an entry that it read but
/// was not allowed to hand over yet.
#[derive(Debug)]
pub struct Replay<S> {
    source: S,
    volume: u16,
    /// What the machine has not taken yet; `None` before the first call.
    run: Option<Run>,
    /// The entry behind the run, which lay beyond an earlier bound.
    held: Option<(Header, Vec<u8>)>,
}

impl<S: Source> Replay<S> {
    /// A replay of one volume: data of others is left out, entries of other kinds are not. The source's first entry must
    /// begin at or below where the machine stands; what the machine has already is skipped.
    pub fn new(source: S, volume: u16) -> Replay<S> {
        Replay { source, volume, run: None, held: None }
    }

    /// Replays from where `machine` stands to `until` or to the source's end, whichever comes first. Blocking.
    ///
    /// When reading fails, the machine has got everything in front of the failure: [`Machine::applied`] says how far.
    pub fn run<M: Machine>(
        &mut self,
        machine: &mut M,
        until: Until,
    ) -> Result<Replayed, ReplayError<S::Error, M::Error>> {
        let mut run = self.run.take().unwrap_or_else(|| Run::begin(machine.applied()));
        let mut done = Replayed { reached: run.to, entries: 0, time: None, stop: Stop::End };
        loop {
            // a run that the machine refused in an earlier call is still full and goes first
            let gathered = self.gather(&mut run, until, &mut done);
            let applied = run.hand_over(machine);
            done.reached = run.from;
            match (applied, gathered) {
                (Ok(()), Ok(None)) => continue,
                (applied, gathered) => {
                    self.run = Some(run);
                    applied.map_err(ReplayError::Machine)?;
                    let stop = gathered?.unwrap_or(Stop::End);
                    return Ok(Replayed { stop, ..done });
                }
            }
        }
    }

    /// Where it reads, for questions about it.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Fills `run`; `None` when it is full.
    fn gather<M>(
        &mut self,
        run: &mut Run,
        until: Until,
        done: &mut Replayed,
    ) -> Result<Option<Stop>, ReplayError<S::Error, M>> {
        while !run.is_full() {
            let held = self.held.take();
            let entry = match &held {
                Some((header, payload)) => Entry { header: *header, payload },
                None => match self.source.next_entry().map_err(ReplayError::Source)? {
                    Some(entry) => entry,
                    None => return Ok(Some(Stop::End)),
                },
            };
            let header = &entry.header;
            let LsnRange { from, to } = header.range();
            if to <= run.to {
                continue;
            }
            if from != run.to {
                return Err(ReplayError::Gap { expected: run.to, found: from });
            }
            if to > until.lsn || header.time > until.time {
                self.held = Some((*header, entry.payload.to_vec()));
                return Ok(Some(Stop::Bound));
            }
            let wanted = header.kind != Some(Kind::Data) || header.volume == self.volume;
            run.push(&entry, wanted);
            done.entries += 1;
            done.time = Some(header.time);
        }
        Ok(None)
    }
}

/// Entries copied next to each other.
#[derive(Debug)]
struct Run {
    from: Lsn,
    to: Lsn,
    headers: Vec<(Header, Range<usize>)>,
    bytes: Vec<u8>,
}

impl Run {
    fn begin(at: Lsn) -> Run {
        Run { from: at, to: at, headers: Vec::new(), bytes: Vec::new() }
    }

    fn is_full(&self) -> bool {
        self.bytes.len() + self.headers.len() * HEADER_BYTES >= RUN_BYTES
    }

    /// Gives the machine what there is; keeps it when the machine fails.
    fn hand_over<M: Machine>(&mut self, machine: &mut M) -> Result<(), M::Error> {
        if self.from < self.to {
            let Run { from, to, headers, bytes } = self;
            let mut entries =
                headers.iter().map(|(header, place)| Entry { header: *header, payload: &bytes[place.clone()] });
            machine.apply(LsnRange::new(*from, *to), &mut entries)?;
            self.from = self.to;
            self.headers.clear();
            self.bytes.clear();
        }
        Ok(())
    }

    /// Steps behind `entry` and keeps it if it is `wanted`.
    fn push(&mut self, entry: &Entry<'_>, wanted: bool) {
        self.to = entry.header.range().to;
        if wanted {
            let from = self.bytes.len();
            self.bytes.extend_from_slice(entry.payload);
            self.headers.push((entry.header, from..self.bytes.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::machine::Assembler;
    use crate::{Draft, Epoch, Flags, StreamId, Term, Tip, crc32c};

    /// A log in memory, verified when it is read, that lends one entry at a time.
    #[derive(Clone, Debug)]
    struct Memory {
        first: Tip,
        tip: Tip,
        bytes: Vec<u8>,
        read: crate::Cursor,
        /// Entries up to here can be read.
        written: usize,
    }

    impl Memory {
        fn new() -> Memory {
            let mut tip = Tip::empty(StreamId::from_bytes([1; 16]));
            (tip.epoch, tip.run_id) = (Epoch { term: Term(1), run: 1 }, 9);
            let read = crate::Cursor::new(crate::Geometry::default(), tip);
            Memory { first: tip, tip, bytes: Vec::new(), read, written: 0 }
        }

        fn push(&mut self, kind: Kind, volume: u16, flags: Flags, payload: &[u8]) -> Lsn {
            let payload_crc = crc32c(payload);
            let draft = Draft { kind, flags, volume, producer: 0, sequence: 0, parts: &[payload], payload_crc };
            draft.lay(&mut self.tip, Time::ZERO, Lsn::ZERO, &mut self.bytes);
            self.written = self.bytes.len();
            self.tip.lsn
        }

        fn record(&mut self, parts: &[&str]) -> Lsn {
            for (number, part) in parts.iter().enumerate() {
                let first = if number == 0 { Flags::FIRST } else { Flags::NONE };
                let last = if number + 1 == parts.len() { Flags::LAST } else { Flags::NONE };
                self.push(Kind::Data, 0, first.with(last), part.as_bytes());
            }
            self.tip.lsn
        }

        fn begin_at(mut self, tip: Tip) -> Memory {
            self.read = crate::Cursor::new(crate::Geometry::default(), tip);
            self
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Broken(crate::Fault);

    impl Source for Memory {
        type Error = Broken;

        fn next_entry(&mut self) -> Result<Option<Entry<'_>>, Broken> {
            let from = self.read.tip().lsn.bytes_since(self.first.lsn) as usize;
            match self.read.next(&self.bytes[from..self.written]).map_err(Broken)? {
                crate::Next::Entry(entry) => Ok(Some(entry)),
                crate::Next::Need(_) => Ok(None),
            }
        }
    }

    /// Remembers whole records; fails as often as it is told.
    #[derive(Debug, Default)]
    struct Sink {
        at: Lsn,
        records: Vec<(Lsn, String)>,
        others: usize,
        runs: usize,
        assembler: Assembler,
        failures: usize,
    }

    impl Sink {
        fn texts(&self) -> Vec<&str> {
            self.records.iter().map(|(_, text)| text.as_str()).collect()
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("no space")]
    struct NoSpace;

    impl Machine for Sink {
        type Error = NoSpace;

        fn apply(&mut self, range: LsnRange, entries: &mut dyn Iterator<Item = Entry<'_>>) -> Result<(), NoSpace> {
            assert_eq!(range.from, self.at, "runs follow each other");
            if let Some(left) = self.failures.checked_sub(1) {
                self.failures = left;
                return Err(NoSpace);
            }
            for entry in entries {
                assert!(entry.header.lsn >= range.from && entry.header.range().to <= range.to);
                if entry.header.kind != Some(Kind::Data) {
                    self.others += 1;
                } else if let Some(record) = self.assembler.push(&entry) {
                    self.records.push((record.end, String::from_utf8_lossy(record.payload).into_owned()));
                }
            }
            self.at = range.to;
            self.runs += 1;
            Ok(())
        }

        fn applied(&self) -> Lsn {
            self.at
        }

        fn checkpoint(&mut self) -> Result<Lsn, NoSpace> {
            Ok(self.at)
        }
    }

    #[test]
    fn every_bound_stops_exactly_there() {
        let mut log = Memory::new();
        log.push(Kind::Mark, 0, Flags::NONE, b"noon");
        let mut ends = vec![log.record(&["one"])];
        ends.push(log.record(&["a", "", "b"]));
        log.push(Kind::Data, 5, Flags::FIRST.with(Flags::LAST), b"another volume's");
        ends.push(log.record(&[""]));
        let end = log.tip.lsn;
        let whole = ["one", "ab", ""];
        let mut steady = Replay::new(log.clone(), 0);
        let mut following = Sink::default();
        for bound in (0..=end.get() + 1).map(Lsn::new) {
            let mut sink = Sink::default();
            let done = Replay::new(log.clone(), 0).run(&mut sink, Until::lsn(bound)).expect("replay");
            let expected = ends.iter().take_while(|record| **record <= bound).count();
            assert_eq!(sink.texts(), whole[..expected], "{bound}");
            assert!(done.reached <= bound && done.reached == sink.at, "{bound}: {done:?}");
            assert_eq!(done.stop, if bound < end { Stop::Bound } else { Stop::End });
            // one replay that follows the bound arrives at the same
            steady.run(&mut following, Until::lsn(bound)).expect("replay");
            assert_eq!((following.texts(), following.at), (sink.texts(), sink.at), "{bound}");
        }
        assert_eq!(following.others, 1);
    }

    #[test]
    fn a_time_bound_takes_the_entry_of_that_instant_and_none_after() {
        let mut log = Memory::new();
        log.record(&["one"]);
        let instant = log.tip.time;
        log.record(&["two"]);
        let before = Time::from_nanos(instant.as_nanos() - 1);
        for (bound, expected) in [(before, &[][..]), (instant, &["one"]), (log.tip.time, &["one", "two"])] {
            let mut sink = Sink::default();
            Replay::new(log.clone(), 0).run(&mut sink, Until::time(bound)).expect("replay");
            assert_eq!(sink.texts(), expected);
        }
    }

    #[test]
    fn what_the_machine_has_is_skipped_and_a_gap_is_refused() {
        let mut log = Memory::new();
        let first = log.record(&["one"]);
        let second = log.tip;
        log.record(&["two"]);
        let mut sink = Sink { at: first, ..Sink::default() };
        let done = Replay::new(log.clone(), 0).run(&mut sink, Until::END).expect("replay");
        assert_eq!((sink.texts(), done.entries), (vec!["two"], 1));
        let mut sink = Sink::default();
        let error = Replay::new(log.clone().begin_at(second), 0).run(&mut sink, Until::END).expect_err("a gap");
        assert!(matches!(error, ReplayError::Gap { expected: Lsn::ZERO, found } if found == first), "{error}");
        let mut sink = Sink { at: Lsn::new(first.get() - 8), ..Sink::default() };
        let error = Replay::new(log, 0).run(&mut sink, Until::END).expect_err("the machine stands inside an entry");
        assert!(matches!(error, ReplayError::Gap { .. }), "{error}");
    }

    #[test]
    fn a_run_that_the_machine_refused_is_handed_over_again() {
        let mut log = Memory::new();
        log.record(&["one"]);
        let bound = log.record(&["two"]);
        log.record(&["three"]);
        let mut sink = Sink { failures: 2, ..Sink::default() };
        let mut replay = Replay::new(log, 0);
        for _ in 0..2 {
            let error = replay.run(&mut sink, Until::lsn(bound)).expect_err("it fails");
            assert!(matches!(error, ReplayError::Machine(NoSpace)));
        }
        replay.run(&mut sink, Until::END).expect("space again");
        assert_eq!(sink.texts(), ["one", "two", "three"]);
    }

    #[test]
    fn damage_stops_it_after_everything_in_front() {
        let mut log = Memory::new();
        let first = log.record(&["one"]);
        log.record(&["two"]);
        *log.bytes.last_mut().expect("a byte") ^= 1;
        let mut sink = Sink::default();
        let error = Replay::new(log, 0).run(&mut sink, Until::END).expect_err("damage");
        assert!(matches!(error, ReplayError::Source(Broken(fault)) if fault.at == first), "{error}");
        assert_eq!((sink.at, sink.texts()), (first, vec!["one"]));
    }

    #[test]
    fn a_growing_source_is_followed_and_runs_are_bounded() {
        let mut log = Memory::new();
        for _ in 0..40_000 {
            log.record(&[""]);
        }
        let all = log.written;
        log.written = 0;
        let mut sink = Sink::default();
        let mut replay = Replay::new(log, 0);
        let done = replay.run(&mut sink, Until::END).expect("replay");
        assert_eq!((done.entries, done.stop), (0, Stop::End));
        replay.source.written = all;
        let done = replay.run(&mut sink, Until::END).expect("replay");
        assert_eq!((done.entries, done.time), (40_000, Some(replay.source.tip.time)));
        assert_eq!(sink.runs, (40_000 * HEADER_BYTES).div_ceil(RUN_BYTES.next_multiple_of(HEADER_BYTES)));
    }

    #[test]
    fn a_source_may_be_borrowed() {
        struct Nothing;
        impl Source for Nothing {
            type Error = Infallible;
            fn next_entry(&mut self) -> Result<Option<Entry<'_>>, Infallible> {
                Ok(None)
            }
        }
        let done = Replay::new(&mut Nothing, 0).run(&mut Sink::default(), Until::END).expect("replay");
        assert_eq!(done.stop, Stop::End);
    }
}
