//! What is explored, and that the model can find something.

use std::collections::BTreeSet;
use std::env;

use super::*;

const BLOCK: OnLoss = OnLoss::Block;
const FAIL: OnLoss = OnLoss::Fail { after: Duration::ZERO };
const ALONE: OnLoss = OnLoss::Alone { after: Duration::ZERO };

const NOTHING: Budget =
    Budget { appends: 0, crashes: 0, resets: 0, connects: 0, promotions: 0, slow_syncs: 0, losses: 0 };
/// Small enough to look at every state twice.
const SMALL: Budget = Budget { appends: 1, crashes: 1, resets: 1, connects: 1, promotions: 1, ..NOTHING };
const BUDGETS: [(&str, Budget); 5] = [
    ("one of each", Budget { connects: 2, ..SMALL }),
    ("two appends", Budget { appends: 2, promotions: 0, slow_syncs: 1, losses: 1, ..SMALL }),
    ("two appends and a promotion", Budget { appends: 2, resets: 0, ..SMALL }),
    ("two crashes", Budget { appends: 1, crashes: 2, connects: 2, slow_syncs: 1, ..NOTHING }),
    ("two promotions", Budget { appends: 1, resets: 1, connects: 2, promotions: 2, ..NOTHING }),
];
/// With `TOWLINE_LONG`. The first takes five minutes and five gigabytes for each mode.
const LONG_BUDGETS: [(&str, Budget); 3] = [
    ("everything together", Budget { appends: 2, connects: 2, ..SMALL }),
    ("three more than one of each", Budget { crashes: 2, connects: 2, slow_syncs: 1, losses: 1, ..SMALL }),
    ("two promotions and a crash", Budget { promotions: 2, connects: 2, resets: 0, slow_syncs: 1, ..SMALL }),
];

#[test]
fn every_interleaving_keeps_what_sync_promises_and_blocks() {
    nothing_is_left_to_do(Mode::Sync, BLOCK, &BUDGETS);
}

#[test]
fn every_interleaving_keeps_what_sync_promises_and_goes_on_alone() {
    nothing_is_left_to_do(Mode::Sync, ALONE, &BUDGETS);
}

#[test]
fn every_interleaving_keeps_what_semi_sync_promises_and_blocks() {
    nothing_is_left_to_do(Mode::SemiSync, BLOCK, &BUDGETS);
}

#[test]
fn every_interleaving_keeps_what_semi_sync_promises_and_goes_on_alone() {
    nothing_is_left_to_do(Mode::SemiSync, ALONE, &BUDGETS);
}

#[test]
fn every_interleaving_keeps_what_async_promises() {
    nothing_is_left_to_do(Mode::Async, BLOCK, &BUDGETS);
}

/// One after the other: a handful of this size fills the memory of a small machine.
#[test]
fn every_interleaving_of_larger_handfuls() {
    if env::var_os("TOWLINE_LONG").is_none() {
        println!("skipped: explored with TOWLINE_LONG=1");
        return;
    }
    let required = [Mode::Sync, Mode::SemiSync].into_iter().flat_map(|mode| [(mode, BLOCK), (mode, ALONE)]);
    for (mode, on_loss) in required.chain([(Mode::Async, BLOCK)]) {
        nothing_is_left_to_do(mode, on_loss, &LONG_BUDGETS);
    }
}

fn nothing_is_left_to_do(mode: Mode, on_loss: OnLoss, budgets: &[(&str, Budget)]) {
    for (name, budget) in budgets {
        let begun = Instant::now();
        let explored = explore(&setup(mode, on_loss, Mutant::None), *budget);
        let explored = explored.unwrap_or_else(|broken| panic!("{mode:?}, {on_loss:?}, {name}: {broken}"));
        println!("{mode:?}, {on_loss:?}, {name}: {explored:?} in {:.1?}", begun.elapsed());
        assert!(explored.complete, "{name}: {budget:?}");
    }
}

/// `Fail` tells whoever waits, and decides nothing.
#[test]
fn failing_explores_what_blocking_does() {
    for mode in [Mode::Sync, Mode::SemiSync] {
        let explored = |on_loss| explore(&setup(mode, on_loss, Mutant::None), SMALL).unwrap();
        assert_eq!(explored(FAIL), explored(BLOCK));
    }
}

/// A fault in the driver, where it shows, in how many steps at the earliest, and how it shows.
#[test]
fn planted_faults_are_found_by_a_shortest_path() {
    let (sync, semi, asynchronous) = (Mode::Sync, Mode::SemiSync, Mode::Async);
    let lossy = Budget { appends: 2, losses: 1, ..NOTHING };
    let slow = Budget { appends: 2, crashes: 1, connects: 1, slow_syncs: 1, ..NOTHING };
    let resumed = Budget { appends: 2, resets: 1, connects: 1, ..NOTHING };
    let cases = [
        (Mutant::EarlyAck, sync, BLOCK, SMALL, 3, "counts as durable, the receiver's disk has"),
        (Mutant::EndedSessionCounted, sync, BLOCK, SMALL, 11, "counts as received, the receiver's log ends at"),
        (Mutant::GateSkipped, sync, BLOCK, SMALL, 5, "but it started after node 1 was promoted"),
        (Mutant::ChainSkipped, sync, BLOCK, lossy, 4, "no prefix"),
        (Mutant::GapOnReconnect, sync, BLOCK, resumed, 9, "no prefix"),
        (Mutant::RestartRaisesTerm, sync, BLOCK, SMALL, 3, "both primary in term 2"),
        (Mutant::PromotionForgetsTail, semi, BLOCK, SMALL, 5, "item 1 (LSN 216)"),
        (Mutant::PromotionUnsynced, semi, BLOCK, SMALL, 6, "but node 1 was promoted without it"),
        (Mutant::FencedForgets, asynchronous, BLOCK, SMALL, 5, "both primary in term 2"),
        (Mutant::NeverInDoubt, semi, BLOCK, SMALL, 7, "promoted without"),
        (Mutant::OwnDiskForgotten, sync, ALONE, SMALL, 2, "but its own disk has"),
        (Mutant::AnnouncedAlone, sync, ALONE, SMALL, 11, "which nobody committed"),
        (Mutant::CutSyncCounted, asynchronous, BLOCK, slow, 14, "its disk has 0"),
    ];
    for (mutant, mode, on_loss, budget, steps, how) in cases {
        let broken = explore(&setup(mode, on_loss, mutant), budget).expect_err(&format!("{mutant:?} survives"));
        println!("{mutant:?}: {broken}");
        assert!(broken.what.contains(how), "{mutant:?} was found by something else: {broken}");
        assert_eq!(broken.path.len(), steps, "{mutant:?}: {broken}");
        explore(&setup(mode, on_loss, Mutant::None), budget).unwrap();
    }
}

/// What the fingerprint leaves out must make no difference: whenever a state is reached that looks like one that is
/// known, what it leads to is compared with what that one leads to.
#[test]
fn states_that_look_alike_go_on_alike() {
    let long = env::var_os("TOWLINE_LONG").is_some();
    let budgets = [Budget { slow_syncs: 1, resets: 0, ..SMALL }, Budget { promotions: 0, losses: 1, ..SMALL }];
    for (mode, on_loss) in [(Mode::Sync, ALONE), (Mode::SemiSync, BLOCK), (Mode::Async, BLOCK)] {
        for budget in budgets.into_iter().chain([SMALL].into_iter().filter(|_| long)) {
            let setup = setup(mode, on_loss, Mutant::None);
            let (states, twins) = compare_twins(&setup, budget).unwrap_or_else(|what| panic!("{mode:?}: {what}"));
            println!("{mode:?}, {on_loss:?}, {budget:?}: {states} states, {twins} more that look like one of them");
            assert!(twins > states, "nothing was compared");
        }
    }
}

/// What a state leads to, and what is left then; `None` is a promise broken.
type Ways = BTreeSet<Option<(u128, [u8; 7])>>;

fn compare_twins(setup: &Setup, budget: Budget) -> Result<(usize, usize), String> {
    let now = Instant::now();
    let after = |state: &State, step| {
        let mut after = state.clone();
        after.take(setup, now, step).is_ok().then_some(after)
    };
    let look = |state: &State| (state.fingerprint(), state.left.counts());
    let ways = |state: &State| -> Ways {
        state.steps(now).into_iter().map(|step| after(state, step).as_ref().map(look)).collect()
    };
    let first = State::connected(setup, now, budget)?;
    let mut known: HashMap<(u128, [u8; 7]), Ways> = HashMap::from([(look(&first), ways(&first))]);
    let mut waiting = vec![first];
    let mut twins = 0;
    while let Some(state) = waiting.pop() {
        for step in state.steps(now) {
            let Some(next) = after(&state, step) else { return Err(format!("{step:?} breaks a promise")) };
            let own = ways(&next);
            match known.get(&look(&next)) {
                Some(others) if *others != own => {
                    return Err(format!("{step:?} leads to a state that goes on otherwise than its twin: {next:#?}"));
                }
                Some(_) => twins += 1,
                None => {
                    known.insert(look(&next), own);
                    waiting.push(next);
                }
            }
        }
    }
    Ok((known.len(), twins))
}
