//! Frames behind an `append` request and behind the answer to `tail`.
//!
//! ```text
//!  0 body length u32 | 4 kind u8 | 5 zero u8 | 6 flags u16 | 8 body …          integers little endian
//!
//!  Record to the node    body = payload
//!  Record from the node  body = first LSN u64 | end LSN u64 | time u64 | payload
//!  End                   no body: the sender is done (a closed connection without it is a broken one)
//!  Failure               body = a [`super::Failure`] as JSON
//! ```

use journal::Flags;

/// Bytes in front of a frame's body.
pub const FRAME_HEAD_BYTES: usize = 8;
/// Bytes in front of the payload of a record from the node.
pub(crate) const RECORD_HEAD_BYTES: usize = 24;
/// Largest body either side accepts: no stream takes a larger record.
pub const FRAME_BODY_BYTES_MAX: usize = (1 << 30) + RECORD_HEAD_BYTES;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// One record.
    Record = 1,
    /// The sender is done.
    End = 2,
    /// The node can't go on.
    Failure = 3,
}

/// The first eight bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// What it is.
    pub kind: FrameKind,
    /// Flags of the record: only those that a client may set.
    pub flags: Flags,
    /// Bytes behind the head.
    pub body_bytes: usize,
}

impl FrameHead {
    /// The flags that a client may set.
    const FLAGS: u16 = Flags::UNTERMINATED.0;

    /// The bytes.
    pub fn encode(self) -> [u8; FRAME_HEAD_BYTES] {
        let mut out = [0; FRAME_HEAD_BYTES];
        out[..4].copy_from_slice(&(self.body_bytes as u32).to_le_bytes());
        out[4] = self.kind as u8;
        out[6..].copy_from_slice(&(self.flags.0 & FrameHead::FLAGS).to_le_bytes());
        out
    }

    /// Reads the bytes; `None` when they are no frame or one that is too large.
    pub fn decode(bytes: [u8; FRAME_HEAD_BYTES]) -> Option<FrameHead> {
        let [l0, l1, l2, l3, kind, zero, f0, f1] = bytes;
        let kind = match kind {
            1 => FrameKind::Record,
            2 => FrameKind::End,
            3 => FrameKind::Failure,
            _ => return None,
        };
        let body_bytes = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let flags = u16::from_le_bytes([f0, f1]);
        let fits = body_bytes <= FRAME_BODY_BYTES_MAX && zero == 0 && flags & !FrameHead::FLAGS == 0;
        fits.then_some(FrameHead { kind, flags: Flags(flags), body_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_back() {
        for (kind, flags, body_bytes) in [
            (FrameKind::Record, Flags::NONE, 0),
            (FrameKind::Record, Flags::UNTERMINATED, 17),
            (FrameKind::End, Flags::NONE, 0),
            (FrameKind::Failure, Flags::NONE, FRAME_BODY_BYTES_MAX),
        ] {
            let head = FrameHead { kind, flags, body_bytes };
            assert_eq!(FrameHead::decode(head.encode()), Some(head));
        }
    }

    #[test]
    fn what_is_no_head_is_refused() {
        let head = FrameHead { kind: FrameKind::Record, flags: Flags::NONE, body_bytes: 5 }.encode();
        let with = |at: usize, byte: u8| {
            let mut bytes = head;
            bytes[at] = byte;
            FrameHead::decode(bytes)
        };
        assert_eq!(with(4, 9), None, "an unknown kind");
        assert_eq!(with(5, 1), None, "something where a zero belongs");
        assert_eq!(with(7, 1), None, "a flag that no client may set");
        assert_eq!(with(3, 0xff), None, "a length above the limit");
    }
}
