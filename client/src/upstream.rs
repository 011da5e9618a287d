//! The upstream: the HTTP server behind this client, and the only address that it ever asks.
//!
//! Owns the pool of connections and how a head from the wire becomes a request. Nothing from the wire chooses a host;
//! redirects are not followed.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response, Uri, header, uri::PathAndQuery};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tunnel_certs::client::reason;
use tunnel_frame::{Abort, AbortCode, BodySize, RequestHead, hop};
use url::Url;

use crate::{body::RequestBody, config::origin};

/// An upstream may close an idle connection at any moment (llama-server: 5 s); one that is used sooner is alive.
const IDLE: Duration = Duration::from_secs(2);

/// An upstream on this machine accepts at once or not at all; one on the local network may take a retransmission.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// Bytes that a connection buffers in each direction; hyper's default is 400 KiB.
const BUFFER: usize = 64 * 1024;

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

/// The HTTP server that answers the requests.
pub(crate) struct Upstream {
    origin: String,
    /// The origin again, as the library wants it. Empty, and no request gets anywhere, if no URI can have such a host.
    base: Uri,
    client: Client<HttpConnector, RequestBody>,
}

impl Upstream {
    /// An upstream at the scheme and authority of `to`. Connects to nothing yet.
    pub(crate) fn new(to: &Url) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_WITHIN));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .http1_max_buf_size(BUFFER)
            .build(connector);
        let origin = origin(to);
        Self { base: Uri::try_from(&origin).unwrap_or_default(), origin, client }
    }

    /// Sends a request and waits for the head of the final response.
    ///
    /// A pooled connection that turns out to be dead before anything was sent is replaced once by the pool.
    pub(crate) async fn send(&self, head: RequestHead, body: RequestBody) -> Result<Response<Incoming>, Abort> {
        let request = self.request(head, body)?;
        self.client.request(request).await.map_err(|error| {
            let code = if error.is_connect() { AbortCode::UpstreamUnreachable } else { AbortCode::UpstreamError };
            Abort::new(code, reason(&error))
        })
    }

    /// Asks on our own behalf.
    pub(crate) async fn ask(&self, method: http::Method, target: &str) -> Result<Response<Incoming>, Abort> {
        self.send(RequestHead { target: target.into(), ..head(method) }, RequestBody::empty()).await
    }

    /// Whether something listens there; the reason if not.
    pub(crate) async fn probe(&self) -> Result<(), String> {
        match tokio::time::timeout(CONNECT_WITHIN, self.ask(http::Method::HEAD, "/")).await {
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
        let mut uri = self.base.clone().into_parts();
        uri.path_and_query = Some(target);
        let uri = Uri::from_parts(uri).map_err(|_| bad())?;
        let mut headers = head.headers;
        hop::strip_hop_by_hop(&mut headers);
        for name in &NOT_PASSED_ON {
            headers.remove(name);
        }
        if let BodySize::Known(len) = head.body {
            headers.insert(header::CONTENT_LENGTH, len.into());
        }
        let mut request = Request::new(body);
        *request.method_mut() = head.method;
        *request.uri_mut() = uri;
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
            upstream.request(head, RequestBody::empty()).map(|request| request.uri().to_string())
        };
        assert_eq!(asked("/a%2Fb?c"), Ok("http://127.0.0.1/a%2Fb?c".into()));
        assert_eq!(asked("//evil.example/"), Ok("http://127.0.0.1//evil.example/".into()));
        for target in ["*", ".evil.example/", ":1/", "@evil.example/", "http://evil.example/", "?a"] {
            assert_eq!(asked(target).map_err(|abort| abort.code), Err(AbortCode::BadRequest), "{target}");
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
