//! Random operations on one journal beside its twin: whatever a reader asks, both give the same answer, also after a
//! clean stop, a kill and a power cut. A case that fails is made smaller and printed.

use journal::testing::{Keep, Survivors};
use journal::{Error, Kind, Lsn, Role, Time, offline};
use proptest::prelude::*;

use crate::exhaustive::is_long;
use crate::script::{Op, Scene};
use crate::twin::{Said, items};

#[derive(Clone, Copy, Debug)]
enum Step {
    Do(Op),
    PowerCut { names: usize, sectors: Keep },
    ClockOn(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![4 => 8..300_usize, 3 => 300..9_000_usize, 1 => 9_000..90_000_usize];
    let sectors = prop_oneof![Just(Keep::None), Just(Keep::All), any::<u64>().prop_map(Keep::Random)];
    let op = prop_oneof![
        8 => length.clone().prop_map(Op::Append),
        2 => prop_oneof![Just(&[8_usize, 2_000, 8][..]), Just(&[30_000, 9][..])].prop_map(Op::Many),
        2 => length.prop_map(Op::Durable),
        2 => Just(Op::Mark),
        1 => Just(Op::Alone),
        4 => Just(Op::Write),
        4 => Just(Op::Sync),
        1 => Just(Op::Close),
        1 => Just(Op::Reopen),
        1 => Just(Op::Prune),
        1 => (0..5_usize).prop_map(Op::Cut),
        1 => Just(Op::CutSegment),
        1 => Just(Op::Checkpoint),
        1 => Just(Op::Peer),
        2 => (1..5_000_u64).prop_map(Op::StepBack),
    ];
    prop_oneof![
        30 => op.prop_map(Step::Do),
        2 => (0..9_usize, sectors).prop_map(|(names, sectors)| Step::PowerCut { names, sectors }),
        2 => (1..5_000_u64).prop_map(Step::ClockOn),
    ]
}

/// What the twin knows of an entry: its first and last position, and its time.
type Place = (Lsn, Lsn, Time);

/// The entries that were seen being written, so that what is read later can be held against them.
#[derive(Default)]
struct Seen(Vec<Place>);

impl Seen {
    /// Takes over what was written since, after what was lost is forgotten.
    fn follow(&mut self, scene: &Scene) {
        let journal = scene.journal();
        let (start, written) = (journal.start(), journal.board().written());
        self.0.retain(|&(first, end, _)| first >= start && end <= written);
        let from = self.0.last().map_or(start, |&(_, end, _)| end);
        let mut entries = journal.entries(from).unwrap();
        let mut before = entries.tip().time;
        while let Some(entry) = entries.next_entry().unwrap() {
            let range = entry.header.range();
            assert!(entry.header.time > before, "time decreases at {}", range.from);
            before = entry.header.time;
            self.0.push((range.from, range.to, before));
        }
    }

    /// Everything up to that instant, by looking at every entry.
    fn find_time(&self, at: Time, start: Lsn) -> Lsn {
        self.0.iter().take_while(|(_, _, time)| *time <= at).last().map_or(start, |&(_, end, _)| end)
    }
}

fn compare_readers(scene: &Scene, seen: &Seen) {
    let journal = scene.journal();
    let (start, written) = (journal.start(), journal.board().written());
    let found = items(&mut journal.entries(start).unwrap());
    let of_kind = |said: &&Said| matches!(said.kind, Kind::Data | Kind::Mark | Kind::Alone);
    let known: Vec<&Said> = scene.twin.said.iter().filter(of_kind).collect();
    let from = found.first().map_or(0, |first| known.iter().position(|said| said.payload == first.payload).unwrap());
    for (index, found) in found.iter().enumerate() {
        assert_eq!(found.payload, known[from + index].payload, "record {index}");
    }
    let behind = known.get(from + found.len()).and_then(|said| said.end);
    assert!(found.is_empty() || behind.is_none_or(|end| end > written), "a written record is not read");
    let log = offline::Log::open(journal.dir()).unwrap();
    assert_eq!(items(&mut log.entries(None).unwrap()), found, "from outside");
    for &(first, end, time) in &seen.0 {
        assert_eq!(journal.tip_at(end).unwrap().map(|tip| (tip.lsn, tip.time)), Some((end, time)));
        assert_eq!(journal.tip_at(Lsn::new(first.get() + 8)).unwrap(), None, "no entry begins there");
        for at in [time.as_nanos() - 1, time.as_nanos(), time.as_nanos() + 1].map(Time::from_nanos) {
            assert_eq!(journal.find_time(at).unwrap(), seen.find_time(at, start), "{at:?}");
        }
        let mut near = log.entries_near(time).unwrap();
        while near.tip().lsn < end {
            near.next_entry().unwrap().expect("that instant is not found from outside");
        }
        let slice = journal.slice(first, 1).unwrap().unwrap();
        assert_eq!((slice.range().from, slice.range().to), (first, end), "the first entry, however long");
    }
    assert_eq!(journal.find_time(Time::ZERO).unwrap(), start);
    assert_eq!(journal.find_time(Time::MAX).unwrap(), written);
    assert!(journal.slice(written, 1).unwrap().is_none());
    assert!(matches!(journal.slice(Lsn::new(written.get() + 8), 1), Err(Error::NotReached { .. })));
    assert!(start == Lsn::ZERO || matches!(journal.slice(Lsn::ZERO, 1), Err(Error::Pruned { .. })));
}

fn run(steps: &[Step]) {
    let mut scene = Scene::new(Role::Primary);
    let mut seen = Seen::default();
    for &step in steps {
        match step {
            Step::Do(op) => {
                let appends = matches!(op, Op::Append(_) | Op::Many(_) | Op::Durable(_) | Op::Mark | Op::Alone);
                if appends && !scene.journal().has_run() {
                    scene.act(Op::OpenRun).unwrap();
                }
                scene.act(op).unwrap();
            }
            Step::PowerCut { names, sectors } => {
                scene.power_cut(Survivors { names, sectors });
                scene.reopen().unwrap();
            }
            Step::ClockOn(seconds) => scene.clock.step_on(seconds * 1_000_000_000),
        }
        seen.follow(&scene);
        compare_readers(&scene, &seen);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if is_long() { 10_000 } else { 400 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_journal_answers_as_its_twin_does(steps in proptest::collection::vec(step(), 1..30)) {
        run(&steps);
    }
}

/// Found by the test above: a cut where the log ends, and a segment too, left a branch that said that everything from the
/// journal's beginning on had been durable and was missing.
#[test]
fn a_cut_of_nothing_leaves_an_empty_branch() {
    use Step::Do;
    run(&[
        Do(Op::Many(&[30_000, 9])),
        Do(Op::Append(665)),
        Do(Op::Many(&[30_000, 9])),
        Do(Op::CutSegment),
        Do(Op::CutSegment),
        Step::PowerCut { names: 0, sectors: Keep::None },
    ]);
}
