use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::thread;

use archive::{Cut, Finished, Outbox, Writer as BatchWriter};
use bytes::Bytes;
use journal::{Geometry, Item, Journal, Lsn, NodeId, Options, Reason, Role, RunOpening, StreamId, Term, TermSeen, Tip};
use tempfile::TempDir;
use tokio::io::split;
use wire::{Link, NodeInfo, Reader, Security, own_runtime};

use super::*;

const STREAM: StreamId = StreamId::from_bytes([6; 16]);

struct Scene {
    dir: TempDir,
    journal: Journal,
}

impl Scene {
    fn new() -> Scene {
        let dir = TempDir::new().expect("temp");
        let geometry = Geometry::new(64 << 10).expect("smallest");
        let options = Options { geometry, ..Options::default() };
        let journal = Journal::create(&dir.path().join("a"), STREAM, NodeId::random(), Role::Primary, options);
        let journal = journal.expect("an empty folder");
        let opening = RunOpening { promote: None, reason: Reason::Created, policy: Vec::new() };
        journal.open_run(opening).expect("opens");
        Scene { dir, journal }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("depot")
    }

    fn append(&self, text: &str) -> Tip {
        self.journal.append(Item::record(&[text.as_bytes()])).expect("appends");
        self.journal.write().expect("writes");
        self.journal.written_tip()
    }

    fn cut(&self, first: Tip) -> Finished {
        let outbox = Outbox::new(self.dir.path().join(format!("from {}", first.lsn)));
        outbox.clear().expect("makes it");
        let opening = self.journal.history().openings().iter().rev().find(|o| o.first < first.lsn).copied();
        let (geometry, upto) = (self.journal.geometry(), Lsn::MAX);
        let cut = Cut { stream: STREAM, geometry, first, opening, upto, level: 1 };
        let mut writer = BatchWriter::create(&outbox.cutting(), cut).expect("creates");
        let slice = self.journal.slice(first.lsn, 1 << 20).expect("reads").expect("there");
        writer.push(&slice).expect("verifies");
        outbox.keep(writer.finish().expect("has entries")).expect("renames")
    }

    fn hello(&self) -> DepotHello {
        let node = NodeInfo { id: self.journal.node(), name: "a".into(), start_id: 1, boot_id: [0; 16] };
        let (geometry, term) = (self.journal.geometry(), self.journal.term_seen());
        DepotHello { protocol: PROTOCOL, stream: STREAM, stream_name: "log".into(), geometry, node, term }
    }

    fn open(&self) -> (DepotIntake, DepotState) {
        DepotIntake::open(&self.root(), &self.hello()).expect("welcome")
    }
}

fn offer(batch: &Finished) -> BatchOffer {
    BatchOffer { name: batch.info.name().to_string(), bytes: batch.info.file_bytes, hash: batch.file_hash }
}

fn place(tip: Tip) -> Place {
    Place { lsn: tip.lsn, chain: tip.chain }
}

#[test]
fn batches_are_resumed_and_stored_once() {
    let scene = Scene::new();
    scene.append("one");
    let first = scene.append("two");
    let batch = scene.cut(Tip::empty(STREAM));
    let bytes = fs::read(&batch.path).expect("there");
    let offer = offer(&batch);
    let stored = Message::BatchStored { name: offer.name.clone(), end: place(first) };
    let (mut intake, state) = scene.open();
    assert_eq!(state, DepotState::default());
    assert_eq!(intake.offer(&offer).expect("wanted"), Message::BatchHave { offset: 0 });
    assert_eq!(intake.part(0, &bytes[..70]).expect("takes"), None);
    drop(intake);
    // the next connection goes on there
    let (mut intake, state) = scene.open();
    assert_eq!(state, DepotState::default(), "half a batch is none");
    assert_eq!(intake.offer(&offer).expect("wanted"), Message::BatchHave { offset: 70 });
    assert_eq!(intake.part(70, &bytes[70..]).expect("stores"), Some(stored.clone()));
    // offered again, on this connection and on the next
    assert_eq!(intake.offer(&offer).expect("known"), stored);
    let (mut intake, state) = scene.open();
    assert_eq!(state, DepotState { end: Some(place(first)), term: scene.journal.term_seen() });
    assert_eq!(intake.offer(&offer).expect("known"), stored);
    let depot = Depot::find(&scene.root(), "log").expect("one");
    assert_eq!(depot.catalogue().expect("reads").batches().len(), 1);
    assert!(depot.verify().expect("reads").is_good());
}

/// The upload was whole, but the process was killed before it was stored.
#[test]
fn a_whole_upload_is_stored_at_the_next_offer() {
    let scene = Scene::new();
    scene.append("one");
    let batch = scene.cut(Tip::empty(STREAM));
    let bytes = fs::read(&batch.path).expect("there");
    let offer = offer(&batch);
    let (mut intake, _) = scene.open();
    intake.offer(&offer).expect("wanted");
    intake.part(0, &bytes[..10]).expect("takes");
    drop(intake);
    let incoming = Depot::find(&scene.root(), "log").expect("one").folder().join("incoming");
    let part = fs::read_dir(incoming).expect("lists").next().expect("one").expect("reads").path();
    fs::write(part, &bytes).expect("writes");
    let (mut intake, _) = scene.open();
    assert!(matches!(intake.offer(&offer).expect("stores"), Message::BatchStored { .. }));
}

#[test]
fn what_is_not_what_was_offered_is_not_stored() {
    let scene = Scene::new();
    scene.append("one");
    let batch = scene.cut(Tip::empty(STREAM));
    let bytes = fs::read(&batch.path).expect("there");
    let offer = offer(&batch);
    for at in [0, 20, 137, bytes.len() - 1] {
        let (mut intake, _) = scene.open();
        intake.offer(&offer).expect("wanted");
        let mut wrong = bytes.clone();
        wrong[at] ^= 4;
        let error = intake.part(0, &wrong).expect_err("another hash");
        assert_eq!(error.class(), Class::Corrupt, "byte {at}: {error}");
    }
    // honest, under another batch's name
    scene.append("two");
    let longer = scene.cut(Tip::empty(STREAM));
    let longer_bytes = fs::read(&longer.path).expect("there");
    let (mut intake, _) = scene.open();
    let lie = BatchOffer { name: offer.name.clone(), bytes: longer.info.file_bytes, hash: longer.file_hash };
    intake.offer(&lie).expect("wanted");
    assert_eq!(intake.part(0, &longer_bytes).expect_err("another name").class(), Class::Refused);
    let depot = Depot::find(&scene.root(), "log").expect("one");
    assert_eq!(depot.catalogue().expect("reads").batches().len(), 0);
}

#[test]
fn parts_keep_their_order_and_their_bounds() {
    let scene = Scene::new();
    scene.append("one");
    let batch = scene.cut(Tip::empty(STREAM));
    let (mut intake, _) = scene.open();
    assert!(matches!(intake.part(0, b"x"), Err(DepotError::OutOfTurn { .. })), "nothing was offered");
    for (offset, bytes) in [(1, 10), (0, batch.info.file_bytes as usize + 1)] {
        intake.offer(&offer(&batch)).expect("wanted");
        let error = intake.part(offset, &vec![0; bytes]).expect_err("out of bounds");
        assert_eq!(error.class(), Class::Refused);
        assert!(matches!(intake.part(0, b"x"), Err(DepotError::OutOfTurn { .. })), "the upload is over");
    }
    for (name, bytes) in [("../x", 10), (&offer(&batch).name[..], u64::MAX)] {
        let error = intake.offer(&BatchOffer { name: name.into(), bytes, hash: [0; 32] }).expect_err("bounded");
        assert_eq!(error.class(), Class::Refused);
    }
}

#[test]
fn who_may_ship_here() {
    let scene = Scene::new();
    scene.append("one");
    let batch = scene.cut(Tip::empty(STREAM));
    let (mut intake, _) = scene.open();
    intake.offer(&offer(&batch)).expect("wanted");
    intake.part(0, &fs::read(&batch.path).expect("there")).expect("stores");
    let own = scene.journal.term_seen();
    let hello = scene.hello();
    let seen = |term: u32, id: u64| TermSeen { term: Term(term), id };
    let cases: [(&str, DepotHello, Option<Refusal>); 6] = [
        ("a later term", DepotHello { term: seen(2, 9), ..hello.clone() }, None),
        (
            "an earlier term",
            DepotHello { term: seen(0, 0), ..hello.clone() },
            Some(Refusal::Fenced { primary: seen(0, 0), receiver: own }),
        ),
        (
            "the same term of another promotion",
            DepotHello { term: seen(1, own.id ^ 1), ..hello.clone() },
            Some(Refusal::SplitBrain { primary: seen(1, own.id ^ 1), receiver: own }),
        ),
        (
            "another protocol",
            DepotHello { protocol: PROTOCOL + 1, ..hello.clone() },
            Some(Refusal::Protocol { primary: PROTOCOL + 1, receiver: PROTOCOL }),
        ),
        (
            "another segment size",
            DepotHello { geometry: Geometry::default(), ..hello.clone() },
            Some(Refusal::Geometry { primary: Geometry::default().body_bytes(), receiver: 64 << 10 }),
        ),
        ("another stream of that name", DepotHello { stream: StreamId::from_bytes([8; 16]), ..hello.clone() }, None),
    ];
    for (name, hello, wanted) in cases {
        match (DepotIntake::open(&scene.root(), &hello), wanted) {
            (Ok(_), None) => {}
            (Err(DepotError::Refused(found)), Some(wanted)) => assert_eq!(found, wanted, "{name}"),
            (found, wanted) => panic!("{name}: {found:?}, not {wanted:?}"),
        }
    }
    let error =
        DepotIntake::open(&scene.root(), &DepotHello { stream_name: "../x".into(), ..hello }).expect_err("a path");
    assert!(matches!(error.refusal(), Some(Refusal::Unable { reason }) if reason.contains("../x")));
}

/// Both ends of a connection.
fn ends() -> (Dialogue, Dialogue) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let plain = Security::Plaintext { anywhere: false };
    let asks = thread::spawn({
        let plain = plain.clone();
        move || Dialogue::connect(&plain, &address, None).expect("connects")
    });
    let (stream, _) = listener.accept().expect("accepts");
    stream.set_nonblocking(true).expect("a socket");
    let runtime = own_runtime().expect("a runtime");
    let link = runtime.block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream).expect("a socket");
        Link::accept(&plain, stream).await.expect("accepts")
    });
    let peer = link.peer();
    let (read, write) = split(link);
    let serves = Dialogue::resume(runtime, Reader::new(read), write, peer, Vec::new());
    let mut asks = asks.join().expect("no panic");
    asks.open();
    (asks, serves)
}

/// Longer than any answer takes.
const LONG: Duration = Duration::from_secs(30);

#[test]
fn a_connection_from_hello_to_goodbye() {
    let scene = Scene::new();
    let first = scene.append("one");
    let batch = scene.cut(Tip::empty(STREAM));
    let bytes = fs::read(&batch.path).expect("there");
    let (hello, root) = (scene.hello(), scene.root());
    let (mut asks, serves) = ends();
    let served = thread::spawn(move || serve_depot(&root, &hello, serves));
    assert_eq!(asks.receive(LONG).expect("state"), Message::DepotState(DepotState::default()));
    asks.send(&Message::BatchOffer(offer(&batch))).expect("sends");
    assert_eq!(asks.receive(LONG).expect("have"), Message::BatchHave { offset: 0 });
    for (index, part) in bytes.chunks(100).enumerate() {
        let part = Message::BatchPart { offset: index as u64 * 100, bytes: Bytes::copy_from_slice(part) };
        asks.send(&part).expect("sends");
    }
    let stored = Message::BatchStored { name: offer(&batch).name, end: place(first) };
    assert_eq!(asks.receive(LONG).expect("stored"), stored);
    asks.close(Some(&Message::Bye { reason: "done".into() }));
    served.join().expect("no panic").expect("an orderly end");
}

#[test]
fn a_refusal_is_said_before_the_connection_ends() {
    let scene = Scene::new();
    let lies = [
        Message::BatchPart { offset: 0, bytes: Bytes::from_static(b"x") },
        Message::BatchOffer(BatchOffer { name: "/etc/passwd".into(), bytes: 1, hash: [0; 32] }),
        Message::Announce(wire::Announce::default()),
    ];
    for lie in lies {
        let (hello, root) = (scene.hello(), scene.root());
        let (mut asks, serves) = ends();
        let served = thread::spawn(move || serve_depot(&root, &hello, serves));
        assert!(matches!(asks.receive(LONG), Ok(Message::DepotState(_))));
        asks.send(&lie).expect("sends");
        assert!(matches!(asks.receive(LONG), Ok(Message::Refused(Refusal::Unable { .. }))), "{lie:?}");
        asks.close(None);
        served.join().expect("no panic").expect_err("refused");
    }
}
