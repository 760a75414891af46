//! The example of the library, killed again and again: what it has confirmed is there afterwards.

#[path = "../../docs/examples/ledger.rs"]
mod ledger;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Names the folder for the process that is to be killed.
const DIR: &str = "TOWLINE_TEST_LEDGER";
const KILLS: usize = 5;
const BOOKED_BEFORE_KILL: usize = 40;

/// What people run; the child below runs the part that it calls.
const _: fn() -> Result<(), Box<dyn std::error::Error>> = ledger::main;

/// Not a test: the program that the test below kills. Run without its folder it does nothing.
#[test]
fn child() {
    if let Some(dir) = std::env::var_os(DIR) {
        let output = std::io::stdout();
        ledger::run(Path::new(&dir), None, std::io::stdin().lock(), output).expect("a ledger");
    }
}

#[test]
fn what_was_booked_survives_kill_9() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("ledger");
    // every booking has its own amount, so that a lost, doubled or altered one shows in a sum
    let mut next = 1;
    let mut booked: Vec<i64> = Vec::new();
    for _ in 0..KILLS {
        let mut child = start(&dir);
        let mut input = child.stdin.take().expect("a pipe");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let replayed = find(&mut lines, "replayed ");
        let replayed: usize = replayed.split(' ').next().and_then(|count| count.parse().ok()).expect("a count");
        // a booking that was sent and not confirmed may be there or not
        assert!(replayed >= booked.len(), "{replayed} replayed, {} confirmed", booked.len());
        let first = next;
        for _ in 0..BOOKED_BEFORE_KILL {
            writeln!(input, "a{} {next}", next % 3).expect("sent");
            let answer = find(&mut lines, "booked ");
            assert!(answer.contains(" Durable "), "{answer}");
            booked.push(next);
            next += 1;
        }
        // one more is under way when it dies
        writeln!(input, "late {next}").expect("sent");
        child.kill().expect("killed");
        child.wait().expect("gone");
        assert!(next > first);
        next += 1;
    }
    let balances = balances(&dir);
    for account in 0..3 {
        let expected: i64 = booked.iter().filter(|amount| *amount % 3 == account).sum();
        assert_eq!(balances.get(&format!("a{account}")), Some(&expected));
    }
}

/// With a peer a booking is confirmed when it is durable there too: the peer's journal has all of them.
#[test]
fn a_booking_is_durable_at_the_peer_when_it_is_confirmed() {
    let folder = tempfile::tempdir().expect("a folder");
    let there = folder.path().join("there");
    let options = node::Options { listen: Some("127.0.0.1:0".into()), ..node::Options::new(&there) };
    let stop = node::Stop::new().expect("a signal");
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| node::run(options, &stop, |ready| tell.send(ready.clone()).expect("heard")));
        let address = told.recv().expect("it is ready").listen.expect("it listens");
        let mut output = Vec::new();
        let input = &b"a 1\na 2\nnonsense\nb -7\n"[..];
        ledger::run(&folder.path().join("here"), Some(address), input, &mut output).expect("a ledger");
        let output = String::from_utf8(output).expect("text");
        assert_eq!(output.matches(" PeerDurable ").count(), 3, "{output}");
        assert!(output.contains("refused nonsense") && output.contains(" a 3\n"), "{output}");
        // nothing is synced or sent any more: what was confirmed is there
        stop.begin("the test is over", Duration::from_secs(10));
        receiver.join().expect("no panic").expect("it ends in order");
    });
    let journal = towline::Journal::open(&there.join("streams/ledger/journal"), Default::default()).expect("a journal");
    assert_eq!(towline::records(&journal, journal.start()).expect("records").count(), 3);
}

/// Nobody calls an embedded stream now and then: it gives up by itself what lies in its depot, names a depot that lags, and
/// its thread ends with it.
#[test]
fn an_embedded_stream_looks_after_its_destinations_itself() {
    use towline::{AtBudget, Depot, Geometry, Journal, Lsn, Options, Retain, Stream};
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, night) = (folder.path().join("log"), folder.path().join("night"));
    let options = || Options {
        geometry: Geometry::new(64 << 10).expect("a size"),
        budget_bytes: 4 << 20,
        retain: Some(Retain { bytes: 64 << 10, ..Retain::default() }),
        ..Options::default()
    };
    let begin = || {
        let journal = towline::open_or_create(&dir, options()).expect("it is free");
        let depot = Depot::folder(&night).schedule("64 KiB").at_budget(AtBudget::Detach);
        Stream::builder(journal).name("log").depot(depot).start().expect("started")
    };
    let append = |stream: &Stream| {
        stream.append([&[7; 10_000][..]]).expect("there is room").durable().expect("durable");
    };
    let stream = begin();
    // far below the budget: no append has a reason to look after anything
    (0..100).for_each(|_| append(&stream));
    let patience = Instant::now() + Duration::from_secs(60);
    while stream.journal().start() == Lsn::ZERO {
        assert!(Instant::now() < patience, "what lies in the depot and isn't retained is given up");
        std::thread::yield_now();
    }
    std::fs::rename(&night, folder.path().join("away")).expect("moved");
    let shipped = stream.journal().start();
    // more than the budget: the depot is left behind
    while stream.journal().start() < shipped.advance(6 << 20) {
        append(&stream);
    }
    stream.close().expect("closed");
    // nothing holds the journal any more
    let journal = Journal::open(&dir, options()).expect("it is free");
    assert!(towline::records(&journal, journal.start()).expect("records").all(|record| record.is_ok()));
    drop(journal);
    let noted = std::fs::read_to_string(dir.with_extension("spool").join("detached.json")).expect("it is noted");
    assert!(noted.contains("depot ") && noted.contains("night"), "{noted}");
    std::fs::rename(folder.path().join("away"), &night).expect("moved");
    drop(begin());
    Journal::open(&dir, options()).expect("a dropped stream lets go of it too");
}

/// Its depot can be reached, and its schedule is rarer than the budget lasts: what it lacks is cut early, and no append
/// fails.
#[test]
fn an_embedded_stream_cuts_early_before_its_budget_is_used_up() {
    use towline::{AtBudget, Depot, Geometry, Options, Retain, Stream};
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, night) = (folder.path().join("log"), folder.path().join("night"));
    for (round, at_budget) in [AtBudget::Block, AtBudget::Detach].into_iter().enumerate() {
        let geometry = Geometry::new(64 << 10).expect("a size");
        let retain = Some(Retain::default());
        let options = Options { geometry, budget_bytes: 1 << 20, retain, ..Options::default() };
        let journal = towline::open_or_create(&dir, options).expect("it is free");
        let depot = Depot::folder(&night).schedule("every 1d").at_budget(at_budget);
        let stream = Stream::builder(journal).name("log").depot(depot).start().expect("started");
        let first = stream.journal().board().durable();
        while stream.journal().board().written() < first.advance(5 << 20) {
            stream.append([&[7; 10_000][..]]).expect("there is room").durable().expect("durable");
        }
        assert!(stream.journal().start() > first.advance(3 << 20), "round {round}: it was given up");
        stream.close().expect("closed");
        assert!(!dir.with_extension("spool").join("detached.json").exists(), "round {round}");
        // between them, depot and log have all of it
        let depot = archive::Depot::find(&night, "log").expect("a depot");
        assert!(depot.verify().expect("read").is_good());
        let journal = towline::open_or_create(&dir, Options::default()).expect("it is free");
        let there = depot.catalogue().expect("reads").end().expect("a line").expect("not empty").tip.lsn;
        assert!(there >= journal.start(), "round {round}: {there}");
    }
}

fn start(dir: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child")
}

/// The rest of the next line with this word; the test harness of the child prints lines of its own.
fn find(lines: &mut impl Iterator<Item = std::io::Result<String>>, word: &str) -> String {
    loop {
        let line = lines.next().expect("the child ended early").expect("a line");
        if let Some(at) = line.find(word) {
            return line[at + word.len()..].to_owned();
        }
    }
}

fn balances(dir: &Path) -> BTreeMap<String, i64> {
    let journal = towline::open_or_create(dir, Default::default()).expect("the journal");
    let mut balances = BTreeMap::new();
    for record in towline::records(&journal, journal.start()).expect("records") {
        let booking = String::from_utf8(record.expect("a record").payload).expect("text");
        let (account, amount) = booking.split_once(' ').expect("a booking");
        *balances.entry(account.to_owned()).or_default() += amount.parse::<i64>().expect("an amount");
    }
    balances
}
