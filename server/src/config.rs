//! What a server is told to do, in parsed types. Knows nothing of flags, files or the environment.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use tunnel_oidc::Login;
use url::Url;

use crate::auth::AuthConfig;

/// Where TLS is served unless told otherwise: callers and desktops are elsewhere.
pub const DEFAULT_LISTEN_TLS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8443);

/// Where plain HTTP is served unless told otherwise: only to a proxy on this machine.
pub const DEFAULT_LISTEN_PLAIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// The settings of one server.
#[derive(Debug)]
pub struct Config {
    /// Where to listen, for desktops and callers alike. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Certificate and key; `None` serves plain HTTP, for life behind a proxy that ends TLS.
    pub tls: Option<TlsFiles>,
    /// Where callers reach this server, scheme and authority; `None` derives it from what they ask for.
    pub public_url: Option<Url>,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whose tokens are accepted.
    pub auth: AuthConfig,
    /// How people sign in at the identity provider; `None` where they cannot.
    pub login: Option<Login>,
    /// Where the keys in `auth` came from, to be read again when they change.
    pub key_files: KeyFiles,
    /// Where revocations are kept; `None` for in memory only.
    pub revocations_file: Option<PathBuf>,
    /// The operator's own listener, if there is to be one.
    pub admin: Option<AdminConfig>,
    /// Whether tokens and speed are read off the answers of models, for log and metrics.
    pub model_figures: bool,
    /// Bounds on time and numbers.
    pub limits: Limits,
    /// Origins of web pages that may call, exactly as browsers send them.
    pub cors_origins: Vec<String>,
}

/// Two PEM files. They may be replaced while the server runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, then those that lead to its root.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Files with keys that verify tokens. They may be replaced while the server runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyFiles {
    /// The shared secret.
    pub secret: Option<PathBuf>,
    /// The issuer's public key, in PEM.
    pub public_key: Option<PathBuf>,
}

/// The admin listener: plain HTTP, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where to listen. Without a token only a loopback address.
    pub listen: SocketAddr,
    /// The file with the token that opens more than health. It may be replaced while the server runs.
    pub token_file: Option<PathBuf>,
}

/// Bounds on what a caller or a desktop may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From a request's arrival to the last byte of its response, unless the caller asks for another.
    pub stream_deadline: Duration,
    /// The most that a caller may ask for; never less than `stream_deadline`.
    pub max_stream_deadline: Duration,
    /// How long no byte may move in either direction of a stream.
    pub stall_timeout: Duration,
    /// Desktops of one user at a time.
    pub max_tunnels_per_user: usize,
    /// Requests of one user at a time, on all desktops together.
    pub max_streams_per_user: usize,
    /// Connections of callers at a time, those of desktops that are still shaking hands included.
    pub max_connections: usize,
    /// The same for one IPv4 address or IPv6 network of 64 bits; proxies are exempt.
    pub max_connections_per_address: usize,
    /// Bytes in the body of a request; `None` sets no limit (memory is bounded either way).
    pub max_body: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stream_deadline: Duration::from_secs(30),
            max_stream_deadline: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
            max_tunnels_per_user: 8,
            max_streams_per_user: 256,
            max_connections: 8192,
            max_connections_per_address: 512,
            max_body: None,
        }
    }
}
