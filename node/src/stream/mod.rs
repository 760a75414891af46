//! A stream on its primary: what a program appends to, and what a node serves to its clients.
//!
//! ```text
//!  append -> Journal -> Board <- remote <- links to the peers (shipper)
//!                |        |
//!                |        +--> tickets: written, durable, received, peer durable, committed
//!                +--> depots (shipper)
//! ```
//! Nothing is taken before the start gate is open, and nothing is acknowledged after a higher term was met or a sync
//! failed.

mod builder;
mod claims;
mod depots;
mod early;
mod embed;
mod handle;
mod keeper;
mod policy;
mod primary;
mod status;
mod tail;
mod ticket;

use std::fmt;
use std::time::{Duration, Instant};

use journal::{End, Epoch, Flags, Item, Journal, Kind, Level, Lsn};

pub use self::builder::StreamBuilder;
pub(crate) use self::depots::AwaitsDepot;
pub use self::embed::{OwnedRecord, Records, open_or_create, records};
use self::handle::Handle;
pub(crate) use self::policy::{Me, newest_policy, peers_of};
use self::primary::Primary;
pub(crate) use self::primary::take_over;
pub(crate) use self::status::{closed_status, fenced_step, fill_status, rebuilt_step, time_text};
pub(crate) use self::tail::JournalTail;
pub use self::ticket::Ticket;
use crate::error::{Error, Result};

/// A stream that this program writes. Clones share it; every method is thread-safe and may block.
#[derive(Clone)]
pub struct Stream {
    primary: Handle,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("name", &self.name()).field("journal", self.journal()).finish_non_exhaustive()
    }
}

impl Stream {
    /// Begins to put a stream together around an open journal.
    pub fn builder(journal: Journal) -> StreamBuilder {
        StreamBuilder::new(journal)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.primary.name
    }

    /// Its log.
    pub fn journal(&self) -> &Journal {
        &self.primary.journal
    }

    /// Blocks until the start gate is open: the required peers were met, and what they hold more was taken back.
    ///
    /// Errors: [`Error::NotReady`] (class `Unknown`) when the time is up, naming whom it waits for; `Fenced`, `Io` when
    /// it will never open.
    pub fn wait_ready(&self, timeout: Duration) -> Result<Epoch> {
        self.primary.wait_ready(Instant::now().checked_add(timeout))
    }

    /// Appends one record, given in parts that need not be joined. Returns when it has its place; wait on the ticket for
    /// more. Where there is no room because of what a depot lacks that can be reached, it waits for that one's batch first:
    /// ten seconds at most.
    ///
    /// Errors: [`Error::NotReady`] before the start gate is open; `Full` (nothing of it is in the log; try again when
    /// space returns), `Usage` for one that is too large, `Fenced`, `Io`.
    pub fn append<'a>(&self, parts: impl AsRef<[&'a [u8]]>) -> Result<Ticket> {
        self.append_items(&[Item::record(parts.as_ref())])
    }

    /// Appends records one behind the other, with nothing in between. All or none. The ticket is that of the last.
    pub fn append_many<'a>(&self, records: impl IntoIterator<Item = &'a [u8]>) -> Result<Ticket> {
        let parts: Vec<[&[u8]; 1]> = records.into_iter().map(|record| [record]).collect();
        let items: Vec<Item<'_>> = parts.iter().map(|parts| Item::record(parts)).collect();
        self.append_items(&items)
    }

    /// Appends a named restore point. The name is 1 to 200 bytes without control characters.
    pub fn mark(&self, name: &str) -> Result<Ticket> {
        if name.is_empty() || name.len() > MARK_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(Error::Mark { name: name.chars().take(MARK_BYTES_MAX + 1).collect() });
        }
        let parts = [name.as_bytes()];
        self.append_items(&[Item { kind: Kind::Mark, ..Item::record(&parts) }])
    }

    /// How far a level reaches now: what a ticket whose wait ended as *unknown* is compared with.
    pub fn reached(&self, level: Level) -> Lsn {
        self.journal().board().reached(level)
    }

    /// Ends the stream in order: ends its links, writes and syncs what is staged. Waits that aren't reached end as
    /// unknown.
    pub fn close(self) -> Result<()> {
        self.primary.close()
    }

    pub(crate) fn append_flagged(&self, records: &[(Flags, &[u8])]) -> Result<Ticket> {
        let parts: Vec<[&[u8]; 1]> = records.iter().map(|(_, payload)| [*payload]).collect();
        let items: Vec<Item<'_>> = parts
            .iter()
            .zip(records)
            .map(|(parts, (flags, _))| Item { flags: *flags, ..Item::record(parts) })
            .collect();
        self.append_items(&items)
    }

    fn append_items(&self, items: &[Item<'_>]) -> Result<Ticket> {
        if !self.primary.is_open() {
            // the journal would say that no epoch is open; whom it waits for is what helps
            return Err(self.primary.not_ready());
        }
        let ticket = self.primary.append(items)?;
        Ok(Ticket::new(self.primary.clone(), ticket))
    }

    pub(crate) fn primary(&self) -> &Primary {
        &self.primary
    }
}

/// Longest name of a mark.
const MARK_BYTES_MAX: usize = 200;

/// Why a stream that acknowledges nothing any more doesn't, as an error.
pub(crate) fn ended(end: End, journal: &Journal) -> Error {
    match end {
        End::Fenced(by) => Error::Fenced { by },
        End::Failed(reason) => Error::Failed { path: journal.dir().to_owned(), reason },
        End::Closed => Error::Closed,
    }
}
