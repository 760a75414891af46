//! TERM and INT.

use std::io;
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::stop::Stop;

/// From now on TERM and INT begin the stop; what is under way gets `drain`.
pub fn stop_on_signals(stop: &Stop, drain: Duration) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    // not HUP: a node that nohup or a service manager protects from it must stay protected
    let (mut term, mut int) = {
        let _guard = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let stop = stop.clone();
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async move {
            let why = tokio::select! {
                _ = term.recv() => "TERM",
                _ = int.recv() => "INT",
            };
            stop.begin(why, drain);
        });
    })?;
    Ok(())
}
