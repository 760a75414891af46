//! Who waits for the schedule gets its next cut, whole, and nothing earlier.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// How many batches the depot got, and the cut that is waited for: its ticket, whether it had nothing, where the depot
/// ended when it lay there.
fn cut<D: DepotLink>(core: &mut BatchCore<Journal, D>, now: Time) -> (u64, Option<(u64, bool, Option<Lsn>)>) {
    let status = turn(core, now);
    (status.batches, status.cut.map(|cut| (cut.ticket, cut.had_nothing, cut.stored)))
}

/// A schedule that has just cut, at second 0.
fn just_cut(scene: &Scene, schedule: &str) -> BatchCore<Journal, FolderLink> {
    append(&scene.journal, &["before"]);
    let mut core = scene.core(schedule);
    assert_eq!(turn(&mut core, secs(0)).batches, 1);
    core
}

#[test]
fn nothing_is_cut_before_the_schedule_says_so() {
    let scene = Scene::new();
    let mut core = just_cut(&scene, "every 10s");
    let one = append(&scene.journal, &["one"]);
    core.await_cut(1);
    for second in [1, 5, 9] {
        assert_eq!(cut(&mut core, secs(second)), (1, None), "second {second}");
    }
    let two = append(&scene.journal, &["two"]);
    assert!(one < two);
    assert_eq!(cut(&mut core, secs(10)), (2, Some((1, false, Some(two)))));
    // who asks at the very instant, but behind the cut, gets the next one
    let three = append(&scene.journal, &["three"]);
    core.await_cut(2);
    assert_eq!(cut(&mut core, secs(10)), (2, Some((1, false, Some(two)))));
    assert_eq!(cut(&mut core, secs(20)), (3, Some((2, false, Some(three)))));
}

#[test]
fn a_cut_that_nobody_waits_for_is_nobodys() {
    let scene = Scene::new();
    let mut core = just_cut(&scene, "every 10s");
    append(&scene.journal, &["one"]);
    assert_eq!(cut(&mut core, secs(10)), (2, None));
}

#[test]
fn an_instant_with_nothing_to_ship_ends_the_wait() {
    let scene = Scene::new();
    let mut core = just_cut(&scene, "every 1d or 4 KiB");
    core.await_cut(1);
    let end = append(&scene.journal, &["one"]);
    // shipping now is no cut of the schedule's
    core.request(end);
    assert_eq!(cut(&mut core, secs(1)), (2, None));
    assert_eq!(cut(&mut core, secs(2)), (2, None));
    assert_eq!(cut(&mut core, secs(86_400)), (2, Some((1, true, Some(end)))));
}

#[test]
fn a_size_that_is_reached_is_a_cut_of_the_schedule() {
    let scene = Scene::new();
    let mut core = scene.core("8 KiB");
    assert_eq!(turn(&mut core, secs(0)).missing_bytes, Some(8 << 10));
    core.await_cut(1);
    append(&scene.journal, &["x".repeat(7000).as_str()]);
    assert_eq!(cut(&mut core, secs(10)), (0, None));
    let missing = core.status().missing_bytes.expect("it goes by size");
    assert!((1..1192).contains(&missing), "{missing}");
    assert_eq!(core.status().next_due, None);
    let end = append(&scene.journal, &["x".repeat(missing as usize).as_str()]);
    assert_eq!(cut(&mut core, secs(11)), (1, Some((1, false, Some(end)))));
    assert_eq!(core.status().missing_bytes, Some(8 << 10));
}

#[test]
fn a_depot_out_of_reach_is_waited_for() {
    let scene = Scene::new();
    append(&scene.journal, &["before"]);
    let failures = Arc::new(Mutex::new(Vec::new()));
    let link = Shaky { inner: scene.folder(), failures: failures.clone(), offered: Arc::default() };
    let mut core = BatchCore::new(scene.options("every 10s"), scene.journal.clone(), link);
    turn(&mut core, secs(0));
    let away = |core: &mut BatchCore<Journal, Shaky>, second| {
        failures.lock().expect("own").push(ShipError::Wire(wire::Error::Closed));
        let (batches, cut) = cut(core, secs(second));
        assert_eq!((batches, core.status().last_error.is_some()), (1, true));
        failures.lock().expect("own").clear();
        (cut, core.status().cut.map(|cut| cut.to))
    };
    core.await_cut(1);
    let one = append(&scene.journal, &["one"]);
    assert_eq!(away(&mut core, 10), (Some((1, false, None)), Some(one)));
    // what comes later is not waited for, unless by somebody who asks later
    append(&scene.journal, &["two"]);
    assert_eq!(away(&mut core, 20), (Some((1, false, None)), Some(one)));
    let three = append(&scene.journal, &["three"]);
    core.await_cut(2);
    assert_eq!(away(&mut core, 29), (Some((1, false, None)), Some(one)));
    assert_eq!(away(&mut core, 30), (Some((2, false, None)), Some(three)), "both get there together");
    assert_eq!(cut(&mut core, secs(300)).1, Some((2, false, Some(three))));
    assert_eq!(scene.restored(), ["before", "one", "two", "three"]);
}

/// One that never said where it ends has no schedule yet; the cut that it then makes is the next one.
#[test]
fn a_depot_that_was_never_reached_begins_its_schedule_when_it_is() {
    let scene = Scene::new();
    let end = append(&scene.journal, &["one"]);
    std::fs::write(scene.root(), b"a file where the folder should be").expect("writes");
    let mut core = scene.core("every 10s");
    core.await_cut(1);
    assert_eq!(cut(&mut core, secs(0)), (0, None));
    assert_eq!(core.status().next_due, None);
    std::fs::remove_file(scene.root()).expect("removes");
    assert_eq!(cut(&mut core, secs(60)), (1, Some((1, false, Some(end)))));
}

/// The commit point lies inside an entry: what ends below it is all that the cut can hold.
#[test]
fn a_cut_is_whole_when_every_whole_entry_of_it_is_there() {
    let scene = Scene::new();
    let mut core = just_cut(&scene, "every 10s");
    promise(&scene.journal, scene.journal.board().durable());
    let one = append(&scene.journal, &["one"]);
    let two = append(&scene.journal, &["two"]);
    promise(&scene.journal, Lsn::new(two.get() - 8));
    core.await_cut(1);
    assert_eq!(cut(&mut core, secs(10)), (2, Some((1, false, Some(one)))));
}

#[test]
fn a_waiter_hears_of_its_own_cut_and_of_the_end() {
    let scene = Scene::new();
    let clock = Arc::new(AtomicU64::new(secs(0).as_nanos()));
    let end = append(&scene.journal, &["one"]);
    let now = {
        let clock = clock.clone();
        move || Time::from_nanos(clock.load(Ordering::Relaxed))
    };
    let batches = Batches::spawn(scene.options("0 2 * * * UTC"), scene.journal.clone(), scene.folder(), now);
    let batches = batches.expect("a thread");
    batches.wait(Lsn::ZERO, None).expect("it has said where it ends");
    let first = batches.next_cut();
    assert_eq!(first.wait(Some(Instant::now())), Ok(None));
    assert_eq!(batches.status().batches, 0, "nothing is cut earlier");
    clock.store(secs(86_400).as_nanos(), Ordering::Relaxed);
    let stored = first.wait(None).expect("runs").and_then(|cut| cut.stored);
    assert_eq!((stored, batches.status().batches), (Some(end), 1));
    // a later cut is another one's
    let second = batches.next_cut();
    clock.store(secs(2 * 86_400).as_nanos(), Ordering::Relaxed);
    assert!(second.wait(None).expect("runs").is_some_and(|cut| cut.had_nothing));
    assert!(first.wait(None).expect("runs").is_some_and(|cut| !cut.had_nothing));
    let third = batches.next_cut();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| third.wait(None));
        batches.stop();
        assert_eq!(waiter.join().expect("ends"), Err(WaitShipped::Stopped));
    });
}
