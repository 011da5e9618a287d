//! Every setting of `connect`, as people write it. Its key in the file is the flag without the dashes.

use std::{convert::Infallible, path::PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use tunnel::proxy::{Proxies, Proxy};
use tunnel_cli::{
    log,
    settings::{self, ProxyVariables, Wrong},
};

const TO_HELP: &str = "Where requests go: URL, HOST:PORT or PORT [default: http://127.0.0.1:11434]";

pub(super) const PROXY_HELP: &str =
    "Proxy to the server: http://[USER:PASSWORD@]HOST:PORT, or none [default: HTTPS_PROXY]";

/// What `connect` is told, and others that do as it does.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Options {
    /// TOML file with any of these settings
    #[arg(long, value_name = "FILE", env = "TUNNEL_CONFIG")]
    pub(super) config: Option<PathBuf>,

    #[command(flatten)]
    pub(super) settings: Settings,

    #[arg(hide = true, value_name = "FILE", value_parser = flag_missing)]
    _without_flag: Option<Infallible>,
}

/// What to write for a word that came without its flag.
pub(super) fn flag_missing(word: &str) -> Result<Infallible, String> {
    let flag = if word.contains("://") { "--server" } else { "--token-file" };
    Err(format!("write {flag} {word}"))
}

/// Every setting of `connect`, as people write it.
#[derive(Debug, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Settings {
    /// File with the token; read again at each connect
    #[arg(long, value_name = "FILE", env = "TUNNEL_TOKEN_FILE")]
    pub(super) token_file: Option<PathBuf>,

    /// The token itself; others on this machine can see it in ps, so prefer the file or the variable
    #[arg(long, env = "TUNNEL_TOKEN")]
    pub(super) token: Option<String>,

    /// Server to connect to [default: the one that the token names]
    #[arg(long, value_name = "URL", env = "TUNNEL_SERVER")]
    pub(super) server: Option<String>,

    #[arg(long, value_name = "URL", env = "TUNNEL_TO", help = TO_HELP)]
    pub(super) to: Option<String>,

    /// Name of this desktop, for users with several [default: the host's name]
    #[arg(long, env = "TUNNEL_NAME")]
    pub(super) name: Option<String>,

    /// PEM file of a private CA to trust besides the system's
    #[arg(long, value_name = "FILE", env = "TUNNEL_CA")]
    pub(super) ca: Option<PathBuf>,

    #[arg(long, value_name = "URL", env = "TUNNEL_PROXY", help = PROXY_HELP)]
    pub(super) proxy: Option<String>,

    /// What callers may do: all, inference, 'METHOD PATH' or 'METHOD PATH/*'; may be repeated [default: all]
    #[arg(long, value_name = "RULE", env = "TUNNEL_ALLOW", value_delimiter = ',')]
    pub(super) allow: Option<Vec<String>>,

    /// Do not tell the server which models there are, for its status
    #[arg(
        long, value_name = "BOOL", env = "TUNNEL_NO_REPORT_MODELS",
        num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true,
        value_parser = clap::builder::BoolishValueParser::new(),
    )]
    pub(super) no_report_models: Option<bool>,

    /// Log level, or one per module as in info,tunnel=debug
    #[arg(long, value_name = "LEVEL", env = "RUST_LOG")]
    pub(super) log_level: Option<String>,

    /// Shape of log lines: text or json [default: text]
    #[arg(long, value_name = "FORMAT", env = "TUNNEL_LOG_FORMAT", hide_possible_values = true)]
    pub(super) log_format: Option<log::Format>,
}

/// Settings that name files.
pub(super) const PATHS: [&str; 2] = ["token-file", "ca"];

/// The file that is read when none is named: the user's own, if there is one.
pub(super) fn default_file() -> Option<PathBuf> {
    settings::config_directory("tunnel").map(|directory| directory.join("tunnel.toml")).filter(|file| file.exists())
}

/// Through which proxies servers are reached: as `--proxy` says, else as the environment does.
pub(super) fn proxies(setting: Option<&str>) -> Result<Proxies, Wrong> {
    match setting {
        Some("none") => Ok(Proxies::default()),
        Some(text) => Ok(Proxies::always(Proxy::parse(text).map_err(|problem| Wrong::new("proxy", problem))?)),
        None => {
            let ProxyVariables { https, all, except } = settings::proxy_variables();
            Ok(Proxies::from_variables(https.as_deref(), all.as_deref(), except.as_deref()))
        }
    }
}
