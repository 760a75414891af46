//! Making segment files before they are needed.
//!
//! ```text
//!  flush thread -- a piece at a time, with pauses --> [under way] --whole--> pool of spares
//!  an appender that has no room --------------------> [under way] --at once->
//! ```
//! One file is under way at a time, outside every other lock: staging, writing and syncing go on beside it. Each piece is
//! synced by itself, so a commit that meets the maker at the disk waits for one piece and not for a whole file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::class::Class;
use crate::error::{Error, Result};
use crate::log::Journal;
use crate::lsn::Lsn;
use crate::segment::file_bytes;
use crate::space::Spare;
use crate::storage::{Storage, StorageFile};
use crate::sync::atomic::Ordering;
use crate::sync::{MutexGuard, now};

/// The scheduler of the tests has small segments: they too are made in several pieces.
const SMALL: bool = cfg!(feature = "shuttle");
/// One write. The page cache keeps what was written at once as one folio, and every later write into it goes through all of
/// that: after writes of 4 MiB, appending 1 KiB at a time came to a third of the speed.
const WRITE_BYTES: usize = 128 << 10;
/// Written and synced at once while there is time.
const PIECE_BYTES: u64 = if SMALL { 16 << 10 } else { 256 << 10 };
/// The same when the log may get there first.
const HASTY_PIECE_BYTES: u64 = if SMALL { 28 << 10 } else { 4 << 20 };
/// Log that brings this much for each sync gains nothing from files that were written in full before: what such a file
/// saves is a metadata commit per sync, what it costs is every byte a second time.
const BULK_BYTES_PER_SYNC: u64 = if SMALL { 32 << 10 } else { 512 << 10 };
/// The least time off between two pieces: most of the disk's time belongs to commits.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// Times off for the time that a piece took, while the file grows at least twice as fast as the log.
const AHEAD_PAUSES: u32 = 30;
static ZEROS: [u8; WRITE_BYTES] = [0; WRITE_BYTES];

/// The file under way, and what the log did while the last one was used.
#[derive(Debug, Default)]
pub(crate) struct Maker {
    under_way: Option<Making>,
    /// End of the log and number of its syncs when an appender last had no room.
    seen: (Lsn, u64),
}

#[derive(Debug)]
struct Making {
    aside: PathBuf,
    file: Arc<dyn StorageFile>,
    written: u64,
    /// End of the log when it was begun.
    begun_at: Lsn,
}

impl Journal {
    /// Makes room in the log up to `to`; returns how far it reaches. Blocking: files may be written in full. Where there
    /// is no space, log that nobody needs is given up first, then that of holders who give way.
    ///
    /// Errors: `Full` and `Budget` keep the room that could be made; a failed sync is final here too.
    pub(crate) fn reserve_to(&self, to: Lsn) -> Result<Lsn> {
        loop {
            let reserved = self.space().reserved_to();
            if reserved >= to {
                return Ok(reserved);
            }
            let mut maker = self.maker();
            if self.space().reserved_to() < to {
                let bulk = self.is_bulk(&mut maker);
                let before = self.oldest_segment();
                let made = match self.make_spare(&mut maker, bulk) {
                    // somebody may have removed a branch or a damaged segment
                    Err(Error::Budget { .. }) if self.space().count(self.dir())? => continue,
                    made => made,
                };
                self.or_prune(before, made, true)?;
            }
        }
    }

    /// What the flush thread does for the segment after the next: one piece of it. Returns how long to leave the disk
    /// alone before the next piece; `None` when there is nothing to do.
    pub(crate) fn prepare(&self) -> Result<Option<Duration>> {
        let body = self.geometry().body_bytes();
        let staged = self.board().staged();
        let Some(wanted) = staged.checked_add(2 * body) else { return Ok(None) };
        let reserved = self.space().reserved_to();
        if reserved >= wanted {
            return Ok(None);
        }
        let mut maker = self.maker();
        let begun = now();
        let before = self.oldest_segment();
        let taken = self.take_up(&mut maker);
        // nobody gives way for what no append needs yet
        let Some(making) = self.or_prune(before, taken, false)? else { return Ok(Some(Duration::ZERO)) };
        let room = reserved.bytes_since(staged);
        let missing = file_bytes(self.geometry()) - making.written;
        let (bytes, pauses) = if missing > room + room / 4 {
            (HASTY_PIECE_BYTES, 0)
        } else if making.written >= 2 * staged.bytes_since(making.begun_at) {
            (PIECE_BYTES, AHEAD_PAUSES)
        } else {
            (PIECE_BYTES, 1)
        };
        let making = self.write_piece(making, bytes)?;
        if self.is_whole(&making) {
            self.finish(making)?;
        } else {
            maker.under_way = Some(making);
        }
        Ok(Some((now() - begun).max(PAUSE_MIN) * pauses))
    }

    /// True when the log came in large groups since the last time an appender had no room.
    fn is_bulk(&self, maker: &mut Maker) -> bool {
        let (end, syncs) = (self.board().staged(), self.shared.syncs.load(Ordering::Relaxed));
        let (end_then, syncs_then) = std::mem::replace(&mut maker.seen, (end, syncs));
        end.get().saturating_sub(end_then.get()) / syncs.saturating_sub(syncs_then).max(1) >= BULK_BYTES_PER_SYNC
    }

    /// Where there is no space for it, gives up what nobody needs of the log, or what those need who give way: `None` when
    /// that made room.
    fn or_prune<T>(&self, before: Lsn, made: Result<T>, make_way: bool) -> Result<Option<T>> {
        match made {
            Err(error) if error.class() == Class::Full => match self.prune_for_room(before, make_way)? {
                true => Ok(None),
                false => Err(self.naming_holder(error)),
            },
            made => made.map(Some),
        }
    }

    /// Adds a spare to the pool now. In `bulk` an allocated file is enough.
    fn make_spare(&self, maker: &mut Maker, bulk: bool) -> Result<()> {
        let mut making = self.take_up(maker)?;
        while !bulk && !self.is_whole(&making) {
            making = self.write_piece(making, HASTY_PIECE_BYTES)?;
        }
        self.finish(making)
    }

    /// The file under way, or a new one.
    fn take_up(&self, maker: &mut Maker) -> Result<Making> {
        if let Some(making) = maker.under_way.take() {
            return Ok(making);
        }
        let bytes = file_bytes(self.geometry());
        let aside = self.space().begin()?;
        // errors name the folder: the file has another name at every attempt, and is gone after it
        match self.storage().create(&aside, bytes).map_err(Error::io("allocate a segment in", self.dir())) {
            Ok(file) => Ok(Making { aside, file, written: 0, begun_at: self.board().staged() }),
            Err(error) => {
                self.space().forget();
                Err(error)
            }
        }
    }

    /// Writes and syncs the next piece. A failed sync is final here too.
    fn write_piece(&self, mut making: Making, bytes: u64) -> Result<Making> {
        let end = file_bytes(self.geometry()).min(making.written + bytes);
        while making.written < end {
            let count = ZEROS.len().min((end - making.written) as usize);
            if let Err(source) = making.file.write_at(&ZEROS[..count], making.written) {
                self.give_up(&making);
                return Err(Error::io("write a segment in", self.dir())(source));
            }
            making.written += count as u64;
        }
        if let Err(source) = making.file.sync() {
            self.give_up(&making);
            return self.checked(Err(self.poisoned(self.dir(), &source)));
        }
        Ok(making)
    }

    fn is_whole(&self, making: &Making) -> bool {
        making.written == file_bytes(self.geometry())
    }

    fn finish(&self, making: Making) -> Result<()> {
        let mut space = self.space();
        let path = space.spare_path();
        if let Err(source) = self.storage().rename(&making.aside, &path) {
            drop(space);
            self.give_up(&making);
            return Err(Error::io("rename a segment in", self.dir())(source));
        }
        space.keep(Spare { path, file: making.file });
        Ok(())
    }

    /// Half a spare is worth nothing; if it can't be removed now, opening removes it.
    fn give_up(&self, making: &Making) {
        if let Err(left) = self.storage().remove(&making.aside) {
            tracing::debug!(path = %making.aside.display(), error = %left, "remove a half-made spare");
        }
        self.space().forget();
    }

    fn storage(&self) -> &dyn Storage {
        &*self.shared.options.host.storage
    }

    pub(crate) fn maker(&self) -> MutexGuard<'_, Maker> {
        self.whole(self.shared.maker.lock())
    }
}
