//! What a program that embeds a stream needs beside it.

use std::path::Path;

use journal::{Assembler, Class, Entries, Flags, Journal, Kind, Lsn, NodeId, Options, Role, StreamId, Time};

use crate::error::Result;

/// Opens the journal in `dir`, or makes one: a new stream, a new node, and this program its primary. Blocking.
///
/// Errors: those of [`Journal::open`], but for `Absent`.
pub fn open_or_create(dir: &Path, options: Options) -> Result<Journal> {
    match Journal::open(dir, options.clone()) {
        Err(error) if error.class() == Class::Absent => {
            Ok(Journal::create(dir, StreamId::random(), NodeId::random(), Role::Primary, options)?)
        }
        opened => Ok(opened?),
    }
}

/// Walks over the records of `journal` from `from` on, which must be the beginning of an entry ([`Journal::start`], or a
/// position that an acknowledgement named). Ends at what is written when it gets there; asked again it goes on.
pub fn records(journal: &Journal, from: Lsn) -> Result<Records> {
    Ok(Records { entries: journal.entries(from)?, assembler: Assembler::default() })
}

/// Records as they were appended, verified. See [`records`].
#[derive(Debug)]
pub struct Records {
    entries: Entries,
    assembler: Assembler,
}

/// A record that was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRecord {
    /// LSN of its first entry.
    pub first: Lsn,
    /// Position behind it: what its acknowledgement named.
    pub end: Lsn,
    /// When it was appended; strictly increasing.
    pub time: Time,
    /// May-ignore flags.
    pub flags: Flags,
    /// What was appended.
    pub payload: Vec<u8>,
}

impl Records {
    fn next_record(&mut self) -> Result<Option<OwnedRecord>> {
        while let Some(entry) = self.entries.next_entry()? {
            let (kind, time) = (entry.header.kind, entry.header.time);
            if kind == Some(Kind::Data)
                && let Some(record) = self.assembler.push(&entry)
            {
                let payload = record.payload.to_vec();
                return Ok(Some(OwnedRecord {
                    first: record.first,
                    end: record.end,
                    time,
                    flags: record.flags,
                    payload,
                }));
            }
        }
        Ok(None)
    }
}

impl Iterator for Records {
    type Item = Result<OwnedRecord>;

    fn next(&mut self) -> Option<Result<OwnedRecord>> {
        self.next_record().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Stream;

    #[test]
    fn a_dropped_stream_lets_go_of_its_journal() {
        let dir = tempfile::tempdir().expect("a folder");
        // its own threads look at it at this very moment in some of them
        for round in 0..100 {
            let journal = open_or_create(dir.path(), Options::default()).expect("it is free");
            assert_eq!(records(&journal, journal.start()).expect("records").count(), round);
            let stream = Stream::builder(journal).start().expect("started");
            stream.append([&b"one "[..], b"record"]).expect("appended");
        }
    }
}
