//! A journal of 10 GiB: how long opening takes after a stop, after a kill and with an older control file, how long a
//! deleted one takes to rebuild, and the private memory of a process that appends, follows, walks, opens and rebuilds.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::floor::{evict, read_through};
use crate::local::{RECORD_BYTES, warm};
use crate::table::{Sample, median};
use journal::{Host, Item, Journal, Lsn, Options, Rebuild, offline};

const BYTES: u64 = 10 << 30;
const TURNS: usize = 5;
const CONTROL: &str = "control";
/// Records that are appended at once here: filling is not what is measured.
const GROUP: usize = 256;

pub(crate) fn measure(dir: &Path) {
    let folder = tempfile::tempdir_in(dir).expect("a folder");
    let path = folder.path().join("journal");
    println!("a journal of 10 GiB in {}, medians of {TURNS} turns", dir.display());
    let memory = Peak::watch();
    let earlier = fill(folder.path());
    println!("open after a clean stop, warm: {}", opened(&path, |_| ()));
    println!("open after a clean stop, cold: {}", opened(&path, evict));
    println!("open after a kill, warm: {}", opened(&path, |path| drop(appended(path))));
    let kill_cold = |path: &Path| {
        drop(appended(path));
        evict(path);
    };
    println!("open after a kill, cold: {}", opened(&path, kill_cold));
    let control = path.join(CONTROL);
    let behind = |_: &Path| std::fs::write(&control, &earlier).expect("write");
    println!("open with the control file of a segment earlier, warm: {}", opened(&path, behind));
    evict(&path);
    println!("plain read of all of it, cold: {}", rate(&read_through(&path)));
    evict(&path);
    println!("verified walk over all of it, cold: {}", rate(&walk(&path)));
    println!("rebuild of a deleted control file (verifies all of it): {}", rebuilt(&path));
    println!("private memory of this process at its peak, mapped files apart: {} MiB", memory.mib());
}

/// Appends it, with a reader that follows; the control file as it was a segment before the end.
fn fill(dir: &Path) -> Vec<u8> {
    let journal = warm(dir);
    journal.spawn_flusher().expect("a thread");
    let record = [7; RECORD_BYTES];
    let parts: [&[u8]; 1] = [&record];
    let (mut earlier, done) = (Vec::new(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| follow(&journal, &done));
        while journal.board().staged() < Lsn::new(BYTES) {
            journal.append_many(&[Item::record(&parts); GROUP]).expect("append");
            let left = BYTES.saturating_sub(journal.board().staged().get());
            if earlier.is_empty() && left < journal.geometry().body_bytes() {
                journal.sync().expect("sync");
                earlier = std::fs::read(dir.join("journal").join(CONTROL)).expect("read");
            }
        }
        journal.sync().expect("sync");
        done.store(true, Ordering::Release);
        assert_eq!(follower.join().expect("a reader"), journal.written_tip().lsn);
    });
    journal.close().expect("close");
    earlier
}

/// Reads whatever is written, until all of it is.
fn follow(journal: &Journal, done: &AtomicBool) -> Lsn {
    let mut watch = journal.board().watch();
    let mut entries = journal.entries(Lsn::ZERO).expect("entries");
    loop {
        let last = done.load(Ordering::Acquire);
        while entries.next_entry().expect("verified").is_some() {}
        if last {
            return entries.tip().lsn;
        }
        watch.wait(Duration::from_millis(10));
    }
}

fn walk(path: &Path) -> Sample {
    let begun = Instant::now();
    let log = offline::Log::open(path).expect("open");
    let mut entries = log.entries(None).expect("entries");
    while entries.next_entry().expect("verified").is_some() {}
    Sample::whole(entries.tip().lsn.get(), begun.elapsed())
}

fn rate(bytes: &Sample) -> String {
    format!("{:.1} GB/s", bytes.per_second() / 1e9)
}

/// Without its control file, and without anybody's word for who the node is.
fn rebuilt(path: &Path) -> String {
    std::fs::remove_file(path.join(CONTROL)).expect("remove");
    let begun = Instant::now();
    let rebuild = Rebuild::plan(path, None, Host::default()).expect("plan");
    rebuild.write(false).expect("write");
    let took = begun.elapsed();
    Journal::open(path, Options::default()).expect("open").close().expect("close");
    format!("{:.1} s", took.as_secs_f64())
}

/// Ten more records; dropped without a word, as after a kill.
fn appended(path: &Path) -> Journal {
    let journal = Journal::open(path, Options::default()).expect("open");
    let opening = journal::RunOpening { promote: None, reason: journal::Reason::Started, policy: Vec::new() };
    journal.open_run(opening).expect("open a run");
    for _ in 0..10 {
        journal.append(Item::record(&[&[7; RECORD_BYTES]])).expect("append").durable().expect("durable");
    }
    journal
}

fn opened(path: &Path, before: impl Fn(&Path)) -> String {
    let turn = || {
        before(path);
        let begun = Instant::now();
        let journal = Journal::open(path, Options::default()).expect("open");
        let took = begun.elapsed();
        journal.close().expect("close");
        took
    };
    let took: Duration = median((0..TURNS).map(|_| turn()));
    format!("{:.1} ms", took.as_secs_f64() * 1e3)
}

/// The most private memory of this process so far: `VmHWM` would count mapped files too.
struct Peak(Arc<AtomicU64>);

impl Peak {
    /// Looks every few milliseconds, until the process ends.
    fn watch() -> Peak {
        let peak = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&peak);
        std::thread::spawn(move || {
            loop {
                seen.fetch_max(private_kib(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Peak(peak)
    }

    fn mib(&self) -> u64 {
        self.0.load(Ordering::Relaxed) / 1024
    }
}

fn private_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("read");
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line");
    anonymous.trim().trim_end_matches(" kB").parse().expect("a number")
}
