//! The public door before callers who come at the worst moment, or with what they must not hand in.

use journal::{Class, Flags, Item, Journal, Kind};

use crate::lifecycle::{create, records, small, start_run};

/// An entry of a kind that is the journal's own, or with a flag that every reader must understand, was taken,
/// acknowledged, and verified by no reader: the log could not be opened again.
#[test]
fn an_item_that_no_reader_would_accept_is_refused_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    start_run(&journal);
    let large = vec![7; journal.geometry().payload_bytes_max() + 1];
    let large: [&[u8]; 1] = [&large];
    let plain = Item::record(&[b"x"]);
    let items = [
        Item { kind: Kind::Pad, ..plain },
        Item { kind: Kind::Epoch, ..plain },
        Item { kind: Kind::Clock, ..plain },
        Item { flags: Flags(0x8000), ..plain },
        Item { flags: Flags::FIRST, ..plain },
        Item { kind: Kind::Mark, ..Item::record(&large) },
    ];
    for item in items {
        for appended in [journal.append(item), journal.append_many(&[plain, item])] {
            let error = appended.unwrap_err();
            assert_eq!(error.class(), Class::Usage, "{error}");
        }
    }
    journal.append(Item::record(&[b"after"])).unwrap().durable().unwrap();
    drop(journal);
    let journal = Journal::open(dir.path(), small()).unwrap();
    assert_eq!(records(&journal), [b"after"]);
}
