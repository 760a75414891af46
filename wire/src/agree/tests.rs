//! One test per shape, and a world of two nodes that checks the answers against the logs themselves.

use journal::{Chain, Epoch, Geometry, History, Lsn, LsnRange, NodeId, Opening, StreamId, Term, TermSeen, Time};
use proptest::prelude::*;

use super::agree;
use crate::message::{Agreement, Greeting, Mode, NodeInfo, PROTOCOL, Place, Refusal};

/// Eight bytes of a log: which run wrote them. Equal runs at equal places wrote equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    epoch: Epoch,
    term_id: u64,
    run_id: u64,
}

#[derive(Clone, Debug)]
struct Node {
    id: u8,
    log: Vec<Cell>,
    term: TermSeen,
    opened: bool,
    start: u64,
    committed: u64,
    applied: u64,
}

/// A run of `len` cells; the term's id is derived from its number unless a test wants two.
fn run(term: u32, run: u32, len: usize) -> Vec<Cell> {
    let epoch = Epoch { term: Term(term), run };
    vec![Cell { epoch, term_id: u64::from(term) * 100, run_id: u64::from(term * 1000 + run) }; len]
}

fn node(id: u8, runs: &[Vec<Cell>]) -> Node {
    let log = runs.concat();
    let term = log.last().map_or(TermSeen::default(), |cell| TermSeen { term: cell.epoch.term, id: cell.term_id });
    Node { id, log, term, opened: false, start: 0, committed: 0, applied: 0 }
}

fn lsn(cells: u64) -> Lsn {
    Lsn::new(cells * 8)
}

impl Node {
    fn place(&self, cells: usize) -> Place {
        let seed = Chain::seed(StreamId::default());
        let chain = self.log[..cells].iter().fold(seed, |chain, cell| {
            let mut bytes = cell.term_id.to_le_bytes().to_vec();
            bytes.extend_from_slice(&cell.run_id.to_le_bytes());
            chain.link(&bytes)
        });
        Place { lsn: lsn(cells as u64), chain }
    }

    fn history(&self) -> History {
        let mut history = History::default();
        for (at, cell) in self.log.iter().enumerate() {
            if history.last().is_none_or(|last| last.epoch != cell.epoch) {
                let opening = Opening {
                    epoch: cell.epoch,
                    term_id: cell.term_id,
                    run_id: cell.run_id,
                    node: NodeId::default(),
                    first: lsn(at as u64),
                    chain_in: self.place(at).chain,
                };
                assert!(history.push(opening), "the test's own world is out of order");
            }
        }
        history
    }

    fn greeting(&self) -> Greeting {
        let end = self.place(self.log.len());
        Greeting {
            protocol: PROTOCOL,
            stream: StreamId::default(),
            stream_name: "log".into(),
            geometry: Geometry::default(),
            node: NodeInfo { id: NodeId::from_bytes([self.id; 16]), name: "n".into(), start_id: 1, boot_id: [0; 16] },
            mode: Mode::Sync,
            term: self.term,
            opened: self.opened,
            history: self.history(),
            start: lsn(self.start),
            end,
            durable: end.lsn,
            committed: lsn(self.committed),
            applied: lsn(self.applied),
            remembers: None,
            clock: Time::ZERO,
        }
    }
}

fn shared(a: &Node, b: &Node) -> usize {
    a.log.iter().zip(&b.log).take_while(|(a, b)| a == b).count()
}

fn meet(primary: &Node, receiver: &Node) -> Agreement {
    agree(&primary.greeting(), &receiver.greeting())
}

#[test]
fn shapes_of_two_logs() {
    let opened = |mut node: Node| {
        node.opened = true;
        node
    };
    let seen = |mut node: Node, term: u32| {
        node.term = TermSeen { term: Term(term), id: u64::from(term) * 100 };
        node
    };
    let from = |node: &Node| Agreement::Stream { from: node.place(node.log.len()) };
    let cut = |to, end| Agreement::Cut { to: lsn(to), tail: LsnRange::new(lsn(to), lsn(end)) };
    let p = |runs: &[Vec<Cell>]| node(1, runs);
    let r = |runs: &[Vec<Cell>]| node(2, runs);

    let empty = r(&[]);
    let five = r(&[run(1, 1, 5)]);
    let back = |primary: &Node, to| Agreement::TakeBack { from: primary.place(primary.log.len()), to: lsn(to) };
    let table = [
        ("both empty", p(&[]), empty.clone(), from(&empty)),
        ("receiver empty", p(&[run(1, 1, 5)]), empty.clone(), from(&empty)),
        ("equal", p(&[run(1, 1, 5)]), five.clone(), from(&five)),
        ("prefix in one run", opened(p(&[run(1, 1, 9)])), five.clone(), from(&five)),
        (
            "prefix, newer runs on the primary",
            p(&[run(1, 1, 5), run(1, 2, 3), run(2, 1, 3)]),
            five.clone(),
            from(&five),
        ),
        ("tail of an old run", opened(p(&[run(1, 1, 3), run(1, 2, 9)])), five.clone(), cut(3, 5)),
        ("whole runs beyond", opened(p(&[run(1, 1, 3), run(2, 1, 1)])), r(&[run(1, 1, 3), run(1, 2, 4)]), cut(3, 7)),
        ("nothing in common", seen(p(&[run(2, 1, 3)]), 2), r(&[run(1, 1, 4)]), cut(0, 4)),
        ("opened but not written", opened(seen(p(&[run(1, 1, 3)]), 2)), five.clone(), cut(3, 5)),
        ("primary lost its tail", p(&[run(1, 1, 3)]), five.clone(), back(&p(&[run(1, 1, 3)]), 5)),
        ("primary lost whole runs", p(&[run(1, 1, 3)]), r(&[run(1, 1, 3), run(1, 2, 2)]), back(&p(&[run(1, 1, 3)]), 5)),
        ("promoted with a shorter log", seen(p(&[run(1, 1, 3)]), 2), five.clone(), back(&p(&[run(1, 1, 3)]), 5)),
    ];
    for (name, primary, receiver, expected) in table {
        assert_eq!(meet(&primary, &receiver), expected, "{name}");
    }
}

#[test]
fn what_is_no_longer_kept() {
    let mut primary = node(1, &[run(1, 1, 9)]);
    let mut receiver = node(2, &[run(1, 1, 5)]);
    primary.start = 6;
    assert_eq!(meet(&primary, &receiver), Agreement::Base { receiver_end: lsn(5), primary_start: lsn(6) });
    primary.start = 5;
    assert!(matches!(meet(&primary, &receiver), Agreement::Stream { .. }));

    // a foreign tail whose beginning one of the sides no longer keeps can't be cut back to it
    let mut primary = Node { opened: true, ..node(1, &[run(1, 1, 3), run(1, 2, 9)]) };
    primary.start = 4;
    assert_eq!(meet(&primary, &receiver), Agreement::Base { receiver_end: lsn(5), primary_start: lsn(4) });
    primary.start = 0;
    receiver.start = 4;
    assert_eq!(meet(&primary, &receiver), Agreement::Base { receiver_end: lsn(5), primary_start: lsn(0) });

    let primary = node(1, &[run(1, 1, 3)]);
    let pruned = Refusal::Pruned { primary_end: lsn(3), receiver_start: lsn(4) };
    assert_eq!(meet(&primary, &receiver), Agreement::Refused(pruned));
}

/// Of very long histories greetings tell the newest part: here two or three runs.
#[test]
fn histories_that_are_not_told_whole() {
    let told = |node: &Node, count: usize| {
        let greeting = node.greeting();
        Greeting { history: greeting.history.newest(count), ..greeting }
    };
    let many = |from: u32, to: u32| -> Vec<Vec<Cell>> { (from..=to).map(|number| run(1, number, 2)).collect() };
    let long = Node { opened: true, ..node(1, &many(1, 20)) };
    let behind = node(2, &many(1, 7));
    let place = |node: &Node| node.place(node.log.len());
    assert_eq!(agree(&told(&long, 3), &told(&behind, 2)), Agreement::Stream { from: place(&behind) });
    let base = Agreement::Base { receiver_end: lsn(14), primary_start: lsn(15) };
    assert_eq!(agree(&told(&Node { start: 15, ..long.clone() }, 3), &told(&behind, 2)), base);

    // where they parted is older than what is told: the receiver's tail is not cut, and the own chain there refuses it
    let parted = node(2, &[many(1, 3), vec![run(1, 5, 3)]].concat());
    assert_eq!(agree(&told(&long, 3), &told(&parted, 2)), Agreement::Stream { from: place(&parted) });
    assert_ne!(long.place(parted.log.len()), place(&parted), "which the primary can't prove");
    let longer = node(2, &many(1, 19));
    let other = Node { opened: true, ..node(1, &[many(1, 9), many(20, 24)].concat()) };
    let refused =
        |agreement| matches!(agreement, Agreement::Refused(Refusal::Diverged { primary: None, receiver: None, .. }));
    assert!(refused(agree(&told(&other, 2), &told(&longer, 3))));

    // the primary lost more runs than its peer names
    let lost = node(1, &many(1, 7));
    let ahead = node(2, &many(1, 20));
    let back = Agreement::TakeBack { from: place(&lost), to: lsn(40) };
    assert_eq!(agree(&told(&lost, 3), &told(&ahead, 3)), back);
    // also when it tells all that it has; nothing of the peer's is cut to the beginning
    assert_eq!(agree(&told(&lost, 30), &told(&ahead, 3)), back);
    let opened = Node { opened: true, ..lost };
    assert!(refused(agree(&told(&opened, 30), &told(&ahead, 3))));
}

#[test]
fn who_is_refused() {
    let primary = node(1, &[run(1, 1, 5)]).greeting();
    let receiver = node(2, &[run(1, 1, 5)]).greeting();
    let refused = |change: &dyn Fn(&mut Greeting)| {
        let mut receiver = receiver.clone();
        change(&mut receiver);
        match agree(&primary, &receiver) {
            Agreement::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(&|r| r.protocol = 9), Refusal::Protocol { primary: PROTOCOL, receiver: 9 });
    let stream = StreamId::from_bytes([7; 16]);
    assert_eq!(refused(&|r| r.stream = stream), Refusal::Stream { primary: StreamId::default(), receiver: stream });
    assert_eq!(refused(&|r| r.node.id = primary.node.id), Refusal::SameNode { node: primary.node.id });
    let small = Geometry::new(1 << 16).unwrap();
    let geometry = Refusal::Geometry { primary: Geometry::default().body_bytes(), receiver: 64 << 10 };
    assert_eq!(refused(&|r| r.geometry = small), geometry);
    let higher = TermSeen { term: Term(2), id: 5 };
    assert_eq!(refused(&|r| r.term = higher), Refusal::Fenced { primary: primary.term, receiver: higher });
    let twin = TermSeen { term: Term(1), id: 5 };
    assert_eq!(refused(&|r| r.term = twin), Refusal::SplitBrain { primary: primary.term, receiver: twin });
    let end = Place { chain: Chain::from_u64(1), ..receiver.end };
    assert!(matches!(refused(&|r| r.end = end), Refusal::Diverged { at, .. } if at == end.lsn));
}

#[test]
fn the_log_outranks_what_a_greeting_says_of_its_term() {
    let primary = node(1, &[run(1, 1, 5)]);
    let mut receiver = node(2, &[run(1, 1, 5), run(2, 1, 1)]);
    receiver.term = TermSeen::default();
    assert!(matches!(meet(&primary, &receiver), Agreement::Refused(Refusal::Fenced { .. })));
}

#[test]
fn a_copied_folder_is_refused_until_one_side_is_promoted() {
    let mut primary = Node { opened: true, ..node(1, &[run(1, 1, 5), run(1, 2, 4)]) };
    let mut receiver = node(2, &[run(1, 1, 5), run(1, 2, 2)]);
    for cell in &mut receiver.log[5..] {
        cell.run_id = 77;
    }
    assert_eq!(meet(&primary, &receiver), Agreement::Refused(Refusal::CopiedFolder { primary: 1002, receiver: 77 }));
    primary.log.extend(run(2, 1, 1));
    primary.term = TermSeen { term: Term(2), id: 200 };
    assert_eq!(meet(&primary, &receiver), Agreement::Cut { to: lsn(5), tail: LsnRange::new(lsn(5), lsn(7)) });
}

#[test]
fn equal_runs_that_begin_differently_have_diverged() {
    let primary = Node { opened: true, ..node(1, &[run(1, 1, 5), run(1, 2, 4)]) };
    let receiver = node(2, &[run(1, 1, 4), run(1, 2, 4)]);
    assert!(matches!(meet(&primary, &receiver), Agreement::Refused(Refusal::Diverged { at, .. }) if at == lsn(4)));
}

#[test]
fn never_cuts_below_what_is_committed_or_applied() {
    let primary = Node { opened: true, ..node(1, &[run(1, 1, 3), run(1, 2, 9)]) };
    for (committed, applied) in [(4, 0), (0, 4), (5, 5)] {
        let receiver = Node { committed, applied, ..node(2, &[run(1, 1, 5)]) };
        let committed = lsn(committed.max(applied));
        let refusal = Refusal::CutBelowCommitted { to: lsn(3), committed };
        assert_eq!(meet(&primary, &receiver), Agreement::Refused(refusal));
    }
    let receiver = Node { committed: 3, applied: 3, ..node(2, &[run(1, 1, 5)]) };
    assert!(matches!(meet(&primary, &receiver), Agreement::Cut { .. }));
}

/// What can happen to two nodes; no rule of starting or promoting is kept, so that every pair of logs comes up.
#[derive(Clone, Debug)]
enum Event {
    Append(usize),
    Ship(usize),
    Restart { loses: usize },
    ReceiverLoses(usize),
    Promote,
    Commit(u64),
    Apply(u64),
    Prune(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1..4usize).prop_map(Event::Append),
        (1..4usize).prop_map(Event::Ship),
        (0..4usize).prop_map(|loses| Event::Restart { loses }),
        (0..4usize).prop_map(Event::ReceiverLoses),
        Just(Event::Promote),
        (0..8u64).prop_map(Event::Commit),
        (0..8u64).prop_map(Event::Apply),
        (0..4u64).prop_map(Event::Prune),
    ]
}

struct World {
    /// The newest primary is `nodes[0]`; `Promote` swaps.
    nodes: [Node; 2],
    next_id: u64,
    epochs: [Epoch; 2],
    run_ids: [u64; 2],
}

impl World {
    fn new() -> World {
        let term = TermSeen { term: Term(1), id: 1 };
        let mut nodes = [node(1, &[]), node(2, &[])];
        nodes[0].term = term;
        World { nodes, next_id: 10, epochs: [Epoch { term: Term(1), run: 0 }; 2], run_ids: [0; 2] }
    }

    fn apply(&mut self, event: &Event) {
        let [primary, receiver] = &mut self.nodes;
        match *event {
            Event::Append(cells) => {
                if !primary.opened {
                    primary.opened = true;
                    self.next_id += 1;
                    self.epochs[0].run += 1;
                    self.run_ids[0] = self.next_id;
                }
                let cell = Cell { epoch: self.epochs[0], term_id: primary.term.id, run_id: self.run_ids[0] };
                primary.log.extend(vec![cell; cells]);
            }
            Event::Ship(cells) => {
                let end = receiver.log.len();
                let follows = shared(primary, receiver) == end && primary.start as usize <= end;
                if follows && receiver.term.term <= primary.term.term {
                    receiver.log.extend(primary.log[end..].iter().take(cells));
                    receiver.term = primary.term;
                }
            }
            Event::Restart { loses } => {
                primary.opened = false;
                primary.log.truncate(primary.log.len().saturating_sub(loses).max(primary.start as usize));
            }
            Event::ReceiverLoses(cells) => {
                let kept = receiver.log.len().saturating_sub(cells);
                let floor = receiver.committed.max(receiver.applied).max(receiver.start);
                receiver.log.truncate(kept.max(floor as usize));
            }
            Event::Promote => {
                self.next_id += 1;
                let term = Term(primary.term.term.0.max(receiver.term.term.0) + 1);
                receiver.term = TermSeen { term, id: self.next_id };
                primary.opened = false;
                self.epochs[1] = Epoch { term, run: 0 };
                self.nodes.swap(0, 1);
                self.epochs.swap(0, 1);
                self.run_ids.swap(0, 1);
            }
            Event::Commit(cells) => receiver.committed = receiver.committed.max(cells.min(receiver.log.len() as u64)),
            Event::Apply(cells) => receiver.applied = receiver.applied.max(cells.min(receiver.log.len() as u64)),
            Event::Prune(cells) => primary.start = primary.start.max(cells.min(primary.log.len() as u64)),
        }
    }
}

/// Does what the agreement says, and returns the greetings' next answer.
fn obey(primary: &Node, receiver: &Node, agreement: &Agreement) -> Option<Agreement> {
    let (mut primary, mut receiver) = (primary.clone(), receiver.clone());
    match agreement {
        Agreement::Cut { to, .. } => receiver.log.truncate(to.get() as usize / 8),
        Agreement::TakeBack { .. } => primary.log = receiver.log.clone(),
        _ => return None,
    }
    receiver.term = primary.term;
    Some(meet(&primary, &receiver))
}

/// Primary and receiver after these events.
fn after(events: &[Event], swapped: bool) -> [Node; 2] {
    let mut world = World::new();
    for event in events {
        world.apply(event);
    }
    if swapped {
        world.nodes.swap(0, 1);
    }
    world.nodes
}

proptest! {
    #[test]
    fn answers_fit_the_logs(events in prop::collection::vec(event(), 0..40), swapped: bool) {
        let [primary, receiver] = after(&events, swapped);
        let common = shared(&primary, &receiver);
        let committed = receiver.committed.max(receiver.applied) as usize;
        let (ours, theirs) = (primary.log.len(), receiver.log.len());
        let agreement = meet(&primary, &receiver);
        match &agreement {
            Agreement::Stream { from } => {
                prop_assert_eq!(common, theirs, "the receiver is a prefix");
                prop_assert_eq!(*from, receiver.place(theirs));
                prop_assert_eq!(primary.place(theirs), *from, "which the primary can prove");
                prop_assert!(primary.start as usize <= theirs);
            }
            Agreement::Cut { to, tail } => {
                prop_assert_eq!(*to, lsn(common as u64), "not one shared byte is cut");
                prop_assert_eq!(*tail, LsnRange::new(*to, lsn(theirs as u64)));
                prop_assert!(common >= committed && common < theirs);
            }
            Agreement::TakeBack { from, to } => {
                prop_assert!(!primary.opened && common == ours && ours < theirs);
                prop_assert_eq!(*from, primary.place(ours));
                prop_assert_eq!(*to, lsn(theirs as u64));
            }
            Agreement::Base { .. } => prop_assert!(primary.start.max(receiver.start) as usize > common),
            Agreement::Refused(Refusal::Pruned { .. }) => {
                prop_assert!(common == ours && receiver.start as usize > ours);
            }
            Agreement::Refused(Refusal::Fenced { .. }) => prop_assert!(receiver.term.term > primary.term.term),
            Agreement::Refused(Refusal::CutBelowCommitted { to, .. }) => {
                prop_assert_eq!(*to, lsn(common as u64));
                prop_assert!(common < committed);
            }
            other => prop_assert!(false, "unexpected in a world without copies: {:?}", other),
        }
        if let Some(after) = obey(&primary, &receiver, &agreement) {
            let streams = matches!(after, Agreement::Stream { .. });
            prop_assert!(streams, "{:?} then {:?}", agreement, after);
        }
        if receiver.term.term > primary.term.term {
            let fenced = matches!(agreement, Agreement::Refused(Refusal::Fenced { .. }));
            prop_assert!(fenced, "{:?}", agreement);
        }
    }

    /// Greetings that leave out the oldest epochs lead to the same answer, or to one that changes nothing: the chain at
    /// the place where they would go on refuses it.
    #[test]
    fn what_is_left_out_cuts_nothing(
        events in prop::collection::vec(event(), 0..60),
        swapped: bool,
        told in prop::array::uniform2(1..5usize),
    ) {
        let [primary, receiver] = after(&events, swapped);
        let whole = meet(&primary, &receiver);
        let mut greetings = [primary.greeting(), receiver.greeting()];
        for (greeting, told) in greetings.iter_mut().zip(told) {
            greeting.history = greeting.history.newest(told);
        }
        let agreement = agree(&greetings[0], &greetings[1]);
        if agreement == whole {
            return Ok(());
        }
        match &agreement {
            Agreement::Stream { from } => {
                let ends = from.lsn.get() as usize / 8;
                prop_assert!(primary.place(ends).chain != from.chain, "told less, it streams: {:?}", whole);
            }
            Agreement::TakeBack { from, .. } => {
                let ends = from.lsn.get() as usize / 8;
                prop_assert!(receiver.place(ends).chain != from.chain, "told less, it takes back: {:?}", whole);
            }
            Agreement::Base { .. } | Agreement::Refused(_) => {
                let parted = shared(&primary, &receiver) < primary.log.len().min(receiver.log.len());
                prop_assert!(parted || primary.opened, "{:?} instead of {:?}", agreement, whole);
            }
            Agreement::Cut { .. } => prop_assert!(false, "{:?} instead of {:?}", agreement, whole),
        }
    }

    #[test]
    fn total_over_nonsense(
        ends in prop::array::uniform4(0..200u64),
        firsts in prop::collection::vec((1..4u32, 1..4u32, 0..3u64, 0..200u64), 0..12),
        split in 0..12usize,
        opened: bool,
    ) {
        let history = |list: &[(u32, u32, u64, u64)]| {
            let mut history = History::default();
            for &(term, run, id, first) in list {
                let epoch = Epoch { term: Term(term), run };
                let _ = history.push(Opening {
                    epoch,
                    term_id: id,
                    run_id: id,
                    node: NodeId::default(),
                    first: lsn(first),
                    chain_in: Chain::default(),
                });
            }
            history
        };
        let (left, right) = firsts.split_at(split.min(firsts.len()));
        let mut primary = node(1, &[]).greeting();
        let mut receiver = node(2, &[]).greeting();
        (primary.history, receiver.history) = (history(left), history(right));
        primary.term = primary.history.term_seen();
        (primary.start, primary.end.lsn, receiver.committed, receiver.end.lsn) =
            (lsn(ends[0]), lsn(ends[1]), lsn(ends[2]), lsn(ends[3]));
        primary.opened = opened;
        if let Agreement::Cut { to, .. } = agree(&primary, &receiver) {
            prop_assert!(to >= receiver.committed && to < receiver.end.lsn);
        }
    }
}
