//! TERM and INT.

use std::io;
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::stop::Stop;

/// From now on TERM and INT (and HUP, when a terminal goes) begin the stop; what is under way gets `drain`.
pub fn stop_on_signals(stop: &Stop, drain: Duration) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut signals = {
        let _guard = runtime.enter();
        [
            (signal(SignalKind::terminate())?, "TERM"),
            (signal(SignalKind::interrupt())?, "INT"),
            (signal(SignalKind::hangup())?, "HUP"),
        ]
    };
    let stop = stop.clone();
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async move {
            let [(term, _), (int, _), (hup, _)] = &mut signals;
            let why = tokio::select! {
                _ = term.recv() => "TERM",
                _ = int.recv() => "INT",
                _ = hup.recv() => "HUP",
            };
            stop.begin(why, drain);
        });
    })?;
    Ok(())
}
