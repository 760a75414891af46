//! A link for talk that takes turns: blocking, for threads of their own. What is in a hurry uses [`Reader`] and
//! [`Writer`] itself.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::link::Link;
use crate::message::Message;
use crate::reader::Reader;
use crate::tls::Security;
use crate::writer::Writer;

/// The other side of a dialogue takes this long for one message at most; a slow disk is meant, not a slow thinker.
const SEND_TIME_MAX: Duration = Duration::from_secs(30);

/// Both directions of one connection, and the runtime that its thread runs them on. Every method blocks; after an error
/// other than a `Timeout` of [`Dialogue::receive`] only [`Dialogue::close`] makes sense. Not for async code.
#[derive(Debug)]
pub struct Dialogue {
    runtime: Runtime,
    reader: Reader<ReadHalf<Link>>,
    writer: Writer<WriteHalf<Link>>,
    peer: SocketAddr,
    peer_names: Vec<String>,
}

impl Dialogue {
    /// Dials, as [`Link::connect`] does.
    pub fn connect(security: &Security, address: &str, expect_name: Option<&str>) -> Result<Dialogue> {
        let runtime = own_runtime()?;
        let link = runtime.block_on(Link::connect(security, address, expect_name))?;
        let (peer, peer_names) = (link.peer(), link.peer_names().to_vec());
        let (read, write) = split(link);
        Ok(Dialogue::resume(runtime, Reader::new(read), write, peer, peer_names))
    }

    /// Goes on with a link that was made on `runtime` and whose first messages `reader` has read.
    pub fn resume(
        runtime: Runtime,
        reader: Reader<ReadHalf<Link>>,
        write: WriteHalf<Link>,
        peer: SocketAddr,
        peer_names: Vec<String>,
    ) -> Dialogue {
        Dialogue { runtime, reader, writer: Writer::new(write), peer, peer_names }
    }

    /// Both sides know each other: every message is taken from here on.
    pub fn open(&mut self) {
        self.reader.open();
    }

    /// Sends one message.
    pub fn send(&mut self, message: &Message) -> Result<()> {
        let Dialogue { runtime, writer, .. } = self;
        let sent = runtime.block_on(async { timeout(SEND_TIME_MAX, writer.send(message)).await });
        sent.unwrap_or(Err(Error::Timeout { doing: "send to the other side", after: SEND_TIME_MAX }))
    }

    /// The next message. Errors: `Timeout` when none came `within`: nothing is lost then, ask again.
    pub fn receive(&mut self, within: Duration) -> Result<Message> {
        let Dialogue { runtime, reader, .. } = self;
        let received = runtime.block_on(async { timeout(within, reader.message()).await });
        received.unwrap_or(Err(Error::Timeout { doing: "wait for the other side", after: within }))
    }

    /// Who is on the other side.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The names in the other side's certificate, the common name first; empty without TLS.
    pub fn peer_names(&self) -> &[String] {
        &self.peer_names
    }

    /// Ends the connection after a last message, if there is one: so that the other side can read it.
    pub fn close(mut self, last: Option<&Message>) {
        if let Some(message) = last
            && let Err(error) = self.send(message)
        {
            tracing::debug!(peer = %self.peer, %error, "send a last message");
        }
        let Dialogue { runtime, reader, writer, .. } = self;
        let (read, _) = reader.into_inner();
        runtime.block_on(read.unsplit(writer.into_inner()).close());
    }
}

/// A runtime for one thread and its connection.
pub fn own_runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_io().enable_time().build().map_err(Error::io("start a runtime"))
}
