//! The one module with `unsafe`: read-only mappings of segment files, and what happens when a page can't be had.
//!
//! Map and file are one page cache, so what is written through the descriptor is seen through the map at once.
//! Segments are allocated for real before they are mapped and never shortened while mapped, so a page behind the map
//! always exists. What is left is a disk that can't read a page back, and a file that somebody else shortened: the kernel
//! then sends SIGBUS, and [`guard`] says which file and where before the process ends.
#![allow(unsafe_code)] // the only place: see each block's reason

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr;
use std::sync::OnceLock;

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{Mode, OFlags};

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
        guard();
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

/// What SIGBUS meant before: taken up again once the fault has been named.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();
/// Longest path that is named whole.
const LINE_BYTES: usize = 1024;

/// Has a page that can't be had named on standard error: file, offset, what to do. The signal then takes the course that
/// it had before: unless the program chose otherwise, the process ends by SIGBUS.
fn guard() {
    BEFORE.get_or_init(|| {
        let mut before = MaybeUninit::<libc::sigaction>::zeroed();
        let act = libc::sigaction {
            sa_sigaction: name_fault as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize,
            sa_flags: libc::SA_SIGINFO,
            // SAFETY: a signal set is plain numbers; all zero is the empty set.
            sa_mask: unsafe { MaybeUninit::zeroed().assume_init() },
            sa_restorer: None,
        };
        // SAFETY: both pointers are to live values of the right type; the handler makes async-signal-safe calls alone.
        // A failure leaves `before` zeroed, which is the default action, and the signal as it was.
        unsafe {
            libc::sigaction(libc::SIGBUS, &act, before.as_mut_ptr());
            before.assume_init()
        }
    });
}

/// The handler: system calls and a buffer on the stack, nothing that allocates or locks.
extern "C" fn name_fault(_signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel hands a valid siginfo to a handler with SA_SIGINFO.
    let (address, is_sent) = unsafe { ((*info).si_addr() as usize, (*info).si_code <= 0) };
    let mut line = [0; LINE_BYTES];
    if !is_sent && let Some((path, offset)) = mapped_file(address, &mut line) {
        let mut digits = [0; 20];
        let parts: [&[u8]; 5] = [
            b"towline: ",
            path,
            b": the page at byte ",
            decimal(offset, &mut digits),
            b" can't be read: the disk failed, or the file was shortened while it was in use. Nothing more is \
acknowledged; this process ends. Look at the disk (dmesg), then type: towline verify DIR\n",
        ];
        for part in parts {
            // SAFETY: descriptor 2 is not closed by this program; a write to whatever it is harms nothing.
            let stderr = unsafe { rustix::fd::BorrowedFd::borrow_raw(2) };
            let _ = rustix::io::write(stderr, part);
        }
    }
    // SAFETY: the value is one that sigaction gave out, or all zero (the default action). The instruction is tried again
    // when this returns, and the signal takes its former course.
    unsafe {
        match BEFORE.get() {
            Some(before) => libc::sigaction(libc::SIGBUS, before, ptr::null_mut()),
            None => libc::sigaction(libc::SIGBUS, MaybeUninit::zeroed().as_ptr(), ptr::null_mut()),
        };
        if is_sent {
            // no instruction brings it about again
            libc::raise(libc::SIGBUS);
        }
    }
}

/// The file that is mapped at `address`, and the byte of it, as the kernel tells them.
fn mapped_file(address: usize, line: &mut [u8; LINE_BYTES]) -> Option<(&[u8], u64)> {
    let maps = rustix::fs::open(c"/proc/self/maps", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut chunk = [0; 512];
    let mut length = 0;
    loop {
        let read = rustix::io::read(&maps, &mut chunk).ok().filter(|&read| read > 0)?;
        for &byte in &chunk[..read] {
            if byte == b'\n' {
                if let Some((at, offset)) = file_line(&line[..length], address) {
                    return Some((&line[at..length], offset));
                }
                length = 0;
            } else if length < line.len() {
                line[length] = byte;
                length += 1;
            }
        }
    }
}

/// Where the path begins in a line of /proc/self/maps that covers `address`, and the offset in that file.
fn file_line(line: &[u8], address: usize) -> Option<(usize, u64)> {
    let mut fields = line.split(|&byte| byte == b' ');
    let mut range = fields.next()?.split(|&byte| byte == b'-');
    let (from, to) = (hexadecimal(range.next()?)?, hexadecimal(range.next()?)?);
    let address = address as u64;
    let offset = hexadecimal(fields.nth(1)?)?;
    let at = line.iter().position(|&byte| byte == b'/')?;
    (from <= address && address < to).then(|| (at, offset + (address - from)))
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |number, &digit| Some(number << 4 | u64::from((digit as char).to_digit(16)?)))
}

fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mapped_file_and_the_byte_are_found() {
        let line = b"7f00deadb000-7f00deadf000 r--s 00002000 08:01 131 /data/a b/0000.seg";
        let found = file_line(line, 0x7f00deadc010);
        assert_eq!(found.map(|(at, offset)| (&line[at..], offset)), Some((&b"/data/a b/0000.seg"[..], 0x3010)));
        for elsewhere in [0, 0x7f00deadafff, 0x7f00deadf000, usize::MAX] {
            assert_eq!(file_line(line, elsewhere), None);
        }
        assert_eq!(file_line(b"7f00deadb000-7f00deadf000 rw-p 00000000 00:00 0 ", 0x7f00deadc010), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8192).unwrap();
        let map = Map::new(file.as_file(), 8192).unwrap();
        let (address, mut line) = (map.bytes(5000..5001).as_ptr() as usize, [0; LINE_BYTES]);
        let (path, offset) = mapped_file(address, &mut line).unwrap();
        assert_eq!((path, offset), (file.path().to_str().unwrap().as_bytes(), 5000));
    }

    #[test]
    fn numbers_are_printed_without_help() {
        for number in [0, 7, 10, 4096, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }
}
