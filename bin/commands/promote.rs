//! `promote`: this node becomes the primary.

use node::control::Promote;

use crate::exit::{DONE, Outcome};
use crate::out::Out;
use crate::whereabouts::Whereabouts;

/// Make this node the primary of a stream.
///
/// Raises the term: the old primary acknowledges nothing any more once it hears of it. Everything that this node has
/// received is kept; an earlier point is a `restore`. Says what may be lost.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The stream
    stream: String,
    /// Go on although something acknowledged may be missing here, or nodes that must be asked can't be
    #[arg(long)]
    accept_loss: bool,
    /// Acknowledge nothing before the required peers are connected, instead of going on alone
    #[arg(long)]
    wait_for_peer: bool,
}

pub(crate) fn execute(args: Args, at: &Whereabouts, out: &mut Out) -> Outcome {
    let Args { stream, accept_loss, wait_for_peer } = args;
    let promoted = at.connect()?.promote(Promote { stream, accept_loss, wait_for_peer })?;
    if out.json {
        out.json(&promoted)?;
        return Ok(DONE);
    }
    let alone = if promoted.alone { "; it goes on alone until its peers are back" } else { "" };
    out.line(format_args!(
        "{} is the primary of term {}{alone}. Kept everything up to LSN {}; known to be committed: LSN {}",
        promoted.stream, promoted.term, promoted.end, promoted.committed
    ))?;
    for line in &promoted.loss {
        out.line(format_args!("  {line}"))?;
    }
    Ok(DONE)
}
