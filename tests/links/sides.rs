//! A primary and a receiver, put together by hand.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use journal::{
    Disk, Geometry, Host, Item, Journal, Lsn, NodeId, Options, Reason, Role, RunOpening, Storage, StorageFile,
    StreamId, Ticket,
};
use receiver::{IntakeOptions, Keeper, Notice, Origin, ReceiverOptions, ReceiverStream, Rooms, Server, Streams};
use shipper::{Event, Links, LinksOptions, Need, OnLoss, PeerOptions, PeerState, Target};
use tempfile::TempDir;
use wire::{Greeting, Mode, NodeInfo, Refusal, Security};

/// Nothing in these tests takes so long unless it hangs.
pub(crate) const HANGS_AFTER: Duration = Duration::from_secs(60);
pub(crate) const STREAM: StreamId = StreamId::from_bytes([7; 16]);
pub(crate) const PLAIN: Security = Security::Plaintext { anywhere: false };

/// Waits for something that comes by itself.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + HANGS_AFTER;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn node(number: u8, name: &str) -> NodeInfo {
    let start_id = u64::from(number) << 32 | u64::from(Instant::now().elapsed().subsec_nanos());
    NodeInfo { id: NodeId::from_bytes([number; 16]), name: name.into(), start_id, boot_id: [number; 16] }
}

/// The machine's disk, until a test holds its syncs back or has them fail.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    shared: Arc<(Mutex<Order>, Condvar)>,
    holding: Arc<AtomicUsize>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    #[default]
    Work,
    Hold,
    /// Hold syncs of the control file alone.
    HoldControl,
    /// Hold the first sync of files that are to become segments.
    HoldPool,
    Fail,
    /// There is room for so many files more.
    Room(usize),
}

impl Held {
    pub(crate) fn order(&self, order: Order) {
        *self.shared.0.lock().unwrap() = order;
        self.shared.1.notify_all();
    }

    /// No file can be created now.
    pub(crate) fn is_full(&self) -> bool {
        *self.shared.0.lock().unwrap() == Order::Room(0)
    }

    /// Syncs that are held back now.
    pub(crate) fn holding(&self) -> usize {
        self.holding.load(Ordering::SeqCst)
    }

    fn obey(&self, held_by: Order) -> io::Result<()> {
        let held = |order: &Order| *order == Order::Hold || *order == held_by;
        let mut order = self.shared.0.lock().unwrap();
        if held(&order) {
            self.holding.fetch_add(1, Ordering::SeqCst);
            order = self.shared.1.wait_while(order, |order| held(order)).unwrap();
            self.holding.fetch_sub(1, Ordering::SeqCst);
        }
        match *order {
            Order::Fail => Err(io::Error::from_raw_os_error(5)),
            _ => Ok(()),
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // a test that failed must not hang on top of it
        self.disk.order(Order::Work);
    }
}

#[derive(Debug)]
struct HeldFile {
    disk: Held,
    file: Arc<dyn StorageFile>,
    control: bool,
    /// Made for the pool, and not synced yet.
    new: AtomicBool,
}

impl HeldFile {
    fn of(disk: &Held, path: &Path, file: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let (control, new) = (name == "control", AtomicBool::new(name.starts_with("new-")));
        Arc::new(HeldFile { disk: disk.clone(), file, control, new })
    }
}

impl Storage for Held {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn StorageFile>> {
        match &mut *self.shared.0.lock().unwrap() {
            Order::Room(0) => return Err(io::ErrorKind::StorageFull.into()),
            Order::Room(left) => *left -= 1,
            _ => {}
        }
        Ok(HeldFile::of(self, path, Disk.create(path, bytes)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        Ok(HeldFile::of(self, path, Disk.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        Disk.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        Disk.sync_dir(path)
    }
}

impl StorageFile for HeldFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        let held_by = match self.new.swap(false, Ordering::SeqCst) {
            true => Order::HoldPool,
            false if self.control => Order::HoldControl,
            false => Order::Hold,
        };
        self.disk.obey(held_by)?;
        self.file.sync()
    }

    fn file(&self) -> &File {
        self.file.file()
    }
}

/// A node's folder and disk.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) number: u8,
    pub(crate) disk: Held,
    pub(crate) dir: TempDir,
}

impl Side {
    pub(crate) fn new(number: u8) -> Side {
        Side { number, disk: Held::default(), dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn options(&self) -> Options {
        let host = Host { storage: Arc::new(self.disk.clone()), ..Host::default() };
        Options { geometry: Geometry::new(64 << 10).unwrap(), host, ..Options::default() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    pub(crate) fn create(&self, role: Role) -> Journal {
        let id = NodeId::from_bytes([self.number; 16]);
        Journal::create(&self.path(), STREAM, id, role, self.options()).unwrap()
    }

    /// Opens it again, once the last thread that still has a hand on it is gone.
    pub(crate) fn open(&self) -> Journal {
        let mut opened = None;
        until("the folder is free", || {
            opened = match Journal::open(&self.path(), self.options()) {
                Err(journal::Error::Locked { .. }) => None,
                other => Some(other.unwrap()),
            };
            opened.is_some()
        });
        opened.unwrap()
    }
}

/// What a receiver's node was told.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) applied_to: Mutex<Lsn>,
    pub(crate) notices: Mutex<Vec<Notice>>,
    pub(crate) failed: Mutex<Option<String>>,
    pub(crate) settled: Mutex<u32>,
}

impl Keeper for Kept {
    fn apply(&self, to: Lsn) {
        *self.applied_to.lock().unwrap() = to;
    }

    fn settle(&self) -> Result<(), String> {
        *self.settled.lock().unwrap() += 1;
        Ok(())
    }

    fn notice(&self, notice: &Notice) {
        self.notices.lock().unwrap().push(notice.clone());
    }

    fn failed(&self, reason: &str) {
        *self.failed.lock().unwrap() = Some(reason.into());
    }
}

/// A receiver that listens.
#[derive(Debug)]
pub(crate) struct Receiving {
    pub(crate) stream: Arc<ReceiverStream>,
    pub(crate) kept: Arc<Kept>,
    pub(crate) server: Server,
}

struct One(Arc<ReceiverStream>);

impl Streams for One {
    fn stream(&self, greeting: &Greeting, _: &Origin) -> Result<Arc<ReceiverStream>, Refusal> {
        match greeting.stream == self.0.journal().stream() {
            true => Ok(Arc::clone(&self.0)),
            false => Err(Refusal::Stream { primary: greeting.stream, receiver: self.0.journal().stream() }),
        }
    }
}

/// A house with this one stream.
pub(crate) fn rooms(stream: &Arc<ReceiverStream>) -> Rooms {
    Rooms { streams: Arc::new(One(Arc::clone(stream))), depots: None, copies: None }
}

impl Receiving {
    pub(crate) fn start(journal: Journal, security: Security) -> Receiving {
        Receiving::start_with(journal, security, Duration::from_secs(5))
    }

    pub(crate) fn start_with(journal: Journal, security: Security, dead_after: Duration) -> Receiving {
        let kept = Arc::new(Kept::default());
        let options = ReceiverOptions {
            stream_name: "log".into(),
            node: node(2, "b"),
            intake: IntakeOptions { dead_after, ..IntakeOptions::default() },
            applied: Lsn::ZERO,
            checkpoint: Lsn::ZERO,
            in_doubt: false,
        };
        let stream = ReceiverStream::start(journal, options, Arc::clone(&kept) as Arc<dyn Keeper>).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::start(listener, security, rooms(&stream)).unwrap();
        Receiving { stream, kept, server }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Ends it so that its journal can be opened again.
    pub(crate) fn end(self) {
        self.stream.stop("the test says so");
        self.server.stop();
        until("its connections end", || self.server.connections() == 0);
        self.stream.journal().clone().close().unwrap();
    }
}

/// A primary that ships.
#[derive(Debug)]
pub(crate) struct Shipping {
    pub(crate) journal: Journal,
    pub(crate) links: Links,
    pub(crate) events: Arc<Mutex<Vec<Event>>>,
}

pub(crate) fn target(mode: Mode, address: impl ToString) -> Target {
    let peer = PeerOptions { retry_max: Duration::from_millis(200), ..PeerOptions::new("b", mode) };
    Target { peer, address: address.to_string(), expect_name: None, on_loss: OnLoss::Block }
}

impl Shipping {
    pub(crate) fn start(journal: Journal, security: Security, targets: Vec<Target>) -> Shipping {
        let events = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&events);
        let options =
            LinksOptions { stream_name: "log".into(), node: node(1, "a"), security, need: Need::All, targets };
        let on_event = Box::new(move |event| told.lock().unwrap().push(event));
        let links = Links::start(journal.clone(), options, on_event).unwrap();
        Shipping { journal, links, events }
    }

    /// Waits for the gate and opens a run.
    #[track_caller]
    pub(crate) fn open(&self) {
        assert!(self.links.wait_open(HANGS_AFTER), "{:#?}", self.links.status());
        self.links.open_run(RunOpening { promote: None, reason: Reason::Started, policy: Vec::new() }).unwrap();
    }

    pub(crate) fn append(&self, payload: &[u8]) -> Ticket {
        let ticket = self.journal.append(Item::record(&[payload])).unwrap();
        ticket.written().unwrap();
        ticket
    }

    pub(crate) fn state(&self) -> PeerState {
        self.links.status().peers[0].state.clone()
    }
}

/// Every byte of a log, from its start to its end.
pub(crate) fn bytes(journal: &Journal) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = journal.start();
    while let Some(slice) = journal.slice(at, 1 << 20).unwrap() {
        at = slice.range().to;
        bytes.extend_from_slice(&slice);
    }
    bytes
}
