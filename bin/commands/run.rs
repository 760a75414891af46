//! `run`: this node, as its configuration and its control files say.

use super::daemon;
use crate::exit::Outcome;
use crate::whereabouts::Whereabouts;

/// Run this node as its configuration says.
///
/// What it is for a stream at the very first start stands in the configuration; afterwards its own control file decides,
/// so a restart never undoes a promotion. `--data` overrides the configuration's folder.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {}

pub(crate) fn execute(_: Args, at: &Whereabouts, quiet: bool) -> Outcome {
    daemon::run(at.resolve()?.options(), quiet)
}
