//! Real processes that keep running, until they are told to stop or killed.
//!
//! They listen on a port that the system chooses and say on standard error which one it is.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Ended, code, run, towline};

/// Nothing in these tests takes so long unless it hangs.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// A process that runs until it is killed, told to stop, or dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    lines: Receiver<String>,
    heard: Vec<String>,
}

impl Daemon {
    /// Starts it.
    pub(crate) fn start<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Daemon {
        Daemon::start_as(towline(args))
    }

    /// The same with a command of one's own.
    pub(crate) fn start_as(mut command: Command) -> Daemon {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("start towline");
        let stderr = child.stderr.take().expect("a pipe");
        let (send, lines) = channel();
        // ends with the process; keeps its pipe empty
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        Daemon { child, lines, heard: Vec::new() }
    }

    /// What follows `before` in the first line of standard error that contains it. Waits for it.
    #[track_caller]
    pub(crate) fn hear(&mut self, before: &str) -> String {
        let deadline = Instant::now() + HANGS_AFTER;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.heard.push(line.clone());
                    if let Some((_, after)) = line.split_once(before) {
                        return after.trim().to_owned();
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("never said {before:?}:\n{}", self.heard.join("\n")),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().expect("wait for it");
                    panic!("ended ({status}) without saying {before:?}:\n{}", self.heard.join("\n"));
                }
            }
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("kill it");
        self.child.wait().expect("wait for it");
    }

    /// Waits until it ends by itself; its exit code and all that it said.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ended {
        let status = self.child.wait().expect("wait for it");
        self.heard.extend(self.lines.iter());
        Ended { code: code(status), stdout: String::new(), stderr: self.heard.join("\n") }
    }

    /// `towline stop`, and its own exit code.
    #[track_caller]
    pub(crate) fn stop(self, data: &Path) -> Ended {
        run([OsStr::new("stop"), OsStr::new("--data"), data.as_os_str()]).expect(0);
        self.end()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
