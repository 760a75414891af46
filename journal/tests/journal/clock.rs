//! The clock of the machine, whatever it says and whenever it is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use std::sync::Mutex;

use journal::{Clock, Host, Item, Journal, Kind, Lsn, NodeId, Options, Role, StreamId, Time};

use crate::lifecycle::{records, small, start_run};

const SECOND: u64 = 1_000_000_000;

/// A clock that stops whoever asks it first: it has looked, and hands over what it saw when it is told to.
#[derive(Debug, Default)]
struct Slow {
    nanos: AtomicU64,
    stops: Mutex<Option<(Sender<()>, Receiver<()>)>>,
}

impl Clock for Slow {
    fn now(&self) -> Time {
        let now = Time::from_nanos(self.nanos.load(Ordering::Acquire));
        let stop = self.stops.lock().unwrap().take();
        if let Some((looked, go_on)) = stop {
            looked.send(()).unwrap();
            go_on.recv().unwrap();
        }
        now
    }
}

fn with_clock(clock: Arc<dyn Clock>) -> Options {
    Options { host: Host { clock, ..Host::default() }, ..small() }
}

fn clock_entries(journal: &Journal) -> usize {
    let mut entries = journal.entries(Lsn::ZERO).unwrap();
    let mut found = 0;
    while let Some(entry) = entries.next_entry().unwrap() {
        found += usize::from(entry.header.kind == Some(Kind::Clock));
    }
    found
}

/// Of two appenders the one that had looked at the clock first came last, two seconds later (the disk was slow): the log
/// said that the clock had been stepped back.
#[test]
fn an_appender_that_is_overtaken_steps_no_clock() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Slow { nanos: AtomicU64::new(1000 * SECOND), ..Slow::default() });
    let options = with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let journal = Journal::create(dir.path(), StreamId::random(), NodeId::random(), Role::Primary, options).unwrap();
    start_run(&journal);
    journal.append(Item::record(&[b"first"])).unwrap();
    let (looked, has_looked) = channel();
    let (goes_on, go_on) = channel();
    *clock.stops.lock().unwrap() = Some((looked, go_on));
    std::thread::scope(|scope| {
        let overtaken = scope.spawn(|| journal.append(Item::record(&[b"third"])).unwrap());
        has_looked.recv().unwrap();
        clock.nanos.fetch_add(2 * SECOND, Ordering::AcqRel);
        journal.append(Item::record(&[b"second"])).unwrap();
        goes_on.send(()).unwrap();
        overtaken.join().unwrap();
    });
    journal.sync().unwrap();
    assert_eq!(records(&journal), [&b"first"[..], b"second", b"third"]);
    assert_eq!(clock_entries(&journal), 0);
}

/// There is no instant behind the last one: the entry behind it had none, and the log ended there at the next start.
#[test]
fn a_clock_that_says_the_end_of_time_costs_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Slow { nanos: AtomicU64::new(u64::MAX), ..Slow::default() });
    let options = with_clock(clock);
    let journal =
        Journal::create(dir.path(), StreamId::random(), NodeId::random(), Role::Primary, options.clone()).unwrap();
    start_run(&journal);
    for _ in 0..9 {
        journal.append(Item::record(&[b"x"])).unwrap().durable().unwrap();
    }
    drop(journal);
    let journal = Journal::open(dir.path(), options).unwrap();
    assert_eq!(records(&journal).len(), 9);
}
