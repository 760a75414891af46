//! The scrub of an open journal: it finds what has rotted, exactly, beside everything that goes on.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use journal::repair::Harm;
use journal::scrub::{Finding, Scrub, Scrubbed};
use journal::{
    Disk, FaultKind, Host, Item, Journal, Lsn, LsnRange, Options, SEGMENT_HEADER_BYTES, Storage, StorageFile,
};

use crate::lifecycle::{create, flip, segment_file, small, start_run};

const SEGMENT: u64 = 64 << 10;
const HEADER: u64 = SEGMENT_HEADER_BYTES as u64;

/// A journal of several segments, and the positions behind its records.
fn filled(dir: &Path) -> (Journal, Vec<Lsn>) {
    let journal = create(dir);
    start_run(&journal);
    let append = |number: u32| journal.append(Item::record(&[&vec![number as u8; 2000]])).unwrap().lsn();
    let ends = (0..150).map(append).collect();
    journal.sync().unwrap();
    (journal, ends)
}

/// Looks to the end: what is damaged, and how much was read.
fn look(mut scrub: Scrub) -> (Vec<Finding>, u64) {
    let (mut found, mut read) = (Vec::new(), 0);
    loop {
        match scrub.step().unwrap() {
            Scrubbed::Good(bytes) => read += bytes,
            Scrubbed::Damaged(bytes, finding) => {
                read += bytes;
                found.push(finding);
            }
            Scrubbed::End => return (found, read),
        }
    }
}

#[test]
fn everything_durable_is_read_and_nothing_is_found_in_a_good_log() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = filled(dir.path());
    let durable = journal.board().durable();
    journal.append(Item::record(&[&[1; 3000]])).unwrap().written().unwrap();
    let mut scrub = Scrub::all(&journal);
    while !matches!(scrub.step().unwrap(), Scrubbed::End) {}
    assert_eq!(scrub.at(), durable, "what no sync covered may change");
    let (found, read) = look(Scrub::all(&journal));
    assert!(found.is_empty(), "{found:?}");
    let headers = durable.get().div_ceil(SEGMENT) * HEADER;
    assert_eq!(read, durable.get() + headers, "each byte once");
}

#[test]
fn rot_in_an_open_journal_is_found_with_its_exact_range() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, ends) = filled(dir.path());
    let index = ends.iter().position(|end| end.get() > SEGMENT + 20_000).unwrap();
    let range = LsnRange::new(ends[index - 1], ends[index]);
    let path = segment_file(dir.path(), SEGMENT);
    let offset = HEADER + range.from.get() - SEGMENT;
    let entry = |kind| vec![Finding { path: path.clone(), range, harm: Harm::Entry(kind) }];
    // once in a payload, once in a header that can't be believed any more
    for (at, kind) in [(200, FaultKind::Payload), (1, FaultKind::Length)] {
        flip(&path, offset + at);
        assert_eq!(look(Scrub::all(&journal)).0, entry(kind));
        assert_eq!(look(Scrub::range(&journal, range)).0, entry(kind));
        flip(&path, offset + at);
    }
    assert!(look(Scrub::all(&journal)).0.is_empty(), "it reads well again");

    flip(&path, 40);
    let found = look(Scrub::all(&journal)).0;
    assert!(found.len() == 1 && found[0].harm == Harm::HeaderCopy && found[0].range.is_empty(), "{found:?}");
    flip(&path, 2048 + 40);
    flip(&path, offset + 200);
    let found = look(Scrub::all(&journal)).0;
    assert!(found.len() == 2 && matches!(found[0].harm, Harm::Header(_)) && found[1].range == range, "{found:?}");
}

#[test]
fn a_segment_that_is_gone_is_found_and_what_is_behind_it_too() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = filled(dir.path());
    fs::remove_file(segment_file(dir.path(), SEGMENT)).unwrap();
    flip(&segment_file(dir.path(), 3 * SEGMENT), HEADER + 10_000);
    let found = look(Scrub::all(&journal)).0;
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(
        (found[0].range, &found[0].harm),
        (LsnRange::new(Lsn::new(SEGMENT), Lsn::new(2 * SEGMENT)), &Harm::Missing)
    );
    assert_eq!(found[1].harm, Harm::Entry(FaultKind::Payload));
}

/// Pruned files are recycled under the scrub, and a cut replaces the one it stands in: neither is rot.
#[test]
fn pruning_and_cutting_beside_it_are_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, ends) = filled(dir.path());
    let mut pruned = Scrub::all(&journal);
    pruned.step().unwrap();
    let mut cut = Scrub::range(&journal, LsnRange::new(Lsn::new(3 * SEGMENT), Lsn::MAX));
    cut.step().unwrap();
    journal.prune(Lsn::new(2 * SEGMENT + 9000)).unwrap();
    assert_eq!(look(pruned).0, []);
    let to = ends.iter().find(|end| end.get() > 3 * SEGMENT + 20_000).unwrap();
    journal.cut(*to).unwrap();
    start_run(&journal);
    for number in 0..100 {
        journal.append(Item::record(&[&[number; 3000]])).unwrap();
    }
    journal.sync().unwrap();
    assert_eq!(look(cut).0, []);
    assert_eq!(look(Scrub::all(&journal)).0, []);
}

/// A disk that lets somebody look when a cut has changed the files and nobody has been told yet.
#[derive(Debug)]
struct Halfway {
    look: Mutex<(Sender<()>, Receiver<()>)>,
    replaced: AtomicBool,
}

impl Storage for Halfway {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn StorageFile>> {
        Disk.create(path, bytes)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        if self.replaced.load(Ordering::Relaxed) {
            let look = self.look.lock().unwrap();
            let _ = look.0.send(());
            // one that waits for the end of the cut, as it should, isn't waited for
            let _ = look.1.recv_timeout(Duration::from_millis(300));
        }
        Disk.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)?;
        self.replaced.fetch_or(from.ends_with("cut.new"), Ordering::Relaxed);
        Ok(())
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

/// A receiver cuts its tail while the scrub reads it. The files change before the journal says so: a look between the two
/// must not call that rot.
#[test]
fn a_cut_that_is_half_way_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, ends) = filled(dir.path());
    journal.close().unwrap();
    let (halfway, wait) = channel();
    let (looked, done) = channel();
    let storage = Arc::new(Halfway { look: Mutex::new((halfway, done)), replaced: AtomicBool::new(false) });
    let options = Options { host: Host { storage, ..Host::default() }, ..small() };
    let journal = Journal::open(dir.path(), options).unwrap();
    let scrub = Scrub::all(&journal);
    let looking = thread::spawn(move || {
        wait.recv().unwrap();
        let found = look(scrub).0;
        // the cut may be over already
        let _ = looked.send(());
        found
    });
    journal.cut(*ends.iter().find(|end| end.get() > SEGMENT + 20_000).unwrap()).unwrap();
    assert_eq!(looking.join().unwrap(), []);
}
