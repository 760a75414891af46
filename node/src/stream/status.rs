//! How a stream is, on its primary.

use journal::{Board, End, Journal, Level, Lsn, Time};
use wire::Mode;

use super::primary::Primary;
use crate::options::PeerOptions;
use crate::status::{DestinationStatus, Lag, RoleName, State, StreamStatus, Watermarks};

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
        destinations: Vec::new(),
        source: None,
        in_doubt: false,
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
        destinations: Vec::new(),
        source: None,
        in_doubt: false,
        waits_for: Vec::new(),
        notes: vec![why.into()],
        next_step: hint,
    }
}

impl Primary {
    /// How the stream is now.
    pub(crate) fn status(&self) -> StreamStatus {
        let board = self.journal.board();
        let remote = board.remote();
        let waits_for = self.waits_for();
        let state = match (self.epoch(), remote.alone) {
            (None, _) => State::Waiting,
            (Some(_), true) => State::Alone,
            (Some(_), false) => State::Open,
        };
        let mut status = fill_status(&self.name, RoleName::Primary, state, &self.journal);
        status.run = self.epoch().map(|epoch| epoch.run);
        let asked = self.peers.iter().map(|peer| peer.mode).max().unwrap_or(Mode::Async);
        status.mode_asked = Some(mode_name(asked).into());
        if self.peers.iter().any(|peer| peer.mode != Mode::Async) {
            status.at.received = Some(board.reached(Level::Received).get());
            status.at.peer_durable = Some(board.reached(Level::PeerDurable).get());
        }
        if board.ended().is_none() && self.epoch().is_some() {
            let alone = if remote.alone { " (alone)" } else { "" };
            status.mode_in_force = Some(format!("{}{alone}", mode_name(asked)));
        }
        status.destinations = self.peers.iter().map(peer_status).collect();
        if !waits_for.is_empty() && board.ended().is_none() {
            status.next_step = Some(format!(
                "start {}; to go on without: towline promote {} --accept-loss",
                waits_for.join(" and "),
                self.name
            ));
            status.waits_for = waits_for.into_iter().map(|peer| format!("{peer} to connect")).collect();
        }
        status
    }
}

fn peer_status(peer: &PeerOptions) -> DestinationStatus {
    DestinationStatus {
        name: peer.name.clone(),
        kind: "peer".into(),
        at: peer.address.clone(),
        mode: mode_name(peer.mode).into(),
        required: peer.mode != Mode::Async,
        ..DestinationStatus::default()
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

/// How far `at` is behind what is written: exact, from the time of the first entry that is missing.
pub(crate) fn lag(journal: &Journal, board: &Board, at: Lsn) -> Lag {
    let bytes = board.written().bytes_since(at);
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
        "term {by} was opened elsewhere: use that node. To make this one the primary again, and lose what the other has \
         written since: towline promote {name} --accept-loss"
    )
}

/// What opening the journal found.
fn recovery_notes(journal: &Journal) -> Vec<String> {
    let report = journal.report();
    let mut notes = Vec::new();
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
