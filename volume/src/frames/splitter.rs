//! Bytes in, records out, in pieces of any size.

use std::io::{self, Read};

use journal::Flags;

use super::{Frames, LEN32_PREFIX_BYTES, RAW_RECORD_BYTES_MAX};
use crate::error::{Error, Result};

/// What [`Splitter::fill`] asks a reader for at once.
const FILL_BYTES: usize = 128 << 10;

/// Cuts an input into records without reading it twice.
///
/// Hand in a piece ([`Splitter::push`] or [`Splitter::fill`]), take records until there is none, and so on; after the
/// last piece say [`Splitter::end`] and take the rest. Holds at most one record and one piece. An error is final: the
/// records before it were given out, the input behind it can't be told apart.
#[derive(Debug)]
pub struct Splitter {
    frames: Frames,
    record_bytes_max: usize,
    buffer: Vec<u8>,
    /// Beginning of the next record in `buffer`.
    begin: usize,
    /// Bytes of the next record that are known to hold no newline.
    searched: usize,
    ended: bool,
    /// Place of `begin` in the input, and the number of the record there.
    offset: u64,
    record: u64,
}

/// A record of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split<'a> {
    /// [`Flags::UNTERMINATED`] or nothing; the log adds its own.
    pub flags: Flags,
    /// What the record is.
    pub payload: &'a [u8],
}

impl Splitter {
    /// A splitter that refuses records above `record_bytes_max` bytes.
    pub fn new(frames: Frames, record_bytes_max: usize) -> Splitter {
        Splitter {
            frames,
            record_bytes_max,
            buffer: Vec::new(),
            begin: 0,
            searched: 0,
            ended: false,
            offset: 0,
            record: 0,
        }
    }

    /// The next piece of the input. Take all records first: what is pushed in between adds up.
    pub fn push(&mut self, piece: &[u8]) {
        self.make_room();
        self.buffer.extend_from_slice(piece);
    }

    /// Reads the next piece from `input`, blocking until something arrives; 0 at its end, which counts as
    /// [`Splitter::end`].
    pub fn fill(&mut self, input: &mut impl Read) -> io::Result<usize> {
        self.make_room();
        let kept = self.buffer.len();
        self.buffer.resize(kept + FILL_BYTES, 0);
        let read = loop {
            match input.read(&mut self.buffer[kept..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        self.buffer.truncate(kept + *read.as_ref().unwrap_or(&0));
        self.ended |= matches!(read, Ok(0));
        read
    }

    /// There is no more input.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The next whole record; `None` when it needs more input, or at the end.
    ///
    /// [`Error::TooLarge`] for a record above the limit, as soon as that is known; [`Error::CutShort`] when the input
    /// ended inside a `len32` record.
    pub fn next_record(&mut self) -> Result<Option<Split<'_>>> {
        let found = match self.frames {
            Frames::Lines => self.find_line()?,
            Frames::Len32 => self.find_len32()?,
            Frames::Raw => self.find_raw(),
        };
        let Some(Found { skip, bytes, behind, flags }) = found else { return Ok(None) };
        let from = self.begin + skip;
        self.begin = from + bytes + behind;
        self.offset += (skip + bytes + behind) as u64;
        self.record += 1;
        self.searched = 0;
        Ok(Some(Split { flags, payload: &self.buffer[from..from + bytes] }))
    }

    fn find_line(&mut self) -> Result<Option<Found>> {
        let rest = &self.buffer[self.begin..];
        let newline = rest[self.searched..].iter().position(|&byte| byte == b'\n').map(|at| self.searched + at);
        self.searched = rest.len();
        let bytes = newline.unwrap_or(rest.len());
        if bytes > self.record_bytes_max {
            return Err(self.too_large());
        }
        Ok(match newline {
            Some(_) => Some(Found { skip: 0, bytes, behind: 1, flags: Flags::NONE }),
            None if self.ended && bytes > 0 => Some(Found { skip: 0, bytes, behind: 0, flags: Flags::UNTERMINATED }),
            None => None,
        })
    }

    fn find_len32(&self) -> Result<Option<Found>> {
        let rest = &self.buffer[self.begin..];
        let Some((prefix, payload)) = rest.split_first_chunk::<LEN32_PREFIX_BYTES>() else {
            return self.unless_ended(rest.len(), LEN32_PREFIX_BYTES as u64);
        };
        let bytes = u32::from_le_bytes(*prefix) as usize;
        if bytes > self.record_bytes_max {
            return Err(self.too_large());
        }
        if payload.len() < bytes {
            return self.unless_ended(rest.len(), (LEN32_PREFIX_BYTES + bytes) as u64);
        }
        Ok(Some(Found { skip: LEN32_PREFIX_BYTES, bytes, behind: 0, flags: Flags::NONE }))
    }

    /// Nothing yet; an error when nothing more will come although a record has begun.
    fn unless_ended(&self, present: usize, needed: u64) -> Result<Option<Found>> {
        if self.ended && present > 0 {
            let present = present as u64;
            return Err(Error::CutShort { record: self.record, offset: self.offset, present, needed });
        }
        Ok(None)
    }

    fn find_raw(&self) -> Option<Found> {
        let bytes = (self.buffer.len() - self.begin).min(RAW_RECORD_BYTES_MAX).min(self.record_bytes_max.max(1));
        (bytes > 0).then_some(Found { skip: 0, bytes, behind: 0, flags: Flags::NONE })
    }

    fn too_large(&self) -> Error {
        Error::TooLarge { record: self.record, offset: self.offset, bytes_max: self.record_bytes_max }
    }

    /// Forgets the records that were given out.
    fn make_room(&mut self) {
        self.buffer.drain(..self.begin);
        self.begin = 0;
    }
}

/// Where the next record lies behind `begin`.
struct Found {
    skip: usize,
    bytes: usize,
    behind: usize,
    flags: Flags,
}
