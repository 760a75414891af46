//! The schedule's next cut, for those who wait for it: pure.

use journal::Lsn;

/// A cut that the schedule made while somebody waited for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AwaitedCut {
    /// Whoever has a ticket up to this one waited for it.
    pub ticket: u64,
    /// What was committed and durable when it was made: everything below is to lie in the depot.
    pub to: Lsn,
    /// All of it lay there already.
    pub had_nothing: bool,
    /// Where the depot ended when everything below `to` lay in it; `None`: not yet.
    pub stored: Option<Lsn>,
}

/// Who waits for the next cut, and what became of the last one that was waited for.
///
/// There is one at a time: while a cut isn't in the depot, the next one takes it along, for both get there together.
#[derive(Debug, Default)]
pub(super) struct NextCut {
    asked: u64,
    cut: Option<AwaitedCut>,
}

impl NextCut {
    /// Tickets up to this one wait: for a cut that is made from now on.
    pub(super) fn ask(&mut self, ticket: u64) {
        self.asked = self.asked.max(ticket);
    }

    /// The schedule cuts up to `to`, or finds that there is nothing below it that isn't in the depot.
    pub(super) fn made(&mut self, to: Lsn, had_nothing: bool) {
        if self.cut.map_or(0, |cut| cut.ticket) == self.asked {
            return;
        }
        let before = self.cut.filter(|cut| cut.stored.is_none());
        self.cut = Some(AwaitedCut {
            ticket: self.asked,
            to: before.map_or(to, |before| before.to.max(to)),
            had_nothing: had_nothing && before.is_none(),
            stored: None,
        });
    }

    /// Up to `to` no entry ends behind `end`.
    pub(super) fn ends(&mut self, end: Lsn, to: Lsn) {
        if let Some(cut) = self.cut.as_mut().filter(|cut| cut.to <= to) {
            cut.to = cut.to.min(end);
        }
    }

    /// Everything below `end` lies in the depot.
    pub(super) fn stored(&mut self, end: Lsn) {
        if let Some(cut) = self.cut.as_mut().filter(|cut| cut.stored.is_none() && cut.to <= end) {
            cut.stored = Some(end);
        }
    }

    /// The last cut that was waited for.
    pub(super) fn cut(&self) -> Option<AwaitedCut> {
        self.cut
    }
}
