//! Positions in the log.

use std::fmt;
use std::str::FromStr;

/// A byte address in the endless log of one stream.
///
/// A position is an exclusive upper bound ("everything below"), so lag is a subtraction and the empty log ends at
/// [`Lsn::ZERO`]. Entries begin at multiples of [`crate::ENTRY_ALIGN`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// The beginning of every log.
    pub const ZERO: Lsn = Lsn(0);
    /// Above every position: "no bound".
    pub const MAX: Lsn = Lsn(u64::MAX);

    /// The position at `bytes` from the beginning of the log.
    pub const fn new(bytes: u64) -> Lsn {
        Lsn(bytes)
    }

    /// The address as an integer, for formats and arithmetic.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position `bytes` further on; `None` at the end of the address space.
    pub const fn checked_add(self, bytes: u64) -> Option<Lsn> {
        match self.0.checked_add(bytes) {
            Some(at) => Some(Lsn(at)),
            None => None,
        }
    }

    /// The position `bytes` further on. Panics at the end of the address space (18 exabytes).
    #[track_caller]
    pub const fn advance(self, bytes: u64) -> Lsn {
        match self.checked_add(bytes) {
            Some(at) => at,
            None => panic!("the log's address space is exhausted"),
        }
    }

    /// Bytes from `earlier` to here; zero when `earlier` is not earlier.
    pub const fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Lsn {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Lsn, Self::Err> {
        text.parse().map(Lsn)
    }
}

/// A half-open range of the log: `from` belongs to it, `to` does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LsnRange {
    /// First position inside.
    pub from: Lsn,
    /// First position behind.
    pub to: Lsn,
}

impl LsnRange {
    /// The range `[from, to)`.
    pub const fn new(from: Lsn, to: Lsn) -> LsnRange {
        LsnRange { from, to }
    }

    /// Bytes inside; zero for an inverted range.
    pub const fn bytes(self) -> u64 {
        self.to.bytes_since(self.from)
    }

    /// True when nothing lies inside.
    pub const fn is_empty(self) -> bool {
        self.bytes() == 0
    }
}

impl fmt::Display for LsnRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.from, self.to)
    }
}
