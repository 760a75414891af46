//! How links to other nodes are protected, as the command line says it.

use std::path::PathBuf;

use node::Security;

/// The words for it.
#[derive(clap::Args, Debug)]
pub(crate) struct Links {
    /// A folder with ca.pem, cert.pem and key.pem, made by `towline pki issue`
    #[arg(long, value_name = "DIR")]
    tls: Option<PathBuf>,
    /// The explicit word for unencrypted links off loopback
    #[arg(long, conflicts_with = "tls")]
    plaintext: bool,
}

impl Links {
    /// What was said, if anything was.
    pub(crate) fn said(&self) -> Option<Security> {
        match (&self.tls, self.plaintext) {
            (Some(dir), _) => Some(Security::Tls(dir.clone())),
            (None, true) => Some(Security::Plaintext),
            (None, false) => None,
        }
    }
}
