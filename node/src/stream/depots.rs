//! The depots that a primary feeds.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use journal::{Journal, Lsn, Time};
use shipper::{BatchOptions, Batches, FolderLink, NodeLink, NodeLinkOptions, Schedule, WaitShipped};

use super::StreamBuilder;
use super::status::{lag, time_text};
use crate::error::{Error, Result};
use crate::options::{DepotAt, DepotOptions};
use crate::status::DestinationStatus;

/// Every depot of a stream, each with a thread of its own.
#[derive(Debug, Default)]
pub(super) struct Depots {
    fed: Mutex<Vec<Arc<Fed>>>,
}

#[derive(Debug)]
struct Fed {
    options: DepotOptions,
    batches: Batches,
}

impl Depots {
    /// Starts to feed what the builder names. Errors: `Config` for a schedule that can't be understood.
    pub(super) fn start(builder: &StreamBuilder, journal: &Journal) -> Result<Depots> {
        let mut fed = Vec::new();
        for options in &builder.depots {
            let batches = feed(builder, journal, options)?;
            fed.push(Arc::new(Fed { options: options.clone(), batches }));
        }
        Ok(Depots { fed: Mutex::new(fed) })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fed().is_empty()
    }

    /// Ships up to `upto` now; returns at once.
    pub(super) fn ship_now(&self, upto: Lsn) {
        for fed in self.fed() {
            fed.batches.ship_now(upto);
        }
    }

    /// Blocks until everything below `lsn` lies in every depot; `Ok` names them.
    pub(super) fn wait(&self, lsn: Lsn, until: Instant) -> Result<Vec<String>, WaitShipped> {
        let all = self.fed();
        for fed in &all {
            fed.batches.wait(lsn, Some(until))?;
        }
        Ok(all.iter().map(|fed| fed.options.name.clone()).collect())
    }

    /// The lowest position that a depot still needs from the log.
    pub(super) fn owed(&self) -> Lsn {
        self.fed().iter().map(|fed| fed.batches.owed()).min().unwrap_or(Lsn::MAX)
    }

    pub(super) fn status(&self, journal: &Journal) -> Vec<DestinationStatus> {
        self.fed().iter().map(|fed| fed.status(journal)).collect()
    }

    /// Ends every thread; an upload that is cut short goes on at the next start.
    pub(super) fn stop(&self) {
        let fed = std::mem::take(&mut *self.fed.lock().unwrap_or_else(PoisonError::into_inner));
        for fed in fed {
            // somebody who still waits for it lets go soon; dropping the last one ends the thread too
            if let Some(fed) = Arc::into_inner(fed) {
                fed.batches.stop();
            }
        }
    }

    fn fed(&self) -> Vec<Arc<Fed>> {
        self.fed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Fed {
    fn status(&self, journal: &Journal) -> DestinationStatus {
        let status = self.batches.status();
        let state = match (&status.last_error, status.shipping_to) {
            (Some(_), _) => "failing",
            (None, Some(_)) => "shipping",
            (None, None) => "idle",
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
            last_error: status.last_error,
            ..DestinationStatus::default()
        }
    }
}

fn feed(builder: &StreamBuilder, journal: &Journal, options: &DepotOptions) -> Result<Batches> {
    let spread = journal.stream().as_bytes().iter().fold(0_u64, |spread, byte| (spread << 5) ^ u64::from(*byte));
    let schedule = Schedule::parse(&options.schedule, spread)?;
    let spool = builder.spool.join(spool_name(&options.name));
    let batch = BatchOptions::new(schedule, &spool);
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
