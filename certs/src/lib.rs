//! The one place where rustls is configured.
//!
//! TLS 1.2 and 1.3 only, cryptography from aws-lc-rs given by name (never the process-wide default), no early data,
//! no key log, no way to skip verification. Buffer limits belong to whoever owns the connection.
//!
//! | module | what |
//! |---|---|
//! | [`pem`] | reads certificates and keys from files, and says what is wrong with a file |
//! | [`server`] | the public side: a certificate that can be swapped while running, HTTP/1.1 and HTTP/2 by ALPN |
//! | [`about`] | what a certificate says of itself, for people |
//! | [`client`] | the dialling side: whom to trust, HTTP/1.1 by ALPN, refusals in words |
//! | [`dev`] | a throw-away development CA: `ca.pem`, `server.pem`, `server-key.pem` |

use std::sync::{Arc, OnceLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub mod about;
pub mod client;
pub mod dev;
pub mod pem;
pub mod server;

#[cfg(test)]
mod tests;

/// ALPN name of HTTP/2 over TLS (RFC 9113 §3.1).
pub const ALPN_HTTP2: &[u8] = b"h2";

/// ALPN name of HTTP/1.1 over TLS (RFC 7301 §6).
pub const ALPN_HTTP11: &[u8] = b"http/1.1";

/// The versions spoken, newest first (RFC 8996 retires what is older).
const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// `expect` message: aws-lc-rs has cipher suites for both of [`VERSIONS`].
const SUITES_EXIST: &str = "aws-lc-rs speaks TLS 1.2 and 1.3";

/// The cryptography of every configuration made here.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider())).clone()
}
