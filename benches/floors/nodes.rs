//! A pair of nodes on loopback, each with an own journal on this disk, through the library.

use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use journal::{Item, Level, Lsn};
use node::{Options, PeerOptions, Stop, Stream};

use crate::group;
use crate::local::{RECORD_BYTES, TIME, fresh_journal};
use crate::pair::{self, Answer};
use crate::table::{Row, Sample, Unit, latencies};

/// Longer than any turn takes; a turn that hits it measures nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes that a new peer catches up with: more than the window, less than what the disk caches badly.
const CATCH_UP_RECORDS: u64 = 200_000;

pub(crate) fn rows() -> Vec<Row> {
    use Answer::{Durable, Received};
    use Unit::{Bytes, Operations};
    vec![
        Row {
            name: "sync pair (1 KiB, 1 writer)",
            unit: Operations,
            floor: |dir| pair::both_sides(dir, 1, Durable),
            ours: |dir| replicated(dir, 1, Level::PeerDurable),
        },
        Row {
            name: "sync pair (1 KiB, 32 writers)",
            unit: Operations,
            floor: |dir| pair::both_sides(dir, 32, Durable),
            ours: |dir| replicated(dir, 32, Level::PeerDurable),
        },
        Row {
            name: "semi-sync pair (1 KiB, 1 writer)",
            unit: Operations,
            floor: |dir| pair::both_sides(dir, 1, Received),
            ours: |dir| replicated(dir, 1, Level::Received),
        },
        Row {
            name: "semi-sync pair (1 KiB, 32 writers)",
            unit: Operations,
            floor: |dir| pair::both_sides(dir, 32, Received),
            ours: |dir| replicated(dir, 32, Level::Received),
        },
        Row { name: "catch-up of a new peer", unit: Bytes, floor: catch_up_floor, ours: catch_up },
    ]
}

/// `writers` threads, each waiting until its record has reached `level`.
fn replicated(dir: &Path, writers: usize, level: Level) -> Sample {
    let receiver = Receiver::start(dir);
    let peer = PeerOptions::at(&receiver.address);
    let peer = if level == Level::PeerDurable { peer.sync() } else { peer.semi_sync() };
    let stream = Stream::builder(fresh_journal(dir)).name("bench").peer(peer).start().expect("start");
    stream.wait_ready(PATIENCE).expect("the peer is there");
    stream.append([&b"first"[..]]).expect("append").wait(level, PATIENCE).expect("reached");
    let begun = Instant::now();
    let all = std::thread::scope(|scope| {
        let writer = || {
            let mut found = latencies();
            let record = [7; RECORD_BYTES];
            while begun.elapsed() < TIME {
                let from = Instant::now();
                stream.append([&record[..]]).expect("append").wait(level, PATIENCE).expect("reached");
                found.record(from.elapsed().as_nanos() as u64).expect("it grows");
            }
            found
        };
        let threads: Vec<_> = (0..writers).map(|_| scope.spawn(writer)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a writer")).collect()
    });
    let sample = group::sum(all, begun.elapsed());
    stream.close().expect("close");
    receiver.stop();
    sample
}

fn catch_up_floor(dir: &Path) -> Sample {
    pair::bulk(dir, CATCH_UP_RECORDS * journal::entry_bytes(RECORD_BYTES))
}

/// From the first connection until the peer has synced everything.
fn catch_up(dir: &Path) -> Sample {
    let (journal, record) = (fresh_journal(dir), [7; RECORD_BYTES]);
    journal
        .open_run(journal::RunOpening { promote: None, reason: journal::Reason::Created, policy: Vec::new() })
        .expect("open a run");
    for _ in 0..CATCH_UP_RECORDS {
        journal.append(Item::record(&[&record])).expect("append");
    }
    let end = journal.sync().expect("sync").lsn();
    let receiver = Receiver::start(dir);
    let begun = Instant::now();
    let peer = PeerOptions::at(&receiver.address).sync();
    let stream = Stream::builder(journal).name("bench").peer(peer).start().expect("start");
    stream.wait_ready(PATIENCE).expect("the peer is there");
    let deadline = Some(begun + PATIENCE);
    stream.journal().board().wait(Level::PeerDurable, end, deadline).expect("caught up");
    let sample = Sample::whole(end.bytes_since(Lsn::ZERO), begun.elapsed());
    stream.close().expect("close");
    receiver.stop();
    sample
}

/// A node that takes whatever stream comes.
struct Receiver {
    address: String,
    stop: Stop,
    thread: JoinHandle<()>,
}

impl Receiver {
    fn start(dir: &Path) -> Receiver {
        let mut options = Options::new(dir.join("receiver"));
        options.listen = Some("127.0.0.1:0".to_owned());
        let stop = Stop::new().expect("a signal");
        let (say, hear) = mpsc::channel();
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                node::run(options, &stop, |ready| say.send(ready.listen.clone()).expect("somebody listens"))
                    .expect("the receiver ends in order");
            }
        });
        let address = hear.recv().expect("it starts").expect("it listens");
        Receiver { address, stop, thread }
    }

    fn stop(self) {
        self.stop.begin("the turn is over", PATIENCE);
        self.thread.join().expect("the receiver");
    }
}
