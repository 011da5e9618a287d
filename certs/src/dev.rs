//! A certificate authority for development: made, used once and thrown away.
//!
//! Owns what goes into the two certificates and how the files are written. The authority's private key is never
//! written, so a computer that trusts `ca.pem` trusts this one server and nothing that could be made later.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::DnsName;
use thiserror::Error;
use time::{Duration, OffsetDateTime};

/// Validity of the authority: ten years.
const CA_DAYS: i64 = 3650;

/// Validity of the certificate. Apple's clients refuse more than 825 days.
const LEAF_DAYS: i64 = 824;

/// The names to use when a person gives none: this computer.
pub const DEFAULT_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// What to do with files that are already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Leave them and report [`DevError::Exists`].
    Keep,
    /// Replace all three.
    Overwrite,
}

/// The files that were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// `ca.pem`: what clients must trust.
    pub ca: PathBuf,
    /// `server.pem`: the server's certificate.
    pub cert: PathBuf,
    /// `server-key.pem`: the server's key, readable by its owner alone.
    pub key: PathBuf,
}

/// Why nothing, or not everything, was written. Displays as one line.
#[derive(Debug, Error)]
pub enum DevError {
    /// No name to issue for.
    #[error("a certificate needs at least one host name or IP address")]
    NoHosts,
    /// Not a name that can stand in a certificate.
    #[error("{0:?} is not a host name or IP address; give the name alone, without scheme, port or path, IDNs as xn--")]
    BadHost(String),
    /// A file is there and was to be kept.
    #[error("{} exists already; choose another directory or ask to overwrite", .0.display())]
    Exists(PathBuf),
    /// The disk.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The cryptography.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// Makes an authority and a certificate for `hosts` (DNS names, `*.` wildcards, IP addresses) and writes them to
/// `dir`, which is created when missing.
pub fn generate(dir: &Path, hosts: &[impl AsRef<str>], existing: Existing) -> Result<Written, DevError> {
    let names = hosts.iter().map(|host| subject_alt_name(host.as_ref())).collect::<Result<Vec<_>, _>>()?;
    if names.is_empty() {
        return Err(DevError::NoHosts);
    }
    let files = Written { ca: dir.join("ca.pem"), cert: dir.join("server.pem"), key: dir.join("server-key.pem") };
    if existing == Existing::Keep
        && let Some(path) = [&files.ca, &files.cert, &files.key].into_iter().find(|path| path.exists())
    {
        return Err(DevError::Exists(path.clone()));
    }

    let made = make(names, now())?;
    fs::create_dir_all(dir).map_err(|source| DevError::Write { path: dir.to_owned(), source })?;
    write(&files.ca, &made.ca, Access::Everyone)?;
    write(&files.cert, &made.cert, Access::Everyone)?;
    write(&files.key, &made.key, Access::Owner)?;
    Ok(files)
}

/// Three PEM texts: the authority, the certificate, its key.
pub(crate) struct Made {
    pub(crate) ca: String,
    pub(crate) cert: String,
    pub(crate) key: String,
}

pub(crate) fn make(names: Vec<SanType>, now: OffsetDateTime) -> Result<Made, rcgen::Error> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::default();
    // The name differs from run to run: OpenSSL looks authorities up by name, and several may be installed.
    let id = ca.key_identifier(&ca_key).iter().take(4).fold(0, |id, byte| id << 8 | u32::from(*byte));
    ca.distinguished_name.push(DnType::CommonName, format!("tunneld development CA {id:08x}"));
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut ca, now, CA_DAYS);
    let ca_pem = ca.self_signed(&ca_key)?.pem();

    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name.push(DnType::CommonName, "tunneld development certificate");
    leaf.subject_alt_names = names;
    // "Explicit" writes the basic constraints and with them the subject key identifier.
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Python 3.13 and newer insist on it.
    leaf.use_authority_key_identifier_extension = true;
    valid_for(&mut leaf, now, LEAF_DAYS);
    let cert = leaf.signed_by(&key, &Issuer::from_params(&ca, &ca_key))?.pem();

    Ok(Made { ca: ca_pem, cert, key: key.serialize_pem() })
}

/// Starts a day early, for computers whose clock is behind.
fn valid_for(params: &mut CertificateParams, now: OffsetDateTime, days: i64) {
    params.not_before = now - Duration::days(1);
    params.not_after = params.not_before + Duration::days(days);
}

fn subject_alt_name(host: &str) -> Result<SanType, DevError> {
    let bad = || DevError::BadHost(host.to_owned());
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(ip));
    }
    DnsName::try_from(host.strip_prefix("*.").unwrap_or(host)).map_err(|_| bad())?;
    host.try_into().map(SanType::DnsName).map_err(|_| bad())
}

/// Whole seconds, which is all that a certificate can say.
fn now() -> OffsetDateTime {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    OffsetDateTime::UNIX_EPOCH + Duration::seconds(since_1970.as_secs().cast_signed())
}

/// Who may read a file.
#[derive(Clone, Copy)]
enum Access {
    Everyone,
    Owner,
}

/// Writes a new file. An old one is removed first: writing into it would keep its permissions, or follow a link.
fn write(path: &Path, text: &str, access: Access) -> Result<(), DevError> {
    let attempt = || {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        options(access).open(path)?.write_all(text.as_bytes())
    };
    attempt().map_err(|source| DevError::Write { path: path.to_owned(), source })
}

fn options(access: Access) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(
        &mut options,
        match access {
            Access::Everyone => 0o644,
            Access::Owner => 0o600,
        },
    );
    #[cfg(not(unix))]
    let _ = access; // a new file inherits the directory's access list
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_kept_unless_told_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("deep/certs");
        let files = generate(&out, &DEFAULT_HOSTS, Existing::Keep).unwrap();
        let first = fs::read(&files.ca).unwrap();

        let error = generate(&out, &DEFAULT_HOSTS, Existing::Keep).unwrap_err();
        assert!(matches!(error, DevError::Exists(path) if path == files.ca));
        assert_eq!(fs::read(&files.ca).unwrap(), first);

        generate(&out, &DEFAULT_HOSTS, Existing::Overwrite).unwrap();
        assert_ne!(fs::read(&files.ca).unwrap(), first);
    }

    #[cfg(unix)]
    #[test]
    fn the_key_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("server-key.pem");
        fs::write(&key, "").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        generate(dir.path(), &DEFAULT_HOSTS, Existing::Overwrite).unwrap();
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_authority_keeps_no_key() {
        let dir = tempfile::tempdir().unwrap();
        generate(dir.path(), &DEFAULT_HOSTS, Existing::Keep).unwrap();
        let keys = fs::read_dir(dir.path())
            .unwrap()
            .filter(|entry| fs::read_to_string(entry.as_ref().unwrap().path()).unwrap().contains("PRIVATE KEY"))
            .count();
        assert_eq!(keys, 1);
    }

    #[test]
    fn what_is_no_name_is_refused_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["", "https://example.org", "example.org:8443", "a b", "caf\u{e9}.fr", "*.*.org", "x/y"] {
            let error = generate(dir.path(), &[bad], Existing::Keep).unwrap_err();
            assert!(matches!(error, DevError::BadHost(_)), "{bad}");
        }
        let none: [&str; 0] = [];
        assert!(matches!(generate(dir.path(), &none, Existing::Keep), Err(DevError::NoHosts)));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = generate(&file.join("certs"), &DEFAULT_HOSTS, Existing::Keep).unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("file/certs"), "{error}");
    }
}
