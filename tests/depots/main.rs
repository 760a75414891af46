//! Batches from a journal to a depot on another node and back, over real connections that break.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use archive::{Depot, Point, Source, Wanted};
use journal::{
    Geometry, Item, Journal, Kind, Lsn, NodeId, Options, Reason, Remote, Role, RunOpening, StreamId, TermSeen, Time,
};
use receiver::{Depots, Origin, ReceiverStream, Rooms, Server, Streams, serve_depot};
use shipper::{BatchCore, BatchOptions, DepotLink, NodeLink, NodeLinkOptions, ShipStatus, Stop};
use tempfile::TempDir;
use wire::{DepotHello, Dialogue, Greeting, NodeInfo, Refusal, Security, Tls, pki};

struct Scene {
    dir: TempDir,
    journal: Journal,
    node: NodeInfo,
}

impl Scene {
    fn new() -> Scene {
        let dir = TempDir::new().expect("temp");
        let geometry = Geometry::new(64 << 10).expect("smallest");
        let options = Options { geometry, ..Options::default() };
        let (stream, id) = (StreamId::random(), NodeId::random());
        let journal = Journal::create(&dir.path().join("a"), stream, id, Role::Primary, options);
        let journal = journal.expect("an empty folder");
        let opening = RunOpening { promote: None, reason: Reason::Created, policy: Vec::new() };
        journal.open_run(opening).expect("opens");
        journal.board().set_remote(Remote { promised: Lsn::MAX, ..Remote::default() });
        let node = NodeInfo { id, name: "a".into(), start_id: 1, boot_id: [0; 16] };
        Scene { dir, journal, node }
    }

    /// Records that don't shrink much, so that a batch has many parts.
    fn append(&self, count: usize) -> Vec<Vec<u8>> {
        let mut seed = count as u64 + 1;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as u8
        };
        let records: Vec<Vec<u8>> = (0..count).map(|_| (0..10_000).map(|_| random()).collect()).collect();
        for record in &records {
            self.journal.append(Item::record(&[record])).expect("appends");
        }
        self.journal.write().expect("writes");
        self.journal.sync().expect("syncs");
        records
    }

    fn depot(&self) -> PathBuf {
        self.dir.path().join("depot")
    }

    fn core(&self, address: SocketAddr, security: Security) -> BatchCore<Journal, NodeLink> {
        let link = NodeLink::new(NodeLinkOptions {
            address: address.to_string(),
            tls_name: Some("dr".into()).filter(|_| matches!(security, Security::Tls(_))),
            security,
            stream: self.journal.stream(),
            stream_name: "log".into(),
            geometry: self.journal.geometry(),
            node: self.node.clone(),
        });
        let schedule = "every 1s".parse().expect("good");
        BatchCore::new(BatchOptions::new(schedule, self.dir.path().join("spool")), self.journal.clone(), link)
    }

    /// Every record in the depot.
    fn restored(&self) -> Vec<Vec<u8>> {
        let depot = Depot::find(&self.depot(), "log").expect("one");
        assert!(depot.verify().expect("reads").is_good());
        let catalogue = depot.catalogue().expect("reads");
        let wanted = Wanted { point: Point::Latest, epoch: None };
        let plan = archive::plan(Some(&catalogue), None, &wanted).expect("whole");
        let mut source = Source::new(&plan, None);
        let mut records = Vec::new();
        while let Some(entry) = source.next_entry().expect("verifies") {
            if entry.header.kind == Some(Kind::Data) {
                records.push(entry.payload.to_vec());
            }
        }
        records
    }
}

/// A server that keeps a depot, and nothing else, until the test ends.
fn serve(root: &Path, security: Security) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let room = Arc::new(Room(root.to_owned()));
    let rooms = Rooms { streams: room.clone(), depots: Some(room), copies: None };
    let server = Server::start(listener, security, rooms).expect("starts");
    let address = server.address();
    std::mem::forget(server);
    address
}

struct Room(PathBuf);

impl Depots for Room {
    fn serve(&self, hello: DepotHello, _: &Origin, dialogue: Dialogue) {
        // how it ended is seen in the depot and on the other side
        let _ = serve_depot(&self.0, &hello, dialogue);
    }
}

impl Streams for Room {
    fn stream(&self, _: &Greeting, _: &Origin) -> Result<Arc<ReceiverStream>, Refusal> {
        Err(Refusal::NotReceiver { role: "a depot".into() })
    }
}

/// Passes connections on to `to`; the n-th is cut after `limits[n]` bytes towards it, later ones never.
fn breaking(to: SocketAddr, limits: Vec<usize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let next = Arc::new(AtomicUsize::new(0));
    thread::spawn(move || {
        for near in listener.incoming() {
            let near = near.expect("accepts");
            let far = TcpStream::connect(to).expect("listens");
            let limit = limits.get(next.fetch_add(1, Ordering::Relaxed)).copied().unwrap_or(usize::MAX);
            let (mut back_from, mut back_to) =
                (far.try_clone().expect("a socket"), near.try_clone().expect("a socket"));
            thread::spawn(move || {
                // ends with either side
                let _ = io::copy(&mut back_from, &mut back_to);
                let _ = back_to.shutdown(Shutdown::Both);
            });
            thread::spawn(move || pass(near, far, limit));
        }
    });
    address
}

fn pass(mut from: TcpStream, mut to: TcpStream, limit: usize) {
    let mut left = limit;
    let mut buffer = [0; 4096];
    while left > 0 {
        let Ok(bytes) = from.read(&mut buffer[..left.min(4096)]) else { break };
        if bytes == 0 || to.write_all(&buffer[..bytes]).is_err() {
            break;
        }
        left -= bytes;
    }
    // both sides learn of it; one of them may have closed already
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

fn plain() -> Security {
    Security::Plaintext { anywhere: false }
}

fn secs(seconds: u64) -> Time {
    Time::from_nanos(1_700_000_000_000_000_000 + seconds * 1_000_000_000)
}

fn turn(core: &mut BatchCore<Journal, impl DepotLink>, now: Time) -> ShipStatus {
    core.turn(now, &Stop::new(), &mut |_| {});
    core.status().clone()
}

/// Turns on a network that is good from now on: until the depot has noticed that the last connection is gone. How many.
fn last_turns(core: &mut BatchCore<Journal, impl DepotLink>) -> (ShipStatus, usize) {
    for turns in 1.. {
        let status = turn(core, secs(1_000_000 * turns as u64));
        match &status.last_error {
            None => return (status, turns),
            Some(error) => assert!(error.contains("another connection feeds"), "{error}"),
        }
    }
    unreachable!("it turns for ever")
}

#[test]
fn a_batch_arrives_over_connections_that_break() {
    let scene = Scene::new();
    let records = scene.append(120);
    let cuts = vec![0, 50, 300, 20_000, 300_000, 700_000];
    let attempts = cuts.len();
    let address = breaking(serve(&scene.depot(), plain()), cuts);
    let mut core = scene.core(address, plain());
    for attempt in 0..attempts {
        let status = turn(&mut core, secs(1000 * attempt as u64));
        assert!(status.last_error.is_some(), "attempt {attempt}: {status:?}");
        assert_eq!(status.batches, 0);
    }
    let (status, _) = last_turns(&mut core);
    assert_eq!((status.shipped, status.batches), (Some(core.safe()), 1));
    assert_eq!(scene.restored(), records);
}

/// Counts what goes by, so that a resumed upload can be told from one that began anew.
#[test]
fn what_has_arrived_is_not_sent_again() {
    let scene = Scene::new();
    scene.append(120);
    let counted = Arc::new(Mutex::new(Vec::new()));
    let behind = serve(&scene.depot(), plain());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let counts = counted.clone();
    thread::spawn(move || {
        for (index, near) in listener.incoming().enumerate() {
            let near = near.expect("accepts");
            let far = TcpStream::connect(behind).expect("listens");
            let (mut back_from, mut back_to) =
                (far.try_clone().expect("a socket"), near.try_clone().expect("a socket"));
            let back = thread::spawn(move || {
                let _ = io::copy(&mut back_from, &mut back_to);
                let _ = back_to.shutdown(Shutdown::Both);
            });
            let (mut from, mut to) = (near, far);
            let limit = if index == 0 { 600_000 } else { u64::MAX };
            let sent = io::copy(&mut (&mut from).take(limit), &mut to).unwrap_or(limit);
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
            let _ = back.join();
            counts.lock().expect("own").push(sent);
        }
    });
    let mut core = scene.core(address, plain());
    assert!(turn(&mut core, secs(0)).last_error.is_some());
    let (status, turns) = last_turns(&mut core);
    // the connections behind the first brought the rest alone
    let whole = status.file_bytes;
    let first = 600_000;
    while counted.lock().expect("own").len() < 1 + turns {
        thread::yield_now();
    }
    let counts = counted.lock().expect("own").clone();
    assert!(counts[1..].iter().sum::<u64>() < whole - first / 2, "{counts:?} of {whole}");
}

#[test]
fn only_members_ship() {
    let scene = Scene::new();
    let records = scene.append(3);
    let at = |name: &str| scene.dir.path().join(name);
    for (ca, names) in [("ca", vec!["a", "dr"]), ("strangers", vec!["x"])] {
        pki::init(&at(ca)).expect("a ca");
        for name in names {
            pki::issue(&at(ca), name, &["127.0.0.1".into()], &at(name)).expect("a certificate");
        }
    }
    let tls = |name: &str| Security::Tls(Tls::from_dir(&at(name)).expect("whole"));
    let address = serve(&scene.depot(), tls("dr"));
    for stranger in [tls("x"), plain()] {
        let status = turn(&mut scene.core(address, stranger), secs(0));
        assert!(status.last_error.is_some() && status.batches == 0, "{status:?}");
    }
    assert!(!scene.depot().exists(), "nothing touches the disk before authentication");
    let status = turn(&mut scene.core(address, tls("a")), secs(0));
    assert_eq!(status.last_error, None);
    assert_eq!(scene.restored(), records);
}

#[test]
fn a_depot_that_says_no_is_heard() {
    let scene = Scene::new();
    scene.append(1);
    let address = serve(&scene.depot(), plain());
    turn(&mut scene.core(address, plain()), secs(0));
    let stranger = Scene::new();
    stranger.append(1);
    let mut link = NodeLink::new(NodeLinkOptions {
        address: address.to_string(),
        tls_name: None,
        security: plain(),
        stream: scene.journal.stream(),
        stream_name: "log".into(),
        geometry: scene.journal.geometry(),
        node: stranger.node.clone(),
    });
    let error = link.open(TermSeen::default()).expect_err("an older term");
    assert_eq!(error.class(), journal::Class::Fenced, "{error}");
}
