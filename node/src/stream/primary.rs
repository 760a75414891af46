//! What runs behind a [`super::Stream`].

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use journal::{Epoch, Journal, Level, Lsn, Reason, Remote, Role, RunOpening, WaitError};
use shipper::{Policy, PolicyMember};
use wire::Mode;

use super::{StreamBuilder, ended};
use crate::error::{Error, Result};
use crate::options::PeerOptions;

/// How long a wait goes on before it looks whether the loss of a peer is to be answered with an error.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The parts of a running stream.
#[derive(Debug)]
pub(crate) struct Primary {
    pub(super) name: String,
    pub(super) journal: Journal,
    pub(super) policy: Policy,
    pub(super) peers: Vec<PeerOptions>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The run that is open.
    open: Option<Epoch>,
    /// Opening it failed; tried again when somebody waits for it.
    trouble: Option<String>,
}

/// Starts what the builder has collected.
pub(super) fn start(builder: StreamBuilder) -> Result<super::Stream> {
    let journal = builder.journal;
    match journal.role() {
        Role::Primary => {}
        Role::Fenced => return Err(Error::Fenced { by: journal.term_seen().term }),
        Role::Receiver => return Err(Error::NotPrimary { stream: builder.name, role: "receiver" }),
    }
    let member =
        |peer: &PeerOptions| PolicyMember { name: peer.name.clone(), address: peer.address.clone(), mode: peer.mode };
    let policy = Policy {
        members: builder.peers.iter().map(member).collect(),
        need: builder.need,
        depots: builder.depots.iter().map(|depot| depot.name.clone()).collect(),
    };
    policy.check()?;
    journal.spawn_flusher()?;
    let primary = Arc::new(Primary {
        name: builder.name,
        journal,
        policy,
        peers: builder.peers,
        state: Mutex::default(),
        changed: Condvar::new(),
    });
    if primary.policy.members.is_empty() {
        primary.journal.board().set_remote(Remote { promised: Lsn::MAX, ..Remote::default() });
        primary.open()?;
    }
    Ok(super::Stream { primary })
}

impl Primary {
    /// Opens the run, once the gate allows it.
    pub(super) fn open(&self) -> Result<Epoch> {
        let mut state = self.state();
        if let Some(epoch) = state.open {
            return Ok(epoch);
        }
        let reason = if self.journal.history().last().is_none() { Reason::Created } else { Reason::Started };
        let opened = self.journal.open_run(RunOpening { promote: None, reason, policy: self.policy.encode() });
        match &opened {
            Ok(epoch) => state.open = Some(*epoch),
            Err(error) => state.trouble = Some(error.to_string()),
        }
        self.changed.notify_all();
        Ok(opened?)
    }

    pub(super) fn is_open(&self) -> bool {
        self.state().open.is_some()
    }

    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.state().open
    }

    pub(crate) fn wait_ready(&self, deadline: Option<Instant>) -> Result<Epoch> {
        let mut state = self.state();
        loop {
            if let Some(end) = self.journal.board().ended() {
                return Err(ended(end, &self.journal));
            }
            if let Some(epoch) = state.open {
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
        false
    }

    /// Peers that the closed gate waits for, by name and address.
    pub(super) fn waits_for(&self) -> Vec<String> {
        if self.is_open() {
            return Vec::new();
        }
        let required = self.peers.iter().filter(|peer| peer.mode != Mode::Async);
        required.map(|peer| format!("{} ({})", peer.name, peer.address)).collect()
    }

    /// Required peers that hold commits up now.
    pub(crate) fn holds_up(&self) -> Option<String> {
        let waits_for = self.waits_for();
        (!waits_for.is_empty()).then(|| waits_for.join(" and "))
    }

    /// Why it takes no appends.
    pub(crate) fn not_ready(&self) -> Error {
        if let Some(end) = self.journal.board().ended() {
            return ended(end, &self.journal);
        }
        let trouble = self.state().trouble.clone();
        Error::NotReady { stream: self.name.clone(), waits_for: self.waits_for(), trouble }
    }

    pub(super) fn close(&self) -> Result<()> {
        Ok(self.journal.clone().close()?)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
