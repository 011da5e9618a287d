//! Who trusts whom in one test: a development CA, a certificate for this machine, a secret for tokens.

use std::path::PathBuf;

use rustls::ClientConfig;
use tempfile::TempDir;
use tunnel_certs::dev::{self, Existing, Written};
use tunneld::{
    auth::{
        Secret,
        mint::{self, MintRequest},
    },
    config::TlsFiles,
};

/// The secret behind every token. Not one that anybody uses elsewhere.
pub const SECRET: &str = "the secret of the integration tests, and of nothing else";

/// The name by which callers call the server.
pub const HOST: &str = "localhost";

/// A CA, a certificate and their files, which are removed when this is dropped.
#[derive(Debug)]
pub struct Pki {
    files: Written,
    _directory: TempDir,
}

impl Pki {
    /// Makes all of it.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let files = dev::generate(directory.path(), &dev::DEFAULT_HOSTS, Existing::Keep).expect("a development CA");
        Self { files, _directory: directory }
    }

    /// The file with the CA.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.files.ca.clone()
    }

    /// The server's certificate and key.
    #[must_use]
    pub fn tls_files(&self) -> TlsFiles {
        TlsFiles { cert: self.files.cert.clone(), key: self.files.key.clone() }
    }

    /// TLS of a caller who trusts the CA.
    #[must_use]
    pub fn caller_tls(&self) -> ClientConfig {
        tunnel_certs::client::config(Some(&self.files.ca)).expect("a CA to trust")
    }
}

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}

/// The secret as the server takes it.
#[must_use]
pub fn secret() -> Secret {
    Secret::new(SECRET).expect("a secret that is long enough")
}

/// A token of `user` that may connect and proxy.
#[must_use]
pub fn token(user: &str) -> String {
    mint(&MintRequest::new(user))
}

/// The token that was asked for.
#[must_use]
pub fn mint(request: &MintRequest) -> String {
    mint::mint(&secret(), request).expect("a token")
}
