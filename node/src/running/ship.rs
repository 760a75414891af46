//! `ship`: now, or when the schedule does.

use std::time::{Duration, Instant};

use journal::{Class, Lsn};
use shipper::WaitShipped;

use super::appender;
use super::place::Place;
use crate::control::{Failure, Over, Patience, ShipWaits, ShipWhen, Shipped};
use crate::error::{Error, Result};
use crate::stream::{AwaitsDepot, Stream, ended, time_text};

/// How long a depot may take before it is said what it waits for.
const SETTLES_WITHIN: Duration = Duration::from_millis(500);

/// One depot, and what is on its way there.
pub(super) struct Parcel {
    stream: Stream,
    depot: AwaitsDepot,
    when: ShipWhen,
    said: Option<ShipWaits>,
    shipped: Option<Shipped>,
}

impl Place {
    /// Begins to ship to every depot of the stream, or to wait for their schedules.
    pub(super) fn ship(&self, when: ShipWhen, patience: &Patience<'_>) -> Result<Vec<Parcel>, Failure> {
        let stream = self.primary().map_err(|error| match error {
            Error::NotPrimary { stream, role } => Error::NotShipping { stream, role },
            error => error,
        })?;
        if !stream.primary().has_depots() {
            return Err(no_depot(&format!("{} has no depot", stream.name())));
        }
        // before the start gate is open, nobody knows what was committed
        appender::wait_ready(&stream, patience)?;
        let depots = match when {
            ShipWhen::Now => {
                let journal = stream.journal();
                journal.sync().map_err(Error::from)?;
                stream.primary().ship_now(journal.board().durable().min(journal.board().committed()))
            }
            ShipWhen::Next => stream.primary().next_cuts(),
        };
        let parcel = |depot| Parcel { stream: stream.clone(), depot, when, said: None, shipped: None };
        Ok(depots.into_iter().map(parcel).collect())
    }
}

/// There is nothing that anything could be shipped to; `what` says of which stream.
pub(super) fn no_depot(what: &str) -> Failure {
    Failure::new(Class::Absent, format!("{what}: nothing is shipped")).hint(
        "add one: --to ./DEPOT,every=15m for towline primary, or `depots` in the configuration; then start the node again",
    )
}

/// Blocks until everything lies where it is to lie. `tell` hears what is waited for.
pub(super) fn deliver(
    mut parcels: Vec<Parcel>,
    patience: &Patience<'_>,
    tell: &mut dyn FnMut(ShipWaits),
) -> Result<Vec<Shipped>, Failure> {
    let settled = Instant::now() + SETTLES_WITHIN;
    let settled = patience.slice().map_or(settled, |slice| slice.min(settled));
    parcels.iter().for_each(|parcel| parcel.depot.settle(settled));
    loop {
        let over = patience.slice();
        for parcel in &mut parcels {
            parcel.look(tell)?;
        }
        let Some(first) = parcels.iter().find(|parcel| parcel.shipped.is_none()) else {
            return Ok(parcels.into_iter().filter_map(|parcel| parcel.shipped).collect());
        };
        let nothing_cut = parcels.iter().all(|parcel| parcel.shipped.is_some() || parcel.upto().is_none());
        match over {
            Ok(_) if patience.stopping() && nothing_cut => return Err(unfinished(&parcels, Over::Stopping)),
            // it is looked at in the next round
            Ok(slice) => drop(first.depot.wait(first.stream.name(), slice)),
            Err(over) => return Err(unfinished(&parcels, over)),
        }
    }
}

impl Parcel {
    /// Looks how far it is, and says so when that is news.
    fn look(&mut self, tell: &mut dyn FnMut(ShipWaits)) -> Result<(), Failure> {
        if self.shipped.is_some() {
            return Ok(());
        }
        let name = self.stream.name();
        self.shipped = self.depot.wait(name, Instant::now()).map_err(|error| self.stopped(&error))?;
        if self.shipped.is_some() {
            return Ok(());
        }
        if let Some(failure) = self.depot.out_of_reach(self.stream.journal()) {
            return Err(failure);
        }
        let waits = self.depot.waits(name).map_err(|error| self.stopped(&error))?;
        let is_news = self.said.as_ref().is_none_or(|said| {
            // how much is missing changes all the time
            *said != ShipWaits { missing_bytes: waits.missing_bytes.and(said.missing_bytes), ..waits.clone() }
        });
        if is_news && (self.when == ShipWhen::Next || waits.last_error.is_some()) {
            tell(waits.clone());
        }
        self.said = Some(waits);
        Ok(())
    }

    /// What is on its way, if something is.
    fn upto(&self) -> Option<Lsn> {
        self.said.as_ref().and_then(|waits| waits.upto).map(Lsn::new)
    }

    fn stopped(&self, error: &WaitShipped) -> Failure {
        match self.stream.journal().board().ended() {
            Some(end) => ended(end, self.stream.journal()).into(),
            None => Failure::new(Class::Unknown, format!("unknown: {}: {error}", self.stream.name())),
        }
    }
}

/// The wait ends before everything lies there.
fn unfinished(parcels: &[Parcel], over: Over) -> Failure {
    let states = parcels.iter().filter_map(|parcel| match &parcel.shipped {
        Some(shipped) => Some(shipped.to_string()),
        None => parcel.said.as_ref().map(|waits| waits.in_words(time_text)),
    });
    let states = states.collect::<Vec<_>>().join("; ");
    let open = || parcels.iter().filter(|parcel| parcel.shipped.is_none());
    let name = open().map(|parcel| parcel.stream.name()).next().unwrap_or_default();
    match open().filter_map(|parcel| parcel.upto()).max() {
        Some(upto) => {
            Failure::new(Class::Unknown, format!("unknown: not in the depot when the wait ended ({over}). {states}"))
                .hint(format!("it goes on by itself; ask again: towline wait {name} --for shipped --lsn {upto}"))
                .at(upto)
        }
        None => Failure::new(Class::Unknown, format!("not yet: no cut when the wait ended ({over}). {states}"))
            .hint(format!("the schedule goes on by itself; to ship at once: towline ship {name}")),
    }
}
