//! When a depot gets a batch before its schedule says so, and how long appends wait for it: pure.
//!
//! ```text
//!  shipped <---- what it lacks ----> safe
//!          less than half of the budget holds it: the schedule decides
//!          half:                     a batch is cut now; it has as long to arrive as the other half takes to be written
//!          an append has no room:    the same, if it lacks what would go; appends wait for it, but not for ever
//! ```
//! The next early cut takes as much log again, so they stay few, however small the budget is beside what is written.

use std::time::{Duration, Instant};

use journal::Lsn;

/// How long appends that have no room wait for a batch. Who hasn't taken it by then is as good as out of reach: a mount that
/// hangs, or a line that is too slow for what is written.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much room there is for log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    /// Bytes of log that the budget holds; `None`: nothing is given up by itself.
    pub(super) holds: Option<u64>,
    /// An append has no room as long as what ends here is kept.
    pub(super) to_go: Option<Lsn>,
}

/// A depot, at this instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Where it ends; `None`: it has not said yet.
    pub(super) shipped: Option<Lsn>,
    /// The last attempt to reach it failed.
    pub(super) failing: bool,
    /// Nothing above may be shipped.
    pub(super) safe: Lsn,
}

/// A batch that is to be cut now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EarlyCut {
    /// Up to here.
    pub(super) upto: Lsn,
    /// What the depot lacks below.
    pub(super) lacks: u64,
}

/// What one depot was given early.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// Cut up to here.
    cut: Lsn,
    /// It lacks what ends here, as far as anybody knows, and since then an append has no room because of it.
    in_the_way: Option<(Lsn, Instant)>,
    awaited: bool,
    /// It has said where it ends.
    said: bool,
}

impl Early {
    /// Looks at the depot: what is to be cut for it now, if anything.
    pub(super) fn look(&mut self, room: Room, depot: Seen, now: Instant) -> Option<EarlyCut> {
        if depot.failing {
            (self.in_the_way, self.awaited) = (None, false);
            return None;
        }
        let lacks = |end: &Lsn| depot.shipped.is_none_or(|shipped| shipped < *end);
        self.in_the_way = self.in_the_way.filter(|(end, _)| lacks(end));
        if let Some(end) = room.to_go.filter(lacks) {
            self.in_the_way.get_or_insert((end, now));
        }
        self.awaited = self.in_the_way.is_none_or(|(_, since)| now.duration_since(since) < PATIENCE);
        self.said = depot.shipped.is_some();
        let shipped = depot.shipped?;
        // what was cut already needs no second cut, however long it takes to arrive
        let (from, upto) = (shipped.max(self.cut), depot.safe);
        let short = room.holds.is_some_and(|holds| upto.bytes_since(from) >= holds / 2);
        let makes_room = room.to_go.is_some_and(|end| from < end && end <= upto);
        if !short && !makes_room {
            return None;
        }
        self.cut = upto;
        Some(EarlyCut { upto, lacks: upto.bytes_since(shipped) })
    }

    /// It can be reached as far as anybody knows, and has had no time to take what it lacks: it isn't detached yet.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited
    }

    /// Where it has to end, and until when appends wait for that: it has not said yet where it does, or a batch is on its
    /// way that makes room.
    pub(super) fn waits(&self) -> Option<(Lsn, Instant)> {
        let (end, since) = self.in_the_way.filter(|_| self.awaited)?;
        let wanted = if self.said { end } else { Lsn::ZERO };
        (wanted <= self.cut).then_some((wanted, since + PATIENCE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One depot and a budget of 100 bytes of log.
    struct Scene {
        early: Early,
        begun: Instant,
    }

    impl Scene {
        fn new() -> Scene {
            Scene { early: Early::default(), begun: Instant::now() }
        }

        fn at(&self, second: u64) -> Instant {
            self.begun + Duration::from_secs(second)
        }

        fn look(&mut self, second: u64, shipped: Option<u64>, safe: u64, to_go: Option<u64>) -> Option<(u64, u64)> {
            self.look_at(second, Seen { shipped: shipped.map(Lsn::new), failing: false, safe: Lsn::new(safe) }, to_go)
        }

        fn look_at(&mut self, second: u64, depot: Seen, to_go: Option<u64>) -> Option<(u64, u64)> {
            let room = Room { holds: Some(100), to_go: to_go.map(Lsn::new) };
            let now = self.at(second);
            self.early.look(room, depot, now).map(|cut| (cut.upto.get(), cut.lacks))
        }

        fn waits(&self) -> Option<(u64, u64)> {
            let (end, until) = self.early.waits()?;
            Some((end.get(), (until - self.begun).as_secs()))
        }
    }

    #[test]
    fn half_of_the_budget_cuts_early_and_the_next_cut_takes_as_much_again() {
        let mut scene = Scene::new();
        assert_eq!(scene.look(0, Some(0), 49, None), None);
        assert_eq!(scene.look(1, Some(0), 50, None), Some((50, 50)));
        // on its way: nothing is asked for twice, whatever is written meanwhile
        for safe in 50..100 {
            assert_eq!(scene.look(2, Some(0), safe, None), None, "{safe}");
        }
        // it came with more than was asked for
        assert_eq!(scene.look(3, Some(60), 109, None), None);
        assert_eq!(scene.look(4, Some(60), 110, None), Some((110, 50)));
        assert_eq!(scene.look(5, Some(60), 159, None), None);
        assert_eq!(scene.look(6, Some(60), 160, None), Some((160, 100)));
        // the schedule was faster
        assert_eq!(scene.look(7, Some(200), 240, None), None);
        assert!(scene.early.is_awaited());
        assert_eq!(scene.waits(), None);
    }

    #[test]
    fn an_append_without_room_cuts_what_makes_room_once() {
        let mut scene = Scene::new();
        // what is not committed can't be shipped: no cut, and nothing to wait for
        assert_eq!((scene.look(0, Some(5), 9, Some(10)), scene.waits()), (None, None));
        assert_eq!((scene.look(0, Some(5), 12, Some(10)), scene.waits()), (Some((12, 7)), Some((10, 10))));
        assert_eq!((scene.look(1, Some(5), 13, Some(10)), scene.waits()), (None, Some((10, 10))));
        // it is there; the next segment is another matter
        assert_eq!((scene.look(2, Some(12), 14, None), scene.waits()), (None, None));
        assert_eq!((scene.look(3, Some(12), 19, Some(20)), scene.waits()), (None, None));
        assert_eq!((scene.look(4, Some(12), 25, Some(20)), scene.waits()), (Some((25, 13)), Some((20, 13))));
        // somebody else is in the way
        assert_eq!((scene.look(5, Some(25), 30, Some(22)), scene.waits()), (None, None));
    }

    #[test]
    fn patience_ends_and_begins_again_with_what_arrives() {
        let mut scene = Scene::new();
        let mut awaited = |second, shipped, to_go| {
            scene.look(second, Some(shipped), 45, to_go);
            (scene.early.is_awaited(), scene.waits().is_some())
        };
        assert_eq!(awaited(0, 0, Some(10)), (true, true));
        assert_eq!(awaited(9, 0, None), (true, true), "also while nobody appends");
        assert_eq!(awaited(10, 0, Some(10)), (false, false));
        assert_eq!(awaited(99, 5, Some(10)), (false, false), "no room yet");
        assert_eq!(awaited(100, 10, Some(20)), (true, true), "room, and the next one in the way");
        assert_eq!(awaited(109, 10, Some(30)), (true, true));
        assert_eq!(awaited(110, 10, Some(30)), (false, false));
        assert_eq!(awaited(111, 45, None), (true, false));
    }

    #[test]
    fn who_has_not_said_where_it_ends_is_asked_first() {
        let mut scene = Scene::new();
        assert_eq!((scene.look(0, None, 90, None), scene.waits()), (None, None));
        assert_eq!((scene.look(1, None, 90, Some(10)), scene.waits()), (None, Some((0, 11))));
        assert_eq!((scene.look(2, Some(0), 90, Some(10)), scene.waits()), (Some((90, 90)), Some((10, 11))));
        let mut mute = Scene::new();
        mute.look(0, None, 90, Some(10));
        mute.look(10, None, 90, Some(10));
        assert!(!mute.early.is_awaited() && mute.waits().is_none());
    }

    #[test]
    fn who_fails_is_not_waited_for() {
        let mut scene = Scene::new();
        assert_eq!(scene.look(1, Some(0), 90, Some(10)), Some((90, 90)));
        assert!(scene.early.is_awaited());
        for shipped in [None, Some(Lsn::ZERO)] {
            let failing = Seen { shipped, failing: true, safe: Lsn::new(90) };
            assert_eq!(scene.look_at(2, failing, Some(10)), None);
            assert!(!scene.early.is_awaited());
            assert_eq!(scene.waits(), None);
        }
        // reached again: what was asked for is still asked for
        assert_eq!(scene.look(30, Some(0), 90, Some(10)), None);
        assert_eq!(scene.waits(), Some((10, 40)));
    }

    #[test]
    fn without_a_budget_the_schedule_decides() {
        let mut early = Early::default();
        let depot = Seen { shipped: Some(Lsn::ZERO), failing: false, safe: Lsn::new(1 << 60) };
        for holds in [None, Some(u64::MAX)] {
            assert_eq!(early.look(Room { holds, to_go: None }, depot, Instant::now()), None, "{holds:?}");
        }
    }
}
