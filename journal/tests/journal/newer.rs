//! What a newer version wrote is no damage.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use journal::{Class, Draft, Flags, Item, Journal, Kind, Lsn, SEGMENT_HEADER_BYTES, Time, crc32c, offline};

use crate::lifecycle::{create, segment_file, small, start_run};

/// An entry that this version must not pass over was called rot when it was known to be durable, with the advice to mend
/// it; and a reader from outside took it for the end of the log when it was not.
#[test]
fn an_entry_that_needs_a_newer_version_is_called_so() {
    for is_durable in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let journal = create(dir.path());
        start_run(&journal);
        journal.append(Item::record(&[b"known"])).unwrap().durable().unwrap();
        let mut tip = journal.written_tip();
        let at = tip.lsn;
        let ticket = journal.append(Item::record(&[b"to be understood"])).unwrap();
        match is_durable {
            true => drop(ticket.durable().unwrap()),
            false => drop(ticket.written().unwrap()),
        }
        drop((ticket, journal));
        let parts: [&[u8]; 1] = [b"to be understood"];
        let flags = Flags::FIRST.with(Flags::LAST).with(Flags(0x8000));
        let payload_crc = crc32c(parts[0]);
        let draft = Draft { kind: Kind::Data, flags, volume: 0, producer: 0, sequence: 0, parts: &parts, payload_crc };
        let mut bytes = Vec::new();
        draft.lay(&mut tip, Time::ZERO, Lsn::ZERO, &mut bytes);
        let path = segment_file(dir.path(), 0);
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&bytes, SEGMENT_HEADER_BYTES as u64 + at.get()).unwrap();

        let error = Journal::open(dir.path(), small()).unwrap_err();
        assert_eq!(error.class(), Class::Incompatible, "{error}");
        let log = offline::Log::open(dir.path()).unwrap();
        let mut entries = log.entries(None).unwrap();
        let error = loop {
            match entries.next_entry() {
                Ok(entry) => assert!(entry.is_some(), "it was taken for the end"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.class(), Class::Incompatible, "{error}");
        assert_eq!(entries.tip().lsn, at);
    }
}
