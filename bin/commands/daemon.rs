//! What `run`, `primary` and `receiver` share: links, and running a node to its end.

use config::value::{Name, Scrub, Span};
use node::{Options, Stop};

use crate::exit::{DONE, Failure, Outcome, eprint};
use crate::links::Links;
use crate::whereabouts::Whereabouts;

/// Flags of a node that is started without a configuration.
#[derive(clap::Args, Debug)]
pub(super) struct Flags {
    /// The node's name, for a new data folder [default: the host's name]
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    #[command(flatten)]
    links: Links,
    /// A peer that says nothing for so long is dead [default: 5s]
    #[arg(long, value_name = "TIME")]
    dead_after: Option<Span>,
    /// How long a node that was told to stop may drain [default: 10s]
    #[arg(long, value_name = "TIME")]
    stop_timeout: Option<Span>,
    /// How rot is looked for in the logs: a rate, and how often [default: 20 MB/s every 1d]
    #[arg(long, value_name = "RATE[ every TIME]|off")]
    scrub: Option<Scrub>,
}

impl Flags {
    /// A node with these flags that has no streams yet.
    pub(super) fn options(&self, at: &Whereabouts, listen: Option<String>) -> Result<Options, Failure> {
        let Some(data) = &at.data else {
            return Err(Failure::usage("say where the node keeps its data: --data DIR"));
        };
        let data = std::path::absolute(data).map_err(|cause| Failure::io(data.display(), cause))?;
        let mut options = Options::new(data);
        options.name = self.name.as_ref().map(ToString::to_string);
        options.listen = listen;
        options.security = self.links.said().unwrap_or_default();
        options.dead_after = self.dead_after.map_or(options.dead_after, |span| span.duration());
        options.stop_timeout = self.stop_timeout.map_or(options.stop_timeout, |span| span.duration());
        options.scrub = self.scrub.map_or(options.scrub, Scrub::policy);
        Ok(options)
    }
}

/// Runs a node until it is told to stop. Its first lines and its last go to standard error.
pub(super) fn run(options: Options, quiet: bool) -> Outcome {
    let cannot = |cause| Failure::io("prepare to be stopped", cause);
    let stop = Stop::new().map_err(cannot)?;
    node::stop_on_signals(&stop, options.stop_timeout).map_err(cannot)?;
    let stopped = node::run(options, &stop, |ready| {
        if !quiet {
            eprint(&format!("{ready}\n"));
        }
    })?;
    if !quiet || !stopped.unknown.is_empty() || !stopped.troubles.is_empty() {
        eprint(&format!("{stopped}\n"));
    }
    Ok(DONE)
}
