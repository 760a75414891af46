//! What is said about `ship`: the request, what it still waits for, and what came of it.

use std::fmt;

use journal::Time;
use serde::{Deserialize, Serialize};

use super::protocol::Failure;

/// When to ship.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShipWhen {
    /// Now, everything that is committed and durable.
    Now,
    /// When the schedule next does by itself, and not earlier.
    Next,
}

/// Ship to the depots, and answer when it lies there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ship {
    /// The stream's name; `None`: every stream that has a depot.
    pub stream: Option<String>,
    /// Now or as scheduled.
    pub when: ShipWhen,
    /// Longest wait; after it the answer is an error of class `unknown`. `None`: for ever.
    pub timeout_ms: Option<u64>,
}

/// A line from the node behind `ship`: any number of the first kind, then one of the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shipping {
    /// What is waited for in one depot. Said when it changes (missing bytes alone are no news); for [`ShipWhen::Now`]
    /// only while something is wrong.
    Waits(ShipWaits),
    /// It lies in every depot.
    Ok(Vec<Shipped>),
    /// It doesn't, or not as far as is known.
    Error(Failure),
}

/// What a `ship` waits for in one depot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShipWaits {
    /// The stream's name.
    pub stream: String,
    /// The depot's name.
    pub depot: String,
    /// Everything below is to lie there, and doesn't yet; `None` while the schedule hasn't cut.
    pub upto: Option<u64>,
    /// When the schedule cuts by time, in nanoseconds since 1970; `None` when it doesn't, when it has, and while the
    /// depot hasn't said yet where it ends.
    pub due: Option<u64>,
    /// How much more must be committed until the schedule cuts by size, whatever the time; `None` as for `due`.
    pub missing_bytes: Option<u64>,
    /// Why the last attempt to reach the depot failed, until one succeeds.
    pub last_error: Option<String>,
}

impl ShipWaits {
    /// For people; `instant` writes an instant.
    pub fn in_words(&self, instant: impl Fn(Time) -> String) -> String {
        let ShipWaits { stream, depot, upto, due, missing_bytes, last_error } = self;
        let due = due.map(|due| format!("at {}", instant(Time::from_nanos(due))));
        let size = missing_bytes.map(|bytes| format!("when {bytes} more bytes are committed"));
        let waits = match (upto, due, size) {
            (Some(upto), ..) if last_error.is_some() => format!("everything up to LSN {upto} is to go to {depot}"),
            (Some(upto), ..) => format!("everything up to LSN {upto} is on its way to {depot}"),
            (None, Some(due), Some(size)) => format!("{depot} is due {due}, or {size}"),
            (None, Some(due), None) | (None, None, Some(due)) => format!("{depot} is due {due}"),
            (None, None, None) => format!("{depot} has not said yet where it ends; its schedule begins with that"),
        };
        let trouble = last_error.as_ref().map(|error| format!("; the last attempt failed and is repeated: {error}"));
        format!("{stream}: {waits}{}", trouble.unwrap_or_default())
    }
}

/// Answer to `ship`, one for each depot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shipped {
    /// The stream's name.
    pub stream: String,
    /// The depot's name.
    pub depot: String,
    /// Everything below lies in it.
    pub lsn: u64,
    /// The schedule's instant came, and there was nothing to cut: all of it lay there already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub had_nothing: bool,
}

impl fmt::Display for Shipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shipped { stream, depot, lsn, had_nothing } = self;
        match had_nothing {
            true => write!(f, "{stream}: nothing was to be cut; {depot} holds everything up to LSN {lsn} already"),
            false => write!(f, "{stream}: {depot} holds everything up to LSN {lsn}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_said_in_words() {
        let none = ShipWaits {
            stream: "log".into(),
            depot: "night".into(),
            upto: None,
            due: None,
            missing_bytes: None,
            last_error: None,
        };
        let due = ShipWaits { due: Some(9), ..none.clone() };
        let lost = Some("no such folder".to_owned());
        let cases = [
            (none.clone(), "log: night has not said yet where it ends; its schedule begins with that"),
            (due.clone(), "log: night is due at <9>"),
            (ShipWaits { missing_bytes: Some(5), ..none }, "log: night is due when 5 more bytes are committed"),
            (
                ShipWaits { missing_bytes: Some(5), ..due.clone() },
                "log: night is due at <9>, or when 5 more bytes are committed",
            ),
            (ShipWaits { upto: Some(8), ..due.clone() }, "log: everything up to LSN 8 is on its way to night"),
            (
                ShipWaits { upto: Some(8), last_error: lost, ..due },
                "log: everything up to LSN 8 is to go to night; the last attempt failed and is repeated: no such folder",
            ),
        ];
        for (waits, words) in cases {
            assert_eq!(waits.in_words(|time| format!("<{}>", time.as_nanos())), words);
        }
    }
}
