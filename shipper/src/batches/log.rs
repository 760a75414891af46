//! The journal of this node, as batches are cut from it.

use journal::{Geometry, History, Journal, Lsn, Slice, StreamId, TermSeen, Tip};

use super::BatchLog;

impl BatchLog for Journal {
    type Slice = Slice;

    fn stream(&self) -> StreamId {
        Journal::stream(self)
    }

    fn geometry(&self) -> Geometry {
        Journal::geometry(self)
    }

    fn start(&self) -> Lsn {
        Journal::start(self)
    }

    fn end(&self) -> Lsn {
        self.board().written()
    }

    fn safe(&self) -> Lsn {
        self.board().durable().min(self.board().committed())
    }

    fn history(&self) -> History {
        Journal::history(self)
    }

    fn term(&self) -> TermSeen {
        self.term_seen()
    }

    fn tip_at(&self, lsn: Lsn) -> journal::Result<Option<Tip>> {
        Journal::tip_at(self, lsn)
    }

    fn slice(&self, from: Lsn, bytes_max: usize) -> journal::Result<Option<Slice>> {
        Journal::slice(self, from, bytes_max)
    }
}
