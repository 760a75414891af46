//! What happens at the budget because of what a destination lacks.

use std::fs;
use std::path::Path;
use std::time::Duration;

use archive::Depot;
use journal::offline::Log;
use journal::{Class, Kind};
use node::control::{Failure, Level, Ship, ShipWhen, Shipped, Until, Wait};
use node::{
    AtBudget, DepotAt, DepotOptions, DestinationStatus, Error, FirstRole, Options, PeerOptions, State, StreamOptions,
};
use shipper::OnLoss;
use wire::Mode;

use crate::support::{LONG, Running, STREAM, primary, receiver, start, try_start, until};

const BUDGET: u64 = 4 << 20;
const SEGMENT: u64 = 64 << 10;
const MODES: [(Mode, Level); 3] =
    [(Mode::Sync, Level::PeerDurable), (Mode::SemiSync, Level::Received), (Mode::Async, Level::Durable)];

/// Everything is kept for which there is room.
fn small(stream: &mut StreamOptions) {
    stream.segment_bytes = Some(SEGMENT as u32);
    stream.budget_bytes = Some(BUDGET);
    stream.keep_bytes = Some(u64::MAX);
}

fn writer(dir: &Path, peers: impl IntoIterator<Item = PeerOptions>, depots: &[&str]) -> Options {
    let mut options = primary(dir, "a", peers);
    let stream = &mut options.streams[0];
    small(stream);
    stream.depots = depots.iter().map(|name| depot(dir, name)).collect();
    options
}

fn depot(dir: &Path, name: &str) -> DepotOptions {
    let at = DepotAt::Folder(dir.join(name));
    DepotOptions { name: name.into(), at, schedule: "every 1d".into(), at_budget: None }
}

fn keeper(dir: &Path, name: &str, listen: Option<&str>) -> Options {
    let mut stream = StreamOptions::new(STREAM, FirstRole::Receiver);
    small(&mut stream);
    Options { streams: vec![stream], ..receiver(dir, name, listen) }
}

/// About six segments.
fn append(node: &Running, level: Level) -> Result<u64, Failure> {
    let record = "x".repeat(10_000);
    node.append(level, LONG, &[record.as_str(); 40]).map(|acked| acked.lsn)
}

fn ship(node: &Running) -> node::Result<Vec<Shipped>> {
    let timeout_ms = Some(LONG.as_millis() as u64);
    node.client().ship(Ship { stream: Some(STREAM.into()), when: ShipWhen::Now, timeout_ms }, |_| {})
}

/// Returns when everything below `lsn` lies in this depot, however it is with others.
fn ship_to(node: &Running, name: &str, lsn: u64) {
    until(|| {
        let now = Ship { stream: Some(STREAM.into()), when: ShipWhen::Now, timeout_ms: Some(20) };
        let _ = node.client().ship(now, |_| {});
        destination(node, name).durable.is_some_and(|durable| durable >= lsn)
    });
}

fn wait_shipped(node: &Running, lsn: Option<u64>) -> node::Result<u64> {
    let wait = Wait { stream: STREAM.into(), until: Until::Shipped, lsn, timeout_ms: None };
    node.client().wait(wait).map(|reached| reached.lsn)
}

fn destination(node: &Running, name: &str) -> DestinationStatus {
    let destinations = node.stream().destinations;
    destinations.into_iter().find(|destination| destination.name == name).expect("it is one of them")
}

fn is_detached(node: &Running, name: &str) -> bool {
    destination(node, name).detached.is_some()
}

/// What the log says of who was detached.
fn said(data: &Path) -> Vec<String> {
    let log = Log::open(&data.join(format!("streams/{STREAM}/journal"))).expect("a journal");
    let mut entries = log.entries(None).expect("entries");
    let mut said = Vec::new();
    while let Some(entry) = entries.next_entry().expect("an entry") {
        if entry.header.kind == Some(Kind::Detached) {
            said.push(String::from_utf8(entry.payload.to_vec()).expect("text"));
        }
    }
    said
}

fn failure<T: std::fmt::Debug>(result: node::Result<T>) -> Failure {
    match result.expect_err("it was to fail") {
        Error::Answer(failure) => failure,
        other => panic!("{other}"),
    }
}

/// A depot that can't be reached stops nobody, whatever the mode; it is said in every place that somebody looks at, also
/// after a restart, and it comes back by itself once it lacks nothing that is gone.
#[test]
fn a_depot_that_lags_at_the_budget_is_detached_and_attached_again() {
    for (mode, level) in MODES {
        let dir = tempfile::tempdir().expect("a folder");
        let b = start(keeper(dir.path(), "b", None));
        let options = || writer(dir.path(), [PeerOptions { mode, ..b.peer() }], &["near", "night"]);
        let a = start(options());
        append(&a, level).expect("acknowledged");
        let lacks = ship(&a).expect("shipped").iter().map(|shipped| shipped.lsn).min().expect("two depots");
        // not mounted any more
        let (night, away) = (dir.path().join("night"), dir.path().join("away"));
        fs::rename(&night, &away).expect("moved");
        let mut last = 0;
        while !is_detached(&a, "night") {
            // what the peer has acknowledged is noted once a second: until then it may be in the way
            until(|| append(&a, level).map(|to| last = to).is_ok());
            ship_to(&a, "near", last);
            // an async peer has no room for a moment, when it gets the entry before the word that nothing is owed any more
            until(|| a.client().wait(wait_for(last)).is_ok());
        }
        assert!(last - lacks > BUDGET / 2, "there was room");
        let status = a.stream();
        assert!(status.at.start > lacks && status.at.start < lacks + BUDGET / 2, "a segment at a time: {status:?}");
        assert_eq!(status.state, State::Open);
        assert!(a.status().degraded());
        let detached = destination(&a, "night").detached.expect("it is");
        assert_eq!(detached.lacks, Some(lacks));
        assert!(status.next_step.is_some());
        assert!(detached.next_step.contains("bring back depot night"), "{detached:?}");
        // an async peer gives way too: until what it has acknowledged is noted
        until(|| !is_detached(&a, &b.peer().name));
        assert!(!is_detached(&a, "near"));
        // what nobody waits for in vain
        for failure in [failure(ship(&a)), failure(wait_shipped(&a, None))] {
            assert_eq!(failure.class(), Class::NotReached);
            assert!(failure.message.contains("depot night is detached"), "{failure}");
            assert!(failure.hint.is_some_and(|hint| hint.contains("night")));
        }
        assert_eq!(wait_shipped(&a, Some(lacks)).expect("that lies in both"), lacks);
        // its receiver keeps nothing for it either
        until(|| {
            let appended = append(&a, level);
            ship_to(&a, "near", appended.unwrap_or_default());
            b.stream().at.start > lacks
        });

        a.stop();
        let a = start(options());
        assert_eq!(
            destination(&a, "night").detached.map(|again| (again.lacks, again.since)),
            Some((Some(lacks), detached.since))
        );
        assert!(is_detached(&a, "night"), "a restart changes nothing");
        // back with less than there was: what it lacks is gone
        fs::rename(&away, &night).expect("moved");
        assert_eq!(failure(ship(&a)).class(), Class::NotReached);
        until(|| destination(&a, "night").detached.is_some_and(|night| night.next_step.contains("doesn't keep")));
        // the other depot has the batches
        let batches =
            |name: &str| Depot::find(&dir.path().join(name), STREAM).expect("a depot").folder().join("batches");
        for batch in fs::read_dir(batches("near")).expect("listed") {
            let batch = batch.expect("an entry").path();
            fs::copy(&batch, batches("night").join(batch.file_name().expect("a name"))).expect("copied");
        }
        until(|| ship(&a).is_ok());
        until(|| !is_detached(&a, "night"));
        until(|| !a.status().degraded());
        let end = append(&a, level).expect("acknowledged");
        until(|| ship(&a).is_ok_and(|shipped| shipped.iter().all(|shipped| shipped.lsn >= end)));
        assert!(Depot::find(&night, STREAM).expect("a depot").verify().expect("read").is_good());
        a.stop();
        b.stop();
        let mut said = said(&dir.path().join("a"));
        said.retain(|said| said.contains("depot night"));
        let text = format!("detached: depot night, which lacks what begins at LSN {lacks}");
        let begins = said.last().is_some_and(|last| last.starts_with("attached again: depot night, from LSN "));
        assert!(begins, "{said:?}");
        assert!(said.len() == 1 || (said.len() == 2 && said[0] == text), "{said:?}");
    }
}

fn wait_for(lsn: u64) -> Wait {
    Wait { stream: STREAM.into(), until: Until::InSync, lsn: Some(lsn), timeout_ms: Some(LONG.as_millis() as u64) }
}

/// It stops nobody while it is off. A start doesn't know what it has; when it is back with all that the log no longer
/// keeps, it is caught up.
#[test]
fn an_async_peer_that_is_off_at_the_budget_is_detached_and_catches_up_when_it_is_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let c = start(receiver(dir.path(), "c", None));
    let (address, peer) = (c.address(), c.peer().asynchronous());
    let options = || writer(dir.path(), [peer.clone()], &["near"]);
    let a = start(options());
    let grow = |node: &Running| {
        let end = append(node, Level::Durable)?;
        ship_to(node, "near", end);
        Ok::<u64, Failure>(end)
    };
    // as far as there is room: what both have is given up meanwhile
    while a.stream().at.start == 0 {
        let mut end = 0;
        until(|| grow(&a).map(|to| end = to).is_ok());
        until(|| a.client().wait(wait_for(end)).is_ok());
    }
    // what it has acknowledged is noted once a second
    until(|| !is_detached(&a, &address));
    a.stop();
    c.stop();
    let a = start(options());
    let begun = a.stream().at.start;
    let mut end = 0;
    // in the first moment nobody is given up: it was not asked yet
    while !is_detached(&a, &address) {
        until(|| grow(&a).map(|to| end = to).is_ok());
    }
    let status = destination(&a, &address);
    assert_eq!((status.state.as_str(), status.required), ("detached", false));
    assert_eq!(status.detached.and_then(|detached| detached.lacks), None, "it has not said");
    assert!(a.stream().at.start > begun);
    assert!(a.stream().next_step.is_some_and(|step| step.contains(&format!("bring back peer {address}"))));
    let error = failure(a.client().wait(wait_for(end)));
    assert!(error.class() == Class::NotReached && error.message.contains("detached"), "{error}");

    let c = start(receiver(dir.path(), "c", Some(&address)));
    until(|| !is_detached(&a, &address));
    a.client().wait(wait_for(end)).expect("in sync");
    assert_eq!(destination(&a, &address).state, "in sync");
    assert!(!a.status().degraded(), "{}", a.status());
    let kept = a.records();
    assert!(!kept.is_empty());
    c.stop();
    // and again, for longer than the log reaches back
    while a.stream().at.start <= end {
        until(|| grow(&a).is_ok());
    }
    let c = start(receiver(dir.path(), "c", Some(&address)));
    until(|| destination(&a, &address).last_error.is_some_and(|error| error.contains("needs a base")));
    assert_eq!(destination(&a, &address).state, "detached");
    c.stop();
    a.stop();
    let said = said(&dir.path().join("a"));
    assert!(
        said.last().is_some_and(|last| last.starts_with(&format!("detached: peer {address}, which lacks"))),
        "{said:?}"
    );
}

/// Appends until there is no room: the error; `None` when that never happens.
fn fill(node: &Running, near: Option<&str>) -> Option<Failure> {
    (0..3 * BUDGET / (6 * SEGMENT)).find_map(|_| {
        let appended = append(node, Level::Durable);
        if let (Some(near), Ok(end)) = (near, &appended) {
            ship_to(node, near, *end);
        }
        appended.err()
    })
}

#[test]
fn who_is_waited_for_who_is_to_block_and_the_last_one_are_never_detached() {
    let dir = tempfile::tempdir().expect("a folder");
    let case = |name: &str, peers: Vec<PeerOptions>, depots: &[(&str, Option<AtBudget>)], blocks: Option<&str>| {
        let dir = dir.path().join(name);
        fs::create_dir(&dir).expect("made");
        let mut options = writer(&dir, peers, &[]);
        options.streams[0].depots = depots
            .iter()
            .map(|(name, at_budget)| DepotOptions { at_budget: *at_budget, ..depot(&dir, name) })
            .collect();
        let a = start(options);
        let near = depots.iter().any(|(name, _)| *name == "near").then_some("near");
        // a depot that was never asked is made first
        if depots.iter().any(|(name, _)| *name == "night") {
            append(&a, Level::Durable).expect("there is room");
            ship(&a).expect("shipped");
            fs::rename(dir.join("night"), dir.join("away")).expect("moved");
        }
        match (fill(&a, near), blocks) {
            (Some(full), Some(who)) => {
                assert_eq!(full.class(), Class::Full, "{name}");
                assert!(full.message.contains(&format!("{who} needs everything")), "{name}: {full}");
                let detached = a.stream().destinations.into_iter().filter(|to| to.detached.is_some()).count();
                assert_eq!(detached, 0, "{name}");
            }
            (None, None) => until(|| is_detached(&a, "night")),
            (full, _) => panic!("{name}: {full:?}"),
        }
        a.stop();
    };
    let gone = |name: &str| PeerOptions::at("127.0.0.1:1").name(name);
    let (block, detach) = (Some(AtBudget::Block), Some(AtBudget::Detach));
    let alone = OnLoss::Alone { after: Duration::ZERO };
    case("async-block", vec![gone("c").asynchronous().at_budget(AtBudget::Block)], &[("near", None)], Some("peer c"));
    case("depot-block", vec![], &[("near", None), ("night", block)], Some("depot night"));
    case("last", vec![], &[("night", None)], Some("depot night"));
    case("last-that-stays", vec![], &[("near", detach), ("night", None)], Some("depot night"));
    case("last-by-word", vec![], &[("night", detach)], None);

    let b = start(receiver(dir.path(), "b", None));
    let a = start(writer(dir.path(), [b.peer().on_loss(alone)], &["near"]));
    append(&a, Level::PeerDurable).expect("acknowledged");
    let name = b.peer().name;
    b.stop();
    a.wait_state(State::Alone);
    let full = fill(&a, Some("near")).expect("its peer keeps all of it");
    assert!(full.message.contains(&format!("peer {name} needs everything")), "{full}");
    assert!(!is_detached(&a, &name));

    let error = try_start(writer(&dir.path().join("x"), [gone("b").sync().at_budget(AtBudget::Detach)], &[]));
    let error = error.map(|_| ()).expect_err("commits wait for it");
    assert_eq!(error.class(), Class::Config);
    assert!(error.to_string().contains("on_loss"), "{error}");
}

/// One that is out of reach is detached, and the other, whose schedule is as rare, gets everything early: no append fails.
#[test]
fn of_two_depots_the_one_that_can_be_reached_stays() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut options = writer(dir.path(), [], &["near"]);
    let at = DepotAt::Node { address: "127.0.0.1:1".into(), tls_name: None };
    options.streams[0].depots.push(DepotOptions { at, ..depot(dir.path(), "night") });
    let node = start(options);
    // nobody listens there
    until(|| destination(&node, "night").last_error.is_some());
    assert!(fill(&node, None).is_none());
    assert!(is_detached(&node, "night"));
    let near = destination(&node, "near");
    assert!(near.detached.is_none());
    assert!(near.cut_early.is_some_and(|early| early.contains("it lacked")));
    assert!(destination(&node, "night").cut_early.is_none());
    node.stop();
}

/// The same beside a peer, whatever its mode: what a depot in reach lacks is there before it would be detached.
#[test]
fn a_depot_in_reach_is_not_detached_whatever_the_mode() {
    for (mode, level) in MODES {
        let dir = tempfile::tempdir().expect("a folder");
        let b = start(keeper(dir.path(), "b", None));
        let mut options = writer(dir.path(), [PeerOptions { mode, ..b.peer() }], &["near"]);
        options.streams[0].depots[0].at_budget = Some(AtBudget::Detach);
        let a = start(options);
        let mut end = 0;
        while end < 4 * BUDGET {
            // what the peer has acknowledged is noted once a second: until then it may be in the way
            until(|| append(&a, level).map(|to| end = to).is_ok());
            assert!(!is_detached(&a, "near"), "{mode:?} {end}");
        }
        assert!(destination(&a, "near").cut_early.is_some());
        assert!(destination(&a, "near").durable.is_some_and(|there| there > 2 * BUDGET));
        ship_to(&a, "near", end);
        a.stop();
        b.stop();
        let depot = Depot::find(&dir.path().join("near"), STREAM).expect("a depot");
        assert!(depot.verify().expect("read").is_good());
        let there = depot.catalogue().expect("reads").end().expect("a line").expect("not empty").tip.lsn;
        assert!(there.get() >= end, "{mode:?}: {there}");
    }
}

/// A depot takes the connection and never answers: appends wait for it, but not for ever.
#[test]
fn a_depot_that_hangs_at_the_budget_is_detached_all_the_same() {
    let dir = tempfile::tempdir().expect("a folder");
    let dr = start(receiver(dir.path(), "dr", None));
    let address = dr.address();
    let mut options = writer(dir.path(), [], &[]);
    let at = DepotAt::Node { address: address.clone(), tls_name: None };
    let at_budget = Some(AtBudget::Detach);
    options.streams[0].depots.push(DepotOptions { at, at_budget, ..depot(dir.path(), "night") });
    let node = start(options);
    until(|| destination(&node, "night").met);
    dr.stop();
    let mute = std::net::TcpListener::bind(address).expect("its port is free");
    assert!(fill(&node, None).is_none());
    assert!(is_detached(&node, "night"));
    assert_eq!(destination(&node, "night").last_error, None, "it was not refused, it hangs");
    drop(mute);
    node.stop();
}

/// One burst is larger than the budget. What isn't durable yet can't be given up, so it is made durable first: nobody keeps
/// the log, and there is no other reason to refuse it.
#[test]
fn a_burst_larger_than_the_budget_is_taken_when_nobody_keeps_the_log() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut options = writer(dir.path(), [], &["night"]);
    options.streams[0].depots[0].at_budget = Some(AtBudget::Detach);
    let node = start(options);
    let lsn = append(&node, Level::Durable).expect("room");
    ship_to(&node, "night", lsn);
    fs::rename(dir.path().join("night"), dir.path().join("away")).expect("moved");
    let record = "x".repeat(10_000);
    let acked = node.append(Level::Written, LONG, &vec![record.as_str(); 3 * BUDGET as usize / 10_000]);
    assert!(acked.expect("room for all of it").lsn > 3 * BUDGET);
    assert!(is_detached(&node, "night"));
    node.stop();
}
