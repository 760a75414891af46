//! Appenders beside each other, the flush thread, failing syncs and ends: everybody gets an answer, and it holds.

use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use journal::{Class, End, Journal, Level, Lsn, Remote, Term, TermSeen, Ticket, WaitError};
use shuttle::future::block_on;
use shuttle::sync::mpsc::channel;
use shuttle::thread::{self, JoinHandle};

use crate::world::{Acked, World, append, chance, counts, payloads, pick};
use crate::{Time, explore};

const A_MOMENT: Duration = Duration::from_millis(1);
const FOR_EVER: Duration = Duration::from_secs(3600);

/// Nobody's wake-up is lost, with and without a flush thread; and when the power goes at the instant of an
/// acknowledgement, that record and those acknowledged before are there.
#[test]
fn every_appender_is_answered_and_the_answer_survives_the_power() {
    explore(300, Time::StandsStill, || {
        let world = World::primary();
        if chance() {
            world.journal.spawn_flusher().unwrap();
        }
        let acked = Acked::until_power_goes(world.power());
        let appenders: Vec<_> = (0..3).map(|who| appender(&world.journal, &acked, who, block)).collect();
        finish(appenders);
        still_works(&world.journal, 3);
        assert_eq!(counts::<4>(&payloads(&world.journal)), [2, 2, 2, 1]);
        world.journal.clone().close().unwrap();
        acked.survived();
    });
}

/// A task is woken by the flush thread, beside threads that sync for themselves; one that goes away again harms nobody.
#[test]
fn every_task_is_answered() {
    explore(300, Time::StandsStill, || {
        let world = World::primary();
        world.journal.board().set_remote(Remote { promised: Lsn::MAX, ..Remote::default() });
        world.journal.spawn_flusher().unwrap();
        let acked = Acked::default();
        let appenders = [
            appender(&world.journal, &acked, 0, as_task),
            appender(&world.journal, &acked, 1, as_task),
            appender(&world.journal, &acked, 2, block),
        ];
        finish(appenders);
        still_works(&world.journal, 3);
        world.journal.clone().close().unwrap();
    });
}

/// A task may have asked for its sync before the flush thread began to listen: it was answered only once the idle time
/// of that thread was over.
#[test]
fn a_task_that_waits_before_there_is_a_flush_thread_is_answered() {
    explore(20, Time::StandsStill, || {
        let world = World::primary();
        let ticket = append(&world.journal, 0, 0, 8).unwrap();
        let mut level = pin!(ticket.level(Level::Durable));
        assert!(level.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        world.journal.spawn_flusher().unwrap();
        block_on(level).unwrap();
        world.journal.clone().close().unwrap();
    });
}

/// A waiter that was woken to sync for the others may find its time over and leave: another one is woken instead.
#[test]
fn the_lead_is_not_lost_with_a_waiter_that_leaves() {
    explore(800, Time::Passes, || {
        let world = World::primary();
        let acked = Acked::default();
        // neither success nor failure: asked again, it gets there
        let impatient: Wait = |ticket| match ticket.wait(Level::Durable, A_MOMENT) {
            Err(WaitError::Unknown { lsn }) if lsn == ticket.lsn() => block(ticket),
            other => other.map(drop),
        };
        let leaving: Wait = |ticket| match ticket.wait(Level::Durable, A_MOMENT) {
            Err(WaitError::Unknown { .. }) => Ok(()),
            other => other.map(drop),
        };
        let appenders = [
            appender(&world.journal, &acked, 0, impatient),
            appender(&world.journal, &Acked::default(), 1, leaving),
            appender(&world.journal, &acked, 2, block),
            appender(&world.journal, &acked, 3, block),
        ];
        finish(appenders);
        still_works(&world.journal, 4);
    });
}

/// Whoever leaves the syncing to others was woken to do it all the same, and the others waited for ever.
#[test]
fn the_lead_is_not_lost_with_a_waiter_that_never_syncs() {
    explore(200, Time::StandsStill, || {
        let world = World::primary();
        let (appended, has_appended) = channel();
        let looker = {
            let journal = world.journal.clone();
            thread::spawn(move || {
                let ticket = append(&journal, 0, 0, 8).unwrap();
                appended.send(()).unwrap();
                journal.board().wait(Level::Durable, ticket.lsn(), None)
            })
        };
        let acked = Acked::default();
        finish([1, 2, 3].map(|who| appender(&world.journal, &acked, who, block)));
        has_appended.recv().unwrap();
        world.journal.sync().unwrap();
        looker.join().unwrap().unwrap();
    });
}

/// A position that the log has not reached can't be synced: whoever waited for one only took the lead and handed it on.
#[test]
fn whoever_waits_ahead_of_the_log_waits_for_it() {
    explore(50, Time::StandsStill, || {
        let world = World::primary();
        let ahead = {
            let journal = world.journal.clone();
            thread::spawn(move || journal.wait(Level::Durable, Lsn::new(1000), None))
        };
        let acked = Acked::default();
        finish([1, 2].map(|who| appender(&world.journal, &acked, who, block)));
        append(&world.journal, 3, 0, 1000).unwrap().durable().unwrap();
        ahead.join().unwrap().unwrap();
        world.journal.clone().close().unwrap();
    });
}

/// Who has synced for all may go on waiting for the peers, which may never come: the others are not held up by it.
#[test]
fn whoever_has_synced_and_waits_for_the_peers_hands_the_lead_over() {
    explore(200, Time::StandsStill, || {
        let world = World::primary();
        let acked = Acked::default();
        let lonely = appender(&world.journal, &acked, 0, at_the_peers);
        finish([1, 2].map(|who| appender(&world.journal, &acked, who, block)));
        still_works(&world.journal, 3);
        world.journal.clone().close().unwrap();
        assert!(lonely.join().unwrap().is_err(), "there are no peers");
    });
}

/// After a failed sync nobody waits for ever and nobody is told what isn't so.
#[test]
fn a_failed_sync_answers_everybody() {
    explore(300, Time::StandsStill, || {
        let world = World::primary();
        if chance() {
            world.journal.spawn_flusher().unwrap();
        }
        world.disk.fail_sync(world.disk.syncs() + pick(4));
        let acked = Acked::default();
        let appenders: Vec<_> = (0..3).map(|who| appender(&world.journal, &acked, who, block)).collect();
        let answers: Vec<_> = appenders.into_iter().map(|appender| appender.join().unwrap()).collect();
        let ended = world.journal.board().ended();
        for answer in answers.into_iter().filter_map(Result::err) {
            assert_eq!(answer, Class::Io);
            assert!(matches!(ended, Some(End::Failed(_))), "{ended:?}");
        }
        if ended.is_some() {
            assert!(append(&world.journal, 3, 0, 8).is_err(), "nothing is appended after a failed sync");
            assert!(world.journal.sync().is_err() || world.journal.board().durable() >= world.journal.board().staged());
        }
        let _after_a_failure = world.journal.clone().close();
        acked.are_in(&world.power().cut().payloads());
    });
}

/// The end comes while appenders stage, write, sync and wait: they are told which end, or that they made it.
#[test]
fn an_end_answers_everybody() {
    explore(300, Time::StandsStill, || {
        let world = World::primary();
        if chance() {
            world.journal.spawn_flusher().unwrap();
        }
        let fenced = chance();
        let acked = Acked::default();
        // nobody is at the peers, so the last one waits for nothing but the end
        let appenders = [(0, block as Wait), (1, as_task), (2, at_the_peers)];
        let appenders = appenders.map(|(who, wait)| appender(&world.journal, &acked, who, wait));
        match fenced {
            true => world.journal.fence(TermSeen { term: Term(7), id: 7 }).unwrap(),
            false => world.journal.clone().close().unwrap(),
        }
        for appender in appenders {
            match appender.join().unwrap() {
                Ok(()) => {}
                Err(Class::Fenced) => assert!(fenced),
                Err(class) => assert!(!fenced && matches!(class, Class::Io | Class::Unknown), "{class:?}"),
            }
        }
        // what was staged and came too late for a sync is not passed over in silence
        let closed = world.journal.clone().close().is_ok();
        assert_eq!(closed, world.journal.board().durable() >= world.journal.board().staged());
        acked.are_in(&world.power().cut().payloads());
    });
}

/// What the peers hold is published by another thread: it misses no change of the board, and nobody who waits for the
/// peers misses what it publishes.
#[test]
fn every_waiter_for_the_peers_is_answered() {
    explore(300, Time::StandsStill, || {
        let world = World::primary();
        let journal = world.journal.clone();
        let peers = thread::spawn(move || {
            let board = journal.board();
            let mut watch = board.watch();
            while board.ended().is_none() {
                let durable = board.durable();
                let remote = Remote { received: durable, peer_durable: durable, promised: durable, alone: false };
                if remote != board.remote() {
                    if chance() {
                        // a connection that is lost and comes back
                        board.set_remote(Remote { received: durable, ..Remote::default() });
                    }
                    board.set_remote(remote);
                }
                watch.wait(FOR_EVER);
            }
        });
        let acked = Acked::default();
        let appenders: Vec<_> = (0..3).map(|who| appender(&world.journal, &acked, who, at_the_peers)).collect();
        finish(appenders);
        assert!(world.journal.board().committed() <= world.journal.board().durable());
        world.journal.clone().close().unwrap();
        peers.join().unwrap();
    });
}

type Wait = fn(&Ticket) -> Result<(), WaitError>;

fn block(ticket: &Ticket) -> Result<(), WaitError> {
    ticket.durable().map(drop)
}

fn as_task(ticket: &Ticket) -> Result<(), WaitError> {
    if chance() {
        let _given_up = pin!(ticket.level(Level::Durable)).poll(&mut Context::from_waker(Waker::noop()));
    }
    let level = if chance() { Level::Durable } else { Level::Committed };
    block_on(ticket.level(level)).map(drop)
}

fn at_the_peers(ticket: &Ticket) -> Result<(), WaitError> {
    let level = [Level::Received, Level::PeerDurable, Level::Committed][pick(3) as usize];
    ticket.wait(level, FOR_EVER).map(drop)
}

/// A thread that appends two records and waits for each, the first one only until it is written now and then. What is
/// acknowledged as durable goes to `acked`; the answer is why it stopped.
fn appender(journal: &Journal, acked: &Acked, who: u8, wait: Wait) -> JoinHandle<Result<(), Class>> {
    let (journal, acked) = (journal.clone(), acked.clone());
    thread::spawn(move || {
        for number in 0..2 {
            let ticket = append(&journal, who, number, 100).map_err(|error| error.class())?;
            if number == 0 && chance() {
                assert!(ticket.written().map_err(|error| error.class())? >= ticket.lsn());
                continue;
            }
            wait(&ticket).map_err(|error| error.class())?;
            acked.add(who, number);
        }
        Ok(())
    })
}

fn finish(appenders: impl IntoIterator<Item = JoinHandle<Result<(), Class>>>) {
    appenders.into_iter().for_each(|appender| appender.join().unwrap().unwrap());
}

/// Nobody left with the lead.
fn still_works(journal: &Journal, who: u8) {
    append(journal, who, 0, 8).unwrap().durable().unwrap();
}
