//! `wait`: for the shell what a library call is for a program.

use config::value::Span;
use node::control::{Until, Wait};

use super::millis;
use crate::exit::{DEGRADED, DONE, Outcome};
use crate::out::Out;
use crate::whereabouts::Whereabouts;

/// Wait until a stream is connected, in sync, durable or shipped.
///
/// Ends with exit code 12 when the time is over, and with 5 when it holds although the stream goes on alone.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The stream
    stream: String,
    /// connected: open, with every required peer; in-sync: every peer has received all that is durable here; durable:
    /// here and at every required peer; shipped: in every depot
    #[arg(long = "for", value_name = "connected|in-sync|durable|shipped", value_parser = until)]
    until: Until,
    /// Up to this position [default: the end of the log now]
    #[arg(long, value_name = "N")]
    lsn: Option<u64>,
    /// Longest wait [default: for ever]
    #[arg(long, value_name = "TIME")]
    timeout: Option<Span>,
}

fn until(text: &str) -> Result<Until, String> {
    Until::from_name(text).ok_or_else(|| "write connected, in-sync, durable or shipped".to_owned())
}

pub(crate) fn execute(args: Args, at: &Whereabouts, out: &mut Out) -> Outcome {
    let Args { stream, until, lsn, timeout } = args;
    let reached = at.connect()?.wait(Wait { stream, until, lsn, timeout_ms: timeout.map(millis) })?;
    let alone = if reached.alone { ", alone (going on without a peer)" } else { "" };
    out.show(&reached, format_args!("{} up to LSN {}{alone}", reached.until, reached.lsn))?;
    Ok(if reached.alone { DEGRADED } else { DONE })
}
