//! `append` on the node's side: whatever arrived is one append, one wait and one acknowledgement.
//!
//! ```text
//!  socket --> [Inbox] --append--> journal            the connection's thread
//!                        |
//!                     [Window] --wait level--> acked lines     the same thread, or a second one under load
//! ```
//! A client that sends one record and waits is served by one thread without a hand-over. As soon as more arrives
//! while something is not acknowledged, a second thread takes over the waiting, so that reading, appending and waiting
//! overlap. What is appended and not acknowledged is bounded by [`WINDOW_BYTES`]: then reading stops, and the socket
//! makes the client wait.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use journal::{Class, Flags, HEADER_BYTES, Lsn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::frame::{FRAME_HEAD_BYTES, FrameHead, FrameKind};
use super::protocol::{Acked, Append, Done, Failure};
use super::server::say;
use super::service::{Appender, Incoming, Patience};
use crate::stop::Stop;

/// Bytes appended and not acknowledged before reading stops.
const WINDOW_BYTES: u64 = 8 << 20;
/// What one read asks for, and so about the largest group.
const READ_BYTES: usize = 256 << 10;

/// Serves one `append` from behind its first answer to its end. `early`: bytes that were read with the request.
pub(super) fn run(
    stream: &UnixStream,
    early: &[u8],
    appender: &dyn Appender,
    append: &Append,
    stop: &Stop,
) -> io::Result<()> {
    let session = Session { stream, appender, append, stop, window: Window::default() };
    thread::scope(|scope| {
        let mut acker = None;
        let mut inbox = Inbox::new(early, appender.record_bytes_max());
        let ended = loop {
            let taken = match inbox.take(stream) {
                Ok(taken) => taken,
                Err(error) => break Ended::Broken(error),
            };
            if let Err(failure) = session.append(&taken) {
                break Ended::Failed(failure);
            }
            if let Some(ended) = taken.ended {
                break ended;
            }
            if acker.is_none() && !input_waits(stream) {
                match session.acknowledge() {
                    Ok(true) => {}
                    Ok(false) => return Ok(()),
                    Err(error) => break Ended::Broken(error),
                }
                continue;
            }
            if acker.is_none() {
                acker =
                    Some(thread::Builder::new().name("control-acks".into()).spawn_scoped(scope, || session.acker())?);
            }
            if !session.window.room() {
                break Ended::Silent;
            }
        };
        session.window.close();
        if let Some(acker) = acker {
            // it has said what was to be said when it failed
            let Ok(true) = acker.join().unwrap_or(Ok(false)) else { return Ok(()) };
        }
        session.finish(ended)
    })
}

/// How the input ended.
enum Ended {
    /// The client said that it is done.
    Done,
    /// The connection ended without that.
    Cut,
    /// A record or a frame can't be taken; the rest isn't looked at.
    Failed(Failure),
    /// The socket failed.
    Broken(io::Error),
    /// The client was told why already.
    Silent,
}

struct Session<'a> {
    stream: &'a UnixStream,
    appender: &'a dyn Appender,
    append: &'a Append,
    stop: &'a Stop,
    window: Window,
}

impl Session<'_> {
    fn append(&self, taken: &Taken<'_>) -> Result<(), Failure> {
        if taken.records.is_empty() {
            return Ok(());
        }
        let lsn = self.appender.append(&taken.records)?;
        // an empty record takes its header in the log
        let bytes = taken.records.iter().map(|(_, payload)| (HEADER_BYTES + payload.len()) as u64).sum();
        self.window.add(taken.records.len() as u64, lsn, bytes);
        Ok(())
    }

    /// Waits for what is open now and acknowledges it. False: it failed, and the client has been told.
    fn acknowledge(&self) -> io::Result<bool> {
        let Some(open) = self.window.open() else { return Ok(true) };
        let patience = Patience { client: self.stream, deadline: self.deadline(), stop: self.stop };
        match self.appender.wait(open.lsn, self.append.wait, &patience) {
            Ok(reach) => {
                let acked = Acked {
                    count: open.count,
                    lsn: open.lsn.get(),
                    term: reach.epoch.term.0,
                    run: reach.epoch.run,
                    level: reach.level,
                    alone: reach.alone,
                };
                self.window.acknowledged(acked, open);
                say(self.stream, &Done::Acked(acked))?;
                Ok(true)
            }
            Err(failure) => {
                self.window.fail();
                let told = say(self.stream, &Done::Error(failure));
                // whoever reads must not go on
                let _ = self.stream.shutdown(Shutdown::Read);
                told.map(|()| false)
            }
        }
    }

    /// The second thread: acknowledges until the window is closed and empty. True: everything is acknowledged.
    fn acker(&self) -> io::Result<bool> {
        while self.window.wait_open() {
            let acknowledged = self.acknowledge();
            if !matches!(acknowledged, Ok(true)) {
                self.window.fail();
                return acknowledged;
            }
        }
        Ok(true)
    }

    fn finish(&self, ended: Ended) -> io::Result<()> {
        if let Ended::Broken(error) = ended {
            return Err(error);
        }
        if matches!(ended, Ended::Silent) || !self.acknowledge()? {
            return Ok(());
        }
        let cut_by_us = matches!(ended, Ended::Cut) && self.stop.deadline().is_some();
        match ended {
            Ended::Done => say(self.stream, &Done::Done(self.window.last(self.append))),
            Ended::Failed(failure) => say(self.stream, &Done::Error(failure)),
            Ended::Cut if cut_by_us => {
                let failure =
                    Failure::new(Class::Io, "the node is stopping; what was not acknowledged was not appended")
                        .hint("start the node again and send the rest");
                say(self.stream, &Done::Error(failure))
            }
            Ended::Cut | Ended::Broken(_) | Ended::Silent => Ok(()),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.append.timeout_ms.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)))
    }
}

/// What is appended and not acknowledged.
#[derive(Default)]
struct Window {
    state: Mutex<WindowState>,
    changed: Condvar,
}

#[derive(Default)]
struct WindowState {
    open: Option<Open>,
    acked: Option<Acked>,
    appended_bytes: u64,
    acked_bytes: u64,
    closed: bool,
    failed: bool,
}

/// The last record that is not acknowledged.
#[derive(Clone, Copy)]
struct Open {
    count: u64,
    lsn: Lsn,
    bytes: u64,
}

impl Window {
    fn add(&self, count: u64, lsn: Lsn, bytes: u64) {
        let mut state = self.state();
        let before = state.open.map(|open| open.count).or(state.acked.map(|acked| acked.count)).unwrap_or(0);
        state.appended_bytes += bytes;
        state.open = Some(Open { count: before + count, lsn, bytes: state.appended_bytes });
        self.changed.notify_all();
    }

    fn open(&self) -> Option<Open> {
        self.state().open
    }

    fn acknowledged(&self, acked: Acked, upto: Open) {
        let mut state = self.state();
        state.acked = Some(acked);
        state.acked_bytes = upto.bytes;
        state.open = state.open.filter(|open| open.count > upto.count);
        self.changed.notify_all();
    }

    /// Blocks until something is to be acknowledged; false when nothing will be.
    fn wait_open(&self) -> bool {
        let state = self.state();
        let waiting = |state: &mut WindowState| state.open.is_none() && !state.closed && !state.failed;
        let state = self.changed.wait_while(state, waiting).unwrap_or_else(PoisonError::into_inner);
        state.open.is_some() && !state.failed
    }

    /// Blocks until there is room for more; false when an acknowledgement failed.
    fn room(&self) -> bool {
        let state = self.state();
        let full = |state: &mut WindowState| !state.failed && state.appended_bytes - state.acked_bytes > WINDOW_BYTES;
        !self.changed.wait_while(state, full).unwrap_or_else(PoisonError::into_inner).failed
    }

    fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    fn fail(&self) {
        self.state().failed = true;
        self.changed.notify_all();
    }

    /// The last acknowledgement, or one of nothing.
    fn last(&self, append: &Append) -> Acked {
        let nothing = Acked { count: 0, lsn: 0, term: 0, run: 0, level: append.wait, alone: false };
        self.state().acked.unwrap_or(nothing)
    }

    fn state(&self) -> MutexGuard<'_, WindowState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes from the client, cut into frames.
struct Inbox {
    /// Zeroed once; `used..end` are bytes that arrived and were not handed out.
    buffer: Vec<u8>,
    used: usize,
    end: usize,
    limit: usize,
}

/// The whole frames that have arrived.
#[derive(Default)]
struct Taken<'a> {
    records: Vec<Incoming<'a>>,
    ended: Option<Ended>,
}

impl Inbox {
    fn new(early: &[u8], limit: usize) -> Inbox {
        let mut buffer = vec![0; READ_BYTES.max(early.len())];
        buffer[..early.len()].copy_from_slice(early);
        Inbox { buffer, used: 0, end: early.len(), limit }
    }

    /// Every whole frame that is there; reads when there is none.
    fn take(&mut self, stream: &UnixStream) -> io::Result<Taken<'_>> {
        while self.first_is_short() {
            if self.read(stream)? == 0 {
                if self.used < self.end {
                    tracing::debug!(bytes = self.end - self.used, "a client left in the middle of a record: dropped");
                }
                return Ok(Taken { ended: Some(Ended::Cut), ..Taken::default() });
            }
        }
        Ok(self.cut())
    }

    /// True when not even one frame is whole, and nothing is wrong with it.
    fn first_is_short(&self) -> bool {
        let there = &self.buffer[self.used..self.end];
        match there.first_chunk().map(|head| FrameHead::decode(*head)) {
            None => true,
            Some(None) => false,
            Some(Some(head)) => head.body_bytes <= self.limit && there.len() < FRAME_HEAD_BYTES + head.body_bytes,
        }
    }

    fn cut(&mut self) -> Taken<'_> {
        let mut taken = Taken::default();
        let mut rest = &self.buffer[self.used..self.end];
        while let Some((head, behind)) = rest.split_first_chunk() {
            let ended = match FrameHead::decode(*head) {
                Some(head) if head.kind == FrameKind::Record && head.body_bytes <= self.limit => {
                    let Some((payload, behind)) = behind.split_at_checked(head.body_bytes) else { break };
                    taken.records.push((head.flags, payload));
                    rest = behind;
                    continue;
                }
                Some(head) if head.kind == FrameKind::Record => Ended::Failed(too_large(head.body_bytes, self.limit)),
                Some(FrameHead { kind: FrameKind::End, body_bytes: 0, flags: Flags::NONE }) => Ended::Done,
                _ => Ended::Failed(Failure::new(Class::Usage, "what follows the last record is no frame")),
            };
            taken.ended = Some(ended);
            break;
        }
        self.used = self.end - rest.len();
        taken
    }

    /// Reads once, behind what is there.
    fn read(&mut self, mut stream: &UnixStream) -> io::Result<usize> {
        self.buffer.copy_within(self.used..self.end, 0);
        (self.used, self.end) = (0, self.end - self.used);
        if self.end == self.buffer.len() {
            // grows with what has arrived, not with what a head announces
            self.buffer.resize(self.end * 2, 0);
        }
        let read = loop {
            match stream.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.end += read;
        Ok(read)
    }
}

fn too_large(bytes: usize, limit: usize) -> Failure {
    Failure::new(Class::Usage, format!("a record has {bytes} bytes; the stream takes at most {limit}"))
        .hint("split it; the records before it are in the stream, it and those behind it are not")
}

/// True when more has arrived already.
fn input_waits(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
}
