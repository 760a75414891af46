//! A running node: its streams, its sockets, and how it begins and ends.
//!
//! ```text
//!  run -> Data (lock) -> streams opened -> sockets bound -> ready -> … -> stop: drain, close, say what is unknown
//! ```

mod appender;
mod copies;
mod depot;
mod listen;
mod place;
mod ready;
mod service;
mod ship;
mod signals;
mod waits;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use journal::StreamId;
use wire::NodeInfo;

use self::place::Place;
pub use self::ready::{Ready, ReadyStream, Stopped};
pub use self::signals::stop_on_signals;
use crate::control::{Listener, Service};
use crate::data::Data;
use crate::error::{Error, Result};
use crate::options::{FirstRole, Options, StreamOptions};
use crate::receiving::boot_id;
use crate::stop::Stop;
use crate::stream::Me;

/// How often the main thread looks whether a stream has failed for good.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs a node until `stop`. Blocking.
///
/// `ready` is called once, when every socket is bound and every stream is open: the first lines of a daemon. Clients may
/// connect from then on.
///
/// Errors: whatever keeps it from starting (`Locked`, `Corrupt`, `Config`, …); class `Io` when a write or a sync failed
/// for good while it ran: nothing was acknowledged after it, and the data is kept.
pub fn run(options: Options, stop: &Stop, ready: impl FnOnce(&Ready)) -> Result<Stopped> {
    let security = options.security.load()?;
    options.streams.iter().try_for_each(|stream| stream.allowed(&security))?;
    let data = Data::open(&options.data, options.name.as_deref())?;
    let listener = Listener::bind(data.path())?;
    let node = Arc::new(Node {
        start_id: random(),
        boot_id: boot_id(),
        security,
        making: Mutex::default(),
        data,
        options,
        stop: stop.clone(),
        places: Mutex::default(),
        listen: OnceLock::new(),
        failure: Mutex::default(),
    });
    let port = node.bind()?;
    let opened = node.open_streams();
    let server = match opened.and_then(|()| port.map(|port| node.serve(port)).transpose()) {
        Ok(server) => server,
        Err(error) => {
            // what runs already ends in order; the error is what counts
            node.close_streams();
            return Err(error);
        }
    };
    let service: Arc<dyn Service> = node.clone();
    let control = thread::Builder::new().name("control-accept".into());
    let control = control.spawn({
        let stop = stop.clone();
        move || listener.run(&service, &stop)
    });
    let control = control.map_err(Error::io("start a thread for", node.data.path()))?;
    ready(&node.ready());
    // no service manager is no error
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    while !stop.wait(Some(LOOK_EVERY)) {
        node.look_after_streams();
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    if control.join().is_err() {
        tracing::error!("the thread of the control socket panicked");
    }
    let stopped = node.close_streams();
    if let Some(server) = server {
        server.stop();
    }
    let failure = node.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    failure.map_or(Ok(stopped), Err)
}

/// A node that runs.
#[derive(Debug)]
pub(crate) struct Node {
    data: Data,
    options: Options,
    start_id: u64,
    boot_id: [u8; 16],
    security: wire::Security,
    stop: Stop,
    /// Held while a stream is made for a primary that was never met.
    making: Mutex<()>,
    places: Mutex<BTreeMap<String, Arc<Place>>>,
    listen: OnceLock<SocketAddr>,
    failure: Mutex<Option<Error>>,
}

impl Node {
    /// Opens what the folder keeps, and makes what the options want and isn't there.
    fn open_streams(&self) -> Result<()> {
        for name in self.data.streams()? {
            let place = Place::open(self, &name)?;
            self.admit(place)?;
        }
        for options in &self.options.streams {
            let known = self.places().contains_key(&options.name);
            if !known && options.first == FirstRole::Primary {
                let place = Place::create_primary(self, options)?;
                self.admit(place)?;
            }
        }
        Ok(())
    }

    /// Two folders with one identity are one stream copied: both can't run.
    fn admit(&self, place: Place) -> Result<()> {
        let mut places = self.places();
        if let Some(other) = places.values().find(|other| other.stream() == place.stream()) {
            let what = format!("is a copy of stream {} ({}); remove one of them", other.name(), place.stream());
            let path = self.data.stream(place.name()).journal();
            place.close(&mut Stopped::default());
            return Err(Error::Foreign { path, what });
        }
        places.insert(place.name().to_owned(), Arc::new(place));
        Ok(())
    }

    /// Housekeeping. And a failed sync is final: the node ends, so that nobody takes it for a healthy one.
    fn look_after_streams(&self) {
        let places: Vec<_> = self.places().values().cloned().collect();
        for place in &places {
            place.tick();
        }
        let failed = places.iter().find_map(|place| place.failure());
        if let Some(error) = failed {
            tracing::error!(%error, "a stream failed for good: this node ends");
            self.stop.begin(&error.to_string(), self.options.stop_timeout);
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    fn close_streams(&self) -> Stopped {
        let places = std::mem::take(&mut *self.places());
        let mut stopped = Stopped { why: self.stop.why().unwrap_or_default(), ..Stopped::default() };
        for place in places.into_values() {
            place.close(&mut stopped);
        }
        stopped
    }

    /// This node, in this process.
    fn info(&self) -> NodeInfo {
        NodeInfo {
            id: self.data.node(),
            name: self.data.name().to_owned(),
            start_id: self.start_id,
            boot_id: self.boot_id,
        }
    }

    /// How this node may be called in a policy that another one wrote.
    fn me(&self) -> Me {
        let bound = self.listen.get();
        let names = [Some(self.data.name().to_owned()), self.options.listen.clone(), bound.map(ToString::to_string)];
        Me { names: names.into_iter().flatten().collect(), port: bound.map(SocketAddr::port) }
    }

    /// What the options say of a stream.
    fn wanted(&self, name: &str) -> Option<&StreamOptions> {
        self.options.streams.iter().find(|stream| stream.name == name)
    }

    fn place(&self, name: &str) -> Result<Arc<Place>> {
        let places = self.places();
        places.get(name).cloned().ok_or_else(|| {
            let known = places.keys().cloned().collect();
            Error::NoStream { stream: name.chars().take(64).collect(), known }
        })
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Place>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn knows(&self, stream: StreamId) -> Option<Arc<Place>> {
        self.places().values().find(|place| place.stream() == stream).cloned()
    }
}

/// A random number, never zero.
fn random() -> u64 {
    journal::Host::default().ids.random()
}
