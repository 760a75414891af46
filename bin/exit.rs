//! How the program ends: one table from the class of an error to the exit code, and one way to say what went wrong.

use std::fmt;
use std::io;
use std::process::ExitCode;

use journal::Class;

/// Everything was done.
pub(crate) const DONE: u8 = 0;
/// Something failed that has no code of its own.
pub(crate) const FAILED: u8 = 1;
/// The command line is wrong.
pub(crate) const USAGE: u8 = 2;
/// Done, but not all of what was asked for.
pub(crate) const IN_PART: u8 = 3;
/// Data is not what it should be.
pub(crate) const DATA: u8 = 4;
/// It works, but not at the strength asked for.
pub(crate) const DEGRADED: u8 = 5;
/// Standard output was closed by whoever read it: as if ended by SIGPIPE.
const CLOSED: u8 = 128 + 13;

/// The exit code of each class; docs/SEMANTICS.md and `towline --help` list the same numbers.
pub(crate) fn code(class: Class) -> u8 {
    match class {
        Class::Io => FAILED,
        Class::Usage => USAGE,
        Class::Corrupt => DATA,
        Class::Absent => 10,
        Class::Locked => 11,
        Class::Unknown => 12,
        Class::Refused | Class::Incompatible => 13,
        Class::Fenced => 14,
        Class::NotReached => 15,
        Class::Full => 16,
        Class::Config => 78,
        _ => FAILED,
    }
}

/// What `towline --help` says about exit codes.
pub(crate) const CODES: &str = "\
Exit codes:
    0  done
    1  failed
    2  wrong usage
    3  done in part: it ends before the point that was asked for
    4  data is wrong (checksum, order, compare)
    5  degraded: it was done, but alone
   10  no such stream, folder or file
   11  locked by another process
   12  peer out of reach or timed out: the outcome is unknown
   13  refused: TLS, identity, or a rule that protects data
   14  fenced: a higher term exists
   15  that point is not kept any more, or not reached
   16  no space
   78  the configuration is wrong
128+n  ended by signal n";

/// Why a command ended without doing what it should.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    text: String,
    hint: Option<String>,
}

/// Results of commands: the exit code of one that ran to its end.
pub(crate) type Outcome = Result<u8, Failure>;

impl Failure {
    /// A failure of this class.
    pub(crate) fn new(class: Class, text: impl fmt::Display) -> Failure {
        Failure { code: code(class), text: text.to_string(), hint: None }
    }

    /// The command line asks for something that makes no sense.
    pub(crate) fn usage(text: impl fmt::Display) -> Failure {
        Failure::new(Class::Usage, text)
    }

    /// The same with what to do next.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// The same with something added to its text.
    #[must_use]
    pub(crate) fn and(mut self, more: impl fmt::Display) -> Failure {
        if self.code != CLOSED {
            self.text = format!("{}; {more}", self.text.trim_end_matches('.'));
        }
        self
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// What went wrong.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// True when it says what to do next.
    pub(crate) fn has_hint(&self) -> bool {
        self.hint.is_some()
    }

    /// A call to the system failed.
    pub(crate) fn io(doing: impl fmt::Display, cause: io::Error) -> Failure {
        match cause.kind() {
            io::ErrorKind::BrokenPipe => Failure { code: CLOSED, text: String::new(), hint: None },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Failure::new(Class::Full, format_args!("{doing}: {cause}"))
            }
            io::ErrorKind::NotFound => Failure::new(Class::Absent, format_args!("{doing}: {cause}")),
            _ => Failure::new(Class::Io, format_args!("{doing}: {cause}")),
        }
    }

    /// Says it on standard error and gives the code. A closed standard output is no news: its reader closed it.
    pub(crate) fn report(self) -> ExitCode {
        if self.code != CLOSED {
            eprint(&format!("towline: {}\n", self.text));
            if let Some(hint) = self.hint {
                eprint(&format!("hint: {hint}\n"));
            }
        }
        ExitCode::from(self.code)
    }
}

/// Writes to standard error, where there is one; a closed one must not end a program that has work to do.
pub(crate) fn eprint(text: &str) {
    let _ = io::Write::write_all(&mut io::stderr().lock(), text.as_bytes());
}

/// The text of an error with its causes, each said once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

macro_rules! failures {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Failure {
                Failure::new(error.class(), chain(&error))
            }
        }
    )*};
}
failures!(journal::Error, wire::Error, archive::Error, config::Error);

impl From<volume::Error> for Failure {
    fn from(error: volume::Error) -> Failure {
        match error {
            // an output that is standard output
            volume::Error::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => Failure::io("", source),
            error => Failure::new(error.class(), chain(&error)),
        }
    }
}

impl From<node::Error> for Failure {
    fn from(error: node::Error) -> Failure {
        let hint = error.hint();
        Failure { hint, ..Failure::new(error.class(), chain(&error)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_code() {
        let classes = [
            Class::Io,
            Class::Usage,
            Class::Corrupt,
            Class::Absent,
            Class::Locked,
            Class::Unknown,
            Class::Refused,
            Class::Incompatible,
            Class::Fenced,
            Class::NotReached,
            Class::Full,
            Class::Config,
        ];
        for class in classes {
            let code = code(class);
            assert!(CODES.split_whitespace().any(|word| word == code.to_string()), "{class:?} is {code}");
        }
    }

    #[test]
    fn a_cause_is_said_once() {
        let inner = io::Error::other("disk on fire");
        let outer = journal::Error::Io { doing: "open", path: "x".into(), source: inner };
        assert_eq!(chain(&outer), "open x: disk on fire");
    }
}
