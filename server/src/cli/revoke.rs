//! `tunneld revoke`: asks the admin interface of a running server.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use http::Method;
use serde_json::{Value, json};
use tunnel_cli::{
    exit::Exit,
    settings::{Origin, Wrong},
};

use super::{Output, admin};

const EXAMPLES: &str = "\
Examples:
  tunneld revoke --user bob --config tunneld.toml           all tokens that bob has by now
  tunneld revoke --token-file leaked --config tunneld.toml  this one
  tunneld revoke --jti 01a20367-29e1-7039-a901-bc7f5f99144d --config tunneld.toml

Their desktops are disconnected for good, their requests refused. The server must run with
--admin-listen and --admin-token-file; --revocations-file keeps what is revoked over a restart.";

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

    #[command(flatten)]
    admin: admin::AdminArgs,
}

pub(super) fn run(args: &Args, origin: Origin) -> Result<Output, Exit> {
    let (interface, origin) = args.admin.interface(origin)?;
    let body = match &args.token_file {
        Some(file) => of_token(file).map_err(|problem| origin.error(&Wrong::new("token-file", problem)))?,
        None if args.user.is_some() => json!({ "user": args.user, "issuer": args.issuer }),
        None => json!({ "jti": args.jti }),
    };
    let answer = interface.ask(Method::POST, "/revocations", &body)?;
    let lost = "\nin force until the server restarts: it runs without --revocations-file\n";
    let hint = if answer["persisted"] == true { "" } else { lost };
    Ok(Output { result: format!("{answer}\n"), hint: hint.to_owned() })
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
