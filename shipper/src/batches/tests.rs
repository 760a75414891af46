mod next_cut;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use archive::{Catalogue, Coverage, Depot, Finished, Point, Source, Wanted};
use journal::{
    Chain, Cursor, Geometry, Item, Journal, Kind, Lsn, NodeId, Options, Reason, Remote, Role, RunOpening, StreamId,
    Term, TermSeen, Time, Tip,
};
use tempfile::TempDir;
use wire::{DepotState, Place};

use super::*;

const STREAM: StreamId = StreamId::from_bytes([5; 16]);

/// A node's folder, its journal and a depot beside it.
struct Scene {
    dir: TempDir,
    journal: Journal,
}

fn create(dir: &Path, role: Role) -> Journal {
    let geometry = Geometry::new(64 << 10).expect("smallest");
    let options = Options { geometry, ..Options::default() };
    Journal::create(dir, STREAM, NodeId::random(), role, options).expect("an empty folder")
}

fn open_run(journal: &Journal, promote: Option<TermSeen>) {
    let reason = if promote.is_some() { Reason::Promoted } else { Reason::Created };
    journal.open_run(RunOpening { promote, reason, policy: Vec::new() }).expect("opens");
}

/// Appends and syncs; returns the end.
fn append(journal: &Journal, records: &[&str]) -> Lsn {
    for record in records {
        journal.append(Item::record(&[record.as_bytes()])).expect("appends");
    }
    journal.write().expect("writes");
    journal.sync().expect("syncs").lsn()
}

/// What the required peers have promised.
fn promise(journal: &Journal, promised: Lsn) {
    journal.board().set_remote(Remote { promised, ..Remote::default() });
}

impl Scene {
    fn new() -> Scene {
        let dir = TempDir::new().expect("temp");
        let journal = create(&dir.path().join("a"), Role::Primary);
        open_run(&journal, None);
        promise(&journal, Lsn::MAX);
        Scene { dir, journal }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("depot")
    }

    fn folder(&self) -> FolderLink {
        FolderLink::new(&self.root(), "log", STREAM)
    }

    fn options(&self, schedule: &str) -> BatchOptions {
        BatchOptions::new(schedule.parse().expect("good"), self.dir.path().join("spool"))
    }

    fn core(&self, schedule: &str) -> BatchCore<Journal, FolderLink> {
        BatchCore::new(self.options(schedule), self.journal.clone(), self.folder())
    }

    fn catalogue(&self) -> Catalogue {
        Depot::create(&self.root(), "log", STREAM).expect("there").catalogue().expect("reads")
    }

    /// Every record on the depot's newest line.
    fn restored(&self) -> Vec<String> {
        let catalogue = self.catalogue();
        let wanted = Wanted { point: Point::Latest, epoch: None };
        let plan = archive::plan(Some(&catalogue), None::<&Coverage>, &wanted).expect("whole");
        let mut source = Source::new(&plan, None);
        let mut records = Vec::new();
        while let Some(entry) = source.next_entry().expect("verifies") {
            if entry.header.kind == Some(Kind::Data) {
                records.push(String::from_utf8(entry.payload.to_vec()).expect("text"));
            }
        }
        records
    }
}

fn secs(seconds: u64) -> Time {
    Time::from_nanos(1_700_000_000_000_000_000 + seconds * 1_000_000_000)
}

/// One turn; the status afterwards.
fn turn<L: BatchLog, D: DepotLink>(core: &mut BatchCore<L, D>, now: Time) -> ShipStatus {
    core.turn(now, &Stop::new(), &mut |_| {});
    core.status().clone()
}

#[test]
fn batches_follow_the_schedule_and_stop_at_the_commit_point() {
    let scene = Scene::new();
    let one = append(&scene.journal, &["one"]);
    let mut core = scene.core("every 10s");
    let status = turn(&mut core, secs(0));
    assert_eq!((status.shipped, status.batches, status.next_due), (Some(one), 1, Some(secs(10))));
    promise(&scene.journal, one);
    let three = append(&scene.journal, &["two", "three"]);
    assert_eq!(turn(&mut core, secs(9)).shipped, Some(one), "not due");
    assert_eq!(turn(&mut core, secs(10)).shipped, Some(one), "nothing more is committed");
    promise(&scene.journal, Lsn::new(three.get() - 1));
    let two = turn(&mut core, secs(20)).shipped.expect("known");
    assert!(one < two && two < three, "only what ends below the commit point: {two}");
    promise(&scene.journal, Lsn::MAX);
    assert_eq!(turn(&mut core, secs(29)).shipped, Some(two));
    assert_eq!(turn(&mut core, secs(30)).shipped, Some(three));
    assert_eq!(turn(&mut core, secs(40)).batches, 3, "none when there is nothing");
    assert_eq!(scene.restored(), ["one", "two", "three"]);
    assert_eq!(std::fs::read_dir(scene.dir.path().join("spool")).expect("there").count(), 0);
}

/// A restart neither ships early nor forgets what was missed: the depot's last entry says when the schedule goes on.
#[test]
fn a_schedule_goes_on_across_restarts() {
    let scene = Scene::new();
    let one = append(&scene.journal, &["one"]);
    let last = scene.journal.written_tip().time;
    let after = |seconds| last.saturating_add(Duration::from_secs(seconds));
    turn(&mut scene.core("every 600s"), last);
    let two = append(&scene.journal, &["two"]);
    let mut early = scene.core("every 600s");
    let status = turn(&mut early, after(300));
    assert_eq!((status.shipped, status.shipped_time), (Some(one), Some(last)));
    assert_eq!(status.next_due, Some(after(600)));
    for (schedule, at, wanted) in [("0 2 * * * UTC", 0, one), ("0 2 * * * UTC", 86_400, two)] {
        assert_eq!(turn(&mut scene.core(schedule), after(at)).shipped, Some(wanted), "{schedule} {at}");
    }
    let three = append(&scene.journal, &["three"]);
    assert_eq!(turn(&mut scene.core("every 600s"), after(7200)).shipped, Some(three), "due long ago");
}

#[test]
fn a_request_ships_now_and_waits_for_the_commit() {
    let scene = Scene::new();
    promise(&scene.journal, Lsn::ZERO);
    let end = append(&scene.journal, &["one"]);
    let mut core = scene.core("0 2 * * * UTC");
    assert_eq!(turn(&mut core, secs(0)).shipped, Some(Lsn::ZERO), "asked, but nothing is due");
    core.request(end);
    assert_eq!(turn(&mut core, secs(1)).shipped, Some(Lsn::ZERO), "not committed");
    promise(&scene.journal, Lsn::MAX);
    assert_eq!(turn(&mut core, secs(2)).shipped, Some(end), "what was asked for stays asked for");
    append(&scene.journal, &["two"]);
    assert_eq!(turn(&mut core, secs(3)).shipped, Some(end), "and is done with then");
    promise(&scene.journal, scene.journal.board().durable());
    let partly = scene.journal.board().durable();
    let all = append(&scene.journal, &["three"]);
    core.request(all);
    assert_eq!(turn(&mut core, secs(4)).shipped, Some(partly));
    promise(&scene.journal, Lsn::MAX);
    assert_eq!(turn(&mut core, secs(5)).shipped, Some(all), "the rest of it too");
}

#[test]
fn a_long_range_becomes_several_batches() {
    let scene = Scene::new();
    let record = "x".repeat(10_000);
    let end = append(&scene.journal, &[record.as_str(); 40]);
    let options = BatchOptions { batch_bytes: 100_000, ..scene.options("every 1s") };
    let mut core = BatchCore::new(options, scene.journal.clone(), scene.folder());
    let status = turn(&mut core, secs(0));
    assert_eq!(status.shipped, Some(end));
    assert!((3..=5).contains(&status.batches), "{}", status.batches);
    assert_eq!((status.raw_bytes, status.shipping_to), (end.get(), None));
    assert!(status.file_bytes < status.raw_bytes / 10);
    assert_eq!(scene.restored().len(), 40);
}

/// A link that fails as often as it is told, and notes what it was offered.
#[derive(Debug)]
struct Shaky {
    inner: FolderLink,
    failures: Arc<Mutex<Vec<ShipError>>>,
    offered: Arc<Mutex<Vec<[u8; 32]>>>,
}

impl DepotLink for Shaky {
    fn open(&mut self, own: TermSeen) -> Result<DepotState, ShipError> {
        self.inner.open(own)
    }

    fn store(&mut self, batch: &Finished, stop: &Stop) -> Result<Place, ShipError> {
        self.offered.lock().expect("own").push(batch.file_hash);
        match self.failures.lock().expect("own").pop() {
            Some(error) => Err(error),
            None => self.inner.store(batch, stop),
        }
    }

    fn close(&mut self) {
        self.inner.close();
    }
}

#[test]
fn failures_are_retried_later_and_later_with_the_same_bytes() {
    let scene = Scene::new();
    let end = append(&scene.journal, &["one", "two"]);
    let failures = Arc::new(Mutex::new(Vec::new()));
    let offered = Arc::new(Mutex::new(Vec::new()));
    let shaky = || Shaky { inner: scene.folder(), failures: failures.clone(), offered: offered.clone() };
    let fail = |count: usize| {
        let mut failures = failures.lock().expect("own");
        failures.extend((0..count).map(|_| ShipError::Wire(wire::Error::Closed)));
    };
    fail(3);
    let mut core = BatchCore::new(scene.options("every 600s"), scene.journal.clone(), shaky());
    let mut tries = Vec::new();
    for second in 0..30 {
        let before = offered.lock().expect("own").len();
        let status = turn(&mut core, secs(second));
        if offered.lock().expect("own").len() > before {
            tries.push(second);
            assert_eq!(status.last_error.is_some(), tries.len() <= 3, "{status:?}");
        }
    }
    assert_eq!(tries, [0, 1, 3, 7], "1, 2 and 4 s between");
    assert_eq!((core.status().shipped, core.status().batches), (Some(end), 1));
    let hashes = offered.lock().expect("own").clone();
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]));
    // killed while a batch was on its way: the next process sends the same bytes, although more could be shipped
    fail(1);
    append(&scene.journal, &["three"]);
    core.request(Lsn::MAX);
    turn(&mut core, secs(100));
    drop(core);
    let all = append(&scene.journal, &["four"]);
    let mut core = BatchCore::new(scene.options("every 600s"), scene.journal.clone(), shaky());
    core.request(all);
    assert_eq!(turn(&mut core, secs(101)).shipped, Some(all));
    let hashes = offered.lock().expect("own").clone();
    assert_eq!(hashes.len(), 7);
    assert_eq!(hashes[4], hashes[5]);
    assert_eq!(scene.restored(), ["one", "two", "three", "four"]);
    // a request doesn't wait for the retry
    fail(1);
    append(&scene.journal, &["five"]);
    core.request(Lsn::MAX);
    assert!(turn(&mut core, secs(200)).retry_at.is_some());
    core.request(Lsn::MAX);
    assert_eq!(turn(&mut core, secs(200)).last_error, None);
}

/// The budget runs short: it is no reason to knock at a depot that is out of reach more often, and none to forget the
/// schedule, or whoever waits for it.
#[test]
fn a_hurried_batch_waits_for_its_retry_and_leaves_the_schedule_alone() {
    let scene = Scene::new();
    let end = append(&scene.journal, &["one"]);
    let (failures, offered) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let shaky = Shaky { inner: scene.folder(), failures: failures.clone(), offered: offered.clone() };
    let mut core = BatchCore::new(scene.options("every 600s"), scene.journal.clone(), shaky);
    assert_eq!(turn(&mut core, secs(0)).shipped, Some(end));
    failures.lock().expect("own").extend((0..3).map(|_| ShipError::Wire(wire::Error::Closed)));
    let end = append(&scene.journal, &["two"]);
    core.await_cut(1);
    let mut tries = Vec::new();
    for second in 1..30 {
        let before = offered.lock().expect("own").len();
        core.hurry(end);
        let status = turn(&mut core, secs(second));
        assert_eq!((status.next_due, status.cut), (Some(secs(600)), None));
        if offered.lock().expect("own").len() > before {
            tries.push(second);
        }
    }
    assert_eq!(tries, [1, 2, 4, 8], "1, 2 and 4 s between, and nothing more once it is there");
    assert_eq!(core.status().shipped, Some(end));
    assert_eq!(scene.restored(), ["one", "two"]);
    // no more than may be shipped
    promise(&scene.journal, end);
    let more = append(&scene.journal, &["three"]);
    core.hurry(more);
    assert_eq!(turn(&mut core, secs(30)).shipped, Some(end));
}

/// A depot's disk was not mounted: an empty mount point looked like a new depot, and the whole stream went to the wrong
/// disk. What was there once is remembered now, and missed.
#[test]
fn a_depot_that_is_gone_is_not_made_anew() {
    let scene = Scene::new();
    let met = scene.dir.path().join("spools/night.met");
    let link = || scene.folder().remembered_in(&met);
    let core = || BatchCore::new(scene.options("every 1s"), scene.journal.clone(), link());
    let one = append(&scene.journal, &["one"]);
    assert_eq!(turn(&mut core(), secs(0)).shipped, Some(one));
    let away = scene.dir.path().join("away");
    std::fs::rename(scene.root(), &away).expect("unmounted");
    std::fs::create_dir(scene.root()).expect("the mount point");
    append(&scene.journal, &["two"]);
    let mut running = core();
    let status = turn(&mut running, secs(10));
    let said = status.last_error.expect("it is missed");
    for part in [&scene.root(), &met] {
        assert!(said.contains(part.to_str().expect("text")), "{said}");
    }
    assert_eq!(std::fs::read_dir(scene.root()).expect("list").count(), 0, "nothing is made in its place");
    // mounted again, it goes on by itself where it was
    std::fs::remove_dir(scene.root()).expect("empty");
    std::fs::rename(away, scene.root()).expect("mounted");
    running.request(Lsn::MAX);
    assert_eq!(turn(&mut running, secs(20)).last_error, None);
    assert_eq!(scene.restored(), ["one", "two"]);
    // the operator's word makes a new one
    std::fs::remove_dir_all(scene.root()).expect("lost");
    std::fs::remove_file(&met).expect("forgotten");
    let mut anew = core();
    anew.request(Lsn::MAX);
    assert_eq!(turn(&mut anew, secs(30)).last_error, None);
    assert_eq!(scene.restored(), ["one", "two"]);
}

#[test]
fn a_spooled_batch_that_no_longer_fits_is_cut_anew() {
    let scene = Scene::new();
    let one = append(&scene.journal, &["one"]);
    append(&scene.journal, &["two"]);
    let failures = Arc::new(Mutex::new(vec![ShipError::Wire(wire::Error::Closed)]));
    let link = Shaky { inner: scene.folder(), failures, offered: Arc::default() };
    let mut core = BatchCore::new(scene.options("every 600s"), scene.journal.clone(), link);
    assert!(turn(&mut core, secs(0)).last_error.is_some());
    // meanwhile another way brought a part of it there
    let part = receive(&scene.dir.path().join("b"), &scene.journal, one);
    promise(&part, Lsn::MAX);
    let elsewhere = BatchOptions { spool: scene.dir.path().join("other"), ..scene.options("every 1s") };
    assert_eq!(turn(&mut BatchCore::new(elsewhere, part, scene.folder()), secs(0)).shipped, Some(one));
    let three = append(&scene.journal, &["three"]);
    core.request(three);
    let status = turn(&mut core, secs(1));
    assert_eq!((status.last_error, status.shipped), (None, Some(three)));
    assert_eq!(scene.restored(), ["one", "two", "three"]);
}

/// The journal of another node that received a prefix of `from`.
fn receive(dir: &Path, from: &Journal, upto: Lsn) -> Journal {
    let journal = create(dir, Role::Receiver);
    let mut at = Tip::empty(STREAM);
    while at.lsn < upto {
        let bytes = upto.bytes_since(at.lsn) as usize;
        let slice = from.slice(at.lsn, bytes).expect("reads").expect("there");
        let mut cursor = Cursor::new(journal.geometry(), at);
        journal.extend(&cursor.verify(&slice).expect("verifies")).expect("continues");
        at = *cursor.tip();
    }
    journal.sync().expect("syncs");
    journal
}

#[test]
fn a_promoted_node_branches_off_and_the_old_one_is_refused() {
    let scene = Scene::new();
    let shared = append(&scene.journal, &["one", "two"]);
    append(&scene.journal, &["lost"]);
    let mut old = scene.core("every 1s");
    turn(&mut old, secs(0));
    let promoted = receive(&scene.dir.path().join("b"), &scene.journal, shared);
    let second = TermSeen { term: Term(2), id: 22 };
    open_run(&promoted, Some(second));
    promise(&promoted, Lsn::MAX);
    let options = BatchOptions { spool: scene.dir.path().join("spool b"), ..scene.options("every 1s") };
    let mut new = BatchCore::new(options, promoted.clone(), scene.folder());
    let idle = turn(&mut new, secs(1));
    assert_eq!((idle.last_error, idle.batches), (None, 0), "its first entry isn't written yet");
    let end = append(&promoted, &["three"]);
    let status = turn(&mut new, secs(2));
    assert_eq!((status.last_error, status.shipped), (None, Some(end)));
    assert_eq!(scene.restored(), ["one", "two", "three"]);
    append(&scene.journal, &["still writing"]);
    let status = turn(&mut old, secs(3));
    assert!(status.last_error.expect("refused").contains("term 2"), "the old primary stops and says why");
    assert_eq!(scene.restored(), ["one", "two", "three"]);
    let third = append(&promoted, &["four"]);
    assert_eq!(turn(&mut new, secs(4)).shipped, Some(third));
}

#[test]
fn strangers_are_told_why() {
    let scene = Scene::new();
    append(&scene.journal, &["one"]);
    turn(&mut scene.core("every 1s"), secs(0));
    // a second stream under the same id: somebody created it twice
    let twin = create(&scene.dir.path().join("twin"), Role::Primary);
    open_run(&twin, None);
    promise(&twin, Lsn::MAX);
    append(&twin, &["x", "y"]);
    let options = BatchOptions { spool: scene.dir.path().join("spool 2"), ..scene.options("every 1s") };
    let mut core = BatchCore::new(options, twin, scene.folder());
    let error = turn(&mut core, secs(0)).last_error.expect("refused");
    assert!(error.contains("exists twice"), "{error}");
    assert_eq!(scene.restored(), ["one"]);
}

#[test]
fn a_log_that_is_behind_the_depot_says_so() {
    let scene = Scene::new();
    let one = append(&scene.journal, &["one"]);
    append(&scene.journal, &["two"]);
    turn(&mut scene.core("every 1s"), secs(0));
    let behind = receive(&scene.dir.path().join("b"), &scene.journal, one);
    promise(&behind, Lsn::MAX);
    let options = BatchOptions { spool: scene.dir.path().join("spool 2"), ..scene.options("every 1s") };
    let error = turn(&mut BatchCore::new(options, behind, scene.folder()), secs(0)).last_error.expect("refused");
    assert!(error.contains("lost what was durable"), "{error}");
}

/// A depot that says what it is told to say.
#[derive(Debug)]
struct Liar {
    state: DepotState,
    stored: Option<Place>,
    offers: Arc<Mutex<usize>>,
}

impl DepotLink for Liar {
    fn open(&mut self, _own: TermSeen) -> Result<DepotState, ShipError> {
        Ok(self.state)
    }

    fn store(&mut self, batch: &Finished, _stop: &Stop) -> Result<Place, ShipError> {
        *self.offers.lock().expect("own") += 1;
        let last = batch.info.last;
        Ok(self.stored.unwrap_or(Place { lsn: last.lsn, chain: last.chain }))
    }

    fn close(&mut self) {}
}

#[test]
fn another_history_in_the_depot_is_never_continued() {
    let scene = Scene::new();
    let one = append(&scene.journal, &["one"]);
    append(&scene.journal, &["two"]);
    let (tip, term) = (scene.journal.tip_at(one).expect("reads").expect("a boundary"), scene.journal.term_seen());
    let other = Chain::from_u64(tip.chain.get() ^ 1);
    let end = |lsn: u64, chain: Chain| DepotState { end: Some(Place { lsn: Lsn::new(lsn), chain }), term };
    let cases = [
        ("its end", end(one.get(), tip.chain), None, None, 1),
        ("another chain", end(one.get(), other), None, Some("which is not in this node's log"), 0),
        ("inside an entry", end(one.get() - 8, tip.chain), None, Some("which is not in this node's log"), 0),
        ("stored elsewhere", end(one.get(), tip.chain), Some(other), Some("which is not in this node's log"), 1),
    ];
    for (name, state, stored, wanted, offered) in cases {
        let offers = Arc::new(Mutex::new(0));
        let stored = stored.map(|chain| Place { lsn: scene.journal.written_tip().lsn, chain });
        let liar = Liar { state, stored, offers: offers.clone() };
        let mut core = BatchCore::new(scene.options("every 1s"), scene.journal.clone(), liar);
        core.request(Lsn::MAX);
        let status = turn(&mut core, secs(0));
        let error = status.last_error.clone().unwrap_or_default();
        assert_eq!(status.last_error.is_some(), wanted.is_some(), "{name}: {error}");
        assert!(error.contains(wanted.unwrap_or_default()), "{name}: {error}");
        assert_eq!(*offers.lock().expect("own"), offered, "{name}");
        assert_eq!(status.batches, u64::from(wanted.is_none()), "{name}");
    }
}

#[test]
fn a_depot_that_cannot_be_made_is_tried_again() {
    let scene = Scene::new();
    let end = append(&scene.journal, &["one"]);
    std::fs::write(scene.root(), b"a file where the folder should be").expect("writes");
    let mut core = scene.core("every 1s");
    let status = turn(&mut core, secs(0));
    let error = status.last_error.expect("no folder");
    assert!(error.contains("depot"), "{error}");
    assert_eq!(status.shipped, None);
    std::fs::remove_file(scene.root()).expect("removes");
    assert_eq!(turn(&mut core, secs(1)).shipped, Some(end));
}

#[test]
fn the_thread_ships_on_request_and_stops() {
    let scene = Scene::new();
    let end = append(&scene.journal, &["one"]);
    let batches = Batches::spawn(scene.options("0 2 * * * UTC"), scene.journal.clone(), scene.folder(), Time::now);
    let batches = batches.expect("a thread");
    let soon = Some(Instant::now() + Duration::from_millis(1));
    assert!(matches!(batches.wait(end, soon), Err(WaitShipped::Timeout { wanted, .. }) if wanted == end));
    batches.ship_now(end);
    batches.wait(end, None).expect("shipped");
    assert_eq!((batches.owed(), batches.status().batches), (end, 1));
    assert_eq!(scene.restored(), ["one"]);
    let end = append(&scene.journal, &["two"]);
    batches.hurry(end);
    batches.wait_attempt(end, Instant::now() + Duration::from_secs(60)).expect("runs");
    assert_eq!((batches.owed(), batches.status().batches), (end, 2));
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| batches.wait(Lsn::MAX, None));
        batches.tell();
        assert_eq!(waiter.join().expect("ends"), Err(WaitShipped::Stopped));
    });
    batches.stop();
    let soon = Instant::now() + Duration::from_secs(60);
    assert_eq!(batches.wait_attempt(Lsn::MAX, soon), Err(WaitShipped::Stopped));
}
