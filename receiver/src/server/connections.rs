//! The open connections of a server: counted, bounded, and ended with it whatever their threads wait for.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Connections in all: each has a thread.
pub const CONNECTIONS_MAX: usize = 1024;
/// How long ending waits for those that serve them.
const END_TIME_MAX: Duration = Duration::from_secs(3);

/// Sockets by number.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Mutex<Sockets>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Sockets {
    by_number: HashMap<u64, TcpStream>,
    next: u64,
}

impl Connections {
    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.sockets().by_number.len()
    }

    /// Ends all of them, and waits until nobody serves one; not for ever: a disk may hang.
    pub(super) fn end(&self) {
        let sockets = self.sockets();
        for socket in sockets.by_number.values() {
            // one that the other side has closed needs nothing
            let _ = socket.shutdown(Shutdown::Both);
        }
        let served = |sockets: &mut Sockets| !sockets.by_number.is_empty();
        let waited = self.ended.wait_timeout_while(sockets, END_TIME_MAX, served);
        let (sockets, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if !sockets.by_number.is_empty() {
            tracing::warn!(connections = sockets.by_number.len(), "still served after the end");
        }
    }

    fn sockets(&self) -> MutexGuard<'_, Sockets> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Open {
    connections: Arc<Connections>,
    number: u64,
}

impl Open {
    /// Errors: there are too many.
    pub(super) fn new(connections: &Arc<Connections>, stream: &TcpStream) -> io::Result<Open> {
        let mut sockets = connections.sockets();
        if sockets.by_number.len() >= CONNECTIONS_MAX {
            return Err(io::Error::other("too many connections"));
        }
        let number = sockets.next;
        sockets.next += 1;
        sockets.by_number.insert(number, stream.try_clone()?);
        Ok(Open { connections: Arc::clone(connections), number })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.sockets().by_number.remove(&self.number);
        self.connections.ended.notify_all();
    }
}
