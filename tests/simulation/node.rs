//! One simulated node: its disk, and while it is up a process with both cores and the driver around them.
//!
//! The driver does what the duties of `shipper::Peer` and `receiver::Intake` ask, in their order, and nothing else. What
//! leaves the node is put into `out`; the world carries it.

mod driver;
mod primary;

use std::time::{Duration, Instant};

use bytes::Bytes;
use journal::{Lsn, NodeId, StreamId, Term, TermSeen, Time};
use receiver::{Found, Intake, IntakeOptions};
use shipper::{Marks, OnLoss};
use wire::{Alive, Greeting, Message, Mode, NodeInfo, PROTOCOL, Place};

use self::primary::Lane;
pub(crate) use self::primary::Primary;
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
    /// Distance of announcements, and of what is compared and remembered.
    pub(crate) report: Duration,
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
    pub(crate) sync: Option<(SyncTicket, u64)>,
    /// The intake asked for a sync while one ran.
    sync_wanted: bool,
    pub(crate) full: bool,
    failed: bool,
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
        let again = self.log.control.role == Role::Primary && self.log.control.run > 0;
        if setup.mutant == Mutant::RestartRaisesTerm && again {
            let id = self.fresh();
            let control = &mut self.log.control;
            control.term = TermSeen { term: Term(control.term.term.0 + 1), id };
            control.run = 0;
        }
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
            in_doubt: control.settled_boot != Some(self.boot) && setup.mutant != Mutant::NeverInDoubt,
            rebuilt: false,
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
        // what was received is durable before the term is: else a power cut in between loses what the old primary may
        // still be acknowledging
        if setup.mutant == Mutant::PromotionForgetsTail {
            self.log.cut(self.log.durable().lsn);
        }
        if setup.mutant != Mutant::PromotionUnsynced {
            let tail = self.log.begin_sync();
            self.log.end_sync(tail);
        }
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

    /// The connections to its peers that it dialled.
    pub(crate) fn conns(&self) -> impl Iterator<Item = u64> {
        let lanes = self.primary().into_iter().flat_map(|primary| &primary.lanes);
        lanes.flat_map(|lane| lane.links.values().copied())
    }

    /// Nothing will arrive any more on the others.
    pub(crate) fn forget_conns(&mut self, keep: impl Fn(u64) -> bool) {
        let primary = self.process.as_mut().and_then(|process| process.primary.as_mut());
        for lane in primary.into_iter().flat_map(|primary| &mut primary.lanes) {
            lane.links.retain(|_, conn| keep(*conn));
        }
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

    /// A sync is in progress.
    pub(crate) fn syncs(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.sync.is_some())
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
        let Some((ticket, began_in)) = process.sync.take() else { return };
        let counts_anyway = setup.mutant == Mutant::CutSyncCounted;
        let generation = if counts_anyway { process.intake.generation() } else { began_in };
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
}

/// The identity of a node; a replaced machine is another node.
pub(crate) fn node_id(index: usize, life: u64) -> NodeId {
    let mut bytes = [0; 16];
    bytes[0] = index as u8 + 1;
    bytes[8..].copy_from_slice(&life.to_le_bytes());
    NodeId::from_bytes(bytes)
}
