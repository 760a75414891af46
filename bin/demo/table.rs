//! What was proved.

use std::fmt;

use serde::Serialize;

/// The rows of the table, in the order of the performance.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
}

impl Table {
    /// True when every row held.
    pub(super) fn is_good(&self) -> bool {
        self.rows.iter().all(|row| row.held)
    }
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    what: String,
    found: String,
    held: bool,
}

impl Row {
    pub(super) fn new(what: impl Into<String>, found: impl Into<String>, held: bool) -> Row {
        Row { what: what.into(), found: found.into(), held }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.held { "ok   " } else { "FAULT" };
        write!(f, "{mark}  {:<58}  {}", self.what, self.found)
    }
}
