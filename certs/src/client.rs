//! TLS of the dialling side.
//!
//! Owns whom to trust and how a refusal is put into words. There is no switch that turns verification off: a token
//! is sent only after the server has proved its name.

use std::{
    io,
    path::Path,
    time::{Duration, SystemTime},
};

use rustls::{
    CertificateError, ClientConfig, Error, RootCertStore,
    pki_types::{CertificateDer, UnixTime},
};
use thiserror::Error as ThisError;

use crate::{
    ALPN_HTTP11, SUITES_EXIST, VERSIONS,
    pem::{self, PemError, Problem},
    provider,
};

/// Nobody to trust. Displays as one line that says what to do.
#[derive(Debug, ThisError)]
pub enum ClientTlsError {
    /// The file with further authorities.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The system knows no authority, and no file was given.
    #[error("this system has no trusted root certificates{}; install ca-certificates or name a CA file", because(.0))]
    NoRoots(Vec<rustls_native_certs::Error>),
}

/// A configuration that trusts the system's authorities and, in addition, those in the file `extra_ca`.
///
/// ALPN offers HTTP/1.1 alone: a WebSocket handshake (RFC 6455) is an HTTP/1.1 upgrade. The system's authorities are
/// those of `SSL_CERT_FILE` and `SSL_CERT_DIR` where these are set. Takes some milliseconds; make one and clone it.
pub fn config(extra_ca: Option<&Path>) -> Result<ClientConfig, ClientTlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = extra_ca {
        for certificate in pem::certificates(path)? {
            roots.add(certificate).map_err(|error| PemError::new(path, Problem::BadCertificate(error)))?;
        }
    }
    let native = rustls_native_certs::load_native_certs();
    // System stores hold oddities that webpki rejects; one of them is no reason to fail.
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        return Err(ClientTlsError::NoRoots(native.errors));
    }
    Ok(config_with(roots))
}

fn config_with(roots: RootCertStore) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .expect(SUITES_EXIST)
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_HTTP11.to_vec()];
    config
}

/// When a certificate ends. The verifier names the date when it is asked about a day long after it.
#[must_use]
pub fn not_after(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    const YEAR_9000: Duration = Duration::from_secs(221_845_392_000);
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let day = UnixTime::since_unix_epoch(YEAR_9000);
    let verified = certificate.verify_for_usage(&[], &[], &[], day, webpki::KeyUsage::server_auth(), None, None);
    match verified.err()? {
        webpki::Error::CertExpired { not_after, .. } => {
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(not_after.as_secs()))
        }
        _ => None,
    }
}

/// The innermost reason of an error, which is what a person can act on: "connection refused" rather than "client error".
/// Knows TLS where plain HTTP was expected, and the reverse.
#[must_use]
pub fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut reason = error;
    loop {
        if let Some(tls) = reason.downcast_ref::<io::Error>().and_then(explain) {
            return tls;
        }
        match reason.source() {
            Some(deeper) => reason = deeper,
            None => break,
        }
    }
    match reason.to_string() {
        // hyper's words for what begins with anything but HTTP, such as the alert of a server that wants TLS.
        text if text == "invalid HTTP version parsed" => {
            "it does not speak plain HTTP on this port, but HTTPS (TLS) or something else; check the port and the scheme"
                .into()
        }
        text => text,
    }
}

/// Why a TLS handshake failed, in one line that says what to do. `None` if the error is not one of TLS.
#[must_use]
pub fn explain(error: &io::Error) -> Option<String> {
    explain_with(error, None)
}

/// The same where [`config`] was given the file `extra_ca`.
#[must_use]
pub fn explain_with(error: &io::Error, extra_ca: Option<&Path>) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidCertificate(problem) => explain_certificate(problem, extra_ca),
        // A plain HTTP server answers a ClientHello with text.
        Error::InvalidMessage(_) => "the server does not speak TLS on this port; is it http:// or another port?".into(),
        error => format!("the TLS handshake failed: {error}"),
    })
}

fn explain_certificate(problem: &CertificateError, extra_ca: Option<&Path>) -> String {
    use CertificateError as E;
    match problem {
        E::UnknownIssuer | E::BadSignature => {
            let signed = "the server's certificate is signed by an authority that is not trusted here";
            match extra_ca {
                None => format!("{signed}; if it is your own, add --ca ca.pem, the file that was made with it"),
                Some(path) => format!(
                    "{signed}, and not by that of {}; give the CA's own certificate (ca.pem), not the server's",
                    path.display()
                ),
            }
        }
        E::NotValidForName => "the server's certificate is for another name; use the name that is in it".into(),
        E::NotValidForNameContext { expected, presented } => format!(
            "the server's certificate is not for {} but for {}; use a name that is in it",
            expected.to_str(),
            presented.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", ")
        ),
        E::Expired | E::ExpiredContext { .. } => {
            "the server's certificate has expired; renew it (or correct this computer's clock)".into()
        }
        E::NotValidYet | E::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet; correct this computer's clock".into()
        }
        problem => format!("the server's certificate is not acceptable: {problem}"),
    }
}

/// A name as people write it; the verifier has `DnsName("a.example")` and `IpAddress(192.0.2.1)`.
fn plain(name: &str) -> &str {
    let within = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    within.unwrap_or(name).trim_matches('"')
}

/// The system's own words for why it has no authorities.
fn because(errors: &[rustls_native_certs::Error]) -> String {
    errors.first().map(|error| format!(" ({error})")).unwrap_or_default()
}
