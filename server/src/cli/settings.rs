//! Every setting of `serve` and `check`, as people write it: flag, variable and key of the file in one place.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};
use tunnel_cli::log;

/// Settings that name files.
pub(super) const PATHS: [&str; 6] =
    ["tls-cert", "tls-key", "jwt-secret-file", "jwt-public-key", "revocations-file", "admin-token-file"];

const SCOPE_HELP: &str = "Scopes that they ask for [default: openid offline_access]";

/// The settings, none of them read into its type yet.
#[derive(Debug, Default, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Settings {
    /// Address for desktops and callers alike [default: 0.0.0.0:8443; with --plain-http 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", env = "TUNNELD_LISTEN", help_heading = "Listening")]
    pub(super) listen: Option<String>,

    /// PEM file with the certificate, then its intermediates
    #[arg(long, value_name = "FILE", env = "TUNNELD_TLS_CERT", help_heading = "Listening")]
    pub(super) tls_cert: Option<PathBuf>,

    /// PEM file with the private key
    #[arg(long, value_name = "FILE", env = "TUNNELD_TLS_KEY", help_heading = "Listening")]
    pub(super) tls_key: Option<PathBuf>,

    /// No TLS here: a proxy in front of this server ends it
    #[arg(
        long, value_name = "BOOL", env = "TUNNELD_PLAIN_HTTP", help_heading = "Listening",
        num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true,
        value_parser = clap::builder::BoolishValueParser::new(),
    )]
    pub(super) plain_http: Option<bool>,

    /// Where callers reach this server [default: the host they ask for]
    #[arg(long, value_name = "URL", env = "TUNNELD_PUBLIC_URL", help_heading = "Listening")]
    pub(super) public_url: Option<String>,

    /// Proxies whose X-Forwarded-For is believed, as address or CIDR; may be repeated
    #[arg(long, value_name = "CIDR", env = "TUNNELD_TRUSTED_PROXY", value_delimiter = ',', help_heading = "Listening")]
    pub(super) trusted_proxy: Option<Vec<String>>,

    /// File with the secret that signs tokens (HS256); openssl rand -hex 32 makes one
    #[arg(long, value_name = "FILE", env = "TUNNELD_JWT_SECRET_FILE", help_heading = "Tokens")]
    pub(super) jwt_secret_file: Option<PathBuf>,

    /// PEM file with the public key of who signs tokens (RS256, ES256, ES384 or Ed25519)
    #[arg(long, value_name = "FILE", env = "TUNNELD_JWT_PUBLIC_KEY", help_heading = "Tokens")]
    pub(super) jwt_public_key: Option<PathBuf>,

    /// Identity provider whose tokens are accepted, by its exact issuer (iss): keys and endpoints are found there
    #[arg(long, value_name = "URL", env = "TUNNELD_OIDC_ISSUER", help_heading = "Tokens")]
    pub(super) oidc_issuer: Option<String>,

    /// Client ID with which people sign in there, in a browser or with tunnel login [default: they cannot]
    #[arg(long, value_name = "ID", env = "TUNNELD_OIDC_CLIENT_ID", help_heading = "Tokens")]
    pub(super) oidc_client_id: Option<String>,

    #[arg(long, value_name = "SCOPES", env = "TUNNELD_OIDC_SCOPE", help_heading = "Tokens", help = SCOPE_HELP)]
    pub(super) oidc_scope: Option<String>,

    /// Address of the keys (JWK Set) of an identity provider that has no issuer to look them up
    #[arg(long, value_name = "URL", env = "TUNNELD_JWKS_URL", help_heading = "Tokens")]
    pub(super) jwks_url: Option<String>,

    /// Issuer (iss) that tokens of --jwt-public-key and --jwks-url must name
    #[arg(long, value_name = "ISS", env = "TUNNELD_JWT_ISSUER", help_heading = "Tokens")]
    pub(super) jwt_issuer: Option<String>,

    /// Audience (aud) that every token must name; needed with an identity provider
    #[arg(long, value_name = "AUD", env = "TUNNELD_JWT_AUDIENCE", help_heading = "Tokens")]
    pub(super) jwt_audience: Option<String>,

    /// Users (sub) who are let in; may be repeated [default: all with a good token, unless there is a provider]
    #[arg(long, value_name = "USER", env = "TUNNELD_ALLOW_USER", value_delimiter = ',', help_heading = "Tokens")]
    pub(super) allow_user: Option<Vec<String>>,

    /// Claims that a token must carry to be let in; may be repeated
    #[arg(long, value_name = "K=V", env = "TUNNELD_REQUIRE_CLAIM", value_delimiter = ',', help_heading = "Tokens")]
    pub(super) require_claim: Option<Vec<String>>,

    /// Everyone with a good token is let in, which must be said if an identity provider decides who that is
    #[arg(
        long, value_name = "BOOL", env = "TUNNELD_ALLOW_ANY_USER", help_heading = "Tokens",
        num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true,
        value_parser = clap::builder::BoolishValueParser::new(),
    )]
    pub(super) allow_any_user: Option<bool>,

    /// A token without a tunnel: scope may do nothing, instead of connect and proxy
    #[arg(
        long, value_name = "BOOL", env = "TUNNELD_REQUIRE_SCOPE", help_heading = "Tokens",
        num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true,
        value_parser = clap::builder::BoolishValueParser::new(),
    )]
    pub(super) require_scope: Option<bool>,

    /// File that keeps revoked tokens and users over a restart [default: none, they are lost then]
    #[arg(long, value_name = "FILE", env = "TUNNELD_REVOCATIONS_FILE", help_heading = "Tokens")]
    pub(super) revocations_file: Option<PathBuf>,

    /// Address of the admin interface, plain HTTP, such as 127.0.0.1:9464 [default: none]
    #[arg(long, value_name = "ADDR", env = "TUNNELD_ADMIN_LISTEN", help_heading = "Administration")]
    pub(super) admin_listen: Option<String>,

    /// File with the token that opens it; openssl rand -hex 32 makes one
    #[arg(long, value_name = "FILE", env = "TUNNELD_ADMIN_TOKEN_FILE", help_heading = "Administration")]
    pub(super) admin_token_file: Option<PathBuf>,

    /// From a request's arrival to the last byte of its answer [default: 30s]
    #[arg(long, value_name = "TIME", env = "TUNNELD_STREAM_DEADLINE", help_heading = "Limits")]
    pub(super) stream_deadline: Option<String>,

    /// The most that a request may ask for with Tunnel-Deadline [default: that of --stream-deadline]
    #[arg(long, value_name = "TIME", env = "TUNNELD_MAX_STREAM_DEADLINE", help_heading = "Limits")]
    pub(super) max_stream_deadline: Option<String>,

    /// How long a request may move no byte either way [default: 30s]
    #[arg(long, value_name = "TIME", env = "TUNNELD_STALL_TIMEOUT", help_heading = "Limits")]
    pub(super) stall_timeout: Option<String>,

    /// Desktops of one user at a time [default: 8]
    #[arg(long, value_name = "N", env = "TUNNELD_MAX_TUNNELS_PER_USER", help_heading = "Limits")]
    pub(super) max_tunnels_per_user: Option<usize>,

    /// Requests of one user at a time [default: 256]
    #[arg(long, value_name = "N", env = "TUNNELD_MAX_STREAMS_PER_USER", help_heading = "Limits")]
    pub(super) max_streams_per_user: Option<usize>,

    /// Connections of callers at a time; more wait [default: 8192]
    #[arg(long, value_name = "N", env = "TUNNELD_MAX_CONNECTIONS", help_heading = "Limits")]
    pub(super) max_connections: Option<usize>,

    /// Connections of one address at a time, or of one IPv6 /64; proxies are exempt [default: 512]
    #[arg(long, value_name = "N", env = "TUNNELD_MAX_CONNECTIONS_PER_ADDRESS", help_heading = "Limits")]
    pub(super) max_connections_per_address: Option<usize>,

    /// Largest body of a request, such as 20GiB [default: no limit]
    #[arg(long, value_name = "SIZE", env = "TUNNELD_MAX_BODY", help_heading = "Limits")]
    pub(super) max_body: Option<String>,

    /// Origins of web pages that may call, with their scheme; may be repeated [default: none]
    #[arg(long, value_name = "ORIGIN", env = "TUNNELD_CORS_ORIGIN", value_delimiter = ',', help_heading = "Web pages")]
    pub(super) cors_origin: Option<Vec<String>>,

    /// Do not read tokens and speed off the answers of models, for log and metrics
    #[arg(
        long, value_name = "BOOL", env = "TUNNELD_NO_MODEL_FIGURES", help_heading = "Logs",
        num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true,
        value_parser = clap::builder::BoolishValueParser::new(),
    )]
    pub(super) no_model_figures: Option<bool>,

    /// Log level, or one per module as in info,tunneld=debug [default: info]
    #[arg(long, value_name = "LEVEL", env = "RUST_LOG", help_heading = "Logs")]
    pub(super) log_level: Option<String>,

    /// Shape of log lines: text or json [default: text]
    #[arg(long, value_name = "FORMAT", env = "TUNNELD_LOG_FORMAT", help_heading = "Logs", hide_possible_values = true)]
    pub(super) log_format: Option<log::Format>,
}
