//! The socket from end to end, with a made-up stream behind it.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use journal::{Class, Epoch, Flags, Holder, Lsn, Term, Time};

use super::*;
use crate::status::NodeStatus;
use crate::stop::Stop;

/// A stream in memory: a record's position is its number; what lies below `reached` is acknowledged.
#[derive(Default)]
struct Made {
    state: Mutex<MadeState>,
    changed: Condvar,
}

#[derive(Default)]
struct MadeState {
    records: Vec<(Flags, Vec<u8>)>,
    groups: Vec<usize>,
    reached: u64,
}

impl Made {
    fn reach(&self, lsn: u64) {
        self.state.lock().expect("whole").reached = lsn;
        self.changed.notify_all();
    }

    fn records(&self) -> Vec<Vec<u8>> {
        self.state.lock().expect("whole").records.iter().map(|(_, payload)| payload.clone()).collect()
    }

    fn wait_records(&self, count: usize) {
        let state = self.state.lock().expect("whole");
        drop(self.changed.wait_while(state, |state| state.records.len() < count).expect("whole"));
    }
}

const LIMIT: usize = 1 << 20;

impl Appender for Made {
    fn record_bytes_max(&self) -> usize {
        LIMIT
    }

    fn append(&self, records: &[Incoming<'_>]) -> Result<Lsn, Failure> {
        let mut state = self.state.lock().expect("whole");
        state.groups.push(records.len());
        state.records.extend(records.iter().map(|(flags, payload)| (*flags, payload.to_vec())));
        self.changed.notify_all();
        Ok(Lsn::new(state.records.len() as u64))
    }

    fn wait(&self, lsn: Lsn, level: Level, patience: &Patience<'_>) -> Result<Reach, Failure> {
        let mut state = self.state.lock().expect("whole");
        while state.reached < lsn.get() {
            if let Err(over) = patience.slice() {
                return Err(Failure::new(Class::Unknown, over.to_string()).at(lsn));
            }
            state = self.changed.wait_timeout(state, Duration::from_millis(5)).expect("whole").0;
        }
        Ok(Reach { level, epoch: Epoch { term: Term(3), run: 2 }, alone: false })
    }
}

struct MadeTailer(Vec<(Flags, Vec<u8>)>, usize);

impl Tailer for MadeTailer {
    fn from(&self) -> Lsn {
        Lsn::ZERO
    }

    fn fill(&mut self, out: &mut Vec<u8>, _: &Patience<'_>) -> Result<bool, Failure> {
        let Some((flags, payload)) = self.0.get(self.1) else { return Ok(false) };
        if payload == b"bad" {
            return Err(Failure::new(Class::Corrupt, "bad"));
        }
        let at = self.1 as u64;
        push_record(out, Lsn::new(at), Lsn::new(at + 1), Time::from_nanos(9), *flags, payload);
        self.1 += 1;
        Ok(true)
    }
}

struct MadeNode(Arc<Made>, Stop);

impl Service for MadeNode {
    fn hold(&self, hold: &Hold) -> Result<(Holder, Lsn), Failure> {
        Err(Failure::new(Class::Absent, format!("no stream {}", hold.stream)))
    }

    fn status(&self, _: &StatusOf) -> Result<NodeStatus, Failure> {
        Ok(NodeStatus { schema: SCHEMA, node: "made up".into(), ..NodeStatus::default() })
    }

    fn wait(&self, wait: &Wait, _: &Patience<'_>) -> Result<Reached, Failure> {
        Err(Failure::new(Class::Absent, format!("no stream {}", wait.stream)).hint("look"))
    }

    fn mark(&self, mark: &Mark, _: &Patience<'_>) -> Result<Marked, Failure> {
        Ok(Marked { name: mark.name.clone(), lsn: 8, level: mark.wait, alone: true })
    }

    fn ship(&self, ship: &Ship, _: &Patience<'_>, waits: &mut dyn FnMut(ShipWaits)) -> Result<Vec<Shipped>, Failure> {
        let Some(stream) = ship.stream.clone() else { return Err(Failure::new(Class::Absent, "no depot")) };
        let depot = || "night".to_owned();
        for missing_bytes in [Some(2), Some(1), None] {
            let stream = stream.clone();
            waits(ShipWaits { stream, depot: depot(), upto: None, due: Some(9), missing_bytes, last_error: None });
        }
        Ok(vec![Shipped { stream, depot: depot(), lsn: 8, had_nothing: true }])
    }

    fn promote(&self, _: &Promote) -> Result<Promoted, Failure> {
        Err(Failure::new(Class::Refused, "no"))
    }

    fn stop(&self) -> Stopping {
        self.1.begin("asked to", Duration::from_secs(10));
        Stopping { pid: 1, data: "/".into() }
    }

    fn appender(&self, append: &Append, _: &Patience<'_>) -> Result<Arc<dyn Appender>, Failure> {
        if append.stream != "log" {
            return Err(Failure::new(Class::Absent, "no such stream"));
        }
        Ok(self.0.clone())
    }

    fn tailer(&self, _: &TailFrom) -> Result<Box<dyn Tailer>, Failure> {
        Ok(Box::new(MadeTailer(self.0.state.lock().expect("whole").records.clone(), 0)))
    }
}

struct Scene {
    folder: tempfile::TempDir,
    made: Arc<Made>,
    stop: Stop,
    server: Option<JoinHandle<()>>,
}

impl Scene {
    fn new() -> Scene {
        let folder = tempfile::tempdir().expect("a folder");
        let (made, stop) = (Arc::new(Made::default()), Stop::new().expect("a signal"));
        let listener = Listener::bind(folder.path()).expect("bind");
        let service: Arc<dyn Service> = Arc::new(MadeNode(made.clone(), stop.clone()));
        let server = thread::spawn({
            let stop = stop.clone();
            move || listener.run(&service, &stop)
        });
        Scene { folder, made, stop, server: Some(server) }
    }

    fn client(&self) -> Client {
        Client::connect(self.folder.path()).expect("connect")
    }

    fn append(&self, timeout_ms: Option<u64>) -> (Sender, Acks) {
        let append = Append { stream: "log".into(), wait: Level::Durable, timeout_ms };
        self.client().append(append).expect("it begins")
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.begin("the test is over", Duration::from_secs(10));
        if let Some(server) = self.server.take() {
            server.join().expect("no panic in the server");
        }
    }
}

fn done(acks: &mut Acks) -> Done {
    loop {
        match acks.next_group().expect("an answer") {
            Some(Done::Acked(_)) => {}
            Some(done) => return done,
            None => panic!("the end came without a last word"),
        }
    }
}

#[test]
fn answers_and_failures_come_back_as_they_are() {
    let scene = Scene::new();
    let mut client = scene.client();
    assert_eq!(client.status(StatusOf::default()).expect("status").node, "made up");
    let mark = Mark { stream: "log".into(), name: "x".into(), wait: Level::Committed, timeout_ms: None };
    assert_eq!(client.mark(mark).expect("a mark").lsn, 8);
    let wait = Wait { stream: "log".into(), until: Until::InSync, lsn: None, timeout_ms: Some(1) };
    let error = client.wait(wait).expect_err("no such stream");
    assert_eq!((error.class(), error.hint().as_deref()), (Class::Absent, Some("look")));
    let mode = std::fs::metadata(socket_path(scene.folder.path())).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_ship_says_what_it_waits_for_before_it_answers() {
    let scene = Scene::new();
    let mut client = scene.client();
    let mut missing = Vec::new();
    let ship = Ship { stream: Some("log".into()), when: ShipWhen::Next, timeout_ms: None };
    let shipped = client.ship(ship.clone(), |waits| missing.push(waits.missing_bytes)).expect("shipped");
    assert_eq!((shipped.len(), shipped[0].lsn, shipped[0].had_nothing), (1, 8, true));
    assert_eq!(missing, [Some(2), Some(1), None]);
    let none = client.ship(Ship { stream: None, ..ship }, |_| panic!("it waits for nothing"));
    assert_eq!(none.expect_err("no depot").class(), Class::Absent);
    // the connection goes on
    assert_eq!(client.status(StatusOf::default()).expect("status").node, "made up");
}

#[test]
fn nobody_there_is_said_as_such() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(Client::connect(folder.path()).expect_err("no node").class(), Class::Io);
    assert_eq!(Client::connect(Path::new("/no/such/folder")).expect_err("no folder").class(), Class::Absent);
}

#[test]
fn a_lone_record_is_acknowledged_before_the_next_is_sent() {
    let scene = Scene::new();
    scene.made.reach(u64::MAX);
    let (mut sender, mut acks) = scene.append(None);
    for count in 1..=3 {
        sender.send(b"x", Flags::NONE).expect("sent");
        sender.flush().expect("flushed");
        match acks.next_group().expect("an answer") {
            Some(Done::Acked(acked)) => {
                assert_eq!((acked.count, acked.lsn, acked.term, acked.run), (count, count, 3, 2))
            }
            other => panic!("{other:?}"),
        }
    }
    sender.finish().expect("finished");
    assert!(matches!(done(&mut acks), Done::Done(acked) if acked.count == 3));
    assert_eq!(acks.next_group().expect("the end"), None);
}

#[test]
fn nothing_at_all_is_acknowledged_as_nothing() {
    let scene = Scene::new();
    let (sender, mut acks) = scene.append(None);
    sender.finish().expect("finished");
    assert!(matches!(done(&mut acks), Done::Done(acked) if acked.count == 0 && acked.lsn == 0));
}

#[test]
fn records_of_every_size_arrive_in_order_and_in_groups() {
    let scene = Scene::new();
    scene.made.reach(u64::MAX);
    let sizes = [0, 1, 7, 300_000, LIMIT, 0, 5].into_iter().cycle().take(700);
    let payloads: Vec<Vec<u8>> =
        sizes.enumerate().map(|(at, size)| vec![at as u8; if at > 14 { size % 4096 } else { size }]).collect();
    let (mut sender, mut acks) = scene.append(None);
    let listening = thread::spawn(move || done(&mut acks));
    for payload in &payloads {
        sender.send(payload, Flags::UNTERMINATED).expect("sent");
    }
    sender.finish().expect("finished");
    let last = listening.join().expect("no panic");
    assert!(matches!(last, Done::Done(acked) if acked.count == 700 && acked.lsn == 700), "{last:?}");
    assert!(scene.made.records() == payloads);
    let state = scene.made.state.lock().expect("whole");
    assert!(state.records.iter().all(|(flags, _)| *flags == Flags::UNTERMINATED));
    assert!(state.groups.len() < 700, "whatever arrived is one append: {} appends", state.groups.len());
}

#[test]
fn nothing_is_acknowledged_before_it_is_reached() {
    let scene = Scene::new();
    scene.made.reach(1);
    let (mut sender, mut acks) = scene.append(Some(50));
    sender.send(b"reached", Flags::NONE).expect("sent");
    sender.flush().expect("flushed");
    assert!(matches!(acks.next_group().expect("an answer"), Some(Done::Acked(acked)) if acked.count == 1));
    sender.send(b"not reached", Flags::NONE).expect("sent");
    sender.flush().expect("flushed");
    match done(&mut acks) {
        Done::Error(failure) => assert_eq!((failure.class(), failure.lsn), (Class::Unknown, Some(2))),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_record_above_the_limit_harms_nothing_before_it() {
    let scene = Scene::new();
    scene.made.reach(u64::MAX);
    let (mut sender, mut acks) = scene.append(None);
    sender.send(b"before", Flags::NONE).expect("sent");
    sender.send(&vec![0; LIMIT + 1], Flags::NONE).and_then(|()| sender.flush()).ok();
    match done(&mut acks) {
        Done::Error(failure) => assert_eq!(failure.class(), Class::Usage, "{failure}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(scene.made.records(), [b"before"]);
}

#[test]
fn half_a_record_is_dropped() {
    let scene = Scene::new();
    let mut socket = UnixStream::connect(socket_path(scene.folder.path())).expect("connect");
    let request = br#"{"schema":1,"command":{"append":{"stream":"log","wait":"written","timeout_ms":null}}}"#;
    socket.write_all(request).expect("sent");
    let whole = FrameHead { kind: FrameKind::Record, flags: Flags::NONE, body_bytes: 2 };
    // the first frames come along with the request
    socket.write_all(&[b"\n", &whole.encode()[..], b"ab", &whole.encode()[..], b"c"].concat()).expect("sent");
    scene.made.wait_records(1);
    socket.shutdown(std::net::Shutdown::Write).expect("half closed");
    scene.made.reach(1);
    let mut said = String::new();
    socket.read_to_string(&mut said).expect("the end");
    assert!(said.starts_with("{\"ok\":\"go\"}\n") && !said.contains("done"), "{said}");
    assert_eq!(scene.made.records(), [b"ab"]);
}

#[test]
fn garbage_is_answered_and_ended() {
    let scene = Scene::new();
    for (request, class) in [
        (&b"hello\n"[..], "usage"),
        (b"{\"schema\":99,\"command\":\"dance\"}\n", "incompatible"),
        (b"{\"schema\":1,\"command\":\"dance\"}\n", "usage"),
        (&[b'x'; 70_000], "usage"),
    ] {
        let mut socket = UnixStream::connect(socket_path(scene.folder.path())).expect("connect");
        // the server may stop reading before everything is written
        let _ = socket.write_all(request);
        let mut said = String::new();
        let _ = socket.read_to_string(&mut said);
        assert!(said.contains(&format!("\"class\":\"{class}\"")), "{said}");
    }
}

#[test]
fn records_come_back_until_the_end_or_a_failure() {
    let scene = Scene::new();
    let all = [(Flags::NONE, b"one".to_vec()), (Flags::UNTERMINATED, Vec::new())];
    scene.made.state.lock().expect("whole").records = all.to_vec();
    let tail = || TailFrom { stream: "log".into(), from: From::Start, follow: false };
    let mut records = scene.client().tail(tail()).expect("a tail");
    for (at, (flags, payload)) in all.iter().enumerate() {
        let record = records.next_record().expect("no error").expect("a record");
        assert_eq!((record.first.get(), record.flags, record.payload), (at as u64, *flags, &payload[..]));
        assert_eq!((record.end.get(), record.time), (at as u64 + 1, Time::from_nanos(9)));
    }
    assert_eq!(records.next_record().expect("no error"), None);
    scene.made.state.lock().expect("whole").records.push((Flags::NONE, b"bad".to_vec()));
    let mut records = scene.client().tail(tail()).expect("a tail");
    for _ in 0..2 {
        records.next_record().expect("no error").expect("a record");
    }
    assert_eq!(records.next_record().expect_err("a failure").class(), Class::Corrupt);
}

#[test]
fn stopping_acknowledges_what_was_taken_and_says_why_it_ends() {
    let scene = Scene::new();
    let (mut sender, mut acks) = scene.append(None);
    sender.send(b"under way", Flags::NONE).expect("sent");
    sender.flush().expect("flushed");
    scene.made.wait_records(1);
    scene.client().stop().expect("it stops");
    scene.made.reach(1);
    let mut last = None;
    while let Some(done) = acks.next_group().expect("an answer") {
        last = Some((last.map(|(_, done)| done), done));
        if let Some((before, Done::Error(failure))) = &last {
            assert!(matches!(before, Some(Done::Acked(acked)) if acked.count == 1), "{before:?}");
            assert!(failure.message.contains("stopping"), "{failure}");
            return;
        }
    }
    panic!("it ended without a last word");
}
