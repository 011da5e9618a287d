//! `tunneld check`: what `serve` would run, without running it, and what an administrator should think about.
//!
//! Owns the report. What is worth a thought is in [`advice`].

use std::{
    fmt::{Display, Write},
    time::{Duration, SystemTime},
};

use bytesize::ByteSize;
use tunnel_certs::{about::About, server::ServerCerts};
use tunnel_cli::exit::Exit;
use tunneld::{
    auth::{Allow, AuthConfig, KeySource, revocation::Revocations},
    config::{Config, Limits, TlsFiles},
    provider,
};

use super::{Output, resolve::Serve};

mod advice;

/// Reads the revocations and the certificate as well, and asks the identity provider; the other files were read with the
/// settings.
pub(super) fn run(serve: Serve) -> Result<Output, Exit> {
    let Serve { config, log, mut warnings } = serve;
    if let Some(path) = config.revocations_file.clone() {
        Revocations::open(path).map_err(|error| Exit::usage(format_args!("--revocations-file: {error}")))?;
    }
    let certificate = config.tls.as_ref().and_then(|TlsFiles { cert, key }| ServerCerts::load(cert, key).ok()?.about());
    let now = SystemTime::now();
    warnings.extend(advice::advice(&config, certificate.as_ref(), now));
    let mut who = identities(&config);
    match config.auth.provider.as_ref().map(ask).transpose()? {
        None => {}
        Some(Ok(keys)) => who.push(("provider", format!("answers; keys that can verify tokens: {keys}"))),
        // No reason not to start: it may be down for a moment.
        Some(Err(error)) => warnings.push(format!("no keys from the identity provider: {error}")),
    }
    let mut report = String::from("The configuration is good. `tunneld serve` would run like this:\n");
    let logs = vec![("log", format!("{} ({:?})", log.filter, log.format).to_lowercase())];
    for (title, lines) in [
        ("Where", addresses(&config, certificate.as_ref(), now)),
        ("Who", who),
        ("How much", bounds(&config.limits)),
        ("Administration", [operation(&config), logs].concat()),
    ] {
        write!(report, "\n{title}\n{}", table(&lines)).expect("a String takes everything");
    }
    let title = if warnings.is_empty() { "\nNothing stands out.\n" } else { "\nWorth a thought\n" };
    report.push_str(title);
    for warning in warnings {
        report.push_str(&item(&warning));
    }
    Ok(Output { result: report, hint: String::new() })
}

/// For a program that makes sockets to pass: `deploy/install.sh`.
pub(super) fn sockets(config: &Config) -> Output {
    let admin = config.admin.as_ref().map(|admin| admin.listen);
    let addresses = [Some(config.listen), admin].into_iter().flatten();
    let lines: Vec<String> = addresses.map(|address| format!("{address}\n")).collect();
    Output { result: lines.concat(), hint: String::new() }
}

fn ask(keys: &KeySource) -> Result<Result<usize, String>, Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Exit::failed)?;
    Ok(runtime.block_on(provider::look(keys)))
}

/// Columns until which a line of the report goes, for terminals of the usual width.
const WIDTH: usize = 100;

fn table(lines: &[(&str, String)]) -> String {
    let lines: Vec<String> = lines.iter().map(|(what, how)| format!("  {what:<18}{how}\n")).collect();
    lines.concat()
}

/// A sentence behind a dash, broken between words.
fn item(text: &str) -> String {
    let mut item = String::from("  -");
    let mut column = 3;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column + 1 + length > WIDTH {
            item.push_str("\n   ");
            column = 3;
        }
        item.push(' ');
        item.push_str(word);
        column += 1 + length;
    }
    item + "\n"
}

fn addresses(config: &Config, certificate: Option<&About>, now: SystemTime) -> Vec<(&'static str, String)> {
    let Config { listen, tls, public_url, trusted_proxies, cors_origins, .. } = config;
    let mut lines = Vec::new();
    match tls {
        Some(TlsFiles { cert, .. }) => {
            lines.push(("listens on", format!("https://{listen}, TLS 1.2 and 1.3, HTTP/1.1 and HTTP/2")));
            lines.push(("certificate", cert.display().to_string()));
            if let Some(about) = certificate {
                lines.push(("  for", list(&about.names)));
                lines.push(("  until", until(about.not_after, now)));
            }
        }
        None => lines.push(("listens on", format!("http://{listen}, no TLS: for a proxy that ends it"))),
    }
    let public_url = public_url.as_ref().map(|url| url.origin().ascii_serialization());
    let web = format!("{}/app/", public_url.as_deref().unwrap_or_default());
    lines.push(("reached at", public_url.unwrap_or("whatever address a caller asks for".into())));
    lines.push(("chat in a browser", web));
    lines.push(("trusted proxies", list(trusted_proxies)));
    lines.push(("web pages from", list(cors_origins)));
    lines
}

/// A day, and how far away it is.
fn until(time: SystemTime, now: SystemTime) -> String {
    const DAY: u64 = 24 * 60 * 60;
    let day = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() / DAY);
    let date = humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(day * DAY)).to_string();
    let date = date.split('T').next().unwrap_or_default();
    match time.duration_since(now) {
        Ok(left) => format!("{date}, {} days left", left.as_secs() / DAY),
        Err(_) => format!("{date}, which is over"),
    }
}

fn identities(config: &Config) -> Vec<(&'static str, String)> {
    let AuthConfig { secret, public_key, provider, issuer, audience, allow, require_scope } = &config.auth;
    let mut lines = Vec::new();
    let of_issuer = issuer.as_ref().map_or("of any issuer".to_owned(), |issuer| format!("of {issuer}"));
    if secret.is_some() {
        lines.push(("tokens", "signed with the shared secret (HS256), as `tunneld token` makes them".to_owned()));
    }
    if let Some(key) = public_key {
        lines.push(("tokens", format!("signed for the public key ({}), {of_issuer}", key.algorithm())));
    }
    match provider {
        Some(KeySource::Jwks(url)) => lines.push(("tokens", format!("signed with the keys at {url}, {of_issuer}"))),
        Some(KeySource::Issuer(issuer)) => lines.push(("tokens", format!("signed with the keys of {issuer}"))),
        None => {}
    }
    lines.push(("audience", audience.clone().unwrap_or("not looked at".to_owned())));
    let users = match allow {
        Allow::Any => "everyone with a good token".to_owned(),
        Allow::Users(users) => list(users),
        Allow::Claims(claims) => {
            let claims: Vec<String> = claims.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("whose token says {}", claims.join(" and "))
        }
    };
    lines.push(("users", users));
    let scope = if *require_scope { "nothing" } else { "to connect and to send requests" };
    lines.push(("without scope", format!("a token allows {scope}")));
    if let Some(login) = &config.login {
        lines.push(("signing in", format!("at {}, as client {}", login.issuer, login.client_id)));
    }
    lines
}

fn bounds(limits: &Limits) -> Vec<(&'static str, String)> {
    let time = humantime::format_duration;
    let mut deadline = time(limits.stream_deadline).to_string();
    if limits.max_stream_deadline > limits.stream_deadline {
        write!(deadline, ", {} if a request asks", time(limits.max_stream_deadline))
            .expect("a String takes everything");
    }
    let per_user = format!("{} desktops, {} requests", limits.max_tunnels_per_user, limits.max_streams_per_user);
    let in_all = format!("{}, {} of one address", limits.max_connections, limits.max_connections_per_address);
    let body = limits.max_body.map_or("no limit".to_owned(), |bytes| ByteSize(bytes).to_string());
    vec![
        ("stream deadline", deadline),
        ("stall timeout", time(limits.stall_timeout).to_string()),
        ("per user", per_user),
        ("connections", in_all),
        ("request body", body),
    ]
}

fn operation(config: &Config) -> Vec<(&'static str, String)> {
    let admin = config.admin.as_ref().map(|admin| {
        let opens = if admin.token_file.is_some() { "everything, with its token" } else { "health and metrics only" };
        format!("http://{}: {opens}", admin.listen)
    });
    let kept = config.revocations_file.as_ref().map(|path| format!("kept in {}", path.display()));
    let figures = if config.model_figures { "tokens and speed, in log and metrics" } else { "not looked at" };
    vec![
        ("admin interface", admin.unwrap_or("none".into())),
        ("revocations", kept.unwrap_or("lost at a restart".into())),
        ("model figures", figures.to_owned()),
    ]
}

fn list(items: &[impl Display]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_to_the_certificates_end() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_769_865_420); // 2026-01-31T13:17:00Z
        assert_eq!(until(now + Duration::from_secs(90 * 86_400), now), "2026-05-01, 90 days left");
        assert_eq!(until(now - Duration::from_secs(86_400), now), "2026-01-30, which is over");
    }

    #[test]
    fn sentences_break_between_words() {
        let text = item("word ".repeat(40).trim_end());
        assert!(text.lines().count() == 3 && text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert!(text.starts_with("  - word") && text.lines().nth(1).unwrap().starts_with("    word"), "{text}");
    }
}
