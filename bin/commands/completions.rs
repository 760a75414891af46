//! `completions`: for shells.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::exit::{DONE, Outcome};
use crate::out::Out;

/// Print completions for a shell.
///
/// For example: towline completions bash > /usr/share/bash-completion/completions/towline
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn execute(args: Args, out: &mut Out) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Cli::command(), "towline", &mut script);
    out.bytes(&script)?;
    Ok(DONE)
}
