//! A journal of 10 GiB: how long opening takes after a stop and after a kill, what a lost segment of evidence costs, and
//! the private memory of a process that has appended, walked and opened it.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use journal::{Item, Journal, Lsn, Options, offline};
use rustix::fs::Advice;

use crate::local::{RECORD_BYTES, warm};
use crate::table::median;

const BYTES: u64 = 10 << 30;
const TURNS: usize = 5;
/// Records that are appended at once here: filling is not what is measured.
const GROUP: usize = 256;

pub(crate) fn measure(dir: &Path) {
    let folder = tempfile::tempdir_in(dir).expect("a folder");
    let journal = warm(folder.path());
    journal.spawn_flusher().expect("a thread");
    let record = [7; RECORD_BYTES];
    let parts: [&[u8]; 1] = [&record];
    while journal.board().staged() < Lsn::new(BYTES) {
        journal.append_many(&[Item::record(&parts); GROUP]).expect("append");
    }
    journal.close().expect("close");
    let path = folder.path().join("journal");
    println!("a journal of 10 GiB in {}, medians of {TURNS} turns", dir.display());
    println!("open after a clean stop, warm: {}", opened(&path, |_| ()));
    println!("open after a clean stop, cold: {}", opened(&path, evict));
    println!("open after a kill, warm: {}", opened(&path, |path| drop(appended(path))));
    let kill_cold = |path: &Path| {
        drop(appended(path));
        evict(path);
    };
    println!("open after a kill, cold: {}", opened(&path, kill_cold));
    let begun = Instant::now();
    let log = offline::Log::open(&path).expect("open");
    let mut entries = log.entries(None).expect("entries");
    while entries.next_entry().expect("verified").is_some() {}
    let rate = entries.tip().lsn.get() as f64 / 1e9 / begun.elapsed().as_secs_f64();
    println!("verified walk over all of it: {rate:.1} GB/s");
    println!("private memory of this process at its peak, mapped files apart: {} MiB", private_mib());
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

/// Has the page cache forget the files of a folder.
pub(crate) fn evict(dir: &Path) {
    for entry in std::fs::read_dir(dir).expect("list") {
        let path = entry.expect("list").path();
        if path.is_dir() {
            evict(&path);
            continue;
        }
        let file = File::open(path).expect("open");
        file.sync_all().expect("sync");
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).expect("forget");
    }
}

/// `VmHWM` counts mapped files too; what is private now and was at the walks is the same buffer.
fn private_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("read");
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line");
    anonymous.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}
