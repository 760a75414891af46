//! Real processes of the real binary, run to their end.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

/// The command with nothing of this shell's surroundings in it.
pub(crate) fn towline<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_towline"));
    command.args(args).env_remove("TOWLINE_CONFIG").env_remove("TOWLINE_DATA").env_remove("TOWLINE_LOG");
    command
}

/// How a command ended and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; 128 + n for a signal.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Ended {
    /// Checks the exit code, and shows everything when it is another one.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Ended {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Checks that standard error contains `part`.
    #[track_caller]
    pub(crate) fn says(self, part: &str) -> Ended {
        assert!(self.stderr.contains(part), "no {part:?} in:\n{}", self.stderr);
        self
    }

    /// Checks that standard output contains `part`.
    #[track_caller]
    pub(crate) fn prints(self, part: &str) -> Ended {
        assert!(self.stdout.contains(part), "no {part:?} in:\n{}", self.stdout);
        self
    }
}

/// Runs a command to its end.
pub(crate) fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ended {
    run_with(args, b"")
}

/// Runs a command to its end with this on its standard input.
pub(crate) fn run_with<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>, input: &[u8]) -> Ended {
    let mut command = towline(args);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start towline");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    // a command that ends early closes its end: that is no failure of the test
    let feeder = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("wait for towline");
    feeder.join().expect("feed its input");
    Ended {
        code: code(output.status),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The exit code; 128 + n for a signal, as shells have it.
pub(crate) fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
