//! A node that gives log to those who lost some of theirs: out of its journal and its depot, verified before it leaves.

use std::time::Duration;

use journal::repair::{JournalCopy, RangeSource};
use journal::{Cursor, FaultKind, Next, StreamId};
use receiver::{Copies, Origin};
use wire::{
    CopyAsk, CopyHello, CopyState, Dialogue, ENTRIES_BYTES_MAX, Error, HOLDINGS_MAX, Holding, Message, Refusal,
};

use super::Node;

/// How long the other side may say nothing: it reads its own log meanwhile, and comes back if that takes longer.
const IDLE_TIME_MAX: Duration = Duration::from_secs(300);

impl Copies for Node {
    fn serve(&self, hello: CopyHello, from: &Origin, mut dialogue: Dialogue) {
        let stream = self.knows(hello.stream).map_or(hello.stream.to_string(), |place| place.name().to_owned());
        let address = from.address;
        let mut bytes = 0;
        let ended = self.give(hello.stream, &mut dialogue, &mut bytes);
        if bytes > 0 {
            tracing::info!(stream, %address, bytes, "gave log for a repair");
        }
        let refusal = match ended {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(stream, %address, %error, "give log for a repair");
                match error {
                    Error::Refused(refusal) => Some(Message::Refused(refusal)),
                    // the connection is gone, or the other side has a fault
                    _ => None,
                }
            }
        };
        dialogue.close(refusal.as_ref());
    }
}

impl Node {
    /// Answers questions until the other side is done; `given` counts the bytes of log that left.
    fn give(&self, stream: StreamId, dialogue: &mut Dialogue, given: &mut usize) -> wire::Result<()> {
        let mut copies = self.copies(stream);
        copies.truncate(HOLDINGS_MAX);
        let (holdings, mut sources): (Vec<_>, Vec<_>) = copies.into_iter().unzip();
        dialogue.open();
        dialogue.send(&Message::CopyState(CopyState { holdings }))?;
        loop {
            let ask = match dialogue.receive(IDLE_TIME_MAX) {
                Ok(Message::CopyAsk(ask)) => ask,
                Ok(Message::Bye { .. }) | Err(Error::Closed | Error::Timeout { .. }) => return Ok(()),
                Ok(_) => return Err(unable("another message came where a question was due")),
                Err(error) => return Err(error),
            };
            if self.stop.deadline().is_some() {
                return Err(unable("this node is stopping"));
            }
            let answer = answer(&mut sources, &ask);
            if let Message::Entries { bytes, .. } = &answer {
                *given += bytes.len();
            }
            dialogue.send(&answer)?;
        }
    }

    /// What this node has of a stream. The journal is read from its files and not from its map: where the disk refuses a
    /// page, that is an answer here and not the end of the process.
    fn copies(&self, stream: StreamId) -> Vec<(Holding, Box<dyn RangeSource>)> {
        let mut copies: Vec<(Holding, Box<dyn RangeSource>)> = Vec::new();
        if let Some(place) = self.knows(stream) {
            match JournalCopy::open(&self.data.stream(place.name()).journal()) {
                Ok(copy) => copies.push((Holding::Journal { geometry: copy.geometry() }, Box::new(copy))),
                Err(error) => tracing::warn!(stream = place.name(), %error, "give log for a repair"),
            }
        }
        let depots = self.data.depots();
        if depots.is_dir() {
            let (lines, unread) =
                archive::DepotLine::find(&depots, stream).unwrap_or_else(|error| (vec![], vec![error]));
            for error in unread {
                tracing::warn!(%stream, %error, "give batches for a repair");
            }
            for line in lines {
                copies.push((Holding::Line { geometry: line.geometry(), end: line.end() }, Box::new(line)));
            }
        }
        copies
    }
}

fn unable(reason: &str) -> Error {
    Error::Refused(Refusal::Unable { reason: reason.to_owned() })
}

/// The entries behind a place, as many as one message takes; each follows from the one before.
fn answer(sources: &mut [Box<dyn RangeSource>], ask: &CopyAsk) -> Message {
    let lacks = |why: &str| Message::CopyLacks { why: why.to_owned() };
    let Some(source) = sources.get_mut(usize::from(ask.holding)) else { return lacks("there is no such copy here") };
    let mut piece = match source.fetch(&ask.from) {
        Ok(Some(piece)) => piece,
        Ok(None) => return lacks(""),
        Err(fault) => return lacks(&fault.to_string()),
    };
    let mut cursor = Cursor::new(source.geometry(), ask.from);
    let mut whole = 0;
    let stopped = loop {
        match cursor.next(piece.get(whole..).unwrap_or_default()) {
            Ok(Next::Entry(entry)) if whole + entry.header.range().bytes() as usize <= ENTRIES_BYTES_MAX => {
                whole += entry.header.range().bytes() as usize;
            }
            Ok(Next::Entry(_)) => break None,
            Ok(Next::Need(_)) => break Some(FaultKind::Short),
            Err(fault) => break Some(fault.kind),
        }
    };
    match stopped {
        _ if whole > 0 => {
            piece.truncate(whole);
            Message::Entries { session: 0, at: ask.from.lsn, bytes: piece.into() }
        }
        Some(FaultKind::Zero) | None => lacks(""),
        Some(kind) => lacks(&format!("what stands there doesn't follow: {kind}")),
    }
}
