//! A journal that no node holds open, as a restore reads it.

use std::path::Path;

use archive::{Run, Tail, TailEntries};
use journal::offline::{Entries, Log};
use journal::{Entry, Geometry, Lsn, StreamId, Tip};

use crate::exit::Failure;

/// A journal on disk.
#[derive(Debug)]
pub(crate) struct Offline(Log);

impl Offline {
    /// Looks at the journal in `dir`; changes nothing.
    pub(crate) fn open(dir: &Path) -> Result<Offline, Failure> {
        Ok(Offline(Log::open(dir)?))
    }
}

impl Tail for Offline {
    fn path(&self) -> &Path {
        self.0.dir()
    }

    fn stream(&self) -> StreamId {
        self.0.stream()
    }

    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn start(&self) -> Lsn {
        self.0.start()
    }

    fn near_end(&self) -> Lsn {
        let durable = self.0.evidence();
        let known = self.0.segments().iter().rev().map(|segment| segment.tip.lsn).find(|lsn| *lsn <= durable);
        known.unwrap_or_default().max(self.start())
    }

    fn runs(&self) -> Vec<Run> {
        let openings = self.0.history().openings().iter();
        openings.map(|opening| Run { epoch: opening.epoch, run_id: opening.run_id, first: opening.first }).collect()
    }

    fn read(&self, from: Lsn) -> archive::Result<Box<dyn TailEntries + '_>> {
        Ok(Box::new(Walk(self.0.entries(Some(from))?)))
    }
}

struct Walk<'a>(Entries<'a>);

impl TailEntries for Walk<'_> {
    fn tip(&self) -> Tip {
        *self.0.tip()
    }

    fn next_entry(&mut self) -> archive::Result<Option<Entry<'_>>> {
        Ok(self.0.next_entry()?)
    }
}

#[cfg(test)]
mod tests {
    use archive::Coverage;
    use journal::{Item, Journal, NodeId, Options, Reason, Role, RunOpening};

    use super::*;

    /// What the ends of a journal say is what all of it says: over many runs, segments, kills and prunes.
    #[test]
    fn the_ends_of_a_journal_say_what_all_of_it_says() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("journal");
        let geometry = Geometry::new(64 << 10).expect("a size");
        let options = || Options { geometry, ..Options::default() };
        let made = Journal::create(&path, StreamId::random(), NodeId::random(), Role::Primary, options());
        made.and_then(Journal::close).expect("made");
        let same = || {
            let offline = Offline::open(&path).expect("looks");
            let (scan, ends) = (Coverage::scan(&offline).expect("reads"), Coverage::ends(&offline).expect("reads"));
            assert_eq!(ends, scan);
            scan.runs.len()
        };
        let mut most = same();
        for run in 0..40u32 {
            let journal = Journal::open(&path, options()).expect("opens");
            journal.open_run(RunOpening { promote: None, reason: Reason::Started, policy: Vec::new() }).expect("a run");
            for number in 0..run % 7 {
                let record = vec![7; 9000 * number as usize];
                let ticket = journal.append(Item::record(&[&record])).expect("appends");
                match number % 2 {
                    0 => drop(ticket.durable().expect("durable")),
                    _ => drop(ticket.written().expect("written")),
                }
            }
            most = most.max(same());
            if run % 5 == 4 {
                let all = journal.board().written();
                journal.prune(geometry.segment_of(all)).expect("prunes");
                same();
            }
            // half of them end as a kill would end them
            if run % 2 == 0 {
                journal.close().expect("closes");
            }
        }
        assert!(most > 3, "{most} runs");
    }
}
