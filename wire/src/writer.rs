//! From messages to bytes that leave: small messages gathered in one buffer, log bytes lent by their owner.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use journal::Lsn;
use tokio::io::AsyncWrite;

use crate::codec;
use crate::error::{Error, Result};
use crate::frame::{ENTRIES_BYTES_MAX, HEAD_BYTES, Head, PART_BYTES_MAX, Type};
use crate::message::Message;

/// Most pieces handed to one vectored write.
const SLICES_MAX: usize = 32;
/// Sent small bytes are dropped at the latest when there are this many.
const SMALL_BYTES_KEPT: usize = 16 << 10;

/// Writes messages. Queueing never waits; [`Writer::flush`] sends everything queued with as few writes as possible.
///
/// `S` is what lends the bytes of [`Writer::queue_entries`], for example a `journal::Slice`: they are sent from where
/// they lie, and `S` is dropped when the last of them has been handed to the system.
/// Unbounded by itself: callers look at [`Writer::queued_bytes`] before they queue more.
#[derive(Debug)]
pub struct Writer<W, S = Bytes> {
    inner: W,
    outbox: Outbox<S>,
}

impl<W, S: Deref<Target = [u8]>> Writer<W, S> {
    /// A writer with nothing queued.
    pub fn new(inner: W) -> Writer<W, S> {
        Writer { inner, outbox: Outbox { small: Vec::new(), gone: 0, pieces: VecDeque::new(), bytes: 0 } }
    }

    /// Queues a message; the bytes of entries and parts in it are copied.
    ///
    /// Errors: `TooLong`, when no frame takes it; nothing is queued then.
    pub fn queue(&mut self, message: &Message) -> Result<()> {
        self.outbox.queue(message)
    }

    /// Queues `Entries` whose bytes stay where they are.
    ///
    /// Errors: `TooLong` above [`crate::ENTRIES_BYTES_MAX`] and `Malformed` for none at all; nothing is queued then.
    pub fn queue_entries(&mut self, session: u64, at: Lsn, entries: S) -> Result<()> {
        if entries.is_empty() {
            return Err(Error::Malformed { kind: Type::Entries.name(), what: "length" });
        }
        let fixed = Message::Entries { session, at, bytes: Bytes::new() };
        self.outbox.queue_with(&fixed, entries, ENTRIES_BYTES_MAX)
    }

    /// Queues a `BatchPart` whose bytes stay where they are.
    ///
    /// Errors: `TooLong` above [`crate::PART_BYTES_MAX`]; nothing is queued then.
    pub fn queue_part(&mut self, offset: u64, bytes: S) -> Result<()> {
        self.outbox.queue_with(&Message::BatchPart { offset, bytes: Bytes::new() }, bytes, PART_BYTES_MAX)
    }

    /// Bytes queued and not yet handed to the system.
    pub fn queued_bytes(&self) -> usize {
        self.outbox.bytes
    }

    /// What is underneath.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    /// What is underneath; what is still queued is dropped.
    pub fn into_inner(self) -> W {
        self.inner
    }
}

impl<W: AsyncWrite + Unpin, S: Deref<Target = [u8]>> Writer<W, S> {
    /// Sends everything that is queued. Cancel-safe: what was sent is remembered, call it again to go on.
    pub async fn flush(&mut self) -> Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// See [`Writer::flush`].
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while self.outbox.bytes > 0 {
            let sent = {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let count = self.outbox.gather(&mut slices);
                ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, &slices[..count]))
            };
            let sent = sent.and_then(|sent| if sent == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(sent) });
            self.outbox.sent(sent.map_err(Error::io("write to the other side"))?);
        }
        // TLS keeps a last record to itself until it is told
        Pin::new(&mut self.inner).poll_flush(cx).map_err(Error::io("write to the other side"))
    }

    /// Queues one message and sends everything. Cancel-safe once it has begun: the message stays queued.
    pub async fn send(&mut self, message: &Message) -> Result<()> {
        self.queue(message)?;
        self.flush().await
    }
}

/// What is still to leave, in order.
#[derive(Debug)]
struct Outbox<S> {
    /// Heads and control messages, one behind the other; the first `gone` bytes have left.
    small: Vec<u8>,
    gone: usize,
    pieces: VecDeque<Piece<S>>,
    bytes: usize,
}

#[derive(Debug)]
enum Piece<S> {
    /// This many bytes of `small`.
    Small(usize),
    /// Lent bytes, of which the first have left.
    Lent(S, usize),
}

impl<S: Deref<Target = [u8]>> Outbox<S> {
    fn queue(&mut self, message: &Message) -> Result<()> {
        let tail: &[u8] = match message {
            Message::Entries { bytes, .. } | Message::BatchPart { bytes, .. } => bytes,
            _ => &[],
        };
        let before = self.small.len();
        self.lay(message, tail.len())?;
        self.small.extend_from_slice(tail);
        self.queued(before);
        Ok(())
    }

    fn queue_with(&mut self, message: &Message, lent: S, bytes_max: usize) -> Result<()> {
        let bytes = lent.len();
        if bytes > bytes_max {
            return Err(Error::TooLong { kind: Type::of(message).name(), bytes: bytes as u64, bytes_max });
        }
        let before = self.small.len();
        self.lay(message, bytes)?;
        self.queued(before);
        self.pieces.push_back(Piece::Lent(lent, 0));
        self.bytes += bytes;
        Ok(())
    }

    /// Lays head and fields into `small`, for a body that goes on with `tail_bytes` more.
    fn lay(&mut self, message: &Message, tail_bytes: usize) -> Result<()> {
        let kind = Type::of(message);
        let head = self.small.len();
        let body = head + HEAD_BYTES;
        self.small.resize(body, 0);
        let laid = codec::encode(message, &mut self.small).and_then(|()| {
            let bytes = self.small.len() - body + tail_bytes;
            let bytes_max = kind.body_bytes_max();
            if bytes > bytes_max {
                return Err(Error::TooLong { kind: kind.name(), bytes: bytes as u64, bytes_max });
            }
            Ok(Head::lay(kind, bytes, &self.small[body..]))
        });
        match laid {
            Ok(bytes) => self.small[head..body].copy_from_slice(&bytes),
            Err(error) => {
                self.small.truncate(head);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Accounts for what was laid into `small` behind `before`.
    fn queued(&mut self, before: usize) {
        let laid = self.small.len() - before;
        self.bytes += laid;
        match self.pieces.back_mut() {
            Some(Piece::Small(bytes)) => *bytes += laid,
            _ => self.pieces.push_back(Piece::Small(laid)),
        }
    }

    /// Points `slices` at the pieces in order; returns how many.
    fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut at = self.gone;
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(match piece {
                Piece::Small(bytes) => {
                    at += bytes;
                    &self.small[at - bytes..at]
                }
                Piece::Lent(lent, gone) => &lent[*gone..],
            });
            count += 1;
        }
        count
    }

    /// The first `sent` bytes have left.
    fn sent(&mut self, mut sent: usize) {
        self.bytes -= sent;
        while let Some(piece) = self.pieces.front_mut() {
            let left = match piece {
                Piece::Small(bytes) => {
                    let now = sent.min(*bytes);
                    (*bytes, self.gone, sent) = (*bytes - now, self.gone + now, sent - now);
                    *bytes
                }
                Piece::Lent(lent, gone) => {
                    let now = sent.min(lent.len() - *gone);
                    (*gone, sent) = (*gone + now, sent - now);
                    lent.len() - *gone
                }
            };
            if left > 0 {
                break;
            }
            self.pieces.pop_front();
        }
        // a link that is never idle must not keep every head it ever sent
        if self.pieces.is_empty() || self.gone >= SMALL_BYTES_KEPT {
            self.small.drain(..self.gone);
            self.gone = 0;
        }
    }
}
