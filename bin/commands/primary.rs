//! `primary`: a node that writes a stream.

use std::collections::HashSet;

use config::file::{AtBudget, Mode, OnLoss};
use config::value::{Address, Name, RecordSize, Schedule, SegmentSize, Size, Span};
use node::{DepotAt, DepotOptions, FirstRole, PeerOptions, StreamOptions};

use super::daemon::{self, Flags};
use crate::exit::{Failure, Outcome};
use crate::target::{At, Target, parse_mode, parse_on_loss};
use crate::whereabouts::Whereabouts;

/// Run a node that writes a stream, by flags alone.
///
/// Makes the stream at the very first start. Afterwards what the node is stays in its data folder: a primary that was
/// fenced stays fenced until `promote`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The stream
    #[arg(long, value_name = "NAME")]
    stream: Name,
    /// Where it goes; may be repeated. A peer: HOST:PORT[,mode=sync|semi-sync|async][,on-loss=block|fail:10s|alone:5s]
    /// [,name=NAME]. A depot: a folder, which contains a slash, or HOST:PORT,depot; then [,every=15m] or
    /// [,schedule=…], the latter last. A name is what a peer's certificate is issued for. An async peer or a depot
    /// takes [,at-budget=block|detach]: whether writes stop at the budget because of what it lacks, or nothing is
    /// kept for it any more; unsaid, it is detached unless it is the last one
    #[arg(long, value_name = "DESTINATION")]
    to: Vec<Target>,
    /// What is asked of every peer that says nothing itself
    #[arg(long, default_value = "sync", value_name = "sync|semi-sync|async", value_parser = parse_mode)]
    mode: Mode,
    /// When a required peer is lost: block waits for it, fail:10s answers with an error, alone:5s goes on without it
    #[arg(long, default_value = "block", value_name = "block|fail:TIME|alone:TIME", value_parser = parse_on_loss)]
    on_loss: OnLoss,
    /// When batches are cut for every depot that says nothing itself: "every 15m", "0 2 * * * Europe/Paris", "64 MiB"
    #[arg(long, value_name = "SCHEDULE")]
    schedule: Option<Schedule>,
    /// Where to listen, so that it can receive after a promotion elsewhere
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<Address>,
    /// Most bytes of log on disk [default: no bound]
    #[arg(long, value_name = "SIZE")]
    budget: Option<Size>,
    /// At least so much log is kept though no destination needs it [default: half of the budget, without --keep-for]
    #[arg(long, value_name = "SIZE")]
    keep: Option<Size>,
    /// Younger log is kept though no destination needs it, as far as the budget goes
    #[arg(long, value_name = "TIME")]
    keep_for: Option<Span>,
    #[arg(long, value_name = "SIZE", help = segment_help())]
    segment: Option<SegmentSize>,
    #[arg(long, value_name = "SIZE", help = record_max_help())]
    record_max: Option<RecordSize>,
    #[command(flatten)]
    flags: Flags,
}

pub(crate) fn execute(args: Args, at: &Whereabouts, quiet: bool) -> Outcome {
    let mut options = args.flags.options(at, args.listen.as_ref().map(ToString::to_string))?;
    options.streams.push(args.stream()?);
    daemon::run(options, quiet)
}

impl Args {
    fn stream(&self) -> Result<StreamOptions, Failure> {
        let mut stream = StreamOptions::new(self.stream.to_string(), FirstRole::Primary);
        let mut names = HashSet::new();
        for target in &self.to {
            let name = match (&target.name, &target.at) {
                (Some(name), _) => name.to_string(),
                (None, At::Peer(address) | At::RemoteDepot(address)) => address.to_string(),
                (None, At::Folder(folder)) => folder.display().to_string(),
            };
            if !names.insert(name.clone()) {
                return Err(Failure::usage(format_args!(
                    "two destinations are called {name}; say name= for one of them"
                )));
            }
            match &target.at {
                At::Peer(address) => stream.peers.push(self.peer(target, name, address)?),
                At::RemoteDepot(address) => {
                    let at = DepotAt::Node { address: address.to_string(), tls_name: tls_name(target) };
                    stream.depots.push(self.depot(target, name, at)?);
                }
                At::Folder(folder) => {
                    let folder = std::path::absolute(folder).map_err(|cause| Failure::io(folder.display(), cause))?;
                    stream.depots.push(self.depot(target, name, DepotAt::Folder(folder))?);
                }
            }
        }
        if self.schedule.is_some() && stream.depots.is_empty() {
            let failure = Failure::usage("--schedule says when batches are cut, but no --to is a depot");
            return Err(failure.hint("a folder contains a slash: --to ./depot"));
        }
        stream.budget_bytes = self.budget.map(Size::bytes);
        stream.keep_bytes = self.keep.map(Size::bytes);
        stream.keep_for = self.keep_for.map(Span::duration);
        stream.segment_bytes = self.segment.map(SegmentSize::bytes);
        stream.record_bytes_max = self.record_max.map(RecordSize::bytes);
        Ok(stream)
    }

    fn peer(&self, target: &Target, name: String, address: &Address) -> Result<PeerOptions, Failure> {
        let mode = target.mode.unwrap_or(self.mode);
        if mode != Mode::Async && target.at_budget == Some(AtBudget::Detach) {
            let failure = Failure::usage(format_args!("writes wait for {name}, so it can't be detached at the budget"));
            return Err(failure.hint("on-loss= decides what happens without it; at-budget=detach needs mode=async"));
        }
        Ok(PeerOptions {
            name,
            address: address.to_string(),
            tls_name: tls_name(target),
            mode: mode.into(),
            on_loss: target.on_loss.unwrap_or(self.on_loss).into(),
            at_budget: target.at_budget.map(Into::into),
        })
    }

    fn depot(&self, target: &Target, name: String, at: DepotAt) -> Result<DepotOptions, Failure> {
        let schedule = target.schedule.as_ref().or(self.schedule.as_ref()).ok_or_else(|| {
            Failure::usage(format_args!("when are batches cut for {name}? Say every=15m behind it, or --schedule"))
        })?;
        let (schedule, at_budget) = (schedule.to_string(), target.at_budget.map(Into::into));
        Ok(DepotOptions { name, at, schedule, at_budget })
    }
}

fn segment_help() -> String {
    let default = journal::BODY_BYTES_DEFAULT >> 20;
    format!("Body of a segment, fixed when the stream is made [default: {default} MiB]")
}

fn record_max_help() -> String {
    format!("Largest record [default: {} MiB]", journal::RECORD_BYTES_MAX_DEFAULT >> 20)
}

/// A name that was given is what the certificate must be for; else the host that is dialled.
fn tls_name(target: &Target) -> Option<String> {
    target.name.as_ref().map(ToString::to_string)
}
