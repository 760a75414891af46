//! The sending side of a connection, for several threads: the connection's own, the one that syncs, the one that says
//! this node is alive. Whoever has something to say queues it and tries to send it at once; what the socket doesn't take
//! is sent by the connection's own task.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use journal::{Lsn, Slice};
use tokio::io::WriteHalf;
use wire::{Link, Message, Writer};

/// A peer that doesn't read while this much waits for it is not coming back.
const QUEUED_BYTES_MAX: usize = 8 << 20;

#[derive(Debug)]
pub(crate) struct Outlet {
    inner: Mutex<Inner>,
    /// A greeting went out: signs of life may follow.
    greeted: AtomicBool,
}

#[derive(Debug)]
struct Inner {
    writer: Option<Writer<WriteHalf<Link>, Slice>>,
    /// The connection's own task: it alone is woken when the socket takes more.
    task: Waker,
    closing: Option<String>,
}

impl Outlet {
    pub(crate) fn new(writer: WriteHalf<Link>) -> Outlet {
        let inner = Inner { writer: Some(Writer::new(writer)), task: Waker::noop().clone(), closing: None };
        Outlet { inner: Mutex::new(inner), greeted: AtomicBool::new(false) }
    }

    /// Queues a message and sends what the socket takes. Never blocks; trouble ends the connection.
    pub(crate) fn send(&self, message: &Message) {
        self.with_writer(|writer| writer.queue(message));
        if matches!(message, Message::Greeting(_)) {
            self.greeted.store(true, Ordering::Release);
        }
    }

    /// Queues entries that stay where they are, and sends what the socket takes. Never blocks.
    pub(crate) fn send_entries(&self, session: u64, at: Lsn, entries: Slice) {
        self.with_writer(|writer| writer.queue_entries(session, at, entries));
    }

    /// Ends the connection once what is queued has been sent.
    pub(crate) fn close(&self, reason: &str) {
        let mut inner = self.lock();
        inner.closing.get_or_insert_with(|| reason.to_owned());
        inner.task.wake_by_ref();
    }

    /// Wakes the connection's own task.
    pub(crate) fn wake(&self) {
        self.lock().task.wake_by_ref();
    }

    /// True once a greeting went out.
    pub(crate) fn has_greeted(&self) -> bool {
        self.greeted.load(Ordering::Acquire)
    }

    /// Why the connection is to end, if it is.
    pub(crate) fn closing(&self) -> Option<String> {
        self.lock().closing.clone()
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.lock().writer.as_ref().map_or(0, Writer::queued_bytes)
    }

    /// For the connection's own task: sends what is queued; other threads wake this task from here on.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<wire::Result<()>> {
        let mut inner = self.lock();
        if !inner.task.will_wake(cx.waker()) {
            inner.task = cx.waker().clone();
        }
        match &mut inner.writer {
            Some(writer) => writer.poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Takes the sending side away: nothing can be said any more.
    pub(crate) fn take(&self) -> Option<WriteHalf<Link>> {
        self.lock().writer.take().map(Writer::into_inner)
    }

    fn with_writer(&self, queue: impl FnOnce(&mut Writer<WriteHalf<Link>, Slice>) -> wire::Result<()>) {
        let mut inner = self.lock();
        let Inner { writer: Some(writer), task, closing } = &mut *inner else { return };
        let trouble = match queue(writer) {
            Err(error) => Some(error.to_string()),
            // the task's waker, not the caller's: a socket remembers only one
            Ok(()) => match writer.poll_flush(&mut Context::from_waker(task)) {
                Poll::Ready(Err(error)) => Some(error.to_string()),
                _ if writer.queued_bytes() > QUEUED_BYTES_MAX => Some("the other side does not read".into()),
                _ => None,
            },
        };
        if let Some(trouble) = trouble {
            closing.get_or_insert(trouble);
            task.wake_by_ref();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // a panic under this lock is that thread's own; the next write finds a broken connection at worst
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
