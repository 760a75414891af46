//! The node behind its control socket.

use std::sync::Arc;

use journal::{GiveWay, Holder, Lsn, RECORD_BYTES_MAX_DEFAULT};

use super::appender::{self, StreamAppender};
use super::{Node, ship};
use crate::control::{
    Append, Appender, Failure, Hold, Mark, Marked, Patience, Promote, Promoted, Reached, SCHEMA, Service, Ship,
    ShipWaits, Shipped, Status, StatusOf, Stopping, TailFrom, Tailer, Wait,
};
use crate::status::NodeStatus;
use crate::stream::JournalTail;

impl Service for Node {
    fn status(&self, of: &StatusOf) -> Result<Status, Failure> {
        let streams = match &of.stream {
            Some(name) => vec![self.place(name)?.status()],
            None => {
                let places: Vec<_> = self.places().values().cloned().collect();
                places.iter().map(|place| place.status()).collect()
            }
        };
        Ok(NodeStatus {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            node: self.data.name().into(),
            node_id: self.data.node().to_string(),
            pid: std::process::id(),
            data: self.data.path().into(),
            listen: self.listen.get().map(ToString::to_string),
            streams,
        })
    }

    fn wait(&self, wait: &Wait, patience: &Patience<'_>) -> Result<Reached, Failure> {
        self.place(&wait.stream)?.wait(wait, patience)
    }

    fn mark(&self, mark: &Mark, patience: &Patience<'_>) -> Result<Marked, Failure> {
        let stream = self.place(&mark.stream)?.primary()?;
        appender::reachable(&stream, mark.wait)?;
        appender::wait_ready(&stream, patience)?;
        let lsn = stream.mark(&mark.name)?.lsn();
        let reach = appender::wait(&stream, lsn, mark.wait, patience)?;
        Ok(Marked { name: mark.name.clone(), lsn: lsn.get(), level: reach.level, alone: reach.alone })
    }

    fn ship(
        &self,
        wanted: &Ship,
        patience: &Patience<'_>,
        waits: &mut dyn FnMut(ShipWaits),
    ) -> Result<Vec<Shipped>, Failure> {
        let places = match &wanted.stream {
            Some(name) => vec![self.place(name)?],
            None => self.places().values().filter(|place| place.has_depots()).cloned().collect(),
        };
        if places.is_empty() {
            return Err(ship::no_depot("this node writes no stream that has a depot"));
        }
        let mut parcels = Vec::new();
        for place in places {
            parcels.extend(place.ship(wanted.when, patience)?);
        }
        ship::deliver(parcels, patience, waits)
    }

    fn promote(&self, promote: &Promote) -> Result<Promoted, Failure> {
        self.place(&promote.stream)?.promote(self, promote)
    }

    fn stop(&self) -> Stopping {
        self.stop.begin("asked to through the control socket", self.options.stop_timeout);
        Stopping { pid: std::process::id(), data: self.data.path().into() }
    }

    fn appender(&self, append: &Append, patience: &Patience<'_>) -> Result<Arc<dyn Appender>, Failure> {
        let stream = self.place(&append.stream)?.primary()?;
        let bytes_max =
            self.wanted(&append.stream).and_then(|wanted| wanted.record_bytes_max).unwrap_or(RECORD_BYTES_MAX_DEFAULT);
        Ok(Arc::new(StreamAppender::new(stream, append.wait, bytes_max, patience)?))
    }

    fn tailer(&self, tail: &TailFrom) -> Result<Box<dyn Tailer>, Failure> {
        let journal = self.place(&tail.stream)?.journal()?;
        Ok(Box::new(JournalTail::new(&journal, tail.from, tail.follow)?))
    }

    fn hold(&self, hold: &Hold) -> Result<(Holder, Lsn), Failure> {
        let journal = self.place(&hold.stream)?.journal()?;
        let holder = journal.hold(format!("restore by pid {}", hold.pid), journal.start());
        holder.set_give_way(GiveWay::Always);
        // what was pruned at that moment is gone
        let from = journal.start();
        holder.set(from);
        Ok((holder, from))
    }
}
