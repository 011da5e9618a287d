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
    value,
};

use tunneld::{
    auth::OWN_ISSUER,
    id::{MAX_ID_BYTES, UserId},
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
    let body = subject(args).map_err(|wrong| origin.error(&wrong))?;
    let online = interface.ask(Method::GET, "/tunnels", &Value::Null)?;
    let answer = interface.ask(Method::POST, "/revocations", &body)?;
    let mut hint = String::new();
    if args.user.is_some() {
        hint = match desktops(&online, &answer) {
            // A server knows no list of its users: a slip of the pen would pass for a revocation.
            0 => "\nno desktop of this user was connected; is the name right, and the --issuer?\n".to_owned(),
            1 => "\n1 desktop is disconnected\n".to_owned(),
            many => format!("\n{many} desktops are disconnected\n"),
        };
    }
    if answer["persisted"] != true {
        hint.push_str("\nin force until the server restarts: it runs without --revocations-file\n");
    }
    Ok(Output { result: format!("{answer}\n"), hint })
}

/// What is to be revoked, as the admin interface takes it.
fn subject(args: &Args) -> Result<Value, Wrong> {
    if let Some(file) = &args.token_file {
        return of_token(file).map_err(|problem| Wrong::new("token-file", problem));
    }
    if let Some(user) = &args.user {
        UserId::new(args.issuer.as_deref().unwrap_or(OWN_ISSUER), user).map_err(|error| Wrong::new("user", error))?;
        return Ok(json!({ "user": user, "issuer": args.issuer }));
    }
    let jti = args.jti.as_deref().unwrap_or_default();
    if !(1..=MAX_ID_BYTES).contains(&jti.len()) {
        return Err(Wrong::new(
            "jti",
            "the id of a token has 1 to 255 bytes; `tunneld revoke --token-file` reads it from one",
        ));
    }
    Ok(json!({ "jti": jti }))
}

/// How many of these tunnels are of the user of a revocation.
fn desktops(online: &Value, revoked: &Value) -> usize {
    let is_theirs = |tunnel: &Value| ["user", "issuer"].iter().all(|key| tunnel[key] == revoked[key]);
    online["tunnels"].as_array().map_or(0, |tunnels| tunnels.iter().filter(|tunnel| is_theirs(tunnel)).count())
}

/// The id and the end of the token in a file. They are read, not verified: revoking is no right of its bearer.
fn of_token(file: &Path) -> Result<Value, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    let claims = value::bare_token(&text).split('.').nth(1).and_then(|payload| BASE64.decode(payload).ok());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_known_by_name_and_issuer() {
        let online = json!({"tunnels": [
            {"user": "bob", "issuer": "tunneld"}, {"user": "bob", "issuer": "tunneld"}, {"user": "eve", "issuer": "idp"}]});
        let known = |user: &str, issuer: &str| desktops(&online, &json!({"user": user, "issuer": issuer}));
        assert_eq!([known("bob", "tunneld"), known("eve", "idp")], [2, 1]);
        assert_eq!([known("bbo", "tunneld"), known("bob", "idp")], [0, 0]);
    }
}
