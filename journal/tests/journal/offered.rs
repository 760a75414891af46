//! A receiver that could not take all of what one node offered, and is then offered what another one wrote.

use journal::testing::{Keep, SimDisk, Survivors};
use journal::{Class, Cursor, Geometry, Item, Journal, Lsn, NodeId, Role, StreamId, Tip};

use crate::host::{TestClock, folder, options};
use crate::lifecycle::{small, start_run};

const BODY: u64 = 64 << 10;

/// The bytes of a log that another node wrote: four or five records a segment.
fn written_by_another(stream: StreamId, byte: u8, records: usize) -> Vec<u8> {
    let dir = folder();
    let journal = Journal::create(dir.path(), stream, NodeId::random(), Role::Primary, small()).unwrap();
    start_run(&journal);
    for _ in 0..records {
        journal.append(Item::record(&[&[byte; 14_000]])).unwrap();
    }
    journal.write().unwrap();
    let mut bytes = Vec::new();
    while let Some(slice) = journal.slice(Lsn::new(bytes.len() as u64), usize::MAX).unwrap() {
        bytes.extend_from_slice(&slice);
    }
    bytes
}

/// A segment had been opened for entries that never came whole. Its header went on to say what was before it: of a log that
/// ended in front of it, the next start (or pruning up to there) took that for the truth, and what was appended then linked
/// to nothing.
#[test]
fn a_segment_that_was_opened_for_entries_that_never_came_says_nothing() {
    let stream = StreamId::random();
    let one = written_by_another(stream, 1, 7);
    let other = written_by_another(stream, 2, 7);
    let geometry = Geometry::new(BODY as u32).unwrap();
    let (mut refused, mut turn) = (0, 0);
    loop {
        // each call fails, and then three things follow
        let (number, then) = (turn / 3, turn % 3);
        turn += 1;
        let (base, disk, clock) = (folder(), SimDisk::default(), TestClock::default());
        let [before, after] = ["before", "after"].map(|name| base.path().join(name));
        std::fs::create_dir(&after).unwrap();
        let dir = before.join("j");
        let journal = Journal::create(&dir, stream, NodeId::random(), Role::Receiver, options(&disk, &clock)).unwrap();
        journal.make_room(3 * BODY).unwrap();
        let call = disk.calls() + number;
        disk.fail_calls(call..call + 1, 28);
        let offered = journal.extend(&Cursor::new(geometry, Tip::empty(stream)).verify(&one).unwrap());
        disk.fail_calls(0..0, 28);
        match offered {
            Ok(_) if disk.failed().is_empty() => break,
            Ok(_) => continue,
            Err(error) if error.class() == Class::Full => refused += 1,
            Err(_) => continue, // it has ended
        }
        if then == 0 {
            // it is promoted, and what it writes ends where the segment does
            start_run(&journal);
            for _ in 0..4 {
                journal.append(Item::record(&[&[3; 14_000]])).unwrap();
            }
            let room = BODY - journal.board().staged().get();
            let last = vec![3; room as usize - journal::HEADER_BYTES];
            let end = journal.append(Item::record(&[&last])).unwrap().durable().unwrap().lsn;
            assert_eq!(end, Lsn::new(BODY));
            let tip = journal.written_tip();
            drop(journal);
            assert_eq!(Journal::open(&dir, options(&disk, &clock)).unwrap().written_tip(), tip, "call {number}");
            continue;
        }
        let mut cursor = Cursor::new(geometry, Tip::empty(stream));
        let run = cursor.verify(&other[..BODY as usize]).unwrap();
        journal.extend(&run).unwrap();
        let end = *run.last();
        assert_eq!((journal.sync().unwrap().lsn(), end.lsn), (Lsn::new(BODY), Lsn::new(BODY)));
        journal.prune(Lsn::MAX).unwrap();
        assert!(
            journal.start_tip() == end || journal.start() < end.lsn,
            "it begins with what never was, call {number}"
        );
        // once it goes on after a kill, once after a power cut
        let journal = if then == 1 {
            drop(journal);
            Journal::open(&dir, options(&disk, &clock)).unwrap()
        } else {
            let disk = disk.cut_power(Survivors { names: 0, sectors: Keep::None }, &before, &after).unwrap();
            Journal::open(&after.join("j"), options(&disk, &clock)).unwrap()
        };
        assert_eq!(journal.written_tip(), end, "call {number}");
        journal.extend(&cursor.verify(&other[BODY as usize..]).unwrap()).unwrap();
        let mut entries = journal.entries(journal.start()).unwrap();
        while entries.next_entry().unwrap().is_some() {}
    }
    assert!(refused > 3, "{refused} of {turn}");
}
