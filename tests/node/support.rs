//! Nodes in this process, each on a thread of its own, and what the tests ask of them.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use journal::{Class, Flags};
use node::control::{
    Acked, Append, Client, Done, Failure, From, Level, Promote, Promoted, StatusOf, TailFrom, Until, Wait,
};
use node::{
    Error, FirstRole, NodeStatus, Options, PeerOptions, Ready, State, Stop, Stopped, StreamOptions, StreamStatus,
};

/// The stream of every test.
pub(crate) const STREAM: &str = "log";
/// Longer than anything takes here, and shorter than a test's patience.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A running node.
pub(crate) struct Running {
    pub(crate) dir: PathBuf,
    pub(crate) ready: Ready,
    stop: Stop,
    thread: Option<JoinHandle<node::Result<Stopped>>>,
}

/// Starts a node and waits until it is ready.
pub(crate) fn start(options: Options) -> Running {
    try_start(options).unwrap_or_else(|error| panic!("the node didn't start: {error}"))
}

/// Starts a node; what keeps it from being ready comes back.
pub(crate) fn try_start(options: Options) -> Result<Running, Error> {
    let (dir, stop) = (options.data.clone(), Stop::new().expect("a signal"));
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn({
        let stop = stop.clone();
        move || node::run(options, &stop, |ready| tell.send(ready.clone()).expect("somebody listens"))
    });
    match told.recv() {
        Ok(ready) => Ok(Running { dir, ready, stop, thread: Some(thread) }),
        Err(_) => match thread.join().expect("no panic") {
            Ok(stopped) => panic!("it ended before it was ready: {stopped}"),
            Err(error) => Err(error),
        },
    }
}

/// A node that takes connections on a free port, or on the one that it had.
pub(crate) fn receiver(dir: &Path, name: &str, listen: Option<&str>) -> Options {
    let listen = Some(listen.unwrap_or("127.0.0.1:0").to_owned());
    Options { name: Some(name.into()), listen, dead_after: Duration::from_secs(2), ..Options::new(dir.join(name)) }
}

/// A node that makes the stream with these peers.
pub(crate) fn primary(dir: &Path, name: &str, peers: impl IntoIterator<Item = PeerOptions>) -> Options {
    let mut stream = StreamOptions::new(STREAM, FirstRole::Primary);
    stream.peers.extend(peers);
    stream.segment_bytes = Some(1 << 20);
    Options { streams: vec![stream], ..receiver(dir, name, None) }
}

impl Running {
    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        self.ready.listen.clone().expect("it listens")
    }

    /// It as a peer.
    pub(crate) fn peer(&self) -> PeerOptions {
        PeerOptions::at(self.address())
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.dir).expect("connect")
    }

    pub(crate) fn status(&self) -> NodeStatus {
        self.client().status(StatusOf::default()).expect("status")
    }

    /// The status of the stream.
    pub(crate) fn stream(&self) -> StreamStatus {
        let of = StatusOf { stream: Some(STREAM.into()) };
        self.client().status(of).expect("status").streams.into_iter().next().expect("the stream")
    }

    /// Waits until the stream is in this state.
    pub(crate) fn wait_state(&self, state: State) -> StreamStatus {
        let mut status = None;
        until(|| {
            status = self.status().streams.into_iter().find(|stream| stream.name == STREAM);
            status.as_ref().is_some_and(|status| status.state == state)
        });
        status.expect("seen")
    }

    /// Appends these records in one call.
    pub(crate) fn append(&self, wait: Level, timeout: Duration, records: &[&str]) -> Result<Acked, Failure> {
        let append = Append { stream: STREAM.into(), wait, timeout_ms: Some(timeout.as_millis() as u64) };
        let (mut sender, mut acks) = self.client().append(append).map_err(|error| match error {
            Error::Answer(failure) => failure,
            error => panic!("append: {error}"),
        })?;
        let sent = records.iter().try_for_each(|record| sender.send(record.as_bytes(), Flags::NONE));
        // a node that fails early says why, and takes no more
        let _ = sent.and_then(|()| sender.finish());
        loop {
            match acks.next_group().expect("an answer").expect("a last word") {
                Done::Acked(_) => {}
                Done::Done(acked) => return Ok(acked),
                Done::Error(failure) => return Err(failure),
            }
        }
    }

    /// Every record of the stream here.
    pub(crate) fn records(&self) -> Vec<String> {
        let from = TailFrom { stream: STREAM.into(), from: From::Start, follow: false };
        let mut tail = self.client().tail(from).expect("a tail");
        let mut records = Vec::new();
        while let Some(record) = tail.next_record().expect("a record") {
            records.push(String::from_utf8(record.payload.to_vec()).expect("text"));
        }
        records
    }

    pub(crate) fn wait(&self, until: Until) {
        let timeout_ms = Some(LONG.as_millis() as u64);
        self.client().wait(Wait { stream: STREAM.into(), until, lsn: None, timeout_ms }).expect("it holds in the end");
    }

    pub(crate) fn promote(&self, accept_loss: bool) -> Result<Promoted, Failure> {
        self.promote_as(Promote { stream: STREAM.into(), accept_loss, wait_for_peer: false })
    }

    pub(crate) fn promote_and_wait(&self) -> Result<Promoted, Failure> {
        self.promote_as(Promote { stream: STREAM.into(), accept_loss: false, wait_for_peer: true })
    }

    fn promote_as(&self, promote: Promote) -> Result<Promoted, Failure> {
        match self.client().promote(promote) {
            Ok(promoted) => Ok(promoted),
            Err(Error::Answer(failure)) => Err(failure),
            Err(error) => panic!("promote: {error}"),
        }
    }

    /// Ends it in order.
    pub(crate) fn stop(mut self) -> Stopped {
        self.end().expect("it ran").expect("no failure")
    }

    fn end(&mut self) -> Option<node::Result<Stopped>> {
        self.stop.begin("the test says so", Duration::from_millis(300));
        self.thread.take().map(|thread| thread.join().expect("no panic"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.end() {
            eprintln!("a node ended with: {error}");
        }
    }
}

/// Waits until something holds. No test depends on how long it takes.
#[track_caller]
pub(crate) fn until(mut holds: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LONG, "it never held");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The class of a failure.
pub(crate) fn class<T: std::fmt::Debug>(result: Result<T, Failure>) -> Class {
    result.expect_err("it was to fail").class()
}
