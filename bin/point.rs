//! Instants as people read them.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use journal::Time;

/// An instant in UTC, RFC 3339.
pub(crate) fn utc(time: Time) -> String {
    match Timestamp::from_nanosecond(i128::from(time.as_nanos())) {
        Ok(instant) => instant.to_string(),
        Err(_) => format!("{} ns since 1970", time.as_nanos()),
    }
}

/// An instant in local time with its offset, and in UTC.
pub(crate) fn both(time: Time, zone: &TimeZone) -> String {
    match Timestamp::from_nanosecond(i128::from(time.as_nanos())) {
        Ok(instant) => {
            let local = instant.to_zoned(zone.clone());
            format!("{} ({instant})", local.strftime("%Y-%m-%d %H:%M:%S%.f %:z"))
        }
        Err(_) => utc(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_shown_both_ways() {
        let instant: Timestamp = "2026-11-17T08:41:59.25Z".parse().unwrap();
        let time = Time::from_nanos(u64::try_from(instant.as_nanosecond()).unwrap());
        let shown = both(time, &TimeZone::get("Europe/Paris").unwrap());
        assert_eq!(shown, "2026-11-17 09:41:59.25 +01:00 (2026-11-17T08:41:59.25Z)");
        assert!(both(Time::from_nanos(u64::MAX), &TimeZone::UTC).contains("2554"));
    }
}
