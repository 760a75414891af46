//! Accepts connections, authenticates them, reads their first message, and hands them to a stream or to the depots.
//!
//! ```text
//!  accept --limit--> handshake --limit--> first message --Greeting----> ReceiverStream (its thread from here on)
//!                                              |-------- DepotHello --> Depots
//!                                              +-------- else --------> refused, typed
//! ```
//! One thread per connection from the start: a current-thread runtime that reads, writes, syncs and answers itself.
//! Nothing touches the disk before the other side is authenticated, and nothing large is kept for it before its first
//! message was taken.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use wire::{
    DepotHello, Dialogue, Error, Greeting, Link, Message, PROTOCOL, Reader, Refusal, Repeats, Security, Writer,
    own_runtime,
};

use crate::feed::feed;
use crate::heartbeat::Heartbeat;
use crate::stream::ReceiverStream;

/// Connections that haven't said their first message yet. More wait in the system's queue; each holds its place for no
/// longer than the limits of handshake and first message.
pub const HANDSHAKES_MAX: usize = 64;
/// Connections in all: each has a thread.
pub const CONNECTIONS_MAX: usize = 1024;
/// How long an authenticated side may take for its first message.
pub const HELLO_TIME_MAX: Duration = Duration::from_secs(5);
/// After the system refused to accept (no descriptors left), it is asked again so much later.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long stopping waits for connections to end.
const STOP_TIME_MAX: Duration = Duration::from_secs(3);

/// Finds the stream that a primary wants to feed, or makes it. Called on the connection's own thread: it may block.
pub trait Streams: Send + Sync {
    /// The stream of this authenticated greeting.
    fn stream(&self, greeting: &Greeting, from: &Origin) -> Result<Arc<ReceiverStream>, Refusal>;
}

/// Takes batches from primaries. Called on the connection's own thread: it may block for as long as it talks.
pub trait Depots: Send + Sync {
    /// Talks until the other side is done. Errors have been said to the other side as far as possible.
    fn serve(&self, hello: DepotHello, from: &Origin, dialogue: Dialogue);
}

/// Who is on the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its address.
    pub address: SocketAddr,
    /// The names in its certificate, the common name first; empty without TLS.
    pub names: Vec<String>,
}

/// What a server hands connections to.
#[derive(Clone)]
pub struct Rooms {
    /// For greetings.
    pub streams: Arc<dyn Streams>,
    /// For depot links; without one they are refused.
    pub depots: Option<Arc<dyn Depots>>,
}

impl fmt::Debug for Rooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rooms").field("depots", &self.depots.is_some()).finish_non_exhaustive()
    }
}

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    security: Security,
    rooms: Rooms,
    heartbeat: Heartbeat,
    handshakes: Arc<Semaphore>,
    connections: AtomicUsize,
    /// Who is refused tries again and again, and is news once.
    refusals: Repeats<IpAddr>,
}

impl Server {
    /// Serves connections of `listener` until [`Server::stop`].
    ///
    /// Errors: `PlaintextOffLoopback` for an address that plain connections may not come in at, `Io`.
    pub fn start(listener: TcpListener, security: Security, rooms: Rooms) -> wire::Result<Server> {
        let trouble = || Error::io("listen");
        let address = listener.local_addr().map_err(trouble())?;
        security.check(address)?;
        listener.set_nonblocking(true).map_err(trouble())?;
        let heartbeat = Heartbeat::start().map_err(Error::io("start a thread"))?;
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        let shared = Arc::new(Shared {
            security,
            rooms,
            heartbeat,
            handshakes,
            connections: AtomicUsize::new(0),
            refusals: Repeats::default(),
        });
        let (stop, stopped) = watch::channel(false);
        let runtime = own_runtime()?;
        let thread = thread::Builder::new().name("towline-accept".into()).spawn({
            let shared = Arc::clone(&shared);
            move || runtime.block_on(accept(listener, &shared, stopped))
        });
        let thread = Mutex::new(Some(thread.map_err(Error::io("start a thread"))?));
        Ok(Server { address, stop, thread, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections; those that feed a stream end with the stream ([`ReceiverStream::stop`]). Blocks until
    /// the port is free.
    pub fn stop(&self) {
        // nobody listens any more: it has stopped already
        let _ = self.stop.send(true);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the accepting thread panicked");
        }
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Acquire)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn accept(listener: TcpListener, shared: &Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "listen"),
    };
    loop {
        let next = async {
            let permit = Arc::clone(&shared.handshakes).acquire_owned().await.ok()?;
            Some((permit, listener.accept().await))
        };
        let accepted = tokio::select! {
            accepted = next => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        match accepted {
            None => return,
            Some((permit, Ok((stream, address)))) => {
                if let Err(error) = stream.into_std().and_then(|stream| spawn(shared, permit, stream, address)) {
                    tracing::warn!(%address, %error, "serve a connection");
                }
            }
            Some((_, Err(error))) => {
                tracing::warn!(%error, "accept a connection");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

fn spawn(
    shared: &Arc<Shared>,
    permit: OwnedSemaphorePermit,
    stream: std::net::TcpStream,
    address: SocketAddr,
) -> io::Result<()> {
    let counted = Counted::new(shared);
    if shared.connections.load(Ordering::Acquire) > CONNECTIONS_MAX {
        return Err(io::Error::other("too many connections"));
    }
    let serve = move || {
        let shared = Arc::clone(&counted.0);
        if let Err(error) = serve(&shared, permit, stream) {
            match shared.refusals.is_news(address.ip(), &error.to_string(), Instant::now()) {
                true => tracing::warn!(%address, %error, "a connection was refused"),
                false => tracing::debug!(%address, %error, "a connection was refused again"),
            }
        }
    };
    thread::Builder::new().name("towline-link".into()).spawn(serve).map(drop)
}

/// A connection, as long as its thread runs.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>) -> Counted {
        shared.connections.fetch_add(1, Ordering::AcqRel);
        Counted(Arc::clone(shared))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One connection, from its first byte to its last.
fn serve(shared: &Shared, permit: OwnedSemaphorePermit, stream: std::net::TcpStream) -> wire::Result<()> {
    let runtime = own_runtime()?;
    let (first, from, reader, write) = runtime.block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream).map_err(Error::io("accept a connection"))?;
        let link = Link::accept(&shared.security, stream).await?;
        let from = Origin { address: link.peer(), names: link.peer_names().to_vec() };
        let (read, write) = split(link);
        let mut reader = Reader::new(read);
        match timeout(HELLO_TIME_MAX, reader.message()).await {
            Ok(Ok(first)) => Ok((first, from, reader, write)),
            Ok(Err(error)) => Err(refuse(reader, write, error).await),
            Err(_) => {
                let error = Error::Timeout { doing: "wait for the first message", after: HELLO_TIME_MAX };
                Err(refuse(reader, write, error).await)
            }
        }
    })?;
    drop(permit);
    match (first, &shared.rooms.depots) {
        (Message::Greeting(greeting), _) => runtime.block_on(async {
            match shared.rooms.streams.stream(&greeting, &from) {
                Ok(stream) => {
                    let (name, address) = (stream.name().to_owned(), from.address);
                    tracing::info!(stream = name, %address, primary = greeting.node.name, "a primary greets");
                    let reason = feed(stream, reader, write, *greeting, |feed| shared.heartbeat.add(feed)).await;
                    tracing::info!(stream = name, %address, reason, "the connection ended");
                    Ok(())
                }
                Err(refusal) => Err(refuse(reader, write, Error::Refused(refusal)).await),
            }
        }),
        (Message::DepotHello(hello), Some(depots)) => {
            let dialogue = Dialogue::resume(runtime, reader, write, from.address, from.names.clone());
            depots.serve(hello, &from, dialogue);
            Ok(())
        }
        (Message::DepotHello(_), None) => {
            let refusal =
                Refusal::Unable { reason: "this node keeps no depot. Start it with one, or ask another".into() };
            Err(runtime.block_on(refuse(reader, write, Error::Refused(refusal))))
        }
        (_, _) => {
            let error = Error::Unexpected { kind: "message other than a greeting" };
            Err(runtime.block_on(refuse(reader, write, error)))
        }
    }
}

/// Says why not, as far as the other side can understand it, and closes.
async fn refuse(reader: Reader<ReadHalf<Link>>, write: WriteHalf<Link>, error: Error) -> Error {
    let refusal = match &error {
        Error::Refused(refusal) => Some(refusal.clone()),
        Error::Protocol { theirs, .. } => Some(Refusal::Protocol { primary: *theirs, receiver: PROTOCOL }),
        // it speaks another language, or nothing at all
        Error::NotTowline { .. } | Error::Untrusted(_) | Error::Closed | Error::Io { .. } => None,
        other => Some(Refusal::Unable { reason: other.to_string() }),
    };
    let mut writer: Writer<WriteHalf<Link>> = Writer::new(write);
    if let Some(refusal) = refusal {
        let told = timeout(STOP_TIME_MAX, writer.send(&Message::Refused(refusal))).await;
        if !matches!(told, Ok(Ok(()))) {
            tracing::debug!("the other side could not be told why it was refused");
        }
    }
    let (read, _) = reader.into_inner();
    read.unsplit(writer.into_inner()).close().await;
    error
}
