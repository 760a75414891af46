//! The decision core of the side that keeps a second copy: events and `now` in, [`Action`]s out.
//!
//! ```text
//!  greeting --> SeeingTerm --> Greeted --Start: stream ----------------------> Streaming
//!     |            (higher term    |-----Start: cut -------> Cutting --cut---->   |  entries: verify, write,
//!     |             made durable)  |-----Start: take back -> Looking --equal-->   |  ack, sync, ack
//!     +--> refused (the older session goes on)                                   end of the connection
//! ```
//!
//! # Duties of the driver, in order
//! 1. One intake for a stream; all calls under one lock. Every event carries the number of its connection, a number
//!    never used before for this intake.
//! 2. A greeting is answered only after [`Action::SeeTerm`] is durable.
//! 3. [`Action::Cut`] is answered only when branch and control file are durable; so `Ready` leaves after that.
//! 4. Entries: [`Intake::verify`], make a new term durable if it names one, extend the log in one write, then
//!    [`Intake::handle_written`]. Several in a row may be written before the actions are polled: one acknowledgement and
//!    one sync then serve all.
//! 5. Actions are done in the order they are polled. `Send` of an acknowledgement comes before the `Sync` that follows
//!    it: received leaves before the sync begins. A flush thread that syncs by itself notes [`Intake::generation`]
//!    before the sync and hands it in with the proof; the proof of a log that was cut meanwhile counts for nothing.
//! 6. After a failed sync: [`Intake::handle_sync_failed`]; from then on it acknowledges nothing.
//! 7. The replica applies up to [`Action::Apply`] and never further.

mod action;
mod session;
mod steps;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Instant;

use journal::{Chain, Cursor, Lsn, NodeId, TermSeen, Tip};
use wire::{Agreement, Announce, Greeting, Message, Place, Refusal, agree};

pub use self::action::{Action, Found, IntakeOptions, Log, Notice, Proof};
use self::session::{Phase, Session};
use self::steps::{Break, lasting};

/// What a primary is told that waits for this node before it opens its run.
const FORGETFUL: &str = "its control file was rebuilt: it can't say whether a higher term exists, and follows only a \
                         primary that is open already";

/// One stream that is received.
#[derive(Clone, Debug)]
pub struct Intake {
    options: IntakeOptions,
    log: Log,
    /// Ahead of `log.tip` while a verified run is being written.
    cursor: Cursor,
    checkpoint: Lsn,
    generation: u64,
    /// A sync that was ordered hasn't answered yet.
    syncing: bool,
    /// A cut that was ordered hasn't answered yet: where the log ends is not known.
    cutting: bool,
    apply_to: Lsn,
    failed: Option<String>,
    session: Option<Session>,
    actions: VecDeque<Action>,
}

impl Intake {
    /// The intake of a log.
    pub fn new(options: IntakeOptions, log: Log) -> Intake {
        let cursor = Cursor::new(log.geometry, log.tip);
        let apply_to = log.committed.min(log.durable.lsn);
        Intake {
            options,
            cursor,
            checkpoint: Lsn::ZERO,
            generation: 0,
            syncing: false,
            cutting: false,
            apply_to,
            failed: None,
            session: None,
            actions: VecDeque::new(),
            log,
        }
    }

    /// The log as it is counted here.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Names the log between two cuts: see the duties.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// It came up under another boot id and hasn't reached its primary's end yet: promoting it may lose entries that were
    /// acknowledged as received.
    pub fn in_doubt(&self) -> bool {
        self.log.in_doubt
    }

    /// The primary that feeds it now; `None` unless a session runs.
    pub fn fed_by(&self) -> Option<NodeId> {
        self.session.as_ref().filter(|session| session.streams()).map(|session| session.theirs.node.id)
    }

    /// The connection of the session that runs, or is about to.
    pub fn link(&self) -> Option<u64> {
        self.session.as_ref().map(|session| session.link)
    }

    /// What the primary announced last in the session that runs.
    pub fn announced(&self) -> Option<Announce> {
        self.session.as_ref().filter(|session| session.streams()).map(|session| session.announced)
    }

    /// The next thing to do, until `None`.
    pub fn poll_action(&mut self) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        if self.failed.is_some() {
            return None;
        }
        if let Some(action) = self.settle().or_else(|| self.next_ack()).or_else(|| self.next_sync()) {
            return Some(action);
        }
        self.next_apply()
    }

    /// When [`Intake::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let session = self.session.as_ref()?;
        let dead = session.heard + self.options.dead_after;
        let report = session.report_due(self.log.applied, self.checkpoint);
        report.into_iter().chain([dead]).min()
    }
}

/// Events.
impl Intake {
    /// A primary greets on a new connection. `own`: this node's greeting, taken from the journal now; what this intake
    /// counts itself (end, durable, committed, applied, term) is filled in here.
    pub fn handle_greeting(&mut self, now: Instant, link: u64, theirs: Greeting, own: Greeting) {
        let own = self.fill(own);
        if let Some(reason) = self.failed.clone() {
            return self.turn_away(link, None, Refusal::Unable { reason });
        }
        // a verified run is being written, or a tail is being cut: the end isn't known yet
        let moving = self.cutting || *self.cursor.tip() != self.log.tip;
        if self.log.instead.is_none() && moving {
            return self.turn_away(link, None, Refusal::Busy);
        }
        match agree(&theirs, &own) {
            Agreement::Refused(refusal) if lasting(&refusal) => return self.turn_away(link, Some(own), refusal),
            _ => {}
        }
        if self.log.rebuilt && !theirs.opened && self.log.instead.is_none() {
            // its start gate would take the answer for "knows no higher term", which nobody here can say
            return self.turn_away(link, None, Refusal::Unable { reason: FORGETFUL.into() });
        }
        if let Some(session) = &self.session {
            let same = session.theirs.node.id == theirs.node.id;
            // the term of the session may have begun behind its greeting
            let fed = session.theirs.term.term.max(self.log.term.term);
            if !same && theirs.term.term <= fed {
                return self.turn_away(link, None, Refusal::Busy);
            }
            self.actions.push_back(Action::Report(Notice::Replaced { node: session.theirs.node.id }));
            self.end("a newer connection took its place");
        }
        if let Some(acknowledged) = theirs.remembers.filter(|place| place.lsn > own.end.lsn) {
            self.actions.push_back(Action::Report(Notice::LostDurable { acknowledged, end: own.end.lsn }));
        }
        let term = theirs.term;
        let phase = Phase::SeeingTerm { own: Box::new(own) };
        self.session = Some(Session::new(now, link, theirs, phase, self.options.report_every));
        match term.term > self.log.term.term {
            true => self.actions.push_back(Action::SeeTerm { link, term }),
            false => self.answer(),
        }
    }

    /// The term is durable in the control file.
    pub fn handle_term_seen(&mut self, link: u64, term: TermSeen) {
        if term.term > self.log.term.term {
            self.log.term = term;
        }
        if self.session.as_ref().is_some_and(|session| session.link == link) {
            self.answer();
        }
    }

    /// A message that is neither a greeting nor entries.
    pub fn handle_message(&mut self, now: Instant, link: u64, message: Message) {
        let Some(session) = self.session_of(link) else { return };
        session.heard = now;
        let number = session.number();
        match message {
            Message::Alive(_) => {}
            Message::Start(start) => self.begin(start),
            Message::Announce(announce) if Some(announce.session) == number => session.announced = announce,
            // of a session that ended: counts for nothing
            Message::Announce(_) => {}
            Message::Refused(refusal) => {
                self.actions.push_back(Action::Report(Notice::Refused(refusal)));
                self.end("refused by the primary");
            }
            Message::Bye { reason } => self.end(&reason),
            _ => self.break_off("a message that doesn't belong here"),
        }
    }

    /// Entries arrived. What they continue is checked entry by entry; see [`Found`].
    pub fn verify<'a>(&mut self, now: Instant, link: u64, session: u64, at: Lsn, bytes: &'a [u8]) -> Found<'a> {
        let failed = self.failed.is_some();
        let Some(current) = self.session_of(link) else { return Found::Nothing };
        current.heard = now;
        if current.number() != Some(session) || failed {
            return Found::Nothing;
        }
        match self.continue_log(at, bytes) {
            Ok((run, term)) => Found::Write { run, term },
            Err(Break::Fault(reason)) => {
                self.break_off(&reason);
                Found::Refused
            }
            Err(Break::Refusal(refusal)) => {
                self.refuse(refusal);
                Found::Refused
            }
        }
    }

    /// A verified run stands in the log, which ends at `tip` now (`run.last()`).
    pub fn handle_written(&mut self, tip: Tip) {
        self.log.tip = tip;
    }

    /// A sync returned. `generation` is what [`Intake::generation`] said before it began.
    pub fn handle_durable(&mut self, generation: u64, proof: &impl Proof) {
        if generation != self.generation {
            return;
        }
        self.syncing = false;
        let place = Place { lsn: proof.lsn(), chain: proof.chain() };
        if place.lsn >= self.log.durable.lsn && place.lsn <= self.cursor.tip().lsn {
            self.log.durable = place;
        }
    }

    /// A sync failed: this node acknowledges nothing more until it is started again.
    pub fn handle_sync_failed(&mut self, reason: &str) {
        self.failed = Some(reason.into());
        self.actions.push_back(Action::Report(Notice::Failed { reason: reason.into() }));
        self.refuse(Refusal::Unable { reason: reason.into() });
    }

    /// The log was cut as [`Action::Cut`] asked, durably, and ends at `tip`.
    pub fn handle_cut(&mut self, link: u64, tip: Tip) {
        let end = Place { lsn: tip.lsn, chain: tip.chain };
        self.log.tip = tip;
        self.cursor = Cursor::new(self.log.geometry, tip);
        // a sync in progress covers what is no longer there
        self.generation += 1;
        self.syncing = false;
        self.cutting = false;
        if self.log.durable.lsn > end.lsn {
            self.log.durable = end;
        }
        let Some(session) = self.session_of(link) else { return };
        if let Phase::Cutting { start } = &session.phase {
            let start = start.clone();
            self.ready(start.session);
        }
    }

    /// The own chain at a position that [`Action::Look`] asked for; `None` when no entry ends there.
    pub fn handle_looked(&mut self, link: u64, at: Lsn, chain: Option<Chain>) {
        let Some(session) = self.session_of(link) else { return };
        let Phase::Looking { start, range } = &session.phase else { return };
        let (Agreement::TakeBack { from, .. }, range) = (&start.agreement, *range) else { return };
        if from.lsn != at {
            return;
        }
        if chain != Some(from.chain) {
            let refusal = Refusal::Diverged { at, primary: Some(from.chain), receiver: chain };
            return self.refuse(refusal);
        }
        let session = start.session;
        self.ready(session);
        self.actions.push_back(Action::SendEntries { link, session, range });
    }

    /// The driver couldn't do what was asked: a write, a cut or a read of the own log failed. The connection ends; the
    /// primary is told why. A failed sync is [`Intake::handle_sync_failed`].
    pub fn handle_failed(&mut self, link: u64, reason: &str) {
        self.cursor = Cursor::new(self.log.geometry, self.log.tip);
        self.cutting = false;
        if self.session_of(link).is_some() {
            self.refuse(Refusal::Unable { reason: reason.into() });
        }
    }

    /// What the replica shows, and how much of it needs no replay.
    pub fn handle_applied(&mut self, applied: Lsn, checkpoint: Lsn) {
        self.log.applied = applied;
        self.checkpoint = checkpoint;
    }

    /// The connection ended.
    pub fn handle_disconnected(&mut self, link: u64) {
        if self.session_of(link).is_some() {
            self.session = None;
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(session) = &mut self.session else { return };
        if now >= session.heard + self.options.dead_after {
            let reason = format!("nothing heard for {:?}", self.options.dead_after);
            return self.end(&reason);
        }
        let link = session.link;
        if let Some(ack) = session.next_ack(Some(now), &self.log, self.checkpoint) {
            self.actions.push_back(Action::Send { link, message: Message::Ack(ack) });
        }
    }

    /// This node is no longer a receiver: it was promoted, say. Its term is durable. The session ends; later greetings are
    /// answered and refused.
    pub fn retire(&mut self, instead: &str, term: TermSeen) {
        self.log.term = term;
        self.log.instead = Some(instead.into());
        self.refuse(Refusal::NotReceiver { role: instead.into() });
    }
}
