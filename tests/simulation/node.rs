//! One simulated node: its disk, and while it is up a process with both cores and the driver around them.
//!
//! The driver does what the duties of `shipper::Peer` and `receiver::Intake` ask, in their order, and nothing else. What
//! leaves the node is put into `out`; the world carries it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use journal::{Cursor, Epoch, Lsn, LsnRange, NodeId, Remote, StreamId, Term, TermSeen, Time};
use receiver::{Found, Intake, IntakeOptions};
use shipper::{Gate, Local, Loss, Marks, Member, Need, OnLoss, Peer, PeerOptions};
use wire::{Alive, Greeting, Message, Mode, NodeInfo, PROTOCOL, Place};

use crate::log::{Control, Log, Role, SyncTicket, Synced, place};
use crate::mutant::{Mutant, forge};

/// What all nodes know of the stream.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) stream: StreamId,
    /// The promise asked of each node when it is a peer.
    pub(crate) modes: Vec<Mode>,
    pub(crate) on_loss: OnLoss,
    pub(crate) window_bytes: u64,
    /// Times of a peer: all zero in the exhaustive model, where time stands still.
    pub(crate) retry: Duration,
    pub(crate) dead_after: Duration,
    pub(crate) mutant: Mutant,
}

/// What leaves a node.
#[derive(Clone, Debug)]
pub(crate) enum Out {
    Dial {
        to: usize,
        link: u64,
    },
    Send {
        conn: u64,
        message: Message,
    },
    Close {
        conn: u64,
    },
    /// An appended item was acknowledged.
    Acked(Acked),
    /// The primary's commit point, as it is announced.
    Committed {
        to: Lsn,
    },
    /// The receiver's replica shows this.
    Applied {
        to: Lsn,
    },
    /// A peer's acknowledged data is gone.
    LostDurable {
        node: NodeId,
    },
    /// A peer doesn't go together with this node until somebody acts.
    Refused {
        by: usize,
        refusal: wire::Refusal,
    },
}

/// An acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acked {
    pub(crate) item: u64,
    pub(crate) end: Place,
    pub(crate) level: Level,
    pub(crate) alone: bool,
}

/// What an acknowledgement says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Committed,
    Received,
    PeerDurable,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) index: usize,
    pub(crate) id: NodeId,
    pub(crate) boot: u64,
    pub(crate) starts: u64,
    lives: u64,
    pub(crate) log: Log,
    pub(crate) process: Option<Process>,
    pub(crate) out: Vec<Out>,
    fresh: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) intake: Intake,
    pub(crate) primary: Option<Primary>,
    sync: Option<(SyncTicket, u64)>,
    /// The intake asked for a sync while one ran.
    sync_wanted: bool,
    pub(crate) full: bool,
    failed: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Primary {
    pub(crate) lanes: Vec<Lane>,
    gate: Gate,
    pub(crate) run: Option<(Epoch, u64)>,
    run_laid: bool,
    pub(crate) ended: bool,
    pub(crate) waived: bool,
    pub(crate) started: Instant,
    remote: Remote,
    committed: Lsn,
    announced: Lsn,
    pub(crate) loss: Loss,
    items: Vec<(u64, Place, [bool; 3])>,
    local: Local,
}

/// The way to one peer.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    pub(crate) to: usize,
    pub(crate) peer: Peer,
    /// Connection of each link number.
    links: BTreeMap<u64, u64>,
    /// For the mutant that resumes where it thinks it stopped.
    sent: Lsn,
    /// For the mutant that counts the acknowledgements of an ended session.
    session: u64,
    acked: Option<wire::Ack>,
}

impl Node {
    pub(crate) fn new(setup: &Setup, index: usize, role: Role) -> Node {
        let id = node_id(index, 0);
        let log = Log::new(setup.stream, role);
        Node { index, id, boot: 1, starts: 0, lives: 0, log, process: None, out: Vec::new(), fresh: 0 }
    }

    /// The machine's disk is replaced: a new, empty node in its place.
    pub(crate) fn replace(&mut self, setup: &Setup) {
        self.process = None;
        self.lives += 1;
        self.id = node_id(self.index, self.lives);
        self.log = Log::new(setup.stream, Role::Receiver);
    }

    pub(crate) fn start(&mut self, setup: &Setup, now: Instant) {
        self.starts += 1;
        self.log.open();
        let control = &self.log.control;
        let log = receiver::Log {
            geometry: self.log.geometry,
            tip: self.log.tip(),
            durable: self.log.durable(),
            committed: control.committed,
            applied: control.applied,
            term: control.term,
            instead: match control.role {
                Role::Receiver => None,
                Role::Primary => Some("primary".into()),
                Role::Fenced => Some("fenced".into()),
            },
            in_doubt: control.settled_boot != Some(self.boot),
        };
        let primary = (control.role == Role::Primary).then(|| Primary::new(setup, self.index, &self.log, now));
        let options = IntakeOptions { dead_after: setup.dead_after, report_every: setup.dead_after / 5 };
        let intake = Intake::new(options, log);
        self.process = Some(Process { intake, primary, sync: None, sync_wanted: false, full: false, failed: false });
        if setup.mutant == Mutant::GateSkipped
            && let Some(primary) = self.process.as_mut().and_then(|process| process.primary.as_mut())
        {
            primary.gate.waive();
        }
        self.settle(setup, now);
    }

    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    pub(crate) fn power_cut(&mut self, keep: Lsn) {
        self.process = None;
        self.boot += 1;
        self.log.power_cut(keep);
    }

    /// The operator makes this node the primary of a new term.
    pub(crate) fn promote(&mut self, setup: &Setup, now: Instant, term: Term, alone: bool) {
        let id = self.fresh();
        self.log.control.term = TermSeen { term, id };
        self.log.control.run = 0;
        self.log.control.role = Role::Primary;
        self.log.sync_control();
        let Some(process) = &mut self.process else { return };
        // an older primaryship of this process ends with its connections
        let old = process.primary.take();
        for lane in old.iter().flat_map(|primary| &primary.lanes) {
            self.out.extend(lane.links.values().map(|&conn| Out::Close { conn }));
        }
        process.intake.retire("primary", self.log.control.term);
        let mut primary = Primary::new(setup, self.index, &self.log, now);
        if alone {
            primary.gate.waive();
            primary.waived = true;
        }
        process.primary = Some(primary);
        self.settle(setup, now);
    }

    /// The operator lets this node follow again; what it knew as committed may be cut.
    pub(crate) fn rejoin(&mut self, setup: &Setup, now: Instant) {
        self.log.control.role = Role::Receiver;
        self.log.control.committed = Lsn::ZERO;
        self.log.control.applied = Lsn::ZERO;
        self.log.sync_control();
        self.process = None;
        self.start(setup, now);
    }

    pub(crate) fn intake(&self) -> Option<&Intake> {
        self.process.as_ref().map(|process| &process.intake)
    }

    /// For people who look into a failing seed.
    pub(crate) fn summary(&self) -> String {
        let Control { role, term, .. } = &self.log.control;
        let (end, up) = (self.log.tip().lsn, self.process.is_some());
        let peers: Vec<_> = self.primary().into_iter().flat_map(|primary| &primary.lanes).collect();
        let peers: Vec<_> = peers.iter().map(|lane| format!("n{}: {:?}", lane.to, lane.peer.state())).collect();
        let index = self.index;
        format!(
            "n{index}: {role:?}, term {}, end {end}, up {up}, in doubt {:?}, peers {peers:?}",
            term.term,
            self.intake().map(Intake::in_doubt)
        )
    }

    /// How often the machine was replaced.
    pub(crate) fn lives(&self) -> u64 {
        self.lives
    }

    /// The peers that count for this primary: node, connection, marks.
    pub(crate) fn streaming(&self) -> impl Iterator<Item = (usize, u64, Marks)> {
        let lanes = self.primary().into_iter().flat_map(|primary| &primary.lanes);
        lanes.filter_map(|lane| Some((lane.to, *lane.links.values().next_back()?, lane.peer.marks()?)))
    }

    pub(crate) fn is_primary(&self) -> bool {
        self.primary().is_some_and(|primary| !primary.ended)
    }

    pub(crate) fn primary(&self) -> Option<&Primary> {
        self.process.as_ref()?.primary.as_ref()
    }

    pub(crate) fn takes_appends(&self) -> bool {
        self.primary().is_some_and(|primary| !primary.ended && primary.run.is_some())
    }

    pub(crate) fn append(&mut self, setup: &Setup, now: Instant, clock: Time, item: u64) {
        let id = self.id;
        let Some(primary) = self.process.as_mut().and_then(|process| process.primary.as_mut()) else { return };
        let Some(run) = primary.run.filter(|_| !primary.ended) else { return };
        if !primary.run_laid {
            primary.run_laid = true;
            self.log.append_epoch(clock, run, id);
        }
        let end = self.log.append(clock, &item.to_le_bytes());
        primary.items.push((item, end, [false; 3]));
        self.settle(setup, now);
    }

    /// A sync begins if one is due: something is written that none covers.
    pub(crate) fn begin_sync(&mut self) -> bool {
        let Some(process) = &mut self.process else { return false };
        if process.sync.is_some() || process.failed || self.log.durable().lsn >= self.log.tip().lsn {
            return false;
        }
        process.sync = Some((self.log.begin_sync(), process.intake.generation()));
        process.sync_wanted = false;
        true
    }

    /// True when somebody waits for a sync and none runs.
    pub(crate) fn sync_is_due(&self) -> bool {
        let due = |process: &Process| process.sync.is_none() && !process.failed && process.sync_wanted;
        self.process.as_ref().is_some_and(due)
    }

    pub(crate) fn end_sync(&mut self, setup: &Setup, now: Instant) {
        let Some(process) = &mut self.process else { return };
        let Some((ticket, generation)) = process.sync.take() else { return };
        let proof = self.log.end_sync(ticket);
        process.intake.handle_durable(generation, &proof);
        self.settle(setup, now);
    }

    /// The sync in progress fails. A primary's process ends with it.
    pub(crate) fn fail_sync(&mut self, setup: &Setup, now: Instant) {
        let Some(process) = &mut self.process else { return };
        if process.sync.take().is_none() {
            return;
        }
        self.log.fail_sync();
        process.failed = true;
        match process.primary {
            Some(_) => self.process = None,
            None => {
                process.intake.handle_sync_failed("a sync failed");
                self.settle(setup, now);
            }
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.failed)
    }

    pub(crate) fn dialled(&mut self, setup: &Setup, now: Instant, to: usize, link: u64, conn: Option<u64>) {
        let session = self.fresh();
        let greeting = self.greeting();
        let Some(lane) = self.lane(to) else { return };
        match conn {
            Some(conn) => {
                lane.links.insert(link, conn);
                lane.session = session;
                lane.peer.handle_connected(now, link, session, greeting);
            }
            None => lane.peer.handle_disconnected(now, link, "nobody answers"),
        }
        self.settle(setup, now);
    }

    pub(crate) fn closed(&mut self, setup: &Setup, now: Instant, conn: u64) {
        let Some(process) = &mut self.process else { return };
        process.intake.handle_disconnected(conn);
        for lane in process.primary.iter_mut().flat_map(|primary| &mut primary.lanes) {
            if let Some(link) = lane.link_of(conn) {
                lane.peer.handle_disconnected(now, link, "reset");
            }
        }
        self.settle(setup, now);
    }

    pub(crate) fn receive(&mut self, setup: &Setup, now: Instant, conn: u64, message: Message) {
        if self.process.is_none() {
            return;
        }
        let lane =
            self.process.as_mut().and_then(|process| process.primary.as_mut()).and_then(|primary| {
                primary.lanes.iter_mut().find_map(|lane| lane.link_of(conn).map(|link| (lane, link)))
            });
        match (lane, message) {
            (Some((lane, link)), Message::Greeting(theirs)) => {
                let remembered = self.log.control.remembered.get(&theirs.node.id).copied();
                let remembered = remembered.filter(|place| self.log.chain_at(place.lsn) == Some(place.chain));
                lane.peer.handle_greeting(now, link, &theirs, remembered);
            }
            (Some((lane, link)), message) => {
                let ready = matches!(message, Message::Ready(_));
                if let Message::Ack(ack) = &message {
                    lane.acked = Some(*ack);
                }
                lane.peer.handle_message(now, link, message);
                if ready
                    && setup.mutant == Mutant::EndedSessionCounted
                    && let Some(ack) = lane.acked
                {
                    let ack = wire::Ack { session: lane.session, ..ack };
                    lane.peer.handle_message(now, link, Message::Ack(ack));
                }
            }
            (None, Message::Entries { session, at, bytes }) => self.take(setup, now, conn, session, at, &bytes),
            (None, Message::Greeting(theirs)) => {
                let own = self.greeting();
                if let Some(process) = &mut self.process {
                    process.intake.handle_greeting(now, conn, *theirs, own);
                }
            }
            (None, message) => {
                if let Some(process) = &mut self.process {
                    process.intake.handle_message(now, conn, message);
                }
            }
        }
        self.settle(setup, now);
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        let process = self.process.as_ref()?;
        let primary = process.primary.as_ref();
        let lanes =
            primary.into_iter().flat_map(|primary| primary.lanes.iter().filter_map(|lane| lane.peer.poll_timeout()));
        let gate = primary.filter(|primary| !primary.ended).and_then(|primary| primary.gate.poll_timeout());
        lanes.chain(gate).chain(process.intake.poll_timeout()).min()
    }

    pub(crate) fn timer(&mut self, setup: &Setup, now: Instant) {
        let Some(process) = &mut self.process else { return };
        if process.intake.poll_timeout().is_some_and(|due| now >= due) {
            process.intake.handle_timeout(now);
        }
        for lane in process.primary.iter_mut().flat_map(|primary| &mut primary.lanes) {
            if lane.peer.poll_timeout().is_some_and(|due| now >= due) {
                lane.peer.handle_timeout(now);
            }
        }
        self.settle(setup, now);
    }

    /// The receiver's thread of its own that says it is alive.
    pub(crate) fn say_alive(&mut self, conn: u64, sync_ms: u32) {
        let Some(process) = &self.process else { return };
        let alive = Alive { sync_ms, full: process.full };
        self.out.push(Out::Send { conn, message: Message::Alive(alive) });
    }

    fn lane(&mut self, to: usize) -> Option<&mut Lane> {
        let primary = self.process.as_mut()?.primary.as_mut()?;
        primary.lanes.iter_mut().find(|lane| lane.to == to)
    }

    fn fresh(&mut self) -> u64 {
        self.fresh += 1;
        (self.index as u64 + 1) << 48 | self.fresh
    }

    fn greeting(&self) -> Greeting {
        let control = &self.log.control;
        Greeting {
            protocol: PROTOCOL,
            stream: self.log.stream,
            stream_name: "log".into(),
            geometry: self.log.geometry,
            node: NodeInfo {
                id: self.id,
                name: format!("n{}", self.index),
                start_id: self.starts,
                boot_id: u128::from(self.boot).to_le_bytes(),
            },
            mode: Mode::Async,
            term: control.term,
            opened: self.primary().is_some_and(|primary| primary.run.is_some()),
            history: self.log.history().clone(),
            start: Lsn::ZERO,
            end: self.log.end(),
            durable: self.log.durable().lsn,
            committed: control.committed,
            applied: control.applied,
            remembers: None,
            clock: Time::ZERO,
        }
    }

    /// Entries arrived at the receiver.
    fn take(&mut self, setup: &Setup, now: Instant, conn: u64, session: u64, at: Lsn, bytes: &Bytes) {
        let Some(process) = &mut self.process else { return };
        let forged = setup.mutant.trusts_bytes().then(|| forge(process.intake.log().tip, bytes));
        let (at, bytes) = match &forged {
            Some(forged) => (process.intake.log().tip.lsn, forged.as_slice()),
            None => (at, &bytes[..]),
        };
        match process.intake.verify(now, conn, session, at, bytes) {
            Found::Nothing | Found::Refused => {}
            Found::Write { .. } if process.full => process.intake.handle_failed(conn, "no space"),
            Found::Write { run, term } => {
                if let Some(term) = term {
                    self.log.control.term = term;
                    self.log.sync_control();
                    process.intake.handle_term_seen(conn, term);
                }
                self.log.extend(&run);
                process.intake.handle_written(*run.last());
                if setup.mutant == Mutant::EarlyAck {
                    let proof = Synced::forged(place(run.last()));
                    process.intake.handle_durable(process.intake.generation(), &proof);
                }
            }
        }
    }

    /// Does what the cores ask until they ask for nothing, and publishes the commit point.
    fn settle(&mut self, setup: &Setup, now: Instant) {
        for round in 0.. {
            assert!(round < 10_000, "the cores of node {} never come to rest", self.index);
            let did = self.serve_intake() | self.serve_lanes(setup, now);
            if !self.publish(setup, now) && !did {
                break;
            }
        }
    }

    fn serve_intake(&mut self) -> bool {
        let mut did = false;
        while let Some(action) = self.process.as_mut().and_then(|process| process.intake.poll_action()) {
            did = true;
            self.do_for_intake(action);
        }
        did
    }

    fn do_for_intake(&mut self, action: receiver::Action) {
        let Some(process) = &mut self.process else { return };
        match action {
            receiver::Action::SeeTerm { link, term } => {
                if let Some(primary) = &mut process.primary {
                    primary.end();
                    self.log.control.role = Role::Fenced;
                }
                self.log.control.term = term;
                self.log.control.run = 0;
                self.log.sync_control();
                process.intake.handle_term_seen(link, term);
            }
            receiver::Action::Send { link, message } => self.out.push(Out::Send { conn: link, message }),
            receiver::Action::Close { link, .. } => self.out.push(Out::Close { conn: link }),
            receiver::Action::Look { link, at } => process.intake.handle_looked(link, at, self.log.chain_at(at)),
            receiver::Action::Cut { link, to } => {
                self.log.cut(to);
                process.intake.handle_cut(link, self.log.tip());
            }
            receiver::Action::SendEntries { link, session, range } => {
                let mut at = range.from;
                while let Some(bytes) = self.log.slice(LsnRange::new(at, range.to.min(at.advance(256)))) {
                    let message = Message::Entries { session, at, bytes: Bytes::copy_from_slice(bytes) };
                    at = at.advance(bytes.len() as u64);
                    self.out.push(Out::Send { conn: link, message });
                    if at >= range.to {
                        break;
                    }
                }
            }
            receiver::Action::Sync { .. } => process.sync_wanted = true,
            receiver::Action::Apply { to } => {
                self.log.control.applied = to;
                process.intake.handle_applied(to, to);
                self.out.push(Out::Applied { to });
            }
            receiver::Action::Committed { lsn } => self.log.control.committed = lsn,
            receiver::Action::Settle => {
                self.log.control.settled_boot = Some(self.boot);
                self.log.sync_control();
            }
            receiver::Action::Report(receiver::Notice::LostDurable { .. }) => {
                self.out.push(Out::LostDurable { node: self.id });
            }
            receiver::Action::Report(_) => {}
        }
    }

    fn serve_lanes(&mut self, setup: &Setup, now: Instant) -> bool {
        let lanes = self.primary().map_or(0, |primary| primary.lanes.len());
        let mut did = false;
        for index in 0..lanes {
            while let Some(action) = self.lane_at(index).and_then(|lane| lane.peer.poll_action()) {
                did = true;
                self.do_for_lane(setup, now, index, action);
            }
        }
        did
    }

    fn lane_at(&mut self, index: usize) -> Option<&mut Lane> {
        self.process.as_mut()?.primary.as_mut()?.lanes.get_mut(index)
    }

    fn do_for_lane(&mut self, setup: &Setup, now: Instant, index: usize, action: shipper::Action) {
        use shipper::Action;
        let Some(process) = &mut self.process else { return };
        let Some(primary) = &mut process.primary else { return };
        let ended = primary.ended;
        let Some(lane) = primary.lanes.get_mut(index) else { return };
        match action {
            Action::Connect { link } if !ended => self.out.push(Out::Dial { to: lane.to, link }),
            Action::Connect { link } => lane.peer.handle_disconnected(now, link, "fenced"),
            Action::Close { link, .. } => self.out.extend(lane.links.get(&link).map(|&conn| Out::Close { conn })),
            Action::Send { link, message } => {
                self.out.extend(lane.links.get(&link).map(|&conn| Out::Send { conn, message }));
            }
            Action::SendEntries { link, session, mut range } => {
                if setup.mutant == Mutant::GapOnReconnect {
                    range.from = range.from.max(lane.sent.min(self.log.tip().lsn));
                    range.to = range.to.max(range.from);
                }
                let at = range.from;
                let bytes = self.log.slice(range).unwrap_or_default();
                let to = at.advance(bytes.len() as u64);
                lane.sent = lane.sent.max(to);
                if !bytes.is_empty()
                    && let Some(&conn) = lane.links.get(&link)
                {
                    let message = Message::Entries { session, at, bytes: Bytes::copy_from_slice(bytes) };
                    self.out.push(Out::Send { conn, message });
                }
                lane.peer.handle_sent(now, link, to);
            }
            Action::Look { link, at } => lane.peer.handle_looked(now, link, at, self.log.chain_at(at)),
            Action::Extend { link, at, bytes } => {
                let mut cursor = Cursor::new(self.log.geometry, self.log.tip());
                match cursor.verify(&bytes) {
                    Ok(run) if at == run.first().lsn && run.bytes().len() == bytes.len() => {
                        self.log.extend(&run);
                        let end = self.log.end();
                        lane.peer.handle_extended(now, link, end);
                    }
                    _ => lane.peer.handle_failed(now, link, "entries that don't continue the log"),
                }
            }
            Action::Fence { by } => {
                primary.end();
                self.log.control.term = by;
                self.log.control.run = 0;
                self.log.control.role = Role::Fenced;
                self.log.sync_control();
                process.intake.retire("fenced", by);
            }
            Action::Remember { node, place } => {
                self.log.control.remembered.insert(node, place);
            }
            Action::Report(shipper::Notice::LostDurable { .. }) => {
                let to = lane.to;
                self.out.push(Out::LostDurable { node: node_id(to, u64::MAX) });
            }
            Action::Report(shipper::Notice::Refused(refusal)) => {
                let by = lane.to;
                self.out.push(Out::Refused { by, refusal });
            }
            Action::Report(_) => {}
        }
    }

    /// The gate, the board and the peers' view of this node; true when something moved.
    fn publish(&mut self, setup: &Setup, now: Instant) -> bool {
        let durable = self.log.durable().lsn;
        let written = self.log.tip().lsn;
        let fresh = self.fresh();
        let Some(process) = &mut self.process else { return false };
        let Some(primary) = process.primary.as_mut().filter(|primary| !primary.ended) else { return false };
        let marks: Vec<_> = primary.lanes.iter().map(|lane| lane.peer.marks()).collect();
        let verdict = primary.gate.update(now, durable, &marks);
        primary.remote = verdict.remote;
        primary.loss = verdict.loss;
        primary.committed = primary.committed.max(durable.min(verdict.remote.promised));
        self.log.control.committed = self.log.control.committed.max(primary.committed);
        if verdict.open && primary.run.is_none() {
            let run = self.log.open_run(fresh);
            primary.run = Some(run);
        }
        if verdict.committed > primary.announced {
            primary.announced = verdict.committed;
            self.out.push(Out::Committed { to: verdict.committed });
        }
        primary.acknowledge(durable, setup.modes.len() > 1, &mut self.out);
        process.sync_wanted |= written > durable;
        let local = Local {
            written,
            durable,
            committed: verdict.committed,
            floor: Lsn::ZERO,
            alone: verdict.remote.alone,
            opened: primary.run.is_some(),
            sync_ms: 0,
            full: false,
        };
        if local == primary.local {
            return false;
        }
        primary.local = local;
        for lane in &mut primary.lanes {
            lane.peer.handle_local(now, local);
        }
        true
    }
}

impl Primary {
    fn new(setup: &Setup, index: usize, log: &Log, now: Instant) -> Primary {
        let others = (0..setup.modes.len()).filter(|&to| to != index);
        let lanes: Vec<Lane> = others.clone().map(|to| Lane::new(setup, now, to, index)).collect();
        let member = |to: usize| Member { mode: setup.modes[to], on_loss: setup.on_loss };
        let members: Vec<Member> = others.map(member).collect();
        Primary {
            lanes,
            gate: Gate::new(Need::All, &members, Lsn::ZERO),
            run: None,
            run_laid: false,
            ended: false,
            waived: false,
            started: now,
            remote: Remote::default(),
            committed: log.control.committed,
            announced: Lsn::ZERO,
            loss: Loss::None,
            items: Vec::new(),
            local: Local::default(),
        }
    }

    fn end(&mut self) {
        self.ended = true;
        for lane in &mut self.lanes {
            lane.peer.stop("fenced");
        }
    }

    /// Answers every waiter whose level is reached.
    fn acknowledge(&mut self, durable: Lsn, has_peers: bool, out: &mut Vec<Out>) {
        let Remote { received, peer_durable, alone, .. } = self.remote;
        let reached = [
            (Level::Committed, self.committed),
            (Level::Received, durable.min(received)),
            (Level::PeerDurable, durable.min(peer_durable)),
        ];
        for (item, end, acked) in &mut self.items {
            for (at, (level, reached)) in reached.iter().enumerate() {
                if !acked[at] && *reached >= end.lsn && (has_peers || at == 0) {
                    acked[at] = true;
                    let alone = alone && *level == Level::Committed;
                    out.push(Out::Acked(Acked { item: *item, end: *end, level: *level, alone }));
                }
            }
        }
        self.items.retain(|(_, _, acked)| !acked.iter().all(|&acked| acked));
    }
}

impl Lane {
    fn new(setup: &Setup, now: Instant, to: usize, from: usize) -> Lane {
        let options = PeerOptions {
            window_bytes: setup.window_bytes,
            dead_after: setup.dead_after,
            alive_every: setup.dead_after / 5,
            retry_min: setup.retry,
            retry_max: setup.retry * 20,
            seed: (from * 8 + to) as u64,
            ..PeerOptions::new(&format!("n{to}"), setup.modes[to])
        };
        Lane { to, peer: Peer::new(now, options), links: BTreeMap::new(), sent: Lsn::ZERO, session: 0, acked: None }
    }

    fn link_of(&self, conn: u64) -> Option<u64> {
        self.links.iter().find_map(|(&link, &of)| (of == conn).then_some(link))
    }
}

/// The identity of a node; a replaced machine is another node.
pub(crate) fn node_id(index: usize, life: u64) -> NodeId {
    let mut bytes = [0; 16];
    bytes[0] = index as u8 + 1;
    bytes[8..].copy_from_slice(&life.to_le_bytes());
    NodeId::from_bytes(bytes)
}
