//! The node's side of the control socket: a thread a connection, a bounded number of connections.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use journal::Class;
use rustix::event::{PollFd, PollFlags, poll};
use serde::Serialize;

use super::protocol::{Answer, Command, Failure, Holding, Request, SCHEMA, Tailing};
use super::service::{Patience, Service};
use super::shipping::Shipping;
use super::{address, append, client::to_line, socket_path, tail};
use crate::error::{Error, Result};
use crate::stop::Stop;

/// Connections at once; one more is told so and closed.
const CONNECTIONS_MAX: usize = 256;
/// Longest request line.
const REQUEST_BYTES_MAX: u64 = 64 << 10;
/// A client that says nothing for so long after connecting is closed: it holds one of the connections.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// How often the end of the connections is looked for while the node drains.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(10);

/// The bound socket; the file goes with this value.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Binds the socket of a data folder that this process holds: whatever lies in its place is from a dead process.
    /// Only the owner may connect, from the first moment on.
    pub(crate) fn bind(data: &Path) -> Result<Listener> {
        let path = socket_path(data);
        let aside = path.with_extension("sock.new");
        let _ = fs::remove_file(&aside);
        let short = address::short(&aside).map_err(Error::io("open the folder of", &aside))?;
        let socket = UnixListener::bind(short.path()).map_err(Error::io("bind", &aside))?;
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o600)).map_err(Error::io("protect", &aside))?;
        fs::rename(&aside, &path).map_err(Error::io("rename", &aside))?;
        socket.set_nonblocking(true).map_err(Error::io("set up", &path))?;
        Ok(Listener { socket, path })
    }

    /// Serves until `stop`, then gives the connections until its deadline to end. Blocking.
    pub(crate) fn run(self, service: &Arc<dyn Service>, stop: &Stop) {
        let connections = Arc::new(Connections::default());
        while !stopped_or_ready(&self.socket, stop) {
            match self.socket.accept() {
                Ok((stream, _)) => connections.spawn(stream, service, stop),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    // out of descriptors, most likely: those that end make room
                    tracing::warn!(%error, "accept on the control socket");
                    stop.wait(Some(DRAIN_LOOK_EVERY));
                }
            }
        }
        let _ = fs::remove_file(&self.path);
        connections.end_input();
        while connections.count.load(Ordering::Acquire) > 0 && stop.deadline().is_some_and(|end| Instant::now() < end) {
            thread::sleep(DRAIN_LOOK_EVERY);
        }
    }
}

/// Blocks until somebody connects (false) or the node is to end (true).
fn stopped_or_ready(socket: &UnixListener, stop: &Stop) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::new(stop.descriptor(), PollFlags::IN)];
    let _ = poll(&mut fds, None);
    stop.deadline().is_some()
}

/// The connections that stand.
#[derive(Debug, Default)]
struct Connections {
    count: AtomicUsize,
    open: Mutex<Vec<Weak<UnixStream>>>,
}

impl Connections {
    fn spawn(self: &Arc<Self>, stream: UnixStream, service: &Arc<dyn Service>, stop: &Stop) {
        if self.count.load(Ordering::Acquire) >= CONNECTIONS_MAX {
            let failure = Failure::new(Class::Refused, format!("{CONNECTIONS_MAX} connections are open already"))
                .hint("end one of them, or try again later");
            let _ = say(&stream, &Answer::<()>::Error(failure));
            return;
        }
        let stream = Arc::new(stream);
        {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.retain(|open| open.strong_count() > 0);
            open.push(Arc::downgrade(&stream));
        }
        self.count.fetch_add(1, Ordering::AcqRel);
        let (counted, service, stop) = (Counted(self.clone()), service.clone(), stop.clone());
        let spawned = thread::Builder::new().name("control".into()).spawn(move || {
            let _counted = counted;
            if let Err(error) = serve(&stream, &*service, &stop) {
                tracing::debug!(%error, "a control connection ended");
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "start a thread for a control connection");
        }
    }

    /// Tells those who still send that nothing more is taken.
    fn end_input(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in open.iter().filter_map(Weak::upgrade) {
            let _ = stream.shutdown(Shutdown::Read);
        }
    }
}

/// One of the counted connections.
struct Counted(Arc<Connections>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
    }
}

fn serve(stream: &UnixStream, service: &dyn Service, stop: &Stop) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let mut input = BufReader::new(stream);
    loop {
        // between two requests a client may be quiet for as long as it likes, as long as the first came in time
        let Some(request) = read_request(&mut input)? else { return Ok(()) };
        stream.set_read_timeout(None)?;
        let command = match request {
            Ok(request) => request.command,
            Err(failure) => return say(stream, &Answer::<()>::Error(failure)),
        };
        let patience = |timeout_ms: Option<u64>| Patience {
            client: stream,
            deadline: timeout_ms.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms))),
            stop,
        };
        match command {
            Command::Status(of) => answer(stream, service.status(&of))?,
            Command::Wait(wait) => answer(stream, service.wait(&wait, &patience(wait.timeout_ms)))?,
            Command::Mark(mark) => answer(stream, service.mark(&mark, &patience(mark.timeout_ms)))?,
            Command::Ship(ship) => {
                // a client that is gone ends the wait itself
                let mut waits = |waits| drop(say(stream, &Shipping::Waits(waits)));
                answer(stream, service.ship(&ship, &patience(ship.timeout_ms), &mut waits))?;
            }
            Command::Promote(promote) => answer(stream, service.promote(&promote))?,
            Command::Stop => answer(stream, Ok(service.stop()))?,
            Command::Hold(hold) => {
                let (_holder, from) = match service.hold(&hold) {
                    Ok(held) => held,
                    Err(failure) => return say(stream, &Answer::<()>::Error(failure)),
                };
                say(stream, &Answer::Ok(Holding { from: from.get() }))?;
                // nothing more is taken: whoever holds leaves when it is done, or the node stops
                return io::copy(&mut input, &mut io::sink()).map(drop);
            }
            Command::Append(append) => {
                let appender = match service.appender(&append, &patience(append.timeout_ms)) {
                    Ok(appender) => appender,
                    Err(failure) => return say(stream, &Answer::<()>::Error(failure)),
                };
                say(stream, &Answer::Ok("go"))?;
                let early = input.buffer().to_vec();
                return append::run(stream, &early, &*appender, &append, stop);
            }
            Command::Tail(from) => {
                let tailer = match service.tailer(&from) {
                    Ok(tailer) => tailer,
                    Err(failure) => return say(stream, &Answer::<()>::Error(failure)),
                };
                say(stream, &Answer::Ok(Tailing { from: tailer.from().get() }))?;
                return tail::run(stream, tailer, &patience(None));
            }
        }
    }
}

/// The next request, or why it is none; `None` when the client is done.
fn read_request(input: &mut BufReader<&UnixStream>) -> io::Result<Option<Result<Request, Failure>>> {
    if input.buffer().is_empty() {
        input.get_ref().set_read_timeout(Some(REQUEST_WITHIN))?;
    }
    let mut line = Vec::new();
    input.take(REQUEST_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        let failure = Failure::new(Class::Usage, format!("a request is one line of at most {REQUEST_BYTES_MAX} bytes"));
        return Ok(Some(Err(failure)));
    }
    Ok(Some(parse(&line)))
}

fn parse(line: &[u8]) -> Result<Request, Failure> {
    #[derive(serde::Deserialize)]
    struct Schema {
        schema: u32,
    }
    let not_understood = |cause: serde_json::Error| {
        Failure::new(Class::Usage, format!("the request is not understood: {cause}"))
            .hint(format!("one line: {{\"schema\":{SCHEMA},\"command\":{{…}}}}"))
    };
    // the schema first: a newer client's commands may be unknown here
    let schema: Schema = serde_json::from_slice(line).map_err(not_understood)?;
    if schema.schema != SCHEMA {
        let message = format!("the client speaks schema {}, this node {SCHEMA}", schema.schema);
        return Err(Failure::new(Class::Incompatible, message).hint("use the towline of the node's own version"));
    }
    serde_json::from_slice(line).map_err(not_understood)
}

fn answer<T: Serialize>(stream: &UnixStream, result: Result<T, Failure>) -> io::Result<()> {
    match result {
        Ok(value) => say(stream, &Answer::Ok(value)),
        Err(failure) => say(stream, &Answer::<()>::Error(failure)),
    }
}

/// Writes one line.
pub(super) fn say<T: Serialize>(mut stream: &UnixStream, value: &T) -> io::Result<()> {
    stream.write_all(&to_line(value))
}
