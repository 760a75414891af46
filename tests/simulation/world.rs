//! Time, network, faults and an operator: everything around the nodes, from one seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use journal::{Lsn, StreamId, Term, Time};
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
        self.checker.settled(&self.nodes).map_err(|what| {
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
        self.checker.pairs(&self.nodes)
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
                self.checker.acked(&self.setup, &self.nodes, from, acked)?;
            }
            Out::Committed { to } => self.checker.committed(&self.setup, &self.nodes, from, to)?,
            Out::Applied { to } => self.checker.applied(&self.setup, &self.nodes, from, to)?,
            Out::LostDurable { node } => self.checker.lost_durable(&self.nodes, node)?,
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

    // --- the network ---

    fn dialled(&mut self, node: usize, starts: u64, to: usize, link: u64) -> Result<(), String> {
        if self.nodes[node].starts != starts || self.nodes[node].process.is_none() {
            return Ok(());
        }
        let fails = !self.calm && self.rng.chance(1, 12);
        if fails {
            self.count("dialling failed");
        }
        let up = self.nodes[to].process.is_some() && !self.is_partitioned(node, to) && !fails;
        let now = self.now;
        let conn = up.then(|| {
            self.newest_conn += 1;
            let end = |node: usize, starts| End {
                node,
                starts,
                open: true,
                silent: false,
                queue: VecDeque::new(),
                last: now,
            };
            let ends = [end(node, starts), end(to, self.nodes[to].starts)];
            self.conns.insert(self.newest_conn, Conn { ends, opened: self.newest_conn });
            self.newest_conn
        });
        self.touch(node, |node, setup| node.dialled(setup, now, to, link, conn))
    }

    fn post(&mut self, conn: u64, end: usize, message: Message) {
        let [a, b] = [0, 1].map(|at| self.end_of(conn, at).node);
        if self.is_partitioned(a, b) {
            self.end_of(conn, end).silent = true;
        }
        let sender_open = self.end_of(conn, 1 - end).open;
        if self.end_of(conn, end).silent || !sender_open {
            return;
        }
        let message = match self.spoil(conn, message) {
            Some(message) => message,
            None => return,
        };
        self.end_of(conn, end).queue.push_back(message);
        let at = self.later(conn, end);
        self.at(at, Event::Deliver { conn, end });
    }

    /// Now and then a frame is damaged or lost on the way, as no TCP would do it but a broken proxy.
    fn spoil(&mut self, conn: u64, message: Message) -> Option<Message> {
        let Message::Entries { session, at, bytes } = message else { return Some(message) };
        if !self.calm && self.rng.chance(1, 150) {
            self.count("frame lost in flight");
            // such a connection doesn't live for ever; nobody is told of the frame if nothing follows it
            let at = self.now + self.millis(300, 3000);
            for end in 0..2 {
                self.at(at, Event::Closed { conn, end });
            }
            return None;
        }
        if !self.calm && self.rng.chance(1, 150) {
            self.count("bits flipped in flight");
            let mut spoiled = bytes.to_vec();
            let place = self.rng.below(spoiled.len() as u64) as usize;
            spoiled[place] ^= 1 << self.rng.below(8);
            return Some(Message::Entries { session, at, bytes: spoiled.into() });
        }
        Some(Message::Entries { session, at, bytes })
    }

    fn deliver(&mut self, conn: u64, end: usize) -> Result<(), String> {
        let Some(message) = self.end_of(conn, end).queue.pop_front() else { return Ok(()) };
        let End { node, starts, open, .. } = *self.end_of(conn, end);
        if self.nodes[node].starts != starts || self.nodes[node].process.is_none() {
            return Ok(());
        }
        let from = self.end_of(conn, 1 - end).node;
        let opened = self.conns.get(&conn).map_or(0, |conn| conn.opened);
        let newest = self.heard.entry((node, from)).or_insert(opened);
        if opened < *newest {
            self.count("reordered across connections");
        } else {
            *newest = opened;
        }
        if !open {
            // the driver had read it already when the core closed the connection
            self.count("late message of an ended connection");
        }
        let replaces = matches!(message, Message::Greeting(_))
            && end == 1
            && self.nodes[node].intake().is_some_and(|intake| intake.link().is_some());
        if replaces {
            self.count("connection replaced by a newer one");
        }
        let now = self.now;
        self.touch(node, |node, setup| node.receive(setup, now, conn, message))
    }

    /// When something sent now arrives: behind what was sent before on the same connection.
    fn later(&mut self, conn: u64, end: usize) -> Instant {
        let delay = match self.rng.below(if self.calm { 1 } else { 300 }) {
            1..8 => self.millis(5, 400),
            8 | 9 => self.millis(400, 4000), // longer than a connection without a sign of life is kept
            _ => self.micros(20, 2000),
        };
        let now = self.now;
        let end = self.end_of(conn, end);
        end.last = end.last.max(now + delay);
        end.last
    }

    fn end_of(&mut self, conn: u64, end: usize) -> &mut End {
        &mut self.conns.get_mut(&conn).expect("connections are never forgotten").ends[end]
    }

    fn other_end(&self, conn: u64, from: usize) -> Option<usize> {
        let conn = self.conns.get(&conn)?;
        let own = (0..2).find(|&at| conn.ends[at].node == from)?;
        conn.ends[own].open.then_some(1 - own)
    }

    fn is_partitioned(&self, a: usize, b: usize) -> bool {
        let cut =
            |(x, y, until): &(usize, usize, Instant)| ((*x, *y) == (a, b) || (*x, *y) == (b, a)) && self.now < *until;
        self.partitioned.iter().any(cut)
    }

    fn alive(&mut self) -> Result<(), String> {
        self.after(self.setup.dead_after / 5, Event::Alive);
        for node in 0..self.nodes.len() {
            if self.nodes[node].primary().is_some_and(|primary| primary.run.is_none() && !primary.ended) {
                self.count("gate waited");
            }
            if let Some(conn) = self.nodes[node].intake().and_then(|intake| intake.link()) {
                let ms = self.sync_began[node].map_or(0, |began| self.now.duration_since(began).as_millis() as u32);
                self.touch(node, |node, _| node.say_alive(conn, ms))?;
            }
        }
        Ok(())
    }

    // --- the disk ---

    fn begin_sync(&mut self, node: usize) {
        if !self.nodes[node].begin_sync() {
            return;
        }
        self.sync_began[node] = Some(self.now);
        let fails = !self.calm && self.rng.chance(1, 300);
        let stalls = !self.calm && self.rng.chance(1, 150);
        if stalls {
            self.count("sync stalled");
        }
        let delay = if stalls { self.millis(300, 3000) } else { self.micros(50, 4000) };
        let starts = self.nodes[node].starts;
        self.after(delay, Event::SyncEnds { node, starts, fails });
    }

    fn sync_ends(&mut self, node: usize, fails: bool) -> Result<(), String> {
        let now = self.now;
        if !fails {
            return self.touch(node, |node, setup| node.end_sync(setup, now));
        }
        let primary = self.nodes[node].is_primary();
        self.count(if primary { "sync failed at the primary" } else { "sync failed at a receiver" });
        self.touch(node, |node, setup| node.fail_sync(setup, now))?;
        if self.nodes[node].process.is_none() {
            self.hang_up(node);
        }
        let delay = self.millis(50, 800);
        // whoever runs the node starts it again
        if self.nodes[node].has_failed() && self.rng.chance(1, 2) {
            self.power_cut(node);
        } else if self.nodes[node].process.is_some() {
            self.kill(node);
        }
        self.after(delay, Event::Start { node });
        Ok(())
    }

    fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
        self.hang_up(node);
    }

    /// The kernel closes the connections of a process that died.
    fn hang_up(&mut self, node: usize) {
        let conns: Vec<(u64, usize)> = self.conns_of(node);
        for (conn, own) in conns {
            self.end_of(conn, own).open = false;
            if !self.end_of(conn, 1 - own).silent {
                let at = self.later(conn, 1 - own);
                self.at(at, Event::Closed { conn, end: 1 - own });
            }
        }
    }

    /// Nobody tells the others.
    fn power_cut(&mut self, node: usize) {
        let at_risk: Vec<Lsn> = self.nodes[node].log.boundaries_at_risk().collect();
        let keep = *self.rng.pick(&at_risk);
        if keep < self.nodes[node].log.tip().lsn {
            self.count("tail lost in a power cut");
        }
        self.nodes[node].power_cut(keep);
        for (conn, own) in self.conns_of(node) {
            self.end_of(conn, own).open = false;
            self.end_of(conn, 1 - own).silent = true;
        }
    }

    fn conns_of(&self, node: usize) -> Vec<(u64, usize)> {
        let of = |(number, conn): (&u64, &Conn)| {
            (0..2).find(|&at| conn.ends[at].node == node && conn.ends[at].open).map(|at| (*number, at))
        };
        self.conns.iter().filter_map(of).collect()
    }

    // --- people ---

    fn client(&mut self) -> Result<(), String> {
        let delay = if self.calm { self.millis(200, 2000) } else { self.millis(1, 130) };
        self.after(delay, Event::Client);
        let late = self.now > self.start + STORMY + CALM - Duration::from_secs(5);
        if late || (self.items >= ITEMS_MAX && !self.calm) {
            return Ok(());
        }
        let now = self.now;
        let clock = Time::from_nanos(now.duration_since(self.start).as_nanos() as u64);
        for node in 0..self.nodes.len() {
            for _ in 0..self.rng.between(1, 4) {
                if self.nodes[node].takes_appends() {
                    self.items += 1;
                    let item = self.items;
                    self.touch(node, |node, setup| node.append(setup, now, clock, item))?;
                }
            }
        }
        Ok(())
    }

    fn fault(&mut self) -> Result<(), String> {
        let delay = self.millis(20, 500);
        self.after(delay, Event::Fault);
        if self.calm {
            return Ok(());
        }
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        let up = self.nodes[node].process.is_some();
        let primary = self.nodes[node].is_primary();
        match self.rng.below(11) {
            0 | 1 if up => {
                self.count(if primary { "kill -9 of the primary" } else { "kill -9 of a receiver" });
                self.kill(node);
                let delay = self.millis(10, 1500);
                self.after(delay, Event::Start { node });
            }
            2 | 3 if up => {
                self.count(if primary { "power cut at the primary" } else { "power cut at a receiver" });
                self.power_cut(node);
                let delay = self.millis(100, 2500);
                self.after(delay, Event::Start { node });
            }
            4 | 5 => {
                let conns = self.conns_of(node);
                if let Some(&(conn, own)) = (!conns.is_empty()).then(|| self.rng.pick(&conns)) {
                    self.count("connection reset");
                    for end in [own, 1 - own] {
                        let at = self.later(conn, end);
                        self.at(at, Event::Closed { conn, end });
                    }
                }
            }
            6 | 7 => {
                let conns = self.conns_of(node);
                if let Some(&(conn, own)) = (!conns.is_empty()).then(|| self.rng.pick(&conns)) {
                    self.count("connection half open");
                    self.end_of(conn, own).silent = true;
                }
            }
            8 => {
                self.count("nodes partitioned");
                let other = (node + 1 + self.rng.below(self.nodes.len() as u64 - 1) as usize) % self.nodes.len();
                let until = self.now + self.millis(100, 2500);
                self.partitioned.push((node, other, until));
            }
            9 if up && !primary => {
                self.count("disk full");
                if let Some(process) = &mut self.nodes[node].process {
                    process.full = !process.full;
                }
            }
            10 if !primary && self.nodes[node].log.control.role == Role::Receiver && self.rng.chance(1, 4) => {
                self.count("machine replaced by an empty one");
                self.power_cut(node);
                let setup = self.setup.clone();
                self.nodes[node].replace(&setup);
                let delay = self.millis(50, 800);
                self.after(delay, Event::Start { node });
            }
            _ => {}
        }
        Ok(())
    }

    fn operate(&mut self) -> Result<(), String> {
        let delay = self.millis(300, 1500);
        self.after(delay, Event::Operator);
        let now = self.now;
        // a fenced node follows again, a replica that would have to be cut is told to
        for node in 0..self.nodes.len() {
            let up = self.nodes[node].process.is_some();
            if up && self.nodes[node].log.control.role == Role::Fenced && (self.calm || self.rng.chance(1, 2)) {
                self.hang_up(node);
                self.touch(node, |node, setup| node.rejoin(setup, now))?;
            }
        }
        let refused: Vec<(usize, usize)> = self.refused.keys().copied().collect();
        for (from, by) in refused {
            let cut = matches!(self.refused.remove(&(from, by)), Some(Refusal::CutBelowCommitted { .. }));
            let newest = self.nodes[from].log.control.term.term == Term(self.term);
            if cut && newest && self.nodes[by].process.is_some() && self.nodes[by].log.control.role == Role::Receiver {
                self.hang_up(by);
                self.touch(by, |node, setup| node.rejoin(setup, now))?;
            }
        }
        let newest_up =
            self.nodes.iter().any(|node| node.is_primary() && node.log.control.term.term == Term(self.term));
        let any = self.nodes.iter().any(|node| node.log.control.role == Role::Primary);
        let wanted = if self.calm { !any } else { self.rng.chance(1, if newest_up { 12 } else { 3 }) };
        if wanted { self.promote() } else { Ok(()) }
    }

    fn promote(&mut self) -> Result<(), String> {
        let up: Vec<usize> = (0..self.nodes.len()).filter(|&node| self.nodes[node].process.is_some()).collect();
        // after the storm only a node that keeps every promise is chosen
        let (calm, setup) = (self.calm, &self.setup);
        let keeps = |node: &usize| !calm || setup.modes[*node] != Mode::Async;
        let up: Vec<usize> = up.into_iter().filter(keeps).collect();
        if up.is_empty() || self.nodes.iter().all(|node| node.log.tip().lsn == Lsn::ZERO) {
            return Ok(());
        }
        let node = *self.rng.pick(&up);
        let in_doubt = self.nodes[node].intake().is_some_and(|intake| intake.in_doubt());
        let was_primary = self.nodes[node].log.control.role == Role::Primary;
        let careful = in_doubt && !was_primary && !self.rng.chance(1, 4);
        if careful || self.nodes[node].has_failed() {
            return Ok(());
        }
        self.count("promotion");
        if self.nodes.iter().any(|other| other.index != node && other.is_primary()) {
            self.count("promotion while the old primary runs");
        }
        self.term = self.term.max(self.nodes.iter().map(|node| node.log.control.term.term.0).max().unwrap_or(1)) + 1;
        let (term, now, alone) = (Term(self.term), self.now, self.rng.chance(1, 2));
        let mut promoted = self.nodes[node].clone();
        promoted.log.control.term.term = term;
        self.checker.promoted(&self.setup, now, &promoted, in_doubt && !was_primary)?;
        self.touch(node, |node, setup| node.promote(setup, now, term, alone))
    }

    // --- small things ---

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
