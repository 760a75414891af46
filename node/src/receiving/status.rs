//! How a stream is, on its receiver.

use journal::Time;
use receiver::Notice;

use super::Receiving;
use crate::status::{RoleName, SourceStatus, State, StreamStatus};
use crate::stream::fill_status;

impl Receiving {
    /// How it is now.
    pub(crate) fn status(&self) -> StreamStatus {
        let now = self.stream.status();
        let connected = now.fed_by.is_some();
        let state = match (self.failure().is_some(), connected) {
            (true, _) => State::Failed,
            (false, true) => State::Following,
            (false, false) => State::Waiting,
        };
        let mut status = fill_status(&self.name, RoleName::Receiver, state, &self.journal);
        status.at.committed = now.committed.get();
        status.at.applied = Some(self.keeper.replica().applied().get());
        status.at.checkpoint = Some(self.keeper.replica().checkpoint().get());
        status.in_doubt = now.in_doubt;
        status.source = Some(SourceStatus {
            name: now.fed_by_name,
            connected,
            durable: now.announced.map(|announced| announced.durable.get()),
            last_contact_ms: now.last_contact.map(|at| Time::now().since(at).as_millis() as u64),
            last_error: now.last_notice.as_ref().map(notice_text),
        });
        if now.announced.is_some_and(|announced| announced.alone) {
            status.notes.push("the primary goes on without a required peer".into());
        }
        if now.full {
            status.notes.push("there was no space for what was sent last".into());
            status.next_step = Some("free some space; receiving then goes on by itself".into());
        }
        let rebuilt = self.journal.is_rebuilt();
        if now.in_doubt && rebuilt {
            status.notes.push("in doubt until the primary has been met".into());
        } else if now.in_doubt {
            status.notes.push(
                "in doubt: this machine was started anew, and what was only received may be lost until the primary has \
                 been met"
                    .into(),
            );
        }
        if let Some(trouble) = self.keeper.replica().trouble() {
            status.notes.push(format!("the replica stands still: {trouble}"));
        }
        if let Some(reason) = self.failure() {
            status.notes.push(reason);
            status.next_step = Some("check the disk, then start this node again".into());
        } else if !connected {
            status.waits_for.push("its primary to connect".into());
            let word = if rebuilt { " --accept-loss" } else { "" };
            let step = format!("start its primary; if that is lost for good: towline promote {}{word}", self.name);
            status.next_step.get_or_insert(step);
        }
        status
    }
}

/// A notice for people.
pub(super) fn notice_text(notice: &Notice) -> String {
    match notice {
        Notice::LostDurable { acknowledged, end } => format!(
            "this node had acknowledged LSN {} as durable, but its log ends at {end}: its disk lost durable data; it is \
             fetched again",
            acknowledged.lsn
        ),
        Notice::Replaced { node } => format!("a newer connection of {node} replaced one that was still open"),
        Notice::Refused(refusal) => format!("refused: {refusal}"),
        Notice::Failed { reason } => format!("it acknowledges nothing more: {reason}"),
        other => format!("{other:?}"),
    }
}
