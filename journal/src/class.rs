//! The one classification of errors: *who must act*. Every crate's error has a `class()`; the binary maps it to an
//! exit code.

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

impl Class {
    /// Every class, in the order of the exit code table.
    pub const ALL: [Class; 12] = [
        Class::Io,
        Class::Corrupt,
        Class::Fenced,
        Class::Incompatible,
        Class::Full,
        Class::Config,
        Class::Unknown,
        Class::Absent,
        Class::Locked,
        Class::NotReached,
        Class::Refused,
        Class::Usage,
    ];

    /// The word for it on the control socket and in `--json`.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Io => "io",
            Class::Corrupt => "corrupt",
            Class::Fenced => "fenced",
            Class::Incompatible => "incompatible",
            Class::Full => "full",
            Class::Config => "config",
            Class::Unknown => "unknown",
            Class::Absent => "absent",
            Class::Locked => "locked",
            Class::NotReached => "not-reached",
            Class::Refused => "refused",
            Class::Usage => "usage",
        }
    }

    /// Reads what [`Class::name`] writes.
    pub fn from_name(name: &str) -> Option<Class> {
        Class::ALL.into_iter().find(|class| class.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_read_back_by_its_name() {
        for class in Class::ALL {
            assert_eq!(Class::from_name(class.name()), Some(class));
        }
        assert_eq!(Class::from_name("no such class"), None);
    }
}
