//! Records out of a journal, for `tail`.

use std::time::Duration;

use journal::{Assembler, Entries, Journal, Kind, Lsn, Time};

use crate::control::{Failure, From, Patience, Tailer, push_record};
use crate::error::{Error, Result};

/// What one call of `fill` gathers; the last record may exceed it.
const FILL_BYTES: usize = 256 << 10;
/// How long a follower waits for the board before it looks whether its client is still there.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A walk over the records of one journal. It reads what is durable here: what it showed is there after a restart.
#[derive(Debug)]
pub(crate) struct JournalTail {
    journal: Journal,
    entries: Entries,
    assembler: Assembler,
    /// Records that begin below are passed over.
    from: Lsn,
    /// Entries above are not looked at; `None`: goes on when the end is reached.
    until: Option<Lsn>,
    volume: u16,
}

impl JournalTail {
    /// Errors: `NotReached` for a position above the end, or below what is kept.
    pub(crate) fn new(journal: &Journal, from: From, follow: bool) -> Result<JournalTail> {
        // what is written and not synced yet belongs to it; a stream that has ended shows what it has
        if journal.board().ended().is_none() {
            journal.sync()?;
        }
        let end = journal.board().durable();
        let from = start_of(journal, from, end)?;
        let entries = journal.entries(boundary_below(journal, from)?)?;
        let until = (!follow).then_some(end);
        Ok(JournalTail { journal: journal.clone(), entries, assembler: Assembler::default(), from, until, volume: 0 })
    }
}

impl Tailer for JournalTail {
    fn from(&self) -> Lsn {
        self.from
    }

    fn fill(&mut self, out: &mut Vec<u8>, patience: &Patience<'_>) -> Result<bool, Failure> {
        loop {
            let end = self.until.unwrap_or_else(|| self.journal.board().durable());
            while self.entries.tip().lsn < end && out.len() < FILL_BYTES {
                let Some(entry) = self.entries.next_entry().map_err(Error::from)? else { break };
                if entry.header.kind != Some(Kind::Data) || entry.header.volume != self.volume {
                    continue;
                }
                if let Some(record) = self.assembler.push(&entry)
                    && record.first >= self.from
                {
                    push_record(out, record.first, record.end, entry.header.time, record.flags, record.payload);
                }
            }
            if self.entries.tip().lsn >= end && self.until.is_some() {
                return Ok(false);
            }
            if !out.is_empty() {
                return Ok(true);
            }
            if self.entries.tip().lsn >= end && (patience.stopping() || !self.wait_for_more(end, patience)) {
                return Ok(false);
            }
        }
    }
}

impl JournalTail {
    /// Blocks until more than `end` is durable; false when the client is gone or nothing more will come.
    fn wait_for_more(&self, end: Lsn, patience: &Patience<'_>) -> bool {
        let mut watch = self.journal.board().watch();
        while self.journal.board().durable() <= end {
            if patience.slice().is_err() || patience.stopping() || self.journal.board().ended().is_some() {
                return false;
            }
            watch.wait(LOOK_EVERY);
        }
        true
    }
}

/// Where the first record is looked for.
fn start_of(journal: &Journal, from: From, end: Lsn) -> Result<Lsn> {
    let start = journal.start();
    match from {
        From::Start => Ok(start),
        From::End => Ok(end),
        From::Time(nanos) => Ok(journal.find_time(Time::from_nanos(nanos))?.max(start)),
        From::Lsn(lsn) => match Lsn::new(lsn) {
            wanted if wanted < start => Err(journal::Error::Pruned { wanted, start }.into()),
            wanted if wanted > end => Err(journal::Error::NotReached { wanted, end }.into()),
            wanted => Ok(wanted),
        },
    }
}

/// The last place at or below `lsn` where an entry is known to begin without a walk: its segment's first.
fn boundary_below(journal: &Journal, lsn: Lsn) -> Result<Lsn> {
    if journal.tip_at(lsn)?.is_some() {
        return Ok(lsn);
    }
    Ok(journal.geometry().segment_of(lsn).max(journal.start()))
}
