//! A node that keeps batches for others: `DATA/depots`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use journal::StreamId;
use receiver::{DepotError, DepotIntake, Depots, Origin};
use wire::{DepotHello, Dialogue, Error, Message, Repeats};

/// How long a primary may say nothing: it cuts the next batch meanwhile.
const IDLE_TIME_MAX: Duration = Duration::from_secs(300);

/// The depots of a node, in one folder.
#[derive(Debug)]
pub(super) struct DepotRoom {
    pub(super) root: PathBuf,
    /// Who is refused tries again and again, and is news once.
    pub(super) refusals: Repeats<(StreamId, IpAddr)>,
}

impl Depots for DepotRoom {
    fn serve(&self, hello: DepotHello, from: &Origin, mut dialogue: Dialogue) {
        let served = self.talk(&hello, &mut dialogue);
        if let Err(error) = &served {
            let source = (hello.stream, from.address.ip());
            let (stream, address) = (hello.stream_name.as_str(), from.address);
            match self.refusals.is_news(source, &error.to_string(), Instant::now()) {
                true => tracing::warn!(stream, %address, %error, "take batches"),
                false => tracing::debug!(stream, %address, %error, "take batches again"),
            }
        }
        let refusal = served.err().and_then(|error| error.refusal()).map(Message::Refused);
        dialogue.close(refusal.as_ref());
    }
}

impl DepotRoom {
    fn talk(&self, hello: &DepotHello, dialogue: &mut Dialogue) -> Result<(), DepotError> {
        // the stream's folder is made in it; a name that is no name is refused there
        let (mut intake, state) = DepotIntake::open(&self.root, hello)?;
        dialogue.open();
        dialogue.send(&Message::DepotState(state))?;
        loop {
            let answer = match dialogue.receive(IDLE_TIME_MAX) {
                Ok(Message::BatchOffer(offer)) => Some(intake.offer(&offer)?),
                Ok(Message::BatchPart { offset, bytes }) => intake.part(offset, &bytes)?,
                Ok(Message::Alive(_)) => None,
                Ok(Message::Bye { .. }) | Err(Error::Closed) => return Ok(()),
                Ok(Message::Refused(refusal)) => return Err(Error::Refused(refusal).into()),
                Ok(_) => {
                    return Err(DepotError::OutOfTurn { found: "another message", wanted: "an offer or a part" });
                }
                Err(error) => return Err(error.into()),
            };
            if let Some(answer) = answer {
                dialogue.send(&answer)?;
            }
        }
    }
}
