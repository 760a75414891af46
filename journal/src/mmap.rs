//! The one module with `unsafe`: read-only mappings of segment files.
//!
//! Map and file are one page cache, so what is written through the descriptor is seen through the map at once.
//! Segments are allocated for real before they are mapped and never shortened while mapped, so a page behind the map
//! always exists.
#![allow(unsafe_code)] // the only place: see each block's reason

use std::fs::File;
use std::io;
use std::ops::Range;

use memmap2::{MmapOptions, MmapRaw};

/// A read-only mapping of a whole file.
#[derive(Debug)]
pub(crate) struct Map {
    raw: MmapRaw,
}

impl Map {
    /// Maps the first `bytes` bytes of `file`, which the caller never shortens. Fails if the file is shorter.
    pub(crate) fn new(file: &File, bytes: u64) -> io::Result<Map> {
        let actual = file.metadata()?.len();
        if actual < bytes {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the file has {actual} bytes instead of {bytes}: it was truncated"),
            ));
        }
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        Ok(Map { raw: MmapOptions::new().len(length).map_raw_read_only(file)? })
    }

    /// The bytes in `range`. The caller knows that they don't change any more: they lie below the segment's written
    /// mark, or no writer exists yet. Panics when the range is outside the map.
    pub(crate) fn bytes(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.raw.len(), "slice of a segment outside its file");
        // SAFETY: the range is inside the mapping (asserted above), which lives as long as `self`; the pages are backed
        // by allocated blocks of a file that is never shortened; bytes below the written mark are never stored to again
        // (a cut goes to a new file, a recycled file is renamed only when no slice of it is left), so no writer races
        // with this shared reference.
        unsafe { std::slice::from_raw_parts(self.raw.as_ptr().add(range.start), range.end - range.start) }
    }
}
