//! `tunneld check`: what `serve` would run, without running it.

use std::fmt::{Display, Write};

use bytesize::ByteSize;
use tunnel_cli::exit::Exit;
use tunneld::{
    auth::{Allow, AuthConfig, KeySource, revocation::Revocations},
    config::{Config, Limits, TlsFiles},
    provider,
};

use super::{Output, resolve::Serve};

/// Reads the revocations as well, and asks the identity provider; the other files were read with the settings.
pub(super) fn run(serve: Serve) -> Result<Output, Exit> {
    let Serve { config, log, mut warnings } = serve;
    if let Some(path) = config.revocations_file.clone() {
        Revocations::open(path).map_err(|error| Exit::usage(format_args!("--revocations-file: {error}")))?;
    }
    let mut told = lines(&config);
    match config.auth.provider.as_ref().map(ask).transpose()? {
        None => {}
        Some(Ok(keys)) => told.push(("provider", format!("answers; keys that can verify tokens: {keys}"))),
        // No reason not to start: it may be down for a moment.
        Some(Err(error)) => warnings.push(format!("no keys from the identity provider: {error}")),
    }
    told.push(("log", format!("{} ({:?})", log.filter, log.format)));
    let mut report = String::from("The configuration is good. tunneld serve would run with:\n\n");
    for (what, how) in told {
        writeln!(report, "  {what:<16}{how}").expect("a String takes everything");
    }
    for warning in warnings {
        writeln!(report, "\nwarning: {warning}").expect("a String takes everything");
    }
    Ok(Output { result: report, hint: String::new() })
}

fn ask(keys: &KeySource) -> Result<Result<usize, String>, Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Exit::failed)?;
    Ok(runtime.block_on(provider::look(keys)))
}

fn lines(config: &Config) -> Vec<(&'static str, String)> {
    let Config { listen, tls, public_url, trusted_proxies, auth, limits, cors_origins, .. } = config;
    let Config { key_files: _, revocations_file, admin, login, .. } = config;
    let listen = match tls {
        Some(TlsFiles { cert, .. }) => format!("https://{listen}, certificate {}", cert.display()),
        None => format!("http://{listen}, no TLS"),
    };
    let public_url =
        public_url.as_ref().map_or("as callers ask for it".into(), |url| url.origin().ascii_serialization());
    let mut lines = vec![("listen", listen), ("public URL", public_url), ("trusted proxies", list(trusted_proxies))];
    lines.extend(tokens(auth));
    let login = login.as_ref().map(|login| format!("at {}, client {}", login.issuer, login.client_id));
    lines.push(("signing in", login.unwrap_or("nowhere: no --oidc-client-id".into())));
    lines.extend(bounds(limits));
    lines.push(("web pages from", list(cors_origins)));
    let kept = revocations_file.as_ref().map(|path| format!("in {}", path.display()));
    lines.push(("revocations", kept.unwrap_or("not kept over a restart".into())));
    let admin = admin.as_ref().map(|admin| {
        format!("http://{}, {}", admin.listen, if admin.token_file.is_some() { "with a token" } else { "health only" })
    });
    lines.push(("admin interface", admin.unwrap_or("none".into())));
    lines
}

fn tokens(auth: &AuthConfig) -> Vec<(&'static str, String)> {
    let AuthConfig { secret, public_key, provider, issuer, audience, allow, require_scope } = auth;
    let secret = secret.as_ref().map(|_| "shared secret (HS256)".to_owned());
    let issuer = issuer.as_ref().map(|issuer| format!(" of issuer {issuer}")).unwrap_or_default();
    let public_key = public_key.as_ref().map(|key| format!("public key ({}){issuer}", key.algorithm()));
    let provider = provider.as_ref().map(|provider| match provider {
        KeySource::Jwks(url) => format!("keys at {url}"),
        KeySource::Issuer(issuer) => format!("keys of {issuer}"),
    });
    let mut tokens: Vec<String> = secret.into_iter().chain(public_key).chain(provider).collect();
    tokens.extend(audience.as_ref().map(|audience| format!("for audience {audience}")));
    let users = match allow {
        Allow::Any => "everyone with a good token".to_owned(),
        Allow::Users(users) => list(users),
        Allow::Claims(claims) => {
            let claims: Vec<String> = claims.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("whose token says {}", claims.join(" and "))
        }
    };
    let scope = if *require_scope { "none" } else { "connect and proxy" };
    vec![("tokens", tokens.join(", ")), ("users", users), ("without scope", format!("a token allows {scope}"))]
}

fn bounds(limits: &Limits) -> Vec<(&'static str, String)> {
    let time = humantime::format_duration;
    let deadline = format!("{}, {} on request", time(limits.stream_deadline), time(limits.max_stream_deadline));
    let per_user = format!("{} desktops, {} requests", limits.max_tunnels_per_user, limits.max_streams_per_user);
    let body = limits.max_body.map_or("no limit".to_owned(), |bytes| ByteSize(bytes).to_string());
    vec![
        ("stream deadline", deadline),
        ("stall timeout", time(limits.stall_timeout).to_string()),
        ("per user", per_user),
        ("body", body),
    ]
}

fn list(items: &[impl Display]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}
