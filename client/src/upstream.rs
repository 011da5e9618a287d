//! The upstream: the HTTP server behind this client, and the only address that it ever asks.
//!
//! Owns how a head from the wire becomes a request, and which connection carries it. Nothing from the wire chooses a
//! host; redirects are not followed.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response, header, uri::PathAndQuery};
use tokio::time::timeout;
use tunnel_certs::client::reason;
use tunnel_frame::{Abort, AbortCode, BodySize, RequestHead, hop};
use url::Url;

use crate::{
    body::RequestBody,
    config::origin,
    connection::{Connection, Idle, ResponseBody},
    connector::host_and_port,
};

/// An upstream on this machine accepts at once or not at all; one on the local network may take a retransmission.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// What neither side is told about the other: its address, its credentials and cookies, and which page asked. Ollama
/// answers an Origin that it does not know with 403. `Expect` is answered on the way.
pub(crate) const NOT_PASSED_ON: [header::HeaderName; 7] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::EXPECT,
    header::HOST,
    header::ORIGIN,
    header::PROXY_AUTHORIZATION,
    header::REFERER,
];

/// Of a body without a length. Unless it is said, the library leaves out the body of a GET, and nobody is told.
pub(crate) const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");

/// The HTTP server that answers the requests.
pub(crate) struct Upstream {
    origin: String,
    address: (String, u16),
    /// What it is told in `Host`.
    host: HeaderValue,
    idle: Idle,
}

impl Upstream {
    /// An upstream at the scheme and authority of `to`. Connects to nothing yet.
    pub(crate) fn new(to: &Url) -> Self {
        let (origin, (host, port)) = (origin(to), host_and_port(to));
        Self {
            address: (host.to_owned(), port),
            host: HeaderValue::from_str(to.authority()).expect("the host of a URL is ASCII"),
            origin,
            idle: Idle::default(),
        }
    }

    /// Sends a request and waits for the head of the final response.
    ///
    /// An idle connection that turns out to be dead before anything was sent is replaced by another.
    pub(crate) async fn send(&self, head: RequestHead, body: RequestBody) -> Result<Response<ResponseBody>, Abort> {
        let mut request = self.request(head, body)?;
        loop {
            let (mut connection, is_new) = match self.idle.take() {
                Some(connection) => (connection, false),
                None => (self.connect().await?, true),
            };
            match connection.send(request).await {
                Ok(response) => {
                    return Ok(response.map(|body| ResponseBody::new(body, connection, self.idle.clone())));
                }
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) if !is_new => request = unsent,
                    _ => return Err(Abort::new(AbortCode::UpstreamError, reason(failed.error()))),
                },
            }
        }
    }

    async fn connect(&self) -> Result<Connection, Abort> {
        let (host, port) = &self.address;
        let connected = timeout(CONNECT_WITHIN, Connection::open((host, *port))).await;
        let why = match connected {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => reason(&error),
            Err(_) => format!("no connection within {} s", CONNECT_WITHIN.as_secs()),
        };
        Err(Abort::new(AbortCode::UpstreamUnreachable, why))
    }

    /// Asks on our own behalf.
    pub(crate) async fn ask(&self, method: http::Method, target: &str) -> Result<Response<ResponseBody>, Abort> {
        self.send(RequestHead { target: target.into(), ..head(method) }, RequestBody::empty()).await
    }

    /// Whether something listens there; the reason if not.
    pub(crate) async fn probe(&self) -> Result<(), String> {
        match timeout(CONNECT_WITHIN, self.ask(http::Method::HEAD, "/")).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(abort)) => Err(abort.message),
            Err(_) => Err(format!("no answer within {} s", CONNECT_WITHIN.as_secs())),
        }
    }

    /// The end-to-end headers of a response. A redirect to the upstream itself becomes one to a path: only this side
    /// knows the upstream's address, and nobody else needs it.
    pub(crate) fn response_headers(&self, mut headers: HeaderMap) -> HeaderMap {
        hop::strip_hop_by_hop(&mut headers);
        let to_self = headers.get(header::LOCATION).and_then(|to| to.to_str().ok()?.strip_prefix(&self.origin));
        let path = match to_self {
            Some("") => Some(HeaderValue::from_static("/")),
            Some(path) if path.starts_with('/') => HeaderValue::from_str(path).ok(),
            _ => None,
        };
        if let Some(path) = path {
            headers.insert(header::LOCATION, path);
        }
        headers
    }

    fn request(&self, head: RequestHead, body: RequestBody) -> Result<Request<RequestBody>, Abort> {
        // The library would write the upstream's address for a target, and take what follows for a tunnel of bytes.
        if head.method == http::Method::CONNECT {
            return Err(Abort::new(AbortCode::BadRequest, "CONNECT does not go through a tunnel"));
        }
        let bad = || Abort::new(AbortCode::BadRequest, "the request target is not a path");
        let target = PathAndQuery::try_from(head.target).map_err(|_| bad())?;
        if !target.as_str().starts_with('/') {
            return Err(bad());
        }
        let mut headers = head.headers;
        hop::strip_hop_by_hop(&mut headers);
        for name in &NOT_PASSED_ON {
            headers.remove(name);
        }
        headers.insert(header::HOST, self.host.clone());
        match head.body {
            BodySize::Empty => {}
            BodySize::Known(len) => _ = headers.insert(header::CONTENT_LENGTH, len.into()),
            BodySize::Unknown => _ = headers.insert(header::TRANSFER_ENCODING, CHUNKED),
        }
        let mut request = Request::new(body);
        *request.method_mut() = head.method;
        *request.uri_mut() = target.into();
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// The head of a request of our own.
fn head(method: http::Method) -> RequestHead {
    RequestHead {
        method,
        target: "/".into(),
        headers: HeaderMap::new(),
        deadline: CONNECT_WITHIN,
        request_id: String::new(),
        scope: 0,
        body: BodySize::Empty,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_path_of_the_upstream_or_nothing() {
        let upstream = Upstream::new(&Url::parse("http://127.0.0.1").unwrap());
        let asked = |target: &str| {
            let head = RequestHead { target: target.into(), ..head(http::Method::GET) };
            let request = upstream.request(head, RequestBody::empty()).map_err(|abort| abort.code)?;
            Ok((request.uri().to_string(), request.headers()[header::HOST].to_str().unwrap().to_owned()))
        };
        for target in ["/a%2Fb?c", "//evil.example/"] {
            assert_eq!(asked(target), Ok((target.into(), "127.0.0.1".into())));
        }
        for target in ["*", ".evil.example/", ":1/", "@evil.example/", "http://evil.example/", "?a"] {
            assert_eq!(asked(target), Err(AbortCode::BadRequest), "{target}");
        }
    }

    #[test]
    fn a_redirect_to_the_upstream_is_one_to_a_path() {
        let upstream = Upstream::new(&Url::parse("http://127.0.0.1:11434").unwrap());
        for (from, to) in [
            ("http://127.0.0.1:11434/a?b", "/a?b"),
            ("http://127.0.0.1:11434", "/"),
            ("http://127.0.0.1:114349/a", "http://127.0.0.1:114349/a"),
            ("https://example.com/", "https://example.com/"),
            ("/a", "/a"),
        ] {
            let headers = HeaderMap::from_iter([(header::LOCATION, HeaderValue::from_static(from))]);
            assert_eq!(upstream.response_headers(headers)[header::LOCATION], to);
        }
    }
}
