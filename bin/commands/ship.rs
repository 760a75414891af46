//! `ship`: to the depots, now.

use config::value::Span;
use node::control::{Ship, ShipWhen};

use super::millis;
use crate::exit::{DONE, Outcome};
use crate::out::Out;
use crate::whereabouts::Whereabouts;

/// Ship to the depots now; ends when it lies there.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The stream [default: every stream that has a depot]
    stream: Option<String>,
    /// Everything that is committed and durable (the default)
    #[arg(long, conflicts_with = "next")]
    now: bool,
    /// The same as --now: this version makes no difference between the two
    #[arg(long)]
    next: bool,
    /// Longest wait [default: for ever]
    #[arg(long, value_name = "TIME")]
    timeout: Option<Span>,
}

pub(crate) fn execute(args: Args, at: &Whereabouts, out: &mut Out) -> Outcome {
    let when = if args.next { ShipWhen::Next } else { ShipWhen::Now };
    let shipped = at.connect()?.ship(Ship { stream: args.stream, when, timeout_ms: args.timeout.map(millis) })?;
    for depot in shipped {
        let text = format_args!("{}: {} holds everything up to LSN {}", depot.stream, depot.depot, depot.lsn);
        out.show(&depot, text)?;
    }
    Ok(DONE)
}
