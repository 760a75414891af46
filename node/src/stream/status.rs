//! How a stream is, on its primary.

use jiff::Timestamp;
use journal::{End, Journal, Level, Lsn, Time};
use shipper::{Links, Loss, Marks, Notice, PeerState, PeerStatus};
use wire::Mode;

use super::claims::Claim;
use super::primary::Primary;
use crate::status::{DestinationStatus, KeptFor, Lag, RoleName, State, StreamStatus, Watermarks};

/// The part of a stream's status that every role has.
pub(crate) fn fill_status(name: &str, role: RoleName, state: State, journal: &Journal) -> StreamStatus {
    let board = journal.board();
    let at = Watermarks {
        start: journal.start().get(),
        written: board.written().get(),
        durable: board.durable().get(),
        committed: journal.committed().get(),
        ..Watermarks::default()
    };
    let mut status = StreamStatus {
        name: name.into(),
        id: journal.stream().to_string(),
        role,
        state,
        term: journal.term_seen().term.0,
        run: None,
        mode_asked: None,
        mode_in_force: None,
        at,
        kept_for: journal.kept_for().map(|held| KeptFor { who: held.name, from: held.needs.get() }),
        destinations: Vec::new(),
        source: None,
        in_doubt: false,
        scrub: None,
        waits_for: Vec::new(),
        notes: recovery_notes(journal),
        next_step: None,
    };
    if let Some(end) = board.ended() {
        end_status(&mut status, &end);
    }
    status
}

/// The status of a stream whose journal can't be opened.
pub(crate) fn closed_status(name: &str, why: &str, hint: Option<String>) -> StreamStatus {
    StreamStatus {
        name: name.into(),
        id: String::new(),
        role: RoleName::Receiver,
        state: State::Failed,
        term: 0,
        run: None,
        mode_asked: None,
        mode_in_force: None,
        at: Watermarks::default(),
        kept_for: None,
        destinations: Vec::new(),
        source: None,
        in_doubt: false,
        scrub: None,
        waits_for: Vec::new(),
        notes: vec![why.into()],
        next_step: hint,
    }
}

impl Primary {
    /// How the stream is now.
    pub(crate) fn status(&self) -> StreamStatus {
        let board = self.journal.board();
        let links = self.links().map(Links::status);
        let (epoch, alone) = (self.epoch(), self.alone());
        let waits_for = self.waits_for();
        let loss = links.as_ref().map(|links| links.loss).unwrap_or_default();
        let state = match epoch {
            None => State::Waiting,
            Some(_) if alone => State::Alone,
            Some(_) if matches!(loss, Loss::Waiting | Loss::Failing) => State::Blocked,
            Some(_) => State::Open,
        };
        let mut status = fill_status(&self.name, RoleName::Primary, state, &self.journal);
        status.run = epoch.map(|epoch| epoch.run);
        let asked = self.policy.members.iter().map(|member| member.mode).max().unwrap_or(Mode::Async);
        status.mode_asked = Some(mode_name(asked).into());
        if self.policy.required() > 0 {
            status.at.received = Some(board.reached(Level::Received).get());
            status.at.peer_durable = Some(board.reached(Level::PeerDurable).get());
        }
        let staying = links.iter().flat_map(|links| &links.peers);
        let staying = staying.filter(|peer| peer.mode != Mode::Async && peer.marks.is_some());
        let connected: Vec<String> = staying.clone().map(PeerStatus::called).collect();
        let staying: Vec<String> =
            staying.map(|peer| format!("{} with {}", mode_name(peer.mode), peer.called())).collect();
        if let Some(links) = links {
            let peers = links.peers.iter().zip(&self.peers_claim);
            status.destinations = peers.map(|(peer, claim)| peer_status(&self.journal, peer, claim)).collect();
        }
        status.destinations.extend(self.depots().status(&self.journal));
        if board.ended().is_some() {
            return status;
        }
        status.notes.extend(self.trouble());
        status.mode_in_force = match state {
            State::Open => Some(mode_name(asked).into()),
            State::Alone if staying.is_empty() => Some("async: what is acknowledged is durable here alone".into()),
            State::Alone => Some(format!("{}; not with everybody required", staying.join(", "))),
            _ => None,
        };
        if !waits_for.is_empty() {
            let peers = waits_for.join(" and ");
            status.next_step = Some(match state {
                State::Waiting => {
                    let step = match self.refused() {
                        Some((_, why)) => format!("{why}. Mended, it connects by itself"),
                        None => format!("start {peers}"),
                    };
                    format!("{step}; to go on without: towline promote {} --accept-loss", self.name)
                }
                State::Blocked => {
                    let step = match self.refused() {
                        Some((_, why)) => format!("{why}. Mended, it connects by itself"),
                        None if waits_for.iter().all(|peer| connected.contains(peer)) => {
                            format!("wait until {peers} has caught up: commits wait for it")
                        }
                        None => format!("bring back {peers}: commits wait for it"),
                    };
                    format!("{step}; {}", self.go_on_without())
                }
                _ => format!("bring back {peers}: it catches up by itself"),
            });
            let what = |peer: &String| if connected.contains(peer) { "to catch up" } else { "to connect" };
            status.waits_for = waits_for.iter().map(|peer| format!("{peer} {}", what(peer))).collect();
        } else if let Some(detached) = status.destinations.iter().find_map(|destination| destination.detached.as_ref())
        {
            status.next_step = Some(detached.next_step.clone());
        } else if state == State::Alone {
            status.next_step = Some("add a peer (--to HOST:PORT,mode=sync): nothing is kept elsewhere".into());
        }
        status
    }
}

/// What is left for a peer that lacks what is gone.
const PEER_GONE: &str = "it keeps what it has, and nothing more is sent to it (a full copy can't be made yet)";

fn peer_status(journal: &Journal, peer: &PeerStatus, claim: &Claim) -> DestinationStatus {
    let detached = claim.detached_status(journal.start(), PEER_GONE);
    let marks = peer.marks;
    let at = |pick: fn(&Marks) -> Lsn| marks.as_ref().map(pick);
    let lag = |at: Option<Lsn>| at.map(|at| lag(journal, at));
    let (received, durable, applied) =
        (at(|marks| marks.received), at(|marks| marks.durable), at(|marks| marks.applied));
    DestinationStatus {
        name: peer.name.clone(),
        kind: "peer".into(),
        at: peer.address.clone(),
        mode: mode_name(peer.mode).into(),
        required: peer.mode != Mode::Async,
        state: if detached.is_some() { "detached".into() } else { state_text(&peer.state) },
        met: peer.node.is_some(),
        received: received.map(Lsn::get),
        durable: durable.map(Lsn::get),
        applied: applied.map(Lsn::get),
        lag_received: lag(received),
        lag_durable: lag(durable),
        lag_applied: lag(applied),
        last_contact_ms: peer.last_contact.map(|at| Time::now().since(at).as_millis() as u64),
        next_due: None,
        cut_early: None,
        last_error: match &peer.state {
            PeerState::InSync | PeerState::CatchingUp => None,
            PeerState::Unreachable { reason } => Some(reason.clone()),
            PeerState::Refused(refusal) => Some(refusal.to_string()),
            state @ PeerState::NeedsBase { .. } => Some(state_text(state)),
            _ => peer.trouble.as_ref().map(|trouble| trouble.text.clone()),
        },
        detached,
    }
}

/// Where a peer stands, in words.
fn state_text(state: &PeerState) -> String {
    match state {
        PeerState::Connecting => "connecting".into(),
        PeerState::Unreachable { .. } => "not connected".into(),
        PeerState::TakingBack => "giving back a tail that this node lacked".into(),
        PeerState::CatchingUp => "catching up".into(),
        PeerState::InSync => "in sync".into(),
        PeerState::Stalled { sync_ms } => {
            format!("stalled: its sync has run for {:.1} s", f64::from(*sync_ms) / 1000.0)
        }
        PeerState::Full => "full: it has no space".into(),
        PeerState::NeedsBase { receiver_end, primary_start } => {
            format!("needs a base: its log ends at {receiver_end}, this one begins at {primary_start}")
        }
        PeerState::Refused(_) => "refused".into(),
        PeerState::Fenced { by } => format!("fenced: it knows term {}", by.term),
        PeerState::Stopped => "not shipped to any more".into(),
    }
}

/// A notice for people.
pub(super) fn notice_text(notice: &Notice) -> String {
    match notice {
        Notice::LostDurable { acknowledged, end } => format!(
            "it had acknowledged LSN {} as durable, but its log ends at {end}: its disk lost durable data; it is sent again",
            acknowledged.lsn
        ),
        Notice::ClockSkew { skew_ms } => format!("its clock differs from this node's by {skew_ms} ms"),
        Notice::Cuts { tail } => format!("it cuts LSN {tail}, which is not in this log, and keeps it as a branch"),
        Notice::TakesBack { tail } => format!("LSN {tail} is taken back from it"),
        Notice::Refused(refusal) => format!("refused: {refusal}"),
        other => format!("{other:?}"),
    }
}

/// The word for a mode.
pub(crate) fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Async => "async",
        Mode::SemiSync => "semi-sync",
        Mode::Sync => "sync",
    }
}

/// An instant for people, in UTC.
pub(crate) fn time_text(time: Time) -> String {
    let nanos = i128::from(time.as_nanos());
    Timestamp::from_nanosecond(nanos).map(|at| at.to_string()).unwrap_or_else(|_| format!("{nanos} ns"))
}

/// How far `at` is behind what is written: exact, from the time of the first entry that is missing.
pub(super) fn lag(journal: &Journal, at: Lsn) -> Lag {
    let bytes = journal.board().written().bytes_since(at);
    let first = || journal.entries(at).ok()?.next_entry().ok()?.map(|entry| entry.header.time);
    let seconds = match bytes {
        0 => 0.0,
        _ => first().map(|time| Time::now().since(time).as_secs_f64()).unwrap_or_default(),
    };
    Lag { bytes, seconds }
}

fn end_status(status: &mut StreamStatus, end: &End) {
    match end {
        End::Fenced(by) => {
            status.state = State::Fenced;
            status.role = RoleName::Fenced;
            status.next_step = Some(fenced_step(&status.name, by.0));
        }
        End::Failed(reason) => {
            status.state = State::Failed;
            status.notes.push(reason.clone());
            status.next_step =
                Some("check the disk, then start this node again; nothing was acknowledged since".into());
        }
        End::Closed => status.notes.push("it is closing".into()),
    }
}

/// What to do on a node that was fenced.
pub(crate) fn fenced_step(name: &str, by: u32) -> String {
    format!(
        "term {by} was opened elsewhere: use that node. To let this one follow it: stop it, move its data folder aside, \
         start it as a receiver. To make it the primary again, and lose what the other has written since: \
         start it again, then towline promote {name} --accept-loss"
    )
}

/// What to do on a node that wrote the newest run and lost its control file.
pub(crate) fn rebuilt_step(name: &str) -> String {
    format!(
        "if another node was promoted, use that one. If not: towline promote {name} --accept-loss makes this one the \
         primary again"
    )
}

/// What opening the journal found.
fn recovery_notes(journal: &Journal) -> Vec<String> {
    let report = journal.report();
    let mut notes = Vec::new();
    if journal.is_rebuilt() {
        notes.push(
            "its control file was rebuilt from its log: whether it knew of a higher term, and whether it had \
             acknowledged more than is here, is not known"
                .into(),
        );
    }
    if let Some(torn) = report.torn {
        notes.push(format!("entries {torn} were torn by a crash before they were durable: cut at the last start"));
    }
    if report.was_poisoned {
        notes.push(format!(
            "a sync had failed before the last start; {} was written again and synced",
            report.rewritten
        ));
    }
    notes
}
