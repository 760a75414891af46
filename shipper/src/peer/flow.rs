//! The streaming part of a peer: what was sent, what was acknowledged, what is announced.

use std::time::Instant;

use journal::{Chain, Lsn, LsnRange, NodeId};
use wire::{Ack, Announce, Place, Ready};

use super::action::{Local, PeerOptions};
use crate::commit::Marks;

/// A session in which entries flow.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    session: u64,
    node: NodeId,
    sent: Lsn,
    /// An order to send is with the driver.
    sending: bool,
    marks: Marks,
    /// It had everything durable once and is not far behind now.
    caught_up: bool,
    announced: Announce,
    announce_due: Instant,
    /// Newest durable acknowledgement.
    durable: Place,
    /// The part of it whose chain was compared.
    proved: Lsn,
    /// A comparison is with the driver.
    proving: Option<Place>,
    prove_due: Instant,
}

/// An acknowledgement that can't be true.
#[derive(Debug)]
pub(crate) struct Nonsense(pub(crate) String);

impl Flow {
    /// The session that begins with `ready`.
    pub(crate) fn new(now: Instant, node: NodeId, ready: Ready) -> Flow {
        let received = ready.end.lsn;
        let durable = ready.durable.min(received);
        Flow {
            session: ready.session,
            node,
            sent: received,
            sending: false,
            marks: Marks { received, durable, ..Marks::default() },
            caught_up: false,
            announced: Announce { session: ready.session, ..Announce::default() },
            announce_due: now,
            durable: Place::default(),
            proved: Lsn::ZERO,
            proving: None,
            prove_due: now,
        }
    }

    pub(crate) fn marks(&self) -> Marks {
        self.marks
    }

    pub(crate) fn caught_up(&self) -> bool {
        self.caught_up
    }

    pub(crate) fn sent_to(&self) -> Lsn {
        self.sent
    }

    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Takes an acknowledgement; one of another session counts for nothing.
    pub(crate) fn ack(&mut self, ack: &Ack, local: &Local) -> Result<(), Nonsense> {
        if ack.session != self.session {
            return Ok(());
        }
        if ack.received > local.written || ack.durable > ack.received {
            let Ack { received, durable, .. } = ack;
            let written = local.written;
            return Err(Nonsense(format!(
                "received {received}, durable {durable}, but only {written} is written here"
            )));
        }
        self.marks.received = self.marks.received.max(ack.received);
        self.marks.applied = self.marks.applied.max(ack.applied);
        self.marks.checkpoint = self.marks.checkpoint.max(ack.checkpoint);
        if ack.durable > self.marks.durable || self.durable == Place::default() {
            self.marks.durable = self.marks.durable.max(ack.durable);
            self.durable = Place { lsn: ack.durable, chain: ack.durable_chain };
        }
        Ok(())
    }

    /// What to send next, and an announcement that goes with it or is due by itself.
    pub(crate) fn pump(
        &mut self,
        now: Instant,
        local: &Local,
        options: &PeerOptions,
    ) -> (Option<Announce>, Option<LsnRange>) {
        let lag = local.written.bytes_since(self.marks.received);
        self.caught_up = (self.caught_up && lag <= options.window_bytes) || self.marks.received >= local.durable;
        let range = self.next_range(local, options);
        let announce = self.announcement(local);
        let goes = announce.is_some() && (range.is_some() || now >= self.announce_due);
        if let Some(announce) = announce.filter(|_| goes) {
            self.announced = announce;
            self.announce_due = now + options.announce_every;
        }
        self.sending |= range.is_some();
        (announce.filter(|_| goes), range)
    }

    /// The driver handed the bytes below `to` to the connection.
    pub(crate) fn sent(&mut self, to: Lsn) {
        self.sending = false;
        self.sent = self.sent.max(to);
    }

    /// A durable acknowledgement to compare with the own log, when it is time.
    pub(crate) fn prove(&mut self, now: Instant, options: &PeerOptions) -> Option<Place> {
        if self.proving.is_some() || self.durable.lsn <= self.proved || now < self.prove_due {
            return None;
        }
        self.prove_due = now + options.remember_every;
        self.proving = Some(self.durable);
        self.proving
    }

    /// The own chain at the place that is compared: the place if it is the same.
    pub(crate) fn proved(&mut self, at: Lsn, chain: Option<Chain>) -> Option<Result<Place, Place>> {
        let place = self.proving.take_if(|place| place.lsn == at)?;
        if chain != Some(place.chain) {
            return Some(Err(place));
        }
        self.proved = place.lsn;
        Some(Ok(place))
    }

    pub(crate) fn poll_timeout(&self, local: &Local) -> Option<Instant> {
        let announce = self.announcement(local).map(|_| self.announce_due);
        let unproved = self.proving.is_none() && self.durable.lsn > self.proved;
        let prove = unproved.then_some(self.prove_due);
        announce.into_iter().chain(prove).min()
    }

    fn next_range(&self, local: &Local, options: &PeerOptions) -> Option<LsnRange> {
        let waiting = local.written.bytes_since(self.sent);
        let under_way = self.sent.bytes_since(self.marks.received);
        let room = options.window_bytes.saturating_sub(under_way);
        // a nearly full window would send crumbs: wait for a quarter of it, or for all that there is
        if self.sending || waiting == 0 || (under_way > 0 && room < waiting.min(options.window_bytes / 4)) {
            return None;
        }
        Some(LsnRange::new(self.sent, self.sent.advance(waiting.min(room.max(1)))))
    }

    fn announcement(&self, local: &Local) -> Option<Announce> {
        let Local { committed, durable, floor, alone, .. } = *local;
        let announce = Announce { session: self.session, committed, durable, floor, alone };
        (announce != self.announced).then_some(announce)
    }
}
