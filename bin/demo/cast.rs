//! The nodes of the demo: this same program, as processes of their own.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use journal::Class;

use crate::exit::Failure;

/// Longest wait for a node's first words: it has nothing to do before them but to open a journal.
const SPEAKS_WITHIN: Duration = Duration::from_secs(15);

/// This program with these arguments and nothing of the user's surroundings.
pub(super) fn towline(args: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Command, Failure> {
    let program = std::env::current_exe().map_err(|cause| Failure::io("find this program's own file", cause))?;
    let mut command = Command::new(program);
    command.args(args.into_iter().map(Into::into));
    command.env_remove("TOWLINE_CONFIG").env_remove("TOWLINE_DATA");
    Ok(command)
}

/// Runs one command to its end; what it said on failure becomes the demo's failure.
pub(super) fn run(args: impl IntoIterator<Item = impl Into<OsString>>) -> Result<String, Failure> {
    let mut command = towline(args)?;
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().map_err(|cause| Failure::io("start towline", cause))?;
    match status.success() {
        true => Ok(String::from_utf8_lossy(&stdout).into_owned()),
        false => {
            let words = command.get_args().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
            let said = String::from_utf8_lossy(&stderr);
            Err(Failure::new(Class::Io, format_args!("`towline {words}` ended with {status}: {}", said.trim())))
        }
    }
}

/// A running node.
#[derive(Debug)]
pub(super) struct Node {
    name: &'static str,
    data: PathBuf,
    child: Child,
    lines: Receiver<String>,
}

impl Node {
    /// Starts it.
    pub(super) fn start(
        name: &'static str,
        data: &Path,
        args: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Result<Node, Failure> {
        let mut command = towline(args)?;
        command.arg("--data").arg(data).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|cause| Failure::io(format_args!("start the {name}"), cause))?;
        let (send, lines) = channel();
        if let Some(stderr) = child.stderr.take() {
            thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let _ = send.send(line);
                }
            });
        }
        Ok(Node { name, data: data.to_owned(), child, lines })
    }

    /// What follows `before` in the first line that contains it.
    pub(super) fn hear(&self, before: &str) -> Result<String, Failure> {
        let mut heard = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(SPEAKS_WITHIN) {
            if let Some((_, after)) = line.split_once(before) {
                return Ok(after.trim().to_owned());
            }
            heard.push(line);
        }
        let said = heard.join("; ");
        Err(Failure::new(Class::Io, format_args!("the {} did not say `{before}`; it said: {said}", self.name)))
    }

    /// Its data folder.
    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    /// SIGKILL: no chance to tidy up. Returns when it is gone.
    pub(super) fn kill(mut self) -> Result<(), Failure> {
        self.end().map_err(|cause| Failure::io(format_args!("kill the {}", self.name), cause))
    }

    fn end(&mut self) -> std::io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Node {
    /// A demo that fails leaves no process behind.
    fn drop(&mut self) {
        let _ = self.end();
    }
}
