//! The journal. Segments behind the one that is written are given up, to be recycled.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use journal::{Geometry, Item, Journal, Lsn, NodeId, Options, Reason, Role, RunOpening, StreamId};

use super::{FILE_BYTES, Log, Named, Use};

pub(super) const LOG: Named = Named { name: "towline-journal", recycles: true, create, recover };

struct Towline {
    journal: Journal,
    /// Where the last segment begins that a durable record was in.
    entered: AtomicU64,
}

fn create(dir: &Path, _: Use) -> Box<dyn Log> {
    let geometry = Geometry::new(FILE_BYTES as u32).expect("a size that a body may have");
    let options = Options { geometry, ..Options::default() };
    let journal = Journal::create(&dir.join("journal"), StreamId::random(), NodeId::random(), Role::Primary, options);
    let journal = journal.expect("create a journal");
    journal.open_run(RunOpening { promote: None, reason: Reason::Created, policy: Vec::new() }).expect("open a run");
    journal.spawn_flusher().expect("a thread");
    Box::new(Towline { journal, entered: AtomicU64::new(0) })
}

fn recover(dir: &Path) -> u64 {
    let journal = Journal::open(&dir.join("journal"), Options::default()).expect("open");
    let mut entries = journal.entries(Lsn::ZERO).expect("entries");
    let mut found = 0;
    while let Some(entry) = entries.next_entry().expect("verified") {
        found += u64::from(entry.header.kind == Some(journal::Kind::Data));
    }
    found
}

impl Log for Towline {
    fn append_durable(&self, _: usize, record: &[u8]) {
        let ticket = self.journal.append(Item::record(&[record])).expect("append");
        let segment = self.journal.geometry().segment_of(ticket.durable().expect("durable").lsn);
        if self.entered.fetch_max(segment.get(), Ordering::Relaxed) < segment.get() {
            self.journal.prune(segment).expect("prune");
        }
    }

    fn append_written(&self, _: usize, record: &[u8]) -> bool {
        self.journal.append(Item::record(&[record])).expect("append").written().expect("written");
        true
    }

    fn append_group(&self, group: &[&[u8]]) {
        let items: Vec<_> = group.iter().map(|record| Item::record(std::slice::from_ref(record))).collect();
        self.journal.append_many(&items).expect("append");
    }

    fn close(self: Box<Self>) {
        self.journal.close().expect("close");
    }
}
