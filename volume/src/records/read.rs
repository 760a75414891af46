//! Reading a record file, from any process, while the node may be writing it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use journal::{Flags, Lsn, Time, crc32c};

use super::layout::{
    Before, ITEM_BYTES, ITEMS_OFFSET, Identity, Item, SLOT_BYTES, SLOT_OFFSETS, Slot, SlotFound, item_offset,
};
use super::{DATA_FILE, INDEX_FILE};
use crate::error::{Error, Result};

/// Payload bytes that a walk reads ahead.
const WINDOW_BYTES: usize = 1 << 20;
/// Items that a walk reads ahead.
const ITEMS_AHEAD: usize = 1024;

/// A record file, opened for reading.
#[derive(Debug)]
pub struct RecordFile {
    pub(crate) index: File,
    pub(crate) index_path: PathBuf,
    pub(crate) data: File,
    pub(crate) data_path: PathBuf,
    pub(crate) slot: Slot,
}

/// A verified record of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRecord<'a> {
    /// Its number in the file, from 0.
    pub number: u64,
    /// Position behind its last entry: what an acknowledgement of it names.
    pub end: Lsn,
    /// Time of its last entry.
    pub time: Time,
    /// Flags of its last entry that a reader may ignore.
    pub flags: Flags,
    /// What the program handed in.
    pub payload: &'a [u8],
}

/// Outcome of [`RecordFile::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Whole and right records.
    pub records: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// End of the last of them; the file's start when there is none.
    pub end: Lsn,
    /// Up to here the file was synced.
    pub checkpoint: Lsn,
    /// Why the file ends before its index does: a crash tore the tail above the checkpoint. `None`: it doesn't.
    pub torn: Option<String>,
}

impl RecordFile {
    /// Opens the record file in `dir` for reading. [`Error::Absent`] when there is none, [`Error::Damaged`] when both
    /// slots are bad, [`Error::Incompatible`] for another version.
    pub fn open(dir: &Path) -> Result<RecordFile> {
        RecordFile::open_with(dir, File::options().read(true))
    }

    pub(crate) fn open_with(dir: &Path, how: &std::fs::OpenOptions) -> Result<RecordFile> {
        let open = |path: &Path| match how.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::Absent { path: path.to_owned(), what: "the file is missing".to_owned() })
            }
            result => result.map_err(Error::io("open", path)),
        };
        let (index_path, data_path) = (dir.join(INDEX_FILE), dir.join(DATA_FILE));
        let (index, data) = (open(&index_path)?, open(&data_path)?);
        let slot = newest_slot(&index, &index_path)?;
        Ok(RecordFile { index, index_path, data, data_path, slot })
    }

    /// Whose records these are.
    pub fn identity(&self) -> Identity {
        self.slot.identity
    }

    /// Records that ended at or below this are not in the file.
    pub fn start(&self) -> Lsn {
        self.slot.start
    }

    /// Up to here the file was synced when it was opened.
    pub fn checkpoint(&self) -> Lsn {
        self.slot.checkpoint
    }

    /// The records that end above `from`, oldest first. A walk at its end may be asked again: it sees what was
    /// written meanwhile.
    pub fn walk(&self, from: Lsn) -> Result<Walk<'_>> {
        Ok(self.walk_from(self.place_above(from)?))
    }

    pub(crate) fn walk_from(&self, at: Before) -> Walk<'_> {
        Walk { file: self, at, items: Vec::new(), next: 0, window: Vec::new(), window_at: 0, torn: None }
    }

    /// The payload of the record that ends at `end`, verified; `None` when no record ends there.
    pub fn find(&self, end: Lsn) -> Result<Option<Vec<u8>>> {
        let Some(before) = end.get().checked_sub(1) else { return Ok(None) };
        let mut walk = self.walk(Lsn::new(before))?;
        Ok(walk.next_record()?.filter(|record| record.end == end).map(|record| record.payload.to_vec()))
    }

    /// Reads and checks every byte. Damage below the checkpoint is an error; a tail torn above it is reported.
    pub fn verify(&self) -> Result<Checked> {
        let mut walk = self.walk(self.slot.start)?;
        let mut checked =
            Checked { records: 0, bytes: 0, end: self.slot.start, checkpoint: self.slot.checkpoint, torn: None };
        while let Some(record) = walk.next_record()? {
            checked.records += 1;
            checked.bytes += record.payload.len() as u64;
            checked.end = record.end;
        }
        checked.torn = walk.torn;
        Ok(checked)
    }

    /// Checks the items below the checkpoint, without their data, and returns the place behind them and the place of
    /// the first record whose data ends above `newest_from`.
    pub(crate) fn check_items(&self, newest_from: u64) -> Result<(Before, Before)> {
        let mut at = Before::beginning(&self.slot);
        let mut newest = at;
        let mut bytes = vec![0; ITEMS_AHEAD * ITEM_BYTES as usize];
        while at.items < self.slot.items {
            let read =
                read_some(&self.index, &mut bytes, at.item_offset()).map_err(Error::io("read", &self.index_path))?;
            let wanted = (self.slot.items - at.items) as usize;
            let before = at.items;
            for bytes in bytes[..read].chunks_exact(ITEM_BYTES as usize).take(wanted) {
                let item = Item::decode_after(bytes, at).map_err(|what| self.bad_item(at, what))?;
                at = at.behind(&item);
                if item.data_end <= newest_from {
                    newest = at;
                }
            }
            if at.items == before {
                return Err(self.short_index()?);
            }
        }
        Ok((at, newest))
    }

    fn bad_item(&self, at: Before, what: &str) -> Error {
        let bytes = at.item_offset()..at.item_offset().saturating_add(ITEM_BYTES);
        Error::Damaged { path: self.index_path.clone(), bytes, what: format!("item {}: {what}", at.items) }
    }

    fn short_index(&self) -> Result<Error> {
        let bytes = self.index.metadata().map_err(Error::io("look at", &self.index_path))?.len();
        Ok(Error::Short { path: self.index_path.clone(), bytes, needed: item_offset(self.slot.items) })
    }

    /// Where the first record that ends above `from` stands.
    fn place_above(&self, from: Lsn) -> Result<Before> {
        let (mut before, mut high) = (Before::beginning(&self.slot), self.items_in_file()?);
        while before.items < high {
            let middle = before.items + (high - before.items) / 2;
            match self.item(middle)? {
                Some(item) if item.end <= from => {
                    before = Before { items: middle + 1, end: item.end, data_end: item.data_end };
                }
                // an item that can't be read is above everything; the walk will say what it is
                _ => high = middle,
            }
        }
        Ok(before)
    }

    fn item(&self, number: u64) -> Result<Option<Item>> {
        let mut bytes = [0; ITEM_BYTES as usize];
        let read =
            read_some(&self.index, &mut bytes, item_offset(number)).map_err(Error::io("read", &self.index_path))?;
        Ok(if read == bytes.len() { Item::decode(&bytes).ok() } else { None })
    }

    fn items_in_file(&self) -> Result<u64> {
        let bytes = self.index.metadata().map_err(Error::io("look at", &self.index_path))?.len();
        Ok(bytes.saturating_sub(ITEMS_OFFSET) / ITEM_BYTES)
    }
}

/// A verified walk along a record file. Holds at most 1 MiB or one record.
#[derive(Debug)]
pub struct Walk<'f> {
    file: &'f RecordFile,
    at: Before,
    items: Vec<u8>,
    /// Bytes of `items` that were used.
    next: usize,
    window: Vec<u8>,
    /// Where `window` begins in the data file.
    window_at: u64,
    torn: Option<String>,
}

impl Walk<'_> {
    /// The next record; `None` at the end of what is there now.
    ///
    /// [`Error::Damaged`] or [`Error::Short`] for a wrong byte below the checkpoint, with its place. Above it the walk
    /// just ends, and [`Walk::torn`] says why.
    pub fn next_record(&mut self) -> Result<Option<FileRecord<'_>>> {
        if self.next == self.items.len() && !self.read_items()? {
            return Ok(None);
        }
        let bytes = &self.items[self.next..self.next + ITEM_BYTES as usize];
        let item = match Item::decode_after(bytes, self.at) {
            Ok(item) => item,
            Err(what) => {
                let damage = self.file.bad_item(self.at, what);
                return self.end_or(damage);
            }
        };
        let from = self.at.data_end;
        let payload = match self.load(from, item.data_end)? {
            Some(payload) => payload,
            None => {
                let bytes = self.file.data.metadata().map_err(Error::io("look at", &self.file.data_path))?.len();
                let damage = Error::Short { path: self.file.data_path.clone(), bytes, needed: item.data_end };
                return self.end_or(damage);
            }
        };
        if crc32c(&self.window[payload.clone()]) != item.payload_crc {
            let what = format!("the record that ends at LSN {} does not match its checksum", item.end);
            let damage = Error::Damaged { path: self.file.data_path.clone(), bytes: from..item.data_end, what };
            return self.end_or(damage);
        }
        let number = self.at.items;
        self.at = self.at.behind(&item);
        self.next += ITEM_BYTES as usize;
        self.torn = None;
        let payload = &self.window[payload];
        Ok(Some(FileRecord { number, end: item.end, time: item.time, flags: item.flags, payload }))
    }

    pub(crate) fn place(&self) -> Before {
        self.at
    }

    /// Why the walk ended in front of the index's end, if it did.
    pub fn torn(&self) -> Option<&str> {
        self.torn.as_deref()
    }

    /// An error below the checkpoint, the end above it. The items read ahead are forgotten: a writer may be at work.
    fn end_or(&mut self, damage: Error) -> Result<Option<FileRecord<'_>>> {
        if self.at.items < self.file.slot.items {
            return Err(damage);
        }
        self.torn = Some(damage.to_string());
        self.items.clear();
        self.next = 0;
        self.window.clear();
        Ok(None)
    }

    /// Reads items ahead; `false` when the index ends here.
    fn read_items(&mut self) -> Result<bool> {
        let file = self.file;
        self.next = 0;
        self.items.resize(ITEMS_AHEAD * ITEM_BYTES as usize, 0);
        let read = read_some(&file.index, &mut self.items, self.at.item_offset());
        let read = read.map_err(Error::io("read", &file.index_path));
        let whole = read.as_ref().map_or(0, |read| read - read % ITEM_BYTES as usize);
        self.items.truncate(whole);
        read?;
        if whole == 0 && self.at.items < file.slot.items {
            return Err(file.short_index()?);
        }
        Ok(whole > 0)
    }

    /// Makes bytes `from..to` of the data file lie in the window, and says where; `None` when the file ends before.
    fn load(&mut self, from: u64, to: u64) -> Result<Option<std::ops::Range<usize>>> {
        let file = self.file;
        let window_end = self.window_at + self.window.len() as u64;
        if from < self.window_at || to > window_end {
            // never allocate for more than the file has, whatever an item says
            let there = file.data.metadata().map_err(Error::io("look at", &file.data_path))?.len();
            if to > there {
                return Ok(None);
            }
            // nor read ahead what no item names yet: a writer may still change it
            let named = self.items.rchunks_exact(ITEM_BYTES as usize).next().and_then(|last| Item::decode(last).ok());
            let ahead = named.map_or(to, |last| last.data_end.min(there)).saturating_sub(from);
            let bytes = (to - from).max(ahead.min(WINDOW_BYTES as u64));
            self.window.resize(bytes as usize, 0);
            self.window_at = from;
            let read = read_some(&file.data, &mut self.window, from);
            let read = read.map_err(Error::io("read", &file.data_path));
            self.window.truncate(*read.as_ref().unwrap_or(&0));
            if (read? as u64) < to - from {
                return Ok(None);
            }
        }
        let at = (from - self.window_at) as usize;
        Ok(Some(at..at + (to - from) as usize))
    }
}

/// The newer of the two slots that are right.
fn newest_slot(index: &File, path: &Path) -> Result<Slot> {
    let mut newest: Option<Slot> = None;
    for offset in SLOT_OFFSETS {
        let mut bytes = [0; SLOT_BYTES];
        let read = read_some(index, &mut bytes, offset).map_err(Error::io("read", path))?;
        match Slot::decode(&bytes[..read]) {
            SlotFound::Slot(slot) if newest.is_none_or(|newest| newest.sequence < slot.sequence) => newest = Some(slot),
            SlotFound::Slot(_) | SlotFound::Bad => {}
            SlotFound::Version(version) => {
                let what = format!("it has format {version}; this program reads format {}", super::layout::VERSION);
                return Err(Error::Incompatible { path: path.to_owned(), what });
            }
        }
    }
    newest.ok_or_else(|| Error::Damaged {
        path: path.to_owned(),
        bytes: 0..ITEMS_OFFSET,
        what: "neither of its two slots is right".to_owned(),
    })
}

/// Reads until `bytes` are full or the file ends.
fn read_some(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
