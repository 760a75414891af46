//! `status`: how a node and its streams are.

use node::control::StatusOf;

use crate::exit::{DATA, DEGRADED, DONE, Outcome};
use crate::out::Out;
use crate::whereabouts::Whereabouts;

/// Show how a node and its streams are, and what to do where something is wrong.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// One stream [default: all of them]
    stream: Option<String>,
    /// End with 4 when damage was found in a log, with 5 when a stream waits, goes on alone, has a
    /// detached destination, or is worse
    #[arg(long)]
    exit_code: bool,
}

pub(crate) fn execute(args: Args, at: &Whereabouts, out: &mut Out) -> Outcome {
    let status = at.connect()?.status(StatusOf { stream: args.stream })?;
    match out.json {
        // it carries its own `schema`
        true => out.json_line(&status)?,
        false => out.bytes(status.to_string().as_bytes())?,
    }
    Ok(match args.exit_code {
        true if status.damaged() => DATA,
        true if status.degraded() => DEGRADED,
        _ => DONE,
    })
}
