//! A stream on a node that keeps a copy of it.
//!
//! ```text
//!  primary --> ReceiverStream --> Journal
//!                   |  ^ applied, checkpoint
//!             apply v  |
//!                 Replica --> records/
//! ```

mod keeper;
mod replica;
mod settled;
mod status;

use std::sync::Arc;
use std::time::Duration;

use journal::{Holder, Journal, TermSeen};
use receiver::{IntakeOptions, ReceiverOptions, ReceiverStream};
use wire::NodeInfo;

use self::keeper::NodeKeeper;
pub(crate) use self::keeper::Silent;
pub(crate) use self::replica::Replica;
pub(crate) use self::settled::{Settled, boot_id};
use crate::data::StreamFolder;
use crate::error::Result;

/// A stream that is received and applied.
#[derive(Debug)]
pub(crate) struct Receiving {
    name: String,
    journal: Journal,
    stream: Arc<ReceiverStream>,
    keeper: Arc<NodeKeeper>,
    /// What the replica would have to replay.
    replayed: Holder,
}

impl Receiving {
    /// Starts to receive into `journal`: applies what is known to be committed, and takes connections of a primary.
    pub(crate) fn start(
        name: &str,
        journal: Journal,
        folder: &StreamFolder,
        node: NodeInfo,
        dead_after: Duration,
    ) -> Result<Receiving> {
        let replayed = journal.hold("its own replica", journal.start());
        let settled = Settled::at(folder.settled());
        let holds = journal.written_tip().lsn > journal.start();
        let in_doubt = settled.begin(&node.boot_id, holds, journal.report().was_poisoned)?;
        let replica = Replica::start(&journal, &folder.records())?;
        let options = ReceiverOptions {
            stream_name: name.to_owned(),
            intake: IntakeOptions { dead_after, ..IntakeOptions::default() },
            applied: replica.applied(),
            checkpoint: replica.checkpoint(),
            in_doubt,
            node,
        };
        let boot = options.node.boot_id;
        let keeper = Arc::new(NodeKeeper::new(name, replica, settled, boot));
        let stream = ReceiverStream::start(journal.clone(), options, keeper.clone())?;
        let told = Arc::downgrade(&stream);
        keeper.replica().on_progress(move |applied, checkpoint| {
            if let Some(stream) = told.upgrade() {
                stream.applied(applied, checkpoint);
            }
        });
        Ok(Receiving { name: name.to_owned(), journal, stream, keeper, replayed })
    }

    /// For the connection of a primary.
    pub(crate) fn stream(&self) -> &Arc<ReceiverStream> {
        &self.stream
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Why it acknowledges nothing any more; `None` while it does.
    pub(crate) fn failure(&self) -> Option<String> {
        self.keeper.failure()
    }

    /// True while a power cut may have taken what was only received.
    pub(crate) fn in_doubt(&self) -> bool {
        self.stream.status().in_doubt
    }

    /// A primary feeds it now.
    pub(crate) fn is_fed(&self) -> bool {
        self.stream.status().fed_by.is_some()
    }

    /// It has everything that its primary has announced as durable.
    pub(crate) fn in_sync(&self) -> bool {
        let now = self.stream.status();
        now.announced.is_some_and(|announced| now.durable >= announced.durable)
    }

    /// What is to be done now and then.
    pub(crate) fn tick(&self) -> Result<()> {
        self.replayed.set(self.keeper.replica().checkpoint());
        self.journal.prune_unneeded()?;
        Ok(())
    }

    /// Ends the connection to the primary for good and takes nothing more of it: this node is to become `instead`.
    /// `term` is what it has seen durably. When it returns, no entry of the old connection is written any more, and the
    /// replica stands still.
    pub(crate) fn retire(&self, instead: &str, term: TermSeen) {
        self.stream.stop(&format!("this node becomes {instead}"));
        self.stream.retire(instead, term);
        self.keeper.replica().stop();
    }

    /// Ends it in order. Afterwards everything received is durable, so that no reboot puts it in doubt.
    pub(crate) fn close(self) -> Result<()> {
        self.stream.stop("this node is stopping");
        self.keeper.replica().stop();
        let in_doubt = self.in_doubt();
        let healthy = self.failure().is_none();
        self.journal.clone().close()?;
        if healthy && !in_doubt {
            self.keeper.settled().clean()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use journal::{Geometry, Item, Lsn, Options, Reason, Retain, Role, RunOpening, StreamId};

    use super::*;
    use crate::data::Data;

    /// What the replica shows and has not synced is lost with the power: the log has to keep it until then.
    #[test]
    fn the_log_is_kept_above_the_checkpoint_also_where_the_replica_has_applied_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let data = Data::open(dir.path(), Some("b")).expect("a data folder");
        let folder = data.create_stream("s", |_| Ok(())).expect("a folder");
        let (geometry, retain) = (Geometry::new(64 << 10).expect("a size"), Some(Retain::default()));
        let options = Options { geometry, retain, ..Options::default() };
        let (stream, id) = (StreamId::random(), data.node());
        let journal = Journal::create(&folder.journal(), stream, id, Role::Receiver, options).expect("a journal");
        let opening = RunOpening { promote: None, reason: Reason::Started, policy: Vec::new() };
        journal.open_run(opening).expect("a run");
        for _ in 0..40 {
            journal.append(Item::record(&[&[1; 10_000]])).expect("appended");
        }
        let end = journal.sync().expect("synced").lsn();
        journal.learn_committed(end).expect("noted");
        let node = NodeInfo { id, name: "b".to_owned(), start_id: 1, boot_id: [1; 16] };
        let receiving =
            Receiving::start("s", journal.clone(), &folder, node, Duration::from_secs(5)).expect("it receives");
        while receiving.keeper.replica().applied() < end {
            assert_eq!(receiving.failure(), None);
            thread::yield_now();
        }
        receiving.tick().expect("pruned");
        assert!(journal.start() <= receiving.keeper.replica().checkpoint());
        receiving.keeper.replica().stop();
        assert_eq!(receiving.keeper.replica().checkpoint(), end);
        receiving.tick().expect("pruned");
        assert!(journal.start() > Lsn::ZERO);
        receiving.close().expect("closed");
    }
}
