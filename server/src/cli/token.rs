//! `tunneld token`: a token on stdout, and nothing else there.

use std::{path::PathBuf, time::SystemTime};

use tunnel_cli::{
    exit::Exit,
    settings::{Layers, Origin, Wrong, read},
    value,
};
use tunneld::auth::{
    Scope, Secret, SecretError, SecretProblem,
    mint::{self, MintRequest},
};
use url::Url;

use super::{
    Output, resolve,
    settings::{self, Settings},
};

const EXAMPLES: &str = "\
Examples:
  tunneld token --user bob --server https://tunnel.example.com --config tunneld.toml > token
      for bob's desktop:   tunnel connect --token-file token
  tunneld token --user bob --scope proxy --ttl 30d --config tunneld.toml
      for a program that calls:   export OPENAI_API_KEY=…, or Authorization: Bearer …
  tunneld token --user bob --url --server https://tunnel.example.com --config tunneld.toml
      for a program that knows a base URL and no key:   export OLLAMA_HOST=…

--config reads secret, audience and public URL from the server's own file; flags and TUNNELD_…
variables do as well.";

/// The flags.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Whose token (sub): a caller reaches the desktops of the same user and issuer
    #[arg(long)]
    user: String,

    /// What it allows, of connect, proxy and infer [default: connect,proxy; with --url infer]
    #[arg(long, value_name = "LIST")]
    scope: Option<String>,

    /// How long it is valid, such as 90m, 12h or 30d [default: 12h]
    #[arg(long, value_name = "TIME")]
    ttl: Option<String>,

    /// Issuer (iss), to reach desktops that connect with an identity provider's tokens [default: tunneld]
    #[arg(long, value_name = "ISS")]
    issuer: Option<String>,

    /// Where the server is reached, so that tunnel connect needs only the token
    #[arg(long, value_name = "URL", env = "TUNNELD_PUBLIC_URL")]
    server: Option<String>,

    /// Print a URL with the token in it, for programs that know a base URL and no key
    #[arg(long)]
    url: bool,

    /// Bind the token to the one desktop of this name
    #[arg(long)]
    name: Option<String>,

    /// File with the secret that signs tokens
    #[arg(long, value_name = "FILE", env = "TUNNELD_JWT_SECRET_FILE")]
    jwt_secret_file: Option<PathBuf>,

    /// Audience (aud) that the server asks for
    #[arg(long, value_name = "AUD", env = "TUNNELD_JWT_AUDIENCE")]
    jwt_audience: Option<String>,

    /// TOML file of the server
    #[arg(long, value_name = "FILE", env = "TUNNELD_CONFIG")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &Args, origin: Origin) -> Result<Output, Exit> {
    let flags = Settings {
        jwt_secret_file: args.jwt_secret_file.clone(),
        jwt_audience: args.jwt_audience.clone(),
        public_url: args.server.clone(),
        ..Settings::default()
    };
    let Layers { settings, origin } = Layers::merge(flags, origin, args.config.as_deref(), &settings::PATHS)?;
    mint(args, settings).map_err(|wrong| origin.error(&wrong))
}

fn mint(args: &Args, settings: Settings) -> Result<Output, Wrong> {
    let secret = settings.jwt_secret_file.as_deref().ok_or_else(|| {
        Wrong::new("jwt-secret-file", "the server's secret is needed to sign: --jwt-secret-file FILE, or --config FILE")
    })?;
    let secret = Secret::read(secret).map_err(unreadable)?;
    let server = read("server", settings.public_url.as_deref(), resolve::public_url)?;
    let request = MintRequest {
        scope: scope(args)?,
        ttl: read("ttl", args.ttl.as_deref(), value::duration)?.unwrap_or(mint::DEFAULT_TTL),
        issuer: args.issuer.clone(),
        audience: settings.jwt_audience,
        tunnel: args.name.clone(),
        server: server.as_ref().map(origin_of),
        ..MintRequest::new(&args.user)
    };
    let token = mint::mint(&secret, &request).map_err(|error| Wrong::new(setting_of(&error), error))?;
    let until = humantime::format_rfc3339_seconds(SystemTime::now() + request.ttl);
    let about = format!("{} for {}, valid until {until}", request.scope, args.user.escape_debug());
    if !args.url {
        return Ok(Output { hint: hint(&about, &request), result: format!("{token}\n") });
    }
    let server =
        server.ok_or_else(|| Wrong::new("url", "the server's address is needed: add --server https://HOST"))?;
    let url = format!("{}/t/{token}", origin_of(&server));
    let hint = format!(
        "\n# {about}. One of these lines is all that a program needs:\n\
         export OLLAMA_HOST={url}\n\
         export OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY=none\n\
         # In a browser: {}/app/#token={token}\n",
        origin_of(&server)
    );
    Ok(Output { result: format!("{url}\n"), hint })
}

/// Whoever mints needs the secret that the server has: no new one would do.
fn unreadable(SecretError { path, problem }: SecretError) -> Wrong {
    let problem = match problem {
        SecretProblem::Unreadable(error) => {
            format!("{} cannot be read: {error}; name the file that the server has its secret from", path.display())
        }
        other => SecretError { path, problem: other }.to_string(),
    };
    Wrong::new("jwt-secret-file", problem)
}

fn scope(args: &Args) -> Result<Scope, Wrong> {
    let default = if args.url { Scope::INFER } else { Scope::CONNECT | Scope::PROXY };
    let scope = read("scope", args.scope.as_deref(), |text| text.parse::<Scope>().map_err(|error| error.to_string()))?;
    match scope.unwrap_or(default) {
        scope if args.url && scope.contains(Scope::CONNECT) => {
            Err(Wrong::new("scope", "a token that may connect is refused in a URL; leave connect out"))
        }
        scope => Ok(scope),
    }
}

/// Which flag to name: an error of minting is about one of them.
fn setting_of(error: &mint::MintError) -> &'static str {
    match error {
        mint::MintError::Tunnel => "name",
        mint::MintError::NoScope => "scope",
        mint::MintError::Ttl => "ttl",
        _ => "user",
    }
}

/// What to do with a token, for a person.
fn hint(about: &str, request: &MintRequest) -> String {
    let server = if request.server.is_some() { "" } else { " --server https://HOST" };
    let desktop = format!("desktop, with the token in a file:  tunnel connect --token-file FILE{server}\n");
    let caller = "callers send it as Authorization: Bearer, as API key, or as the password of HTTP Basic\n";
    let desktop = if request.scope.contains(Scope::CONNECT) { &desktop } else { "" };
    let caller = if request.scope.contains(Scope::INFER) { caller } else { "" };
    format!("\n{about}\n{desktop}{caller}")
}

/// Scheme, host and port, without a slash at the end.
fn origin_of(url: &Url) -> String {
    url.origin().ascii_serialization()
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, fs};

    use super::*;
    use crate::cli::{Task, parse};

    fn output(args: &[&str]) -> Output {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        fs::write(&secret, "x".repeat(32)).unwrap();
        let args =
            ["tunneld", "token", "--user", "bob", "--server", "https://h", "--jwt-secret-file"].iter().chain(args);
        let mut args: Vec<OsString> = args.map(OsString::from).collect();
        args.insert(7, secret.into());
        match parse(args) {
            Ok(Task::Done(output)) => output,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_url_comes_with_lines_for_a_shell() {
        let Output { result, hint } = output(&["--url"]);
        let url = result.trim_end();
        assert!(url.starts_with("https://h/t/") && result.lines().count() == 1, "{result}");
        let lines: Vec<_> = hint.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [format!("export OLLAMA_HOST={url}"), format!("export OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY=none")]
        );
    }
}
