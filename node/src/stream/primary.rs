//! What runs behind a [`super::Stream`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use journal::{
    Class, End, Epoch, GiveWay, Holder, Journal, Level, Lsn, Reason, Remote, Role, RunOpening, TermSeen, WaitError,
};
use shipper::{
    Event, Links, LinksOptions, Loss, PeerOptions as PeerCore, PeerState, PeerStatus, Policy, Target, WaitShipped,
};
use wire::Mode;

use super::claims::{Claim, Noted};
use super::depots::{AwaitsDepot, Depots};
use super::handle::Handle;
use super::keeper::Keeper;
use super::policy::went_alone;
use super::{StreamBuilder, ended};
use crate::control::{Failure, Promote, Promoted};
use crate::error::{Error, Result};
use crate::options::{AtBudget, PeerOptions, Security};
use crate::promotion::{self, Before};

/// How long a wait goes on before it looks whether the loss of a peer is to be answered with an error.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The parts of a running stream.
#[derive(Debug)]
pub(crate) struct Primary {
    pub(super) name: String,
    pub(super) journal: Journal,
    pub(super) policy: Policy,
    reason: Reason,
    /// Absent when there are no peers: nothing then wakes up but appenders and waiters.
    pub(super) links: OnceLock<Links>,
    pub(super) depots: Depots,
    /// What each peer doesn't have durably, in their order.
    pub(super) peers_claim: Vec<Claim>,
    /// Who is detached, on disk.
    pub(super) noted: Mutex<Noted>,
    keeper: Keeper,
    /// A start asks everybody what they have.
    pub(super) started: Instant,
    /// Holders that had given way when the keeper looked last.
    pub(super) gave_way: AtomicU64,
    /// Records that lie in no depot are kept nowhere else for good: they are not given up for space.
    _without_depot: Option<Holder>,
    /// The run that is open: looked at by every append.
    open: OnceLock<Epoch>,
    /// Peers that are lost from now on were let go.
    closing: AtomicBool,
    /// Held while the run is opened.
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Opening the run failed.
    trouble: Option<String>,
}

/// Starts what the builder has collected.
pub(super) fn start(builder: StreamBuilder) -> Result<super::Stream> {
    let journal = builder.journal.clone();
    match journal.role() {
        Role::Primary => {}
        Role::Fenced if journal.is_rebuilt() => return Err(Error::Rebuilt { stream: builder.name }),
        Role::Fenced => return Err(Error::Fenced { by: journal.term_seen().term }),
        Role::Receiver => return Err(Error::NotPrimary { stream: builder.name, role: "receiver" }),
    }
    let policy = builder.policy();
    policy.check()?;
    let options = links_options(&builder)?;
    let give_way = builder.peers.iter().map(give_way).collect::<Result<Vec<GiveWay>>>()?;
    // before anything is given up: all of it is needed until they say otherwise
    let noted = Noted::read(&builder.spool);
    let claim =
        |(peer, give_way): (&PeerOptions, GiveWay)| noted.claim(&journal, format!("peer {}", peer.name), give_way);
    let peers_claim: Vec<Claim> = builder.peers.iter().zip(give_way).map(claim).collect();
    let without_depot = builder.depots.is_empty().then(|| journal.hold("a stream without a depot", Lsn::ZERO));
    let depots = Depots::start(&builder, &journal, &noted)?;
    // one that keeps all of its log for good needs nobody to look after it
    let looked_after = !depots.is_empty() || !peers_claim.is_empty();
    journal.spawn_flusher()?;
    // a promotion that a crash cut short: its term is durable, and nobody has written in it
    let history = journal.history();
    let unfinished = history.last().is_some() && journal.term_seen().term > history.term_seen().term;
    let promoted = builder.promotion.is_some() || unfinished;
    let primary = Handle::new(Primary {
        name: builder.name,
        journal: journal.clone(),
        reason: match history.last() {
            _ if promoted => Reason::Promoted,
            None => Reason::Created,
            Some(_) => Reason::Started,
        },
        policy,
        links: OnceLock::new(),
        depots,
        peers_claim,
        noted: Mutex::new(noted),
        keeper: Keeper::default(),
        started: Instant::now(),
        gave_way: AtomicU64::new(0),
        _without_depot: without_depot,
        open: OnceLock::new(),
        closing: AtomicBool::new(false),
        state: Mutex::default(),
        changed: Condvar::new(),
    });
    if options.targets.is_empty() {
        let alone = promoted || went_alone(&journal);
        journal.board().set_remote(Remote { promised: Lsn::MAX, alone, ..Remote::default() });
        primary.open()?;
    } else {
        let told = primary.parts();
        let links = Links::start(journal, options, Box::new(move |event| on_event(&told, event)))?;
        let links = primary.links.get_or_init(|| links);
        if builder.promotion.is_some_and(|promotion| !promotion.wait_for_peer) {
            links.waive();
        }
        // it may have opened before anybody could be told
        if links.is_open() {
            primary.open()?;
        }
    }
    if promoted && primary.is_open() {
        // the first entry of the term is written now: from here on it is a fact in the log
        primary.journal.begin_run()?;
        primary.journal.sync()?;
    }
    if looked_after {
        primary.keeper.start(&primary)?;
    }
    Ok(super::Stream { primary })
}

/// Whether a peer may be detached.
fn give_way(peer: &PeerOptions) -> Result<GiveWay> {
    match (peer.mode, peer.at_budget) {
        (Mode::Async, wanted) => Ok(AtBudget::give_way(wanted)),
        (_, Some(AtBudget::Detach)) => Err(Error::Required { peer: peer.name.clone() }),
        (_, None | Some(AtBudget::Block)) => Ok(GiveWay::Never),
    }
}

fn links_options(builder: &StreamBuilder) -> Result<LinksOptions> {
    let security = builder.security.load()?;
    builder.peers.iter().try_for_each(|peer| Security::allows(&security, &peer.address))?;
    let targets = builder.peers.iter().enumerate().map(|(index, peer)| Target {
        peer: PeerCore {
            dead_after: builder.dead_after,
            seed: builder.node.start_id.wrapping_add(index as u64),
            ..PeerCore::new(&peer.name, peer.mode)
        },
        address: peer.address.clone(),
        expect_name: peer.tls_name.clone(),
        on_loss: peer.on_loss,
    });
    Ok(LinksOptions {
        stream_name: builder.name.clone(),
        node: builder.node.clone(),
        security,
        need: builder.need,
        targets: targets.collect(),
    })
}

/// On the link thread.
fn on_event(primary: &Weak<Primary>, event: Event) {
    let Some(primary) = primary.upgrade() else { return };
    let stream = primary.name.as_str();
    match event {
        Event::Open if primary.links.get().is_some() => {
            if let Err(error) = primary.open() {
                tracing::error!(stream, %error, "open a run");
            }
        }
        // whoever starts the stream looks for itself
        Event::Open => {}
        Event::Loss(loss) if !primary.closing.load(Ordering::Relaxed) => match loss {
            Loss::None => tracing::warn!(stream, "every required peer counts again"),
            Loss::Waiting => tracing::warn!(stream, "a required peer is lost: commits wait for it"),
            Loss::Failing => tracing::warn!(stream, "a required peer is lost: commits are answered as unknown"),
            Loss::Alone => {
                tracing::warn!(stream, "a required peer is lost: going on alone, every commit is stamped so")
            }
        },
        Event::Fenced(by) => {
            tracing::error!(stream, term = %by.term, "fenced: a higher term exists; nothing more is acknowledged");
            primary.changed.notify_all();
        }
        Event::Notice { peer, notice } => tracing::warn!(stream, peer, "{}", super::status::notice_text(&notice)),
        other => tracing::debug!(stream, ?other, "link"),
    }
}

impl Primary {
    /// Opens the run, once the gate allows it.
    fn open(&self) -> Result<Epoch> {
        let mut state = self.state();
        if let Some(epoch) = self.epoch() {
            return Ok(epoch);
        }
        let opened = self.open_run(RunOpening { promote: None, reason: self.reason, policy: self.policy.encode() });
        match &opened {
            Ok(epoch) => drop(self.open.set(*epoch)),
            Err(error) => state.trouble = Some(error.to_string()),
        }
        self.changed.notify_all();
        opened
    }

    fn open_run(&self, opening: RunOpening) -> Result<Epoch> {
        match self.links.get() {
            Some(links) => Ok(links.open_run(opening)?),
            None => Ok(self.journal.open_run(opening)?),
        }
    }

    /// The operator's word for a primary that is stuck at its start gate: a higher term, without the peers that are not
    /// there.
    pub(crate) fn promote(&self, wanted: &Promote, id: u64) -> Result<Promoted, Failure> {
        if let Some(end) = self.journal.board().ended() {
            return Err(Failure::from(ended(end, &self.journal)).hint("start this node again first, then promote"));
        }
        let opening_now = self.state();
        let (Some(links), None) = (self.links.get(), self.epoch()) else {
            let failure = Failure::new(Class::Refused, format!("this node is the primary of {} already", self.name));
            return Err(match self.waits_for().is_empty() || self.alone() {
                true => failure,
                false => failure.hint(self.go_on_without()),
            });
        };
        let before = Before { policy: Some(self.policy.clone()), ..Before::of(&self.name, &self.journal) };
        before.doubts_at_the_gate(&links.status().waiting_for).settle(&self.name, wanted.accept_loss)?;
        if wanted.wait_for_peer {
            let message = format!("{} waits for its peers as it is: start them", self.name);
            return Err(Failure::new(Class::Usage, message));
        }
        let kept = self.journal.sync().map_err(Error::from)?.lsn();
        let term = promotion::next_term(&self.journal, id)?;
        links.waive();
        let opening = RunOpening { promote: Some(term), reason: Reason::Promoted, policy: self.policy.encode() };
        let epoch = links.open_run(opening).map_err(Error::from)?;
        let _ = self.open.set(epoch); // under the lock, and seen to be empty: it takes it
        self.changed.notify_all();
        drop(opening_now);
        self.journal.begin_run().map_err(Error::from)?;
        self.journal.sync().map_err(Error::from)?;
        Ok(promotion::promoted(&self.name, term.term, kept, before.loss_at_the_gate(kept), &before, self.alone()))
    }

    /// How an operator ends the wait for a peer that was lost while this node ran.
    pub(super) fn go_on_without(&self) -> String {
        format!("to go on without: stop this node, start it again, then towline promote {} --accept-loss", self.name)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.get().is_some()
    }

    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.open.get().copied()
    }

    /// The stream goes on without a required peer.
    pub(crate) fn alone(&self) -> bool {
        self.journal.board().remote().alone
    }

    pub(super) fn links(&self) -> Option<&Links> {
        self.links.get()
    }

    pub(super) fn depots(&self) -> &Depots {
        &self.depots
    }

    pub(crate) fn has_depots(&self) -> bool {
        !self.depots.is_empty()
    }

    pub(crate) fn ship_now(&self, upto: Lsn) -> Vec<AwaitsDepot> {
        self.depots.ship_now(upto)
    }

    pub(crate) fn next_cuts(&self) -> Vec<AwaitsDepot> {
        self.depots.next_cuts()
    }

    pub(crate) fn wait_shipped(&self, lsn: Lsn, until: Instant) -> Result<(), (String, WaitShipped)> {
        self.depots.wait(lsn, until)
    }

    /// Why everything below `lsn` won't lie in every depot by waiting, if it won't.
    pub(crate) fn out_of_reach(&self, lsn: Lsn) -> Option<Failure> {
        self.depots.out_of_reach(lsn, &self.journal)
    }

    /// The name of a peer that is detached and isn't catching up, if there is one.
    pub(crate) fn detached_peer(&self) -> Option<&str> {
        let peers = self.links.get()?.status().peers;
        let mut detached = self.peers_claim.iter().zip(peers).filter(|(claim, _)| claim.detached().is_some());
        detached.find(|(_, peer)| peer.marks.is_none()).map(|(claim, _)| claim.name())
    }

    pub(crate) fn has_required(&self) -> bool {
        self.policy.required() > 0
    }

    /// Every required peer is connected; without one that is required, every peer.
    pub(crate) fn connected(&self) -> bool {
        let required = self.has_required();
        self.every_peer(|peer| peer.marks.is_some() || (required && peer.mode == Mode::Async))
    }

    /// Every peer has received everything below `lsn`.
    pub(crate) fn in_sync(&self, lsn: Lsn) -> bool {
        self.every_peer(|peer| peer.marks.is_some_and(|marks| marks.received >= lsn))
    }

    fn every_peer(&self, holds: impl Fn(&PeerStatus) -> bool) -> bool {
        self.links.get().is_none_or(|links| links.status().peers.iter().all(holds))
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.state().trouble.clone()
    }

    pub(crate) fn wait_ready(&self, deadline: Option<Instant>) -> Result<Epoch> {
        let mut state = self.state();
        loop {
            if let Some(end) = self.journal.board().ended() {
                return Err(ended(end, &self.journal));
            }
            if let Some(epoch) = self.epoch() {
                return Ok(epoch);
            }
            let now = Instant::now();
            let slice = deadline.map_or(LOOK_EVERY, |deadline| deadline.saturating_duration_since(now).min(LOOK_EVERY));
            if slice.is_zero() {
                drop(state);
                return Err(self.not_ready());
            }
            state = self.changed.wait_timeout(state, slice).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits on the board, syncing for itself and for others; ends when a lost peer's policy says so.
    pub(crate) fn wait(&self, level: Level, lsn: Lsn, deadline: Option<Instant>) -> Result<(), WaitError> {
        self.wait_in_slices(level, lsn, || {
            let now = Instant::now();
            let slice = now + LOOK_EVERY;
            match deadline {
                Some(deadline) if deadline <= now => None,
                Some(deadline) => Some(deadline.min(slice)),
                None => Some(slice),
            }
        })
    }

    /// The same with a wait that is asked again and again how long it may go on; `None` ends it.
    pub(crate) fn wait_in_slices(
        &self,
        level: Level,
        lsn: Lsn,
        mut next: impl FnMut() -> Option<Instant>,
    ) -> Result<(), WaitError> {
        let mut first = true;
        loop {
            // what is reached already is said even when there is no time left
            let until = match next() {
                None if first => Instant::now(),
                None => return Err(WaitError::Unknown { lsn }),
                Some(until) => until,
            };
            match self.journal.wait(level, lsn, Some(until)) {
                Err(WaitError::Unknown { .. }) if !self.failing() => first = false,
                outcome => return outcome,
            }
        }
    }

    /// A required peer is lost, and waits are to be answered with an error.
    fn failing(&self) -> bool {
        self.links.get().is_some_and(|links| links.loss() == Loss::Failing)
    }

    /// Required peers that the start gate or a commit waits for now, by name and address.
    pub(crate) fn waits_for(&self) -> Vec<String> {
        let Some(links) = self.links.get() else { return Vec::new() };
        let status = links.status();
        let waiting = |name: &String| status.waiting_for.contains(name) || status.lost.contains(name);
        let peers = status.peers.iter().filter(|peer| waiting(&peer.name));
        peers.map(PeerStatus::called).collect()
    }

    /// Why it takes no appends.
    pub(crate) fn not_ready(&self) -> Error {
        if let Some(end) = self.journal.board().ended() {
            return ended(end, &self.journal);
        }
        let refused = self.refused();
        Error::NotReady {
            stream: self.name.clone(),
            waits_for: self.waits_for(),
            trouble: self.trouble().or_else(|| refused.as_ref().map(|(_, text)| text.clone())),
            refused: refused.map(|(class, _)| class),
        }
    }

    /// Why a peer that is waited for won't connect, when trying again doesn't help.
    pub(super) fn refused(&self) -> Option<(Class, String)> {
        let status = self.links.get()?.status();
        let waits = |name: &String| status.waiting_for.contains(name) || status.lost.contains(name);
        let waited = status.peers.into_iter().filter(|peer| waits(&peer.name));
        let mut lasting = waited.filter_map(|peer| match (peer.state, peer.trouble) {
            (PeerState::Refused(refusal), _) if !refusal.is_transient() => {
                Some((refusal.class(), format!("{} refused: {refusal}", peer.name)))
            }
            // what went wrong before, and doesn't any more, is no reason
            (PeerState::Unreachable { reason }, Some(trouble))
                if trouble.text == reason && matches!(trouble.class, Class::Refused | Class::Incompatible) =>
            {
                Some((trouble.class, format!("{}: {reason}", peer.name)))
            }
            _ => None,
        });
        lasting.next()
    }

    /// Ends links, then the journal. What waits ends as unknown.
    pub(super) fn close(&self) -> Result<()> {
        self.closing.store(true, Ordering::Relaxed);
        if let Some(links) = self.links.get() {
            match self.journal.board().ended() {
                Some(End::Failed(reason)) => links.stop(&format!("the primary failed: {reason}")),
                _ => links.stop("the primary is stopping"),
            }
        }
        self.keeper.stop();
        self.depots.stop();
        Ok(self.journal.clone().close()?)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a higher term durable, and this node its primary. What follows is a start like any other.
pub(crate) fn take_over(journal: &Journal, term: TermSeen) -> Result<Lsn> {
    let kept = journal.sync()?.lsn();
    // the term first: it fences the old primary, and a crash behind it leaves a receiver that nobody writes to
    journal.see_term(term)?;
    journal.set_role(Role::Primary)?;
    Ok(kept)
}
