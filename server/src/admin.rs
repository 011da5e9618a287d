//! The operator's own listener: who is connected, and who is to be so no more.
//!
//! Owns who may ask. Health and metrics are open; everything else needs the admin token, and without a token file does
//! not exist. Nothing here is for web pages: a request that a browser made for one is refused, and so is, on a loopback
//! address, a name that was made to point there. A person with a browser may look, at what changes nothing.
//! What is asked is in `routes`, the page for people in `page`, the token in `token`.

mod page;
mod routes;
mod token;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header, uri::Authority};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::sleep,
};
use tracing::{debug, info, warn};

pub use self::token::{AdminToken, AdminTokenError};
use crate::{
    config::AdminConfig,
    patience::Patient,
    server::{App, sentence},
    sockets::Sockets,
};

/// Connections at a time; more wait.
const CONNECTIONS: usize = 64;

/// Each request head, and the wait for the next one.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// Bytes that hyper buffers for a connection.
const BUFFER: usize = 16 * 1024;

/// The pause after an accept that failed.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The listener, bound and not yet running.
pub(crate) struct Admin {
    app: Arc<App>,
    socket: TcpListener,
    address: SocketAddr,
    token: Option<Arc<AdminToken>>,
}

/// Why there is no admin listener. Each is one line that says what to do.
#[derive(Debug, Error)]
pub enum AdminError {
    /// `--admin-listen`.
    #[error("cannot listen on {address}: {}; choose another with --admin-listen", sentence(.error))]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// The system's reason.
        error: io::Error,
    },
    /// `--admin-token-file`.
    #[error(transparent)]
    Token(#[from] AdminTokenError),
}

/// An answer: a status, and what it says.
type Answer = (StatusCode, Content);

/// What an answer says.
enum Content {
    /// One object.
    Json(Value),
    /// Prometheus' text format.
    Metrics(String),
    /// HTML for a person, and the policy that keeps it harmless.
    Page(String, HeaderValue),
}

impl From<Value> for Content {
    fn from(json: Value) -> Self {
        Self::Json(json)
    }
}

impl Admin {
    pub(crate) async fn bind(config: AdminConfig, app: Arc<App>, sockets: &mut Sockets) -> Result<Self, AdminError> {
        let AdminConfig { listen, token_file } = config;
        let token = token_file.map(AdminToken::read).transpose()?;
        if token.is_none() && !listen.ip().is_loopback() {
            return Err(AdminTokenError::Needed(listen).into());
        }
        let bind_error = |error| AdminError::Bind { address: listen, error };
        let (socket, _) = sockets.listen(listen).await.map_err(bind_error)?;
        let address = socket.local_addr().map_err(bind_error)?;
        Ok(Self { app, socket, address, token: token.map(Arc::new) })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The token and its file, to be watched.
    pub(crate) fn token(&self) -> Option<(Arc<AdminToken>, PathBuf)> {
        self.token.as_ref().map(|token| (Arc::clone(token), token.path().to_owned()))
    }

    /// Serves until it is dropped, and all connections with it.
    pub(crate) async fn run(self) {
        info!(addr = %self.address, token = self.token.is_some(), "the admin interface is open");
        let this = Arc::new(self);
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let place = Arc::clone(&room).acquire_owned().await.expect("it is never closed");
            while connections.try_join_next().is_some() {}
            match this.socket.accept().await {
                Ok((stream, peer)) => {
                    let serving = Arc::clone(&this).serve(stream, peer);
                    connections.spawn(async move {
                        serving.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    warn!(%error, "cannot accept connections to the admin interface; pausing");
                    sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let service = service_fn(|request| {
            let this = Arc::clone(&self);
            async move { Ok::<_, std::convert::Infallible>(this.answer(peer, request).await) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(BUFFER);
        let stream = TokioIo::new(Patient::new(stream, HEAD_WITHIN));
        if let Err(error) = http.serve_connection(stream, service).await {
            debug!(%peer, %error, "admin connection ended");
        }
    }

    async fn answer(&self, peer: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let is_page = routes::is_page(&request);
        let (status, content) = match self.may_ask(&request) {
            Ok(()) => routes::answer(&self.app, request).await,
            Err(refusal) => refusal,
        };
        if status.is_client_error() || status.is_server_error() {
            warn!(%peer, %method, path, status = status.as_u16(), "admin request refused");
        } else if method.is_safe() {
            debug!(%peer, %method, path, status = status.as_u16(), "admin request");
        } else {
            info!(%peer, %method, path, status = status.as_u16(), "admin request");
        }
        let mut headers = HeaderMap::new();
        let (kind, body) = match content {
            Content::Json(json) => ("application/json", format!("{json}\n")),
            Content::Metrics(text) => (prometheus::TEXT_FORMAT, text),
            Content::Page(html, policy) => {
                headers.insert(header::CONTENT_SECURITY_POLICY, policy);
                ("text/html; charset=utf-8", html)
            }
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if status == StatusCode::UNAUTHORIZED {
            // A browser asks its user for the password of Basic.
            let challenge = if is_page { "Basic realm=\"tunneld: the admin token is the password\"" } else { "Bearer" };
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }

    /// Whether this request is let in at all.
    fn may_ask<B>(&self, request: &Request<B>) -> Result<(), Answer> {
        let headers = request.headers();
        let is_page = routes::is_page(request);
        let may_be_viewed = is_page || routes::is_open(request);
        if headers.contains_key(header::ORIGIN) || !is_of_nobody_else(headers, may_be_viewed) {
            return Err(refuse(StatusCode::FORBIDDEN, "this interface is not for web pages"));
        }
        if self.address.ip().is_loopback() && !names_loopback(request.uri().authority(), headers) {
            return Err(refuse(StatusCode::FORBIDDEN, "ask for it by its address, or as localhost"));
        }
        if routes::is_open(request) {
            return Ok(());
        }
        // Who may not know whether a route exists is told that it does not.
        let Some(token) = &self.token else { return Err(not_found()) };
        let mut credentials = headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes);
        let is_given = match (credentials.next(), credentials.next()) {
            (Some(given), None) => {
                let bearer = given.strip_prefix(b"Bearer ");
                // Browsers repeat a password of Basic by themselves: it opens what changes nothing.
                let password = || password(given).filter(|_| is_page).is_some_and(|given| token.is(&given));
                bearer.is_some_and(|given| token.is(given)) || password()
            }
            _ => false,
        };
        if is_given {
            return Ok(());
        }
        Err(refuse(StatusCode::UNAUTHORIZED, "send the admin token as 'Authorization: Bearer TOKEN'"))
    }
}

/// Whether a request is no other site's doing. Programs do not say where it comes from; a browser says `none` for an
/// address that its user typed, and `same-origin` for a link of ours.
fn is_of_nobody_else(headers: &HeaderMap, may_be_viewed: bool) -> bool {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter().map(HeaderValue::as_bytes);
    match (sites.next(), sites.next()) {
        (None, _) => true,
        (Some(b"none" | b"same-origin"), None) => may_be_viewed,
        _ => false,
    }
}

/// The password of HTTP Basic (RFC 7617), whatever the user is called.
fn password(credential: &[u8]) -> Option<Vec<u8>> {
    let decoded = BASE64.decode(credential.strip_prefix(b"Basic ")?.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|b| *b == b':')?;
    Some(decoded[colon + 1..].to_vec())
}

/// Whether a request is for this machine by an address or a name that nobody else can give away: a page whose own name
/// was made to point to a loopback address is another place (DNS rebinding).
fn names_loopback(authority: Option<&Authority>, headers: &HeaderMap) -> bool {
    let mut hosts =
        headers.get_all(header::HOST).iter().map(|host| host.to_str().ok().and_then(|host| host.parse().ok()));
    let (Some(Some(host)), None) = (hosts.next(), hosts.next()) else { return false };
    let host: Authority = host;
    if authority.is_some_and(|authority| *authority != host) || host.as_str().contains('@') {
        return false;
    }
    let host = host.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn refuse(status: StatusCode, message: &str) -> Answer {
    (status, json!({ "error": message }).into())
}

fn not_found() -> Answer {
    refuse(StatusCode::NOT_FOUND, "there is nothing here")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        let of = |hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, HeaderValue::from_str(host).unwrap());
            }
            names_loopback(None, &headers)
        };
        for good in ["localhost", "LocalHost:9464", "127.0.0.1:1", "127.9.9.9", "[::1]:9464", "[::1]"] {
            assert!(of(&[good]), "{good}");
        }
        for bad in ["evil.example", "localhost.evil.example", "10.0.0.1", "127.0.0.1@evil.example", "", "[::2]", "::1 "]
        {
            assert!(!of(&[bad]), "{bad}");
        }
        assert!(!of(&[]) && !of(&["localhost", "localhost"]));
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        assert!(!names_loopback(Some(&Authority::from_static("evil.example")), &headers));
    }
}
