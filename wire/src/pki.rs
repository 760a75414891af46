//! A small private CA: `towline pki init` makes it, `towline pki issue` signs one certificate per node.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, date_time_ymd,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, DnsName};
use uuid::Uuid;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::{Error, Result};
use crate::tls::{CA_FILE, CERT_FILE, KEY_FILE};

/// The CA's private key in the CA's folder: it stays there, nodes never need it.
pub const CA_KEY_FILE: &str = "ca-key.pem";
/// How long a CA is valid: longer than the machines it signs for.
pub const CA_DAYS: u64 = 20 * 365;
/// How long a node's certificate is valid. A link that stops because nobody renewed in time is an outage, and the key
/// lies on the node as long as its data does.
pub const NODE_DAYS: u64 = 5 * 365;
/// Certificates begin to be valid this much earlier: clocks differ.
const SKEW: Duration = Duration::from_secs(24 * 3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Names of a certificate that was issued without an address: enough to try it out on one machine.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Makes a CA in `dir`: `ca.pem` and `ca-key.pem` (readable by its owner alone). Blocking.
///
/// Errors: `Exists` when one of the files is there; nothing is written then.
pub fn init(dir: &Path) -> Result<()> {
    let (cert_path, key_path) = (dir.join(CA_FILE), dir.join(CA_KEY_FILE));
    vacant(&[&cert_path, &key_path])?;
    let key = KeyPair::generate().map_err(|error| pki(&key_path, error))?;
    // two CAs need two names: whoever checks a certificate looks for its issuer by name first
    let mut params = params(&format!("Towline CA {}", Uuid::new_v4()), CA_DAYS);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let cert = params.self_signed(&key).map_err(|error| pki(&cert_path, error))?;
    make_dir(dir)?;
    write(&key_path, 0o600, &key.serialize_pem())?;
    write(&cert_path, 0o644, &cert.pem())
}

/// Issues node `name` a certificate that is valid for its name and `addresses` (host names and IP addresses; none:
/// loopback), and writes `ca.pem`, `cert.pem` and `key.pem` (readable by its owner alone) to `out_dir`. Blocking.
///
/// Errors: `Exists` when one of the files is there, `Name` for a name or address no certificate can have, `Pki` when
/// `ca_dir` holds no usable CA. Nothing is written then.
pub fn issue(ca_dir: &Path, name: &str, addresses: &[String], out_dir: &Path) -> Result<()> {
    let [ca_path, cert_path, key_path] = [CA_FILE, CERT_FILE, KEY_FILE].map(|file| out_dir.join(file));
    vacant(&[&ca_path, &cert_path, &key_path])?;
    let (ca_pem, ca_key_path) = (read(&ca_dir.join(CA_FILE))?, ca_dir.join(CA_KEY_FILE));
    let ca_key = KeyPair::from_pem(&read(&ca_key_path)?).map_err(|error| pki(&ca_key_path, error))?;
    pair(&ca_pem, &ca_key).map_err(|what| pki(&ca_key_path, what))?;
    let ca = Issuer::from_ca_cert_pem(&ca_pem, ca_key).map_err(|error| pki(&ca_dir.join(CA_FILE), error))?;

    let mut params = params(name, NODE_DAYS);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.subject_alt_names.push(dns(name)?);
    let loopback = LOOPBACK.map(String::from);
    for address in if addresses.is_empty() { &loopback } else { addresses } {
        let san = match address.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => dns(address)?,
        };
        if !params.subject_alt_names.contains(&san) {
            params.subject_alt_names.push(san);
        }
    }
    let key = KeyPair::generate().map_err(|error| pki(&key_path, error))?;
    let cert = params.signed_by(&key, &ca).map_err(|error| pki(&cert_path, error))?;
    make_dir(out_dir)?;
    write(&key_path, 0o600, &key.serialize_pem())?;
    write(&cert_path, 0o644, &cert.pem())?;
    write(&ca_path, 0o644, &ca_pem)
}

/// Two files that don't belong together would make certificates that nobody trusts.
fn pair(ca_pem: &str, key: &KeyPair) -> std::result::Result<(), String> {
    let der = CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|error| format!("{CA_FILE}: {error}"))?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|error| format!("{CA_FILE}: {error}"))?;
    if certificate.public_key().raw != key.subject_public_key_info() {
        return Err(format!("not the key of {CA_FILE} beside it"));
    }
    Ok(())
}

fn params(common_name: &str, days: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(SKEW);
    params.not_after = epoch + now + DAY * u32::try_from(days).unwrap_or(u32::MAX);
    params
}

fn dns(name: &str) -> Result<SanType> {
    let wrong = |what| Error::Name { name: name.to_owned(), what };
    DnsName::try_from(name).map_err(|_| wrong("only letters, digits, '-', '_' and '.' as in a host name"))?;
    let name = name.try_into().map_err(|_| wrong("only ASCII"))?;
    Ok(SanType::DnsName(name))
}

fn vacant(paths: &[&PathBuf]) -> Result<()> {
    match paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(Error::Exists { path: path.to_path_buf() }),
        None => Ok(()),
    }
}

fn make_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|error| pki(dir, format!("the folder can't be made: {error}")))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| pki(path, format!("{error}. Make a CA with towline pki init")))
}

fn write(path: &Path, mode: u32, text: &str) -> Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Error::Exists { path: path.to_owned() },
        _ => pki(path, error),
    })
}

fn pki(path: &Path, what: impl ToString) -> Error {
    Error::Pki { path: path.to_owned(), what: what.to_string() }
}
