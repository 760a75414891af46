//! `ship`: to the depots, now or when the schedule does.

use config::value::Span;
use jiff::tz::TimeZone;
use node::control::{Ship, ShipWhen};

use super::millis;
use crate::exit::{DONE, Outcome, eprint};
use crate::out::Out;
use crate::point::both;
use crate::whereabouts::Whereabouts;

/// Ship to the depots; ends when it lies there, and prints how far each depot reaches.
///
/// At once, or with --next when the schedule does by itself. What is waited for is said on standard error. Ends with
/// exit code 12 when the time is over before: what is due, or on its way, still goes there.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The stream [default: every stream that has a depot]
    stream: Option<String>,
    /// Cut and ship at once everything that is committed and durable (the default)
    #[arg(long, conflicts_with = "next")]
    now: bool,
    /// Ship nothing earlier than the schedule: wait until its next cut, from now on, lies in every depot. Where there is
    /// nothing to cut at that instant, that is said, and the wait is over too
    #[arg(long)]
    next: bool,
    /// Longest wait [default: for ever]
    #[arg(long, value_name = "TIME")]
    timeout: Option<Span>,
}

pub(crate) fn execute(args: Args, at: &Whereabouts, quiet: bool, out: &mut Out) -> Outcome {
    let when = if args.next { ShipWhen::Next } else { ShipWhen::Now };
    let ship = Ship { stream: args.stream, when, timeout_ms: args.timeout.map(millis) };
    let zone = TimeZone::system();
    let shipped = at.connect()?.ship(ship, |waits| {
        if !quiet {
            eprint(&format!("{}\n", waits.in_words(|time| both(time, &zone))));
        }
    })?;
    for depot in shipped {
        out.show(&depot, &depot)?;
    }
    Ok(DONE)
}
