//! Batches that arrive: verified and stored into a depot folder, each once, each only when it is whole.
//!
//! ```text
//!  DepotHello -> DepotIntake -> DepotState
//!  BatchOffer ->    |        -> BatchHave (what an earlier attempt brought) | BatchStored
//!  BatchPart  ->    |           written to the upload
//!       last one    +--> blake3, entries, place -> sync, rename, folder sync -> BatchStored
//! ```
//! [`DepotIntake`] is driven message by message and blocks on the disk; [`serve_depot`] is the driver. Nothing is kept
//! in memory but the part that has just arrived.

use std::path::Path;
use std::time::Duration;

use archive::{Depot, Offer, Spool, Stored};
use journal::Class;
use wire::{BatchOffer, DepotHello, DepotState, Dialogue, Message, PROTOCOL, Place, Refusal};

/// How long a connection may say nothing: its other side cuts a batch meanwhile.
const IDLE_TIME_MAX: Duration = Duration::from_secs(300);

/// Why a depot's connection ended early. The other side has been told, if it could be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DepotError {
    /// The connection failed.
    #[error(transparent)]
    Wire(#[from] wire::Error),
    /// The depot could not take what came.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// The other side may not ship here, or not this.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// A message that was not due.
    #[error("{found} came where {wanted} was due")]
    OutOfTurn {
        /// What came.
        found: &'static str,
        /// What was due.
        wanted: &'static str,
    },
}

impl DepotError {
    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            DepotError::Wire(error) => error.class(),
            DepotError::Archive(error) => error.class(),
            DepotError::Refused(refusal) => refusal.class(),
            DepotError::OutOfTurn { .. } => Class::Incompatible,
        }
    }

    /// What the other side is told before the connection is closed; `None` when there is nobody to tell.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            DepotError::Wire(_) => None,
            DepotError::Refused(refusal) => Some(refusal.clone()),
            DepotError::Archive(archive::Error::Locked { .. }) => Some(Refusal::Busy),
            other => Some(Refusal::Unable { reason: other.to_string() }),
        }
    }
}

/// One connection that brings batches.
#[derive(Debug)]
pub struct DepotIntake {
    depot: Depot,
    upload: Option<Spool>,
}

impl DepotIntake {
    /// Answers a hello: makes the stream's folder in the depot at `root` if it is new, and says where its line ends.
    /// Blocking.
    ///
    /// # Errors
    /// `Refused` for another protocol, a fenced primary or split brain.
    pub fn open(root: &Path, hello: &DepotHello) -> Result<(DepotIntake, DepotState), DepotError> {
        if hello.protocol != PROTOCOL {
            let refusal = Refusal::Protocol { primary: hello.protocol, receiver: PROTOCOL };
            return Err(DepotError::Refused(refusal));
        }
        let depot = Depot::create(root, &hello.stream_name, hello.stream)?;
        let catalogue = depot.catalogue()?;
        if let Some(geometry) = catalogue.geometry().filter(|geometry| *geometry != hello.geometry) {
            let (primary, receiver) = (hello.geometry.body_bytes(), geometry.body_bytes());
            return Err(DepotError::Refused(Refusal::Geometry { primary, receiver }));
        }
        let state = match catalogue.end()? {
            None => DepotState::default(),
            Some(end) => {
                let (primary, receiver) = (hello.term, end.term);
                if primary.term < receiver.term {
                    return Err(DepotError::Refused(Refusal::Fenced { primary, receiver }));
                }
                if primary.term == receiver.term && primary.id != receiver.id {
                    return Err(DepotError::Refused(Refusal::SplitBrain { primary, receiver }));
                }
                DepotState { end: Some(Place { lsn: end.tip.lsn, chain: end.tip.chain }), term: end.term }
            }
        };
        Ok((DepotIntake { depot, upload: None }, state))
    }

    /// Takes an offer and answers with what is here already, or that all of it is. Blocking.
    pub fn offer(&mut self, offer: &BatchOffer) -> Result<Message, DepotError> {
        // an upload that was left unfinished keeps its bytes on disk for the next time
        self.upload = None;
        match self.depot.offer(&offer.name, offer.bytes, offer.hash)? {
            Offer::Stored(stored) => Ok(stored_message(&stored)),
            Offer::Have(spool) if spool.have() == spool.bytes() => Ok(stored_message(&spool.finish()?)),
            Offer::Have(spool) => {
                let offset = spool.have();
                self.upload = Some(spool);
                Ok(Message::BatchHave { offset })
            }
        }
    }

    /// Takes a part; answers when it was the last one and the batch is stored. Blocking.
    ///
    /// # Errors
    /// `OutOfTurn` without an offer; `Archive` when the part isn't the next, or the whole is not what was offered.
    pub fn part(&mut self, offset: u64, bytes: &[u8]) -> Result<Option<Message>, DepotError> {
        let Some(mut spool) = self.upload.take() else {
            return Err(DepotError::OutOfTurn { found: "a part of a batch", wanted: "an offer" });
        };
        spool.write(offset, bytes)?;
        if spool.have() < spool.bytes() {
            self.upload = Some(spool);
            return Ok(None);
        }
        Ok(Some(stored_message(&spool.finish()?)))
    }
}

/// Serves a connection whose first message was `hello`, until it says goodbye, closes, or breaks a rule; it is told why,
/// and closed. Blocking.
pub fn serve_depot(root: &Path, hello: &DepotHello, mut dialogue: Dialogue) -> Result<(), DepotError> {
    let served = talk(root, hello, &mut dialogue);
    let refusal = served.as_ref().err().and_then(DepotError::refusal);
    dialogue.close(refusal.map(Message::Refused).as_ref());
    served
}

fn talk(root: &Path, hello: &DepotHello, dialogue: &mut Dialogue) -> Result<(), DepotError> {
    // the stream's folder is made in it; a name that is no name is refused there
    let (mut intake, state) = DepotIntake::open(root, hello)?;
    dialogue.open();
    dialogue.send(&Message::DepotState(state))?;
    loop {
        let answer = match dialogue.receive(IDLE_TIME_MAX) {
            Ok(Message::BatchOffer(offer)) => Some(intake.offer(&offer)?),
            Ok(Message::BatchPart { offset, bytes }) => intake.part(offset, &bytes)?,
            Ok(Message::Alive(_)) => None,
            Ok(Message::Bye { .. }) | Err(wire::Error::Closed) => return Ok(()),
            Ok(Message::Refused(refusal)) => return Err(wire::Error::Refused(refusal).into()),
            Ok(_) => return Err(DepotError::OutOfTurn { found: "another message", wanted: "an offer or a part" }),
            Err(error) => return Err(error.into()),
        };
        if let Some(answer) = answer {
            dialogue.send(&answer)?;
        }
    }
}

fn stored_message(stored: &Stored) -> Message {
    let end = Place { lsn: stored.end.lsn, chain: stored.end.chain };
    Message::BatchStored { name: stored.info.name().to_string(), end }
}

#[cfg(test)]
mod tests;
