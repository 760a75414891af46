//! One connection that feeds a stream, on a thread and a runtime of its own: it reads what has arrived, hands it to the
//! stream, and sends what the socket takes.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use journal::LsnRange;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::time::timeout;
use wire::{Alarm, Alive, Frame, Greeting, Link, Message, Reader};

use crate::outlet::Outlet;
use crate::stream::ReceiverStream;

/// Entries that go back to the primary are read and queued in pieces of about this size.
const SLICE_BYTES: usize = 256 << 10;
/// More is queued when less than this waits for the socket.
const QUEUED_BYTES_LOW: usize = 1 << 20;
/// How long a connection that is to end may take to send what is queued.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

/// A connection as other threads see it.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) outlet: Outlet,
    pub(crate) stream: Arc<ReceiverStream>,
    /// What the primary takes back: session and what is still to be queued.
    giving_back: Mutex<Option<(u64, LsnRange)>>,
}

impl Feed {
    /// Orders entries to be sent, by the connection's own task.
    pub(crate) fn give_back(&self, session: u64, range: LsnRange) {
        *self.giving_back.lock().unwrap_or_else(PoisonError::into_inner) = Some((session, range));
        self.outlet.wake();
    }

    fn has_to_queue(&self) -> bool {
        let ordered = self.giving_back.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        ordered && self.outlet.queued_bytes() < QUEUED_BYTES_LOW
    }

    /// Queues entries that go back, as long as the socket keeps up. `Err` in words.
    fn queue_back(&self) -> Result<(), String> {
        let mut order = self.giving_back.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((session, range)) = *order {
            if range.is_empty() {
                *order = None;
            } else if self.outlet.queued_bytes() >= QUEUED_BYTES_LOW {
                break;
            } else {
                let bytes_max = SLICE_BYTES.min(usize::try_from(range.bytes()).unwrap_or(SLICE_BYTES));
                let slice = self.stream.journal().slice(range.from, bytes_max).map_err(|error| error.to_string())?;
                let slice = slice.ok_or("the log ends before what was promised")?;
                let to = slice.range().to;
                self.outlet.send_entries(session, range.from, slice);
                *order = Some((session, LsnRange::new(to, range.to)));
            }
        }
        Ok(())
    }
}

/// Serves the connection until it ends: why it ended. `register`: it has a number now, and signs of life may be sent.
pub(crate) async fn feed(
    stream: Arc<ReceiverStream>,
    mut reader: Reader<ReadHalf<Link>>,
    write: WriteHalf<Link>,
    greeting: Greeting,
    register: impl FnOnce(&Arc<Feed>),
) -> String {
    reader.open();
    let feed = Feed { outlet: Outlet::new(write), stream: Arc::clone(&stream), giving_back: Mutex::new(None) };
    let (number, feed) = stream.add(feed);
    register(&feed);
    stream.greeted(number, greeting);
    let reason = serve(&feed, &mut reader, number).await;
    if let Ok(Err(error)) = timeout(CLOSE_TIME_MAX, poll_fn(|cx| feed.outlet.poll_flush(cx))).await {
        tracing::debug!(%error, "send the last messages of a connection");
    }
    stream.remove(number);
    let (read, _) = reader.into_inner();
    let write = feed.outlet.take();
    // the log may be wanted elsewhere while the other side reads its last message
    drop((feed, stream));
    if let Some(write) = write {
        read.unsplit(write).close().await;
    }
    reason
}

/// What a connection waits for.
enum Event {
    Arrived,
    /// Something is to be sent, or the connection is to end.
    Woken,
    Due,
}

async fn serve(feed: &Feed, reader: &mut Reader<ReadHalf<Link>>, number: u64) -> String {
    let stream = &*feed.stream;
    let mut alarm = Alarm::new();
    loop {
        if let Err(reason) = feed.queue_back() {
            stream.step(|intake| intake.handle_failed(number, &reason));
        }
        if let Some(reason) = feed.outlet.closing() {
            return reason;
        }
        alarm.set(stream.due());
        let event = poll_fn(|cx| {
            // first: from here on other threads wake this task
            if let Poll::Ready(Err(error)) = feed.outlet.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
            if feed.outlet.closing().is_some() || feed.has_to_queue() {
                return Poll::Ready(Ok(Event::Woken));
            }
            // before the clock: after a long sync what waits in the socket shows that the other side lives
            if let Poll::Ready(arrived) = reader.poll_fill(cx) {
                return Poll::Ready(arrived.map(|()| Event::Arrived));
            }
            alarm.poll(cx).map(|()| Ok(Event::Due))
        });
        let handed_in = match event.await {
            Ok(Event::Arrived) => hand_in(stream, reader, number),
            Ok(Event::Due) => {
                stream.step(|intake| intake.handle_timeout(Instant::now()));
                Ok(())
            }
            Ok(Event::Woken) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = handed_in {
            return error.to_string();
        }
    }
}

/// Hands in everything that has arrived whole, in one step: one write to the log and one acknowledgement for all.
fn hand_in(stream: &ReceiverStream, reader: &mut Reader<ReadHalf<Link>>, number: u64) -> wire::Result<()> {
    stream.step(|intake| {
        let now = Instant::now();
        // half a large entry on a slow line is a sign of life too
        intake.handle_message(now, number, Message::Alive(Alive::default()));
        while let Some(frame) = reader.next_frame()? {
            match frame {
                Frame::Entries { session, at, bytes } => stream.take(intake, number, session, at, bytes),
                other => intake.handle_message(now, number, other.into_message()),
            }
        }
        Ok(())
    })?;
    stream.contact();
    Ok(())
}
