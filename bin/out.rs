//! Results, and nothing else, go to standard output: as text or as JSON lines that carry `schema`.

use std::fmt;
use std::io::{self, BufWriter, StdoutLock, Write};

use node::control::SCHEMA;
use serde::Serialize;

use crate::exit::Failure;

/// Where a command puts its results.
pub(crate) struct Out {
    /// One JSON object a line instead of text.
    pub(crate) json: bool,
    stdout: BufWriter<StdoutLock<'static>>,
}

/// A result with the version of its form.
#[derive(Serialize)]
struct Versioned<'a, T: Serialize> {
    schema: u32,
    #[serde(flatten)]
    result: &'a T,
}

impl Out {
    /// Takes standard output.
    pub(crate) fn new(json: bool) -> Out {
        Out { json, stdout: BufWriter::with_capacity(64 << 10, io::stdout().lock()) }
    }

    /// A line of text.
    pub(crate) fn line(&mut self, text: fmt::Arguments<'_>) -> Result<(), Failure> {
        self.wrote(|stdout| writeln!(stdout, "{text}"))
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.wrote(|stdout| stdout.write_all(bytes))
    }

    /// A line of JSON. `result` is a struct or a map.
    pub(crate) fn json(&mut self, result: &impl Serialize) -> Result<(), Failure> {
        self.json_line(&Versioned { schema: SCHEMA, result })
    }

    /// A line of JSON for a result that carries `schema` itself.
    pub(crate) fn json_line(&mut self, result: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_string(result);
        let line = line.map_err(|cause| Failure::io("write JSON", cause.into()))?;
        self.line(format_args!("{line}"))
    }

    /// The result as JSON where that is asked for, else as text.
    pub(crate) fn show(&mut self, result: &impl Serialize, text: impl fmt::Display) -> Result<(), Failure> {
        match self.json {
            true => self.json(result),
            false => self.line(format_args!("{text}")),
        }
    }

    /// Hands everything on. A command that may wait calls it before.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.wrote(|stdout| stdout.flush())
    }

    fn wrote(
        &mut self,
        write: impl FnOnce(&mut BufWriter<StdoutLock<'static>>) -> io::Result<()>,
    ) -> Result<(), Failure> {
        write(&mut self.stdout).map_err(|cause| Failure::io("write to standard output", cause))
    }
}

impl fmt::Debug for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Out").field("json", &self.json).finish_non_exhaustive()
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stdout.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}
