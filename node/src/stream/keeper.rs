//! The thread that looks after a primary's destinations: who needs what of the log, who is detached, what can be given up.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use journal::{Class, Flags, Item, Journal, Kind, Lsn, Time};
use shipper::{PeerState, PeerStatus};

use super::claims::{Claim, Need};
use super::early::Room;
use super::handle::Handle;
use super::primary::Primary;
use crate::error::{Error, Result};

/// How often it looks. What is not given up meanwhile is more room taken, nothing else.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Who has said nothing for so long after a start, not even that it can't be reached, gives way like one that can't: a
/// mount that hangs is no reason to stop.
const ASKED_WITHIN: Duration = Duration::from_secs(30);

/// The thread; it ends with the stream.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    running: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

impl Keeper {
    /// Starts to look after `primary`.
    pub(super) fn start(&self, primary: &Handle) -> Result<()> {
        let (stop, stopped) = channel();
        let told = primary.parts();
        let thread = thread::Builder::new().name("towline-keeper".into()).spawn(move || run(&told, &stopped));
        let thread = thread.map_err(Error::io("start a thread for", primary.journal.dir()))?;
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some((stop, thread));
        Ok(())
    }

    /// Ends the thread and waits for it.
    pub(super) fn stop(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((stop, thread)) = running else { return };
        drop(stop);
        if thread.join().is_err() {
            tracing::error!("the thread that looks after a stream's destinations panicked");
        }
    }
}

fn run(primary: &Weak<Primary>, stopped: &Receiver<()>) {
    let mut trouble = None;
    loop {
        let Some(primary) = primary.upgrade() else { return };
        if primary.journal.board().ended().is_some() {
            return;
        }
        let failed = primary.look_after(None).err().map(|error| error.to_string());
        if let Some(error) = &failed
            && trouble != failed
        {
            tracing::warn!(stream = primary.name, error, "look after the destinations");
        }
        trouble = failed;
        drop(primary);
        if stopped.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

impl Primary {
    /// Everybody's claim on the log.
    fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.peers_claim.iter().chain(self.depots.claims())
    }

    /// Appends. Where there is no room, what was appended before is made durable, since nothing else can be given up, what
    /// the destinations have by now is asked, and a depot that can be reached gets time for what it lacks, before that is
    /// the answer.
    pub(super) fn append(&self, items: &[Item<'_>]) -> Result<journal::Ticket> {
        let mut appended = self.journal.append_many(items);
        if is_full(&appended) {
            if let Err(error) = self.journal.sync() {
                tracing::debug!(stream = self.name, %error, "sync what is to be given up");
            }
            let mut looked_for = None;
            while is_full(&appended) {
                let to_go = self.journal.next_to_go();
                // behind a segment that is gone comes another one, which somebody else may keep
                if looked_for == Some(to_go) && !self.depots.wait_room() {
                    break;
                }
                looked_for = Some(to_go);
                self.look_now(to_go);
                appended = self.journal.append_many(items);
            }
        }
        // somebody may have given way for it: the peers have to know before they write it, or they have no room for it
        if self.journal.gave_way() != self.gave_way.load(Ordering::Relaxed) {
            self.look_now(None);
        }
        Ok(appended?)
    }

    fn look_now(&self, to_go: Option<Lsn>) {
        if let Err(error) = self.look_after(to_go) {
            tracing::warn!(stream = self.name, %error, "look after the destinations");
        }
    }

    /// Takes note of what the destinations need, says who is detached or attached, and gives up what nobody needs.
    /// `to_go`: an append has no room as long as what ends here is kept.
    fn look_after(&self, to_go: Option<Lsn>) -> Result<()> {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        self.gave_way.store(self.journal.gave_way(), Ordering::Relaxed);
        let room = Room { holds: self.journal.budget_holds(), to_go };
        let (start, now) = (self.journal.start(), Time::now());
        let peers = self.links.get().map(|links| links.status().peers).unwrap_or_default();
        let peers = self.peers_claim.iter().zip(peers.iter().map(peer_needs));
        let asked_for_long = self.started.elapsed() >= ASKED_WITHIN;
        for (claim, need) in peers.chain(self.depots.look(&self.journal, room)) {
            let need = if asked_for_long && need == Need::NotYet { Need::Silent } else { need };
            if claim.look(need, start, now) {
                self.say(claim, start);
            }
        }
        if let Some(links) = self.links.get() {
            links.set_detached(self.peers_claim.iter().map(|claim| claim.detached().is_some()).collect());
            links.set_depot_floor(self.depots.owed());
        }
        let kept = noted.keep(self.claims());
        self.note_in_log();
        self.journal.prune_unneeded()?;
        kept
    }

    fn say(&self, claim: &Claim, start: Lsn) {
        let (stream, destination) = (self.name.as_str(), claim.name());
        match claim.detached() {
            Some(detached) => {
                let lacks = detached.lacks.map(Lsn::get);
                let start = start.get();
                tracing::warn!(stream, destination, lacks, start, "detached: no log is kept for it any more");
            }
            None => tracing::warn!(stream, destination, "attached again"),
        }
    }

    /// The log itself says from where to where somebody was left behind. Where it can't now, it does later.
    fn note_in_log(&self) {
        if !self.journal.has_run() {
            return;
        }
        for claim in self.claims() {
            let Some(text) = claim.unlogged() else { continue };
            match note(&self.journal, &text) {
                Ok(()) => claim.logged(),
                Err(error) => tracing::debug!(stream = self.name, %error, text, "note in the log"),
            }
        }
    }
}

fn is_full(appended: &journal::Result<journal::Ticket>) -> bool {
    appended.as_ref().is_err_and(|error| error.class() == Class::Full)
}

fn note(journal: &Journal, text: &str) -> journal::Result<()> {
    let parts = [text.as_bytes()];
    let item = Item { kind: Kind::Detached, flags: Flags::NONE, volume: 0, producer: None, parts: &parts };
    journal.append(item)?.written().map(drop)
}

/// What a peer doesn't have durably.
fn peer_needs(peer: &PeerStatus) -> Need {
    match (&peer.state, peer.remembered) {
        (PeerState::NeedsBase { receiver_end, .. }, _) => Need::Gone(*receiver_end),
        (_, Some(place)) => Need::From(place.lsn),
        (PeerState::Connecting, None) => Need::NotYet,
        (_, None) => Need::Silent,
    }
}
