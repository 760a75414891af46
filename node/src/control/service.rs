//! What the control socket's server asks of the node behind it.

use std::fmt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use journal::{Epoch, Flags, Holder, Lsn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::protocol::{
    Append, Failure, Hold, Level, Mark, Marked, Promote, Promoted, Reached, Status, StatusOf, Stopping, TailFrom, Wait,
};
use super::shipping::{Ship, ShipWaits, Shipped};
use crate::stop::Stop;

/// How long a wait goes on before it looks whether the client is still there.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The node behind the socket. Every method blocks the calling thread alone.
pub(crate) trait Service: Send + Sync {
    fn status(&self, of: &StatusOf) -> Result<Status, Failure>;
    fn wait(&self, wait: &Wait, patience: &Patience<'_>) -> Result<Reached, Failure>;
    fn mark(&self, mark: &Mark, patience: &Patience<'_>) -> Result<Marked, Failure>;
    /// Says what it waits for whenever that changes.
    fn ship(
        &self,
        ship: &Ship,
        patience: &Patience<'_>,
        waits: &mut dyn FnMut(ShipWaits),
    ) -> Result<Vec<Shipped>, Failure>;
    fn promote(&self, promote: &Promote) -> Result<Promoted, Failure>;
    fn stop(&self) -> Stopping;
    fn appender(&self, append: &Append, patience: &Patience<'_>) -> Result<Arc<dyn Appender>, Failure>;
    fn tailer(&self, tail: &TailFrom) -> Result<Box<dyn Tailer>, Failure>;
    /// Keeps the log until the holder is dropped, and says from where on.
    fn hold(&self, hold: &Hold) -> Result<(Holder, Lsn), Failure>;
}

/// A record from a client.
pub(crate) type Incoming<'a> = (Flags, &'a [u8]);

/// Where the records of one `append` go.
pub(crate) trait Appender: Send + Sync {
    /// Largest record.
    fn record_bytes_max(&self) -> usize;
    /// Stages all of them, contiguous and in order, and returns the position behind the last; or none of them.
    fn append(&self, records: &[Incoming<'_>]) -> Result<Lsn, Failure>;
    /// Blocks until everything below `lsn` has reached `level`.
    fn wait(&self, lsn: Lsn, level: Level, patience: &Patience<'_>) -> Result<Reach, Failure>;
}

/// What an acknowledgement says beside its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The one asked for; for `Committed` the one that this came to.
    pub(crate) level: Level,
    pub(crate) epoch: Epoch,
    pub(crate) alone: bool,
}

/// The records of one `tail`.
pub(crate) trait Tailer: Send {
    /// Where it begins to look.
    fn from(&self) -> Lsn;
    /// Appends whole frames to `out`, about as many as make a good write; blocks for the first when following.
    /// False: there will be no more.
    fn fill(&mut self, out: &mut Vec<u8>, patience: &Patience<'_>) -> Result<bool, Failure>;
}

/// How long a call may wait: until its deadline, until the client is gone, until the node has drained.
pub(crate) struct Patience<'a> {
    pub(crate) client: &'a UnixStream,
    pub(crate) deadline: Option<Instant>,
    pub(crate) stop: &'a Stop,
}

/// Why the waiting ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    TimedOut,
    ClientGone,
    Stopping,
}

impl Patience<'_> {
    /// Until when to wait before asking again; an error when it is over.
    pub(crate) fn slice(&self) -> Result<Instant, Over> {
        let now = Instant::now();
        let drained = self.stop.deadline();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(Over::TimedOut);
        }
        if drained.is_some_and(|drained| drained <= now) {
            return Err(Over::Stopping);
        }
        if gone(self.client) {
            return Err(Over::ClientGone);
        }
        let slice = now + LOOK_EVERY;
        let bounds = [self.deadline, drained].into_iter().flatten();
        Ok(bounds.fold(slice, Instant::min))
    }

    /// True once the node is to end: calls that would wait for something new give up.
    pub(crate) fn stopping(&self) -> bool {
        self.stop.deadline().is_some()
    }
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Over::TimedOut => "the time is up",
            Over::ClientGone => "the client is gone",
            Over::Stopping => "the node is stopping",
        })
    }
}

/// True when the client has closed its end entirely. Input that is still to be read is no reason to look further.
fn gone(client: &UnixStream) -> bool {
    let mut fds = [PollFd::new(client, PollFlags::empty())];
    let asked = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    asked.is_ok() && fds.iter().any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR))
}
