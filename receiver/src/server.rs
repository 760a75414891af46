//! Accepts connections, authenticates them, reads their first message, and hands them to a stream or to the depots.
//!
//! ```text
//!  accept --limit--> handshake --limit--> first message --Greeting----> ReceiverStream (its thread from here on)
//!                                              |-------- DepotHello --> Depots
//!                                              |-------- CopyHello ---> Copies
//!                                              +-------- else --------> refused, typed
//! ```
//! One thread per connection from the start: a current-thread runtime that reads, writes, syncs and answers itself.
//! Nothing touches the disk before the other side is authenticated, and nothing large is kept for it before its first
//! message was taken.

mod connections;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use wire::{
    CopyHello, DepotHello, Dialogue, Error, Greeting, Link, Message, PROTOCOL, Reader, Refusal, Repeats, Security,
    Writer, own_runtime,
};

pub use self::connections::CONNECTIONS_MAX;
use self::connections::{Connections, Open};
use crate::feed::feed;
use crate::heartbeat::Heartbeat;
use crate::stream::ReceiverStream;

/// Connections that haven't said their first message yet. More wait in the system's queue; each holds its place for no
/// longer than the limits of handshake and first message.
pub const HANDSHAKES_MAX: usize = 64;
/// How long an authenticated side may take for its first message.
pub const HELLO_TIME_MAX: Duration = Duration::from_secs(5);
/// After the system refused to accept (no descriptors left), it is asked again so much later.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long a side that is refused may take to hear why.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(3);

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

/// Gives log to those who lost some of theirs. Called on the connection's own thread: it may block for as long as it
/// talks.
pub trait Copies: Send + Sync {
    /// Talks until the other side is done. Errors have been said to the other side as far as possible.
    fn serve(&self, hello: CopyHello, from: &Origin, dialogue: Dialogue);
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
    /// For those that read; without one they are refused.
    pub copies: Option<Arc<dyn Copies>>,
}

impl fmt::Debug for Rooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (depots, copies) = (self.depots.is_some(), self.copies.is_some());
        f.debug_struct("Rooms").field("depots", &depots).field("copies", &copies).finish_non_exhaustive()
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
    connections: Arc<Connections>,
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
            connections: Arc::default(),
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

    /// Takes no more connections and ends those that are open; a stream that is fed is told by its own
    /// [`ReceiverStream::stop`], before. Blocks until the port is free and nobody is served any more, but for the latter
    /// no longer than a last answer may take.
    pub fn stop(&self) {
        // nobody listens any more: it has stopped already
        let _ = self.stop.send(true);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the accepting thread panicked");
        }
        self.shared.connections.end();
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.shared.connections.count()
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
    let open = Open::new(&shared.connections, &stream)?;
    let shared = Arc::clone(shared);
    let serve = move || {
        // dropped in this order: when nobody is counted any more, nobody holds what is served
        let (_open, shared) = (open, shared);
        if let Err(error) = serve(&shared, permit, stream) {
            match shared.refusals.is_news(address.ip(), &error.to_string(), Instant::now()) {
                true => tracing::warn!(%address, %error, "a connection was refused"),
                false => tracing::debug!(%address, %error, "a connection was refused again"),
            }
        }
    };
    thread::Builder::new().name("towline-link".into()).spawn(serve).map(drop)
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
    let rooms = &shared.rooms;
    let unable = |reason: &str| Error::Refused(Refusal::Unable { reason: reason.into() });
    let unserved = match (first, &rooms.depots, &rooms.copies) {
        (Message::Greeting(greeting), ..) => return runtime.block_on(greet(shared, *greeting, &from, reader, write)),
        (Message::DepotHello(hello), Some(depots), _) => {
            depots.serve(hello, &from, Dialogue::resume(runtime, reader, write, from.address, from.names.clone()));
            return Ok(());
        }
        (Message::CopyHello(hello), _, Some(copies)) => {
            copies.serve(hello, &from, Dialogue::resume(runtime, reader, write, from.address, from.names.clone()));
            return Ok(());
        }
        (Message::DepotHello(_), ..) => unable("this node keeps no depot. Start it with one, or ask another"),
        (Message::CopyHello(_), ..) => unable("this node gives no log for repairs. Ask another"),
        _ => Error::Unexpected { kind: "message other than a greeting" },
    };
    Err(runtime.block_on(refuse(reader, write, unserved)))
}

/// A primary wants to feed a stream.
async fn greet(
    shared: &Shared,
    greeting: Greeting,
    from: &Origin,
    reader: Reader<ReadHalf<Link>>,
    write: WriteHalf<Link>,
) -> wire::Result<()> {
    match shared.rooms.streams.stream(&greeting, from) {
        Ok(stream) => {
            let (name, address) = (stream.name().to_owned(), from.address);
            tracing::info!(stream = name, %address, primary = greeting.node.name, "a primary greets");
            let reason = feed(stream, reader, write, greeting, |feed| shared.heartbeat.add(feed)).await;
            tracing::info!(stream = name, %address, reason, "the connection ended");
            Ok(())
        }
        Err(refusal) => Err(refuse(reader, write, Error::Refused(refusal)).await),
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
        let told = timeout(REFUSAL_TIME_MAX, writer.send(&Message::Refused(refusal))).await;
        if !matches!(told, Ok(Ok(()))) {
            tracing::debug!("the other side could not be told why it was refused");
        }
    }
    let (read, _) = reader.into_inner();
    read.unsplit(writer.into_inner()).close().await;
    error
}
