//! The link thread: waits for anything, then takes one turn.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use journal::{Cursor, End, Flags, Item, Journal, Kind, Lsn, LsnRange, StreamId, Time, Tip, Watch};
use tokio::sync::futures::OwnedNotified;
use tokio::task::JoinSet;
use tokio::time::timeout;
use wire::{Alarm, Frame, GREETING_OPENINGS_MAX, Greeting, Message, Mode, PROTOCOL, Place, Repeats};

use super::conn::{Conn, Found, Up};
use super::status::LinkTrouble;
use super::{Event, Shared, State};
use crate::peer::{Action, Local, Notice};

/// Entries leave in pieces of about this size: the receiver writes one while the next is under way.
const SLICE_BYTES: usize = 256 << 10;
/// How long stopping waits until the peers have read the goodbye.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);

/// Runs until the stream stops.
pub(super) async fn run(shared: Arc<Shared>) {
    let board = Arc::clone(shared.journal.board());
    let mut watch = board.watch();
    let peers = shared.options.targets.len();
    let mut runner = Runner {
        kicked: Box::pin(Arc::clone(&shared.kick).notified_owned()),
        conns: (0..peers).map(|_| Conn::Idle).collect(),
        found: Vec::new(),
        looks: JoinSet::new(),
        looked: Vec::new(),
        closing: JoinSet::new(),
        alarm: Alarm::new(),
        troubles: Repeats::default(),
        refusals: Repeats::default(),
        shared,
    };
    while !runner.turn() {
        poll_fn(|cx| runner.poll(cx, &mut watch)).await;
    }
    let closing = runner.closing.join_all();
    if timeout(STOP_TIME_MAX, closing).await.is_err() {
        tracing::debug!("a peer didn't read the goodbye");
    }
}

/// What the link thread alone has.
struct Runner {
    shared: Arc<Shared>,
    kicked: Pin<Box<OwnedNotified>>,
    conns: Vec<Conn>,
    /// What polling found, by peer, for the next turn.
    found: Vec<(usize, Found)>,
    /// Walks along the log, each on a thread of its own: they read what may be cold.
    looks: JoinSet<Looked>,
    looked: Vec<Looked>,
    closing: JoinSet<()>,
    alarm: Alarm,
    /// A peer that can't be reached, or that refuses, is tried again and again, and is news once.
    troubles: Repeats<usize>,
    refusals: Repeats<usize>,
}

/// Answer to [`Action::Look`].
struct Looked {
    peer: usize,
    link: u64,
    at: Lsn,
    tip: journal::Result<Option<Tip>>,
}

impl Runner {
    /// Ready when anything happened.
    fn poll(&mut self, cx: &mut Context<'_>, watch: &mut Watch<'_>) -> Poll<()> {
        let mut ready = watch.poll_changed(cx).is_ready();
        while self.kicked.as_mut().poll(cx).is_ready() {
            self.kicked.set(Arc::clone(&self.shared.kick).notified_owned());
            ready = true;
        }
        while let Poll::Ready(Some(joined)) = self.looks.poll_join_next(cx) {
            match joined {
                Ok(looked) => self.looked.push(looked),
                Err(error) => tracing::error!(%error, "look up a position"),
            }
            ready = true;
        }
        while let Poll::Ready(Some(_)) = self.closing.poll_join_next(cx) {}
        for (peer, conn) in self.conns.iter_mut().enumerate() {
            if let Poll::Ready(found) = conn.poll(cx) {
                self.found.push((peer, found));
                ready = true;
            }
        }
        if ready || self.alarm.poll(cx).is_ready() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// One turn: hands in what happened, judges, does what is ordered. True when it was the last one.
    fn turn(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let now = Instant::now();
        let mut state = shared.state();
        for (peer, found) in std::mem::take(&mut self.found) {
            self.hand_in(&mut state, now, peer, found);
        }
        for Looked { peer, link, at, tip } in std::mem::take(&mut self.looked) {
            let Some(core) = state.peers.get_mut(peer) else { continue };
            match tip {
                Ok(tip) => core.handle_looked(now, link, at, tip.map(|tip| tip.chain)),
                Err(error) => core.handle_failed(now, link, &error.to_string()),
            }
        }
        for core in &mut state.peers {
            if core.poll_timeout().is_some_and(|due| due <= now) {
                core.handle_timeout(now);
            }
        }
        let last = shared.pass_on_the_end(&mut state);
        loop {
            shared.judge(&mut state, now);
            if !self.act(&mut state, now) {
                break;
            }
        }
        let due = state.peers.iter().filter_map(|peer| peer.poll_timeout()).chain(state.gate.poll_timeout()).min();
        self.alarm.set(due);
        let events = std::mem::take(&mut state.events);
        drop(state);
        for event in events {
            (shared.on_event)(event);
        }
        last
    }

    fn hand_in(&mut self, state: &mut State, now: Instant, peer: usize, found: Found) {
        let shared = Arc::clone(&self.shared);
        let (Some(core), Some(met), Some(conn)) =
            (state.peers.get_mut(peer), state.met.get_mut(peer), self.conns.get_mut(peer))
        else {
            return;
        };
        let lost = match found {
            Found::Dialled { link, dialled: Ok(connected) } => {
                met.names = connected.peer_names().to_vec();
                *conn = Conn::up(link, *connected);
                core.handle_connected(now, link, random(), shared.greeting(state.opened));
                None
            }
            Found::Dialled { link, dialled: Err(error) } | Found::Lost { link, error } => Some((link, error)),
            Found::Progress => {
                let Conn::Up(up) = conn else { return };
                let link = up.link;
                if let Some(to) = up.queued_to.filter(|_| up.has_room()) {
                    up.queued_to = None;
                    core.handle_sent(now, link, to);
                }
                met.last_contact = Some(Time::now());
                // half a large message on a slow line is a sign of life too
                if up.greeted {
                    core.handle_message(now, link, Message::Alive(up.alive));
                }
                loop {
                    let message = match up.reader.next_frame() {
                        Ok(Some(Frame::Message(Message::Greeting(theirs)))) => {
                            up.greeted = true;
                            let node = theirs.node.id;
                            let remembered = shared.journal.peer_remembered(node);
                            let remembered = remembered.map(|(lsn, chain)| Place { lsn, chain });
                            core.handle_greeting(now, link, &theirs, remembered);
                            met.node = Some(theirs.node);
                            up.reader.open();
                            continue;
                        }
                        Ok(Some(frame)) => frame.into_message(),
                        Ok(None) => break None,
                        Err(error) => break Some((link, error)),
                    };
                    if let Message::Alive(alive) = message {
                        up.alive = alive;
                    }
                    core.handle_message(now, link, message);
                }
            }
        };
        if let Some((link, error)) = lost {
            conn.take(link);
            let text = error.to_string();
            core.handle_disconnected(now, link, &text);
            if state.stopping.is_none() && self.troubles.is_news(peer, &text, now) {
                let options = &shared.options;
                let name = options.targets.get(peer).map(|target| target.peer.name.as_str());
                tracing::warn!(stream = options.stream_name, peer = name, "not connected: {text}");
            }
            met.trouble = Some(LinkTrouble { at: Time::now(), class: error.class(), text });
        }
    }

    /// Does what the peers order. False when nothing was ordered.
    fn act(&mut self, state: &mut State, now: Instant) -> bool {
        let mut acted = false;
        for peer in 0..state.peers.len() {
            while let Some(action) = state.peers.get_mut(peer).and_then(|core| core.poll_action()) {
                acted = true;
                self.act_for(state, now, peer, action);
            }
        }
        acted
    }

    fn act_for(&mut self, state: &mut State, now: Instant, peer: usize, action: Action) {
        let shared = Arc::clone(&self.shared);
        let (Some(core), Some(conn), Some(target)) =
            (state.peers.get_mut(peer), self.conns.get_mut(peer), shared.options.targets.get(peer))
        else {
            return;
        };
        let name = &target.peer.name;
        match action {
            Action::Connect { link } => {
                *conn = Conn::dial(link, &shared.options.security, &target.address, target.expect_name.as_deref());
            }
            Action::Close { link, reason } => {
                tracing::debug!(peer = name, reason, "close the connection");
                if let Some(up) = conn.take(link) {
                    self.closing.spawn(up.close());
                }
            }
            Action::Send { link, message } => {
                let Some(up) = conn.as_up(link) else { return };
                if let Err(error) = up.writer.queue(&message) {
                    core.handle_failed(now, link, &error.to_string());
                }
            }
            Action::SendEntries { link, session, range } => {
                let Some(up) = conn.as_up(link) else { return };
                match queue_entries(&shared.journal, up, session, range) {
                    Ok(to) if up.has_room() => core.handle_sent(now, link, to),
                    Ok(to) => up.queued_to = Some(to),
                    Err(reason) => core.handle_failed(now, link, &reason),
                }
            }
            Action::Look { link, at } => {
                let tip = shared.journal.written_tip();
                if tip.lsn == at {
                    return core.handle_looked(now, link, at, Some(tip.chain));
                }
                let journal = shared.journal.clone();
                self.looks.spawn_blocking(move || Looked { peer, link, at, tip: journal.tip_at(at) });
            }
            Action::Extend { link, at, bytes } => match extend(&shared.journal, at, &bytes) {
                Ok(end) => core.handle_extended(now, link, end),
                Err(reason) => core.handle_failed(now, link, &reason),
            },
            Action::Fence { by } => {
                if let Err(error) = shared.journal.fence(by) {
                    tracing::error!(%error, "record the higher term; nothing is acknowledged all the same");
                }
                state.events.push(Event::Fenced(by));
            }
            Action::Remember { node, place } => {
                if let Err(error) = shared.journal.remember_peer(node, place.lsn, place.chain) {
                    tracing::warn!(peer = name, %error, "remember what a peer acknowledged");
                }
            }
            Action::Report(notice) => {
                if let Notice::Refused(refusal) = &notice
                    && !self.refusals.is_news(peer, &refusal.to_string(), now)
                {
                    return;
                }
                state.events.push(Event::Notice { peer: name.clone(), notice });
            }
        }
    }
}

impl Shared {
    /// Passes the peers' marks to the gate, its answer to the board, and both back to the peers.
    pub(super) fn judge(&self, state: &mut State, now: Instant) {
        let board = self.journal.board();
        let marks: Vec<_> = state.peers.iter().map(|peer| peer.marks()).collect();
        let verdict = state.gate.update(now, board.durable(), &marks);
        // telling the board wakes everybody who watches it, this thread too
        if state.remote != Some(verdict.remote) {
            board.set_remote(verdict.remote);
            state.remote = Some(verdict.remote);
        }
        if verdict.open && !state.verdict.open {
            state.events.push(Event::Open);
            self.changed.notify_all();
        }
        if verdict.loss != state.verdict.loss {
            state.events.push(Event::Loss(verdict.loss));
        }
        state.verdict = verdict;
        self.note_alone(state);
        let local = self.local(state);
        for peer in &mut state.peers {
            peer.handle_local(now, local);
        }
    }

    /// How far this node is.
    pub(super) fn local(&self, state: &State) -> Local {
        let board = self.journal.board();
        let sync_ms = board.sync_running().unwrap_or_default().as_millis();
        // durable first: it is never above written then
        let durable = board.durable();
        Local {
            written: board.written(),
            durable,
            committed: state.verdict.committed,
            floor: state.floor(),
            alone: state.verdict.remote.alone,
            opened: state.opened,
            sync_ms: u32::try_from(sync_ms).unwrap_or(u32::MAX),
            full: false,
        }
    }

    /// The log itself says from where to where it was kept by this node alone.
    fn note_alone(&self, state: &mut State) {
        let alone = state.verdict.remote.alone;
        if alone == state.alone_noted || !self.journal.has_run() {
            return;
        }
        let text = match alone {
            true => format!("alone: going on without {}", self.names(&state.verdict.lost).join(" and ")),
            false => "no longer alone".to_owned(),
        };
        let item = Item { kind: Kind::Alone, flags: Flags::NONE, volume: 0, producer: None, parts: &[text.as_bytes()] };
        match self.journal.append(item).and_then(|ticket| ticket.written()) {
            Ok(_) => state.alone_noted = alone,
            Err(error) => tracing::warn!(%error, "note in the log that the stream is alone"),
        }
    }

    /// Tells the peers that the stream ended, once. True when the thread is to end.
    fn pass_on_the_end(&self, state: &mut State) -> bool {
        let ended = self.journal.board().ended();
        let reason = match (&state.stopping, &ended) {
            (Some(reason), _) => reason.clone(),
            (None, Some(End::Fenced(by))) => format!("fenced by term {by}"),
            (None, Some(End::Failed(reason))) => reason.clone(),
            (None, Some(End::Closed)) => "the primary was closed".into(),
            (None, None) => return false,
        };
        if !state.ended || state.stopping.is_some() {
            state.ended = true;
            for peer in &mut state.peers {
                peer.stop(&reason);
            }
            self.changed.notify_all();
        }
        state.stopping.is_some() || matches!(ended, Some(End::Closed))
    }

    /// What this node says of itself, at this moment.
    fn greeting(&self, opened: bool) -> Greeting {
        let journal = &self.journal;
        let tip = journal.written_tip();
        let mut history = journal.history();
        // a run whose first entry was staged since has nothing below the end
        history.cut(tip.lsn);
        Greeting {
            protocol: PROTOCOL,
            stream: journal.stream(),
            stream_name: self.options.stream_name.clone(),
            geometry: journal.geometry(),
            node: self.options.node.clone(),
            mode: Mode::Async, // the peer's core fills it in
            term: journal.term_seen(),
            opened,
            history: history.newest(GREETING_OPENINGS_MAX),
            start: journal.start(),
            end: Place { lsn: tip.lsn, chain: tip.chain },
            durable: journal.board().durable(),
            committed: journal.committed(),
            applied: Lsn::ZERO,
            remembers: None,
            clock: Time::now(),
        }
    }
}

/// Lends the next entries of `range` to the connection: where they end.
fn queue_entries(journal: &Journal, up: &mut Up, session: u64, range: LsnRange) -> Result<Lsn, String> {
    let bytes_max = SLICE_BYTES.min(usize::try_from(range.bytes()).unwrap_or(SLICE_BYTES));
    let slice = journal.slice(range.from, bytes_max).map_err(|error| error.to_string())?;
    let Some(slice) = slice else { return Ok(range.from) };
    let to = slice.range().to;
    up.writer.queue_entries(session, range.from, slice).map_err(|error| error.to_string())?;
    Ok(to)
}

/// Verifies entries that a peer gives back, and writes them behind the own log: where it ends now.
fn extend(journal: &Journal, at: Lsn, bytes: &Bytes) -> Result<Place, String> {
    let tip = journal.written_tip();
    if tip.lsn != at {
        return Err(format!("entries at {at} don't continue the log, which ends at {}", tip.lsn));
    }
    let run = Cursor::new(journal.geometry(), tip).verify(bytes).map_err(|fault| fault.to_string())?;
    if run.bytes().len() != bytes.len() {
        return Err(format!("the entry at {} is not whole", run.last().lsn));
    }
    journal.extend(&run).map_err(|error| error.to_string())?;
    Ok(Place { lsn: run.last().lsn, chain: run.last().chain })
}

/// A fresh number for a session.
fn random() -> u64 {
    let id = StreamId::random();
    let (half, _) = id.as_bytes().split_at(8);
    half.iter().fold(1, |number, byte| number << 8 | u64::from(*byte))
}
