//! TLS of the public side.
//!
//! Owns the certificate that is presented, and its replacement while the server runs. Knows no sockets and no HTTP.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    Error, InconsistentKeys, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use thiserror::Error as ThisError;

use crate::{
    ALPN_HTTP2, ALPN_HTTP11, SUITES_EXIST, VERSIONS,
    about::About,
    pem::{self, PemError, Problem},
    provider,
};

/// A certificate and key that cannot be served. Displays as one line that names the file and what to do.
#[derive(Debug, ThisError)]
pub enum ServerCertsError {
    /// The certificate file.
    #[error(transparent)]
    Cert(PemError),
    /// The key file.
    #[error(transparent)]
    Key(PemError),
    /// The chain is there, but the server's own certificate is not its first.
    #[error("{} has its certificates in the wrong order; the server's own must come first, then its issuers", .0.display())]
    WrongOrder(PathBuf),
    /// Two good files that do not belong together.
    #[error(
        "the key in {} does not belong to the certificate in {}; give the pair that was made together",
        key.display(),
        cert.display()
    )]
    Mismatch {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
    },
}

/// What [`ServerCerts::reload`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// The files hold what is already served.
    Unchanged,
    /// New handshakes get the new certificate; existing connections go on.
    Replaced,
}

/// The certificate and key of the server, from two PEM files (which may be one and the same).
#[derive(Debug)]
pub struct ServerCerts {
    cert: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

impl ServerCerts {
    /// Reads both files and checks that they belong together.
    pub fn load(cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Arc<Self>, ServerCertsError> {
        let (cert, key) = (cert.into(), key.into());
        let current = RwLock::new(Arc::new(read(&cert, &key)?));
        Ok(Arc::new(Self { cert, key, current }))
    }

    /// Reads both files again, blocking. On an error, which a half-written pair also is, what was served stays.
    pub fn reload(&self) -> Result<Reload, ServerCertsError> {
        let fresh = read(&self.cert, &self.key)?;
        if fresh.cert == self.current().cert {
            return Ok(Reload::Unchanged);
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        Ok(Reload::Replaced)
    }

    /// A configuration for the public side: HTTP/2 preferred, HTTP/1.1 otherwise. It follows every later reload.
    #[must_use]
    pub fn config(self: &Arc<Self>) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)
            .expect(SUITES_EXIST)
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP11.to_vec()];
        config
    }

    /// What the certificate says of itself, in its present state.
    #[must_use]
    pub fn about(&self) -> Option<About> {
        About::of(self.current().cert.first()?)
    }

    fn current(&self) -> Arc<CertifiedKey> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for ServerCerts {
    /// One certificate whatever the name: many callers use an IP address and send none.
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

fn read(cert: &Path, key: &Path) -> Result<CertifiedKey, ServerCertsError> {
    let chain = pem::certificates(cert).map_err(ServerCertsError::Cert)?;
    let private = pem::private_key(key).map_err(ServerCertsError::Key)?;
    CertifiedKey::from_der(chain.clone(), private.clone_key(), &provider()).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) if belongs_to_later(&chain, &private) => {
            ServerCertsError::WrongOrder(cert.to_owned())
        }
        Error::InconsistentKeys(_) => ServerCertsError::Mismatch { cert: cert.to_owned(), key: key.to_owned() },
        Error::InvalidCertificate(_) => ServerCertsError::Cert(PemError::new(cert, Problem::BadCertificate(error))),
        error => ServerCertsError::Key(PemError::new(key, Problem::BadKey(error))),
    })
}

/// Whether the key belongs to a certificate of the chain other than the first.
fn belongs_to_later(chain: &[CertificateDer<'static>], key: &PrivateKeyDer<'static>) -> bool {
    chain.iter().skip(1).any(|cert| CertifiedKey::from_der(vec![cert.clone()], key.clone_key(), &provider()).is_ok())
}
