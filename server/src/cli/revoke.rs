//! `tunneld revoke`: asks the admin interface of a running server.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tunnel_cli::{
    exit::Exit,
    settings::{Layers, Origin, Wrong},
    value,
};
use tunneld::auth::Secret;

use super::{
    Output, resolve,
    settings::{self, Settings},
};

const EXAMPLES: &str = "\
Examples:
  tunneld revoke --user bob --config tunneld.toml           all tokens that bob has by now
  tunneld revoke --token-file leaked --config tunneld.toml  this one
  tunneld revoke --jti 01a20367-29e1-7039-a901-bc7f5f99144d --config tunneld.toml

Their desktops are disconnected for good, their requests refused. The server must run with
--admin-listen and --admin-token-file; --revocations-file keeps what is revoked over a restart.";

/// The address of the admin interface in the examples.
const USUAL: &str = "127.0.0.1:9464";

/// From the connection to the last byte of the answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// The flags.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group(clap::ArgGroup::new("subject").required(true).args(["user", "jti", "token_file"])))]
pub(super) struct Args {
    /// Every token of this user (sub) that was issued until now
    #[arg(long)]
    user: Option<String>,

    /// Issuer (iss) of the user's tokens [default: tunneld]
    #[arg(long, value_name = "ISS", requires = "user")]
    issuer: Option<String>,

    /// The token with this id (jti)
    #[arg(long)]
    jti: Option<String>,

    /// The token in this file, by its id
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

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

pub(super) fn run(args: &Args, origin: Origin) -> Result<Output, Exit> {
    let flags = Settings {
        admin_listen: args.admin_listen.clone(),
        admin_token_file: args.admin_token_file.clone(),
        ..Settings::default()
    };
    let Layers { settings, origin } = Layers::merge(flags, origin, args.config.as_deref(), &settings::PATHS)?;
    let (address, token) = admin(&settings).map_err(|wrong| origin.error(&wrong))?;
    let body = match &args.token_file {
        Some(file) => of_token(file).map_err(|problem| origin.error(&Wrong::new("token-file", problem)))?,
        None if args.user.is_some() => json!({ "user": args.user, "issuer": args.issuer }),
        None => json!({ "jti": args.jti }),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Exit::failed)?;
    let asked = runtime.block_on(async { timeout(ANSWER_WITHIN, ask(address, &token, &body)).await });
    let problem = |what: &str| Exit::failed(format_args!("the admin interface on {address} {what}"));
    match asked {
        Ok(Ok((StatusCode::CREATED, answer))) => {
            let lost = "\nin force until the server restarts: it runs without --revocations-file\n";
            let hint = if answer["persisted"] == true { "" } else { lost };
            Ok(Output { result: format!("{answer}\n"), hint: hint.to_owned() })
        }
        Ok(Ok((status, answer))) => {
            Err(problem(&format!("says {}: {}", status.as_u16(), answer["error"].as_str().unwrap_or("no reason"))))
        }
        Ok(Err(error)) => Err(problem(&format!("does not answer: {error}"))),
        Err(_) => Err(problem("does not answer in time")),
    }
}

/// Where the interface is, as seen from this machine, and the token for it.
fn admin(settings: &Settings) -> Result<(SocketAddr, Secret), Wrong> {
    let listen = settings.admin_listen.as_deref().unwrap_or(USUAL);
    let address =
        value::listen_address(listen, resolve::LOOPBACK).map_err(|problem| Wrong::new("admin-listen", problem))?;
    let missing = || {
        Wrong::new("admin-token-file", "the server's admin token is needed: --admin-token-file FILE, or --config FILE")
    };
    let file = settings.admin_token_file.as_deref().ok_or_else(missing)?;
    let token = Secret::read(file).map_err(|error| Wrong::new("admin-token-file", error))?;
    Ok((resolve::from_here(address), token))
}

/// The id and the end of the token in a file. They are read, not verified: revoking is no right of its bearer.
fn of_token(file: &Path) -> Result<Value, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    let token = text.trim().rsplit('/').next().unwrap_or_default();
    let claims = token.split('.').nth(1).and_then(|payload| BASE64.decode(payload).ok());
    let claims: Option<Value> = claims.and_then(|json| serde_json::from_slice(&json).ok());
    let claims = claims.ok_or_else(|| format!("{} holds no JSON web token", file.display()))?;
    if !claims["jti"].is_string() {
        return Err(format!("the token in {} has no id (jti); revoke its user instead: --user", file.display()));
    }
    let expires = claims["exp"]
        .as_u64()
        .filter(|exp| *exp < 253_402_300_800)
        .map(|exp| humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + Duration::from_secs(exp)).to_string());
    Ok(json!({ "jti": claims["jti"], "expires": expires }))
}

async fn ask(
    address: SocketAddr,
    token: &Secret,
    body: &Value,
) -> Result<(StatusCode, Value), Box<dyn std::error::Error>> {
    let io = TokioIo::new(TcpStream::connect(address).await?);
    let (mut sender, connection) = http1::handshake(io).await?;
    let request = Request::post("/revocations")
        .header(header::HOST, address.to_string())
        .header(header::AUTHORIZATION, format!("Bearer {}", token.as_visible().unwrap_or_default()))
        .body(Full::<Bytes>::from(body.to_string()))?;
    let answer = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        Ok::<_, hyper::Error>((parts.status, body.collect().await?.to_bytes()))
    };
    let (status, body) = tokio::select! {
        answer = answer => answer?,
        Err(error) = connection => return Err(error.into()),
    };
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}
