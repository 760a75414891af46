//! One peer's connection, as the link thread polls it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use journal::{Lsn, Slice};
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::time::timeout;
use wire::{Alive, Error, Link, Reader, Security, Writer};

/// More entries are queued when less than this waits for the socket: enough to keep it busy, little enough that a sign
/// of life doesn't wait long behind them.
const QUEUED_BYTES_LOW: usize = 1 << 20;
/// How long a connection that ends may take to send what is queued.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

type Dial = Pin<Box<dyn Future<Output = wire::Result<Link>>>>;

/// Where a peer's connection is.
pub(super) enum Conn {
    Idle,
    Dialling { link: u64, dial: Dial },
    Up(Box<Up>),
}

/// A connection that is up.
pub(super) struct Up {
    pub(super) link: u64,
    pub(super) reader: Reader<ReadHalf<Link>>,
    pub(super) writer: Writer<WriteHalf<Link>, Slice>,
    /// Entries below are queued, and the core hasn't been told: it would order more.
    pub(super) queued_to: Option<Lsn>,
    /// The other side's greeting came.
    pub(super) greeted: bool,
    /// The other side's last sign of life.
    pub(super) alive: Alive,
}

/// What a poll found.
pub(super) enum Found {
    /// Dialling is over.
    Dialled { link: u64, dialled: wire::Result<Box<Link>> },
    /// Something arrived, or there is room for more.
    Progress,
    /// The connection ended.
    Lost { link: u64, error: Error },
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Conn::Idle => f.write_str("Idle"),
            Conn::Dialling { link, .. } => write!(f, "Dialling({link})"),
            Conn::Up(up) => write!(f, "Up({})", up.link),
        }
    }
}

impl Conn {
    pub(super) fn dial(link: u64, security: &Security, address: &str, expect_name: Option<&str>) -> Conn {
        let (security, address, expect_name) = (security.clone(), address.to_owned(), expect_name.map(str::to_owned));
        let dial = async move { Link::connect(&security, &address, expect_name.as_deref()).await };
        Conn::Dialling { link, dial: Box::pin(dial) }
    }

    pub(super) fn up(link: u64, connected: Link) -> Conn {
        let (read, write) = split(connected);
        let (reader, writer) = (Reader::new(read), Writer::new(write));
        Conn::Up(Box::new(Up { link, reader, writer, queued_to: None, greeted: false, alive: Alive::default() }))
    }

    /// The connection with this number, if it is up.
    pub(super) fn as_up(&mut self, number: u64) -> Option<&mut Up> {
        match self {
            Conn::Up(up) if up.link == number => Some(up),
            _ => None,
        }
    }

    /// Takes the connection away if it has this number: what is to be done with it.
    pub(super) fn take(&mut self, number: u64) -> Option<Box<Up>> {
        match std::mem::replace(self, Conn::Idle) {
            Conn::Up(up) if up.link == number => Some(up),
            Conn::Dialling { link, .. } if link == number => None,
            other => {
                *self = other;
                None
            }
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Found> {
        let found = match self {
            Conn::Idle => return Poll::Pending,
            Conn::Dialling { link, dial } => match dial.as_mut().poll(cx) {
                Poll::Ready(dialled) => Found::Dialled { link: *link, dialled: dialled.map(Box::new) },
                Poll::Pending => return Poll::Pending,
            },
            Conn::Up(up) => match up.poll(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Found::Progress),
                Poll::Ready(Err(error)) => Found::Lost { link: up.link, error },
                Poll::Pending => return Poll::Pending,
            },
        };
        *self = Conn::Idle;
        Poll::Ready(found)
    }
}

impl Up {
    /// Is there room for more entries?
    pub(super) fn has_room(&self) -> bool {
        self.writer.queued_bytes() < QUEUED_BYTES_LOW
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<wire::Result<()>> {
        if let Poll::Ready(Err(error)) = self.writer.poll_flush(cx) {
            // the other side's word, if it left one, says more than a broken pipe
            return match self.reader.poll_fill(cx) {
                Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
                Poll::Ready(Err(reason @ (Error::Untrusted(_) | Error::NotTowline { .. }))) => Poll::Ready(Err(reason)),
                Poll::Ready(Err(_)) | Poll::Pending => Poll::Ready(Err(error)),
            };
        }
        if self.queued_to.is_some() && self.has_room() {
            return Poll::Ready(Ok(()));
        }
        self.reader.poll_fill(cx)
    }

    /// Sends what is queued and closes so that the other side can read it.
    pub(super) async fn close(mut self) {
        if let Ok(Err(error)) = timeout(CLOSE_TIME_MAX, self.writer.flush()).await {
            tracing::debug!(%error, "send the last messages of a connection");
        }
        let (read, _) = self.reader.into_inner();
        read.unsplit(self.writer.into_inner()).close().await;
    }
}
