//! The frame around every message: what it is, how long, and whether it arrived whole.
//!
//! ```text
//!  0 'T' 'W' | 2 framing u8 = 1 | 3 type u8 | 4 body bytes u32 | 8 body crc u32 | 12 head crc u32 | 16 body …
//! ```
//! The head has its own checksum, so a flipped length is found before anybody waits for bytes that never come. The
//! body checksum covers the whole body, but for `Entries` and `BatchPart` only the fixed fields in front of the bytes:
//! entries are verified by a `journal::Cursor` anyway (chain and payload CRC), a batch by its blake3, and both are
//! large enough that a second pass over them would show.

use journal::{HEADER_BYTES, PAYLOAD_BYTES_MAX, crc32c};

use crate::error::{Error, Result};
use crate::message::Message;

/// First bytes of every frame.
const MAGIC: [u8; 2] = *b"TW";
/// Version of the frame and of `Refused`: any two protocol versions can at least tell each other why not.
const FRAMING: u8 = 1;
/// Bytes in front of every body.
pub(crate) const HEAD_BYTES: usize = 16;
/// Session and LSN in front of the entries.
pub(crate) const ENTRIES_FIXED_BYTES: usize = 16;
/// Offset in front of the bytes of a batch.
pub(crate) const PART_FIXED_BYTES: usize = 8;

/// Largest greeting. It is read before the other side is known.
pub const GREETING_BYTES_MAX: usize = 1 << 20;
/// Most openings in a greeting, the newest ones: more than two years of hourly restarts. Older ones would only say where
/// two logs parted that long ago.
pub const GREETING_OPENINGS_MAX: usize = (GREETING_BYTES_MAX - GREETING_FIXED_BYTES) / OPENING_BYTES;
/// More than everything else in a greeting.
const GREETING_FIXED_BYTES: usize = 1 << 10;
/// Bytes of an opening.
pub(crate) const OPENING_BYTES: usize = 56;
/// Largest other message without bytes of a log or batch in it.
pub const CONTROL_BYTES_MAX: usize = 4 << 10;
/// Most log bytes in one `Entries`: 2 MiB, and the one entry that may begin below that.
pub const ENTRIES_BYTES_MAX: usize = (2 << 20) + PAYLOAD_BYTES_MAX + 2 * HEADER_BYTES;
/// Most bytes in one `BatchPart`.
pub const PART_BYTES_MAX: usize = 1 << 20;
/// Largest frame of all.
pub(crate) const FRAME_BYTES_MAX: usize = HEAD_BYTES + ENTRIES_FIXED_BYTES + ENTRIES_BYTES_MAX;

/// Most copies of a stream that a node names.
pub const HOLDINGS_MAX: usize = 64;
/// Longest name of a stream, node or batch, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest text for people, in bytes; longer ones are cut at a character.
pub const TEXT_BYTES_MAX: usize = 1024;

const _: () = assert!(FRAME_BYTES_MAX < u32::MAX as usize);
const _: () = assert!(3 * (TEXT_BYTES_MAX + 2) < CONTROL_BYTES_MAX);

/// What a message is: its number in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Type {
    Greeting = 1,
    Refused = 2,
    Start = 3,
    Ready = 4,
    Entries = 5,
    Ack = 6,
    Announce = 7,
    Alive = 8,
    Bye = 9,
    DepotHello = 16,
    DepotState = 17,
    BatchOffer = 18,
    BatchHave = 19,
    BatchPart = 20,
    BatchStored = 21,
    CopyHello = 24,
    CopyState = 25,
    CopyAsk = 26,
    CopyLacks = 27,
}

impl Type {
    const ALL: [Type; 19] = [
        Type::Greeting,
        Type::Refused,
        Type::Start,
        Type::Ready,
        Type::Entries,
        Type::Ack,
        Type::Announce,
        Type::Alive,
        Type::Bye,
        Type::DepotHello,
        Type::DepotState,
        Type::BatchOffer,
        Type::BatchHave,
        Type::BatchPart,
        Type::BatchStored,
        Type::CopyHello,
        Type::CopyState,
        Type::CopyAsk,
        Type::CopyLacks,
    ];

    fn from_u8(code: u8) -> Option<Type> {
        Type::ALL.into_iter().find(|kind| *kind as u8 == code)
    }

    pub(crate) fn of(message: &Message) -> Type {
        match message {
            Message::Greeting(_) => Type::Greeting,
            Message::Refused(_) => Type::Refused,
            Message::Start(_) => Type::Start,
            Message::Ready(_) => Type::Ready,
            Message::Entries { .. } => Type::Entries,
            Message::Ack(_) => Type::Ack,
            Message::Announce(_) => Type::Announce,
            Message::Alive(_) => Type::Alive,
            Message::Bye { .. } => Type::Bye,
            Message::DepotHello(_) => Type::DepotHello,
            Message::DepotState(_) => Type::DepotState,
            Message::BatchOffer(_) => Type::BatchOffer,
            Message::BatchHave { .. } => Type::BatchHave,
            Message::BatchPart { .. } => Type::BatchPart,
            Message::BatchStored { .. } => Type::BatchStored,
            Message::CopyHello(_) => Type::CopyHello,
            Message::CopyState(_) => Type::CopyState,
            Message::CopyAsk(_) => Type::CopyAsk,
            Message::CopyLacks { .. } => Type::CopyLacks,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Type::Greeting => "Greeting",
            Type::Refused => "Refused",
            Type::Start => "Start",
            Type::Ready => "Ready",
            Type::Entries => "Entries",
            Type::Ack => "Ack",
            Type::Announce => "Announce",
            Type::Alive => "Alive",
            Type::Bye => "Bye",
            Type::DepotHello => "DepotHello",
            Type::DepotState => "DepotState",
            Type::BatchOffer => "BatchOffer",
            Type::BatchHave => "BatchHave",
            Type::BatchPart => "BatchPart",
            Type::BatchStored => "BatchStored",
            Type::CopyHello => "CopyHello",
            Type::CopyState => "CopyState",
            Type::CopyAsk => "CopyAsk",
            Type::CopyLacks => "CopyLacks",
        }
    }

    /// The largest body that is taken.
    pub(crate) fn body_bytes_max(self) -> usize {
        match self {
            Type::Greeting => GREETING_BYTES_MAX,
            Type::Entries => ENTRIES_FIXED_BYTES + ENTRIES_BYTES_MAX,
            Type::BatchPart => PART_FIXED_BYTES + PART_BYTES_MAX,
            _ => CONTROL_BYTES_MAX,
        }
    }

    /// May it come before the two sides know each other?
    fn opens(self) -> bool {
        let hello = matches!(self, Type::Greeting | Type::DepotHello | Type::CopyHello);
        hello || matches!(self, Type::DepotState | Type::CopyState | Type::Refused | Type::Bye)
    }

    /// Bytes of the body that the body checksum covers.
    pub(crate) fn checked_bytes(self, body_bytes: usize) -> usize {
        match self {
            Type::Entries => ENTRIES_FIXED_BYTES,
            Type::BatchPart => PART_FIXED_BYTES,
            _ => body_bytes,
        }
    }
}

/// Which messages a reader takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Until both sides have said who they are: greetings and refusals, nothing large but a greeting.
    Opening,
    /// Everything.
    Open,
}

/// A checked frame head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) kind: Type,
    pub(crate) body_bytes: usize,
    body_crc: u32,
}

impl Head {
    /// Lays a head for a body of `body_bytes` that begins with `checked`.
    pub(crate) fn lay(kind: Type, body_bytes: usize, checked: &[u8]) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..2].copy_from_slice(&MAGIC);
        head[2] = FRAMING;
        head[3] = kind as u8;
        head[4..8].copy_from_slice(&(body_bytes as u32).to_le_bytes());
        head[8..12].copy_from_slice(&crc32c(checked).to_le_bytes());
        let crc = crc32c(&head[..12]);
        head[12..].copy_from_slice(&crc.to_le_bytes());
        head
    }

    /// The head that `bytes` begin with; `None` while it is not whole. What can't become one fails at once.
    pub(crate) fn read(bytes: &[u8], phase: Phase) -> Result<Option<Head>> {
        let magic = bytes.len().min(MAGIC.len());
        if bytes[..magic] != MAGIC[..magic] {
            return Err(Error::NotTowline { hint: hint(bytes) });
        }
        let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let [_, _, framing, code, ..] = *head;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if crc32c(&head[..12]) != number(12) {
            return Err(Error::Damaged { what: "the head" });
        }
        if framing != FRAMING {
            return Err(Error::NotTowline { hint: format!("framing version {framing}. Run the same version on both") });
        }
        let kind = Type::from_u8(code).ok_or(Error::UnknownType { code })?;
        if phase == Phase::Opening && !kind.opens() {
            return Err(Error::Unexpected { kind: kind.name() });
        }
        let (bytes, bytes_max) = (u64::from(number(4)), kind.body_bytes_max());
        if bytes > bytes_max as u64 {
            return Err(Error::TooLong { kind: kind.name(), bytes, bytes_max });
        }
        let body_bytes = bytes as usize;
        if kind.checked_bytes(body_bytes) > body_bytes {
            return Err(Error::Malformed { kind: kind.name(), what: "length" });
        }
        Ok(Some(Head { kind, body_bytes, body_crc: number(8) }))
    }

    /// True when `checked` is the checked part of the body as it was sent.
    pub(crate) fn matches(&self, checked: &[u8]) -> bool {
        crc32c(checked) == self.body_crc
    }
}

/// What the first bytes look like, for people who mixed up two ports.
fn hint(bytes: &[u8]) -> String {
    match bytes {
        [0x16, 0x03, ..] => "it began with a TLS handshake. Give this side --tls DIR too".into(),
        [0x15, 0x03, ..] => "it answered with a TLS alert. Give this side --tls DIR too".into(),
        [b'G' | b'P' | b'H', ..] => "it looks like HTTP. Check the address and the port".into(),
        _ => "it began with other bytes. Check the address and the port".into(),
    }
}
