//! What is wrong with a configuration, and where.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use journal::Class;
use ron::error::SpannedError;

/// A configuration that can't be used. Its text says where (line and column, or the key), what and what to write
/// instead.
#[derive(Debug)]
pub struct Error {
    path: PathBuf,
    place: Place,
    what: String,
    source: Option<io::Error>,
}

#[derive(Debug)]
enum Place {
    File,
    /// 1-based.
    Line {
        line: usize,
        column: usize,
    },
    Key(String),
}

impl Error {
    /// Who must act: whoever wrote the file.
    pub fn class(&self) -> Class {
        Class::Config
    }

    /// Something about a key that is fine by itself but not beside the others.
    pub(crate) fn key(path: &Path, key: impl Into<String>, what: impl Into<String>) -> Error {
        Error { path: path.to_owned(), place: Place::Key(key.into()), what: what.into(), source: None }
    }

    pub(crate) fn unreadable(path: &Path, cause: io::Error) -> Error {
        let what = match cause.kind() {
            io::ErrorKind::NotFound => "there is no such file; `towline config init` prints one to begin with",
            io::ErrorKind::InvalidData => "it is not UTF-8 text",
            _ => "it can't be read",
        };
        Error { path: path.to_owned(), place: Place::File, what: what.to_owned(), source: Some(cause) }
    }

    pub(crate) fn syntax(path: &Path, text: &str, fault: SpannedError) -> Error {
        let end = fault.span.end;
        let (line, column) = match fault.code {
            // the reader stands behind a name when it finds that it doesn't know it
            ron::Error::NoSuchStructField { ref found, .. } | ron::Error::NoSuchEnumVariant { ref found, .. } => {
                begin_of(text, end.line, end.col, found)
            }
            // … and behind a value, which its error quotes first
            ron::Error::Message(ref message) => begin_of(text, end.line, end.col, quoted(message)),
            _ => (end.line, end.col),
        };
        Error { path: path.to_owned(), place: Place::Line { line, column }, what: explain(&fault.code), source: None }
    }
}

/// Keys and words that the grammar has a place for and that this version does not do yet.
const LATER: [(&str, &str); 11] = [
    ("Block", "block volumes and NBD are"),
    ("Tree", "tree volumes and FUSE are"),
    ("nbd", "block volumes and NBD are"),
    ("limit", "a bandwidth limit is"),
    ("window", "a time window is"),
    ("rpo", "an RPO contract is"),
    ("keep", "pruning of depots is"),
    ("zstd", "choosing the compression is"),
    ("quorum", "a quorum is"),
    ("metrics", "a metrics listener is"),
    ("hooks", "hooks are"),
];

fn explain(code: &ron::Error) -> String {
    match code {
        ron::Error::NoSuchStructField { expected, found, .. }
        | ron::Error::NoSuchEnumVariant { expected, found, .. } => {
            if let Some((_, what)) = LATER.iter().find(|(word, _)| word == found) {
                return format!("`{found}`: {what} not in this version. Remove it");
            }
            let kind = match code {
                ron::Error::NoSuchStructField { .. } => "unknown key",
                _ => "unknown word",
            };
            let known = expected.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            format!("{kind} `{found}`; here stand {known}")
        }
        ron::Error::MissingStructField { field, .. } => format!("the key `{field}` is missing before this place"),
        ron::Error::DuplicateStructField { field, .. } => format!("the key `{field}` stands here twice"),
        ron::Error::ExpectedString => "a text in \"quotes\" is expected here".to_owned(),
        ron::Error::Eof => "the file ends too early: a bracket is not closed".to_owned(),
        other => other.to_string(),
    }
}

/// The first thing that an error quotes.
fn quoted(message: &str) -> &str {
    message.split(['`', '"']).nth(1).unwrap_or_default()
}

/// Where `word` begins, when it ends at or shortly before this place.
fn begin_of(text: &str, line: usize, column: usize, word: &str) -> (usize, usize) {
    let Some(source) = line.checked_sub(1).and_then(|line| text.lines().nth(line)) else { return (line, column) };
    let before = source.chars().take(column.saturating_sub(1)).collect::<String>();
    match before.rfind(word) {
        Some(at) => (line, before[..at].chars().count() + 1),
        None => (line, column),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path.display())?;
        match &self.place {
            Place::File => {}
            Place::Line { line, column } => write!(f, "{line}:{column}:")?,
            Place::Key(key) => write!(f, " {key}:")?,
        }
        write!(f, " {}", self.what)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|cause| cause as _)
    }
}
