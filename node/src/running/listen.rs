//! What a node does with the connections of others.

use std::net::{TcpListener, ToSocketAddrs};
use std::sync::Arc;

use receiver::{IntakeOptions, Origin, ReceiverOptions, ReceiverStream, Rooms, Server, Streams};
use wire::{Greeting, Refusal, Repeats};

use super::Node;
use super::depot::DepotRoom;
use super::place::Place;
use crate::error::{Error, Result};
use crate::receiving::Silent;

impl Node {
    /// Binds the address for other nodes. Nobody is served yet.
    pub(super) fn bind(&self) -> Result<Option<TcpListener>> {
        let Some(address) = &self.options.listen else { return Ok(None) };
        let cannot = |source| Error::Listen { address: address.clone(), source };
        let found = address.to_socket_addrs().map_err(cannot)?.next();
        let found = found.ok_or_else(|| cannot(std::io::ErrorKind::AddrNotAvailable.into()))?;
        let listener = TcpListener::bind(found).map_err(cannot)?;
        // set once, by the only thread that listens
        let _ = self.listen.set(listener.local_addr().map_err(cannot)?);
        Ok(Some(listener))
    }

    /// Serves other nodes.
    pub(super) fn serve(self: &Arc<Self>, listener: TcpListener) -> Result<Server> {
        let depots = Arc::new(DepotRoom { root: self.data.depots(), refusals: Repeats::default() });
        let rooms = Rooms { streams: self.clone(), depots: Some(depots), copies: Some(self.clone()) };
        Ok(Server::start(listener, self.security.clone(), rooms)?)
    }
}

impl Streams for Node {
    fn stream(&self, greeting: &Greeting, from: &Origin) -> Result<Arc<ReceiverStream>, Refusal> {
        let unable = |error: Error| Refusal::Unable { reason: error.to_string() };
        if self.stop.deadline().is_some() {
            return Err(Refusal::Unable { reason: "this node is stopping".into() });
        }
        // one at a time: two greetings of a new stream must not make it twice
        let _making = self.making.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(place) = self.knows(greeting.stream) {
            return place.answer(self).map_err(unable);
        }
        if let Ok(other) = self.place(&greeting.stream_name) {
            // a name is no identity: this is another stream that is called the same
            return Err(Refusal::Stream { primary: greeting.stream, receiver: other.stream() });
        }
        tracing::info!(stream = greeting.stream_name, id = %greeting.stream, from = %from.address, "a new stream");
        let place = Place::create_receiver(self, greeting).map_err(unable)?;
        self.admit(place).map_err(unable)?;
        self.knows(greeting.stream).ok_or(Refusal::Busy)?.answer(self).map_err(unable)
    }
}

/// A stand-in that answers one greeting for a node that is no receiver: it makes a higher term known here, and refuses.
pub(super) fn refusing(
    node: &Node,
    name: &str,
    journal: journal::Journal,
    said: Repeats<()>,
) -> Result<Arc<ReceiverStream>> {
    let options = ReceiverOptions {
        stream_name: name.to_owned(),
        node: node.info(),
        intake: IntakeOptions { dead_after: node.options.dead_after, ..IntakeOptions::default() },
        applied: journal.committed(),
        checkpoint: journal.checkpoint(),
        in_doubt: false,
    };
    Ok(ReceiverStream::start(journal, options, Arc::new(Silent { name: name.to_owned(), said }))?)
}
