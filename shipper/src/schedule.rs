//! When a batch is cut: by interval, by cron, by size, or the first of two.
//!
//! [`Schedule`] is what the operator asked for, [`Due`] when it is next due. Both are pure: `now` is handed in.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use cronexpr::{Crontab, MakeTimestamp, ParseOptions};
use jiff::{Span, SpanRelativeTo};
use journal::Time;

/// Shortest interval: a batch has a cost of its own (a sync, a rename, a folder sync, a file to be listed).
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Longest interval.
const INTERVAL_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Smallest size that cuts a batch.
const BYTES_MIN: u64 = 4 << 10;
/// What a good schedule looks like, for messages.
const EXAMPLES: &str = "\"every 15m\", \"0 2 * * * Europe/Paris\", \"64 MiB\" or \"every 1h or 64 MiB\"";

/// When batches are to be cut.
///
/// Guarantee: at least one of interval, cron and size is set.
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    when: Option<When>,
    bytes: Option<u64>,
}

#[derive(Clone, Debug)]
enum When {
    Every(Duration),
    Cron(Box<Crontab>),
}

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no schedule: {what}. Write {EXAMPLES}")]
pub struct ScheduleError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub what: String,
}

/// Why a batch is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The interval is over, or the cron line says so.
    Time,
    /// Enough has been written.
    Size,
}

/// When a schedule is next due.
#[derive(Clone, Debug)]
pub struct Due {
    schedule: Schedule,
    seen: Time,
    next: Option<Time>,
}

impl Schedule {
    /// Reads a schedule; `spread` replaces `H` in a cron line, so that many streams don't ship in the same second.
    pub fn parse(text: &str, spread: u64) -> Result<Schedule, ScheduleError> {
        let wrong = |what: String| ScheduleError { text: text.to_owned(), what };
        let mut schedule = Schedule { text: text.trim().to_owned(), when: None, bytes: None };
        for part in text.split(" or ").map(str::trim) {
            if let Ok(size) = part.strip_prefix("size ").unwrap_or(part).trim().parse::<ByteSize>() {
                if size.as_u64() < BYTES_MIN {
                    return Err(wrong(format!("a batch of {part} is too small; the least is {}", ByteSize(BYTES_MIN))));
                }
                if schedule.bytes.replace(size.as_u64()).is_some() {
                    return Err(wrong("it has two sizes".into()));
                }
                continue;
            }
            let when = match part.strip_prefix("every ") {
                Some(interval) => When::Every(interval_of(interval.trim()).map_err(wrong)?),
                None => When::Cron(Box::new(cron_of(part, spread).map_err(wrong)?)),
            };
            if schedule.when.replace(when).is_some() {
                return Err(wrong("it has two times".into()));
            }
        }
        Ok(schedule)
    }

    /// The longest time between two cuts, when it is one that can be named: an interval, not a cron line or a size.
    pub fn interval(&self) -> Option<Duration> {
        match self.when {
            Some(When::Every(interval)) => Some(interval),
            _ => None,
        }
    }

    /// The size that cuts a batch, if one does.
    pub fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// The first instant after `at` that the cron line names, or one interval later.
    fn after(&self, at: Time) -> Option<Time> {
        match &self.when {
            None => None,
            Some(When::Every(interval)) => Some(at.saturating_add(*interval)),
            Some(When::Cron(crontab)) => next_of(crontab, at),
        }
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Schedule, ScheduleError> {
        Schedule::parse(text, 0)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Due {
    /// The state of a schedule at a start. `last` is the time of the last entry that was shipped, if that is known: what
    /// should have been cut since is due at once. Unknown, an interval is due at once too; a cron line waits for its
    /// instant.
    pub fn new(schedule: Schedule, now: Time, last: Option<Time>) -> Due {
        let next = match (last, &schedule.when) {
            (Some(last), _) => schedule.after(last.min(now)),
            (None, Some(When::Every(_))) => Some(now),
            (None, _) => schedule.after(now),
        };
        Due { schedule, seen: now, next }
    }

    /// When it is next due by time; `None` when only by size.
    pub fn next(&self) -> Option<Time> {
        self.next
    }

    /// What was asked for.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Whether a batch is due now, with this many bytes to ship. An instant comes also when there is nothing to ship; one
    /// that was slept through is made up for once, not once per instant missed.
    pub fn poll(&mut self, now: Time, pending_bytes: u64) -> Option<Why> {
        if now < self.seen {
            // the clock was set back: never wait longer than one period from here
            let again = self.schedule.after(now);
            self.next = self.next.min(again).or(again);
        }
        self.seen = now;
        let mut why = None;
        if self.next.is_some_and(|next| next <= now) {
            self.next = self.following(now);
            why = Some(Why::Time);
        }
        if why.is_none() && self.schedule.bytes.is_some_and(|bytes| pending_bytes >= bytes) {
            if let Some(When::Every(interval)) = self.schedule.when {
                self.next = Some(now.saturating_add(interval));
            }
            why = Some(Why::Size);
        }
        why
    }

    /// The first instant of the grid behind `now`: cuts stay on it, however late they were noticed.
    fn following(&self, now: Time) -> Option<Time> {
        match (&self.schedule.when, self.next) {
            (Some(When::Every(interval)), Some(next)) => {
                let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
                let late = now.as_nanos().saturating_sub(next.as_nanos());
                Some(Time::from_nanos(now.as_nanos() - late % interval).saturating_add(Duration::from_nanos(interval)))
            }
            _ => self.schedule.after(now),
        }
    }
}

fn interval_of(text: &str) -> Result<Duration, String> {
    let span: Span = text.parse().map_err(|_| format!("{text:?} is no duration, such as 90s, 15m or 1h30m"))?;
    let interval = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok();
    let interval = interval.and_then(|interval| Duration::try_from(interval).ok());
    match interval {
        Some(interval) if (INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) => Ok(interval),
        _ => Err(format!("{text:?} is not between 100ms and 366 days")),
    }
}

fn cron_of(text: &str, spread: u64) -> Result<Crontab, String> {
    let mut options = ParseOptions::default();
    options.hashed_value = Some(spread);
    let words = text.split_whitespace().count();
    let crontab = cronexpr::parse_crontab_with(text, options).map_err(|error| match words {
        0 => "it is empty".to_owned(),
        5 => "a cron line needs a zone behind its five fields, such as UTC or Europe/Paris".to_owned(),
        6 => error.to_string(),
        _ => "it is no interval, no size and no cron line (minute, hour, day, month, weekday, zone)".to_owned(),
    })?;
    let never = || "no day is ever like that".to_owned();
    next_of(&crontab, Time::from_nanos(1_767_225_600_000_000_000)).map(|_| crontab).ok_or_else(never)
}

fn next_of(crontab: &Crontab, after: Time) -> Option<Time> {
    let after = MakeTimestamp::from_nanosecond(after.as_nanos().into()).ok()?;
    let next = crontab.find_next(after).ok()?.timestamp().as_nanosecond();
    u64::try_from(next).ok().map(Time::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        let stamp: jiff::Timestamp = text.parse().expect("an instant");
        Time::from_nanos(stamp.as_nanosecond() as u64)
    }

    fn secs(seconds: u64) -> Time {
        Time::from_nanos(1_000_000_000_000_000_000 + seconds * 1_000_000_000)
    }

    #[test]
    fn schedules_in_words() {
        let good = [
            ("every 15m", Some(900), None),
            ("every 1h30m", Some(5400), None),
            ("every 1d", Some(86400), None),
            (" every 1s ", Some(1), None),
            ("64 MiB", None, Some(64 << 20)),
            ("size 4KiB", None, Some(4096)),
            ("every 1h or 64MiB", Some(3600), Some(64 << 20)),
            ("0 2 * * * Europe/Paris or 1 GB", None, Some(1_000_000_000)),
            ("*/5 * * * * UTC", None, None),
            ("H 2 * * * UTC", None, None),
        ];
        for (text, interval, bytes) in good {
            let schedule: Schedule = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((schedule.interval().map(|i| i.as_secs()), schedule.bytes), (interval, bytes), "{text}");
            assert_eq!(schedule.to_string(), text.trim());
        }
        let bad = [
            ("", "it is empty"),
            ("every", "no interval"),
            ("every 0s", "between"),
            ("every -5m", "between"),
            ("every 1ms", "between"),
            ("every 2000d", "between"),
            ("every tuesday", "no duration"),
            ("every 1m or every 2m", "two times"),
            ("1 MiB or 2 MiB", "two sizes"),
            ("12 B", "too small"),
            ("0 2 * * *", "needs a zone"),
            ("0 2 * * * Mars/Olympus", "Mars"),
            ("0 25 * * * UTC", "25"),
            ("0 0 30 2 * UTC", "no day is ever like that"),
            ("nightly", "no cron line"),
        ];
        for (text, part) in bad {
            let error = Schedule::from_str(text).expect_err(text);
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }

    /// Steps of a fake clock: instant, bytes to ship, what is due.
    fn run(schedule: &str, start: Time, last: Option<Time>, steps: &[(Time, u64, Option<Why>)]) {
        let mut due = Due::new(schedule.parse().expect("good"), start, last);
        for (step, (now, pending, wanted)) in steps.iter().enumerate() {
            assert_eq!(due.poll(*now, *pending), *wanted, "{schedule}, step {step}");
        }
    }

    const TIME: Option<Why> = Some(Why::Time);
    const SIZE: Option<Why> = Some(Why::Size);

    #[test]
    fn an_interval_stays_on_its_grid() {
        let start = secs(0);
        run(
            "every 10s",
            start,
            Some(start),
            &[
                (secs(0), 5, None),
                (secs(9), 5, None),
                (secs(10), 5, TIME),
                (secs(10), 5, None),
                (secs(23), 5, TIME), // noticed late
                (secs(29), 5, None),
                (secs(30), 5, TIME), // but the next is on the grid again
                (secs(40), 0, TIME), // nothing to ship: for the caller to see
                (secs(45), 9, None), // what came since waits for the next instant
                (secs(50), 9, TIME),
                (secs(99), 9, TIME), // four instants slept through: one cut
                (secs(99), 9, None),
                (secs(100), 9, TIME),
            ],
        );
    }

    #[test]
    fn what_was_missed_before_the_start_is_due_at_once() {
        run("every 10s", secs(100), None, &[(secs(100), 1, TIME), (secs(109), 1, None), (secs(110), 1, TIME)]);
        run("every 10s", secs(100), Some(secs(95)), &[(secs(100), 1, None), (secs(105), 1, TIME)]);
        run(
            "every 10s",
            secs(100),
            Some(secs(20)),
            &[(secs(100), 1, TIME), (secs(109), 1, None), (secs(110), 1, TIME)],
        );
        run("every 10s", secs(100), Some(secs(900)), &[(secs(100), 1, None), (secs(110), 1, TIME)]);
        let (night, noon) = (at("2026-11-17T01:00:00Z"), at("2026-11-17T12:00:00Z"));
        run("0 2 * * * UTC", noon, Some(night), &[(noon, 1, TIME), (noon, 1, None)]);
        run("0 2 * * * UTC", noon, None, &[(noon, 1, None)]);
    }

    #[test]
    fn cron_follows_its_zone_and_its_summer_time() {
        run(
            "0 2 * * * Europe/Paris",
            at("2026-11-17T00:30:00Z"),
            None,
            &[
                (at("2026-11-17T00:59:59Z"), 1, None),
                (at("2026-11-17T01:00:00Z"), 1, TIME),
                (at("2026-11-17T01:00:00Z"), 1, None),
                (at("2026-11-18T00:59:59Z"), 1, None),
                (at("2026-11-18T01:00:01Z"), 0, TIME),
                (at("2026-11-19T01:00:01Z"), 1, TIME),
                (at("2027-06-01T12:00:00Z"), 1, TIME),
                (at("2027-06-01T23:59:59Z"), 1, None),
                (at("2027-06-02T00:00:00Z"), 1, TIME),
            ],
        );
    }

    #[test]
    fn size_cuts_at_once_and_starts_the_interval_again() {
        run(
            "every 10s or 4KiB",
            secs(0),
            Some(secs(0)),
            &[
                (secs(1), 4095, None),
                (secs(2), 4096, SIZE),
                (secs(11), 1, None),
                (secs(12), 1, TIME),
                (secs(13), 9999, SIZE),
            ],
        );
        run("4KiB", secs(0), None, &[(secs(999_999), 4095, None), (secs(999_999), 4096, SIZE)]);
        assert_eq!(Due::new("4KiB".parse().expect("good"), secs(0), None).next(), None);
    }

    #[test]
    fn a_clock_that_is_set_back_delays_by_one_period_at_most() {
        run(
            "every 10s",
            secs(1000),
            Some(secs(1000)),
            &[
                (secs(1009), 1, None),
                (secs(500), 1, None), // back by 509 s
                (secs(509), 1, None),
                (secs(510), 1, TIME),
                (secs(5000), 1, TIME), // forward: once
                (secs(5000), 1, None),
                (secs(4999), 1, None), // a little back: one period from here
                (secs(5008), 1, None),
                (secs(5009), 1, TIME),
            ],
        );
        let (day, back) = (at("2026-11-17T12:00:00Z"), at("2026-11-16T12:00:00Z"));
        run(
            "0 2 * * * UTC",
            day,
            None,
            &[(day, 1, None), (back, 1, None), (at("2026-11-17T02:00:00Z"), 1, TIME), (day, 1, None)],
        );
    }
}
