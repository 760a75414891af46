//! The least code of our own that does the same durable work.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use journal::crc32c;
use rustix::fs::Advice;

use crate::group::Commit;
use crate::table::Sample;

/// As large as the body of a segment here.
pub(crate) const FILE_BYTES: u64 = 64 << 20;
/// What is gathered before it is written, where nobody waits.
const BUFFER_BYTES: usize = 256 << 10;

/// A file that was written whole and synced once: recycling it costs no block allocation and no file size change.
pub(crate) struct Recycled {
    file: File,
    at: u64,
    /// Behind its end: from its beginning again, or into the next new file here.
    next: Option<(PathBuf, u32)>,
    /// Full files that were not synced since they were written.
    full: Vec<File>,
}

impl Recycled {
    pub(crate) fn new(dir: &Path, name: &str) -> Recycled {
        Recycled { file: whole_file(&dir.join(name)), at: 0, next: None, full: Vec::new() }
    }

    /// There is nothing to recycle yet: each further file is made, written whole and synced when it is needed.
    pub(crate) fn rolling(dir: &Path, name: &str) -> Recycled {
        Recycled { next: Some((dir.join(name), 1)), ..Recycled::new(dir, name) }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        self.file.write_all_at(bytes, self.at).expect("write");
        self.at += bytes.len() as u64;
    }

    /// The next bytes of it.
    pub(crate) fn read(&mut self, bytes: &mut [u8]) {
        self.make_room(bytes.len());
        self.file.read_exact_at(bytes, self.at).expect("read");
        self.at += bytes.len() as u64;
    }

    fn make_room(&mut self, bytes: usize) {
        if self.at + bytes as u64 <= FILE_BYTES {
            return;
        }
        self.at = 0;
        if let Some((path, number)) = &mut self.next {
            let next = whole_file(&path.with_extension(number.to_string()));
            self.full.push(std::mem::replace(&mut self.file, next));
            *number += 1;
        }
    }

    pub(crate) fn sync(&mut self) {
        for full in self.full.drain(..) {
            full.sync_data().expect("sync");
        }
        self.file.sync_data().expect("sync");
    }
}

fn whole_file(path: &Path) -> File {
    let file = File::options().read(true).write(true).create_new(true).open(path).expect("create a file");
    let piece = vec![0; 1 << 20];
    for offset in (0..FILE_BYTES).step_by(piece.len()) {
        file.write_all_at(&piece, offset).expect("write");
    }
    file.sync_all().expect("sync");
    file
}

/// One pwrite and one fdatasync per group.
impl Commit for Recycled {
    fn commit(&mut self, bytes: &[u8]) {
        self.write(bytes);
        self.sync();
    }
}

/// Computes an entry's checksum, copies it into a buffer and writes that when it is full.
pub(crate) fn buffered(mut file: Recycled, entry: &[u8], count: u64) -> Sample {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES + entry.len());
    let begun = Instant::now();
    for _ in 0..count {
        std::hint::black_box(crc32c(entry));
        buffer.extend_from_slice(entry);
        if buffer.len() >= BUFFER_BYTES {
            file.write(&buffer);
            buffer.clear();
        }
    }
    file.write(&buffer);
    Sample::whole(count, begun.elapsed())
}

/// One checksum and one pwrite per entry; with `syncing`, beside a thread that does nothing but sync the file.
pub(crate) fn written(dir: &Path, entry: &[u8], count: u64, syncing: bool) -> Sample {
    let mut file = Recycled::new(dir, "floor");
    let second = file.file.try_clone().expect("a second handle");
    let done = AtomicBool::new(!syncing);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                second.sync_data().expect("sync");
            }
        });
        let begun = Instant::now();
        for _ in 0..count {
            std::hint::black_box(crc32c(entry));
            file.write(entry);
        }
        let sample = Sample::whole(count, begun.elapsed());
        done.store(true, Ordering::Relaxed);
        sample
    })
}

/// Reads `bytes` through a buffer and computes a checksum per 1 KiB.
pub(crate) fn scan(dir: &Path, bytes: u64) -> Sample {
    let file = Recycled::new(dir, "floor").file;
    let mut buffer = vec![0; 1 << 20];
    let mut sum = 0u32;
    let begun = Instant::now();
    for offset in (0..bytes).step_by(buffer.len()) {
        file.read_exact_at(&mut buffer, offset % FILE_BYTES).expect("read");
        for entry in buffer.chunks(1024) {
            sum ^= crc32c(entry);
        }
    }
    std::hint::black_box(sum);
    Sample::whole(bytes, begun.elapsed())
}

/// Reads every segment of a journal and does nothing with it.
pub(crate) fn read_through(journal: &Path) -> Sample {
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    let begun = Instant::now();
    for (_, path) in segments(journal) {
        let mut file = File::open(path).expect("open");
        loop {
            match file.read(&mut buffer).expect("read") {
                0 => break,
                read => bytes += read as u64,
            }
        }
    }
    Sample::whole(bytes, begun.elapsed())
}

fn segments(dir: &Path) -> BTreeMap<OsString, PathBuf> {
    let files = std::fs::read_dir(dir).expect("list").map(|entry| entry.expect("list"));
    let files = files.map(|entry| (entry.file_name(), entry.path()));
    files.filter(|(_, path)| path.extension().is_some_and(|end| end == "seg")).collect()
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
