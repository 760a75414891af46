//! Calls that change what a journal is, beside each other: cuts, pruning, terms, roles.

use journal::{Class, Error, Journal, Lsn, Reason, Role, RunOpening, Term, TermSeen, Tip};
use shuttle::thread;

use crate::readers::{Forged, extend};
use crate::world::{STREAM, World, chance, options};
use crate::{Time, explore};

const OLD: u8 = 0;
const NEW: u8 = 1;

/// Pruning looked at the log in front of the cut and moved the beginning behind it: the log ended before it began, and the
/// next start took what had been acknowledged since for pruned.
#[test]
fn a_log_that_is_cut_and_pruned_at_once_begins_before_it_ends() {
    let old = Forged::behind(Tip::empty(STREAM), OLD);
    explore(200, Time::StandsStill, move || {
        let world = World::new(Role::Receiver);
        extend(&world.journal, Tip::empty(STREAM), &old.bytes);
        world.journal.sync().unwrap();
        let to = old.ends[if chance() { 1 } else { 5 }];
        let pruner = {
            let journal = world.journal.clone();
            thread::spawn(move || journal.prune(Lsn::MAX).unwrap())
        };
        let end = match world.journal.cut(to.lsn) {
            Ok(_) => {
                extend(&world.journal, to, &Forged::behind(to, NEW).bytes);
                world.journal.sync().unwrap().lsn()
            }
            Err(Error::Pruned { .. }) => *old.ends.last().map(|tip| &tip.lsn).unwrap(),
            Err(error) => panic!("{error}"),
        };
        pruner.join().unwrap();
        let start = world.journal.start_tip();
        assert!(start.lsn <= end, "begins at {}, ends at {end}", start.lsn);
        let tip = world.journal.written_tip();
        let walked = |journal: &Journal| {
            let mut entries = journal.entries(journal.start()).unwrap();
            while entries.next_entry().unwrap().is_some() {}
            *entries.tip()
        };
        assert_eq!(walked(&world.journal), tip);
        let options = options(std::sync::Arc::new(world.disk.clone()));
        let world = world.reopen(options);
        assert_eq!((world.journal.start_tip(), world.journal.written_tip()), (start, tip));
        assert_eq!(walked(&world.journal), tip);
    });
}

/// The second cut looked for its place in a log that the first one was about to shorten.
#[test]
fn two_cuts_at_once_leave_the_end_of_one_history() {
    let old = Forged::behind(Tip::empty(STREAM), OLD);
    explore(200, Time::StandsStill, move || {
        let world = World::new(Role::Receiver);
        extend(&world.journal, Tip::empty(STREAM), &old.bytes);
        world.journal.sync().unwrap();
        let (low, high) = (old.ends[2], old.ends[if chance() { 3 } else { 6 }]);
        let other = {
            let journal = world.journal.clone();
            thread::spawn(move || journal.cut(low.lsn).unwrap())
        };
        match world.journal.cut(high.lsn) {
            Ok(_) | Err(Error::NotReached { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        other.join().unwrap();
        assert_eq!(world.journal.written_tip(), low);
        assert_eq!(world.journal.board().durable(), low.lsn);
    });
}

/// A term that was recorded, and told to somebody, is never taken back; a node that was fenced meanwhile doesn't become
/// the primary on its disk.
#[test]
fn a_run_that_is_opened_beside_a_higher_term_takes_nothing_back() {
    explore(300, Time::StandsStill, || {
        let world = World::new(Role::Receiver);
        let fenced = chance();
        let seen = TermSeen { term: Term(9), id: 99 };
        let other = {
            let journal = world.journal.clone();
            thread::spawn(move || match fenced {
                true => journal.fence(seen).unwrap(),
                false => journal.see_term(seen).unwrap(),
            })
        };
        let promote = Some(TermSeen { term: Term(8), id: 88 });
        match world.journal.open_run(RunOpening { promote, reason: Reason::Promoted, policy: Vec::new() }) {
            Ok(epoch) => assert_eq!(epoch.term, Term(8)),
            Err(error) => assert_eq!(error.class(), Class::Fenced),
        }
        other.join().unwrap();
        assert_eq!(world.journal.term_seen(), seen);
        if fenced {
            assert_eq!(world.journal.role(), Role::Fenced);
        }
    });
}
