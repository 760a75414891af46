//! Two nodes, what is under way between them, and everything that may happen next.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use journal::{Lsn, Term, Time};
use wire::{Message, Refusal};

use super::Budget;
use super::sketch::{IDENTITIES, Sketch};
use crate::checker::Checker;
use crate::log::Role;
use crate::node::{Node, Out, Setup};

/// Numbers of connections are above this, and no other identity is.
const CONNS: u64 = 3 * IDENTITIES;

/// An event. Nodes and ends of connections are 0 and 1; end 0 dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    Append(usize),
    Deliver(u64, usize),
    /// A frame is lost on the way, and the connection goes on: what comes behind it is delivered.
    Lose(u64, usize),
    /// Begins and returns.
    Sync(usize),
    SyncBegins(usize),
    SyncEnds(usize),
    Kill(usize),
    /// What is kept of the log, and whether the control file has what was noted without a sync.
    PowerCut(usize, Lsn, bool),
    Start(usize),
    Connect(usize),
    /// One end of a connection learns that it is gone; it reads nothing more from it.
    Reset(u64, usize),
    /// Alone, or waiting for the peer.
    Promote(usize, bool),
    Rejoin(usize),
}

/// Clones share what wasn't touched since.
#[derive(Clone, Debug)]
pub(super) struct State {
    seats: [Arc<Seat>; 2],
    conns: BTreeMap<u64, Arc<Conn>>,
    newest_conn: u64,
    pub(super) left: Budget,
    items: u64,
    term: u32,
    checker: Arc<Checker>,
    /// It would have to cut what it knows to be committed: an operator may tell it to.
    refused: Option<usize>,
}

/// A node, and what tells it from another.
#[derive(Clone, Debug)]
struct Seat {
    node: Node,
    sketch: Sketch,
}

#[derive(Clone, Debug)]
struct Conn {
    ends: [End; 2],
}

#[derive(Clone, Debug)]
struct End {
    node: usize,
    /// Start of the process that holds it.
    starts: u64,
    open: bool,
    /// What is under way to it.
    queue: VecDeque<Arc<Letter>>,
    /// The commit point that it was told, or will be.
    announced: Lsn,
}

#[derive(Debug)]
struct Letter {
    message: Message,
    sketch: Sketch,
}

impl State {
    /// Node 0 is primary, node 1 follows it, nothing is written.
    pub(super) fn connected(setup: &Setup, now: Instant, left: Budget) -> Result<State, String> {
        let seat = |index, role| Arc::new(Seat { node: Node::new(setup, index, role), sketch: Sketch::default() });
        let mut state = State {
            seats: [seat(0, Role::Primary), seat(1, Role::Receiver)],
            conns: BTreeMap::new(),
            newest_conn: CONNS,
            left: Budget { connects: 1, ..left },
            items: 0,
            term: 1,
            checker: Arc::default(),
            refused: None,
        };
        state.take(setup, now, Step::Start(1))?;
        state.take(setup, now, Step::Start(0))?;
        state.take(setup, now, Step::Connect(0))?;
        let waiting = |state: &State| {
            let mut all = state.conns.iter().flat_map(|(number, conn)| [(number, conn, 0), (number, conn, 1)]);
            all.find(|(_, conn, end)| !conn.ends[*end].queue.is_empty()).map(|(number, _, end)| (*number, end))
        };
        while let Some((number, end)) = waiting(&state) {
            state.take(setup, now, Step::Deliver(number, end))?;
        }
        state.left = left;
        Ok(state)
    }

    /// Everything that may happen now.
    pub(super) fn steps(&self, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        for (number, conn) in &self.conns {
            for (at, end) in conn.ends.iter().enumerate().filter(|(_, end)| self.is_up(end)) {
                if let Some(letter) = end.queue.front() {
                    steps.push(Step::Deliver(*number, at));
                    if self.left.losses > 0 && matches!(letter.message, Message::Entries { .. }) {
                        steps.push(Step::Lose(*number, at));
                    }
                }
                // an end whose other side is gone learns it for nothing; else it costs
                if end.open && (!self.holds(&conn.ends[1 - at]) || self.left.resets > 0) {
                    steps.push(Step::Reset(*number, at));
                }
            }
        }
        for (index, node) in self.nodes().into_iter().enumerate() {
            if node.process.is_none() {
                steps.push(Step::Start(index));
                continue;
            }
            self.steps_of(index, node, now, &mut steps);
        }
        steps
    }

    /// What a node whose process runs may do, or may happen to it.
    fn steps_of(&self, index: usize, node: &Node, now: Instant, steps: &mut Vec<Step>) {
        let left = &self.left;
        if left.appends > 0 && node.takes_appends() {
            steps.push(Step::Append(index));
        }
        if node.syncs() {
            steps.push(Step::SyncEnds(index));
        } else if node.log.durable().lsn < node.log.tip().lsn {
            steps.push(Step::Sync(index));
            if left.slow_syncs > 0 {
                steps.push(Step::SyncBegins(index));
            }
        }
        if left.connects > 0 && node.next_timer().is_some_and(|due| due <= now) {
            steps.push(Step::Connect(index));
        }
        if left.crashes > 0 {
            steps.push(Step::Kill(index));
            for keep in node.log.boundaries_at_risk() {
                steps.push(Step::PowerCut(index, keep, false));
                if node.log.control != node.log.control_on_disk {
                    steps.push(Step::PowerCut(index, keep, true));
                }
            }
        }
        let role = node.log.control.role;
        if left.promotions > 0 && !node.takes_appends() {
            steps.push(Step::Promote(index, true));
            if role != Role::Primary {
                steps.push(Step::Promote(index, false));
            }
        }
        if role == Role::Fenced || self.refused == Some(index) {
            steps.push(Step::Rejoin(index));
        }
    }

    /// The error is the promise that it breaks.
    pub(super) fn take(&mut self, setup: &Setup, now: Instant, step: Step) -> Result<(), String> {
        match step {
            Step::Append(node) => {
                self.left.appends -= 1;
                self.items += 1;
                let item = self.items;
                // equal clocks: the log's own time makes the difference
                self.touch(setup, now, node, |node| node.append(setup, now, Time::from_nanos(1), item))?;
            }
            Step::Deliver(number, at) => {
                if let Some((node, letter)) = self.read(number, at) {
                    let message = letter.message.clone();
                    self.touch(setup, now, node, |node| node.receive(setup, now, number, message))?;
                }
            }
            Step::Lose(number, at) => {
                self.left.losses -= 1;
                self.read(number, at);
            }
            Step::Sync(node) => self.touch(setup, now, node, |node| {
                node.begin_sync();
                node.end_sync(setup, now);
            })?,
            Step::SyncBegins(node) => {
                self.left.slow_syncs -= 1;
                self.touch(setup, now, node, |node| {
                    node.begin_sync();
                })?;
            }
            Step::SyncEnds(node) => self.touch(setup, now, node, |node| node.end_sync(setup, now))?,
            Step::Kill(node) => {
                self.left.crashes -= 1;
                self.touch(setup, now, node, Node::kill)?;
            }
            Step::PowerCut(node, keep, noted) => {
                self.left.crashes -= 1;
                self.touch(setup, now, node, |node| {
                    if noted {
                        node.log.sync_control();
                    }
                    node.power_cut(keep);
                })?;
            }
            Step::Start(node) => self.touch(setup, now, node, |node| node.start(setup, now))?,
            Step::Connect(node) => {
                self.left.connects -= 1;
                self.touch(setup, now, node, |node| node.timer(setup, now))?;
            }
            Step::Reset(number, at) => self.reset(setup, now, number, at)?,
            Step::Promote(node, alone) => self.promote(setup, now, node, alone)?,
            Step::Rejoin(node) => {
                self.refused = None;
                self.touch(setup, now, node, |node| node.rejoin(setup, now))?;
            }
        }
        self.forget_connections();
        self.checker.always(&self.nodes())?;
        for seat in &mut self.seats {
            if let Some(seat) = Arc::get_mut(seat).filter(|seat| seat.sketch.is_empty()) {
                seat.sketch.node(&seat.node, setup);
                seat.sketch.shrink();
            }
        }
        Ok(())
    }

    /// Equal for states that go on alike with what is left of the budget.
    pub(super) fn fingerprint(&self) -> u128 {
        let mut sketch = Sketch::default();
        for seat in &self.seats {
            sketch.append(&seat.sketch);
        }
        for (number, conn) in &self.conns {
            sketch.identity(*number);
            for end in &conn.ends {
                sketch.number(end.node as u64);
                sketch.flag(self.is_up(end));
                sketch.flag(end.open);
                end.queue.iter().for_each(|letter| sketch.append(&letter.sketch));
                sketch.word("end");
            }
        }
        self.checker.sketch(&self.nodes(), &mut sketch);
        sketch.number(self.refused.map_or(0, |node| node as u64 + 1));
        sketch.fingerprint()
    }

    fn nodes(&self) -> [&Node; 2] {
        [&self.seats[0].node, &self.seats[1].node]
    }

    fn reset(&mut self, setup: &Setup, now: Instant, number: u64, at: usize) -> Result<(), String> {
        let Some(conn) = self.conns.get(&number) else { return Ok(()) };
        let node = conn.ends[at].node;
        self.left.resets -= u8::from(self.holds(&conn.ends[1 - at]));
        if let Some(conn) = self.conn_mut(number) {
            conn.ends[at].open = false;
            // whoever reads learns of the end behind all that he read
            conn.ends[at].queue.clear();
        }
        self.touch(setup, now, node, |node| node.closed(setup, now, number))
    }

    fn promote(&mut self, setup: &Setup, now: Instant, index: usize, alone: bool) -> Result<(), String> {
        self.left.promotions -= 1;
        self.term += 1;
        let term = Term(self.term);
        let node = &self.seats[index].node;
        let receives = node.log.control.role != Role::Primary;
        let in_doubt = receives && node.intake().is_some_and(|intake| intake.in_doubt());
        let outs = self.act(index, |node| node.promote(setup, now, term, alone));
        let nodes = [&self.seats[0].node, &self.seats[1].node];
        Arc::make_mut(&mut self.checker).promoted(setup, &nodes, nodes[index], in_doubt)?;
        outs.into_iter().try_for_each(|out| self.carry(setup, now, index, out))
    }

    fn touch(&mut self, setup: &Setup, now: Instant, index: usize, act: impl FnOnce(&mut Node)) -> Result<(), String> {
        let outs = self.act(index, act);
        outs.into_iter().try_for_each(|out| self.carry(setup, now, index, out))
    }

    fn act(&mut self, index: usize, act: impl FnOnce(&mut Node)) -> Vec<Out> {
        let seat = Arc::make_mut(&mut self.seats[index]);
        seat.sketch = Sketch::default();
        act(&mut seat.node);
        mem::take(&mut seat.node.out)
    }

    fn carry(&mut self, setup: &Setup, now: Instant, from: usize, out: Out) -> Result<(), String> {
        let nodes = [&self.seats[0].node, &self.seats[1].node];
        match out {
            Out::Dial { to, link } => {
                let conn = nodes[to].process.is_some().then(|| {
                    let end = |node: usize| End {
                        node,
                        starts: nodes[node].starts,
                        open: true,
                        queue: VecDeque::new(),
                        announced: Lsn::ZERO,
                    };
                    self.newest_conn += 1;
                    self.conns.insert(self.newest_conn, Arc::new(Conn { ends: [end(from), end(to)] }));
                    self.newest_conn
                });
                return self.touch(setup, now, from, |node| node.dialled(setup, now, to, link, conn));
            }
            Out::Send { conn, message } => self.send(conn, from, message),
            Out::Close { conn } => {
                if let Some(conn) = self.conn_mut(conn) {
                    let own = conn.end_of(from);
                    conn.ends[own].open = false;
                }
            }
            Out::Acked(acked) => Arc::make_mut(&mut self.checker).acked(setup, &nodes, from, acked)?,
            Out::Committed { to } => Arc::make_mut(&mut self.checker).committed(setup, &nodes, from, to)?,
            Out::Applied { to } => self.checker.applied(setup, &nodes, from, to)?,
            Out::LostDurable { node } => self.checker.lost_durable(&nodes, node)?,
            Out::Refused { by, refusal } => match refusal {
                Refusal::Diverged { .. }
                | Refusal::SplitBrain { .. }
                | Refusal::CopiedFolder { .. }
                | Refusal::Disagree => {
                    return Err(format!("nodes {from} and {by} refuse: {refusal:?}"));
                }
                Refusal::CutBelowCommitted { .. } => self.refused = Some(by),
                _ => {}
            },
        }
        Ok(())
    }

    fn send(&mut self, number: u64, from: usize, message: Message) {
        let Some(conn) = self.conns.get(&number) else { return };
        let own = conn.end_of(from);
        // nobody reads from a connection that he has closed; what he read before is in the queue
        if !conn.ends[own].open || !self.holds(&conn.ends[1 - own]) {
            return;
        }
        let Some(to) = self.conn_mut(number).map(|conn| &mut conn.ends[1 - own]) else { return };
        if let Message::Announce(announce) = &message {
            // what else it says is for people: an intake takes it in any state and looks at the commit point alone
            if announce.committed == to.announced {
                return;
            }
            to.announced = announce.committed;
        }
        let mut sketch = Sketch::default();
        sketch.message(&message);
        to.queue.push_back(Arc::new(Letter { message, sketch }));
    }

    fn conn_mut(&mut self, number: u64) -> Option<&mut Conn> {
        self.conns.get_mut(&number).map(Arc::make_mut)
    }

    /// What arrives at an end next: which node reads it, and what it is.
    fn read(&mut self, number: u64, at: usize) -> Option<(usize, Arc<Letter>)> {
        let end = &mut self.conn_mut(number)?.ends[at];
        Some((end.node, end.queue.pop_front()?))
    }

    /// The process that holds this end runs.
    fn is_up(&self, end: &End) -> bool {
        let node = &self.seats[end.node].node;
        node.process.is_some() && node.starts == end.starts
    }

    fn holds(&self, end: &End) -> bool {
        end.open && self.is_up(end)
    }

    /// What nobody can read any more leaves no trace.
    fn forget_connections(&mut self) {
        let mut conns = mem::take(&mut self.conns);
        let before = conns.len();
        conns.retain(|_, conn| {
            let unread = |end: &End| !self.is_up(end) && !end.queue.is_empty();
            if conn.ends.iter().any(unread) {
                Arc::make_mut(conn).ends.iter_mut().filter(|end| unread(end)).for_each(|end| end.queue.clear());
            }
            conn.ends.iter().any(|end| self.holds(end) || !end.queue.is_empty())
        });
        if conns.len() < before {
            for index in 0..2 {
                if self.seats[index].node.conns().any(|conn| !conns.contains_key(&conn)) {
                    self.act(index, |node| node.forget_conns(|conn| conns.contains_key(&conn)));
                }
            }
        }
        self.conns = conns;
    }
}

impl Conn {
    fn end_of(&self, node: usize) -> usize {
        usize::from(self.ends[1].node == node)
    }
}
