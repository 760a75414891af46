//! `config`: check, show, begin.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use config::file::File;
use config::resolve::{Config, DepotPlace, Part, Security, resolve};
use serde::Serialize;

use crate::exit::{DONE, Failure, Outcome};
use crate::out::Out;
use crate::whereabouts::Whereabouts;

/// Check, show or begin a configuration.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Read the configuration as every one of its nodes; say what is wrong, with line and column
    Check {
        /// The file [default: -c, or /etc/towline/towline.ron]
        file: Option<PathBuf>,
    },
    /// Show what this node does by it
    Show,
    /// Print a commented configuration to begin with
    Init {
        /// With a depot at another site instead of a second copy next door
        #[arg(long)]
        dr: bool,
    },
}

/// What `config check` found.
#[derive(Serialize)]
struct Checked {
    file: PathBuf,
    nodes: usize,
    streams: usize,
}

pub(crate) fn execute(args: Args, at: &Whereabouts, out: &mut Out) -> Outcome {
    match args.what {
        What::Check { file } => check(file.as_deref().unwrap_or(at.config_path()), out),
        What::Show => show(&at.resolve()?, out),
        What::Init { dr: false } => init(config::samples::TWO_NODES, out),
        What::Init { dr: true } => init(config::samples::DR, out),
    }
}

fn check(path: &Path, out: &mut Out) -> Outcome {
    let file = File::load(path)?;
    for name in file.nodes.keys() {
        resolve(path, &file, name)?;
    }
    let found = Checked { file: path.to_owned(), nodes: file.nodes.len(), streams: file.streams.len() };
    out.show(
        &found,
        format_args!(
            "{}: fine; {}, {}",
            path.display(),
            counted(found.nodes, "node"),
            counted(found.streams, "stream")
        ),
    )?;
    Ok(DONE)
}

fn init(sample: &str, out: &mut Out) -> Outcome {
    out.bytes(sample.as_bytes())?;
    Ok(DONE)
}

fn show(config: &Config, out: &mut Out) -> Result<u8, Failure> {
    if out.json {
        out.json(config)?;
        return Ok(DONE);
    }
    out.line(format_args!("node {}, data in {}", config.name, config.data.display()))?;
    match &config.listen {
        Some(address) => out.line(format_args!("listens at {address}, {}", security(&config.security)))?,
        None => out.line(format_args!("listens nowhere: no other node sends it anything"))?,
    }
    for stream in &config.streams {
        let part = match stream.part {
            Part::Primary => "primary at its very first start",
            Part::Receiver => "receiver",
            Part::Depot => "keeps its batches",
        };
        out.line(format_args!("stream {}: {part}", stream.name))?;
        for peer in &stream.peers {
            out.line(format_args!(
                "  peer {} at {}: {:?}, on loss {}",
                peer.name, peer.address, peer.mode, peer.on_loss
            ))?;
        }
        for depot in &stream.depots {
            let at = match &depot.at {
                DepotPlace::Folder(folder) => folder.display().to_string(),
                DepotPlace::Node(name, address) => format!("node {name} at {address}"),
            };
            out.line(format_args!("  depot {} at {at}: {}", depot.name, depot.schedule))?;
        }
    }
    Ok(DONE)
}

fn security(security: &Security) -> String {
    match security {
        Security::Tls(dir) => format!("TLS with {}", dir.display()),
        Security::Plaintext => "unencrypted, as was said".to_owned(),
        Security::Loopback => "unencrypted, on loopback only".to_owned(),
    }
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}
