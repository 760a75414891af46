//! Every interleaving of a handful of events on two nodes: append, deliver, sync, power cut, kill, restart, connect,
//! disconnect, promote. The real greeting, agreement, commit rule, gate and both cores; the checker of the simulation.
//!
//! Time stands still: whatever waits for time is zero (back-off, `Alone`) or never comes (heartbeats).

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt::Write;
use std::hash::Hasher;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use journal::{Lsn, StreamId, Term, Time};
use shipper::OnLoss;
use wire::{Message, Mode, Refusal};

use crate::checker::Checker;
use crate::log::Role;
use crate::mutant::Mutant;
use crate::node::{Node, Out, Setup};

/// How often each event may happen on one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    pub(crate) appends: u8,
    pub(crate) crashes: u8,
    pub(crate) resets: u8,
    pub(crate) connects: u8,
    pub(crate) promotions: u8,
}

/// What was explored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Explored {
    pub(crate) states: usize,
    pub(crate) depth: usize,
    /// Nothing was left to do at that depth: the budget is exhausted on every path.
    pub(crate) complete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Append(usize),
    Deliver(u64, usize),
    Sync(usize),
    Kill(usize),
    PowerCut(usize, Lsn),
    Start(usize),
    Connect(usize),
    /// One end of a connection learns that it is gone; what is under way to it still arrives.
    Reset(u64, usize),
    Promote(usize, bool),
    Rejoin(usize),
}

#[derive(Clone, Debug)]
struct State {
    nodes: [Node; 2],
    conns: BTreeMap<u64, Conn>,
    newest_conn: u64,
    left: Budget,
    items: u64,
    term: u32,
    checker: Checker,
    refused: Option<usize>,
}

#[derive(Clone, Debug)]
struct Conn {
    /// Node, start of its process, whether it still holds the connection; end 0 dialled.
    ends: [(usize, u64, bool); 2],
    queues: [VecDeque<Message>; 2],
}

pub(crate) fn setup(mode: Mode, on_loss: OnLoss, mutant: Mutant) -> Setup {
    Setup {
        stream: StreamId::from_bytes(*b"exhaustive model"),
        modes: vec![mode; 2],
        on_loss,
        window_bytes: 1 << 20,
        retry: Duration::ZERO,
        dead_after: Duration::from_secs(3600),
        report: Duration::ZERO,
        mutant,
    }
}

/// Every path of at most `depth` steps, from a connected pair on. The error is the path that breaks a promise.
pub(crate) fn explore(setup: &Setup, budget: Budget, depth: usize) -> Result<Explored, String> {
    let now = Instant::now();
    let first = State::connected(setup, now, budget)?;
    let seen = Mutex::new(HashSet::from([first.fingerprint()]));
    let mut front: Vec<(State, Vec<Step>)> = vec![(first, Vec::new())];
    let mut explored = Explored { states: 1, depth: 0, complete: false };
    for level in 1..=depth {
        let next = Mutex::new(Vec::new());
        let failure = Mutex::new(None);
        let at = AtomicUsize::new(0);
        let work = || {
            while let Some((state, path)) = front.get(at.fetch_add(1, Ordering::Relaxed)) {
                for step in state.steps(now) {
                    let mut after = state.clone();
                    let outcome = after.take(setup, now, step);
                    let path = || path.iter().copied().chain([step]).collect::<Vec<Step>>();
                    if let Err(what) = outcome {
                        let path: Vec<String> = path().iter().map(|step| format!("\n  {step:?}")).collect();
                        *failure.lock().unwrap() = Some(format!("{what}, after{}", path.concat()));
                        return;
                    }
                    if seen.lock().unwrap().insert(after.fingerprint()) {
                        next.lock().unwrap().push((after, path()));
                    }
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(work);
            }
        });
        if let Some(what) = failure.into_inner().unwrap() {
            return Err(what);
        }
        front = next.into_inner().unwrap();
        explored = Explored { states: explored.states + front.len(), depth: level, complete: front.is_empty() };
        if front.is_empty() {
            break;
        }
    }
    Ok(explored)
}

impl State {
    /// Node 0 is primary, node 1 follows it, nothing is written.
    fn connected(setup: &Setup, now: Instant, left: Budget) -> Result<State, String> {
        let nodes = [Node::new(setup, 0, Role::Primary), Node::new(setup, 1, Role::Receiver)];
        let plenty = Budget { connects: 1, ..left };
        let mut state = State {
            nodes,
            conns: BTreeMap::new(),
            newest_conn: 0,
            left: plenty,
            items: 0,
            term: 1,
            checker: Checker::default(),
            refused: None,
        };
        state.take(setup, now, Step::Start(1))?;
        state.take(setup, now, Step::Start(0))?;
        state.take(setup, now, Step::Connect(0))?;
        while let Some((&conn, end)) = state
            .conns
            .iter()
            .find_map(|(number, conn)| (0..2).find(|&end| !conn.queues[end].is_empty()).map(|end| (number, end)))
        {
            state.take(setup, now, Step::Deliver(conn, end))?;
        }
        state.left = left;
        Ok(state)
    }

    fn fingerprint(&self) -> u64 {
        let mut text = Text(DefaultHasher::new());
        write!(text, "{self:?}").expect("hashing takes any text");
        text.0.finish()
    }

    /// Everything that may happen now.
    fn steps(&self, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        for (number, conn) in &self.conns {
            for end in 0..2 {
                let (node, starts, open) = conn.ends[end];
                let alive = self.nodes[node].process.is_some() && self.nodes[node].starts == starts;
                if alive && !conn.queues[end].is_empty() {
                    steps.push(Step::Deliver(*number, end));
                }
                // an end whose other side is gone learns it for nothing; else it costs
                let gone = !self.holds(conn, 1 - end);
                if alive && open && (gone || self.left.resets > 0) {
                    steps.push(Step::Reset(*number, end));
                }
            }
        }
        for (index, node) in self.nodes.iter().enumerate() {
            if node.process.is_none() {
                steps.push(Step::Start(index));
                continue;
            }
            if self.left.appends > 0 && node.takes_appends() {
                steps.push(Step::Append(index));
            }
            if node.log.durable().lsn < node.log.tip().lsn {
                steps.push(Step::Sync(index));
            }
            if self.left.connects > 0 && node.next_timer().is_some_and(|due| due <= now) {
                steps.push(Step::Connect(index));
            }
            if self.left.crashes > 0 {
                steps.push(Step::Kill(index));
                // all that no sync covers is lost, or nothing
                let at_risk: Vec<Lsn> = node.log.boundaries_at_risk().collect();
                let (first, last) = (at_risk.first(), at_risk.last());
                steps.extend(first.map(|&keep| Step::PowerCut(index, keep)));
                steps.extend(last.filter(|last| Some(*last) != first).map(|&keep| Step::PowerCut(index, keep)));
            }
            let role = node.log.control.role;
            if self.left.promotions > 0 && role != Role::Primary {
                steps.extend([Step::Promote(index, true), Step::Promote(index, false)]);
            }
            if role == Role::Fenced || self.refused == Some(index) {
                steps.push(Step::Rejoin(index));
            }
        }
        steps
    }

    fn take(&mut self, setup: &Setup, now: Instant, step: Step) -> Result<(), String> {
        match step {
            Step::Append(node) => {
                self.left.appends -= 1;
                self.items += 1;
                let item = self.items;
                // equal clocks: the log's own time makes the difference
                self.touch(setup, now, node, |node| node.append(setup, now, Time::from_nanos(1), item))
            }
            Step::Deliver(number, end) => {
                let Some(conn) = self.conns.get_mut(&number) else { return Ok(()) };
                let node = conn.ends[end].0;
                let Some(message) = conn.queues[end].pop_front() else { return Ok(()) };
                self.touch(setup, now, node, |node| node.receive(setup, now, number, message))
            }
            Step::Sync(node) => {
                self.nodes[node].begin_sync();
                self.touch(setup, now, node, |node| node.end_sync(setup, now))
            }
            Step::Kill(node) => {
                self.left.crashes -= 1;
                self.nodes[node].kill();
                Ok(())
            }
            Step::PowerCut(node, keep) => {
                self.left.crashes -= 1;
                self.nodes[node].power_cut(keep);
                Ok(())
            }
            Step::Start(node) => self.touch(setup, now, node, |node| node.start(setup, now)),
            Step::Connect(node) => {
                self.left.connects -= 1;
                self.touch(setup, now, node, |node| node.timer(setup, now))
            }
            Step::Reset(number, end) => {
                let Some(conn) = self.conns.get_mut(&number) else { return Ok(()) };
                let (node, ..) = conn.ends[end];
                let gone = !conn.ends[1 - end].2 || self.nodes[1 - node].starts != conn.ends[1 - end].1;
                conn.ends[end].2 = false;
                if !gone && self.nodes[1 - node].process.is_some() {
                    self.left.resets -= 1;
                }
                self.touch(setup, now, node, |node| node.closed(setup, now, number))
            }
            Step::Promote(node, alone) => {
                self.left.promotions -= 1;
                self.term += 1;
                let term = Term(self.term);
                let in_doubt = self.nodes[node].intake().is_some_and(|intake| intake.in_doubt());
                let mut promoted = self.nodes[node].clone();
                promoted.log.control.term.term = term;
                self.checker.promoted(setup, &self.nodes, &promoted, in_doubt)?;
                self.touch(setup, now, node, |node| node.promote(setup, now, term, alone))
            }
            Step::Rejoin(node) => {
                self.refused = None;
                self.touch(setup, now, node, |node| node.rejoin(setup, now))
            }
        }?;
        self.forget_connections();
        self.checker.pairs(&self.nodes)
    }

    fn touch(&mut self, setup: &Setup, now: Instant, node: usize, act: impl FnOnce(&mut Node)) -> Result<(), String> {
        act(&mut self.nodes[node]);
        for out in std::mem::take(&mut self.nodes[node].out) {
            self.carry(setup, now, node, out)?;
        }
        Ok(())
    }

    fn carry(&mut self, setup: &Setup, now: Instant, from: usize, out: Out) -> Result<(), String> {
        match out {
            Out::Dial { to, link } => {
                let conn = self.nodes[to].process.is_some().then(|| {
                    self.newest_conn += 1;
                    let end = |node: usize| (node, self.nodes[node].starts, true);
                    let conn = Conn { ends: [end(from), end(to)], queues: [VecDeque::new(), VecDeque::new()] };
                    self.conns.insert(self.newest_conn, conn);
                    self.newest_conn
                });
                return self.touch(setup, now, from, |node| node.dialled(setup, now, to, link, conn));
            }
            Out::Send { conn, message } => {
                if let Some(conn) = self.conns.get_mut(&conn) {
                    let own = usize::from(conn.ends[1].0 == from);
                    if conn.ends[own].2 {
                        conn.queues[1 - own].push_back(message);
                    }
                }
            }
            Out::Close { conn } => {
                if let Some(conn) = self.conns.get_mut(&conn) {
                    let own = usize::from(conn.ends[1].0 == from);
                    conn.ends[own].2 = false;
                }
            }
            Out::Acked(acked) => self.checker.acked(setup, &self.nodes, from, acked)?,
            Out::Committed { to } => self.checker.committed(setup, &self.nodes, from, to)?,
            Out::Applied { to } => self.checker.applied(setup, &self.nodes, from, to)?,
            Out::LostDurable { node } => self.checker.lost_durable(&self.nodes, node)?,
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

    fn holds(&self, conn: &Conn, end: usize) -> bool {
        let (node, starts, open) = conn.ends[end];
        open && self.nodes[node].process.is_some() && self.nodes[node].starts == starts
    }

    /// A connection that nobody holds and on which nothing can arrive leaves no trace.
    fn forget_connections(&mut self) {
        let nodes = &self.nodes;
        self.conns.retain(|_, conn| {
            (0..2).any(|end| {
                let (node, starts, open) = conn.ends[end];
                let alive = nodes[node].process.is_some() && nodes[node].starts == starts;
                alive && (open || !conn.queues[end].is_empty())
            })
        });
    }
}

/// Hashes a text without keeping it.
struct Text(DefaultHasher);

impl Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}
