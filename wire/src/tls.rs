//! Who may talk to whom: TLS 1.3 with both sides authenticated by one private CA, or the explicit word for none.
//!
//! A folder holds three files: `ca.pem` (whom this node trusts), `cert.pem` and `key.pem` (who it is). `towline pki`
//! makes them. What is checked:
//! - either side: the other's certificate was issued by `ca.pem` and is valid now; the system's CAs don't count;
//! - the side that connects, too: the certificate is for the node name it was told to expect, or else for the host or
//!   IP address it dialled. `towline pki issue NAME --address HOST` writes both into a certificate.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore, ServerConfig, version::TLS13};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::{Error, Result};

/// The CA's certificate in a TLS folder.
pub const CA_FILE: &str = "ca.pem";
/// The node's certificate in a TLS folder.
pub const CERT_FILE: &str = "cert.pem";
/// The node's private key in a TLS folder.
pub const KEY_FILE: &str = "key.pem";

/// How connections are protected.
#[derive(Clone, Debug)]
pub enum Security {
    /// Both sides authenticated, everything encrypted.
    Tls(Tls),
    /// Neither. On loopback that is fine.
    Plaintext {
        /// The operator said `--plaintext`: off loopback too.
        anywhere: bool,
    },
}

impl Security {
    /// May this address be spoken to, or listened on, like this?
    ///
    /// Errors: `PlaintextOffLoopback`. An unspecified address (`0.0.0.0`, `::`) is not loopback.
    pub fn check(&self, address: SocketAddr) -> Result<()> {
        match self {
            Security::Plaintext { anywhere: false } if !address.ip().to_canonical().is_loopback() => {
                Err(Error::PlaintextOffLoopback { address })
            }
            _ => Ok(()),
        }
    }
}

/// What a node trusts and who it is. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
    names: Arc<[String]>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads `ca.pem`, `cert.pem` and `key.pem`. Blocking.
    ///
    /// Errors: `Pki` names the file: missing, unreadable, no PEM in it, a key of another certificate, a certificate
    /// that this CA didn't issue or that is out of date.
    pub fn from_dir(dir: &Path) -> Result<Tls> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (ca_path, cert_path, key_path) = (dir.join(CA_FILE), dir.join(CERT_FILE), dir.join(KEY_FILE));
        let mut roots = RootCertStore::empty();
        for ca in certificates(&ca_path)? {
            roots.add(ca).map_err(|error| pki(&ca_path, error))?;
        }
        let chain = certificates(&cert_path)?;
        let own = chain.first().ok_or_else(|| pki(&cert_path, "no certificate in it"))?;
        issued_by(&roots, own, &chain[1..], &provider).map_err(|error| {
            pki(&cert_path, format!("not usable with {CA_FILE} beside it ({error}). Make both with towline pki"))
        })?;
        let names = names(own).into();
        let key = PrivateKeyDer::from_pem_file(&key_path).map_err(|error| pki(&key_path, pem(error)))?;
        let roots = Arc::new(roots);

        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let verifier = verifier.build().map_err(|error| pki(&ca_path, error))?;
        let server = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13]);
        let mut server = server
            .map_err(|error| pki(&ca_path, error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|error| pki(&key_path, format!("not the key of {CERT_FILE} ({error})")))?;
        let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
        let mut client = client
            .map_err(|error| pki(&ca_path, error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| pki(&key_path, format!("not the key of {CERT_FILE} ({error})")))?;
        // links live for days: a resumed session saves nothing and would skip a certificate that has run out
        server.send_tls13_tickets = 0;
        client.resumption = Resumption::disabled();
        Ok(Tls { client: Arc::new(client), server: Arc::new(server), names })
    }

    /// A node with this certificate that trusts whom `other` trusts.
    #[cfg(test)]
    pub(crate) fn with_trust_of(&self, other: &Tls) -> Tls {
        let mut client = ClientConfig::clone(&other.client);
        client.client_auth_cert_resolver = self.client.client_auth_cert_resolver.clone();
        Tls { client: Arc::new(client), ..self.clone() }
    }

    /// The names in this node's own certificate: the common name first.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

/// The names in a certificate: common name, then DNS names and IP addresses, each once.
pub(crate) fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok().map(str::to_owned));
    let mut names: Vec<String> = common.collect();
    let alternative = certificate.subject_alternative_name().ok().flatten();
    for name in alternative.iter().flat_map(|names| &names.value.general_names) {
        let name = match name {
            GeneralName::DNSName(name) => (*name).to_owned(),
            GeneralName::IPAddress(bytes) => match ip(bytes) {
                Some(ip) => ip.to_string(),
                None => continue,
            },
            _ => continue,
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn ip(bytes: &[u8]) -> Option<std::net::IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(Into::into);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(Into::into)).ok()
}

/// A TLS error in words an operator can act on.
pub(crate) fn explain(error: &rustls::Error) -> Error {
    let text = match error {
        // a CA of the same name, another key: its signature doesn't fit
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => format!(
            "the other side's certificate was not issued by this node's {CA_FILE}: it is a stranger. Issue both from one CA (towline pki issue)"
        ),
        rustls::Error::InvalidCertificate(
            reason @ (CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }),
        ) => format!(
            "the other side is not who was dialled: {reason}. Dial it by a name in its certificate, name the node that is expected there, or issue it a certificate with that address"
        ),
        rustls::Error::InvalidCertificate(reason) => {
            format!("the other side's certificate is not valid: {reason}. Issue it a new one (towline pki issue)")
        }
        rustls::Error::NoCertificatesPresented => {
            "the other side showed no certificate. Start it with --tls DIR, issued by the same CA".to_owned()
        }
        rustls::Error::AlertReceived(
            alert @ (AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied),
        ) => format!(
            "the other side does not accept this node's certificate ({alert:?}). Issue both from one CA (towline pki issue), and look there for the reason"
        ),
        rustls::Error::InvalidMessage(_) => {
            let hint = "it does not speak TLS. Give it --tls DIR too, or check the address and the port".to_owned();
            return Error::NotTowline { hint };
        }
        other => format!("TLS with the other side failed: {other}"),
    };
    Error::Untrusted(text)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(|found| found.collect::<std::result::Result<Vec<_>, _>>());
    let found = read.map_err(|error| pki(path, pem(error)))?;
    if found.is_empty() {
        return Err(pki(path, "no certificate in it"));
    }
    Ok(found)
}

/// Checks what the other side will check, so that a mixed-up folder is found at home.
fn issued_by(
    roots: &RootCertStore,
    own: &CertificateDer<'_>,
    between: &[CertificateDer<'_>],
    provider: &CryptoProvider,
) -> std::result::Result<(), rustls::Error> {
    let own = ParsedCertificate::try_from(own)?;
    let algorithms = provider.signature_verification_algorithms.all;
    rustls::client::verify_server_cert_signed_by_trust_anchor(&own, roots, between, UnixTime::now(), algorithms)
}

fn pem(error: rustls_pki_types::pem::Error) -> String {
    match error {
        rustls_pki_types::pem::Error::Io(error) => format!("{error}. towline pki makes this file"),
        rustls_pki_types::pem::Error::NoItemsFound => "nothing of that kind in it".to_owned(),
        other => format!("not a PEM file: {other}"),
    }
}

fn pki(path: &Path, what: impl fmt::Display) -> Error {
    Error::Pki { path: PathBuf::from(path), what: what.to_string() }
}
