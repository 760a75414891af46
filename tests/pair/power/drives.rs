//! Disks that lose what no flush covered: a FUSE file system with one file a disk, kept in memory.
//!
//! ```text
//!  node -> ext4 or XFS -> loop device -> one of these files:  durable | written since the last flush
//! ```
//! A flush of the loop device arrives as an fsync of the file. The process that serves the file system touches memory
//! alone, never what lies above it: that is mounted, used and unmounted by another one, which gives orders over a socket.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, Session,
    WriteFlags,
};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::kills::Dice;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
const PAGE: usize = 4096;
/// The files never change but in their bytes.
const VALID: Duration = Duration::from_secs(3600);

/// What becomes of what no flush covered.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Fate {
    /// All of it is lost.
    Lost,
    /// All of it is there.
    Kept,
    /// What was written before some instant is there.
    Begun,
    /// Each sector by itself is there or not, whatever was written before it.
    Torn,
}

impl Fate {
    /// Any of them. What is torn is the hardest to get right.
    pub(crate) fn any(dice: &mut Dice) -> Fate {
        [Fate::Lost, Fate::Kept, Fate::Begun, Fate::Torn, Fate::Torn][dice.below(5) as usize]
    }
}

/// Serves disks as files in `at`, and takes orders from whoever connects to `listener`, until it is dropped.
pub(super) struct Keeper {
    _session: BackgroundSession,
}

impl Keeper {
    pub(super) fn start(at: &Path, listener: UnixListener) -> io::Result<Keeper> {
        let shared = Arc::<Shared>::default();
        let session = Session::new(Server(Arc::clone(&shared)), at, &Config::default())?.spawn()?;
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // ends with the connection
                let _ = obey(&shared, stream);
            }
        });
        Ok(Keeper { _session: session })
    }
}

/// One order a line, and one answer a line.
fn obey(shared: &Shared, mut stream: UnixStream) -> io::Result<()> {
    for line in BufReader::new(stream.try_clone()?).lines() {
        let answer = shared.state().obey(serde_json::from_str(&line?)?);
        writeln!(stream, "{}", serde_json::to_string(&answer)?)?;
    }
    Ok(())
}

#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Add { bytes: u64 },
    CutAfter { steps: u64, disks: Vec<usize>, pids: Vec<u32> },
    Cut,
    WhatIsLeft { disk: usize, fate: Fate, seed: u64 },
    Look { disk: usize },
}

/// How it is after an order.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    /// The newest disk.
    newest: usize,
    are_cut: bool,
    /// Of the disk that was looked at.
    flushes: u64,
}

/// The disks of a [`Keeper`] in another process.
pub(crate) struct Drives {
    at: PathBuf,
    orders: UnixStream,
}

impl Drives {
    /// The disks in `at`.
    pub(super) fn connect(at: &Path, socket: &Path) -> io::Result<Drives> {
        Ok(Drives { at: at.to_owned(), orders: UnixStream::connect(socket)? })
    }

    fn order(&self, order: &Order) -> Answer {
        let mut orders = &self.orders;
        writeln!(orders, "{}", serde_json::to_string(order).unwrap()).expect("the keeper of the disks is there");
        let mut answer = String::new();
        // one order, one answer: nothing is left in the buffer
        BufReader::new(orders).read_line(&mut answer).expect("the keeper of the disks answers");
        serde_json::from_str(&answer).unwrap()
    }

    /// A new disk of so many bytes, all zero.
    pub(super) fn add(&self, bytes: u64) -> usize {
        self.order(&Order::Add { bytes }).newest
    }

    /// The file that a disk is.
    pub(super) fn file(&self, disk: usize) -> PathBuf {
        self.at.join(disk.to_string())
    }

    /// How many flushes a disk has seen.
    pub(super) fn flushes(&self, disk: usize) -> u64 {
        self.order(&Order::Look { disk }).flushes
    }

    /// Cuts the power of `disks` at one instant, when they have been written to or flushed so often from now on. At that
    /// instant, before anybody can learn of it, the processes are killed.
    pub(super) fn cut_after(&self, steps: u64, disks: Vec<usize>, pids: Vec<u32>) {
        self.order(&Order::CutAfter { steps, disks, pids });
    }

    /// True once the power was cut.
    pub(crate) fn are_cut(&self) -> bool {
        self.order(&Order::Look { disk: 0 }).are_cut
    }

    /// Cuts the power now, unless [`Drives::cut_after`] has done it already.
    pub(crate) fn cut(&self) {
        self.order(&Order::Cut);
    }

    /// What is left of a disk whose power was cut, as a new disk.
    pub(super) fn what_is_left(&self, disk: usize, fate: Fate, dice: &mut Dice) -> usize {
        let seed = dice.below(u64::from(u32::MAX));
        self.order(&Order::WhatIsLeft { disk, fate, seed }).newest
    }
}

#[derive(Default)]
struct Shared(Mutex<State>);

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct State {
    disks: Vec<Disk>,
    armed: Option<Armed>,
}

/// A power cut that is to come.
struct Armed {
    steps: u64,
    disks: Vec<usize>,
    pids: Vec<u32>,
}

impl State {
    fn obey(&mut self, order: Order) -> Answer {
        let mut flushes = 0;
        match order {
            Order::Add { bytes } => self.disks.push(Disk { bytes, ..Disk::default() }),
            Order::CutAfter { steps, disks, pids } => self.armed = Some(Armed { steps, disks, pids }),
            Order::Cut => self.cut(),
            Order::WhatIsLeft { disk, fate, seed } => {
                let left = std::mem::take(&mut self.disks[disk]).what_is_left(fate, &mut Dice::new(seed));
                self.disks.push(left);
            }
            Order::Look { disk } => flushes = self.disks[disk].flushes,
        }
        Answer { newest: self.disks.len().saturating_sub(1), are_cut: self.armed.is_none(), flushes }
    }

    /// Before each write and flush. `None`: that disk has no power, and what is answered reaches nobody.
    fn step(&mut self, disk: usize) -> Option<&mut Disk> {
        if let Some(armed) = &mut self.armed
            && armed.disks.contains(&disk)
        {
            match armed.steps.checked_sub(1) {
                Some(left) => armed.steps = left,
                None => self.cut(),
            }
        }
        Some(&mut self.disks[disk]).filter(|disk| !disk.is_off)
    }

    fn cut(&mut self) {
        if let Some(Armed { disks, pids, .. }) = self.armed.take() {
            for pid in pids.into_iter().filter_map(|pid| Pid::from_raw(pid as i32)) {
                // it may have ended by itself
                let _ = kill_process(pid, Signal::KILL);
            }
            disks.into_iter().for_each(|disk| self.disks[disk].is_off = true);
        }
    }
}

#[derive(Default)]
struct Disk {
    bytes: u64,
    /// What is read.
    live: Pages,
    /// What a flush has made safe.
    durable: Pages,
    /// Written since, in this order.
    unflushed: Vec<(u64, Vec<u8>)>,
    flushes: u64,
    is_off: bool,
}

impl Disk {
    fn write(&mut self, at: u64, bytes: &[u8]) {
        self.live.write(at, bytes);
        self.unflushed.push((at, bytes.to_vec()));
    }

    fn flush(&mut self) {
        for (at, bytes) in self.unflushed.drain(..) {
            self.durable.write(at, &bytes);
        }
        self.flushes += 1;
    }

    fn what_is_left(&self, fate: Fate, dice: &mut Dice) -> Disk {
        let mut left = self.durable.clone();
        let begun = dice.below(self.unflushed.len() as u64 + 1) as usize;
        for (number, (at, bytes)) in self.unflushed.iter().enumerate() {
            for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                let is_there = match fate {
                    Fate::Lost => false,
                    Fate::Kept => true,
                    Fate::Begun => number < begun,
                    Fate::Torn => dice.below(2) == 0,
                };
                if is_there {
                    left.write(at + (index * SECTOR) as u64, sector);
                }
            }
        }
        Disk { bytes: self.bytes, live: left.clone(), durable: left, ..Disk::default() }
    }
}

/// Bytes of a disk; what was never written is zero.
#[derive(Clone, Default)]
struct Pages(BTreeMap<u64, Box<[u8; PAGE]>>);

impl Pages {
    fn write(&mut self, mut at: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (page, offset) = (at / PAGE as u64, at as usize % PAGE);
            let (piece, behind) = bytes.split_at(bytes.len().min(PAGE - offset));
            let page = self.0.entry(page).or_insert_with(|| Box::new([0; PAGE]));
            page[offset..offset + piece.len()].copy_from_slice(piece);
            (at, bytes) = (at + piece.len() as u64, behind);
        }
    }

    fn read(&self, mut at: u64, count: usize) -> Vec<u8> {
        let mut read = Vec::with_capacity(count);
        while read.len() < count {
            let (page, offset) = (at / PAGE as u64, at as usize % PAGE);
            let piece = (count - read.len()).min(PAGE - offset);
            match self.0.get(&page) {
                Some(page) => read.extend_from_slice(&page[offset..offset + piece]),
                None => read.resize(read.len() + piece, 0),
            }
            at += piece as u64;
        }
        read
    }
}

/// The file system: a folder of files that are called by their numbers.
struct Server(Arc<Shared>);

impl Server {
    /// Inode 1 is the folder.
    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let state = self.0.state();
        let (size, kind) = match inode {
            INodeNo::ROOT => (0, FileType::Directory),
            _ => (state.disks.get(disk_of(inode)?)?.bytes, FileType::RegularFile),
        };
        let (time, blocks) = (SystemTime::UNIX_EPOCH, size / SECTOR as u64);
        let (atime, mtime, ctime, crtime) = (time, time, time, time);
        let (perm, nlink, uid, gid, rdev, blksize, flags) = (0o700, 1, 0, 0, 0, PAGE as u32, 0);
        let ino = inode;
        Some(FileAttr {
            ino,
            size,
            blocks,
            atime,
            mtime,
            ctime,
            crtime,
            kind,
            perm,
            nlink,
            uid,
            gid,
            rdev,
            blksize,
            flags,
        })
    }
}

fn disk_of(inode: INodeNo) -> Option<usize> {
    usize::try_from(inode.0).ok()?.checked_sub(2)
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let disk = name.to_str().and_then(|name| name.parse::<u64>().ok());
        match disk.and_then(|disk| self.attributes(INodeNo(disk + 2))) {
            Some(found) => reply.entry(&VALID, &found, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(found) => reply.attr(&VALID, &found),
            None => reply.error(Errno::ENOENT),
        }
    }

    /// Nothing may stay in a page cache below the loop device: what it writes and flushes arrives here at once.
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        at: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = self.0.state();
        match disk_of(inode).and_then(|disk| state.disks.get(disk)) {
            Some(disk) => {
                let count = u64::from(size).min(disk.bytes.saturating_sub(at));
                reply.data(&disk.live.read(at, count as usize));
            }
            None => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        at: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.0.state();
        let disk = disk_of(inode).filter(|&disk| disk < state.disks.len());
        if let Some(disk) = disk.and_then(|disk| state.step(disk)) {
            disk.write(at, bytes);
        }
        reply.written(bytes.len() as u32);
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut state = self.0.state();
        let disk = disk_of(inode).filter(|&disk| disk < state.disks.len());
        if let Some(disk) = disk.and_then(|disk| state.step(disk)) {
            disk.flush();
        }
        reply.ok();
    }
}
