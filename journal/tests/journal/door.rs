//! The public door before callers who come at the worst moment, or with what they must not hand in.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use journal::testing::{Call, SimDisk};
use journal::{
    Board, Class, Flags, Host, Item, Journal, Kind, Level, Lsn, NodeId, Rebuild, Role, StreamId, Term, TermSeen,
};

use crate::hooks::hooked;
use crate::host::{TestClock, folder, options};
use crate::lifecycle::{create, records, small, start_run};
use crate::waiters::block_on;

const MOMENT: Duration = Duration::from_secs(60);

/// An entry of a kind that is the journal's own, or with a flag that every reader must understand, was taken,
/// acknowledged, and verified by no reader: the log could not be opened again.
#[test]
fn an_item_that_no_reader_would_accept_is_refused_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    let large = vec![7; journal.geometry().payload_bytes_max() + 1];
    let large: [&[u8]; 1] = [&large];
    let plain = Item::record(&[b"x"]);
    let items = [
        Item { kind: Kind::Pad, ..plain },
        Item { kind: Kind::Epoch, ..plain },
        Item { kind: Kind::Clock, ..plain },
        Item { flags: Flags(0x8000), ..plain },
        Item { flags: Flags::FIRST, ..plain },
        Item { kind: Kind::Mark, ..Item::record(&large) },
    ];
    for item in items {
        for appended in [journal.append(item), journal.append_many(&[plain, item])] {
            let error = appended.unwrap_err();
            assert_eq!(error.class(), Class::Usage, "{error}");
        }
    }
    journal.append(Item::record(&[b"after"])).unwrap().durable().unwrap();
    drop(journal);
    let journal = Journal::open(dir.path(), small()).unwrap();
    assert_eq!(records(&journal), [b"after"]);
}

/// Somebody else's record behind it met the end of the stream: the one that was written long before was called lost.
#[test]
fn what_is_written_is_said_to_be_written_also_after_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    let kept = journal.append(Item::record(&[b"written before"])).unwrap();
    kept.written().unwrap();
    let late = journal.append(Item::record(&[b"staged, and then the end came"])).unwrap();
    journal.fence(TermSeen { term: Term(7), id: 7 }).unwrap();
    assert_eq!(kept.written().unwrap(), kept.lsn());
    assert_eq!(late.written().unwrap_err().class(), Class::Fenced);
}

/// The cut took the record; another one that comes to stand there is not it.
#[test]
fn a_ticket_of_a_cut_tail_is_never_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    let kept = journal.append(Item::record(&[b"kept"])).unwrap();
    let to = journal.sync().unwrap().lsn();
    let cut = journal.append(Item::record(&[b"cut"])).unwrap();
    let durable = cut.durable().unwrap();
    let staged = journal.append(Item::record(&[b"cut too"])).unwrap();
    journal.cut(to).unwrap();
    start_run(&journal);
    for _ in 0..9 {
        journal.append(Item::record(&[b"of another history"])).unwrap();
    }
    assert!(journal.sync().unwrap().covers(durable.lsn));
    for ticket in [&cut, &staged] {
        for level in [Level::Written, Level::Durable] {
            assert_eq!(ticket.wait(level, MOMENT).unwrap_err().class(), Class::NotReached);
            assert_eq!(block_on(ticket.level(level)).unwrap_err().class(), Class::NotReached);
        }
        assert_eq!(ticket.written().unwrap_err().class(), Class::NotReached);
    }
    assert_eq!(kept.wait(Level::Durable, MOMENT).unwrap().lsn, kept.lsn());
}

/// A position that was wanted and never came (a cut took what stood there) kept the flush thread from everything else.
#[test]
fn evidence_is_synced_also_when_a_sync_is_wanted_that_never_comes() {
    let (dir, disk) = (folder(), SimDisk::default());
    let options = options(&disk, &TestClock::default());
    let journal =
        Journal::create(&dir.path().join("j"), StreamId::random(), NodeId::random(), Role::Primary, options).unwrap();
    start_run(&journal);
    journal.append(Item::record(&[b"x"])).unwrap().durable().unwrap();
    journal.board().want_sync(Lsn::new(1 << 20));
    journal.spawn_flusher().unwrap();
    let begun = Instant::now();
    while disk.is_dirty() {
        assert!(begun.elapsed() < MOMENT, "the evidence is not synced");
        std::thread::yield_now();
    }
}

/// A task that waits for no more than `written` had to wait for the flush thread, and that for its sync.
#[test]
fn a_task_is_told_what_is_written_beside_a_sync_that_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let (closed, began) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let gate = (Arc::clone(&closed), Arc::clone(&began));
    let options = hooked(move |call| {
        while call == Call::Sync && gate.0.load(Ordering::Acquire) {
            gate.1.store(true, Ordering::Release);
            std::thread::yield_now();
        }
    });
    let journal = Journal::create(dir.path(), StreamId::random(), NodeId::random(), Role::Primary, options).unwrap();
    start_run(&journal);
    journal.append(Item::record(&[b"first"])).unwrap().durable().unwrap();
    closed.store(true, Ordering::Release);
    let syncing = journal.append(Item::record(&[b"waits for the disk"])).unwrap();
    std::thread::scope(|scope| {
        let syncer = scope.spawn(|| syncing.durable().unwrap());
        while !began.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        let ticket = journal.append(Item::record(&[b"waits for nobody"])).unwrap();
        let polled = pin!(ticket.level(Level::Written)).poll(&mut Context::from_waker(Waker::noop()));
        closed.store(false, Ordering::Release);
        assert!(matches!(polled, Poll::Ready(Ok(ack)) if ack.level == Level::Written), "{polled:?}");
        syncer.join().unwrap();
    });
}

/// A thread may panic in the middle of a write: in the program's own storage, or in whatever listens to the log's events.
/// What it had taken to be written was forgotten, and the next group was written to its place and acknowledged.
#[test]
fn a_panic_in_the_middle_ends_the_stream_and_what_was_acknowledged_is_there() {
    for call in [Call::Write, Call::Sync] {
        let dir = tempfile::tempdir().unwrap();
        let armed = Arc::new(AtomicBool::new(false));
        let trigger = Arc::clone(&armed);
        let options = hooked(move |now| {
            if now == call && trigger.swap(false, Ordering::AcqRel) {
                panic!("as told");
            }
        });
        let journal =
            Journal::create(dir.path(), StreamId::random(), NodeId::random(), Role::Primary, options).unwrap();
        start_run(&journal);
        let mut acknowledged = Vec::new();
        let mut append = |text: &'static [u8]| {
            if journal.append(Item::record(&[text])).is_ok_and(|ticket| ticket.wait(Level::Durable, MOMENT).is_ok()) {
                acknowledged.push(text.to_vec());
            }
        };
        append(b"before");
        armed.store(true, Ordering::Release);
        std::panic::catch_unwind(AssertUnwindSafe(|| append(b"in the middle"))).unwrap_err();
        append(b"after");
        assert_eq!(acknowledged, [b"before"]);
        assert!(journal.board().ended().is_some(), "whoever looks is told");
        drop(journal);
        let found = records(&Journal::open(dir.path(), small()).unwrap());
        assert!(found.starts_with(&acknowledged), "{found:?}");
    }
}

/// The same in the flush thread: a task that leaves the syncing to it is answered.
#[test]
fn a_panic_of_the_flush_thread_is_told_to_those_who_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let armed = Arc::new(AtomicBool::new(false));
    let trigger = Arc::clone(&armed);
    let options = hooked(move |call| {
        if call == Call::Sync && trigger.swap(false, Ordering::AcqRel) {
            panic!("as told");
        }
    });
    let journal = Journal::create(dir.path(), StreamId::random(), NodeId::random(), Role::Primary, options).unwrap();
    start_run(&journal);
    let ticket = journal.append(Item::record(&[b"x"])).unwrap();
    armed.store(true, Ordering::Release);
    let error = block_on(ticket.level(Level::Durable)).unwrap_err();
    assert_eq!(error.class(), Class::Io, "{error}");
}

/// A waker is the program's: it may look at the board as soon as it is called.
#[test]
fn a_waker_that_looks_at_the_board_stops_nobody() {
    struct Look(Arc<Board>);
    impl Wake for Look {
        fn wake(self: Arc<Self>) {
            self.0.remote();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    let (done, is_done) = channel();
    std::thread::spawn(move || {
        let waker = Waker::from(Arc::new(Look(Arc::clone(journal.board()))));
        let mut watch = journal.board().watch();
        assert!(watch.poll_changed(&mut Context::from_waker(&waker)).is_pending());
        journal.append(Item::record(&[b"x"])).unwrap().durable().unwrap();
        assert!(watch.poll_changed(&mut Context::from_waker(&waker)).is_ready());
        done.send(()).unwrap();
    });
    is_done.recv_timeout(MOMENT).unwrap();
}

/// No timeout is too long.
#[test]
fn a_watch_waits_as_long_as_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    let mut watch = journal.board().watch();
    journal.append(Item::record(&[b"x"])).unwrap().durable().unwrap();
    assert!(watch.wait(Duration::MAX));
}

/// The handler that names a page that can't be read took a signal that somebody sent for a fault that would come again: the
/// signal was lost to what had handled it before, which in a Rust program is a handler that gives way to the default.
#[test]
fn a_bus_error_that_somebody_sends_takes_its_former_course() {
    const CHILD: &str = "TOWLINE_TEST_CHILD";
    const NAME: &str = "door::a_bus_error_that_somebody_sends_takes_its_former_course";
    if let Some(dir) = std::env::var_os(CHILD) {
        let journal = create(Path::new(&dir));
        start_run(&journal);
        journal.append(Item::record(&[b"x"])).unwrap().durable().unwrap();
        println!("ready");
        loop {
            std::thread::park();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", NAME]).env(CHILD, dir.path()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let pid = child.id().to_string();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.ends_with("ready")));
    let send = || assert!(Command::new("kill").args(["-BUS", &pid]).status().unwrap().success());
    let is_caught = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
        u64::from_str_radix(&caught, 16).unwrap() & 1 << 6 != 0
    };
    assert!(is_caught());
    send();
    let begun = Instant::now();
    while is_caught() && begun.elapsed() < MOMENT {
        std::thread::yield_now();
    }
    let given_way = !is_caught();
    match given_way {
        true => send(),
        false => child.kill().unwrap(),
    }
    let signal = child.wait().unwrap().signal();
    assert!(given_way && signal == Some(7), "{given_way} {signal:?}");
}

/// What can't be looked at was called absent: a place where a new journal may be made.
#[test]
fn a_folder_that_cannot_be_looked_at_is_not_absent() {
    let dir = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| dir.path().join(name));
    symlink(&one, &other).unwrap();
    symlink(&other, &one).unwrap();
    let error = Journal::open(&one, small()).unwrap_err();
    assert_eq!(error.class(), Class::Io, "{error}");
    let error = Rebuild::plan(&one, None, Host::default()).unwrap_err();
    assert_eq!(error.class(), Class::Io, "{error}");
    let inside = dir.path().join("journal");
    std::fs::create_dir(&inside).unwrap();
    symlink(&one, inside.join("control")).unwrap();
    let error = Journal::open(&inside, small()).unwrap_err();
    assert_eq!(error.class(), Class::Io, "{error}");
}
