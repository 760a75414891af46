//! `mark`: a named restore point.

use config::value::Span;
use node::control::{Level, Mark};

use super::{level, millis};
use crate::exit::{DEGRADED, DONE, Outcome};
use crate::out::Out;
use crate::whereabouts::Whereabouts;

/// Write a named restore point into a stream.
///
/// `towline restore STREAM --at mark:NAME` gives what was there before it. A name may be used again: the newest counts.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The stream
    stream: String,
    /// The mark's name
    name: String,
    /// How far it must have got before this ends: written, durable, received, peer-durable or committed
    #[arg(long, default_value = "committed", value_name = "LEVEL", value_parser = level)]
    wait: Level,
    /// Longest wait [default: for ever]
    #[arg(long, value_name = "TIME")]
    timeout: Option<Span>,
}

pub(crate) fn execute(args: Args, at: &Whereabouts, out: &mut Out) -> Outcome {
    let Args { stream, name, wait, timeout } = args;
    let marked = at.connect()?.mark(Mark { stream, name, wait, timeout_ms: timeout.map(millis) })?;
    let alone = if marked.alone { ", alone (going on without a peer)" } else { "" };
    out.show(&marked, format_args!("marked {} at LSN {}, {}{alone}", marked.name, marked.lsn, marked.level))?;
    Ok(if marked.alone { DEGRADED } else { DONE })
}
