//! The depots that a primary feeds.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use journal::{Class, Journal, Lsn, Time};
use shipper::{
    AwaitsCut, BatchLog, BatchOptions, Batches, FolderLink, NodeLink, NodeLinkOptions, Schedule, ShipStatus,
    WaitShipped,
};

use super::StreamBuilder;
use super::claims::{Claim, Need, Noted};
use super::early::{Early, EarlyCut, Room, Seen};
use super::status::{lag, time_text};
use crate::control::{Failure, ShipWaits, Shipped};
use crate::error::{Error, Result};
use crate::options::{AtBudget, DepotAt, DepotOptions};
use crate::status::DestinationStatus;

/// Every depot of a stream, each with a thread of its own.
#[derive(Debug)]
pub(super) struct Depots {
    fed: Vec<Arc<Fed>>,
}

#[derive(Debug)]
struct Fed {
    options: DepotOptions,
    batches: Batches,
    /// What it doesn't have.
    claim: Claim,
    hurried: Mutex<Hurried>,
}

/// What it gets before its schedule says so.
#[derive(Debug, Default)]
struct Hurried {
    early: Early,
    said: Option<Said>,
}

/// Why its last batch was cut early.
#[derive(Debug)]
struct Said {
    why: String,
    /// When its schedule was due then: later it has cut by itself.
    due: Option<Time>,
}

/// What is left for a depot that lacks what is gone.
const DEPOT_GONE: &str = "copy the batches from another depot that has them, then towline ship; without them it keeps what \
                          it has, and nothing more is shipped to it";

impl Depots {
    /// Starts to feed what the builder names. Errors: `Config` for a schedule that can't be understood.
    pub(super) fn start(builder: &StreamBuilder, journal: &Journal, noted: &Noted) -> Result<Depots> {
        let mut fed = Vec::new();
        for options in &builder.depots {
            let give_way = AtBudget::give_way(options.at_budget);
            let claim = noted.claim(journal, format!("depot {}", options.name), give_way);
            let batches = feed(builder, journal, options)?;
            fed.push(Arc::new(Fed { options: options.clone(), batches, claim, hurried: Mutex::default() }));
        }
        Ok(Depots { fed })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fed.is_empty()
    }

    /// Ships up to `upto` now; returns at once, with what can be waited for.
    pub(super) fn ship_now(&self, upto: Lsn) -> Vec<AwaitsDepot> {
        let ship = |fed: &Arc<Fed>| {
            fed.batches.ship_now(upto);
            AwaitsDepot { fed: fed.clone(), what: What::Upto(upto) }
        };
        self.fed.iter().map(ship).collect()
    }

    /// The next cut that each schedule makes by itself; nothing is cut earlier for it.
    pub(super) fn next_cuts(&self) -> Vec<AwaitsDepot> {
        let next = |fed: &Arc<Fed>| AwaitsDepot { fed: fed.clone(), what: What::Cut(fed.batches.next_cut()) };
        self.fed.iter().map(next).collect()
    }

    /// Blocks until everything below `lsn` lies in every depot; an error comes with the name of the depot.
    pub(super) fn wait(&self, lsn: Lsn, until: Instant) -> Result<(), (String, WaitShipped)> {
        self.fed
            .iter()
            .try_for_each(|fed| fed.batches.wait(lsn, Some(until)).map_err(|error| (fed.options.name.clone(), error)))
    }

    pub(super) fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.fed.iter().map(|fed| &fed.claim)
    }

    /// Looks at each depot: cuts early what has to lie there before there is no room, and says what it still needs of the
    /// log.
    pub(super) fn look(&self, journal: &Journal, room: Room) -> impl Iterator<Item = (&Claim, Need)> {
        self.fed.iter().map(move |fed| (&fed.claim, fed.look(journal, room)))
    }

    /// Waits until a depot has what keeps an append from its room, or is known not to get it. False: there is none to wait
    /// for.
    pub(super) fn wait_room(&self) -> bool {
        let waits = |fed: &Arc<Fed>| fed.hurried().early.waits().map(|(end, until)| (fed.clone(), end, until));
        let Some((fed, end, until)) = self.fed.iter().find_map(waits) else { return false };
        fed.batches.wait_attempt(end, until).is_ok()
    }

    /// The lowest position that any depot still needs, of those that anything is kept for.
    pub(super) fn owed(&self) -> Lsn {
        let attached = self.fed.iter().filter(|fed| fed.claim.detached().is_none());
        attached.map(|fed| fed.batches.owed()).min().unwrap_or(Lsn::MAX)
    }

    /// Why everything below `lsn` won't lie in every depot by waiting: one is detached that lacks some of it.
    pub(super) fn out_of_reach(&self, lsn: Lsn, journal: &Journal) -> Option<Failure> {
        self.fed.iter().find_map(|fed| fed.out_of_reach(lsn, journal))
    }

    pub(super) fn status(&self, journal: &Journal) -> Vec<DestinationStatus> {
        self.fed.iter().map(|fed| fed.status(journal)).collect()
    }

    /// Ends every thread, and with it every wait; an upload that is cut short goes on at the next start.
    pub(super) fn stop(&self) {
        self.fed.iter().for_each(|fed| fed.batches.stop());
    }
}

/// What somebody waits for in one depot.
#[derive(Debug)]
pub(crate) struct AwaitsDepot {
    fed: Arc<Fed>,
    what: What,
}

#[derive(Debug)]
enum What {
    /// Everything below.
    Upto(Lsn),
    /// The schedule's next cut.
    Cut(AwaitsCut),
}

impl AwaitsDepot {
    /// Gives the depot until `until` to say for the first time where it ends, or to get what it is to get now: before
    /// that there is little to say of it.
    pub(crate) fn settle(&self, until: Instant) {
        let first = match self.what {
            What::Upto(lsn) => lsn,
            What::Cut(_) => Lsn::ZERO,
        };
        // whatever came of it is looked at next
        let _ = self.fed.batches.wait(first, Some(until));
    }

    /// Blocks until it lies there, or until `until`; `None`: not yet.
    pub(crate) fn wait(&self, stream: &str, until: Instant) -> Result<Option<Shipped>, WaitShipped> {
        let there = match &self.what {
            What::Upto(lsn) => match self.fed.batches.wait(*lsn, Some(until)) {
                Ok(()) => Some((*lsn, false)),
                Err(WaitShipped::Timeout { .. }) => None,
                Err(stopped) => return Err(stopped),
            },
            What::Cut(next) => {
                let cut = next.wait(Some(until))?;
                cut.and_then(|cut| cut.stored.map(|end| (end, cut.had_nothing)))
            }
        };
        let (stream, depot) = (stream.to_owned(), self.fed.options.name.clone());
        Ok(there.map(|(lsn, had_nothing)| Shipped { stream, depot, lsn: lsn.get(), had_nothing }))
    }

    /// Why waiting is of no use, if it isn't.
    pub(crate) fn out_of_reach(&self, journal: &Journal) -> Option<Failure> {
        let upto = match &self.what {
            What::Upto(lsn) => *lsn,
            What::Cut(_) => Lsn::MAX,
        };
        self.fed.out_of_reach(upto, journal)
    }

    /// What it waits for now.
    pub(crate) fn waits(&self, stream: &str) -> Result<ShipWaits, WaitShipped> {
        let upto = match &self.what {
            What::Upto(lsn) => Some(*lsn),
            What::Cut(next) => next.wait(Some(Instant::now()))?.map(|cut| cut.to),
        };
        let ShipStatus { next_due, missing_bytes, last_error, .. } = self.fed.batches.status();
        Ok(ShipWaits {
            stream: stream.to_owned(),
            depot: self.fed.options.name.clone(),
            upto: upto.map(Lsn::get),
            due: next_due.filter(|_| upto.is_none()).map(Time::as_nanos),
            missing_bytes: missing_bytes.filter(|_| upto.is_none()),
            last_error,
        })
    }
}

impl Fed {
    fn look(&self, journal: &Journal, room: Room) -> Need {
        let status = self.batches.status();
        self.hurry(&status, journal, room);
        match (status.pruned, status.shipped, status.last_error) {
            (Some(needs), ..) => Need::Gone(needs),
            (None, Some(needs), _) => Need::From(needs),
            (None, None, Some(_)) => Need::Silent,
            (None, None, None) => Need::NotYet,
        }
    }

    /// Cuts early what has to lie there before there is no room. Until it had time to get there, it isn't detached.
    fn hurry(&self, status: &ShipStatus, journal: &Journal, room: Room) {
        let seen = Seen { shipped: status.shipped, failing: status.last_error.is_some(), safe: journal.safe() };
        let mut hurried = self.hurried();
        let cut = hurried.early.look(room, seen, Instant::now());
        self.claim.set_awaited(hurried.early.is_awaited());
        hurried.said = hurried.said.take().filter(|said| said.due == status.next_due);
        let Some(EarlyCut { upto, lacks }) = cut else { return };
        let holds = match room.holds {
            Some(holds) if lacks >= holds / 2 => format!("the budget holds {holds}"),
            _ => "an append had no room".to_owned(),
        };
        let why = format!("up to LSN {upto}: it lacked {lacks} bytes of log, and {holds}");
        // once, until its schedule has cut by itself: it goes on like this
        match &hurried.said {
            None => tracing::warn!(of = self.claim.name(), "cut a batch before the schedule says so, {why}"),
            Some(_) => tracing::debug!(of = self.claim.name(), "cut a batch before the schedule says so, {why}"),
        }
        hurried.said = Some(Said { why: format!("at {}, {why}", time_text(Time::now())), due: status.next_due });
        self.batches.hurry(upto);
    }

    fn hurried(&self) -> MutexGuard<'_, Hurried> {
        self.hurried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is detached, lacks some of what lies below `lsn`, and nothing of that is on its way.
    fn out_of_reach(&self, lsn: Lsn, journal: &Journal) -> Option<Failure> {
        let ShipStatus { shipped, shipping_to, .. } = self.batches.status();
        if shipped.is_some_and(|shipped| shipped >= lsn) || shipping_to.is_some() {
            return None;
        }
        let detached = self.claim.detached_status(journal.start(), DEPOT_GONE)?;
        let message = format!("{} is detached since {}: nothing is shipped to it", self.claim.name(), detached.since);
        Some(Failure::new(Class::NotReached, message).hint(detached.next_step).at(lsn))
    }

    fn status(&self, journal: &Journal) -> DestinationStatus {
        let status = self.batches.status();
        let detached = self.claim.detached_status(journal.start(), DEPOT_GONE);
        let state = match (&detached, &status.last_error, status.shipping_to) {
            (Some(_), ..) => "detached",
            (None, Some(_), _) => "failing",
            (None, None, Some(_)) => "shipping",
            (None, None, None) => "idle",
        };
        DestinationStatus {
            name: self.options.name.clone(),
            kind: "depot".into(),
            at: at_text(&self.options.at),
            mode: "async".into(),
            state: state.into(),
            met: status.shipped.is_some(),
            durable: status.shipped.map(Lsn::get),
            lag_durable: status.shipped.map(|shipped| lag(journal, shipped)),
            last_contact_ms: status.stored_at.map(|at| Time::now().since(at).as_millis() as u64),
            next_due: status.next_due.map(time_text),
            cut_early: self.hurried().said.as_ref().map(|said| said.why.clone()),
            last_error: status.last_error,
            detached,
            ..DestinationStatus::default()
        }
    }
}

fn feed(builder: &StreamBuilder, journal: &Journal, options: &DepotOptions) -> Result<Batches> {
    let spread = journal.stream().as_bytes().iter().fold(0_u64, |spread, byte| (spread << 5) ^ u64::from(*byte));
    let schedule = Schedule::parse(&options.schedule, spread)?;
    let spool = builder.spool.join(spool_name(&options.name));
    let batch = BatchOptions::new(schedule, &spool).called(format!("{} to {}", builder.name, options.name));
    let spawned = match &options.at {
        DepotAt::Folder(root) => {
            // beside the spool, whose folder is emptied
            let met = builder.spool.join(format!("{}.met", spool_name(&options.name)));
            let link = FolderLink::new(root, &builder.name, journal.stream()).remembered_in(met);
            Batches::spawn(batch, journal.clone(), link, Time::now)
        }
        DepotAt::Node { address, tls_name } => {
            let link = NodeLink::new(NodeLinkOptions {
                address: address.clone(),
                tls_name: tls_name.clone(),
                security: builder.security.load()?,
                stream: journal.stream(),
                stream_name: builder.name.clone(),
                geometry: journal.geometry(),
                node: builder.node.clone(),
            });
            Batches::spawn(batch, journal.clone(), link, Time::now)
        }
    };
    spawned.map_err(Error::io("start a thread for", &spool))
}

/// A folder's name for a depot of any name: two depots never share one.
fn spool_name(depot: &str) -> String {
    let plain = depot.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if plain && !depot.is_empty() && depot.len() <= 64 {
        return depot.to_owned();
    }
    let sum = depot.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        // FNV-1a: short, stable, and nothing depends on it but a folder's name
        (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("depot.{sum:016x}")
}

fn at_text(at: &DepotAt) -> String {
    match at {
        DepotAt::Folder(root) => Path::display(root).to_string(),
        DepotAt::Node { address, .. } => address.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_depot_has_a_spool_of_its_own() {
        let names = ["night", "./depot", "/depot", "", "a/b", "a.b", "depot.cbf29ce484222325"];
        let spools: std::collections::BTreeSet<String> = names.iter().map(|name| spool_name(name)).collect();
        assert_eq!(spools.len(), names.len());
        assert!(spools.iter().all(|spool| !spool.contains('/') && !spool.starts_with('.')));
    }
}
