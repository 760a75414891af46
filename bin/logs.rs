//! What the libraries say while they work: on standard error, as much as was asked for.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// Sets the level from `-q` and `-v`; `TOWLINE_LOG` (for example `shipper=debug`) beats both.
pub(crate) fn init(quiet: bool, verbose: u8) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, 2) => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("TOWLINE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    // colours are for people: in a file, a pipe or a journal they are noise
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|word| word.is_empty());
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let subscriber = subscriber.with_target(false).with_ansi(colours);
    // a second subscriber in one process would be a mistake of ours, and no reason to stop
    let _ = subscriber.try_init();
}
