//! A local port that adds the token and trusts the CA, for programs that can do neither.
//!
//! Reads top to bottom: accept, ask the `guard` who may come in, send on, relay; `seldom` bounds what is said of
//! failures. Bodies are relayed as they come in both directions, with no queue but hyper's own buffers; who leaves is
//! dropped, and with that the request to the server. Speaks HTTP/1.1 toward the server: a slow reader then holds up
//! nobody else.

mod guard;
mod seldom;
mod sorry;

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, header, uri::PathAndQuery};
use http_body::Body as _;
use http_body_util::{Either, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{net::TcpListener, time::timeout};
use tracing::{debug, warn};
use tunnel_frame::hop;
use url::Url;

pub use self::guard::{Guard, allowed_origin};
use self::{
    seldom::{Kind, Seldom},
    sorry::Sorry,
};
use crate::{
    config::{NoServer, claimed_server, origin},
    connector::Connector,
    token::{Token, TokenSource},
    upstream::{CHUNKED, NOT_PASSED_ON},
};

/// tunneld closes idle connections after 10 s: be first, so that no request meets a closing one.
const IDLE: Duration = Duration::from_secs(5);

/// How long a program may take to send the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// How long requests in flight may take to finish at the end.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// Bytes that a connection buffers in each direction; hyper's default is 400 KiB.
const BUFFER: usize = 64 * 1024;

/// Another way to send a credential, of which the server gets ours alone.
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The header that names one of several desktops.
const TUNNEL_NAME: HeaderName = HeaderName::from_static("tunnel-name");

type Body = Either<Full<Bytes>, Incoming>;

/// What the port does.
#[derive(Debug)]
pub struct Forward {
    /// The server; `None` asks the token.
    pub server: Option<Url>,
    /// The token, or the file to read it from for each request.
    pub token: TokenSource,
    /// The desktop to ask for, where there are several.
    pub name: Option<HeaderValue>,
    /// The way to the server.
    pub connector: Connector,
    /// Who may use the port.
    pub guard: Guard,
}

struct Shared {
    forward: Forward,
    client: Client<Connector, Incoming>,
    seldom: Seldom,
}

impl Forward {
    /// Serves the port until `shutdown` resolves and the requests in flight are answered.
    pub async fn run(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .http1_max_buf_size(BUFFER)
            .build(self.connector.clone());
        let shared = Arc::new(Shared { forward: self, client, seldom: Seldom::default() });
        let graceful = GracefulShutdown::new();
        let mut connections = tokio::task::JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_ended) = connections.join_next() => continue,
                () = &mut shutdown => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    pause_after(&error, &shared.seldom).await;
                    continue;
                }
            };
            _ = stream.set_nodelay(true);
            let shared = Arc::clone(&shared);
            let service = service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, std::convert::Infallible>(shared.answer(request).await) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(BUFFER);
            let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
            connections.spawn(async move {
                if let Err(error) = connection.await {
                    debug!(%error, "a connection broke off");
                }
            });
        }
        drop(listener);
        _ = timeout(DRAIN_WITHIN, graceful.shutdown()).await;
    }
}

/// Resets are the peer's business; out of file descriptors, waiting helps and spinning does not.
async fn pause_after(error: &io::Error, seldom: &Seldom) {
    use io::ErrorKind as E;
    if !matches!(error.kind(), E::ConnectionAborted | E::ConnectionReset | E::ConnectionRefused) {
        seldom.warn(Kind::Accept, |left_out| warn!(%error, left_out, "cannot accept connections"));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let allowed = match self.forward.guard.admit(request.method(), request.headers()) {
            Ok(guard::Admitted::Request(origin)) => origin,
            Ok(guard::Admitted::Preflight(response)) => return response.map(Either::Left),
            Err(sorry) => return sorry.response(&path).map(Either::Left),
        };
        let mut response = match self.send(request).await {
            Ok(response) => {
                if let Some(code) = response.headers().get("tunnel-error").and_then(|code| code.to_str().ok()) {
                    let status = response.status();
                    self.seldom.warn(Kind::Refused(status), |left_out| {
                        let status = status.as_u16();
                        warn!(%method, path, status, code, left_out, "the server refused a request; its answer says what to do");
                    });
                }
                response.map(Either::Right)
            }
            Err(sorry) => {
                self.seldom.warn(Kind::Failed(sorry.code), |left_out| warn!(%method, path, left_out, "{sorry}"));
                sorry.response(&path).map(Either::Left)
            }
        };
        if let Some(origin) = allowed {
            guard::let_read(origin, response.headers_mut());
        }
        response
    }

    async fn send(&self, request: Request<Incoming>) -> Result<Response<Incoming>, Sorry> {
        let token = self.forward.token.fresh().await.map_err(|error| Sorry::token(&error))?;
        let server = match &self.forward.server {
            Some(server) => server.clone(),
            None => claimed_server(&token).map_err(|error: NoServer| Sorry::token(&error))?,
        };
        let request = self.for_server(request, &server, &token)?;
        let mut response = self.client.request(request).await.map_err(|error| Sorry::failed(&server, &error))?;
        let announced =
            response.headers().get(header::CONTENT_LENGTH).filter(|_| response.body().is_end_stream()).cloned();
        hop::strip_hop_by_hop(response.headers_mut());
        // Of a body that does not follow (HEAD, 304); any other says its length itself.
        if let Some(length) = announced {
            response.headers_mut().insert(header::CONTENT_LENGTH, length);
        }
        // Which pages may read an answer is decided here.
        let cors: Vec<HeaderName> =
            response.headers().keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
        for name in cors {
            response.headers_mut().remove(name);
        }
        Ok(response)
    }

    /// The same request for the server: method, path and query, body and end-to-end headers as they are.
    fn for_server(
        &self,
        mut request: Request<Incoming>,
        server: &Url,
        token: &Token,
    ) -> Result<Request<Incoming>, Sorry> {
        if request.method() == Method::CONNECT {
            return Err(Sorry::bad("this is no proxy: use it as a base URL"));
        }
        let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        let uri = Uri::try_from(format!("{}{target}", origin(server)));
        *request.uri_mut() = uri.map_err(|_| Sorry::bad("the request target is not a path"))?;
        *request.version_mut() = http::Version::HTTP_11;
        let has_no_length = request.body().size_hint().exact().is_none();
        let headers = request.headers_mut();
        hop::strip_hop_by_hop(headers);
        if has_no_length {
            headers.insert(header::TRANSFER_ENCODING, CHUNKED);
        }
        for name in NOT_PASSED_ON.iter().chain([&X_API_KEY]) {
            headers.remove(name);
        }
        let fetch: Vec<HeaderName> =
            headers.keys().filter(|name| name.as_str().starts_with("sec-fetch-")).cloned().collect();
        for name in fetch {
            headers.remove(name);
        }
        if let Some(name) = &self.forward.name {
            headers.entry(TUNNEL_NAME).or_insert_with(|| name.clone());
        }
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.secret()))
            .map_err(|_| Sorry::bad("the token cannot stand in a header"))?;
        bearer.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, bearer);
        Ok(request)
    }
}
