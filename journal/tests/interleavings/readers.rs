//! Readers beside appends, syncs, rotation, pruning, recycling and cuts: what was once seen never changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use journal::{
    Cursor, Draft, Entries, Epoch, EpochEntry, Error, Flags, HEADER_BYTES, Journal, Kind, Level, Lsn, NodeId, Reason,
    Role, Slice, Term, Tip, crc32c, entry_bytes,
};
use shuttle::thread;

use crate::world::{GEOMETRY, STREAM, World, append, chance, counts, payload, pick, read_payload};
use crate::{Time, explore};

/// Four or five of them fill a segment.
const LARGE: usize = 14_000;

#[test]
fn what_a_reader_has_seen_is_whole_and_never_changes() {
    explore(150, Time::StandsStill, || {
        let world = World::primary();
        if chance() {
            world.journal.spawn_flusher().unwrap();
        }
        let walker = {
            let journal = world.journal.clone();
            thread::spawn(move || walk(&mut journal.entries(Lsn::ZERO).unwrap(), &journal))
        };
        let holder = {
            let journal = world.journal.clone();
            thread::spawn(move || hold(&journal))
        };
        let appenders: Vec<_> = (0..2)
            .map(|who| {
                let journal = world.journal.clone();
                thread::spawn(move || {
                    for number in 0..4 {
                        let ticket = append(&journal, who, number, LARGE).unwrap();
                        match pick(3) {
                            0 => drop(ticket.written().unwrap()),
                            1 => drop(ticket.durable().unwrap()),
                            _ => {}
                        }
                    }
                })
            })
            .collect();
        appenders.into_iter().for_each(|appender| appender.join().unwrap());
        world.journal.clone().close().unwrap();
        assert_eq!(counts::<2>(&walker.join().unwrap().unwrap()), [4, 4]);
        let held: Vec<_> = holder.join().unwrap().iter().flat_map(Held::payloads).collect();
        assert_eq!(counts::<2>(&held), [4, 4]);
    });
}

/// Segments leave at one end and come back as new ones at the other, while slices of them are held and walked over.
#[test]
fn a_slice_keeps_its_bytes_beside_pruning_and_recycling() {
    explore(150, Time::StandsStill, || {
        let world = World::primary();
        let appender = {
            let journal = world.journal.clone();
            thread::spawn(move || {
                for number in 0..16 {
                    append(&journal, 0, number, LARGE).unwrap().durable().unwrap();
                }
            })
        };
        let pruner = {
            let journal = world.journal.clone();
            thread::spawn(move || {
                let mut watch = journal.board().watch();
                while journal.board().ended().is_none() {
                    journal.prune(journal.board().durable()).unwrap();
                    watch.wait(std::time::Duration::from_secs(3600));
                }
            })
        };
        let holders: Vec<_> = (0..2)
            .map(|_| {
                let journal = world.journal.clone();
                thread::spawn(move || hold(&journal))
            })
            .collect();
        let walker = {
            let journal = world.journal.clone();
            thread::spawn(move || match journal.entries(journal.start()) {
                Ok(mut entries) => walk(&mut entries, &journal).map(drop),
                Err(error) => Err(error),
            })
        };
        appender.join().unwrap();
        world.journal.clone().close().unwrap();
        pruner.join().unwrap();
        for holder in holders {
            for held in holder.join().unwrap() {
                held.payloads();
            }
        }
        match walker.join().unwrap() {
            Ok(()) | Err(Error::Pruned { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    });
}

/// The segment could go between the looks at the journal's beginning and at the segments: a place that was pruned just then
/// was taken for one where no entry begins, as if it were of another history.
#[test]
fn a_place_that_is_pruned_meanwhile_is_called_pruned() {
    explore(100, Time::StandsStill, || {
        let world = World::primary();
        (0..9).for_each(|number| drop(append(&world.journal, 0, number, LARGE).unwrap()));
        let durable = world.journal.sync().unwrap().lsn();
        let looker = {
            let journal = world.journal.clone();
            thread::spawn(move || {
                for _ in 0..4 {
                    match journal.tip_at(Lsn::ZERO) {
                        Ok(Some(_)) | Err(Error::Pruned { .. }) => {}
                        other => panic!("{other:?}"),
                    }
                }
            })
        };
        world.journal.prune(durable).unwrap();
        looker.join().unwrap();
        assert!(matches!(world.journal.tip_at(Lsn::ZERO), Err(Error::Pruned { .. })));
    });
}

/// A receiver's tail is cut and another one takes its place. A reader has seen the one or the other, never a mixture,
/// and nothing of the cut tail once the cut is done.
#[test]
fn a_reader_beside_a_cut_sees_one_history() {
    let old = Forged::behind(Tip::empty(STREAM), OLD);
    explore(150, Time::StandsStill, move || {
        let world = World::new(Role::Receiver);
        if chance() {
            world.journal.spawn_flusher().unwrap();
        }
        let kept = 1 + pick(KEPT_MAX) as u8;
        let cut_done = Arc::new(AtomicBool::new(false));
        let walkers: Vec<_> = (0..2)
            .map(|_| {
                let (journal, cut_done) = (world.journal.clone(), Arc::clone(&cut_done));
                thread::spawn(move || walk_beside_a_cut(&journal, kept, &cut_done))
            })
            .collect();
        extend(&world.journal, Tip::empty(STREAM), &old.bytes);
        let to = old.ends[usize::from(kept)];
        assert_eq!(world.journal.cut(to.lsn).unwrap().range.from, to.lsn);
        cut_done.store(true, Ordering::Relaxed);
        extend(&world.journal, to, &Forged::behind(to, NEW).bytes);
        world.journal.clone().close().unwrap();
        walkers.into_iter().for_each(|walker| walker.join().unwrap());
    });
}

/// A slice that is taken while the segment under it is replaced reaches no further than what that segment holds.
#[test]
fn a_slice_beside_a_cut_is_of_one_history() {
    let old = Forged::behind(Tip::empty(STREAM), OLD);
    explore(120, Time::StandsStill, move || {
        let world = World::new(Role::Receiver);
        extend(&world.journal, Tip::empty(STREAM), &old.bytes);
        let holder = {
            let journal = world.journal.clone();
            thread::spawn(move || hold_the_beginning(&journal))
        };
        let to = old.ends[1 + pick(3) as usize]; // in the first segment
        world.journal.cut(to.lsn).unwrap();
        extend(&world.journal, to, &Forged::behind(to, NEW).bytes);
        holder.join().unwrap().iter().for_each(|held| drop(held.payloads()));
    });
}

/// Walks until the journal has ended; the payloads seen.
fn walk(entries: &mut Entries, journal: &Journal) -> journal::Result<Vec<Vec<u8>>> {
    let mut seen = Vec::new();
    let mut ended = false;
    loop {
        match entries.next_entry()? {
            Some(entry) if entry.header.kind == Some(Kind::Data) => seen.push(entry.payload.to_vec()),
            Some(_) => {}
            None if ended => return Ok(seen),
            None => ended = journal.board().wait(Level::Written, entries.tip().lsn.advance(8), None).is_err(),
        }
    }
}

/// A slice, and its bytes as they were when it was taken.
pub(crate) struct Held {
    slice: Slice,
    then: Vec<u8>,
}

impl Held {
    fn new(slice: Slice) -> Held {
        Held { then: slice.to_vec(), slice }
    }

    /// The records in it, which are whole and as they were.
    pub(crate) fn payloads(&self) -> Vec<Vec<u8>> {
        assert!(*self.slice == *self.then, "the bytes of slice {} changed", self.slice.range());
        let mut found = Vec::new();
        let mut rest = &self.slice[..];
        while !rest.is_empty() {
            let length = u32::from_le_bytes(*rest.first_chunk().unwrap()) as usize;
            assert!(length >= HEADER_BYTES, "slice {} is not of whole entries", self.slice.range());
            if rest[4] == Kind::Data as u8 {
                found.push(rest[HEADER_BYTES..length].to_vec());
                read_payload(&rest[HEADER_BYTES..length]);
            }
            rest = &rest[entry_bytes(length - HEADER_BYTES) as usize..];
        }
        found
    }
}

/// Takes slices one behind the other until the journal has ended, and keeps them.
pub(crate) fn hold(journal: &Journal) -> Vec<Held> {
    let mut held = Vec::new();
    let mut at = journal.start();
    let mut ended = false;
    loop {
        match journal.slice(at, pick(3 * LARGE as u64) as usize) {
            Ok(Some(slice)) => {
                at = slice.range().to;
                held.push(Held::new(slice));
            }
            Ok(None) if ended => return held,
            Ok(None) => ended = journal.board().wait(Level::Written, at.advance(8), None).is_err(),
            Err(Error::Pruned { start, .. }) => at = start,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Takes slices of the log's beginning, which no cut takes away, and keeps them.
fn hold_the_beginning(journal: &Journal) -> Vec<Held> {
    (0..LOOKS).filter_map(|_| journal.slice(Lsn::ZERO, usize::MAX).unwrap().map(Held::new)).collect()
}

/// Walks until the journal has ended or a cut took the place; see the test.
fn walk_beside_a_cut(journal: &Journal, kept: u8, cut_done: &AtomicBool) {
    let mut entries = journal.entries(Lsn::ZERO).unwrap();
    let mut seen = Vec::new();
    let mut ended = false;
    loop {
        let after = cut_done.load(Ordering::Relaxed);
        let (who, number) = match entries.next_entry() {
            Ok(Some(entry)) if entry.header.kind == Some(Kind::Data) => read_payload(entry.payload),
            Ok(Some(_)) => continue,
            Ok(None) if ended => break,
            Ok(None) => {
                ended = journal.board().wait(Level::Written, entries.tip().lsn.advance(8), None).is_err();
                continue;
            }
            Err(Error::NotReached { wanted, .. }) => {
                assert_eq!(wanted, entries.tip().lsn);
                assert!(seen.len() >= usize::from(kept), "what it has seen was kept");
                break;
            }
            Err(error) => panic!("{error}"),
        };
        assert!(!after || who == NEW || number < kept, "record {number} was cut before it was asked for");
        seen.push((who, number));
    }
    let old = seen.iter().take_while(|(who, _)| *who == OLD).count();
    assert!(old == seen.len() || old == usize::from(kept), "two histories in one: {seen:?}");
    counts::<2>(&seen.iter().map(|&(who, number)| payload(who, number, 2)).collect::<Vec<_>>());
}

const OLD: u8 = 0;
const NEW: u8 = 1;
const RECORDS: u8 = 7;
const KEPT_MAX: u64 = 6;
const LOOKS: usize = 20;

/// One run as another node wrote it: the first entry of the next epoch and [`RECORDS`] records.
pub(crate) struct Forged {
    tip: Tip,
    pub(crate) bytes: Vec<u8>,
    /// Where the run is after so many records.
    pub(crate) ends: Vec<Tip>,
    /// Where the last segment begins.
    pub(crate) boundary: Tip,
}

impl Forged {
    pub(crate) fn behind(tip: Tip, who: u8) -> Forged {
        let mut run = Forged { tip, bytes: Vec::new(), ends: Vec::new(), boundary: tip };
        let room = GEOMETRY.room(tip.lsn);
        run.tip.epoch = Epoch { term: Term(1), run: tip.epoch.run + 1 };
        run.tip.run_id = 100 + u64::from(who);
        let node = NodeId::from_bytes([3; 16]);
        let first = EpochEntry { term_id: 100, node, reason: Reason::Started, policy: Vec::new() };
        run.lay(Kind::Epoch, &first.encode(room));
        run.ends.push(run.tip);
        for number in 0..RECORDS {
            let payload = payload(who, number, LARGE);
            if !GEOMETRY.fits(run.tip.lsn, entry_bytes(payload.len())) {
                run.lay(Kind::Pad, &vec![0; GEOMETRY.room(run.tip.lsn) as usize - HEADER_BYTES]);
                run.boundary = run.tip;
            }
            run.lay(Kind::Data, &payload);
            run.ends.push(run.tip);
        }
        run
    }

    fn lay(&mut self, kind: Kind, payload: &[u8]) {
        let flags = Flags::FIRST.with(Flags::LAST);
        let parts = [payload];
        let draft =
            Draft { kind, flags, volume: 0, producer: 0, sequence: 0, parts: &parts, payload_crc: crc32c(payload) };
        draft.lay(&mut self.tip, journal::Time::ZERO, Lsn::ZERO, &mut self.bytes);
    }
}

/// Takes in verified entries in two pieces, synced or not.
pub(crate) fn extend(journal: &Journal, tip: Tip, mut bytes: &[u8]) {
    let mut cursor = Cursor::new(GEOMETRY, tip);
    for piece in [bytes.len() / 2, bytes.len()] {
        let run = cursor.verify(&bytes[..piece.min(bytes.len())]).unwrap();
        let end = journal.extend(&run).unwrap();
        if chance() {
            journal.board().want_sync(end);
        }
        bytes = &bytes[run.bytes().len()..];
    }
    assert!(bytes.is_empty());
}
