//! The body of a segment file, read by `pread` into an own buffer: what the disk refuses is an error here and no signal, and
//! little memory is taken however large the segment is.

use std::fmt;
use std::io;
use std::os::unix::fs::FileExt;

use crate::cursor::{Cursor, Fault, FaultKind, Next, Tip};
use crate::entry::Header;
use crate::geometry::{
    ENTRY_ALIGN, EPOCH_ROOM_BYTES, Geometry, HEADER_BYTES, PAYLOAD_BYTES_MAX, SEGMENT_HEADER_BYTES, entry_bytes,
};
use crate::lsn::{Lsn, LsnRange};
use crate::recovery::believable_at;

/// No entry takes more, and no `Pad`.
pub(crate) const ENTRY_BYTES_MAX: usize = entry_bytes(PAYLOAD_BYTES_MAX) as usize + EPOCH_ROOM_BYTES as usize;
/// Read at once.
const READ_BYTES: usize = 2 * ENTRY_BYTES_MAX;

/// A segment's body.
pub(crate) struct Body {
    file: Box<dyn FileExt + Send>,
    geometry: Geometry,
    range: LsnRange,
    buffer: Vec<u8>,
    /// LSN of the buffer's first byte.
    buffer_at: Lsn,
    /// Bytes of the buffer that were read.
    filled: usize,
    /// The buffer ends where the file does, or where it can't be read.
    ended: bool,
    failed: Option<io::Error>,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("range", &self.range).finish_non_exhaustive()
    }
}

impl Body {
    /// The body of the segment at `first` in `file`.
    pub(crate) fn new(file: Box<dyn FileExt + Send>, geometry: Geometry, first: Lsn) -> Body {
        let range = LsnRange::new(first, first.advance(geometry.body_bytes()));
        Body { file, geometry, range, buffer: Vec::new(), buffer_at: first, filled: 0, ended: false, failed: None }
    }

    /// What it covers.
    pub(crate) fn range(&self) -> LsnRange {
        self.range
    }

    /// The tip behind the entry that follows `tip`, if a whole one stands there.
    pub(crate) fn step(&mut self, tip: &Tip) -> Result<Tip, Fault> {
        let mut cursor = Cursor::new(self.geometry, *tip);
        match cursor.next(self.bytes(tip.lsn)) {
            Ok(Next::Entry(_)) => Ok(*cursor.tip()),
            Ok(Next::Need(_)) => Err(Fault { at: tip.lsn, kind: FaultKind::Short, to: tip.lsn }),
            Err(fault) => Err(fault),
        }
    }

    /// Why the bytes that were asked for last ended early, if the disk refused them.
    pub(crate) fn refusal(&self) -> Option<String> {
        self.failed.as_ref().map(ToString::to_string)
    }

    /// The bytes from `at` on: enough for any entry, unless the body ends before, or the file does, or it can't be read.
    pub(crate) fn bytes(&mut self, at: Lsn) -> &[u8] {
        let end = self.buffer_at.advance(self.filled as u64);
        let enough = (ENTRY_BYTES_MAX as u64).min(self.range.to.bytes_since(at));
        let held = self.buffer_at <= at && at < end && (self.ended || end.bytes_since(at) >= enough);
        if !held {
            self.fill(at);
        }
        self.buffer.get(at.bytes_since(self.buffer_at) as usize..self.filled).unwrap_or_default()
    }

    fn fill(&mut self, at: Lsn) {
        let wanted = (READ_BYTES as u64).min(self.range.to.bytes_since(at)) as usize;
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        // what is held already is not read again
        let passed = at.bytes_since(self.buffer_at) as usize;
        let mut filled = match at >= self.buffer_at && passed < self.filled {
            true => self.filled - passed,
            false => 0,
        };
        self.buffer.copy_within(self.filled - filled..self.filled, 0);
        self.buffer_at = at;
        self.failed = None;
        let offset = SEGMENT_HEADER_BYTES as u64 + at.bytes_since(self.range.from);
        while filled < wanted {
            match self.file.read_at(&mut self.buffer[filled..wanted], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        self.filled = filled;
        self.ended = filled < wanted;
    }

    /// The next entry behind `at` that can be believed: it names its own place, and its payload matches.
    pub(crate) fn believable(&mut self, at: Lsn) -> Option<Header> {
        let mut here = at;
        loop {
            here = here.advance(ENTRY_ALIGN as u64);
            if self.range.to.bytes_since(here) < HEADER_BYTES as u64 {
                return None;
            }
            if let Some(header) = believable_at(self.bytes(here), here) {
                return Some(header);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::entry::{Flags, Kind, crc32c};
    use crate::id::StreamId;
    use crate::time::Time;
    use crate::{Draft, Epoch};

    /// A disk with one bad sector, that counts what is read.
    struct Failing {
        bytes: Vec<u8>,
        bad: std::ops::Range<u64>,
        read: Arc<AtomicUsize>,
    }

    impl FileExt for Failing {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            if self.bad.contains(&offset) {
                return Err(io::Error::from_raw_os_error(5));
            }
            let end = if offset < self.bad.start { self.bad.start } else { self.bytes.len() as u64 };
            let count = buffer.len().min(end.saturating_sub(offset) as usize);
            buffer[..count].copy_from_slice(&self.bytes[offset as usize..offset as usize + count]);
            self.read.fetch_add(count, Ordering::Relaxed);
            Ok(count)
        }

        fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// A body of ten records of `payload_bytes` each, and the tips in front of them.
    fn body_of(body_bytes: u32, payload_bytes: usize, bad: std::ops::Range<u64>) -> (Body, Vec<Tip>, Arc<AtomicUsize>) {
        let geometry = Geometry::new(body_bytes).expect("a geometry");
        let stream = StreamId::random();
        let mut tip = Tip { epoch: Epoch::default(), ..Tip::empty(stream) };
        let mut bytes = vec![0; SEGMENT_HEADER_BYTES];
        let payload = vec![7; payload_bytes];
        let mut tips = vec![tip];
        for _ in 0..10 {
            let flags = Flags::FIRST.with(Flags::LAST);
            let draft = Draft {
                kind: Kind::Data,
                flags,
                volume: 0,
                producer: 0,
                sequence: 0,
                parts: &[&payload],
                payload_crc: crc32c(&payload),
            };
            draft.lay(&mut tip, Time::ZERO, Lsn::ZERO, &mut bytes);
            tips.push(tip);
        }
        bytes.resize(SEGMENT_HEADER_BYTES + geometry.body_bytes() as usize, 0);
        let read = Arc::new(AtomicUsize::new(0));
        (Body::new(Box::new(Failing { bytes, bad, read: read.clone() }), geometry, Lsn::ZERO), tips, read)
    }

    /// What the disk refuses is named where it lies; what stands before and behind is still read.
    #[test]
    fn a_bad_sector_is_a_short_entry_with_its_cause() {
        let sector = SEGMENT_HEADER_BYTES as u64 + 2048..SEGMENT_HEADER_BYTES as u64 + 2560;
        let (mut body, tips, _) = body_of(64 << 10, 1000, sector);
        assert_eq!(body.step(&tips[0]), Ok(tips[1]));
        let fault = body.step(&tips[1]).expect_err("it lies in the bad sector");
        assert_eq!((fault.at, fault.kind), (tips[1].lsn, FaultKind::Short));
        assert!(body.refusal().is_some_and(|cause| cause.contains("os error 5")), "{:?}", body.refusal());
        assert!(body.step(&tips[2]).is_err(), "it begins in the bad sector");
        assert_eq!(body.step(&tips[3]), Ok(tips[4]));
        assert_eq!(body.refusal(), None);
    }

    /// A body larger than the buffer is read piece by piece, and each byte once.
    #[test]
    fn a_large_body_is_read_once() {
        let (mut body, tips, read) = body_of(16 << 20, 1 << 20, 0..0);
        for pair in tips.windows(2) {
            assert_eq!(body.step(&pair[0]), Ok(pair[1]));
        }
        let (passed, read) = (tips[10].lsn.get() as usize, read.load(Ordering::Relaxed));
        assert!(passed > 4 * ENTRY_BYTES_MAX && read <= passed + READ_BYTES, "{read} bytes read for {passed}");
        assert_eq!(body.step(&tips[1]), Ok(tips[2]), "and back again");
    }

    #[test]
    fn the_next_believable_entry_is_found_behind_a_damaged_place() {
        let (mut body, tips, _) = body_of(64 << 10, 300, 0..0);
        assert_eq!(body.believable(tips[2].lsn).map(|header| header.lsn), Some(tips[3].lsn));
        assert_eq!(body.believable(tips[10].lsn), None);
    }
}
