//! The client's side: blocking, over the standard library's unix socket.

use std::fmt;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use journal::{Flags, Lsn, Time};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::address;
use super::frame::{FRAME_HEAD_BYTES, FrameHead, FrameKind, RECORD_HEAD_BYTES};
use super::protocol::{
    Answer, Append, Command, Done, Failure, Hold, Holding, Mark, Marked, Promote, Promoted, Reached, Request, SCHEMA,
    Status, StatusOf, Stopping, TailFrom, Tailing, Wait,
};
use super::shipping::{Ship, ShipWaits, Shipped, Shipping};
use super::{LINE_BYTES_MAX, socket_path};
use crate::error::{Error, Result};

/// Bytes that a [`Sender`] collects before it writes by itself.
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// A connection to a running node. One command at a time.
pub struct Client {
    path: PathBuf,
    reader: BufReader<UnixStream>,
}

/// A log that is kept for this process until this is dropped, as long as there is room.
#[derive(Debug)]
pub struct Held {
    _client: Client,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to the node whose data folder is `data`.
    ///
    /// Errors: [`Error::NoFolder`] (class `Absent`) when there is no such folder, [`Error::NotRunning`] (class `Io`)
    /// when no node answers there.
    pub fn connect(data: &Path) -> Result<Client> {
        if !data.is_dir() {
            return Err(Error::NoFolder { path: data.to_owned() });
        }
        let path = socket_path(data);
        match address::short(&path).and_then(|short| UnixStream::connect(short.path())) {
            Ok(stream) => Ok(Client { path, reader: BufReader::new(stream) }),
            Err(source) => Err(Error::NotRunning { data: data.to_owned(), source }),
        }
    }

    /// How the node and its streams are.
    pub fn status(&mut self, of: StatusOf) -> Result<Status> {
        self.ask(Command::Status(of))
    }

    /// Blocks until something holds; a timeout is a [`Failure`] of class `unknown`.
    pub fn wait(&mut self, wait: Wait) -> Result<Reached> {
        self.ask(Command::Wait(wait))
    }

    /// Writes a named restore point.
    pub fn mark(&mut self, mark: Mark) -> Result<Marked> {
        self.ask(Command::Mark(mark))
    }

    /// Ships to the depots; answers when it lies there. `waits` is told what is waited for, whenever that changes.
    pub fn ship(&mut self, ship: Ship, mut waits: impl FnMut(&ShipWaits)) -> Result<Vec<Shipped>> {
        self.send(Command::Ship(ship))?;
        loop {
            match self.read_line()? {
                Some(Shipping::Waits(what)) => waits(&what),
                Some(Shipping::Ok(shipped)) => return Ok(shipped),
                Some(Shipping::Error(failure)) => return Err(Error::Answer(failure)),
                None => return Err(self.broken("read the answer", io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }

    /// Makes the node the primary of a stream.
    pub fn promote(&mut self, promote: Promote) -> Result<Promoted> {
        self.ask(Command::Promote(promote))
    }

    /// Ends the node. Its process is gone a little later: at most its stop timeout.
    pub fn stop(&mut self) -> Result<Stopping> {
        self.ask(Command::Stop)
    }

    /// Has the log of a stream kept, for this process to read, until the answer is dropped.
    pub fn hold(mut self, stream: &str) -> Result<Held> {
        let hold = Hold { stream: stream.to_owned(), pid: std::process::id() };
        let Holding { .. } = self.ask(Command::Hold(hold))?;
        Ok(Held { _client: self })
    }

    /// Begins to append: records go in through the [`Sender`], acknowledgements come out of [`Acks`], in another thread
    /// or after [`Sender::finish`] (a sender nobody listens to blocks once its acknowledgements fill the socket).
    pub fn append(mut self, append: Append) -> Result<(Sender, Acks)> {
        let _: String = self.ask(Command::Append(append))?;
        let writer = self.reader.get_ref().try_clone().map_err(|source| self.broken("duplicate the socket", source))?;
        let sender = Sender { path: self.path.clone(), writer: BufWriter::with_capacity(SEND_BUFFER_BYTES, writer) };
        Ok((sender, Acks { client: self, ended: false }))
    }

    /// Begins to read records.
    pub fn tail(mut self, tail: TailFrom) -> Result<Tail> {
        let tailing: Tailing = self.ask(Command::Tail(tail))?;
        Ok(Tail { client: self, from: Lsn::new(tailing.from), body: Vec::new(), ended: false })
    }

    fn send(&self, command: Command) -> Result<()> {
        let line = to_line(&Request { schema: SCHEMA, command });
        let mut socket = self.reader.get_ref();
        socket.write_all(&line).map_err(|source| self.broken("send the request", source))
    }

    fn ask<T: DeserializeOwned>(&mut self, command: Command) -> Result<T> {
        self.send(command)?;
        match self.read_line()? {
            Some(Answer::Ok(answer)) => Ok(answer),
            Some(Answer::Error(failure)) => Err(Error::Answer(failure)),
            None => Err(self.broken("read the answer", io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// The next line; `None` when the node closed the connection between two lines.
    fn read_line<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let mut line = Vec::new();
        let read = (&mut self.reader).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line);
        match read {
            Ok(0) => Ok(None),
            Ok(_) if line.last() == Some(&b'\n') => match serde_json::from_slice(&line) {
                Ok(value) => Ok(Some(value)),
                Err(cause) => Err(Error::Protocol {
                    path: self.path.clone(),
                    what: format!("its answer is not understood: {cause}"),
                }),
            },
            Ok(_) => Err(self.broken("read the answer", io::ErrorKind::UnexpectedEof.into())),
            Err(source) => Err(self.broken("read the answer", source)),
        }
    }

    fn broken(&self, doing: &'static str, source: io::Error) -> Error {
        Error::Broken { doing, path: self.path.clone(), source }
    }
}

/// The way in of an `append`.
pub struct Sender {
    path: PathBuf,
    writer: BufWriter<UnixStream>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Sender {
    /// Hands in one record; an empty one is legal. Only [`Flags::UNTERMINATED`] passes. Blocks while the node is busy
    /// with earlier ones. After an error [`Acks`] says why.
    pub fn send(&mut self, payload: &[u8], flags: Flags) -> Result<()> {
        let head = FrameHead { kind: FrameKind::Record, flags, body_bytes: payload.len() };
        if u32::try_from(payload.len()).is_err() || FrameHead::decode(head.encode()).is_none() {
            return Err(Error::Protocol {
                path: self.path.clone(),
                what: format!("a record of {} bytes with flags {:#06x} can't be sent", payload.len(), flags.0),
            });
        }
        let sent = self.writer.write_all(&head.encode()).and_then(|()| self.writer.write_all(payload));
        sent.map_err(|source| self.broken(source))
    }

    /// Sends what was collected. Call it when no more input is at hand.
    pub fn flush(&mut self) -> Result<()> {
        self.writer.flush().map_err(|source| self.broken(source))
    }

    /// Says that no more records follow. Without it the node takes the end of the connection for a broken one.
    pub fn finish(mut self) -> Result<()> {
        let head = FrameHead { kind: FrameKind::End, flags: Flags::NONE, body_bytes: 0 };
        let sent = self.writer.write_all(&head.encode()).and_then(|()| self.writer.flush());
        sent.map_err(|source| self.broken(source))
    }

    fn broken(&self, source: io::Error) -> Error {
        Error::Broken { doing: "send records", path: self.path.clone(), source }
    }
}

/// The way out of an `append`.
#[derive(Debug)]
pub struct Acks {
    client: Client,
    ended: bool,
}

impl Acks {
    /// Blocks until the next group is acknowledged; `None` behind [`Done::Done`] or [`Done::Error`].
    ///
    /// A connection that ends without either is [`Error::Broken`] (class `Unknown`): records sent and not acknowledged
    /// may be in the stream or not.
    pub fn next_group(&mut self) -> Result<Option<Done>> {
        if self.ended {
            return Ok(None);
        }
        let done = match self.client.read_line()? {
            Some(done) => done,
            None => return Err(self.client.broken("read acknowledgements", io::ErrorKind::UnexpectedEof.into())),
        };
        self.ended = !matches!(done, Done::Acked(_));
        Ok(Some(done))
    }
}

/// A record from a `tail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailRecord<'a> {
    /// LSN of its first entry.
    pub first: Lsn,
    /// Position behind it: what its acknowledgement named.
    pub end: Lsn,
    /// When it was appended.
    pub time: Time,
    /// [`Flags::UNTERMINATED`] or nothing.
    pub flags: Flags,
    /// What was appended.
    pub payload: &'a [u8],
}

/// Records as they come.
#[derive(Debug)]
pub struct Tail {
    client: Client,
    from: Lsn,
    body: Vec<u8>,
    ended: bool,
}

impl Tail {
    /// Where the node began to look.
    pub fn from(&self) -> Lsn {
        self.from
    }

    /// True when no record can be had without blocking: the moment to flush what was printed.
    pub fn is_drained(&self) -> bool {
        self.client.reader.buffer().is_empty()
    }

    /// Blocks for the next record; `None` at the end (never, with `follow`).
    pub fn next_record(&mut self) -> Result<Option<TailRecord<'_>>> {
        if self.ended {
            return Ok(None);
        }
        let mut head = [0; FRAME_HEAD_BYTES];
        let read = self.client.reader.read_exact(&mut head);
        read.map_err(|source| self.client.broken("read records", source))?;
        let Some(head) = FrameHead::decode(head) else {
            return Err(garbled(&self.client.path, "a frame that it doesn't know"));
        };
        self.body.clear();
        // grows with what arrives, so that a garbled length allocates nothing
        let read = (&mut self.client.reader).take(head.body_bytes as u64).read_to_end(&mut self.body);
        match read {
            Ok(bytes) if bytes == head.body_bytes => {}
            Ok(_) => return Err(self.client.broken("read records", io::ErrorKind::UnexpectedEof.into())),
            Err(source) => return Err(self.client.broken("read records", source)),
        }
        match head.kind {
            FrameKind::Record => match record(head.flags, &self.body) {
                Some(record) => Ok(Some(record)),
                None => Err(garbled(&self.client.path, "a record without its positions")),
            },
            FrameKind::End => {
                self.ended = true;
                Ok(None)
            }
            FrameKind::Failure => {
                self.ended = true;
                match serde_json::from_slice::<Failure>(&self.body) {
                    Ok(failure) => Err(Error::Answer(failure)),
                    Err(_) => Err(garbled(&self.client.path, "a failure that can't be read")),
                }
            }
        }
    }
}

fn record(flags: Flags, body: &[u8]) -> Option<TailRecord<'_>> {
    let (head, payload) = body.split_at_checked(RECORD_HEAD_BYTES)?;
    let number = |at: usize| head.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    Some(TailRecord {
        first: Lsn::new(number(0)?),
        end: Lsn::new(number(8)?),
        time: Time::from_nanos(number(16)?),
        flags,
        payload,
    })
}

fn garbled(path: &Path, what: &str) -> Error {
    Error::Protocol { path: path.to_owned(), what: format!("it sent {what}") }
}

/// A value as one line.
pub(super) fn to_line<T: Serialize>(value: &T) -> Vec<u8> {
    // these types have no map with keys that aren't text and no failing Serialize: this can't fail
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}
