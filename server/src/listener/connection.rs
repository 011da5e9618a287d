//! A connection that was accepted: TLS, then HTTP/1.1 or HTTP/2, to its last request.

use std::{
    future::pending,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use http::{HeaderValue, StatusCode, header};
use hyper::{
    Request,
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{either::Either, sync::CancellationToken};
use tracing::debug;
use tunnel_certs::ALPN_HTTP2;

use super::{
    heads::{Follows, Heads},
    quiet::{Activity, Counted},
};
use crate::{
    edge::{self, Channel, peer::Peer},
    patience::Patient,
    server::App,
};

/// TLS handshake, the first request of a connection, and each request head.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// Bytes that hyper buffers for a connection (HTTP/1) or stream (HTTP/2) in each direction; its default is 400 KiB.
const BUFFER: usize = 64 * 1024;

/// Plaintext that rustls holds before a write waits.
const TLS_BUFFER: usize = 64 * 1024;

/// HTTP/2 (RFC 9113): streams of one connection, bytes that a caller may send ahead on one stream and in all, and how
/// often a silent connection is asked whether it lives.
const H2_STREAMS: u32 = 256;
const H2_STREAM_WINDOW: u32 = 256 * 1024;
const H2_CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
const H2_PING_EVERY: Duration = Duration::from_secs(20);

/// Fields that hyper parses before the edge counts them.
const H1_FIELDS: usize = 200;
const H2_HEADER_LIST: u32 = 64 * 1024;

/// How long an HTTP/1 connection is idle before a server that drains closes it. A proxy under load uses it once more in
/// this time, and learns then that it is the last.
const QUIET_FOR: Duration = Duration::from_millis(500);

/// What all connections are served with.
pub(super) struct Connections {
    app: Arc<App>,
    tls: Option<TlsAcceptor>,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

/// What a connection speaks, by ALPN (RFC 7301); HTTP/1 without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
    /// HTTP/1 in the clear where TLS was expected: each request is told so, and goes nowhere.
    InTheClear,
}

impl Connections {
    pub(super) fn new(app: Arc<App>, tls: Option<ServerConfig>) -> Arc<Self> {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(HANDSHAKE_WITHIN)
            .max_headers(H1_FIELDS)
            .max_buf_size(BUFFER);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(H2_STREAMS)
            .initial_stream_window_size(H2_STREAM_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .max_header_list_size(H2_HEADER_LIST)
            .max_send_buf_size(BUFFER)
            .keep_alive_interval(H2_PING_EVERY);
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        Arc::new(Self { app, tls, http1, http2 })
    }

    /// Serves one, until it ends or, after its last request, until `closing`.
    pub(super) async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, closing: CancellationToken) {
        let Some(tls) = &self.tls else { return self.serve_http(Protocol::Http1, stream, peer, closing).await };
        let limit = |connection: &mut rustls::ServerConnection| connection.set_buffer_limit(Some(TLS_BUFFER));
        let handshake = async {
            if begins_with_text(&stream).await? {
                return Ok(Either::Left(stream));
            }
            tls.accept_with(stream, limit).await.map(Either::Right)
        };
        match timeout(HANDSHAKE_WITHIN, handshake).await {
            Ok(Ok(Either::Left(stream))) => self.serve_http(Protocol::InTheClear, stream, peer, closing).await,
            Ok(Ok(Either::Right(stream))) => {
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(ALPN_HTTP2);
                let protocol = if is_http2 { Protocol::Http2 } else { Protocol::Http1 };
                self.serve_http(protocol, stream, peer, closing).await;
            }
            Ok(Err(error)) => {
                self.app.metrics.rejected_handshake("tls");
                debug!(%peer, %error, "TLS handshake failed");
            }
            Err(_) => {
                self.app.metrics.rejected_handshake("tls_timeout");
                debug!(%peer, "TLS handshake took too long");
            }
        }
    }

    async fn serve_http<S>(&self, protocol: Protocol, stream: S, peer: SocketAddr, closing: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (activity, from) = (Activity::default(), Peer::new(peer.ip()));
        let (stream, heads) = Heads::new(Patient::new(stream, self.app.limits.stall_timeout), protocol);
        let service = service_fn(|request: Request<Incoming>| {
            let (app, busy) = (Arc::clone(&self.app), activity.begin());
            let channel = match protocol {
                Protocol::Http1 | Protocol::Http2 => Channel::Expected,
                Protocol::InTheClear => Channel::InTheClear,
            };
            let (is_last, heads, from) = (heads.announce(&request), heads.clone(), from.clone());
            async move {
                let mut response = edge::handle(app, &from, channel, request).await;
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    heads.switch();
                } else if is_last {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, std::convert::Infallible>(response.map(|body| Counted { body, _busy: busy }))
            }
        });
        let stream = TokioIo::new(stream);
        let served = match protocol {
            Protocol::Http1 | Protocol::InTheClear => {
                let connection = self.http1.serve_connection(stream, service).with_upgrades();
                let quiet = self.is_quiet(&activity, &heads, &closing);
                serve_until(quiet, connection, http1::UpgradeableConnection::graceful_shutdown).await
            }
            Protocol::Http2 => {
                let connection = self.http2.serve_connection(stream, service);
                let serving = serve_until(closing.cancelled(), connection, http2::Connection::graceful_shutdown);
                tokio::select! {
                    biased;
                    served = serving => served,
                    is_late = never_begins(&activity, &closing) => {
                        if is_late {
                            self.app.metrics.rejected_handshake("no_request");
                        }
                        return debug!(%peer, "connection without a request");
                    }
                }
            }
        };
        if let Err(error) = served {
            if error.is_timeout() && !activity.has_begun() {
                self.app.metrics.rejected_handshake("no_request");
            }
            debug!(%peer, %error, "connection ended");
        }
    }

    /// The server drains, and this HTTP/1 connection has no request, nor has one begun to arrive. HTTP/2 has words for the
    /// end, and loses nothing; here a request may just be on its way.
    async fn is_quiet(&self, activity: &Activity, heads: &Follows, closing: &CancellationToken) {
        self.app.draining.cancelled().await;
        loop {
            tokio::join!(closing.cancelled(), activity.quiet(QUIET_FOR));
            if !heads.in_head() {
                return;
            }
        }
    }
}

/// An HTTP/2 connection has no request for so long that there will be none; whether that is its fault, and not that the
/// server drains. hyper has no timer for one that never begins, and waits for it even when it is told to end.
async fn never_begins(activity: &Activity, closing: &CancellationToken) -> bool {
    let drained = async {
        closing.cancelled().await;
        activity.quiet(QUIET_FOR).await; // who has just connected is about to send
    };
    let is_late = timeout(HANDSHAKE_WITHIN, drained).await.is_err();
    if activity.has_begun() { pending().await } else { is_late }
}

/// Serves a connection; when `told` is ready, tells it to end after its last request.
async fn serve_until<C: Future>(told: impl Future<Output = ()>, connection: C, end: fn(Pin<&mut C>)) -> C::Output {
    let mut connection = pin!(connection);
    tokio::select! {
        biased; // what has arrived is read before anything is closed
        served = &mut connection => return served,
        () = told => end(connection.as_mut()),
    }
    connection.await
}

/// Whether a peer begins as a request of HTTP does, with a capital letter. TLS begins with the type of a record, 22 (RFC
/// 8446 §5.1). Waits for the first byte, and leaves it where it is.
async fn begins_with_text(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    let length = stream.peek(&mut first).await?;
    Ok(length > 0 && first[0].is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use hyper::{Response, body::Bytes};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        sync::oneshot,
        time::{Instant, sleep},
    };

    use super::*;

    #[tokio::test]
    async fn f04_a_request_that_has_arrived_is_answered_before_its_connection_closes() {
        const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for _ in 0..20 {
            let ((mut caller, here), (tell, told)) = (duplex(1024), oneshot::channel::<()>());
            let service = service_fn(async |_| Ok::<_, std::convert::Infallible>(Response::new(Empty::<Bytes>::new())));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(here), service).with_upgrades();
            let end = http1::UpgradeableConnection::graceful_shutdown;
            let serving = tokio::spawn(serve_until(async { told.await.unwrap() }, connection, end));
            caller.write_all(REQUEST).await.unwrap();
            let mut answer = [0; 12];
            caller.read_exact(&mut answer).await.unwrap();
            // Both are there when the connection is looked at.
            caller.write_all(REQUEST).await.unwrap();
            tell.send(()).unwrap();
            let mut rest = String::new();
            caller.read_to_string(&mut rest).await.unwrap();
            assert_eq!(rest.matches("HTTP/1.1 200 OK").count(), 1, "{rest}");
            serving.await.unwrap().unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn f04_who_has_just_connected_by_http2_may_begin_while_the_server_drains() {
        let (activity, closing, start) = (Activity::default(), CancellationToken::new(), Instant::now());
        assert!(never_begins(&activity, &closing).await);
        assert_eq!(start.elapsed(), HANDSHAKE_WITHIN);
        closing.cancel();
        assert!(!never_begins(&activity, &closing).await);
        assert_eq!(start.elapsed(), HANDSHAKE_WITHIN + QUIET_FOR);
        let begins = async {
            sleep(QUIET_FOR / 2).await;
            drop(activity.begin());
            sleep(HANDSHAKE_WITHIN * 2).await;
        };
        tokio::select! {
            _ = never_begins(&activity, &closing) => panic!("it has begun"),
            () = begins => {}
        }
    }
}
