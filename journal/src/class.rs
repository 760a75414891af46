//! The one classification of errors: *who must act*. Every crate's error has a `class()`; the binary maps it to an exit code.

/// What kind of trouble an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// The machine failed: retry, or replace the disk.
    Io,
    /// Bytes at rest or in flight are not what was written: stop, restore.
    Corrupt,
    /// A higher term exists: this node is no longer the primary.
    Fenced,
    /// Another version, or another identity than expected.
    Incompatible,
    /// No space.
    Full,
    /// The configuration is wrong.
    Config,
    /// The outcome is not known: it may have happened or not; ask again by LSN.
    Unknown,
    /// There is no such thing.
    Absent,
    /// Another process holds it.
    Locked,
    /// That point is not kept any more, or not reached yet.
    NotReached,
    /// Refused: TLS, identity, or a rule that protects data.
    Refused,
    /// The call was wrong: a record too large, an argument out of range.
    Usage,
}
