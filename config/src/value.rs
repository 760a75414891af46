//! Values as people write them: sizes, durations, addresses, names. A value that exists is valid.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use journal::scrub::ScrubPolicy;
use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

/// Why a text is not the value that was expected. Says what was expected, with an example.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadValue(pub(crate) String);

impl BadValue {
    /// The error with this text.
    pub fn new(text: impl Into<String>) -> BadValue {
        BadValue(text.into())
    }
}

/// Reads a value from its text, so that an error carries the place of the value.
macro_rules! from_text {
    ($($name:ty),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}
/// Writes a value as its text.
macro_rules! to_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    )*};
}
to_text!(Span, Scrub, Address, Name, Schedule);
from_text!(Size, SegmentSize, RecordSize, Span, Scrub, Address, Name, Schedule);

/// A number of bytes: `50 GiB`, `20 MB`, `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// This many bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Size, BadValue> {
        let bad = || BadValue(format!("`{text}` is not a size: write for example \"50 GiB\", \"20 MB\" or \"4096\""));
        if !text.trim().starts_with(|c: char| c.is_ascii_digit()) {
            return Err(bad());
        }
        let size: bytesize::ByteSize = text.trim().parse().map_err(|_| bad())?;
        if size.0 == u64::MAX {
            return Err(bad()); // the parser saturates: nobody has so much
        }
        Ok(Size(size.0))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes >= 1024 => write!(f, "{}", bytesize::ByteSize(bytes)),
            bytes => write!(f, "{bytes} B"),
        }
    }
}

/// Body of a segment: a power of two from 64 KiB to 1 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// This many bytes.
    pub const fn bytes(self) -> u32 {
        self.0
    }
}

impl FromStr for SegmentSize {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<SegmentSize, BadValue> {
        let bytes = u32::try_from(text.parse::<Size>()?.bytes()).ok();
        let bytes = bytes.filter(|bytes| journal::Geometry::new(*bytes).is_some());
        bytes.map(SegmentSize).ok_or_else(|| {
            BadValue(format!("`{text}` is not the size of a segment: that is a power of two from 64 KiB to 1 GiB"))
        })
    }
}

/// Largest record of a stream: 1 byte to 1 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordSize(usize);

/// A record is held in memory a few times on its way.
const RECORD_BYTES_MAX: u64 = 1 << 30;

impl RecordSize {
    /// This many bytes.
    pub const fn bytes(self) -> usize {
        self.0
    }
}

impl FromStr for RecordSize {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<RecordSize, BadValue> {
        match text.parse::<Size>()?.bytes() {
            bytes @ 1..=RECORD_BYTES_MAX => Ok(RecordSize(bytes as usize)),
            _ => Err(BadValue(format!("`{text}` is not the size of a record: that is at most 1 GiB"))),
        }
    }
}

/// A length of time: `500ms`, `5s`, `15m`, `1h30m`, `26h`, `2d`. A day is 24 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

/// Longest span that anybody may ask for: arithmetic with instants stays inside their range.
const SPAN_DAYS_MAX: u64 = 36_500;

impl Span {
    /// The length as the standard library has it.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Span {
        Span(duration)
    }
}

impl FromStr for Span {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Span, BadValue> {
        let bad = |why: &str| {
            BadValue(format!(
                "`{text}` is not a duration{why}: write for example \"500ms\", \"5s\", \"15m\", \"1h30m\" or \"2d\""
            ))
        };
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(bad(""));
        }
        let (mut millis, mut unit_before) = (0u64, u64::MAX);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let number: u64 = rest[..digits].parse().map_err(|_| bad(""))?;
            let letters = &rest[digits..];
            let unit_len = letters.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(letters.len());
            let unit = match &letters[..unit_len] {
                "ms" => 1,
                "s" => 1000,
                "m" | "min" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                "" => return Err(bad(" (its unit is missing)")),
                _ => return Err(bad(" (units are ms, s, m, h, d)")),
            };
            if unit >= unit_before {
                return Err(bad(" (larger units come first)"));
            }
            unit_before = unit;
            millis = number.checked_mul(unit).and_then(|add| millis.checked_add(add)).ok_or_else(|| bad(""))?;
            rest = letters[unit_len..].trim_start();
        }
        if millis > SPAN_DAYS_MAX * 86_400_000 {
            return Err(bad(" (at most a hundred years)"));
        }
        Ok(Span(Duration::from_millis(millis)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")] {
            if millis >= unit {
                write!(f, "{}{name}", millis / unit)?;
                millis %= unit;
            }
        }
        Ok(())
    }
}

/// How rot is looked for in a log: `20 MB/s`, `20 MB/s every 12h`, `off`. Without `every` it is once a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scrub(ScrubPolicy);

impl Scrub {
    /// The same as the journal has it.
    pub const fn policy(self) -> ScrubPolicy {
        self.0
    }
}

impl FromStr for Scrub {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Scrub, BadValue> {
        let bad = || {
            BadValue(format!(
                "`{text}` says not how to scrub: write for example \"20 MB/s\", \"20 MB/s every 12h\" (at least 1s), or \"off\""
            ))
        };
        let usual = ScrubPolicy::default();
        let (rate, every) = match text.trim().split_once(" every ") {
            Some((rate, every)) => (rate, every.parse::<Span>().map_err(|_| bad())?.duration()),
            None => (text.trim(), usual.every),
        };
        if every < Duration::from_secs(1) {
            return Err(bad());
        }
        let bytes_per_second = match rate {
            "off" | "0" => 0,
            rate => rate.strip_suffix("/s").ok_or_else(bad)?.parse::<Size>().map_err(|_| bad())?.bytes(),
        };
        Ok(Scrub(ScrubPolicy { bytes_per_second, every }))
    }
}

impl fmt::Display for Scrub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ScrubPolicy { bytes_per_second: 0, .. } => f.write_str("off"),
            ScrubPolicy { bytes_per_second, every } if bytes_per_second.is_multiple_of(1_000_000) => {
                write!(f, "{} MB/s every {}", bytes_per_second / 1_000_000, Span(every))
            }
            ScrubPolicy { bytes_per_second, every } => write!(f, "{bytes_per_second}/s every {}", Span(every)),
        }
    }
}

/// A host with a port: `10.0.0.2:7400`, `db2.example:7400`, `[fe80::1]:7400`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// The host, an IPv6 one without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port. 0 lets the system choose one, where something listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// True for a loopback address and for `localhost`.
    pub fn is_loopback(&self) -> bool {
        let ip: Option<std::net::IpAddr> = self.host.parse().ok();
        self.host == "localhost" || ip.is_some_and(|ip| ip.is_loopback())
    }
}

impl FromStr for Address {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Address, BadValue> {
        let bad = |why: &str| {
            BadValue(format!(
                "`{text}` is not an address{why}: write HOST:PORT, for example \"10.0.0.2:7400\" or \"[fe80::1]:7400\""
            ))
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(|| bad(" (its port is missing)"))?;
        let port = port.parse().map_err(|_| bad(" (its port is no number up to 65535)"))?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
            Some(_) => return Err(bad(" (no IPv6 address between the brackets)")),
            None if host.contains(':') => return Err(bad(" (an IPv6 address needs brackets)")),
            None => host,
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || host.len() > 253 || !host.chars().all(legal) {
            return Err(bad(""));
        }
        Ok(Address { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The name of a node, stream, volume, depot or mark's owner: it becomes a folder's name, so it is plain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// Longest name.
const NAME_BYTES_MAX: usize = 64;

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Name, BadValue> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if starts && text.len() <= NAME_BYTES_MAX && text.chars().all(legal) {
            return Ok(Name(text.to_owned()));
        }
        Err(BadValue(format!(
            "`{text}` is not a name: use 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`, the first a letter or digit"
        )))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// When a batch is cut: `every 15m`, cron with a zone (`0 2 * * * Europe/Paris`), a size, or the first of two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(String);

impl Schedule {
    /// The text, which is known to be a schedule.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Schedule {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Schedule, BadValue> {
        match text.parse::<shipper::Schedule>() {
            Ok(_) => Ok(Schedule(text.to_owned())),
            Err(fault) => Err(BadValue(fault.to_string())),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place that is a folder when it contains a slash, and a node or an address when it doesn't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A folder of this machine.
    Folder(PathBuf),
    /// Anything else, as written.
    Word(String),
}

impl Place {
    /// Tells the two apart.
    pub fn of(text: &str) -> Place {
        match text.contains('/') {
            true => Place::Folder(PathBuf::from(text)),
            false => Place::Word(text.to_owned()),
        }
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Place, D::Error> {
        String::deserialize(from).map(|text| Place::of(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("1 KiB", 1024), ("20 MB", 20_000_000), ("50 GiB", 50 << 30)] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        assert_eq!("64 MiB".parse::<Size>().unwrap().to_string(), "64.0 MiB");
        for text in ["", "GiB", "-1", "1 XB", "5 GiB/s", "99999999999999 PiB", "1e3"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn spans() {
        let table = [("500ms", 500), ("5s", 5000), ("15m", 900_000), ("15min", 900_000), ("1h30m", 5_400_000)];
        for (text, millis) in table.into_iter().chain([("1h 30m", 5_400_000), ("26h", 93_600_000), ("2d", 172_800_000)])
        {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(millis))), "{text}");
        }
        for text in ["", "5", "s", "5 s x", "-5s", "5y", "5m1h", "5s5s", "1.5h", "99999999999999999d", "40000d"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        for text in ["1h30m", "2d", "500ms", "1d1h1m1s1ms", "0s"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn scrubs() {
        let policy = |bytes_per_second, secs| Scrub(ScrubPolicy { bytes_per_second, every: Duration::from_secs(secs) });
        let table = [("20 MB/s", policy(20_000_000, 86_400)), ("1 KiB/s every 12h", policy(1024, 43_200))];
        for (text, scrub) in table.into_iter().chain([("off", policy(0, 86_400)), ("0", policy(0, 86_400))]) {
            assert_eq!(text.parse(), Ok(scrub), "{text}");
            assert_eq!(scrub.to_string().parse(), Ok(scrub), "{text}");
        }
        for text in ["", "20 MB", "/s", "20 MB/h", "20 MB/s every", "20 MB/s every 0s", "fast", "off, please"] {
            assert!(text.parse::<Scrub>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses() {
        for text in ["10.0.0.2:7400", "db2.example:7400", "[fe80::1]:7400", "localhost:0"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "10.0.0.2", ":7400", "a:b", "a:70000", "fe80::1:7400", "[x]:1", "a b:1", "a/b:1"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn names() {
        for text in ["a", "log", "pg-16_x.1", "9"] {
            assert_eq!(text.parse::<Name>().unwrap().as_str(), text);
        }
        for text in ["", ".", "..", "a/b", "-a", "ä", "a b", &"x".repeat(65)] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }
}
