//! `tunnel forward`: settings of the local port.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::SystemTime,
};

use http::HeaderValue;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};
use tunnel::{
    config,
    connector::{self, ConnectError, Connector},
    forward::{Forward, Guard, allowed_origin},
    token::{Claims, TokenSource},
};
use tunnel_cli::{
    exit::Exit,
    log::{self, Log},
    settings::{self, Layers, Origin, Wrong},
    signals, value,
};
use url::Url;

use super::{
    Job, connect, login,
    settings::{flag_missing, proxies},
};

const EXAMPLES: &str = "\
Examples:
  tunnel forward --token-file key            http://127.0.0.1:11434 is then your desktop's Ollama
  tunnel forward --token-file key --listen 127.0.0.1:8000 --ca ca.pem
  tunnel forward --token-file key --allow-origin http://localhost:3000    this web page may ask

For programs that know no key, or not your CA. The token needs the scope proxy or infer:
  tunneld token --user NAME --scope proxy --server https://tunnel.example.com > key

Each setting: flag, else environment (--token-file is TUNNEL_TOKEN_FILE), else the file of --config.";

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 11434);

/// Open a local port that adds the token, for programs that cannot
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// TOML file with any of these settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    settings: Settings,

    #[arg(hide = true, value_name = "FILE", value_parser = flag_missing)]
    _without_flag: Option<Infallible>,
}

#[derive(Debug, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Settings {
    /// File with the token; read again for each request
    #[arg(long, value_name = "FILE", env = "TUNNEL_TOKEN_FILE")]
    token_file: Option<PathBuf>,

    /// The token itself; others on this machine can see it in ps, so prefer the file or the variable
    #[arg(long, env = "TUNNEL_TOKEN")]
    token: Option<String>,

    /// Server to ask [default: the one that the token names]
    #[arg(long, value_name = "URL", env = "TUNNEL_SERVER")]
    server: Option<String>,

    /// Address on this machine to listen on [default: 127.0.0.1:11434]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,

    /// Origin of a web page that may ask, besides programs; may be repeated
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',')]
    allow_origin: Option<Vec<String>>,

    /// The desktop to ask, for users with several
    #[arg(long)]
    name: Option<String>,

    /// PEM file of a private CA to trust besides the system's
    #[arg(long, value_name = "FILE", env = "TUNNEL_CA")]
    ca: Option<PathBuf>,

    #[arg(long, value_name = "URL", env = "TUNNEL_PROXY", help = super::settings::PROXY_HELP)]
    proxy: Option<String>,

    /// Log level, or one per module as in info,tunnel=debug
    #[arg(long, value_name = "LEVEL", env = "RUST_LOG")]
    log_level: Option<String>,

    /// Shape of log lines: text or json [default: text]
    #[arg(long, value_name = "FORMAT", env = "TUNNEL_LOG_FORMAT", hide_possible_values = true)]
    log_format: Option<log::Format>,
}

/// Reads the settings.
pub(super) fn job(args: Args, origin: Origin) -> Result<Job, Exit> {
    let Layers { mut settings, origin } =
        Layers::merge(args.settings, origin, args.config.as_deref(), &super::settings::PATHS)?;
    let port = resolve(&mut settings, &origin).map_err(|wrong| origin.error(&wrong))?;
    Ok(Box::pin(run(port)))
}

/// What to do, ready to be done.
struct Port {
    forward: Forward,
    listen: SocketAddr,
    server: Url,
    log: Log,
}

fn resolve(settings: &mut Settings, origin: &Origin) -> Result<Port, Wrong> {
    let (token, setting) = match (&settings.token, &settings.token_file, login::existing()) {
        (None, None, Some(store)) => {
            let proxy = settings.proxy.as_deref();
            (connect::of_login(&mut settings.server, &mut settings.ca, proxy, store)?, "token-file")
        }
        (token, file, _) => connect::token_source(token.as_deref(), file.as_deref(), origin)?,
    };
    let now = token.read().map_err(|error| Wrong::new(setting, error))?;
    let told = settings::read("server", settings.server.as_deref(), config::server_url)?;
    let server = told.clone().map_or_else(|| config::claimed_server(&now), Ok);
    let server = server.map_err(|error| Wrong::new("server", error))?;
    let listen = settings::read("listen", settings.listen.as_deref(), here)?.unwrap_or(LISTEN);
    let proxies = proxies(settings.proxy.as_deref())?;
    proxies.for_server(&server).map_err(|problem| Wrong::new("proxy", problem))?;
    let name = settings::read("name", settings.name.as_deref(), config::desktop_name)?;
    let level = settings.log_level.as_deref().unwrap_or("info");
    Ok(Port {
        forward: Forward {
            server: told,
            token,
            name: name.map(|name| HeaderValue::try_from(name).expect("a name is made of letters and digits")),
            connector: Connector::new(settings.ca.as_deref(), proxies).map_err(|error| Wrong::new("ca", error))?,
            guard: Guard::new(settings::read_all("allow-origin", settings.allow_origin.as_deref(), allowed_origin)?),
        },
        listen,
        server,
        log: Log {
            filter: Log::filter(level).map_err(|problem| Wrong::new("log-level", problem))?,
            format: settings.log_format.unwrap_or_default(),
        },
    })
}

/// An address of this machine; a port alone is meant so.
fn here(text: &str) -> Result<SocketAddr, String> {
    let address = value::listen_address(text, Ipv4Addr::LOCALHOST.into())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(format!(
            "{address} can be reached from outside, and everyone there would use your token; listen on 127.0.0.1"
        ))
    }
}

async fn run(port: Port) -> Result<(), Exit> {
    let Port { forward, listen, server, log } = port;
    let _log = log.start().map_err(Exit::failed)?;
    let listener = tokio::net::TcpListener::bind(listen).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Exit::usage(format!(
            "--listen: {listen} is taken, perhaps by an Ollama of this machine; choose another port: --listen {}:{}",
            listen.ip(),
            listen.port().wrapping_add(1).max(1024)
        )),
        _ => Exit::usage(format!("--listen: {listen}: {error}")),
    })?;
    let addr = listener.local_addr().map_err(Exit::failed)?;
    info!(target: "tunnel", %addr, server = config::origin(&server), "listening");
    tunnel_cli::exit::hint(&format!(
        "\n  export OLLAMA_HOST=http://{addr}\n  export OPENAI_BASE_URL=http://{addr}/v1 OPENAI_API_KEY=none\n\n"
    ));
    let _looking = AbortOnDropHandle::new(tokio::spawn(look(forward.token.clone(), forward.connector.clone(), server)));
    let ended = signals::run_until_stopped(|stop| forward.run(listener, stop)).await;
    ended.map(|_| ()).map_err(Exit::failed)
}

/// Says at once what every request would meet.
async fn look(token: TokenSource, connector: Connector, server: Url) {
    match token.fresh().await {
        Ok(token) => {
            if let Some(problem) = unfit(&token.claims(), SystemTime::now()) {
                warn!(target: "tunnel", "{problem}");
            }
        }
        Err(error) => warn!(target: "tunnel", "{error}"),
    }
    let connected = timeout(connector::WITHIN, connector.connect(&server)).await;
    if let Err(error) = connected.unwrap_or(Err(ConnectError::TooSlow)) {
        warn!(target: "tunnel", "{} cannot be reached: {error}", config::origin(&server));
    }
}

/// Why a server would refuse requests with this token, as far as it tells itself.
fn unfit(claims: &Claims, now: SystemTime) -> Option<&'static str> {
    if claims.expires().is_some_and(|end| end <= now) {
        Some("the token has expired: requests will be refused until there is a new one")
    } else if claims.is_desktops() {
        Some("the token connects a desktop and sends no request: mint one with --scope proxy, or infer")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_listened_on() {
        assert_eq!(here("8000").unwrap(), "127.0.0.1:8000".parse().unwrap());
        assert_eq!(here("[::1]:0").unwrap(), "[::1]:0".parse().unwrap());
        assert_eq!(here("localhost:1").unwrap(), "127.0.0.1:1".parse().unwrap());
        for outside in ["0.0.0.0:80", "[::]:80", "192.168.0.1:80"] {
            assert!(here(outside).unwrap_err().contains("your token"), "{outside}");
        }
    }
}
