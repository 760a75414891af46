//! The transitions of a peer: what an event leads to.

use std::time::{Duration, Instant};

use journal::{Chain, NodeId};
use wire::{Agreement, Greeting, Message, Place, Ready, Refusal, Start};

use super::flow::Flow;
use super::{Action, Linked, Notice, Peer, PeerOptions, PeerState, Phase, SKEW_MAX, State};

/// Transitions.
impl Peer {
    pub(super) fn linked(&mut self, link: u64) -> Option<&mut Linked> {
        match &mut self.state {
            State::Linked(linked) if link == self.link => Some(linked),
            _ => None,
        }
    }

    pub(super) fn enter(&mut self, phase: Phase) {
        if let State::Linked(linked) = &mut self.state {
            linked.phase = phase;
        }
    }

    pub(super) fn send(&mut self, message: Message) {
        self.actions.push_back(Action::Send { link: self.link, message });
    }

    pub(super) fn notice_greeting(&mut self, own: &Greeting, theirs: &Greeting, remembered: Option<Place>) {
        if own.stream != theirs.stream {
            return;
        }
        let node = theirs.node.id;
        let known = self.remembered.filter(|(of, _)| *of == node).map(|(_, place)| place);
        let remembered = known.into_iter().chain(remembered).max_by_key(|place| place.lsn);
        // what it lost is owed to it again
        self.remembered = known.filter(|place| place.lsn <= theirs.end.lsn).map(|place| (node, place));
        self.missing = remembered.filter(|place| place.lsn > theirs.end.lsn).map(|place| (place, theirs.end.lsn));
        if let Some((place, _)) = self.missing {
            self.actions.push_back(Action::Look { link: self.link, at: place.lsn });
        }
        let skew = i128::from(theirs.clock.as_nanos()) - i128::from(own.clock.as_nanos());
        if skew.unsigned_abs() > SKEW_MAX.as_nanos() {
            let skew_ms = i64::try_from(skew / 1_000_000).unwrap_or(i64::MAX);
            self.actions.push_back(Action::Report(Notice::ClockSkew { skew_ms }));
        }
    }

    pub(super) fn start(&mut self, theirs: NodeId, agreement: Agreement) {
        if let State::Linked(linked) = &mut self.state {
            let start = Start { session: linked.session, agreement: agreement.clone() };
            linked.phase = Phase::Starting { theirs, agreement };
            self.send(Message::Start(start));
        }
    }

    pub(super) fn ready(&mut self, now: Instant, ready: Ready) {
        let State::Linked(linked) = &mut self.state else { return };
        let Phase::Starting { theirs, agreement } = &linked.phase else { return };
        let theirs = *theirs;
        match *agreement {
            Agreement::Stream { from } if ready.end == from => self.stream(now, theirs, ready),
            Agreement::Cut { to, .. } if ready.end.lsn == to => {
                self.enter(Phase::Comparing { theirs, ready });
                self.actions.push_back(Action::Look { link: self.link, at: to });
            }
            Agreement::TakeBack { from, to } if ready.end.lsn == to => {
                self.enter(Phase::TakingBack { theirs, next: from.lsn, ready });
            }
            _ => self.close(now, "ready somewhere else than agreed"),
        }
    }

    pub(super) fn stream(&mut self, now: Instant, theirs: NodeId, ready: Ready) {
        self.trouble = None;
        self.retry_delay = self.options.retry_min;
        // what was taken back is written here, whether or not the driver said so yet
        self.local.written = self.local.written.max(ready.end.lsn);
        let State::Linked(linked) = &mut self.state else { return };
        let mut flow = Flow::new(now, theirs, ready);
        let early = linked.early.take().map_or(Ok(()), |ack| flow.ack(&ack, &self.local));
        linked.phase = Phase::Streaming(flow);
        match early {
            Ok(()) => self.pump(now),
            Err(nonsense) => self.close(now, &nonsense.0),
        }
    }

    pub(super) fn pump(&mut self, now: Instant) {
        let link = self.link;
        let (local, options) = (self.local, &self.options);
        let State::Linked(linked) = &mut self.state else { return };
        let session = linked.session;
        let Phase::Streaming(flow) = &mut linked.phase else { return };
        let (announce, range) = flow.pump(now, &local, options);
        let prove = flow.prove(now, options);
        if let Some(announce) = announce {
            self.actions.push_back(Action::Send { link, message: Message::Announce(announce) });
        }
        if let Some(range) = range {
            self.actions.push_back(Action::SendEntries { link, session, range });
        }
        if let Some(place) = prove {
            self.actions.push_back(Action::Look { link, at: place.lsn });
        }
    }

    /// This side refuses.
    pub(super) fn refuse(&mut self, now: Instant, refusal: Refusal) {
        self.send(Message::Refused(refusal.clone()));
        self.refused(now, refusal);
    }

    /// One of the two sides refused.
    pub(super) fn refused(&mut self, now: Instant, refusal: Refusal) {
        let State::Linked(linked) = &self.state else { return };
        let own = linked.own.term;
        self.actions.push_back(Action::Report(Notice::Refused(refusal.clone())));
        match refusal {
            Refusal::Fenced { receiver: by, .. } if by.term > own.term => {
                self.actions.push_back(Action::Fence { by });
                self.actions
                    .push_back(Action::Close { link: self.link, reason: format!("fenced by term {}", by.term) });
                self.state = State::Fenced { by };
            }
            // a connection of ours that the other side hasn't seen end yet
            Refusal::Busy => self.close(now, "another connection feeds the stream"),
            refusal => self.leave(now, PeerState::Refused(refusal), "refused"),
        }
    }

    /// Ends the connection over something that won't change by itself.
    pub(super) fn leave(&mut self, now: Instant, trouble: PeerState, reason: &str) {
        self.actions.push_back(Action::Close { link: self.link, reason: reason.into() });
        self.retry_delay = self.options.retry_max;
        self.wait(now, Some(trouble));
    }

    /// Ends the connection over something that may be better next time.
    pub(super) fn close(&mut self, now: Instant, reason: &str) {
        self.actions.push_back(Action::Close { link: self.link, reason: reason.into() });
        self.wait(now, Some(PeerState::Unreachable { reason: reason.into() }));
    }

    pub(super) fn wait(&mut self, now: Instant, trouble: Option<PeerState>) {
        self.trouble = trouble;
        let spread = self.spread();
        let until = now + self.retry_delay - spread;
        self.retry_delay = (self.retry_delay * 2).min(self.options.retry_max);
        self.state = State::Waiting { until };
    }

    /// Up to a quarter of the wait, so that many peers don't dial at the same instant.
    pub(super) fn spread(&mut self) -> Duration {
        let quarter = u64::try_from((self.retry_delay / 4).as_nanos()).unwrap_or(u64::MAX);
        if quarter == 0 {
            return Duration::ZERO;
        }
        // xorshift: spreads, nothing more
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        Duration::from_nanos(self.dice % quarter)
    }
}

impl Phase {
    pub(super) fn takes_back(&self) -> bool {
        matches!(self, Phase::TakingBack { .. } | Phase::Starting { agreement: Agreement::TakeBack { .. }, .. })
    }
}

impl Linked {
    pub(super) fn state(&self, options: &PeerOptions, trouble: Option<&PeerState>) -> PeerState {
        match &self.phase {
            Phase::TakingBack { .. } => PeerState::TakingBack,
            Phase::Streaming(_) if self.alive.full => PeerState::Full,
            Phase::Streaming(_) if Duration::from_millis(self.alive.sync_ms.into()) > options.dead_after => {
                PeerState::Stalled { sync_ms: self.alive.sync_ms }
            }
            Phase::Streaming(flow) if flow.caught_up() => PeerState::InSync,
            Phase::Streaming(_) => PeerState::CatchingUp,
            // a refusal stays visible until the next attempt went further
            _ => trouble.cloned().unwrap_or(PeerState::Connecting),
        }
    }
}

pub(super) fn diverged(theirs: Place, own: Option<Chain>) -> Refusal {
    Refusal::Diverged { at: theirs.lsn, primary: own, receiver: Some(theirs.chain) }
}
