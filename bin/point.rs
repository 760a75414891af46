//! The grammar of points in time and place: `--at` and `--from` of restore and tail.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use journal::{Lsn, Time};

use config::value::{BadValue, Span};

/// A point to restore to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// The end.
    Latest,
    /// Everything below.
    Lsn(Lsn),
    /// Everything up to this instant, itself included.
    Time(Time),
    /// Everything before the newest mark of this name.
    Mark(String),
}

/// What people may write, for messages.
const FORMS: &str = "write latest, an LSN (lsn:123 or 123), a time (2026-11-17T09:41:59Z, \"2026-11-17 09:41\" in local \
                     time, or -15m) or mark:NAME";

/// Reads a point. `now` and `zone` give relative and local times their meaning.
///
/// A local time that a change of the clocks left out, or that it made come twice, is refused: the one who asks must
/// say which instant is meant.
pub(crate) fn parse(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Point, BadValue> {
    let text = text.trim();
    if text == "latest" {
        return Ok(Point::Latest);
    }
    if let Some(name) = text.strip_prefix("mark:") {
        return match name.is_empty() {
            true => Err(BadValue::new("a mark's name is missing behind `mark:`")),
            false => Ok(Point::Mark(name.to_owned())),
        };
    }
    let digits = text.strip_prefix("lsn:").unwrap_or(text);
    if digits.starts_with(|c: char| c.is_ascii_digit()) && digits.chars().all(|c| c.is_ascii_digit()) {
        let lsn = digits.parse().map_err(|_| BadValue::new(format!("`{text}`: no LSN is so large")))?;
        return Ok(Point::Lsn(Lsn::new(lsn)));
    }
    if text.starts_with("lsn:") {
        return Err(BadValue::new(format!("`{text}`: an LSN is a decimal number")));
    }
    instant(text, now, zone).and_then(to_time).map(Point::Time)
}

fn instant(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, BadValue> {
    if let Some(ago) = text.strip_prefix('-') {
        let ago: Span = ago.parse()?;
        let ago = SignedDuration::try_from(ago.duration()).map_err(|_| bad(text))?;
        return now.checked_sub(ago).map_err(|_| bad(text));
    }
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Ok(instant);
    }
    if text.len() == "2026-11-17".len() && text.parse::<jiff::civil::Date>().is_ok() {
        return Err(BadValue::new(format!(
            "`{text}` is a whole day: add the time of day, for example \"{text} 09:41\""
        )));
    }
    let civil: DateTime = text.parse().map_err(|_| bad(text))?;
    let local = zone.to_ambiguous_timestamp(civil);
    local.unambiguous().map_err(|_| {
        let either = zone.to_ambiguous_timestamp(civil).earlier().ok();
        let or = zone.to_ambiguous_timestamp(civil).later().ok();
        let options = either.into_iter().chain(or).map(|at| at.to_string()).collect::<Vec<_>>().join(" or ");
        BadValue::new(format!(
            "`{text}` is not one instant in local time, because clocks change there: write {options}"
        ))
    })
}

fn to_time(instant: Timestamp) -> Result<Time, BadValue> {
    let nanos = u64::try_from(instant.as_nanosecond());
    nanos.map(Time::from_nanos).map_err(|_| BadValue::new(format!("{instant} is outside of what a log can carry")))
}

fn bad(text: &str) -> BadValue {
    BadValue::new(format!("`{text}` is not a point: {FORMS}"))
}

/// An instant in UTC, RFC 3339.
pub(crate) fn utc(time: Time) -> String {
    match Timestamp::from_nanosecond(i128::from(time.as_nanos())) {
        Ok(instant) => instant.to_string(),
        Err(_) => format!("{} ns since 1970", time.as_nanos()),
    }
}

/// An instant for people: local with its offset, and UTC.
pub(crate) fn both(time: Time, zone: &TimeZone) -> String {
    match Timestamp::from_nanosecond(i128::from(time.as_nanos())) {
        Ok(instant) => {
            let local = instant.to_zoned(zone.clone());
            format!("{} ({instant})", local.strftime("%Y-%m-%d %H:%M:%S%.f %:z"))
        }
        Err(_) => format!("{} ns since 1970", time.as_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Result<Point, BadValue> {
        let now = "2026-11-17T10:00:00Z".parse().unwrap();
        parse(text, now, &TimeZone::get("Europe/Paris").unwrap())
    }

    fn utc(text: &str) -> Point {
        Point::Time(to_time(text.parse().unwrap()).unwrap())
    }

    #[test]
    fn what_is_a_point() {
        let table = [
            ("latest", Point::Latest),
            ("123", Point::Lsn(Lsn::new(123))),
            ("lsn:0", Point::Lsn(Lsn::ZERO)),
            ("mark:before upgrade", Point::Mark("before upgrade".into())),
            ("mark:latest", Point::Mark("latest".into())),
            ("2026-11-17T09:41:59Z", utc("2026-11-17T09:41:59Z")),
            ("2026-11-17T09:41:59.5+01:00", utc("2026-11-17T08:41:59.5Z")),
            ("2026-11-17 09:41", utc("2026-11-17T08:41:00Z")),
            ("2026-11-17T09:41:59", utc("2026-11-17T08:41:59Z")),
            ("2026-07-17 09:41", utc("2026-07-17T07:41:00Z")),
            ("-15m", utc("2026-11-17T09:45:00Z")),
            ("-1h30m", utc("2026-11-17T08:30:00Z")),
        ];
        for (text, point) in table {
            assert_eq!(at(text), Ok(point), "{text}");
        }
    }

    #[test]
    fn what_is_none() {
        let table = [
            ("", "is not a point"),
            ("yesterday", "is not a point"),
            ("lsn:", "decimal number"),
            ("lsn:-1", "decimal number"),
            ("99999999999999999999", "so large"),
            ("mark:", "name is missing"),
            ("-15", "unit is missing"),
            ("2026-11-17", "add the time of day"),
            ("2026-13-17 09:41", "is not a point"),
            ("1960-01-01T00:00:00Z", "outside"),
            ("2026-03-29 02:30", "not one instant"),
            ("2026-10-25 02:30", "2026-10-25T00:30:00Z or 2026-10-25T01:30:00Z"),
        ];
        for (text, part) in table {
            let said = at(text).unwrap_err().to_string();
            assert!(said.contains(part), "{text}: {said}");
        }
    }

    #[test]
    fn an_instant_is_shown_both_ways() {
        let time = to_time("2026-11-17T08:41:59.25Z".parse().unwrap()).unwrap();
        let shown = both(time, &TimeZone::get("Europe/Paris").unwrap());
        assert_eq!(shown, "2026-11-17 09:41:59.25 +01:00 (2026-11-17T08:41:59.25Z)");
    }
}
