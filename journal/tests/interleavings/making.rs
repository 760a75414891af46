//! Segment files that are made piece by piece, beside appenders without room, failing calls, ends, cuts and pruning: one
//! file at a time is under way, whoever waits is answered, and every file is counted once.

use journal::testing::Call;
use journal::{Class, Cursor, End, Error, Item, Journal, Role, Tip};
use shuttle::thread::{self, JoinHandle};

use crate::readers::{Forged, extend, hold};
use crate::workshop::{FILES_MAX, Workshop, files};
use crate::world::{Acked, GEOMETRY, STREAM, World, append, chance, counts, open_run, payload, payloads, pick};
use crate::{Time, explore};

/// Four of them fill a segment.
const LARGE: usize = 14_000;
const RECORDS: u8 = 5;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// The flush thread makes a piece and another, and appenders that have no room finish the file at once.
#[test]
fn a_file_is_made_once_whoever_makes_it() {
    let scenario = || {
        let (_shop, world) = Workshop::primary();
        world.journal.spawn_flusher().unwrap();
        let acked = Acked::until_power_goes(world.power());
        finish([0, 1].map(|who| appender(&world.journal, &acked, who)));
        assert_eq!(counts::<2>(&payloads(&world.journal)), [RECORDS; 2]);
        every_file_is_counted(world, append_one);
        acked.survived();
    };
    explore(100, Time::StandsStill, scenario);
    explore(100, Time::Passes, scenario);
}

/// It is the error of the appends that needed the room, and of nobody else; they are tried again.
#[test]
fn a_piece_that_fails_to_be_written_harms_nobody_else() {
    explore(150, Time::Passes, || {
        let (shop, world) = Workshop::primary();
        let call = [Call::Create, Call::Write, Call::Rename][pick(3) as usize];
        let errno = if chance() { ENOSPC } else { EIO };
        shop.trouble(call, 1 + pick(3), errno);
        if chance() {
            world.journal.spawn_flusher().unwrap();
        }
        let acked = Acked::until_power_goes(world.power());
        let appenders = [0, 1].map(|who| {
            let (journal, acked) = (world.journal.clone(), acked.clone());
            thread::spawn(move || {
                let mut failed = 0;
                for number in 0..RECORDS {
                    let ticket = loop {
                        match append(&journal, who, number, LARGE) {
                            Ok(ticket) => break ticket,
                            Err(Error::Full { .. }) if errno == ENOSPC => failed += 1,
                            Err(Error::Io { .. }) if errno == EIO => failed += 1,
                            Err(error) => panic!("{error}"),
                        }
                    };
                    ticket.durable().unwrap();
                    acked.add(who, number);
                }
                failed
            })
        });
        let failed: u64 = appenders.map(|appender| appender.join().unwrap()).iter().sum();
        assert!(failed <= shop.failures(), "an append failed for no reason");
        shop.heal();
        assert!(world.journal.board().ended().is_none());
        assert_eq!(counts::<2>(&payloads(&world.journal)), [RECORDS; 2]);
        every_file_is_counted(world, append_one);
        acked.survived();
    });
}

/// A failed sync is final, of a spare's piece too: everybody is told so, and what was acknowledged before is there.
#[test]
fn a_piece_that_fails_to_be_synced_ends_everything() {
    explore(150, Time::Passes, || {
        let (shop, world) = Workshop::primary();
        shop.trouble(Call::Sync, 1, if chance() { EIO } else { ENOSPC });
        if chance() {
            world.journal.spawn_flusher().unwrap();
        }
        let acked = Acked::default();
        let appenders = [0, 1, 2].map(|who| appender(&world.journal, &acked, who));
        let answers = appenders.map(|appender| appender.join().unwrap());
        let ended = world.journal.board().ended();
        assert!(matches!(ended, Some(End::Failed(_))) == (shop.failures() > 0), "{ended:?}");
        for class in answers.into_iter().filter_map(Result::err) {
            assert_eq!(class, Class::Io);
            assert!(ended.is_some());
        }
        if ended.is_some() {
            assert!(append(&world.journal, 3, 0, 8).is_err());
        }
        let _after_a_failure = world.journal.clone().close();
        acked.are_in(&world.power().cut().payloads());
    });
}

/// What is half made when the journal is closed, or when everybody has let go of it, is neither used nor counted by the
/// next one who opens it.
#[test]
fn an_end_beside_a_half_made_file_leaves_nothing_behind() {
    explore(150, Time::Passes, || {
        let (shop, world) = Workshop::primary();
        world.journal.spawn_flusher().unwrap();
        let acked = Acked::default();
        let appenders = [0, 1].map(|who| appender(&world.journal, &acked, who));
        let closed = chance();
        if closed {
            world.journal.clone().close().unwrap();
        }
        for answer in appenders.map(|appender| appender.join().unwrap()) {
            assert!(answer.is_ok() || (closed && matches!(answer, Err(Class::Io | Class::Unknown))), "{answer:?}");
        }
        let half_made = shop.under_way() as u64;
        let world = world.reopen(shop.options());
        assert_eq!(shop.under_way(), 0, "{half_made} half-made file was left there");
        acked.are_in(&payloads(&world.journal));
        open_run(&world.journal);
        every_file_is_counted(world, append_one);
    });
}

/// Segments leave, pinned or not, and come back as spares, while others are made.
#[test]
fn files_are_counted_beside_pruning() {
    explore(100, Time::Passes, || {
        let (_shop, world) = Workshop::primary();
        world.journal.spawn_flusher().unwrap();
        let acked = Acked::default();
        let holder = {
            let journal = world.journal.clone();
            thread::spawn(move || hold(&journal))
        };
        let pruner = {
            let journal = world.journal.clone();
            thread::spawn(move || {
                for _ in 0..6 {
                    journal.prune(journal.board().durable()).unwrap();
                    thread::yield_now();
                }
            })
        };
        finish([0, 1].map(|who| appender(&world.journal, &acked, who)));
        pruner.join().unwrap();
        let journal = world.journal.clone();
        every_file_is_counted(world, append_one);
        drop(journal);
        for held in holder.join().unwrap() {
            held.payloads();
        }
    });
}

/// Where the budget is used up the files that are there are counted anew, while pruning takes some of them away. One that
/// was removed before the count and taken off behind it left the journal a file above its budget.
#[test]
fn files_are_counted_anew_beside_pruning() {
    explore(150, Time::Passes, || {
        let (_shop, world) = Workshop::primary();
        while append_one(&world.journal).is_ok() {}
        let durable = world.journal.sync().unwrap().lsn();
        let pinned = chance().then(|| world.journal.slice(world.journal.start(), usize::MAX).unwrap());
        let appender = {
            let journal = world.journal.clone();
            thread::spawn(move || (0..4).for_each(|_| drop(append_one(&journal))))
        };
        world.journal.prune(durable).unwrap();
        appender.join().unwrap();
        every_file_is_counted(world, append_one);
        drop(pinned);
    });
}

/// A receiver's tail is cut while a file is under way: the tail's files go to a branch and stay counted.
#[test]
fn files_are_counted_beside_a_cut() {
    let old = Forged::behind(Tip::empty(STREAM), 0);
    explore(100, Time::Passes, move || {
        let (_shop, world) = Workshop::new(Role::Receiver);
        world.journal.spawn_flusher().unwrap();
        extend(&world.journal, Tip::empty(STREAM), &old.bytes);
        let to = match chance() {
            true => old.ends[pick(old.ends.len() as u64) as usize],
            false => old.boundary,
        };
        world.journal.cut(to.lsn).unwrap();
        extend(&world.journal, to, &Forged::behind(to, 1).bytes);
        every_file_is_counted(world, |journal| {
            let tip = journal.written_tip();
            let run = Forged::behind(tip, 1);
            let mut cursor = Cursor::new(GEOMETRY, tip);
            journal.extend(&cursor.verify(&run.bytes).unwrap()).map(drop)
        });
    });
}

fn appender(journal: &Journal, acked: &Acked, who: u8) -> JoinHandle<Result<(), Class>> {
    let (journal, acked) = (journal.clone(), acked.clone());
    thread::spawn(move || {
        for number in 0..RECORDS {
            let ticket = append(&journal, who, number, LARGE).map_err(|error| error.class())?;
            if number + 1 < RECORDS && chance() {
                continue;
            }
            ticket.durable().map_err(|error| error.class())?;
            (0..=number).for_each(|number| acked.add(who, number));
        }
        Ok(())
    })
}

fn finish(appenders: impl IntoIterator<Item = JoinHandle<Result<(), Class>>>) {
    appenders.into_iter().for_each(|appender| appender.join().unwrap().unwrap());
}

fn append_one(journal: &Journal) -> journal::Result<()> {
    journal.append(Item::record(&[&payload(0, 0, 3 * LARGE)])).map(drop)
}

/// Fills the journal until its budget is used up, and closes it: as many files are there as the budget allows.
fn every_file_is_counted(world: World, mut more: impl FnMut(&Journal) -> journal::Result<()>) {
    let refused = loop {
        if let Err(error) = more(&world.journal) {
            break error;
        }
    };
    assert!(matches!(refused, Error::Budget { .. }), "{refused}");
    world.journal.clone().close().unwrap();
    assert_eq!(files(world.journal.dir()), FILES_MAX);
}
