//! The `towline` command: text in, library, report, exit code.
//!
//! ```text
//!  arguments -> commands::X -> node::control (a running node) | journal, archive (files) -> Out, exit::Failure
//! ```
//! One file per command below `commands`; `exit` has the one table of exit codes.

mod commands;
mod copies;
mod demo;
mod exit;
mod limits;
mod links;
mod logs;
mod offline;
mod out;
mod place;
mod point;
mod target;
mod whereabouts;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser};

use crate::commands::Command;
use crate::out::Out;
use crate::whereabouts::Whereabouts;

/// Keeps a second copy of what you write, at exactly the strength you choose.
///
/// Writes enter a journal, stream to other nodes that acknowledge them, are packed and shipped to depots on a schedule,
/// and are restored to any instant. Begin with `towline demo`.
#[derive(Debug, Parser)]
#[command(name = "towline", version, after_help = exit::CODES, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    whereabouts: Whereabouts,
    /// Print results as JSON lines; each carries `schema`
    #[arg(long, global = true)]
    json: bool,
    /// Say less on standard error: errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more on standard error; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let matches = match Cli::command().try_get_matches() {
        Ok(matches) => matches,
        Err(fault) => return usage(&fault),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(fault) => return usage(&fault),
    };
    logs::init(cli.quiet, cli.verbose);
    limits::raise();
    let mut out = Out::new(cli.json);
    let outcome = commands::execute(cli.command, &cli.whereabouts, cli.quiet, &mut out);
    // what was printed before a failure is part of the answer
    let flushed = out.flush();
    match outcome.and_then(|code| flushed.map(|()| code)) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(),
    }
}

/// Help and version are results; everything else that the grammar doesn't take is wrong usage.
fn usage(fault: &clap::Error) -> ExitCode {
    let printed = fault.print();
    match fault.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => match printed {
            Ok(()) => ExitCode::from(exit::DONE),
            Err(cause) => exit::Failure::io("write to standard output", cause).report(),
        },
        _ => ExitCode::from(exit::USAGE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }
}
