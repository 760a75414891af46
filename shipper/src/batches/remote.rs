//! A depot on another node: the same depot, behind the wire.
//!
//! ```text
//!  DepotHello ->  <- DepotState     BatchOffer ->  <- BatchHave | BatchStored     BatchPart … ->  <- BatchStored
//! ```

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use archive::Finished;
use bytes::Bytes;
use journal::{Geometry, StreamId, TermSeen};
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use wire::{BatchOffer, DepotHello, DepotState, Link, Message, NodeInfo, PROTOCOL, Place, Reader, Security, Writer};

use super::{DepotLink, ShipError, Stop};

/// Bytes in one part: small enough that the stop flag is looked at often.
const PART_BYTES: usize = 256 << 10;
/// How long the other side may take to answer a hello or an offer, or to take a part.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);
/// How long it may take to verify, sync and store a whole batch.
const STORE_TIME_MAX: Duration = Duration::from_secs(300);

const _: () = assert!(PART_BYTES <= wire::PART_BYTES_MAX);

/// How to reach a depot on another node, and who asks.
#[derive(Clone, Debug)]
pub struct NodeLinkOptions {
    /// HOST:PORT.
    pub address: String,
    /// The name in the other side's certificate, when it isn't HOST.
    pub tls_name: Option<String>,
    /// How the link is protected.
    pub security: Security,
    /// Whose batches.
    pub stream: StreamId,
    /// Its name.
    pub stream_name: String,
    /// Its geometry.
    pub geometry: Geometry,
    /// This node.
    pub node: NodeInfo,
}

/// A depot on another node. It brings its own runtime, which runs only inside the calls: a thread of its own must call.
#[derive(Debug)]
pub struct NodeLink {
    options: NodeLinkOptions,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    runtime: Runtime,
    reader: Reader<ReadHalf<Link>>,
    writer: Writer<WriteHalf<Link>>,
}

impl NodeLink {
    /// A link that isn't open yet.
    pub fn new(options: NodeLinkOptions) -> NodeLink {
        NodeLink { options, open: None }
    }

    fn hello(&self, own: TermSeen) -> Message {
        let NodeLinkOptions { stream, stream_name, geometry, node, .. } = self.options.clone();
        Message::DepotHello(DepotHello { protocol: PROTOCOL, stream, stream_name, geometry, node, term: own })
    }
}

impl DepotLink for NodeLink {
    fn open(&mut self, own: TermSeen) -> Result<DepotState, ShipError> {
        self.close();
        let hello = self.hello(own);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(ShipError::Runtime)?;
        let NodeLinkOptions { security, address, tls_name, .. } = &self.options;
        let connected = runtime.block_on(async {
            let link = Link::connect(security, address, tls_name.as_deref()).await?;
            let (read, write) = split(link);
            let (mut reader, mut writer) = (Reader::new(read), Writer::new(write));
            send(&mut reader, &mut writer, &hello).await?;
            let state = match answer(&mut reader, ANSWER_TIME_MAX).await? {
                Message::DepotState(state) => state,
                other => return Err(out_of_turn(&other, "the depot's state")),
            };
            reader.open();
            Ok((state, reader, writer))
        });
        let (state, reader, writer) = connected.map_err(|error| match error {
            ShipError::Wire(cause) => ShipError::Reach { address: address.clone(), cause },
            error => error,
        })?;
        self.open = Some(Open { runtime, reader, writer });
        Ok(state)
    }

    fn store(&mut self, batch: &Finished, stop: &Stop) -> Result<Place, ShipError> {
        let Some(Open { runtime, reader, writer }) = &mut self.open else { return Err(wire::Error::Closed.into()) };
        runtime.block_on(async {
            let (name, bytes) = (batch.info.name().to_string(), batch.info.file_bytes);
            let offer = BatchOffer { name: name.clone(), bytes, hash: batch.file_hash };
            send(reader, writer, &Message::BatchOffer(offer)).await?;
            match answer(reader, ANSWER_TIME_MAX).await? {
                Message::BatchStored { end, .. } => return Ok(end),
                Message::BatchHave { offset } if offset <= bytes => {
                    parts(reader, writer, batch, offset, stop).await?;
                }
                other => return Err(out_of_turn(&other, "what it has of the batch")),
            }
            match answer(reader, STORE_TIME_MAX).await? {
                Message::BatchStored { name: stored, end } if stored == name => Ok(end),
                other => Err(out_of_turn(&other, "that it stored the batch")),
            }
        })
    }

    fn close(&mut self) {
        let Some(Open { runtime, reader, mut writer }) = self.open.take() else { return };
        runtime.block_on(async {
            let bye = Message::Bye { reason: "nothing more to ship now".into() };
            // the batches are stored; whether the other side hears a goodbye doesn't matter
            let _ = timeout(ANSWER_TIME_MAX, writer.send(&bye)).await;
            let (link, _) = reader.into_inner();
            link.unsplit(writer.into_inner()).close().await;
        });
    }
}

/// Sends the file from `offset` on, at the pace of the other side.
async fn parts(
    reader: &mut Reader<ReadHalf<Link>>,
    writer: &mut Writer<WriteHalf<Link>>,
    batch: &Finished,
    offset: u64,
    stop: &Stop,
) -> Result<(), ShipError> {
    let io = |doing: &'static str| {
        let path = batch.path.clone();
        move |source| ShipError::Archive(archive::Error::Io { doing, path, source })
    };
    let file = File::open(&batch.path).map_err(io("open batch"))?;
    let mut at = offset;
    while at < batch.info.file_bytes {
        if stop.is_set() {
            return Err(ShipError::Stopped);
        }
        let bytes = (batch.info.file_bytes - at).min(PART_BYTES as u64) as usize;
        let mut part = vec![0; bytes];
        file.read_exact_at(&mut part, at).map_err(io("read batch"))?;
        writer.queue_part(at, Bytes::from(part))?;
        flush(reader, writer).await?;
        at += bytes as u64;
    }
    Ok(())
}

async fn send(
    reader: &mut Reader<ReadHalf<Link>>,
    writer: &mut Writer<WriteHalf<Link>>,
    message: &Message,
) -> Result<(), ShipError> {
    writer.queue(message)?;
    flush(reader, writer).await
}

/// Sends what is queued. When that fails, the other side may have said why before it closed.
async fn flush(reader: &mut Reader<ReadHalf<Link>>, writer: &mut Writer<WriteHalf<Link>>) -> Result<(), ShipError> {
    let sent = timeout(ANSWER_TIME_MAX, writer.flush()).await;
    let sent = sent.unwrap_or(Err(wire::Error::Timeout { doing: "send a batch", after: ANSWER_TIME_MAX }));
    let Err(error) = sent else { return Ok(()) };
    match answer(reader, Duration::from_secs(1)).await {
        Err(ShipError::Wire(said @ wire::Error::Refused(_))) => Err(said.into()),
        _ => Err(error.into()),
    }
}

/// The next message; a refusal is an error.
async fn answer(reader: &mut Reader<ReadHalf<Link>>, after: Duration) -> Result<Message, ShipError> {
    loop {
        let message = timeout(after, reader.message()).await;
        match message.map_err(|_| wire::Error::Timeout { doing: "wait for the depot's answer", after })?? {
            Message::Refused(refusal) => return Err(wire::Error::Refused(refusal).into()),
            Message::Alive(_) => {}
            other => return Ok(other),
        }
    }
}

fn out_of_turn(found: &Message, wanted: &'static str) -> ShipError {
    let found = match found {
        Message::Greeting(_) => "a greeting",
        Message::DepotState(_) => "its state",
        Message::BatchHave { .. } => "what it has of a batch",
        Message::BatchStored { .. } => "that it stored another batch",
        Message::Bye { .. } => "goodbye",
        _ => "something else",
    };
    ShipError::OutOfTurn { found, wanted }
}
