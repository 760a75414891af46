//! Batches from a stream into a folder, and into another node's depot.

use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use archive::Depot;
use journal::Class;
use node::control::{From, Level, Ship, ShipWaits, ShipWhen, Shipped, TailFrom, Until};
use node::{DepotAt, DepotOptions, Options};

use crate::support::{LONG, Running, STREAM, primary, receiver, start, until};

const NEVER: &str = "every 1d";

fn with_depot(mut options: Options, at: DepotAt, schedule: &str) -> Options {
    let depot = DepotOptions { name: "night".into(), at, schedule: schedule.into(), at_budget: None };
    options.streams[0].depots.push(depot);
    options
}

fn ship(node: &Running, when: ShipWhen, timeout: Duration) -> node::Result<Vec<Shipped>> {
    let ship = Ship { stream: Some(STREAM.into()), when, timeout_ms: Some(timeout.as_millis() as u64) };
    node.client().ship(ship, |_| {})
}

fn assert_good(root: &Path) {
    let depot = Depot::find(root, STREAM).expect("a depot");
    assert!(depot.verify().expect("read").is_good());
}

#[test]
fn shipping_now_answers_when_it_lies_in_the_folder() {
    let dir = tempfile::tempdir().expect("a folder");
    let depot = dir.path().join("depot");
    let options = with_depot(primary(dir.path(), "a", []), DepotAt::Folder(depot.clone()), NEVER);
    let a = start(options);
    let lsn = a.append(Level::Durable, LONG, &["one", "two"]).expect("acknowledged").lsn;
    let shipped = ship(&a, ShipWhen::Now, LONG).expect("shipped");
    assert_eq!((shipped.len(), shipped[0].depot.as_str()), (1, "night"));
    assert!(shipped[0].lsn >= lsn);
    a.wait(Until::Shipped);
    assert_good(&depot);
    let status = a.stream().destinations.pop().expect("the depot");
    assert_eq!((status.kind.as_str(), status.durable), ("depot", Some(lsn)));
    assert!(status.next_due.is_some());
}

#[test]
fn a_schedule_ships_by_itself_into_another_node() {
    let dir = tempfile::tempdir().expect("a folder");
    let dr = start(receiver(dir.path(), "dr", None));
    let at = DepotAt::Node { address: dr.address(), tls_name: None };
    let a = start(with_depot(primary(dir.path(), "a", []), at, "every 1s"));
    a.append(Level::Durable, LONG, &["one", "two"]).expect("acknowledged");
    a.wait(Until::Shipped);
    assert_good(&dir.path().join("dr/depots"));
    // a depot is no receiver of the stream
    assert!(dr.status().streams.is_empty());
}

#[test]
fn what_is_not_committed_is_not_shipped() {
    let dir = tempfile::tempdir().expect("a folder");
    let b = start(receiver(dir.path(), "b", None));
    let depot = dir.path().join("depot");
    let options = with_depot(primary(dir.path(), "a", [b.peer()]), DepotAt::Folder(depot), NEVER);
    let a = start(options);
    let committed = a.append(Level::PeerDurable, LONG, &["one"]).expect("acknowledged").lsn;
    b.stop();
    a.append(Level::Durable, LONG, &["two"]).expect("acknowledged");
    let shipped = ship(&a, ShipWhen::Now, LONG).expect("shipped");
    assert_eq!(shipped[0].lsn, committed);
    assert_eq!(a.stream().destinations.pop().expect("the depot").durable, Some(committed));
}

#[test]
fn a_stream_without_a_depot_and_a_schedule_of_nonsense_are_said_as_such() {
    let dir = tempfile::tempdir().expect("a folder");
    let a = start(primary(dir.path(), "a", []));
    assert_eq!(ship(&a, ShipWhen::Now, LONG).expect_err("no depot").class(), Class::Absent);
    let options = with_depot(primary(dir.path(), "b", []), DepotAt::Folder("/nowhere".into()), "when I like");
    let error = crate::support::try_start(options).map(|_| ()).expect_err("no schedule");
    assert_eq!(error.class(), Class::Config, "{error}");
}

/// A stream with these depots, as names of folders and schedules. Each has said where it ends, with nothing to ship.
fn fed(dir: &Path, depots: &[(&str, &str)]) -> Running {
    let with = |mut options: Options, (name, schedule): &(&str, &str)| {
        let at = DepotAt::Folder(dir.join(name));
        options.streams[0].depots.push(DepotOptions {
            name: (*name).into(),
            at,
            schedule: (*schedule).into(),
            at_budget: None,
        });
        options
    };
    let a = start(depots.iter().fold(primary(dir, "a", []), with));
    until(|| a.stream().destinations.iter().all(|depot| depot.met));
    a
}

#[test]
fn waiting_for_the_schedule_ships_nothing_earlier() {
    let dir = tempfile::tempdir().expect("a folder");
    let a = fed(dir.path(), &[("night", NEVER)]);
    a.append(Level::Durable, LONG, &["one"]).expect("acknowledged");
    let late = ship(&a, ShipWhen::Next, Duration::from_millis(100)).expect_err("it isn't due");
    assert_eq!(late.class(), Class::Unknown);
    let due = a.stream().destinations[0].next_due.clone().expect("it goes by time");
    assert!(late.to_string().contains("not yet") && late.to_string().contains(&due), "{late}");
    assert_eq!(a.stream().destinations[0].durable, Some(0), "nothing lies there");
    assert!(
        Depot::find(&dir.path().join("night"), STREAM)
            .expect("a depot")
            .catalogue()
            .expect("reads")
            .batches()
            .is_empty()
    );
}

#[test]
fn the_schedules_next_cut_holds_what_was_committed_before_the_question() {
    let dir = tempfile::tempdir().expect("a folder");
    let a = fed(dir.path(), &[("fast", "every 300ms"), ("slow", "every 1s")]);
    let mut last = 0;
    for record in ["one", "two", "three"] {
        last = a.append(Level::Durable, LONG, &[record]).expect("acknowledged").lsn;
        let shipped = ship(&a, ShipWhen::Next, LONG).expect("shipped");
        let names: Vec<&str> = shipped.iter().map(|shipped| shipped.depot.as_str()).collect();
        assert_eq!(names, ["fast", "slow"]);
        assert!(shipped.iter().all(|shipped| shipped.lsn >= last), "{shipped:?}");
    }
    let nothing = ship(&a, ShipWhen::Next, LONG).expect("its instant comes all the same");
    assert!(nothing.iter().all(|shipped| shipped.had_nothing && shipped.lsn == last), "{nothing:?}");
    assert_good(&dir.path().join("fast"));
}

#[test]
fn a_size_is_waited_for_until_it_is_reached() {
    let dir = tempfile::tempdir().expect("a folder");
    let a = fed(dir.path(), &[("full", "64 KiB")]);
    let next = Ship { stream: None, when: ShipWhen::Next, timeout_ms: Some(LONG.as_millis() as u64) };
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let shipped = scope.spawn(|| a.client().ship(next, |waits| tell.send(waits.clone()).expect("it listens")));
        let waits = told.recv_timeout(LONG).expect("it says what it waits for");
        assert_eq!((waits.upto, waits.due, waits.missing_bytes), (None, None, Some(64 << 10)));
        let lsn = a.append(Level::Durable, LONG, &["x".repeat(70_000).as_str()]).expect("acknowledged").lsn;
        let shipped = shipped.join().expect("no panic").expect("shipped");
        assert!(shipped[0].lsn >= lsn && !shipped[0].had_nothing, "{shipped:?}");
    });
}

#[test]
fn a_depot_that_is_out_of_reach_is_waited_for_and_said() {
    let dir = tempfile::tempdir().expect("a folder");
    let a = fed(dir.path(), &[("gone", "every 300ms")]);
    let (depot, away) = (dir.path().join("gone"), dir.path().join("away"));
    std::fs::rename(&depot, &away).expect("unmounted");
    let lsn = a.append(Level::Durable, LONG, &["one"]).expect("acknowledged").lsn;
    let next = Ship { stream: None, when: ShipWhen::Next, timeout_ms: Some(LONG.as_millis() as u64) };
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let shipped = scope.spawn(|| a.client().ship(next, |waits| drop(tell.send(waits.clone()))));
        let trouble = |waits: ShipWaits| waits.upto.is_some() && waits.last_error.is_some();
        while !trouble(told.recv_timeout(LONG).expect("it says what it waits for")) {}
        let late = ship(&a, ShipWhen::Now, Duration::from_millis(100)).expect_err("it is away");
        let name = depot.to_str().expect("text");
        assert!(late.to_string().contains("unknown") && late.to_string().contains(name), "{late}");
        assert_eq!(late.class(), Class::Unknown);
        std::fs::rename(&away, &depot).expect("mounted");
        assert!(shipped.join().expect("no panic").expect("shipped")[0].lsn >= lsn);
    });
}

/// A wait that outlived its stream found no depot to wait for any more, and said that all was shipped.
#[test]
fn a_node_that_stops_leaves_a_ship_unknown() {
    for when in [ShipWhen::Now, ShipWhen::Next] {
        let dir = tempfile::tempdir().expect("a folder");
        let a = fed(dir.path(), &[("gone", NEVER)]);
        std::fs::rename(dir.path().join("gone"), dir.path().join("away")).expect("unmounted");
        a.append(Level::Durable, LONG, &["one"]).expect("acknowledged");
        let mut client = a.client();
        let ship = Ship { stream: None, when, timeout_ms: None };
        let (tell, told) = mpsc::channel();
        let shipped = thread::spawn(move || client.ship(ship, |waits| drop(tell.send(waits.clone()))));
        told.recv_timeout(LONG).expect("it waits");
        a.stop();
        let ended = shipped.join().expect("no panic").expect_err("nothing was shipped");
        assert_eq!(ended.class(), Class::Unknown, "{when:?}: {ended}");
    }
}

#[test]
fn who_can_not_ship_is_told_who_can() {
    let dir = tempfile::tempdir().expect("a folder");
    let b = start(receiver(dir.path(), "b", None));
    let a = start(primary(dir.path(), "a", [b.peer()]));
    a.wait(Until::Connected);
    let error = ship(&b, ShipWhen::Now, LONG).expect_err("a receiver");
    assert_eq!(error.class(), Class::Refused);
    assert!(error.to_string().contains("its primary feeds the depots"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("primary")), "{:?}", error.hint());
    for node in [&a, &b] {
        let all = Ship { stream: None, when: ShipWhen::Now, timeout_ms: None };
        let error = node.client().ship(all, |_| {}).expect_err("no depot anywhere");
        assert_eq!(error.class(), Class::Absent);
        assert!(error.hint().is_some_and(|hint| hint.contains("--to ./DEPOT")), "{error}");
    }
    let other = Ship { stream: Some("other".into()), when: ShipWhen::Next, timeout_ms: None };
    assert_eq!(a.client().ship(other, |_| {}).expect_err("no such stream").class(), Class::Absent);
}

/// With a budget, log that lies in the depot and is safe at the peer makes room; the stream goes on.
#[test]
fn a_budget_gives_up_what_is_safe_elsewhere_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let b = start(receiver(dir.path(), "b", None));
    let depot = dir.path().join("depot");
    let mut options = with_depot(primary(dir.path(), "a", [b.peer()]), DepotAt::Folder(depot), NEVER);
    options.streams[0].segment_bytes = Some(64 << 10);
    options.streams[0].budget_bytes = Some(2 << 20);
    let a = start(options);
    let record = "x".repeat(10_000);
    let records: Vec<&str> = std::iter::repeat_n(record.as_str(), 120).collect();
    a.append(Level::PeerDurable, LONG, &records).expect("acknowledged");
    assert_eq!(a.stream().at.start, 0, "nothing lies in the depot yet");
    ship(&a, ShipWhen::Now, LONG).expect("shipped");
    until(|| a.stream().at.start > 0);
    // more than the budget in all
    for _ in 0..6 {
        a.append(Level::PeerDurable, LONG, &records[..30]).expect("acknowledged");
        ship(&a, ShipWhen::Now, LONG).expect("shipped");
        until(|| a.stream().at.written - a.stream().at.start < 1_300_000);
    }
    let from = TailFrom { stream: STREAM.into(), from: From::Start, follow: false };
    let mut tail = a.client().tail(from).expect("a tail");
    assert!(tail.next_record().expect("no error").is_some());
}
