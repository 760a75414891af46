//! Time, network, faults and an operator: everything around the nodes, from one seed.

mod disk;
mod network;
mod people;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use journal::StreamId;
use shipper::OnLoss;
use wire::{Message, Mode, Refusal};

use crate::checker::Checker;
use crate::log::Role;
use crate::mutant::Mutant;
use crate::node::{Level, Node, Out, Setup};
use crate::rng::Rng;

/// How often each kind of fault or situation came up.
pub(crate) type Counters = BTreeMap<&'static str, u64>;

/// Every kind that a whole run of seeds must have seen.
pub(crate) const KINDS: &[&str] = &[
    "acknowledged alone",
    "acknowledged as committed",
    "acknowledged as durable at the peers",
    "acknowledged as received",
    "bits flipped in flight",
    "connection half open",
    "connection replaced by a newer one",
    "connection reset",
    "dialling failed",
    "disk full",
    "frame lost in flight",
    "gate waited",
    "in doubt",
    "kill -9 of a receiver",
    "kill -9 of the primary",
    "late message of an ended connection",
    "machine replaced by an empty one",
    "nodes partitioned",
    "old primary fenced",
    "power cut at a receiver",
    "power cut at the primary",
    "promotion",
    "promotion while the old primary runs",
    "refused to cut below committed",
    "reordered across connections",
    "sync failed at a receiver",
    "sync failed at the primary",
    "sync stalled",
    "tail cut",
    "tail lost in a power cut",
    "tail taken back",
];

const TICK: Duration = Duration::from_millis(1);
/// Virtual time with faults, and without them at the end.
const STORMY: Duration = Duration::from_secs(8);
const CALM: Duration = Duration::from_secs(25);
const ITEMS_MAX: u64 = 120;

#[derive(Clone, Debug)]
enum Event {
    Deliver { conn: u64, end: usize },
    Closed { conn: u64, end: usize },
    Dialled { node: usize, starts: u64, to: usize, link: u64 },
    Timer { node: usize },
    SyncEnds { node: usize, starts: u64, fails: bool },
    Flush { node: usize },
    Alive,
    Client,
    Fault,
    Start { node: usize },
    Operator,
}

/// A connection. End 0 dialled, end 1 answered.
#[derive(Clone, Debug)]
struct Conn {
    ends: [End; 2],
    /// Pairs to tell whether messages overtook those of another connection.
    opened: u64,
}

#[derive(Clone, Debug)]
struct End {
    node: usize,
    starts: u64,
    open: bool,
    /// Messages toward this end vanish: the connection is half open, or cut by a partition.
    silent: bool,
    queue: VecDeque<Message>,
    last: Instant,
}

pub(crate) struct World {
    pub(crate) counters: Counters,
    setup: Setup,
    rng: Rng,
    now: Instant,
    start: Instant,
    sequence: u64,
    /// Events in this instant.
    busy: u64,
    events: BinaryHeap<Reverse<(Instant, u64, Boxed)>>,
    nodes: Vec<Node>,
    timers: Vec<Option<Instant>>,
    conns: BTreeMap<u64, Conn>,
    newest_conn: u64,
    /// Newest connection on which something reached a node from another one.
    heard: BTreeMap<(usize, usize), u64>,
    partitioned: Vec<(usize, usize, Instant)>,
    refused: BTreeMap<(usize, usize), Refusal>,
    sync_began: Vec<Option<Instant>>,
    items: u64,
    term: u32,
    calm: bool,
    checker: Checker,
}

/// Orders events of one instant by sequence alone.
#[derive(Clone, Debug)]
struct Boxed(Event);

impl PartialEq for Boxed {
    fn eq(&self, _: &Boxed) -> bool {
        true
    }
}

impl Eq for Boxed {}

impl PartialOrd for Boxed {
    fn partial_cmp(&self, other: &Boxed) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Boxed {
    fn cmp(&self, _: &Boxed) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

/// One run; the counters of what happened in it, or what is wrong.
pub(crate) fn run(seed: u64, mutant: Mutant) -> Result<Counters, String> {
    let mut world = World::new(seed, mutant);
    world.begin();
    let outcome = world.storm().and_then(|()| world.settle_down());
    outcome.map(|()| world.counters.clone()).map_err(|what| {
        let at = world.now.duration_since(world.start);
        format!("seed {seed}, {mutant:?}, {:?}, at {at:?}: {what}", world.setup.modes)
    })
}

impl World {
    fn new(seed: u64, mutant: Mutant) -> World {
        let mut rng = Rng::new(seed);
        let count = 2 + usize::from(rng.chance(1, 3));
        let mode = |rng: &mut Rng| *rng.pick(&[Mode::Sync, Mode::Sync, Mode::SemiSync, Mode::SemiSync, Mode::Async]);
        let after = Duration::from_millis(rng.between(100, 1500));
        let setup = Setup {
            stream: StreamId::from_bytes(*b"simulated stream"),
            modes: (0..count).map(|_| mode(&mut rng)).collect(),
            on_loss: *rng.pick(&[OnLoss::Block, OnLoss::Fail { after }, OnLoss::Alone { after }]),
            window_bytes: *rng.pick(&[300, 2000, 1 << 20]),
            retry: Duration::from_millis(rng.between(5, 50)),
            dead_after: Duration::from_secs(1),
            report: Duration::from_millis(10),
            mutant,
        };
        let roles = |index| if index == 0 { Role::Primary } else { Role::Receiver };
        let nodes: Vec<Node> = (0..count).map(|index| Node::new(&setup, index, roles(index))).collect();
        let now = Instant::now();
        World {
            counters: Counters::new(),
            rng,
            now,
            start: now,
            sequence: 0,
            busy: 0,
            events: BinaryHeap::new(),
            timers: vec![None; count],
            conns: BTreeMap::new(),
            newest_conn: 0,
            heard: BTreeMap::new(),
            partitioned: Vec::new(),
            refused: BTreeMap::new(),
            sync_began: vec![None; count],
            items: 0,
            term: 1,
            calm: false,
            checker: Checker::default(),
            nodes,
            setup,
        }
    }

    fn begin(&mut self) {
        for node in 0..self.nodes.len() {
            self.after(Duration::ZERO, Event::Start { node });
            self.after(TICK, Event::Flush { node });
        }
        for event in [Event::Client, Event::Alive, Event::Fault, Event::Operator] {
            let delay = self.millis(1, 200);
            self.after(delay, event);
        }
    }

    fn storm(&mut self) -> Result<(), String> {
        self.run_until(self.start + STORMY)
    }

    /// No more faults; the operator mends what waits for an operator. Then everything must come together.
    fn settle_down(&mut self) -> Result<(), String> {
        self.calm = true;
        self.partitioned.clear();
        for node in 0..self.nodes.len() {
            if self.nodes[node].has_failed() {
                self.kill(node);
            }
            if let Some(process) = &mut self.nodes[node].process {
                process.full = false;
            }
            if self.nodes[node].process.is_none() {
                self.after(TICK, Event::Start { node });
            }
        }
        self.run_until(self.start + STORMY + CALM)?;
        self.checker.settled(&seen(&self.nodes)).map_err(|what| {
            let states = self.nodes.iter().map(|node| format!("\n  {}", node.summary()));
            what + &states.collect::<String>()
        })
    }

    fn run_until(&mut self, end: Instant) -> Result<(), String> {
        while let Some(Reverse((at, _, _))) = self.events.peek() {
            if *at > end {
                break;
            }
            let Some(Reverse((at, _, Boxed(event)))) = self.events.pop() else { break };
            self.busy = if at == self.now { self.busy + 1 } else { 0 };
            if self.busy > 10_000 {
                return Err(format!("time stands still: {event:?}"));
            }
            self.now = at;
            self.handle(event)?;
        }
        self.now = end;
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        let now = self.now;
        match event {
            Event::Deliver { conn, end } => self.deliver(conn, end)?,
            Event::Closed { conn, end } => {
                let Some(End { node, starts, open: true, .. }) =
                    self.conns.get(&conn).map(|conn| conn.ends[end].clone())
                else {
                    return Ok(());
                };
                self.end_of(conn, end).open = false;
                if self.nodes[node].starts == starts {
                    self.touch(node, |node, setup| node.closed(setup, now, conn))?;
                }
            }
            Event::Dialled { node, starts, to, link } => self.dialled(node, starts, to, link)?,
            Event::Timer { node } => {
                self.timers[node] = None;
                self.touch(node, |node, setup| node.timer(setup, now))?;
            }
            Event::SyncEnds { node, starts, fails } => {
                if self.nodes[node].starts == starts {
                    self.sync_began[node] = None;
                    self.sync_ends(node, fails)?;
                }
            }
            Event::Flush { node } => {
                let delay = self.millis(5, 60);
                self.after(delay, Event::Flush { node });
                self.begin_sync(node);
            }
            Event::Alive => self.alive()?,
            Event::Client => self.client()?,
            Event::Fault => self.fault()?,
            Event::Operator => self.operate()?,
            Event::Start { node } => {
                if self.nodes[node].process.is_none() {
                    self.touch(node, |node, setup| node.start(setup, now))?;
                }
            }
        }
        self.checker.always(&seen(&self.nodes))
    }

    /// Lets a node do something, carries what leaves it, and looks after its timer and its disk.
    fn touch(&mut self, node: usize, act: impl FnOnce(&mut Node, &Setup)) -> Result<(), String> {
        act(&mut self.nodes[node], &self.setup);
        for out in std::mem::take(&mut self.nodes[node].out) {
            self.carry(node, out)?;
        }
        if self.nodes[node].sync_is_due() {
            self.begin_sync(node);
        }
        if let Some(due) = self.nodes[node].next_timer() {
            let due = due.max(self.now);
            if self.timers[node].is_none_or(|set| due < set) {
                self.timers[node] = Some(due);
                self.at(due, Event::Timer { node });
            }
        }
        Ok(())
    }

    fn carry(&mut self, from: usize, out: Out) -> Result<(), String> {
        match out {
            Out::Dial { to, link } => {
                let starts = self.nodes[from].starts;
                let delay = self.micros(100, 3000);
                self.after(delay, Event::Dialled { node: from, starts, to, link });
            }
            Out::Send { conn, message } => {
                let Some(end) = self.other_end(conn, from) else { return Ok(()) };
                self.note_message(from, &message);
                self.post(conn, end, message);
            }
            Out::Close { conn } => {
                let Some(end) = self.other_end(conn, from) else { return Ok(()) };
                self.end_of(conn, 1 - end).open = false;
                if !self.end_of(conn, end).silent {
                    let at = self.later(conn, end);
                    self.at(at, Event::Closed { conn, end });
                }
            }
            Out::Acked(acked) => {
                self.count(match (acked.alone, acked.level) {
                    (true, _) => "acknowledged alone",
                    (false, Level::Committed) => "acknowledged as committed",
                    (false, Level::Received) => "acknowledged as received",
                    (false, Level::PeerDurable) => "acknowledged as durable at the peers",
                });
                self.checker.acked(&self.setup, &seen(&self.nodes), from, acked)?;
            }
            Out::Committed { to } => self.checker.committed(&self.setup, &seen(&self.nodes), from, to)?,
            Out::Applied { to } => self.checker.applied(&self.setup, &seen(&self.nodes), from, to)?,
            Out::LostDurable { node } => self.checker.lost_durable(&seen(&self.nodes), node)?,
            Out::Refused { by, refusal } => {
                match refusal {
                    Refusal::Fenced { .. } => self.count("old primary fenced"),
                    Refusal::CutBelowCommitted { .. } => self.count("refused to cut below committed"),
                    Refusal::Diverged { .. } => return Err(format!("nodes {from} and {by} diverged: {refusal:?}")),
                    Refusal::SplitBrain { .. } | Refusal::CopiedFolder { .. } | Refusal::Disagree => {
                        return Err(format!("nodes {from} and {by} refuse: {refusal:?}"));
                    }
                    _ => {}
                }
                self.refused.insert((from, by), refusal);
            }
        }
        Ok(())
    }

    fn note_message(&mut self, from: usize, message: &Message) {
        match message {
            Message::Start(start) => match start.agreement {
                wire::Agreement::Cut { .. } => self.count("tail cut"),
                wire::Agreement::TakeBack { .. } => self.count("tail taken back"),
                _ => {}
            },
            Message::Greeting(_) if self.nodes[from].intake().is_some_and(|intake| intake.in_doubt()) => {
                self.count("in doubt");
            }
            _ => {}
        }
    }

    fn count(&mut self, kind: &'static str) {
        debug_assert!(KINDS.contains(&kind), "{kind}");
        *self.counters.entry(kind).or_default() += 1;
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    fn at(&mut self, at: Instant, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, Boxed(event))));
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.between(from, to))
    }

    fn micros(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(self.rng.between(from, to))
    }
}

/// The nodes as the checker takes them.
fn seen(nodes: &[Node]) -> Vec<&Node> {
    nodes.iter().collect()
}
