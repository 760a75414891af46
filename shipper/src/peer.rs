//! The decision core of one destination that keeps the log: events and `now` in, [`Action`]s out.
//!
//! ```text
//!  Waiting --timeout--> Dialling --connected--> Greeting --their greeting--> Looking --chain equal--> Starting
//!     ^                                            |  \---- cut, take-back ------------------------->  |
//!     |                                            |                                                   | Ready
//!     |                    Comparing <-- cut ------+---------------------------------------------------+
//!     |                        |    TakingBack <---- take-back ----------------------------------------|
//!     |                        v        v                                                              |
//!     +--- any end ------- Streaming <--------------------- stream ------------------------------------+
//!                                            any --- a higher term ---> Fenced
//! ```
//!
//! # Duties of the driver
//! 1. Every action carries the number of its connection; events of a connection are handed in with that number. What
//!    belongs to another connection than the current one is dropped here, so late events are harmless.
//! 2. The greeting handed to [`Peer::handle_connected`] is taken from the journal at that moment; the term in it is
//!    durable.
//! 3. [`Action::Fence`]: stop every acknowledgement of the stream first, then make term and role durable. Nothing may be
//!    acknowledged in between.
//! 4. After each batch of events: `marks()` of every peer into [`crate::Gate::update`], its `remote` to the board, before
//!    anybody waits again. So the acknowledgements of an ended connection count for nothing at once.
//! 5. A run is opened only while the gate is open, and [`Peer::handle_local`] says so with `opened` before the first entry
//!    of the run is written.
//! 6. Poll actions until there are none, after every call; call [`Peer::handle_timeout`] at [`Peer::poll_timeout`].

mod action;
mod flow;
mod steps;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use journal::{Chain, Lsn, LsnRange, NodeId, TermSeen};
use wire::{Ack, Agreement, Alive, Greeting, Message, Place, Ready, Refusal, agree};

pub use self::action::{Action, Local, Notice, PeerOptions, PeerState};
use self::flow::Flow;
use self::steps::diverged;
use crate::commit::Marks;

/// Clocks that differ by more are reported.
const SKEW_MAX: Duration = Duration::from_secs(5);

/// One destination that keeps the log.
#[derive(Clone, Debug)]
pub struct Peer {
    options: PeerOptions,
    state: State,
    /// Number of the newest connection.
    link: u64,
    retry_delay: Duration,
    dice: u64,
    local: Local,
    remembered: Option<(NodeId, Place)>,
    /// Acknowledged as durable and not there any more: lost, if its chain still stands in our log.
    missing: Option<(Place, Lsn)>,
    trouble: Option<PeerState>,
    actions: VecDeque<Action>,
}

/// Transitions: see the diagram at the top of the file.
#[derive(Clone, Debug)]
enum State {
    Waiting { until: Instant },
    Dialling { since: Instant },
    Linked(Box<Linked>),
    Fenced { by: TermSeen },
    Stopped,
}

/// A connection that is up.
#[derive(Clone, Debug)]
struct Linked {
    session: u64,
    own: Greeting,
    heard: Instant,
    alive_due: Instant,
    alive: Alive,
    /// An acknowledgement of this session that came before entries flow.
    early: Option<Ack>,
    phase: Phase,
}

#[derive(Clone, Debug)]
enum Phase {
    Greeting,
    Looking { theirs: NodeId, at: Place },
    Starting { theirs: NodeId, agreement: Agreement },
    Comparing { theirs: NodeId, ready: Ready },
    TakingBack { theirs: NodeId, next: Lsn, ready: Ready },
    Streaming(Flow),
}

impl Peer {
    /// A destination that is dialled at once.
    pub fn new(now: Instant, options: PeerOptions) -> Peer {
        Peer {
            state: State::Waiting { until: now },
            link: 0,
            retry_delay: options.retry_min,
            dice: options.seed | 1,
            local: Local::default(),
            remembered: None,
            missing: None,
            trouble: None,
            actions: VecDeque::new(),
            options,
        }
    }

    /// What was asked for.
    pub fn options(&self) -> &PeerOptions {
        &self.options
    }

    /// What the peer acknowledged on the connection that is up; `None` unless one counts: greetings agreed, a cut or a
    /// take-back done.
    pub fn marks(&self) -> Option<Marks> {
        match &self.state {
            State::Linked(linked) => match &linked.phase {
                Phase::Streaming(flow) => Some(flow.marks()),
                _ => None,
            },
            _ => None,
        }
    }

    /// The last place that this peer acknowledged as durable and whose chain stands in our log: what is owed to it
    /// below is forgotten.
    pub fn remembered(&self) -> Option<Place> {
        self.remembered.map(|(_, place)| place)
    }

    /// For status.
    pub fn state(&self) -> PeerState {
        match &self.state {
            State::Stopped => PeerState::Stopped,
            State::Fenced { by } => PeerState::Fenced { by: *by },
            State::Waiting { .. } | State::Dialling { .. } => self.trouble.clone().unwrap_or(PeerState::Connecting),
            State::Linked(linked) => linked.state(&self.options, self.trouble.as_ref()),
        }
    }

    /// The next thing to do, until `None`.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Peer::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { until } => Some(*until),
            State::Dialling { since } => Some(*since + self.options.dead_after),
            State::Linked(linked) => {
                let flow = match &linked.phase {
                    Phase::Streaming(flow) => flow.poll_timeout(&self.local),
                    _ => None,
                };
                flow.into_iter().chain([linked.heard + self.options.dead_after, linked.alive_due]).min()
            }
            State::Fenced { .. } | State::Stopped => None,
        }
    }
}

/// Events.
impl Peer {
    /// The connection is up and both ends are authenticated. `session` is a fresh random number; `own` is this node's
    /// greeting, taken from the journal now (`mode` and `remembers` are filled in here).
    pub fn handle_connected(&mut self, now: Instant, link: u64, session: u64, mut own: Greeting) {
        if link != self.link || !matches!(self.state, State::Dialling { .. }) {
            return self.actions.push_back(Action::Close { link, reason: "no longer wanted".into() });
        }
        own.mode = self.options.mode;
        own.remembers = self.remembered();
        let message = Message::Greeting(Box::new(own.clone()));
        self.actions.push_back(Action::Send { link, message });
        let alive_due = now + self.options.alive_every;
        let linked = Linked {
            session,
            own,
            heard: now,
            alive_due,
            alive: Alive::default(),
            early: None,
            phase: Phase::Greeting,
        };
        self.state = State::Linked(Box::new(linked));
    }

    /// Dialling failed, or the connection ended.
    pub fn handle_disconnected(&mut self, now: Instant, link: u64, reason: &str) {
        let current = matches!(self.state, State::Dialling { .. } | State::Linked(_));
        if link == self.link && current {
            self.wait(now, Some(PeerState::Unreachable { reason: reason.into() }));
        }
    }

    /// The driver couldn't do what an action asked (a read or a write of the own log failed).
    pub fn handle_failed(&mut self, now: Instant, link: u64, reason: &str) {
        if self.linked(link).is_some() {
            self.close(now, reason);
        }
    }

    /// This node's watermarks changed.
    pub fn handle_local(&mut self, now: Instant, local: Local) {
        self.local = local;
        let link = self.link;
        if local.opened
            && let Some(linked) = self.linked(link)
            && linked.phase.takes_back()
        {
            return self.close(now, "a run was opened while a tail was to be taken back");
        }
        self.pump(now);
    }

    /// The receiver's greeting. `remembered`: what the control file keeps of that node.
    pub fn handle_greeting(&mut self, now: Instant, link: u64, theirs: &Greeting, remembered: Option<Place>) {
        let opened = self.local.opened;
        let Some(linked) = self.linked(link) else { return };
        linked.heard = now;
        if !matches!(linked.phase, Phase::Greeting) {
            return self.close(now, "a second greeting");
        }
        let agreement = agree(&linked.own, theirs);
        let own = linked.own.clone();
        self.notice_greeting(&own, theirs, remembered);
        match agreement {
            Agreement::Refused(refusal) => self.refuse(now, refusal),
            Agreement::Base { receiver_end, primary_start } => {
                let reason =
                    format!("the primary's log begins at {primary_start}, above your end {receiver_end}: load a base");
                self.send(Message::Refused(Refusal::Unable { reason }));
                self.leave(now, PeerState::NeedsBase { receiver_end, primary_start }, "needs a base");
            }
            Agreement::Stream { from } => {
                self.enter(Phase::Looking { theirs: theirs.node.id, at: from });
                self.actions.push_back(Action::Look { link, at: from.lsn });
            }
            // the greeting is older than the run: greet again
            Agreement::TakeBack { .. } if opened && !own.opened => self.close(now, "a run was opened meanwhile"),
            Agreement::TakeBack { from, to } => {
                let tail = LsnRange::new(from.lsn, to);
                self.actions.push_back(Action::Report(Notice::TakesBack { tail }));
                self.start(theirs.node.id, agreement);
            }
            Agreement::Cut { tail, .. } => {
                self.actions.push_back(Action::Report(Notice::Cuts { tail }));
                self.start(theirs.node.id, agreement);
            }
        }
    }

    /// The own chain at a position that [`Action::Look`] asked for; `None` when no entry ends there.
    pub fn handle_looked(&mut self, now: Instant, link: u64, at: Lsn, chain: Option<Chain>) {
        // a log that was cut since, here, owes us nothing there
        if let Some((acknowledged, end)) = self.missing.take_if(|(place, _)| place.lsn == at)
            && chain == Some(acknowledged.chain)
        {
            self.actions.push_back(Action::Report(Notice::LostDurable { acknowledged, end }));
        }
        let Some(linked) = self.linked(link) else { return };
        match &mut linked.phase {
            Phase::Looking { theirs, at: place } if place.lsn == at => {
                let (theirs, place) = (*theirs, *place);
                if chain == Some(place.chain) {
                    return self.start(theirs, Agreement::Stream { from: place });
                }
                self.refuse(now, diverged(place, chain));
            }
            Phase::Comparing { theirs, ready } if ready.end.lsn == at => {
                let (theirs, ready) = (*theirs, *ready);
                if chain == Some(ready.end.chain) {
                    return self.stream(now, theirs, ready);
                }
                self.refuse(now, diverged(ready.end, chain));
            }
            Phase::Streaming(flow) => {
                let node = flow.node();
                match flow.proved(at, chain) {
                    Some(Ok(place)) => {
                        self.remembered = Some((node, place));
                        self.actions.push_back(Action::Remember { node, place });
                    }
                    Some(Err(place)) => self.refuse(now, diverged(place, chain)),
                    None => {}
                }
            }
            _ => {}
        }
    }

    /// The driver handed the entries below `to` to the connection.
    pub fn handle_sent(&mut self, now: Instant, link: u64, to: Lsn) {
        if let Some(Linked { phase: Phase::Streaming(flow), .. }) = self.linked(link) {
            let before = flow.sent_to();
            flow.sent(to);
            if to > before {
                self.pump(now);
            }
        }
    }

    /// The own log was extended by entries of a take-back; it ends at `end` now.
    pub fn handle_extended(&mut self, now: Instant, link: u64, end: Place) {
        let Some(Linked { phase: Phase::TakingBack { theirs, ready, .. }, .. }) = self.linked(link) else { return };
        let (theirs, ready) = (*theirs, *ready);
        if end == ready.end {
            self.stream(now, theirs, ready);
        } else if end.lsn >= ready.end.lsn {
            self.refuse(now, diverged(ready.end, Some(end.chain)));
        }
    }

    /// A message other than a greeting arrived.
    pub fn handle_message(&mut self, now: Instant, link: u64, message: Message) {
        let local = self.local;
        let Some(linked) = self.linked(link) else { return };
        linked.heard = now;
        let session = linked.session;
        match (message, &mut linked.phase) {
            (Message::Alive(alive), _) => linked.alive = alive,
            (Message::Refused(refusal), _) => self.refused(now, refusal),
            (Message::Bye { reason }, _) => self.close(now, &reason),
            (Message::Ready(ready), Phase::Starting { .. }) if ready.session == session => self.ready(now, ready),
            (Message::Ack(ack), Phase::Streaming(flow)) => match flow.ack(&ack, &local) {
                Ok(()) => self.pump(now),
                Err(nonsense) => self.close(now, &nonsense.0),
            },
            (Message::Entries { session: of, at, bytes }, Phase::TakingBack { next, .. }) => {
                if of == session && at == *next && !bytes.is_empty() {
                    *next = at.advance(bytes.len() as u64);
                    return self.actions.push_back(Action::Extend { link, at, bytes });
                }
                self.close(now, "entries that don't continue what is taken back");
            }
            (Message::Ack(ack), Phase::Comparing { .. } | Phase::TakingBack { .. }) if ack.session == session => {
                linked.early = Some(ack);
            }
            // of a session that ended: counts for nothing
            (Message::Ack(ack), _) if ack.session != session => {}
            (Message::Ready(ready), _) if ready.session != session => {}
            (Message::Entries { session: of, .. }, _) if of != session => {}
            _ => self.close(now, "a message that doesn't belong here"),
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::Waiting { until } if now >= *until => {
                self.link += 1;
                self.state = State::Dialling { since: now };
                self.actions.push_back(Action::Connect { link: self.link });
            }
            State::Dialling { since } if now >= *since + self.options.dead_after => {
                self.close(now, "no connection in time")
            }
            State::Linked(linked) if now >= linked.heard + self.options.dead_after => {
                let reason = format!("nothing heard for {:?}", self.options.dead_after);
                self.close(now, &reason);
            }
            State::Linked(linked) => {
                if now >= linked.alive_due {
                    linked.alive_due = now + self.options.alive_every;
                    let Local { sync_ms, full, .. } = self.local;
                    self.send(Message::Alive(Alive { sync_ms, full }));
                }
                self.pump(now);
            }
            _ => {}
        }
    }

    /// Ends the connection and greets again at once: the term was raised, or the role changed back to primary.
    pub fn restart(&mut self, now: Instant) {
        if matches!(self.state, State::Dialling { .. } | State::Linked(_)) {
            self.actions.push_back(Action::Close { link: self.link, reason: "greets again".into() });
        }
        self.trouble = None;
        self.state = State::Waiting { until: now };
    }

    /// Ends the connection for good.
    pub fn stop(&mut self, reason: &str) {
        if matches!(self.state, State::Linked(_)) {
            self.send(Message::Bye { reason: reason.into() });
        }
        if matches!(self.state, State::Dialling { .. } | State::Linked(_)) {
            self.actions.push_back(Action::Close { link: self.link, reason: reason.into() });
        }
        if !matches!(self.state, State::Fenced { .. }) {
            self.state = State::Stopped;
        }
    }
}
