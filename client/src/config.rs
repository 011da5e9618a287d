//! What a client is told to do, in parsed types. Knows nothing of flags, files or the environment.

use std::path::PathBuf;

use thiserror::Error;
use tunnel_frame::policy::Rule;
use url::{Host, Url};

use crate::{
    proxy::Proxies,
    token::{Token, TokenSource},
};

/// Where Ollama listens unless told otherwise.
pub const DEFAULT_UPSTREAM: &str = "http://127.0.0.1:11434";

/// Longest name of a desktop, in bytes: it travels in a header and stands in logs.
pub const MAX_NAME: usize = 64;

/// The settings of one client.
#[derive(Debug, Clone)]
pub struct Config {
    /// The token, or the file to read it from at each dial.
    pub token: TokenSource,
    /// The server; `None` asks the token. Scheme `http` or `https`, no path: see [`server_url`].
    pub server: Option<Url>,
    /// The upstream, scheme `http`, no path: see [`upstream_url`]. Nothing from the wire changes it.
    pub to: Url,
    /// The name of this desktop; `None` asks the token, then the host.
    pub name: Option<String>,
    /// PEM file of a private CA, trusted besides those of the system.
    pub ca: Option<PathBuf>,
    /// The proxies on the way to the server.
    pub proxies: Proxies,
    /// What callers may ask of the upstream; empty allows all.
    pub allow: Vec<Rule>,
    /// Whether the server is told which models there are.
    pub report_models: bool,
}

/// No server to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoServer {
    /// Neither configured nor in the token.
    #[error("no server: the token names none; add --server https://HOST, or mint one with `tunneld token --server`")]
    Unknown,
    /// The token names something that is no server.
    #[error("the token names no usable server ({0}); add --server https://HOST")]
    Unusable(String),
    /// The token would send itself over the network in the clear.
    #[error("the token names {0}, which is not encrypted; if you mean it, add --server {0}")]
    Plain(String),
}

impl Config {
    /// The server to dial with this token.
    pub fn server_for(&self, token: &Token) -> Result<Url, NoServer> {
        self.server.clone().map_or_else(|| claimed_server(token), Ok)
    }

    /// The name of this desktop: as configured, else as [`own_name`] says.
    #[must_use]
    pub fn name_for(&self, token: &Token) -> String {
        self.name.clone().unwrap_or_else(|| own_name(Some(token)))
    }
}

/// The server that a token names. Not over the network in the clear: that is for a person to decide.
pub fn claimed_server(token: &Token) -> Result<Url, NoServer> {
    let claimed = token.claims().server.ok_or(NoServer::Unknown)?;
    let server = server_url(&claimed).map_err(NoServer::Unusable)?;
    if server.scheme() == "https" || is_loopback(&server) { Ok(server) } else { Err(NoServer::Plain(origin(&server))) }
}

/// The name of a desktop that was given none: the one its token is bound to, else that of the host.
#[must_use]
pub fn own_name(token: Option<&Token>) -> String {
    let told = token.and_then(|token| token.claims().tunnel);
    told.unwrap_or_else(|| host_name(&hostname::get().unwrap_or_default().to_string_lossy()))
}

/// Scheme and authority of a URL, without a slash at the end: what people copy.
#[must_use]
pub fn origin(url: &Url) -> String {
    url[..url::Position::BeforePath].to_owned()
}

/// Whether the host of a URL is this machine.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Reads a server's URL: `https`, `http`, `wss` or `ws`, without scheme `https`; scheme, host and port only. The error
/// never repeats what may be a secret.
pub fn server_url(text: &str) -> Result<Url, String> {
    let text = text.trim();
    let (scheme, rest) = match text.split_once("://") {
        None => ("https", text),
        Some(("https" | "wss", rest)) => ("https", rest),
        Some(("http" | "ws", rest)) => ("http", rest),
        Some((other, _)) => return Err(format!("{other}:// is not a scheme of a server; write https://HOST")),
    };
    let url = Url::parse(&format!("{scheme}://{rest}"))
        .map_err(|error| format!("not a URL ({error}); write for example https://tunnel.example.com"))?;
    bare(&url)?;
    Ok(url)
}

/// Reads an upstream: a URL, `HOST:PORT`, or a port of this machine. The default port is 80, as in any `http` URL.
pub fn upstream_url(text: &str) -> Result<Url, String> {
    let text = text.trim();
    let port = text.strip_prefix(':').unwrap_or(text);
    let full = match text.split_once("://") {
        Some(("http", _)) => text.to_owned(),
        Some(("https", _)) => return Err("an https upstream is not supported; give its plain http:// address".into()),
        Some((other, _)) => return Err(format!("{other}:// is not supported; write http://HOST:PORT")),
        None if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => format!("http://127.0.0.1:{port}"),
        None => format!("http://{text}"),
    };
    let url = Url::parse(&full)
        .map_err(|error| format!("{text:?} is not a URL ({error}); write for example {DEFAULT_UPSTREAM}"))?;
    bare(&url)?;
    if url.port() == Some(0) {
        return Err("port 0 is nowhere; write the port on which the upstream listens".into());
    }
    Ok(url)
}

/// Refuses what is lost on the way: a path, a query, a password.
fn bare(url: &Url) -> Result<(), String> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("no user or password in the URL, please; write {}://{}", url.scheme(), host_and_port(url)));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("scheme, host and port only, no path; write {}", origin(url)));
    }
    Ok(())
}

fn host_and_port(url: &Url) -> &str {
    &url[url::Position::BeforeHost..url::Position::AfterPort]
}

/// Checks the name of a desktop: letters, digits, `.`, `_` and `-`.
pub fn desktop_name(text: &str) -> Result<String, String> {
    let fits = (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_name_byte);
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is no name; use 1 to {MAX_NAME} of a-z A-Z 0-9 . _ -"))
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

/// A host's name as the name of a desktop: its first label, anything odd in it replaced.
fn host_name(host: &str) -> String {
    let label = host.split('.').next().unwrap_or_default();
    let tame = |c: char| if c.is_ascii() && is_name_byte(c as u8) { c } else { '-' };
    let name: String = label.chars().map(tame).take(MAX_NAME).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "desktop".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

    use super::*;

    fn token(claims: &str) -> Token {
        Token::parse(&format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims))).unwrap()
    }

    fn config() -> Config {
        Config {
            token: TokenSource::Inline(token("{}")),
            server: None,
            to: upstream_url(DEFAULT_UPSTREAM).unwrap(),
            name: None,
            ca: None,
            proxies: Proxies::default(),
            allow: Vec::new(),
            report_models: true,
        }
    }

    #[test]
    fn servers() {
        let read = |text| server_url(text).map(|url| origin(&url));
        assert_eq!(read("tunnel.example.com"), Ok("https://tunnel.example.com".into()));
        assert_eq!(read("tunnel.example.com:8443"), Ok("https://tunnel.example.com:8443".into()));
        assert_eq!(read("wss://a.example/"), Ok("https://a.example".into()));
        assert_eq!(read("ws://localhost:8080"), Ok("http://localhost:8080".into()));
        assert_eq!(read(" https://[::1]:8443 "), Ok("https://[::1]:8443".into()));
        for bad in ["", "ftp://a", "https://", "https://a:b@c", "https://a/t/secret", "https://a?secret", "a b"] {
            let error = read(bad).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn upstreams() {
        let read = |text| upstream_url(text).map(|url| origin(&url));
        assert_eq!(read("11434"), Ok("http://127.0.0.1:11434".into()));
        assert_eq!(read(":8080"), Ok("http://127.0.0.1:8080".into()));
        assert_eq!(read("localhost:11434"), Ok("http://localhost:11434".into()));
        assert_eq!(read("http://10.0.0.7:8080/"), Ok("http://10.0.0.7:8080".into()));
        assert_eq!(read("[::1]:9"), Ok("http://[::1]:9".into()));
        for bad in ["", "https://127.0.0.1", "unix:///run/x", "http://a/b", "http://u:p@a", "0", "70000", "a:b:c"] {
            assert!(read(bad).is_err(), "{bad} passed as {:?}", read(bad));
        }
        assert!(read("https://127.0.0.1").unwrap_err().contains("not supported"));
    }

    #[test]
    fn the_server_may_come_from_the_token() {
        let server = |claims| config().server_for(&token(claims)).map(|url| origin(&url));
        assert_eq!(server("{}"), Err(NoServer::Unknown));
        assert_eq!(server(r#"{"tunnel_server":"https://a.example"}"#), Ok("https://a.example".into()));
        assert_eq!(server(r#"{"tunnel_server":"http://127.0.0.1:80"}"#), Ok("http://127.0.0.1".into()));
        assert_eq!(server(r#"{"tunnel_server":"http://a.example"}"#), Err(NoServer::Plain("http://a.example".into())));
        assert!(matches!(server(r#"{"tunnel_server":"ftp://a"}"#), Err(NoServer::Unusable(_))));
        let told = Config { server: Some(server_url("http://b.example").unwrap()), ..config() };
        let claims = token(r#"{"tunnel_server":"https://a.example"}"#);
        assert_eq!(told.server_for(&claims).map(|url| origin(&url)), Ok("http://b.example".into()));
    }

    #[test]
    fn names() {
        assert_eq!(desktop_name("studio-2.local"), Ok("studio-2.local".into()));
        for bad in ["", "a b", "a\n", "caf\u{e9}", &"x".repeat(65)] {
            assert!(desktop_name(bad).is_err(), "{bad}");
        }
        assert_eq!(host_name("Bobs MacBook.local"), "Bobs-MacBook");
        assert_eq!(host_name("\u{e9}\u{e9}"), "desktop");
        assert_eq!(host_name(""), "desktop");
        let bound = token(r#"{"tunnel":"attic"}"#);
        assert_eq!(config().name_for(&bound), "attic");
        assert_eq!(Config { name: Some("b".into()), ..config() }.name_for(&bound), "b");
        assert!(desktop_name(&config().name_for(&token("{}"))).is_ok());
    }
}
