//! The way from a command to the admin interface of a running server.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use tunnel_cli::{
    exit::Exit,
    settings::{Layers, Origin, Wrong},
    value,
};
use tunneld::{auth::Secret, error::TUNNEL_ERROR};

use super::{
    resolve,
    settings::{self, Settings},
};

/// The address of the admin interface in the examples.
const USUAL: &str = "127.0.0.1:9464";

/// From the connection to the last byte of the answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// Where it is, and what opens it.
#[derive(Debug, clap::Args)]
pub(super) struct AdminArgs {
    /// Where the server's admin interface listens [default: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDR", env = "TUNNELD_ADMIN_LISTEN")]
    admin_listen: Option<String>,

    /// File with the token that opens it
    #[arg(long, value_name = "FILE", env = "TUNNELD_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,

    /// TOML file of the server
    #[arg(long, value_name = "FILE", env = "TUNNELD_CONFIG")]
    config: Option<PathBuf>,
}

/// The admin interface, as seen from this machine.
pub(super) struct Interface {
    address: SocketAddr,
    token: Secret,
    token_file: PathBuf,
}

impl AdminArgs {
    /// Reads the settings; gives back where they came from, too.
    pub(super) fn interface(&self, origin: Origin) -> Result<(Interface, Origin), Exit> {
        let flags = Settings {
            admin_listen: self.admin_listen.clone(),
            admin_token_file: self.admin_token_file.clone(),
            ..Settings::default()
        };
        let Layers { settings, origin } = Layers::merge(flags, origin, self.config.as_deref(), &settings::PATHS)?;
        match Interface::of(&settings) {
            Ok(interface) => Ok((interface, origin)),
            Err(wrong) => Err(origin.error(&wrong)),
        }
    }
}

impl Interface {
    fn of(settings: &Settings) -> Result<Self, Wrong> {
        let listen = settings.admin_listen.as_deref().unwrap_or(USUAL);
        let address = value::listen_address(listen, resolve::LOOPBACK);
        let address = resolve::from_here(address.map_err(|problem| Wrong::new("admin-listen", problem))?);
        let missing = || {
            let problem = "the server's admin token is needed: --admin-token-file FILE, or --config FILE";
            Wrong::new("admin-token-file", problem)
        };
        let file = settings.admin_token_file.as_deref().ok_or_else(missing)?;
        let token = Secret::read(file).map_err(|error| Wrong::new("admin-token-file", error))?;
        Ok(Self { address, token, token_file: file.to_owned() })
    }

    /// Asks, and gives the answer of a success.
    pub(super) fn ask(&self, method: Method, path: &str, body: &Value) -> Result<Value, Exit> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Exit::failed)?;
        let asked = runtime.block_on(async { timeout(ANSWER_WITHIN, self.exchange(method, path, body)).await });
        let address = self.address;
        let problem = |what: &str| Exit::failed(format_args!("the admin interface on {address} {what}"));
        match asked {
            Ok(Ok((status, answer))) if status.is_success() => Ok(answer),
            Ok(Ok((StatusCode::UNAUTHORIZED, _))) => Err(Exit::failed(format_args!(
                "the server does not accept the token in {}; name the file that it runs with: --admin-token-file",
                self.token_file.display()
            ))),
            Ok(Ok((StatusCode::NOT_FOUND, _))) => {
                Err(problem("gives health and metrics alone; start the server with --admin-token-file as well"))
            }
            Ok(Ok((status, answer))) => {
                Err(problem(&format!("says {}: {}", status.as_u16(), answer["error"].as_str().unwrap_or("no reason"))))
            }
            Ok(Err(Failed::Public)) => Err(Exit::failed(format_args!(
                "{address} is where callers are served; name the admin interface: --admin-listen, or --config FILE"
            ))),
            Ok(Err(Failed::Broken(error))) => Err(problem(&format!(
                "does not answer: {}; is the server running, with --admin-listen {address}?",
                tunnel_certs::client::reason(&*error)
            ))),
            Err(_) => Err(problem("does not answer in time")),
        }
    }

    async fn exchange(&self, method: Method, path: &str, body: &Value) -> Result<(StatusCode, Value), Failed> {
        let io = TokioIo::new(TcpStream::connect(self.address).await?);
        let (mut sender, connection) = http1::handshake(io).await?;
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string())
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token.as_visible().unwrap_or_default()))
            .body(Full::new(body))?;
        let answer = async {
            let (parts, body) = sender.send_request(request).await?.into_parts();
            Ok::<_, hyper::Error>((parts, body.collect().await?.to_bytes()))
        };
        let (parts, body) = tokio::select! {
            answer = answer => answer?,
            Err(error) = connection => return Err(error.into()),
        };
        if parts.headers.contains_key(TUNNEL_ERROR) {
            return Err(Failed::Public);
        }
        Ok((parts.status, serde_json::from_slice(&body).unwrap_or_default()))
    }
}

/// Why there is no answer of an admin interface.
enum Failed {
    /// It is a tunneld, but its port for callers.
    Public,
    /// None came.
    Broken(Box<dyn std::error::Error>),
}

impl<E: std::error::Error + 'static> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Broken(Box::new(error))
    }
}
