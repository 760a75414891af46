//! Running nodes: real daemons on loopback, killed and started again.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::support::{code, towline};

/// Nothing here is timed; this only ends a test that hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon that is ready. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    said: Arc<Mutex<String>>,
    listen: Option<String>,
}

impl Daemon {
    /// Starts a daemon and waits until it says that it is ready.
    pub(crate) fn start<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Daemon {
        Daemon::try_start(towline(args)).unwrap_or_else(|(code, said)| panic!("ended with {code}:\n{said}"))
    }

    /// Starts a daemon; if it ends before it is ready, its exit code and what it said.
    pub(crate) fn try_start(mut command: Command) -> Result<Daemon, (i32, String)> {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("start a node");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let said = Arc::new(Mutex::new(String::new()));
        let (lines, first_lines) = channel();
        let keep = Arc::clone(&said);
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                keep.lock().unwrap_or_else(PoisonError::into_inner).push_str(&format!("{line}\n"));
                let _ = lines.send(line);
            }
        });
        let mut listen = None;
        loop {
            match first_lines.recv_timeout(PATIENCE) {
                Ok(line) if line.starts_with("next") => return Ok(Daemon { child, said, listen }),
                Ok(line) => listen = line.strip_prefix("listens on ").map(str::to_owned).or(listen),
                Err(_) => {
                    let ended = code(child.wait().expect("wait for the node"));
                    let said = said.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    return Err((ended, said));
                }
            }
        }
    }

    /// The address it really listens on.
    pub(crate) fn listen(&self) -> &str {
        self.listen.as_deref().expect("it listens")
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said on standard error so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// Waits until it ends by itself; its exit code.
    pub(crate) fn wait(&mut self) -> i32 {
        code(self.child.wait().expect("wait for the node"))
    }

    /// True once it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("look at the node").is_some()
    }

    /// TERM, and its exit code.
    pub(crate) fn stop(mut self) -> i32 {
        signal(self.pid(), "TERM");
        self.wait()
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
    }
}

/// Sends a signal by name.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().expect("run kill");
    assert!(sent.success(), "kill -{name} {pid}");
}

/// A receiver in `data`; `listen` is `127.0.0.1:0` the first time and what it said afterwards.
pub(crate) fn receiver(data: &Path, listen: &str) -> Daemon {
    Daemon::start([OsStr::new("receiver"), "--data".as_ref(), data.as_ref(), "--listen".as_ref(), listen.as_ref()])
}

/// A primary of stream `log` in `data`, with small segments so that rotations happen.
pub(crate) fn primary(data: &Path, more: &[&str]) -> Daemon {
    Daemon::start(primary_args(data, more))
}

/// The command line of [`primary`].
pub(crate) fn primary_args<'a>(data: &'a Path, more: &'a [&'a str]) -> Vec<&'a OsStr> {
    let fixed = ["primary", "--stream", "log", "--segment", "256 KiB", "--data"].map(OsStr::new);
    fixed.into_iter().chain([data.as_os_str()]).chain(more.iter().map(OsStr::new)).collect()
}

/// An `append --acks` that is fed record by record.
#[derive(Debug)]
pub(crate) struct Feed {
    child: Child,
    stdin: Option<ChildStdin>,
    acked: Receiver<Acked>,
    last: Acked,
}

/// What one line of `--acks` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acked {
    pub(crate) count: u64,
    pub(crate) lsn: u64,
    pub(crate) level: String,
}

impl Feed {
    /// Starts appending lines to `log` in `data`.
    pub(crate) fn start(data: &Path, wait: &str) -> Feed {
        let args = ["append", "log", "-", "--acks", "--wait", wait, "--data"].map(OsStr::new);
        let mut child = towline(args.into_iter().chain([data.as_os_str()]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start append");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (acks, acked): (Sender<Acked>, _) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let mut words = line.split_whitespace();
                if words.next() != Some("acked") {
                    continue;
                }
                let mut number = || words.next().and_then(|word| word.parse().ok());
                if let (Some(count), Some(lsn)) = (number(), number()) {
                    let level = words.next().unwrap_or_default().to_owned();
                    let _ = acks.send(Acked { count, lsn, level });
                }
            }
        });
        let stdin = child.stdin.take();
        Feed { child, stdin, acked, last: Acked::default() }
    }

    /// Hands in one line; `false` once the other end is gone.
    pub(crate) fn line(&mut self, line: &str) -> bool {
        self.stdin.as_mut().is_some_and(|stdin| writeln!(stdin, "{line}").is_ok())
    }

    /// The last acknowledgement that has arrived.
    pub(crate) fn last(&mut self) -> &Acked {
        self.last = self.acked.try_iter().last().unwrap_or(std::mem::take(&mut self.last));
        &self.last
    }

    /// Waits until `count` records are acknowledged; `false` when the command ends before.
    pub(crate) fn until(&mut self, count: u64) -> bool {
        while self.last.count < count {
            match self.acked.recv_timeout(PATIENCE) {
                Ok(acked) => self.last = acked,
                Err(_) => return false,
            }
        }
        true
    }

    /// No more records; waits for the end. The last acknowledgement and the exit code.
    pub(crate) fn finish(mut self) -> (Acked, i32) {
        self.stdin = None;
        let ended = code(self.child.wait().expect("wait for append"));
        while let Ok(acked) = self.acked.recv_timeout(PATIENCE) {
            self.last = acked;
        }
        (self.last.clone(), ended)
    }
}
