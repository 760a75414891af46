//! The point that a restore goes to, and the words for it.

use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};
use journal::{Lsn, Time};

use crate::error::{Error, Result};

/// A point in a log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// As far as it goes.
    Latest,
    /// Every entry that ends at or below this position.
    Lsn(Lsn),
    /// Every entry with this time or an earlier one.
    Time(Time),
    /// Up to and with the last mark of this name.
    Mark(String),
}

impl Point {
    /// Reads `latest`, `lsn:123` or `123`, `mark:NAME`, an instant (`2026-11-17T09:41:59Z`, or `2026-11-17 09:41` in
    /// the zone of `now`) or how long before `now` (`-15m`).
    ///
    /// # Errors
    /// `Point` with what is wrong; a local time that the zone's clocks show twice or never is one.
    pub fn parse(text: &str, now: &Zoned) -> Result<Point> {
        let wrong = |what: String| Error::Point { text: text.to_owned(), what };
        if text == "latest" {
            return Ok(Point::Latest);
        }
        if let Some(name) = text.strip_prefix("mark:") {
            return match name {
                "" => Err(wrong("the mark's name is missing".into())),
                name => Ok(Point::Mark(name.to_owned())),
            };
        }
        let digits = text
            .strip_prefix("lsn:")
            .or((text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty()).then_some(text));
        if let Some(digits) = digits {
            return digits.parse().map(Point::Lsn).map_err(|_| wrong("an LSN is a number below 2^64".into()));
        }
        if let Some(ago) = text.strip_prefix('-') {
            let span: Span = ago
                .parse()
                .map_err(|error| wrong(format!("after \"-\" stands a duration such as 15m or 2h ({error})")))?;
            let then = now.checked_sub(span.abs()).map_err(|error| wrong(error.to_string()))?;
            return instant(then.timestamp()).map_err(wrong);
        }
        if let Ok(timestamp) = text.parse::<Timestamp>() {
            return instant(timestamp).map_err(wrong);
        }
        let local: DateTime = text.parse().map_err(|_| {
            wrong("use latest, lsn:123, mark:NAME, -15m, 2026-11-17T09:41:59Z or \"2026-11-17 09:41\"".into())
        })?;
        instant(only_instant(local, now.time_zone()).map_err(wrong)?).map_err(wrong)
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Point::Latest => f.write_str("latest"),
            Point::Lsn(lsn) => write!(f, "LSN {lsn}"),
            Point::Time(time) => f.write_str(&utc(*time)),
            Point::Mark(name) => write!(f, "mark {name}"),
        }
    }
}

/// The instant in UTC, for messages.
pub(crate) fn utc(time: Time) -> String {
    let nanos = i128::from(time.as_nanos());
    Timestamp::from_nanosecond(nanos).map(|at| at.to_string()).unwrap_or_else(|_| format!("{nanos} ns"))
}

fn instant(at: Timestamp) -> std::result::Result<Point, String> {
    let nanos = u64::try_from(at.as_nanosecond()).map_err(|_| "it lies before 1970".to_owned())?;
    Ok(Point::Time(Time::from_nanos(nanos)))
}

/// The one instant at which the zone's clocks show `local`.
fn only_instant(local: DateTime, zone: &TimeZone) -> std::result::Result<Timestamp, String> {
    zone.to_ambiguous_timestamp(local).unambiguous().map_err(|_| {
        let name = zone.iana_name().unwrap_or("this zone");
        format!("clocks in {name} show it twice or never that night; write it with an offset, as in {local}+01:00")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_words() {
        let now: Zoned = "2026-11-17T10:00:00+01:00[Europe/Paris]".parse().expect("a time");
        let at = |text: &str| {
            let stamp: Timestamp = text.parse().expect("a time");
            Ok(Point::Time(Time::from_nanos(stamp.as_nanosecond() as u64)))
        };
        let cases: [(&str, std::result::Result<Point, &str>); 22] = [
            ("latest", Ok(Point::Latest)),
            ("0", Ok(Point::Lsn(Lsn::ZERO))),
            ("123", Ok(Point::Lsn(Lsn::new(123)))),
            ("lsn:123", Ok(Point::Lsn(Lsn::new(123)))),
            ("lsn:x", Err("2^64")),
            ("99999999999999999999", Err("2^64")),
            ("mark:before the upgrade", Ok(Point::Mark("before the upgrade".into()))),
            ("mark:", Err("missing")),
            ("-15m", at("2026-11-17T08:45:00Z")),
            ("-2h", at("2026-11-17T07:00:00Z")),
            ("-1d", at("2026-11-16T09:00:00Z")),
            ("-", Err("15m")),
            ("-soon", Err("15m")),
            ("2026-11-17T09:41:59Z", at("2026-11-17T09:41:59Z")),
            ("2026-11-17T09:41:59.5+02:00", at("2026-11-17T07:41:59.5Z")),
            ("2026-11-17 09:41", at("2026-11-17T08:41:00Z")),
            ("2026-11-17 09:41:07", at("2026-11-17T08:41:07Z")),
            ("2026-07-17T09:41", at("2026-07-17T07:41:00Z")),
            ("2026-10-25 02:30", Err("twice or never")),
            ("2026-03-29 02:30", Err("twice or never")),
            ("1969-01-01T00:00:00Z", Err("1970")),
            ("yesterday", Err("2026-11-17 09:41")),
        ];
        for (text, wanted) in cases {
            match (Point::parse(text, &now), wanted) {
                (Ok(point), Ok(wanted)) => assert_eq!(point, wanted, "{text}"),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
                (found, wanted) => panic!("{text}: {found:?}, not {wanted:?}"),
            }
        }
    }
}
