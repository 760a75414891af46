//! The older part of the history, behind the slots: a log may have any number of epochs.
//!
//! ```text
//!  532480 block 0, first copy (4 KiB)    64 openings … | crc u32 at 4092
//!  536576 block 0, second copy
//!  540672 block 1 …
//! ```
//! The facts say how many blocks count, and hold the openings behind those themselves. A block is written, both copies,
//! and synced before facts count it, and never written while a slot on the disk counts it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::slots::{FILE_BYTES, put_opening, take_opening};
use crate::codec::{Put, Take};
use crate::entry::crc32c;
use crate::epoch::Opening;
use crate::error::{Error, Result};
use crate::id::StreamId;

const MAGIC: [u8; 8] = *b"TOWLHIST";
const VERSION: u16 = 1;
pub(crate) const BLOCK_BYTES: usize = 4096;
/// Openings in a block.
pub(crate) const BLOCK_OPENINGS: usize = 64;
/// Openings that the facts hold themselves; with more of them, whole blocks of the oldest are written behind the slots.
/// The facts are written at every change, so they stay short.
pub(super) const FACTS_OPENINGS_MAX: usize = 2 * BLOCK_OPENINGS;

/// Where both copies of a block are.
pub(super) fn copies_of(number: u32) -> [u64; 2] {
    let first = FILE_BYTES + 2 * u64::from(number) * BLOCK_BYTES as u64;
    [first, first + BLOCK_BYTES as u64]
}

pub(crate) fn encode_block(number: u32, stream: StreamId, openings: &[Opening]) -> Vec<u8> {
    let mut put = Put::default();
    put.bytes(&MAGIC).u16(VERSION).u16(openings.len() as u16).u32(number).bytes(stream.as_bytes());
    openings.iter().for_each(|opening| put_opening(&mut put, opening));
    let mut block = put.0;
    block.resize(BLOCK_BYTES - 4, 0);
    let crc = crc32c(&block);
    block.extend_from_slice(&crc.to_le_bytes());
    block
}

/// The openings of a block that is whole, and that number of that stream.
pub(crate) fn decode_block(number: u32, stream: StreamId, block: &[u8]) -> Option<Vec<Opening>> {
    let (fields, crc) = block.split_at_checked(BLOCK_BYTES - 4)?;
    let mut take = Take(fields);
    let known = crc32c(fields).to_le_bytes() == crc && take.array()? == MAGIC && take.u16()? == VERSION;
    let full = take.u16()? as usize == BLOCK_OPENINGS;
    let this = take.u32()? == number && StreamId::from_bytes(take.array()?) == stream;
    (known && full && this).then(|| (0..BLOCK_OPENINGS).map(|_| take_opening(&mut take)).collect())?
}

/// Reads the first `count` blocks; `None` when one of them is damaged in both copies.
pub(super) fn read_blocks(file: &File, path: &Path, stream: StreamId, count: u32) -> Result<Option<Vec<Opening>>> {
    let mut openings = Vec::new();
    for number in 0..count {
        let Some(block) = read_block(file, stream, number).map_err(Error::io("read", path))? else { return Ok(None) };
        openings.extend(block);
    }
    Ok(Some(openings))
}

/// One of its copies; an error when none is whole and one can't be read.
fn read_block(file: &File, stream: StreamId, number: u32) -> io::Result<Option<Vec<Opening>>> {
    let mut unread = None;
    for at in copies_of(number) {
        let mut block = [0; BLOCK_BYTES];
        match file.read_exact_at(&mut block, at) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
            Err(error) => {
                unread = Some(error);
                continue;
            }
        }
        if let Some(openings) = decode_block(number, stream, &block) {
            return Ok(Some(openings));
        }
    }
    unread.map_or(Ok(None), Err)
}
