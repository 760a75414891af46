//! The steps of an intake: what an event leads to.

use journal::{Lsn, LsnRange, TermSeen, Verified};
use wire::{Agreement, Greeting, Message, Mode, Place, Ready, Refusal, Start, agree};

use super::session::{Phase, Session};
use super::{Action, Intake, Log, Notice};

/// Why entries can't be taken.
pub(super) enum Break {
    Fault(String),
    Refusal(Refusal),
}

/// Steps.
impl Intake {
    pub(super) fn session_of(&mut self, link: u64) -> Option<&mut Session> {
        self.session.as_mut().filter(|session| session.link == link)
    }

    /// This node's greeting, as far as it is counted here. The log of a node that isn't a receiver isn't.
    pub(super) fn fill(&self, own: Greeting) -> Greeting {
        if self.log.instead.is_some() {
            return Greeting { mode: Mode::Async, term: self.log.term, ..own };
        }
        let Log { tip, durable, committed, applied, term, .. } = &self.log;
        Greeting {
            mode: Mode::Async,
            term: *term,
            opened: false,
            end: Place { lsn: tip.lsn, chain: tip.chain },
            durable: durable.lsn,
            committed: *committed,
            applied: *applied,
            ..own
        }
    }

    /// Refuses a greeting without touching the session that runs.
    pub(super) fn turn_away(&mut self, link: u64, own: Option<Greeting>, refusal: Refusal) {
        self.actions.push_back(Action::Report(Notice::Refused(refusal.clone())));
        let greeting = own.map(|own| Message::Greeting(Box::new(own)));
        for message in greeting.into_iter().chain([Message::Refused(refusal)]) {
            self.actions.push_back(Action::Send { link, message });
        }
        self.actions.push_back(Action::Close { link, reason: "refused".into() });
    }

    /// Answers the greeting: the primary's term is durable here.
    pub(super) fn answer(&mut self) {
        let Some(session) = &mut self.session else { return };
        let Phase::SeeingTerm { own } = &session.phase else { return };
        let own = Greeting { term: self.log.term, ..(**own).clone() };
        let agreement = agree(&session.theirs, &own);
        let link = session.link;
        let refusal = match (&agreement, &self.log.instead) {
            (Agreement::Refused(refusal), _) => Some(refusal.clone()),
            (_, Some(role)) => return self.refuse(Refusal::NotReceiver { role: role.clone() }),
            _ => None,
        };
        session.phase = Phase::Greeted { agreement };
        self.actions.push_back(Action::Send { link, message: Message::Greeting(Box::new(own)) });
        if let Some(refusal) = refusal {
            self.refuse(refusal);
        }
    }

    /// The primary says how to go on.
    pub(super) fn begin(&mut self, start: Start) {
        let Some(session) = &mut self.session else { return };
        let Phase::Greeted { agreement } = &session.phase else { return self.break_off("a second start") };
        if *agreement != start.agreement {
            return self.refuse(Refusal::Disagree);
        }
        let link = session.link;
        match start.agreement {
            Agreement::Stream { .. } => self.ready(start.session),
            Agreement::Cut { to, .. } => {
                session.phase = Phase::Cutting { start };
                self.cutting = true;
                self.actions.push_back(Action::Cut { link, to });
            }
            Agreement::TakeBack { from, to } => {
                session.phase = Phase::Looking { start, range: LsnRange::new(from.lsn, to) };
                self.actions.push_back(Action::Look { link, at: from.lsn });
            }
            Agreement::Base { .. } | Agreement::Refused(_) => self.refuse(Refusal::Disagree),
        }
    }

    pub(super) fn ready(&mut self, session: u64) {
        let Some(current) = &mut self.session else { return };
        current.phase = Phase::Streaming { session };
        let end = Place { lsn: self.log.tip.lsn, chain: self.log.tip.chain };
        let ready = Ready { session, end, durable: self.log.durable.lsn };
        self.actions.push_back(Action::Send { link: current.link, message: Message::Ready(ready) });
    }

    /// Checks that bytes are the next entries of this log, all of them.
    pub(super) fn continue_log<'a>(
        &mut self,
        at: Lsn,
        bytes: &'a [u8],
    ) -> Result<(Verified<'a>, Option<TermSeen>), Break> {
        let tip = *self.cursor.tip();
        if at != tip.lsn {
            return Err(Break::Fault(format!("entries begin at {at}, but the log ends at {}", tip.lsn)));
        }
        let mut cursor = self.cursor;
        let run = cursor.verify(bytes).map_err(|fault| Break::Fault(fault.to_string()))?;
        if run.bytes().len() != bytes.len() {
            return Err(Break::Fault(format!("the entry at {} is not whole", run.last().lsn)));
        }
        let mut seen = self.log.term;
        for term in run.openings().iter().map(|opening| opening.term_seen()) {
            if term.term == seen.term && term.id != seen.id {
                return Err(Break::Refusal(Refusal::SplitBrain { primary: term, receiver: seen }));
            }
            if term.term > seen.term {
                seen = term;
            }
        }
        self.cursor = cursor;
        Ok((run, (seen != self.log.term).then_some(seen)))
    }

    pub(super) fn settle(&mut self) -> Option<Action> {
        let end = self.session.as_ref().filter(|session| session.streams())?.theirs.end.lsn;
        if !self.log.in_doubt || self.log.tip.lsn < end {
            return None;
        }
        self.log.in_doubt = false;
        self.log.rebuilt = false;
        Some(Action::Settle)
    }

    pub(super) fn next_ack(&mut self) -> Option<Action> {
        let session = self.session.as_mut()?;
        let ack = session.next_ack(None, &self.log, self.checkpoint)?;
        Some(Action::Send { link: session.link, message: Message::Ack(ack) })
    }

    pub(super) fn next_sync(&mut self) -> Option<Action> {
        let wanted = self.session.as_ref().is_some_and(Session::wants_sync);
        if !wanted || self.syncing || self.log.tip.lsn <= self.log.durable.lsn {
            return None;
        }
        self.syncing = true;
        Some(Action::Sync { generation: self.generation })
    }

    /// What the replica may show: bounded by what is here, verified and durable. What was announced beyond is forgotten
    /// with the session.
    pub(super) fn next_apply(&mut self) -> Option<Action> {
        let announced = self.session.as_ref().map_or(Lsn::ZERO, |session| session.announced.committed);
        let known = announced.min(self.log.tip.lsn);
        if known > self.log.committed {
            self.log.committed = known;
            return Some(Action::Committed { lsn: known });
        }
        let to = self.log.committed.min(self.log.durable.lsn);
        if to <= self.apply_to {
            return None;
        }
        self.apply_to = to;
        Some(Action::Apply { to })
    }

    /// Ends the session and says why in a typed way.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        if let Some(session) = &self.session {
            let link = session.link;
            self.actions.push_back(Action::Report(Notice::Refused(refusal.clone())));
            self.actions.push_back(Action::Send { link, message: Message::Refused(refusal) });
        }
        self.end("refused");
    }

    /// Ends the session over something that may be better next time.
    pub(super) fn break_off(&mut self, reason: &str) {
        if let Some(session) = &self.session {
            let message = Message::Bye { reason: reason.into() };
            self.actions.push_back(Action::Send { link: session.link, message });
        }
        self.end(reason);
    }

    pub(super) fn end(&mut self, reason: &str) {
        if let Some(session) = self.session.take() {
            self.actions.push_back(Action::Close { link: session.link, reason: reason.into() });
        }
    }
}

/// Refusals for which the session that runs is left alone: the greeting is a stranger's, or an old primary's.
pub(super) fn lasting(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Protocol { .. }
            | Refusal::Stream { .. }
            | Refusal::Geometry { .. }
            | Refusal::SameNode { .. }
            | Refusal::Fenced { .. }
            | Refusal::SplitBrain { .. }
    )
}
