//! From bytes that arrived to messages: one buffer, many frames per read, entries lent where they lie.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use journal::Lsn;
use tokio::io::{AsyncRead, ReadBuf};

use crate::codec;
use crate::error::{Error, Result};
use crate::fields::Take;
use crate::frame::{ENTRIES_FIXED_BYTES, FRAME_BYTES_MAX, HEAD_BYTES, Head, PART_FIXED_BYTES, Phase, Type};
use crate::message::Message;

/// First size of a connection's buffer. It doubles whenever a read filled it, up to the largest frame: memory follows
/// what has arrived, never what a length claims.
const BUFFER_BYTES_FIRST: usize = 16 << 10;
/// Adjacent `Entries` up to this size are moved together, so that what queued up while this side was syncing becomes
/// one write. Larger ones gain nothing: moving them costs what a second write costs.
const GLUE_BYTES_MAX: usize = 64 << 10;

/// One message as it lies in the reader's buffer.
#[derive(Debug)]
pub enum Frame<'a> {
    /// Whole entries, not yet verified: at least one byte. Several messages that continue each other come as one.
    Entries {
        /// The session they belong to.
        session: u64,
        /// LSN of the first.
        at: Lsn,
        /// The entries.
        bytes: &'a [u8],
    },
    /// A part of a batch.
    BatchPart {
        /// Where it belongs.
        offset: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Any other message.
    Message(Message),
}

impl Frame<'_> {
    /// The message by itself; entries and parts are copied.
    pub fn into_message(self) -> Message {
        match self {
            Frame::Entries { session, at, bytes } => {
                Message::Entries { session, at, bytes: Bytes::copy_from_slice(bytes) }
            }
            Frame::BatchPart { offset, bytes } => Message::BatchPart { offset, bytes: Bytes::copy_from_slice(bytes) },
            Frame::Message(message) => message,
        }
    }
}

/// Reads messages. Every error is final: the connection must be closed.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    inbox: Inbox,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// A reader in [`Phase::Opening`].
    pub fn new(inner: R) -> Reader<R> {
        Reader { inner, inbox: Inbox::new() }
    }

    /// Both sides know each other: every message is taken from here on.
    pub fn open(&mut self) {
        self.inbox.phase = Phase::Open;
    }

    /// The next message that has arrived whole; `None` when more must be read first. Reads nothing.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>> {
        self.inbox.next_frame()
    }

    /// Reads once, whatever has arrived. Cancel-safe: nothing is lost when it is dropped.
    ///
    /// Errors: `Closed` or `Truncated` when the other side has closed; call it only when [`Reader::next_frame`] has
    /// answered `None`.
    pub async fn fill(&mut self) -> Result<()> {
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// See [`Reader::fill`].
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut room = ReadBuf::new(self.inbox.room());
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut room)).map_err(Error::io("read from the other side"))?;
        let arrived = room.filled().len();
        Poll::Ready(self.inbox.arrived(arrived))
    }

    /// The next message, copied out of the buffer. Cancel-safe.
    pub async fn message(&mut self) -> Result<Message> {
        loop {
            if let Some(frame) = self.next_frame()? {
                return Ok(frame.into_message());
            }
            self.fill().await?;
        }
    }

    #[cfg(test)]
    pub(crate) fn buffer_bytes(&self) -> usize {
        self.inbox.buffer.len()
    }

    /// What is underneath.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// What is underneath, and the bytes that were read and belong to no message yet.
    pub fn into_inner(self) -> (R, Vec<u8>) {
        let Inbox { mut buffer, start, end, .. } = self.inbox;
        buffer.truncate(end);
        buffer.drain(..start);
        (self.inner, buffer)
    }
}

/// What has arrived: `buffer[start..end]`; all of `buffer` is initialised.
#[derive(Debug)]
struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    phase: Phase,
}

impl Inbox {
    fn new() -> Inbox {
        Inbox { buffer: Vec::new(), start: 0, end: 0, phase: Phase::Opening }
    }

    /// Room behind what has arrived: at least one byte.
    fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.end == self.buffer.len() {
            // a half frame at the end: to the front with it; no frame is larger than the buffer may become
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            let bytes = (self.buffer.len() * 2).clamp(BUFFER_BYTES_FIRST, FRAME_BYTES_MAX);
            self.buffer.resize(bytes.max(self.buffer.len()), 0);
        }
        &mut self.buffer[self.end..]
    }

    fn arrived(&mut self, bytes: usize) -> Result<()> {
        self.end += bytes;
        match (bytes, self.end - self.start) {
            (0, 0) => Err(Error::Closed),
            (0, have) => Err(Error::Truncated { have }),
            _ => Ok(()),
        }
    }

    fn next_frame(&mut self) -> Result<Option<Frame<'_>>> {
        let Some(head) = self.whole_frame(self.start)? else { return Ok(None) };
        let body = self.start + HEAD_BYTES;
        let end = body + head.body_bytes;
        match head.kind {
            Type::Entries => {
                let (session, at) = self.entries_fixed(body)?;
                let first = body + ENTRIES_FIXED_BYTES;
                if first == end {
                    return Err(Error::Malformed { kind: head.kind.name(), what: "length" });
                }
                let last = self.glue(session, at, first, end);
                Ok(Some(Frame::Entries { session, at, bytes: &self.buffer[first..last] }))
            }
            Type::BatchPart => {
                self.start = end;
                let (fixed, bytes) = self.buffer[body..end].split_at(PART_FIXED_BYTES);
                let offset = Take(fixed).u64("offset").map_err(|what| malformed(head.kind, what))?;
                Ok(Some(Frame::BatchPart { offset, bytes }))
            }
            kind => {
                self.start = end;
                codec::decode(kind, &self.buffer[body..end]).map(|message| Some(Frame::Message(message)))
            }
        }
    }

    /// The head at `at`, when its whole frame has arrived and the checked part of the body is what was sent.
    fn whole_frame(&self, at: usize) -> Result<Option<Head>> {
        let arrived = &self.buffer[at..self.end];
        if arrived.is_empty() {
            return Ok(None);
        }
        let Some(head) = Head::read(arrived, self.phase)? else { return Ok(None) };
        let checked = HEAD_BYTES + head.kind.checked_bytes(head.body_bytes);
        if arrived.len() >= checked && !head.matches(&arrived[HEAD_BYTES..checked]) {
            return Err(Error::Damaged { what: "the body" });
        }
        Ok((arrived.len() >= HEAD_BYTES + head.body_bytes).then_some(head))
    }

    fn entries_fixed(&self, body: usize) -> Result<(u64, Lsn)> {
        let mut fixed = Take(&self.buffer[body..body + ENTRIES_FIXED_BYTES]);
        let read = fixed.u64("session").and_then(|session| Ok((session, fixed.lsn("position")?)));
        read.map_err(|what| malformed(Type::Entries, what))
    }

    /// Moves the entries of the frames behind `end` against those in `first..end`, as long as they continue them.
    /// Steps behind all of them and returns where the joined entries end. A fault in a frame is left to its own turn.
    fn glue(&mut self, session: u64, at: Lsn, first: usize, end: usize) -> usize {
        let mut last = end;
        self.start = end;
        while last - first <= GLUE_BYTES_MAX {
            let Ok(Some(head)) = self.whole_frame(self.start) else { break };
            let body = self.start + HEAD_BYTES;
            let next = at.checked_add((last - first) as u64);
            let continues = head.kind == Type::Entries
                && head.body_bytes > ENTRIES_FIXED_BYTES
                && head.body_bytes <= GLUE_BYTES_MAX
                && matches!(self.entries_fixed(body), Ok((theirs, at)) if theirs == session && Some(at) == next);
            if !continues {
                break;
            }
            let bytes = head.body_bytes - ENTRIES_FIXED_BYTES;
            self.buffer.copy_within(body + ENTRIES_FIXED_BYTES..body + head.body_bytes, last);
            last += bytes;
            self.start = body + head.body_bytes;
        }
        last
    }
}

fn malformed(kind: Type, what: &'static str) -> Error {
    Error::Malformed { kind: kind.name(), what }
}
