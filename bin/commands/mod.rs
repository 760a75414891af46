//! One file per command: its arguments, and what it does with them.

mod append;
mod check;
mod completions;
mod config;
mod daemon;
mod depot;
mod journal;
mod man;
mod mark;
mod pki;
mod primary;
mod promote;
mod rebuild;
mod receiver;
mod repair;
mod restore;
mod run;
mod ship;
mod status;
mod stop;
mod tail;
mod verify;
mod wait;

use ::config::value::Span;
use ::journal::Kind;
use clap::Subcommand;
use node::control::Level;

use crate::demo;
use crate::exit::Outcome;
use crate::out::Out;
use crate::whereabouts::Whereabouts;

/// Every command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole line at work on this machine: two copies, kill -9, a depot, restores; a checker judges
    Demo(demo::Args),
    /// Run this node as its configuration says
    Run(run::Args),
    /// Run a node that writes a stream, by flags alone
    Primary(Box<primary::Args>),
    /// Run a node that receives, by flags alone
    Receiver(receiver::Args),
    /// Append records to a stream through its running node
    Append(append::Args),
    /// Print records of a stream, from any point on
    Tail(tail::Args),
    /// Show how a node and its streams are, and what to do where something is wrong
    Status(status::Args),
    /// Wait until a stream is connected, in sync, durable or shipped
    Wait(wait::Args),
    /// Write a named restore point into a stream
    Mark(mark::Args),
    /// Ship to the depots, now or when the schedule does
    Ship(ship::Args),
    /// Make this node the primary of a stream
    Promote(promote::Args),
    /// End a running node; it drains before
    Stop(stop::Args),
    /// Give back the records of a stream, as of any point
    Restore(restore::Args),
    /// Read everything in a folder and say whether it is whole
    Verify(verify::Args),
    /// Look at a journal: its segments, what it says of itself, its entries; make a lost control file anew
    Journal(journal::Args),
    /// Look at a depot: what lies in it, and whether it is whole
    Depot(depot::Args),
    /// Make certificates for nodes
    Pki(pki::Args),
    /// Check, show or begin a configuration
    Config(config::Args),
    /// Print completions for a shell
    Completions(completions::Args),
    /// Print the manual page, or write all of them to a folder
    Man(man::Args),
}

/// Does what was asked.
pub(crate) fn execute(command: Command, at: &Whereabouts, quiet: bool, out: &mut Out) -> Outcome {
    match command {
        Command::Demo(args) => demo::execute(&args, out),
        Command::Run(args) => run::execute(args, at, quiet),
        Command::Primary(args) => primary::execute(*args, at, quiet),
        Command::Receiver(args) => receiver::execute(args, at, quiet),
        Command::Append(args) => append::execute(args, at, out),
        Command::Tail(args) => tail::execute(args, at, out),
        Command::Status(args) => status::execute(args, at, out),
        Command::Wait(args) => wait::execute(args, at, out),
        Command::Mark(args) => mark::execute(args, at, out),
        Command::Ship(args) => ship::execute(args, at, quiet, out),
        Command::Promote(args) => promote::execute(args, at, out),
        Command::Stop(args) => stop::execute(args, at, out),
        Command::Restore(args) => restore::execute(args, out),
        Command::Verify(args) => verify::execute(args, at, out),
        Command::Journal(args) => journal::execute(args, out),
        Command::Depot(args) => depot::execute(args, out),
        Command::Pki(args) => pki::execute(args, out),
        Command::Config(args) => config::execute(args, at, out),
        Command::Completions(args) => completions::execute(args, out),
        Command::Man(args) => man::execute(args, out),
    }
}

/// The volume of a stream: it has one, of records.
const RECORDS_VOLUME: u16 = 0;

/// The word for what an entry is.
fn kind_name(kind: Option<Kind>) -> &'static str {
    match kind {
        Some(Kind::Pad) => "pad",
        Some(Kind::Epoch) => "epoch",
        Some(Kind::Data) => "data",
        Some(Kind::Mark) => "mark",
        Some(Kind::Clock) => "clock",
        Some(Kind::Alone) => "alone",
        Some(Kind::Detached) => "detached",
        None => "other",
    }
}

/// Reads a level for `--wait`.
fn level(text: &str) -> Result<Level, String> {
    Level::from_name(text).ok_or_else(|| "write written, durable, received, peer-durable or committed".to_owned())
}

/// A length of time as requests carry it.
fn millis(span: Span) -> u64 {
    u64::try_from(span.duration().as_millis()).unwrap_or(u64::MAX)
}
