//! One journal in shared memory, on a disk that knows what has been synced; nothing in it but the schedule is random.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use journal::testing::{Random, SimDisk};
use journal::{
    Assembler, Clock, Error, Geometry, Host, Ids, Item, Journal, Kind, NodeId, Options, Reason, Role, RunOpening,
    Storage, StreamId, Ticket, Time,
};
use shuttle::rand::{Rng, RngCore, thread_rng};

pub(crate) const STREAM: StreamId = StreamId::from_bytes([1; 16]);
pub(crate) const GEOMETRY: Geometry = match Geometry::new(64 << 10) {
    Some(geometry) => geometry,
    None => panic!("a body size that can't be"),
};
const LIVE: &str = "live";
const LEFT: &str = "left";

pub(crate) struct World {
    folder: Arc<tempfile::TempDir>,
    pub(crate) disk: SimDisk,
    pub(crate) journal: Journal,
}

impl World {
    /// An empty journal.
    pub(crate) fn new(role: Role) -> World {
        let disk = SimDisk::default();
        World::on(disk.clone(), role, options(Arc::new(disk)))
    }

    /// An empty journal with options whose storage lies on `disk`.
    pub(crate) fn on(disk: SimDisk, role: Role, options: Options) -> World {
        let folder = Arc::new(folder());
        let (stream, node) = (STREAM, NodeId::from_bytes([2; 16]));
        let journal = Journal::create(&folder.path().join(LIVE), stream, node, role, options).unwrap();
        World { folder, disk, journal }
    }

    /// A primary with an open run.
    pub(crate) fn primary() -> World {
        let world = World::new(Role::Primary);
        open_run(&world.journal);
        world
    }

    /// Opens it again; nobody else has it any more, but the flush thread may be at work with it.
    pub(crate) fn reopen(self, options: Options) -> World {
        let World { folder, disk, journal } = self;
        drop(journal);
        loop {
            match Journal::open(&folder.path().join(LIVE), options.clone()) {
                Ok(journal) => return World { folder, disk, journal },
                Err(Error::Locked { .. }) => shuttle::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// What can take the power away, once, at any instant.
    pub(crate) fn power(&self) -> Power {
        Power { folder: Arc::clone(&self.folder), disk: self.disk.clone() }
    }
}

pub(crate) struct Power {
    folder: Arc<tempfile::TempDir>,
    disk: SimDisk,
}

impl Power {
    /// What the disk holds when the power goes now.
    pub(crate) fn cut(self) -> Left {
        let left = self.folder.path().join(LEFT);
        std::fs::create_dir(&left).unwrap();
        let mut random = Random::new(thread_rng().next_u64());
        let disk = self.disk.power_cut(&mut random, &self.folder.path().join(LIVE), &left).unwrap();
        Left { folder: self.folder, disk }
    }
}

/// A journal after a power cut.
pub(crate) struct Left {
    folder: Arc<tempfile::TempDir>,
    disk: SimDisk,
}

impl Left {
    /// Opens it and reads every record.
    pub(crate) fn payloads(self) -> Vec<Vec<u8>> {
        payloads(&Journal::open(&self.folder.path().join(LEFT), options(Arc::new(self.disk))).unwrap())
    }
}

/// The records that were acknowledged as durable.
#[derive(Clone, Default)]
pub(crate) struct Acked(Arc<Mutex<Acks>>);

#[derive(Default)]
struct Acks {
    records: Vec<(u8, u8)>,
    power: Option<Power>,
    /// What was acknowledged when the power went, and what the disk held then.
    cut: Option<(Vec<(u8, u8)>, Left)>,
}

impl Acked {
    /// The power goes with one of the first acknowledgements.
    pub(crate) fn until_power_goes(power: Power) -> Acked {
        Acked(Arc::new(Mutex::new(Acks { power: Some(power), ..Acks::default() })))
    }

    pub(crate) fn add(&self, who: u8, number: u8) {
        let mut acks = self.0.lock().unwrap();
        acks.records.push((who, number));
        if pick(3) == 0
            && let Some(power) = acks.power.take()
        {
            let acked = acks.records.clone();
            drop(acks);
            let left = power.cut();
            self.0.lock().unwrap().cut = Some((acked, left));
        }
    }

    /// What was acknowledged before the power went was left by it.
    pub(crate) fn survived(&self) {
        let cut = self.0.lock().unwrap().cut.take();
        if let Some((acked, left)) = cut {
            are_in(&acked, &left.payloads());
        }
    }

    pub(crate) fn are_in(&self, found: &[Vec<u8>]) {
        are_in(&self.0.lock().unwrap().records, found);
    }
}

fn are_in(acked: &[(u8, u8)], found: &[Vec<u8>]) {
    let found: Vec<_> = found.iter().map(|payload| read_payload(payload)).collect();
    for record in acked {
        assert!(found.contains(record), "{record:?} was acknowledged as durable, but only {found:?} are left");
    }
}

/// True in every other run.
pub(crate) fn chance() -> bool {
    thread_rng().gen_bool(0.5)
}

/// A number below `bound`.
pub(crate) fn pick(bound: u64) -> u64 {
    thread_rng().gen_range(0..bound)
}

/// Payload `number` of appender `who`: both can be read from it, and every byte of it follows from them.
pub(crate) fn payload(who: u8, number: u8, bytes: usize) -> Vec<u8> {
    let mut payload = vec![who ^ number.rotate_left(4); bytes.max(2)];
    payload[..2].copy_from_slice(&[who, number]);
    payload
}

/// The appender and the number of a payload, which must be whole.
pub(crate) fn read_payload(bytes: &[u8]) -> (u8, u8) {
    let (who, number) = (bytes[0], bytes[1]);
    assert!(bytes == payload(who, number, bytes.len()), "a payload that nobody appended");
    (who, number)
}

pub(crate) fn append(journal: &Journal, who: u8, number: u8, bytes: usize) -> journal::Result<Ticket> {
    journal.append(Item::record(&[&payload(who, number, bytes)]))
}

/// Every record of the journal, in order.
pub(crate) fn payloads(journal: &Journal) -> Vec<Vec<u8>> {
    let mut entries = journal.entries(journal.start()).unwrap();
    let mut assembler = Assembler::default();
    let mut found = Vec::new();
    while let Some(entry) = entries.next_entry().unwrap() {
        if entry.header.kind == Some(Kind::Data)
            && let Some(record) = assembler.push(&entry)
        {
            found.push(record.payload.to_vec());
        }
    }
    found
}

/// Checks that `found` has the payloads of each of `appenders` in order, from the first on without a gap; returns how
/// many each has.
pub(crate) fn counts<const N: usize>(found: &[Vec<u8>]) -> [u8; N] {
    let mut counts = [0; N];
    for payload in found {
        let (who, number) = read_payload(payload);
        let count = &mut counts[usize::from(who)];
        assert_eq!(number, *count, "appender {who}: a record is missing, twice there or out of order");
        *count += 1;
    }
    counts
}

pub(crate) fn open_run(journal: &Journal) {
    journal.open_run(RunOpening { promote: None, reason: Reason::Created, policy: Vec::new() }).unwrap();
}

pub(crate) fn options(storage: Arc<dyn Storage>) -> Options {
    let host = Host { storage, clock: Arc::new(Counter::default()), ids: Arc::new(Counter::default()) };
    Options { geometry: GEOMETRY, host, ..Options::default() }
}

fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Time and ids that are the same in every run.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Clock for Counter {
    fn now(&self) -> Time {
        Time::from_nanos(1_000_000 * self.random())
    }
}

impl Ids for Counter {
    fn random(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}
