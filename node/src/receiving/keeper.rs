//! What a node does for a stream that it receives.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use journal::Lsn;
use receiver::{Keeper, Notice};
use wire::Repeats;

use super::replica::Replica;
use super::settled::Settled;

/// Applies, settles, and remembers what went wrong.
#[derive(Debug)]
pub(super) struct NodeKeeper {
    name: String,
    replica: Replica,
    settled: Settled,
    boot: [u8; 16],
    failure: Mutex<Option<String>>,
    said: Repeats<()>,
}

impl NodeKeeper {
    pub(super) fn new(name: &str, replica: Replica, settled: Settled, boot: [u8; 16]) -> NodeKeeper {
        NodeKeeper {
            name: name.to_owned(),
            replica,
            settled,
            boot,
            failure: Mutex::default(),
            said: Repeats::default(),
        }
    }

    pub(super) fn replica(&self) -> &Replica {
        &self.replica
    }

    pub(super) fn settled(&self) -> &Settled {
        &self.settled
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Keeper for NodeKeeper {
    fn apply(&self, to: Lsn) {
        self.replica.apply_to(to);
    }

    fn settle(&self) -> Result<(), String> {
        self.settled.settle(&self.boot).map_err(|error| error.to_string())
    }

    fn notice(&self, notice: &Notice) {
        log(&self.name, notice, &self.said);
    }

    fn failed(&self, reason: &str) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.to_owned());
    }
}

/// For a node that answers greetings only to refuse them.
#[derive(Debug)]
pub(crate) struct Silent {
    /// The stream's name.
    pub(crate) name: String,
    /// One memory for all of a stream: each greeting is answered by another one.
    pub(crate) said: Repeats<()>,
}

impl Keeper for Silent {
    fn apply(&self, _: Lsn) {}

    fn settle(&self) -> Result<(), String> {
        Ok(())
    }

    fn notice(&self, notice: &Notice) {
        log(&self.name, notice, &self.said);
    }

    fn failed(&self, reason: &str) {
        tracing::error!(stream = self.name, reason, "answer a greeting");
    }
}

/// A primary that is refused greets again and again: that is news once.
fn log(stream: &str, notice: &Notice, said: &Repeats<()>) {
    let text = super::status::notice_text(notice);
    let news = said.is_news((), &text, Instant::now());
    match notice {
        _ if !news => tracing::debug!(stream, "{text}"),
        Notice::LostDurable { .. } | Notice::Failed { .. } => tracing::error!(stream, "{text}"),
        _ => tracing::warn!(stream, "{text}"),
    }
}
