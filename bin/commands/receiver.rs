//! `receiver`: a node that keeps what others write.

use config::value::Address;

use super::daemon::{self, Flags};
use crate::exit::Outcome;
use crate::whereabouts::Whereabouts;

/// Run a node that receives, by flags alone.
///
/// Takes the streams of primaries that name it with `--to`, and keeps the batches of those that name it as a depot.
/// What it is for a stream stays in its data folder: after a promotion the same command runs the primary that it became.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Where to listen; port 0 takes a free one, and the first lines say which
    #[arg(long, value_name = "HOST:PORT")]
    listen: Address,
    #[command(flatten)]
    flags: Flags,
}

pub(crate) fn execute(args: Args, at: &Whereabouts, quiet: bool) -> Outcome {
    daemon::run(args.flags.options(at, Some(args.listen.to_string()))?, quiet)
}
