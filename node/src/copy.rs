//! Another node as a source for the repair of a journal, over the link that nodes talk on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use journal::repair::{RangeSource, SourceFault};
use journal::{Geometry, StreamId, Tip};
use wire::{CopyAsk, CopyHello, Dialogue, Error, Holding, Message, PROTOCOL};

use crate::error::Result;
use crate::options::Security;

/// How long the other side may take for one answer: a slow disk is meant.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// One copy of a stream's log on another node that runs: its journal, or a line of the depot that it keeps.
///
/// Asking blocks, at most for the time that connecting and one answer may take. A connection that ended while nobody
/// asked is made again.
#[derive(Debug)]
pub struct NodeCopy {
    asking: Arc<Mutex<Asking>>,
    number: u16,
    holding: Holding,
    stream: StreamId,
    name: String,
}

impl NodeCopy {
    /// Every copy of `stream` that the node at `address` (`HOST:PORT`) has, in the order in which they should be asked;
    /// none when it has nothing of it. Its certificate must be for `tls_name`, or without one for HOST. Blocking.
    ///
    /// Errors: it can't be reached, or one of the two sides refuses the other.
    pub fn find(security: &Security, address: &str, tls_name: Option<&str>, stream: StreamId) -> Result<Vec<NodeCopy>> {
        let mut asking = Asking {
            security: security.load()?,
            address: address.to_owned(),
            tls_name: tls_name.map(str::to_owned),
            stream,
            holdings: Vec::new(),
            dialogue: None,
        };
        let (dialogue, holdings) = asking.connect()?;
        asking.dialogue = Some(dialogue);
        asking.holdings.clone_from(&holdings);
        let several = holdings.iter().filter(|holding| matches!(holding, Holding::Line { .. })).count() > 1;
        let asking = Arc::new(Mutex::new(asking));
        let copy = |(number, holding): (u16, Holding)| {
            let name = match holding {
                Holding::Journal { .. } => format!("the journal at {address}"),
                Holding::Line { end, .. } if several => format!("the depot at {address} (the line up to LSN {end})"),
                Holding::Line { .. } => format!("the depot at {address}"),
            };
            NodeCopy { asking: Arc::clone(&asking), number, holding, stream, name }
        };
        Ok((0..).zip(holdings).map(copy).collect())
    }

    fn asking(&self) -> MutexGuard<'_, Asking> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RangeSource for NodeCopy {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn stream(&self) -> StreamId {
        self.stream
    }

    fn geometry(&self) -> Geometry {
        match self.holding {
            Holding::Journal { geometry } | Holding::Line { geometry, .. } => geometry,
        }
    }

    fn fetch(&mut self, from: &Tip) -> std::result::Result<Option<Vec<u8>>, SourceFault> {
        let answer = self.asking().ask(CopyAsk { holding: self.number, from: *from })?;
        match answer {
            Message::Entries { session: 0, at, bytes } if at == from.lsn => Ok(Some(bytes.into())),
            Message::CopyLacks { why } if why.is_empty() => Ok(None),
            Message::CopyLacks { why } => Err(why.into()),
            Message::Refused(refusal) => Err(refusal.to_string().into()),
            _ => Err("it answered another question. The other side has a fault".into()),
        }
    }
}

/// The connection that the copies of one node share.
#[derive(Debug)]
struct Asking {
    security: wire::Security,
    address: String,
    tls_name: Option<String>,
    stream: StreamId,
    /// As they were named first: numbers mean these.
    holdings: Vec<Holding>,
    dialogue: Option<Dialogue>,
}

impl Asking {
    fn connect(&self) -> wire::Result<(Dialogue, Vec<Holding>)> {
        let mut dialogue = Dialogue::connect(&self.security, &self.address, self.tls_name.as_deref())?;
        dialogue.send(&Message::CopyHello(CopyHello { protocol: PROTOCOL, stream: self.stream }))?;
        match dialogue.receive(ANSWER_TIME_MAX)? {
            Message::CopyState(state) => {
                dialogue.open();
                Ok((dialogue, state.holdings))
            }
            Message::Refused(refusal) => Err(Error::Refused(refusal)),
            _ => Err(Error::Unexpected { kind: "message other than a list of copies" }),
        }
    }

    fn ask(&mut self, ask: CopyAsk) -> std::result::Result<Message, SourceFault> {
        if let Some(mut dialogue) = self.dialogue.take() {
            match exchange(&mut dialogue, ask) {
                Ok(answer) => {
                    self.dialogue = Some(dialogue);
                    return Ok(answer);
                }
                // a repair may read its own log for longer than the other side waits
                Err(error) => tracing::debug!(address = self.address, %error, "ask again on a new connection"),
            }
        }
        let (mut dialogue, holdings) = self.connect()?;
        let same = |(now, before): (&Holding, &Holding)| std::mem::discriminant(now) == std::mem::discriminant(before);
        if holdings.len() != self.holdings.len() || !holdings.iter().zip(&self.holdings).all(same) {
            return Err("it has other copies now than when it was asked first. Run this again".into());
        }
        let answer = exchange(&mut dialogue, ask)?;
        self.dialogue = Some(dialogue);
        Ok(answer)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(dialogue) = self.dialogue.take() {
            dialogue.close(Some(&Message::Bye { reason: "done".into() }));
        }
    }
}

fn exchange(dialogue: &mut Dialogue, ask: CopyAsk) -> wire::Result<Message> {
    dialogue.send(&Message::CopyAsk(ask))?;
    dialogue.receive(ANSWER_TIME_MAX)
}
