//! Batches from a stream into a folder, and into another node's depot.

use std::path::Path;

use archive::Depot;
use journal::Class;
use node::control::{From, Level, Ship, ShipWhen, TailFrom, Until};
use node::{DepotAt, DepotOptions, Options};

use crate::support::{LONG, STREAM, primary, receiver, start, until};

const NEVER: &str = "every 1d";

fn with_depot(mut options: Options, at: DepotAt, schedule: &str) -> Options {
    let depot = DepotOptions { name: "night".into(), at, schedule: schedule.into() };
    options.streams[0].depots.push(depot);
    options
}

fn ship_now() -> Ship {
    Ship { stream: Some(STREAM.into()), when: ShipWhen::Now, timeout_ms: Some(LONG.as_millis() as u64) }
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
    let shipped = a.client().ship(ship_now()).expect("shipped");
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
    let shipped = a.client().ship(ship_now()).expect("shipped");
    assert_eq!(shipped[0].lsn, committed);
    assert_eq!(a.stream().destinations.pop().expect("the depot").durable, Some(committed));
}

#[test]
fn a_stream_without_a_depot_and_a_schedule_of_nonsense_are_said_as_such() {
    let dir = tempfile::tempdir().expect("a folder");
    let a = start(primary(dir.path(), "a", []));
    assert_eq!(a.client().ship(ship_now()).expect_err("no depot").class(), Class::Absent);
    let options = with_depot(primary(dir.path(), "b", []), DepotAt::Folder("/nowhere".into()), "when I like");
    let error = crate::support::try_start(options).map(|_| ()).expect_err("no schedule");
    assert_eq!(error.class(), Class::Config, "{error}");
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
    a.client().ship(ship_now()).expect("shipped");
    until(|| a.stream().at.start > 0);
    // more than the budget in all
    for _ in 0..6 {
        a.append(Level::PeerDurable, LONG, &records[..30]).expect("acknowledged");
        a.client().ship(ship_now()).expect("shipped");
        until(|| a.stream().at.written - a.stream().at.start < 1_300_000);
    }
    let from = TailFrom { stream: STREAM.into(), from: From::Start, follow: false };
    let mut tail = a.client().tail(from).expect("a tail");
    assert!(tail.next_record().expect("no error").is_some());
}
