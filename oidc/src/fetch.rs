//! One small HTTP exchange with a server that is trusted to say who it is, and with nothing else.
//!
//! Owns the limits: https (plain http only on this machine), 10 s from the first packet to the last, 128 KiB, and no
//! redirects. Knows nothing of what is asked.

use std::{fmt, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{Client, Error, connect::Connect},
    rt::TokioExecutor,
};
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::time::timeout;
use url::{Host, Url};

/// From the first packet to the last byte of the answer.
const WITHIN: Duration = Duration::from_secs(10);

/// The largest answer. The largest honest ones are sets of keys with certificates, some 30 KB.
const MAX_BYTES: usize = 128 * 1024;

/// Asks. Each exchange has a connection of its own: there are few, minutes apart.
#[derive(Clone)]
pub struct Fetcher(Arc<dyn Ask>);

/// hyper's client, whatever it connects with.
trait Ask: Send + Sync {
    fn ask(&self, request: Request<Full<Bytes>>) -> Exchange;
}

type Exchange = Pin<Box<dyn Future<Output = Result<Response<Incoming>, Error>> + Send>>;

impl<C: Connect + Clone + Send + Sync + 'static> Ask for Client<C, Full<Bytes>> {
    fn ask(&self, request: Request<Full<Bytes>>) -> Exchange {
        Box::pin(self.request(request))
    }
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body, whole.
    pub body: Bytes,
}

/// Why there is no answer that can be used. Reads as the end of a sentence that starts with the address.
#[derive(Debug, Error)]
pub enum FetchError {
    /// Everyone on the way could have written the answer.
    #[error("is not encrypted; only https:// is trusted, and http:// on this machine")]
    NotEncrypted,
    /// A provider on the network names an address that only this machine, or a network around it, can reach.
    #[error("is nearer to this machine than who names it; a provider may not send us there")]
    Inside,
    /// Not an address that can be asked.
    #[error("is no address of a server")]
    NoServer,
    /// No connection, or it broke off.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// Silence.
    #[error("did not answer within {} s", WITHIN.as_secs())]
    TooSlow,
    /// Endless, perhaps.
    #[error("answered with more than {} KiB", MAX_BYTES / 1024)]
    TooLarge,
    /// Neither the document that was asked for nor a reason.
    #[error("answered {0}{hint}", hint = if .0.is_redirection() { "; redirects are not followed" } else { "" })]
    Status(StatusCode),
    /// Something else.
    #[error("answered something else than was asked for: {0}")]
    Malformed(serde_json::Error),
}

impl Fetcher {
    /// Connects by itself, and trusts whom `tls` trusts.
    #[must_use]
    pub fn new(mut tls: ClientConfig) -> Self {
        tls.alpn_protocols.clear(); // the connector sets its own
        Self::over(HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build())
    }

    /// Connects with `connector`, which verifies whom it connects to.
    #[must_use]
    pub fn over(connector: impl Connect + Clone + Send + Sync + 'static) -> Self {
        Self(Arc::new(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector)))
    }

    /// The document at an address: its status must be 200.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn get(&self, url: &Url) -> Result<Bytes, FetchError> {
        let answer = self.ask(url, Request::get(url.as_str()), Bytes::new()).await?;
        if answer.status == StatusCode::OK { Ok(answer.body) } else { Err(FetchError::Status(answer.status)) }
    }

    /// The same, read as JSON.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn get_json<T: DeserializeOwned>(&self, url: &Url) -> Result<T, FetchError> {
        serde_json::from_slice(&self.get(url).await?).map_err(FetchError::Malformed)
    }

    /// The answer to a request with a bearer token.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn get_as(&self, url: &Url, token: &str) -> Result<Answer, FetchError> {
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| FetchError::NoServer)?;
        bearer.set_sensitive(true);
        self.ask(url, Request::get(url.as_str()).header(header::AUTHORIZATION, bearer), Bytes::new()).await
    }

    /// The answer to a form (`application/x-www-form-urlencoded`), as all endpoints of OAuth take it.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn post_form(&self, url: &Url, fields: &[(&str, &str)]) -> Result<Answer, FetchError> {
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = Request::post(url.as_str()).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.ask(url, request, form.into()).await
    }

    async fn ask(&self, url: &Url, request: http::request::Builder, body: Bytes) -> Result<Answer, FetchError> {
        check(url)?;
        let request = request
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("tunnel/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|_| FetchError::NoServer)?;
        let exchange = async {
            let response = self
                .0
                .ask(request)
                .await
                .map_err(|error| FetchError::Unreachable(tunnel_certs::client::reason(&error)))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_BYTES).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    FetchError::TooLarge
                } else {
                    FetchError::Unreachable("the answer broke off".into())
                }
            })?;
            Ok(Answer { status: head.status, body: body.to_bytes() })
        };
        timeout(WITHIN, exchange).await.unwrap_or(Err(FetchError::TooSlow))
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fetcher")
    }
}

/// Whether an address may be asked: https, or a server of this machine.
///
/// # Errors
/// [`FetchError::NotEncrypted`], [`FetchError::NoServer`].
pub fn check(url: &Url) -> Result<(), FetchError> {
    let reach = Reach::of(url).ok_or(FetchError::NoServer)?;
    match url.scheme() {
        _ if !url.username().is_empty() || url.password().is_some() => Err(FetchError::NoServer),
        "https" => Ok(()),
        "http" if reach == Reach::Machine => Ok(()),
        "http" => Err(FetchError::NotEncrypted),
        _ => Err(FetchError::NoServer),
    }
}

/// Who can reach an address, as far as it says so itself. A name may be of any network, and is taken for one of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// This machine alone.
    Machine,
    /// A network around it.
    Network,
    /// Everyone.
    World,
}

impl Reach {
    /// `None`: it names no server.
    pub(crate) fn of(url: &Url) -> Option<Self> {
        let address = match url.host()? {
            Host::Domain(name) => {
                let name = name.trim_end_matches('.');
                let is_local = name == "localhost" || name.ends_with(".localhost");
                return Some(if is_local { Self::Machine } else { Self::World });
            }
            Host::Ipv4(address) => IpAddr::V4(address),
            Host::Ipv6(address) => IpAddr::V6(address).to_canonical(),
        };
        let is_near = match address {
            IpAddr::V4(address) => {
                address.is_private() || address.is_link_local() || matches!(address.octets(), [100, 64..128, ..])
            }
            IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
        };
        Some(match address {
            // To connect to the unspecified address is to connect to this machine.
            _ if address.is_loopback() || address.is_unspecified() => Self::Machine,
            _ if is_near => Self::Network,
            _ => Self::World,
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn t17_only_https_and_this_machine_are_asked() {
        let checked = |url: &str| check(&Url::parse(url).unwrap()).map_err(|error| error.to_string());
        for good in ["https://id.example/x", "http://127.0.0.1:1", "http://[::1]/x", "http://localhost:80"] {
            assert_eq!(checked(good), Ok(()), "{good}");
        }
        for bad in ["http://id.example", "http://127.0.0.1.example", "http://10.0.0.1", "http://localhost.example"] {
            assert!(checked(bad).unwrap_err().contains("not encrypted"), "{bad}");
        }
        for bad in ["file:///etc/passwd", "ftp://id.example", "https://user@id.example", "https://a:b@id.example"] {
            assert!(checked(bad).unwrap_err().contains("no address"), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_port_of_tls_is_named_as_such() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            // An alert (RFC 8446 §6): what a server of TLS answers to text.
            stream.write_all(b"\x15\x03\x01\0\x02\x02\x0a").await.unwrap();
            stream
        };
        let fetcher = Fetcher::over(hyper_util::client::legacy::connect::HttpConnector::new());
        let (error, _stream) = tokio::join!(async { fetcher.get(&url).await.unwrap_err().to_string() }, serving);
        assert!(error.contains("HTTPS (TLS)") && !error.contains("parsed"), "{error}");
    }

    #[test]
    fn a_redirect_is_named_as_such() {
        assert_eq!(FetchError::Status(StatusCode::FOUND).to_string(), "answered 302 Found; redirects are not followed");
        assert_eq!(FetchError::Status(StatusCode::NOT_FOUND).to_string(), "answered 404 Not Found");
    }
}
