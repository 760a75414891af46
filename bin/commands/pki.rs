//! `pki`: the certificates that nodes know each other by.

use std::path::PathBuf;

use clap::Subcommand;
use config::value::Name;
use serde::Serialize;

use crate::exit::{DONE, Outcome};
use crate::out::Out;

/// Make certificates for nodes.
///
/// Once: `towline pki init DIR` makes a small CA of your own; its key stays there. For each node: `towline pki issue NAME
/// --address HOST --ca DIR --out NODE-DIR`, and the folder NODE-DIR goes to that node, as its --tls DIR. Nothing that
/// exists is overwritten.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a CA: ca.pem, and ca-key.pem that never leaves this folder
    Init {
        /// The folder for it
        dir: PathBuf,
    },
    /// Make ca.pem, cert.pem and key.pem for one node
    Issue {
        /// The node's name: the others may know it by this name, wherever it is
        name: Name,
        /// A host name or IP address that others dial; may be repeated [default: loopback]
        #[arg(long, value_name = "HOST")]
        address: Vec<String>,
        /// The folder of the CA
        #[arg(long, value_name = "DIR")]
        ca: PathBuf,
        /// The folder for the node's files [default: one of the node's name]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// What was made.
#[derive(Serialize)]
struct Made {
    dir: PathBuf,
    files: &'static [&'static str],
}

pub(crate) fn execute(args: Args, out: &mut Out) -> Outcome {
    match args.what {
        What::Init { dir } => {
            wire::pki::init(&dir)?;
            let text = format!("made a CA in {}; now: towline pki issue NAME --address HOST --ca {0}", dir.display());
            out.show(&Made { dir, files: &["ca.pem", "ca-key.pem"] }, text)?;
        }
        What::Issue { name, address, ca, out: dir } => {
            let dir = dir.unwrap_or_else(|| PathBuf::from(name.as_str()));
            wire::pki::issue(&ca, name.as_str(), &address, &dir)?;
            let text = format!("made {}; bring it to {name} and start that node with --tls on it", dir.display());
            out.show(&Made { dir, files: &["ca.pem", "cert.pem", "key.pem"] }, text)?;
        }
    }
    Ok(DONE)
}
