//! HTTP proxies on the way to the server: which one a server is reached through, and how it is asked for a way
//! (CONNECT, RFC 9110 §9.3.6).
//!
//! User and password of a proxy go to that proxy and nowhere else: they are in no error, log or `Debug`.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Empty;
use hyper_util::{client::proxy::matcher::Matcher, rt::TokioIo};
use percent_encoding::percent_decode_str;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use crate::config::is_loopback;

/// Through which proxy a server is reached. The default is none.
#[derive(Debug, Clone, Default)]
pub struct Proxies(Choice);

#[derive(Debug, Clone, Default)]
enum Choice {
    #[default]
    Direct,
    Always(Proxy),
    Environment {
        https: Result<Option<Proxy>, String>,
        all: Result<Option<Proxy>, String>,
        except: String,
    },
}

impl Proxies {
    /// This one, for every server: somebody has said so.
    #[must_use]
    pub fn always(proxy: Proxy) -> Self {
        Self(Choice::Always(proxy))
    }

    /// As the variables of the environment say: `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`. Never for this machine. A value
    /// that cannot be used matters only to a server that would be reached through it.
    #[must_use]
    pub fn from_variables(https: Option<&str>, all: Option<&str>, except: Option<&str>) -> Self {
        let proxy = |name: &str, text: Option<&str>| {
            text.map(Proxy::parse).transpose().map_err(|problem| format!("{name}: {problem}; --proxy none ignores it"))
        };
        Self(Choice::Environment {
            https: proxy("HTTPS_PROXY", https),
            all: proxy("ALL_PROXY", all),
            except: except.unwrap_or_default().to_owned(),
        })
    }

    /// The proxy for this server; the error is one sentence about a variable that cannot be used.
    pub fn for_server(&self, server: &Url) -> Result<Option<&Proxy>, String> {
        match &self.0 {
            Choice::Direct => Ok(None),
            Choice::Always(proxy) => Ok(Some(proxy)),
            Choice::Environment { except, .. } if is_loopback(server) || is_excepted(server, except) => Ok(None),
            Choice::Environment { https, all, .. } => {
                let https = if server.scheme() == "https" { https.as_ref() } else { Ok(&None) };
                match https.map_err(Clone::clone)? {
                    Some(proxy) => Ok(Some(proxy)),
                    None => all.as_ref().map(Option::as_ref).map_err(Clone::clone),
                }
            }
        }
    }
}

/// Whether `NO_PROXY` lists a server: hosts, domains with all below them, addresses, networks, or `*`.
fn is_excepted(server: &Url, except: &str) -> bool {
    let anything = except.split(',').any(|entry| entry.trim() == "*");
    let would_intercept = || {
        let host = server.host_str()?;
        let uri = format!("https://{host}").parse().ok()?;
        Matcher::builder().all("http://proxy").no(except).build().intercept(&uri)
    };
    anything || would_intercept().is_none()
}

/// An HTTP proxy. Displays as its URL, without user and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    credential: Option<HeaderValue>,
}

/// Why a proxy gives no way to a server.
#[derive(Debug, Error)]
pub enum ProxyError {
    /// 407, and the proxy's URL has no user.
    #[error("the proxy {0} wants a user and password: write them into its URL, as in http://USER:PASSWORD@HOST:PORT")]
    WantsCredential(Proxy),
    /// 407 all the same.
    #[error("the proxy {0} does not accept the user and password in its URL (407)")]
    RefusedCredential(Proxy),
    /// Another no.
    #[error("the proxy {0} answered {1} when asked for {2}: it must allow CONNECT to that host and port")]
    Refused(Proxy, StatusCode, String),
    /// No answer in HTTP.
    #[error("the proxy {0} broke off, or is no HTTP proxy: {1}")]
    Broken(Proxy, String),
}

impl Proxy {
    /// Reads `http://HOST:PORT`, with `USER:PASSWORD@` if the proxy wants that; without a scheme it is `http`. The error
    /// repeats nothing of the text, which may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXAMPLE: &str = "write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT";
        let text = text.trim();
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&full).map_err(|error| format!("not the URL of a proxy ({error}); {EXAMPLE}"))?;
        if url.scheme() != "http" {
            return Err(format!("{}:// proxies are not supported; {EXAMPLE}", url.scheme()));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(format!("the URL of a proxy has no path; {EXAMPLE}"));
        }
        let host = url.host_str().ok_or_else(|| format!("no host; {EXAMPLE}"))?.to_owned();
        let decoded = |part: &str| percent_decode_str(part).collect::<Vec<u8>>();
        let credential = (!url.username().is_empty() || url.password().is_some()).then(|| {
            let pair = [&decoded(url.username()), &b":"[..], &decoded(url.password().unwrap_or_default())].concat();
            let mut value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair)))
                .expect("base64 stands in every header");
            value.set_sensitive(true);
            value
        });
        Ok(Self { host, port: url.port_or_known_default().unwrap_or(80), credential })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> (&str, u16) {
        (self.host.trim_start_matches('[').trim_end_matches(']'), self.port)
    }

    /// Asks the proxy behind `stream` for a way to `target`, `HOST:PORT`. What is written then reaches that.
    pub(crate) async fn tunnel(&self, stream: TcpStream, target: &str) -> Result<TcpStream, ProxyError> {
        let broken = |error: hyper::Error| ProxyError::Broken(self.clone(), error.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()));
        let mut request = Request::connect(target)
            .header(header::HOST, target)
            .header(header::USER_AGENT, crate::USER_AGENT)
            .body(Empty::<Bytes>::new())
            .map_err(|error| ProxyError::Broken(self.clone(), error.to_string()))?;
        if let Some(credential) = &self.credential {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, credential.clone());
        }
        let response = sender.send_request(request).await.map_err(broken)?;
        match response.status() {
            status if status.is_success() => {}
            StatusCode::PROXY_AUTHENTICATION_REQUIRED if self.credential.is_none() => {
                return Err(ProxyError::WantsCredential(self.clone()));
            }
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => return Err(ProxyError::RefusedCredential(self.clone())),
            status => return Err(ProxyError::Refused(self.clone(), status, target.to_owned())),
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(broken)?;
        let parts = upgraded.downcast::<TokioIo<TcpStream>>().expect("what was handed in comes back");
        if parts.read_buf.is_empty() {
            Ok(parts.io.into_inner())
        } else {
            // Neither TLS nor HTTP lets a server speak first.
            Err(ProxyError::Broken(self.clone(), "it sent bytes of its own".into()))
        }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_proxies() {
        let read = |text| Proxy::parse(text).map(|proxy| proxy.to_string());
        assert_eq!(read("http://proxy.example:3128/"), Ok("http://proxy.example:3128".into()));
        assert_eq!(read("proxy.example:3128"), Ok("http://proxy.example:3128".into()));
        assert_eq!(read("http://proxy.example"), Ok("http://proxy.example:80".into()));
        assert_eq!(Proxy::parse("http://[::1]:8").unwrap().address(), ("::1", 8));
        for bad in ["", "http://", "socks5://a:1", "https://a:1", "http://a/path", "http://u:secret@a:b"] {
            let error = read(bad).unwrap_err();
            assert!(error.contains("http://HOST:PORT") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn t32_user_and_password_show_nowhere() {
        let proxy = Proxy::parse("http://bob:p%40ss%3Aword@proxy.example:3128").unwrap();
        let expected = format!("Basic {}", BASE64_STANDARD.encode("bob:p@ss:word"));
        assert_eq!(proxy.credential.as_ref().unwrap(), &expected);
        let shown = format!("{proxy} {proxy:?} {}", ProxyError::RefusedCredential(proxy.clone()));
        for secret in ["ss", "bob", &expected[6..]] {
            assert!(!shown.replace("password", "").contains(secret), "{shown}");
        }
    }

    #[test]
    fn which_servers_are_reached_through_which_proxy() {
        let through = |proxies: &Proxies, server: &str| {
            proxies.for_server(&Url::parse(server).unwrap()).map(|proxy| proxy.map(|proxy| proxy.host.clone()))
        };
        let all = Proxies::from_variables(None, Some("http://all"), None);
        let both = Proxies::from_variables(
            Some("http://secure"),
            Some("http://all"),
            Some("example.net, .corp.example,10.0.0.0/8"),
        );
        assert_eq!(through(&both, "https://tunnel.example.com"), Ok(Some("secure".into())));
        assert_eq!(through(&both, "http://tunnel.example.com"), Ok(Some("all".into())));
        assert_eq!(through(&all, "https://tunnel.example.com"), Ok(Some("all".into())));
        for direct in ["example.net", "a.example.net", "x.corp.example", "10.1.2.3", "127.0.0.1", "localhost", "[::1]"]
        {
            assert_eq!(through(&both, &format!("https://{direct}:8443")), Ok(None), "{direct}");
        }
        assert_eq!(through(&both, "https://notexample.net"), Ok(Some("secure".into())));
        let none = Proxies::from_variables(Some("http://secure"), None, Some("*"));
        assert_eq!(through(&none, "https://9.9.9.9"), Ok(None));
        let told = Proxies::always(Proxy::parse("http://told").unwrap());
        assert_eq!(through(&told, "https://127.0.0.1"), Ok(Some("told".into())));
        assert_eq!(through(&Proxies::default(), "https://tunnel.example.com"), Ok(None));
    }

    #[test]
    fn a_variable_that_cannot_be_used_matters_only_where_it_would_be() {
        let proxies = Proxies::from_variables(Some("socks5://a:1"), None, None);
        let for_server = |server: &str| proxies.for_server(&Url::parse(server).unwrap()).map(|_| ());
        assert_eq!(for_server("https://127.0.0.1"), Ok(()));
        assert_eq!(for_server("http://tunnel.example.com"), Ok(()));
        let problem = for_server("https://tunnel.example.com").unwrap_err();
        assert!(problem.starts_with("HTTPS_PROXY: socks5:// proxies are not supported"), "{problem}");
    }
}
