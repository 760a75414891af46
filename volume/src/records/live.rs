//! The record file as a machine: entries in, two growing files.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crc_fast::{CrcAlgorithm, Digest};
use journal::{Entry, Flags, Kind, Lsn, LsnRange, Machine};

use super::layout::{Before, ITEMS_OFFSET, Identity, Item, SLOT_OFFSETS, Slot, item_offset};
use super::read::RecordFile;
use super::{DATA_FILE, INDEX_FILE};
use crate::error::{Error, Result};

/// Bytes that wait in memory before they are written, in the middle of a run.
const PENDING_BYTES: usize = 256 << 10;
/// How much of the newest data is read again when a file is opened. A disk that lied about a sync lost the newest
/// bytes; older damage is found by whoever reads the record, and by [`RecordFile::verify`].
const REVERIFY_BYTES: u64 = 16 << 20;
/// Flag bits that stay with a record: those that a reader may ignore.
const KEPT_FLAGS: u16 = 0x00ff;

/// A live record file. One per folder; the node's lock keeps a second writer out.
///
/// `apply` returns after its records are visible to readers; [`Machine::checkpoint`] makes them safe. Holds
/// 256 KiB and one entry, whatever a record's size: fragments are written as they come and count when the
/// last one has. When there is no space, everything stays where it is, and the same call goes on later.
#[derive(Debug)]
pub struct Records {
    file: RecordFile,
    /// Behind the last record, those in `items` included.
    end: Before,
    /// Payload bytes to be written at `data_at`.
    data: Vec<u8>,
    data_at: u64,
    /// Items to be written at `items_at`, after the data.
    items: Vec<u8>,
    items_at: u64,
    open: Option<OpenRecord>,
    /// Entries below were taken in; those below `applied` can be read too.
    taken: Lsn,
    applied: Lsn,
    poisoned: Option<Poison>,
}

/// A record of which the last fragment hasn't come yet.
#[derive(Debug)]
struct OpenRecord {
    first: Lsn,
    bytes: u64,
    crc: Digest,
}

#[derive(Clone, Debug)]
struct Poison {
    path: PathBuf,
    cause: String,
}

impl Records {
    /// Opens the record file in `dir`, or makes an empty one that begins at LSN 0 if there is none. Blocking.
    ///
    /// `remembered` is the checkpoint that the journal keeps of this volume: a file that stops below it is an older copy
    /// ([`Error::Behind`]). Otherwise it stands at its own checkpoint: what was written above is cut, and the journal
    /// delivers it again. The whole index and the newest data are verified first; on damage the files stay as they are.
    /// A folder that somebody emptied is built again: the caller sees [`Machine::applied`] at 0 and lowers what the
    /// journal remembers, so that nothing is pruned meanwhile.
    pub fn open(dir: &Path, identity: Identity, remembered: Lsn) -> Result<Records> {
        let index_path = dir.join(INDEX_FILE);
        if !index_path.try_exists().map_err(Error::io("look at", &index_path))? {
            return Records::open_absent(dir, identity);
        }
        let file = RecordFile::open_with(dir, File::options().read(true).write(true))?;
        let slot = file.slot;
        if slot.identity != identity {
            let (found, wanted) = (slot.identity, identity);
            let what = format!(
                "it holds volume {} of stream {}, not volume {} of stream {}",
                found.volume, found.stream, wanted.volume, wanted.stream
            );
            return Err(Error::Incompatible { path: index_path, what });
        }
        if slot.checkpoint < remembered {
            return Err(Error::Behind { path: index_path, own: slot.checkpoint, remembered });
        }
        let end = verify_below_checkpoint(&file)?;
        let mut records = Records::at(file, end);
        records.cut_files()?;
        Ok(records)
    }

    /// Makes a record file that begins at `start`: what a replica built from a base or from a pruned journal has.
    /// [`Error::Exists`] when there is one. Durable when it returns. Blocking.
    pub fn create(dir: &Path, identity: Identity, start: Lsn) -> Result<Records> {
        let (index_path, data_path) = (dir.join(INDEX_FILE), dir.join(DATA_FILE));
        if index_path.try_exists().map_err(Error::io("look at", &index_path))? {
            return Err(Error::Exists { path: index_path });
        }
        fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        let data = File::create(&data_path).map_err(Error::io("create", &data_path))?;
        data.sync_all().map_err(Error::io("sync", &data_path))?;
        // the index comes last and whole: with it the file exists, without it there was never one
        let slot = Slot { identity, sequence: 1, start, checkpoint: start, items: 0, data_bytes: 0 };
        let aside = index_path.with_extension("idx.new");
        let mut bytes = slot.encode().to_vec();
        bytes.resize(ITEMS_OFFSET as usize, 0);
        fs::write(&aside, bytes).map_err(Error::io("write", &aside))?;
        File::open(&aside).and_then(|index| index.sync_all()).map_err(Error::io("sync", &aside))?;
        fs::rename(&aside, &index_path).map_err(Error::io("rename", &aside))?;
        for folder in [Some(dir), dir.parent()].into_iter().flatten().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io("sync", folder))?;
        }
        let file = RecordFile::open_with(dir, File::options().read(true).write(true))?;
        Ok(Records::at(file, Before::beginning(&slot)))
    }

    /// How many records there are, and the payload bytes of all of them.
    pub fn totals(&self) -> (u64, u64) {
        (self.end.items, self.end.data_end)
    }

    /// Up to here the file was synced and says so.
    pub fn safe(&self) -> Lsn {
        self.file.slot.checkpoint
    }

    #[cfg(test)]
    pub(crate) fn swap(&mut self, name: &str, file: File) {
        let slot = if name == DATA_FILE { &mut self.file.data } else { &mut self.file.index };
        *slot = file;
    }

    #[cfg(test)]
    pub(crate) fn pending_capacity(&self) -> usize {
        self.data.capacity() + self.items.capacity()
    }

    /// A new record file, unless there is data that lost its index: no crash leaves that, the index is there before the
    /// first byte of data.
    fn open_absent(dir: &Path, identity: Identity) -> Result<Records> {
        let data_bytes = fs::metadata(dir.join(DATA_FILE)).map_or(0, |found| found.len());
        if data_bytes > 0 {
            let what = format!(
                "but {DATA_FILE} beside it has {data_bytes} bytes. Bring the index back, or remove {DATA_FILE} to build both again"
            );
            return Err(Error::Absent { path: dir.join(INDEX_FILE), what });
        }
        Records::create(dir, identity, Lsn::ZERO)
    }

    fn at(file: RecordFile, end: Before) -> Records {
        let checkpoint = file.slot.checkpoint;
        Records {
            file,
            end,
            data: Vec::new(),
            data_at: end.data_end,
            items: Vec::new(),
            items_at: end.item_offset(),
            open: None,
            taken: checkpoint,
            applied: checkpoint,
            poisoned: None,
        }
    }

    /// Removes what lies above the checkpoint and writes the slot again, so that nothing rests on what the page cache
    /// alone remembers: after a failed sync it shows bytes that the disk never got.
    fn cut_files(&mut self) -> Result<()> {
        let file = &self.file;
        file.data.set_len(self.end.data_end).map_err(Error::io("cut", &file.data_path))?;
        file.index.set_len(self.end.item_offset()).map_err(Error::io("cut", &file.index_path))?;
        self.sync_files()?;
        self.write_slot(Slot { sequence: self.file.slot.sequence + 1, ..self.file.slot })
    }

    fn take(&mut self, entry: &Entry<'_>) -> Result<()> {
        let header = &entry.header;
        let ours = header.kind == Some(Kind::Data) && header.volume == self.file.slot.identity.volume;
        if header.kind == Some(Kind::Epoch) {
            self.abandon(); // a run never goes on with another run's record
        }
        if ours {
            self.take_data(entry);
        }
        self.taken = header.range().to;
        if self.data.len() + self.items.len() >= PENDING_BYTES { self.write_pending() } else { Ok(()) }
    }

    fn take_data(&mut self, entry: &Entry<'_>) {
        let (header, flags) = (&entry.header, entry.header.flags);
        if flags.has(Flags::FIRST) {
            self.abandon();
            self.open = Some(OpenRecord { first: header.lsn, bytes: 0, crc: Digest::new(CrcAlgorithm::Crc32Iscsi) });
        }
        let Some(open) = &mut self.open else { return };
        self.data.extend_from_slice(entry.payload);
        open.bytes += entry.payload.len() as u64;
        let whole = flags.has(Flags::FIRST.with(Flags::LAST));
        if !whole {
            open.crc.update(entry.payload);
        }
        if flags.has(Flags::LAST) {
            let item = Item {
                end: header.range().to,
                data_end: self.end.data_end + open.bytes,
                time: header.time,
                // a record of one entry keeps the checksum that its writer computed
                payload_crc: if whole { header.payload_crc } else { open.crc.finalize() as u32 },
                flags: Flags(flags.0 & KEPT_FLAGS),
            };
            item.encode(&mut self.items);
            self.end = self.end.behind(&item);
            self.open = None;
        }
    }

    /// Forgets the fragments of a record that never got its last one; its bytes will be written over.
    fn abandon(&mut self) {
        if self.open.take().is_none() {
            return;
        }
        match self.end.data_end.checked_sub(self.data_at) {
            Some(kept) => self.data.truncate(kept as usize),
            None => {
                self.data.clear();
                self.data_at = self.end.data_end;
            }
        }
    }

    /// Writes what waits: data first, so that an item never names bytes that aren't there.
    fn write_pending(&mut self) -> Result<()> {
        let file = &self.file;
        if !self.data.is_empty() {
            file.data.write_all_at(&self.data, self.data_at).map_err(Error::io("write", &file.data_path))?;
            self.data_at += self.data.len() as u64;
            self.data.clear();
        }
        if !self.items.is_empty() {
            file.index.write_all_at(&self.items, self.items_at).map_err(Error::io("write", &file.index_path))?;
            self.items_at += self.items.len() as u64;
            self.items.clear();
        }
        self.applied = self.taken;
        Ok(())
    }

    /// Up to here nothing needs to be replayed once what was taken is synced: an open record begins again.
    fn replay_from(&self) -> Lsn {
        self.open.as_ref().map_or(self.taken, |open| open.first)
    }

    fn sync_files(&mut self) -> Result<()> {
        self.sync(|file| &file.data, |file| &file.data_path)?;
        self.sync(|file| &file.index, |file| &file.index_path)
    }

    /// Writes the older of the two slots and syncs it.
    fn write_slot(&mut self, slot: Slot) -> Result<()> {
        let file = &self.file;
        let offset = SLOT_OFFSETS[(slot.sequence % 2) as usize];
        file.index.write_all_at(&slot.encode(), offset).map_err(Error::io("write", &file.index_path))?;
        self.sync(|file| &file.index, |file| &file.index_path)?;
        self.file.slot = slot;
        Ok(())
    }

    /// Syncs one file. The first failure is final: the next sync would report success for bytes that are gone.
    fn sync(&mut self, which: fn(&RecordFile) -> &File, path: fn(&RecordFile) -> &PathBuf) -> Result<()> {
        if let Err(error) = retry_interrupted(|| which(&self.file).sync_data()) {
            self.poisoned = Some(Poison { path: path(&self.file).clone(), cause: error.to_string() });
        }
        self.healthy()
    }

    fn healthy(&self) -> Result<()> {
        match self.poisoned.clone() {
            Some(Poison { path, cause }) => Err(Error::Poisoned { path, cause, checkpoint: self.file.slot.checkpoint }),
            None => Ok(()),
        }
    }
}

impl Machine for Records {
    type Error = Error;

    fn apply(&mut self, range: LsnRange, entries: &mut dyn Iterator<Item = Entry<'_>>) -> Result<()> {
        self.healthy()?;
        if range.from > self.taken {
            return Err(Error::Gap { offered: range.from, applied: self.taken });
        }
        // what an earlier call could not write, so that memory stays bounded on a full disk
        self.write_pending()?;
        for entry in entries {
            if entry.header.lsn >= self.taken {
                self.take(&entry)?;
            }
        }
        self.taken = self.taken.max(range.to);
        self.write_pending()
    }

    fn applied(&self) -> Lsn {
        self.applied
    }

    fn checkpoint(&mut self) -> Result<Lsn> {
        self.healthy()?;
        self.write_pending()?;
        let before = self.file.slot;
        let checkpoint = self.replay_from();
        if checkpoint == before.checkpoint {
            return Ok(checkpoint);
        }
        if self.end.items > before.items {
            self.sync_files()?;
        }
        self.write_slot(Slot {
            sequence: before.sequence + 1,
            checkpoint,
            items: self.end.items,
            data_bytes: self.end.data_end,
            ..before
        })?;
        Ok(checkpoint)
    }
}

/// Checks the index below the checkpoint and the newest data there, and returns the place behind.
fn verify_below_checkpoint(file: &RecordFile) -> Result<Before> {
    let slot = file.slot;
    let needed = item_offset(slot.items);
    let (index_bytes, data_bytes) = (length(&file.index, &file.index_path)?, length(&file.data, &file.data_path)?);
    if index_bytes < needed {
        return Err(Error::Short { path: file.index_path.clone(), bytes: index_bytes, needed });
    }
    if data_bytes < slot.data_bytes {
        return Err(Error::Short { path: file.data_path.clone(), bytes: data_bytes, needed: slot.data_bytes });
    }
    let (end, newest) = file.check_items(slot.data_bytes.saturating_sub(REVERIFY_BYTES))?;
    if end.data_end != slot.data_bytes || end.end > slot.checkpoint {
        let what = format!(
            "its items end at LSN {} and byte {}, its slot says LSN {} and byte {}",
            end.end, end.data_end, slot.checkpoint, slot.data_bytes
        );
        return Err(Error::Damaged { path: file.index_path.clone(), bytes: 0..needed, what });
    }
    let mut walk = file.walk_from(newest);
    while walk.place().items < slot.items {
        if walk.next_record()?.is_none() {
            break;
        }
    }
    Ok(end)
}

fn length(file: &File, path: &Path) -> Result<u64> {
    Ok(file.metadata().map_err(Error::io("look at", path))?.len())
}

fn retry_interrupted(mut call: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
