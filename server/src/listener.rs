//! From a bound socket to requests: accept, TLS, HTTP/1.1 or HTTP/2.
//!
//! Nothing of a peer is awaited in the accept loop: one slow handshake delays nobody.

mod heads;
mod quiet;

use std::{
    future::pending,
    io,
    net::{SocketAddr, TcpStream as StdStream},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
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
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{either::Either, sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};
use tunnel_certs::ALPN_HTTP2;

use self::{
    heads::{Follows, Heads},
    quiet::{Activity, Counted},
};
use crate::{
    admission::Place,
    edge::{self, Channel, peer::Peer},
    patience::Patient,
    server::App,
    sockets::Holder,
    workers::Workers,
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

/// The pause after running out of file descriptors or memory, in which connections can end.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// How long a server that drains goes on taking connections at most, until its desktops have connected elsewhere: some
/// round trips, for TLS and the upgrade. As long as a request waits for a desktop at the server they go to.
const MOVE_WITHIN: Duration = Duration::from_secs(2);

/// How long an HTTP/1 connection is idle before a server that drains closes it. A proxy under load uses it once more in
/// this time, and learns then that it is the last.
const QUIET_FOR: Duration = Duration::from_millis(500);

/// Serves connections.
pub(crate) struct Listener {
    app: Arc<App>,
    tls: Option<TlsAcceptor>,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

/// The connections of callers, who serves them, and the sign for them to end.
struct Callers {
    workers: Arc<Workers>,
    connections: TaskTracker,
    /// No new ones are taken any more.
    closing: CancellationToken,
}

/// What a connection speaks, by ALPN (RFC 7301); HTTP/1 without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
    /// HTTP/1 in the clear where TLS was expected: each request is told so, and goes nowhere.
    InTheClear,
}

impl Listener {
    pub(crate) fn new(app: Arc<App>, tls: Option<ServerConfig>) -> Arc<Self> {
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

    /// Accepts until the server drains and its desktops have gone elsewhere. Connections go on as tasks of the server;
    /// what is returned ends with the last of them.
    pub(crate) async fn accept(
        self: Arc<Self>,
        listener: TcpListener,
        holder: Holder,
        workers: Arc<Workers>,
    ) -> impl Future<Output = ()> {
        let callers = Callers { workers, connections: TaskTracker::new(), closing: CancellationToken::new() };
        {
            let mut stop = pin!(self.nobody_needs_us(holder));
            let mut exhausted = false;
            loop {
                let next = async {
                    let room = self.app.admission.connections.room().await;
                    (listener.accept().await, room)
                };
                let (accepted, room) = tokio::select! {
                    accepted = next => accepted,
                    () = &mut stop => break,
                };
                match accepted {
                    Ok((stream, peer)) => {
                        if std::mem::take(&mut exhausted) {
                            info!("accepting connections again");
                        }
                        match (self.app.admission.connection(peer.ip(), room), stream.into_std()) {
                            (Some(place), Ok(stream)) => self.start(stream, peer, place, &callers),
                            (None, _) => {
                                self.app.metrics.rejected_handshake("address_limit");
                                debug!(%peer, "too many connections of this address");
                            }
                            (_, Err(error)) => debug!(%peer, %error, "a connection was gone at once"),
                        }
                    }
                    Err(error) if is_of_the_peer(&error) => {
                        debug!(%error, "a connection was gone before it was accepted");
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut exhausted, true) {
                            warn!(%error, "cannot accept connections; pausing until some have ended");
                        }
                        sleep(EXHAUSTED_PAUSE).await;
                    }
                }
            }
        }
        if holder == Holder::Nobody {
            self.close(listener, &callers);
        }
        callers.closing.cancel();
        callers.connections.close();
        async move { callers.connections.wait().await }
    }

    /// The server drains, and its desktops take requests from elsewhere, or have had the time to. Until then callers
    /// are best served here; but where the next server takes from the same socket, desktops must find that one.
    async fn nobody_needs_us(&self, holder: Holder) {
        self.app.draining.cancelled().await;
        if holder == Holder::Nobody {
            _ = timeout(MOVE_WITHIN, self.app.registry.deserted()).await;
        }
    }

    /// Closes the listening socket. Peers for whom the kernel has already accepted would get a reset, their request in
    /// their hands: they are served.
    fn close(self: &Arc<Self>, listener: TcpListener, callers: &Callers) {
        let Ok(listener) = listener.into_std() else { return };
        while let Ok((stream, peer)) = listener.accept() {
            let Some(room) = self.app.admission.connections.room().now_or_never() else { return };
            let place = self.app.admission.connection(peer.ip(), room);
            if let (Some(place), Ok(())) = (place, stream.set_nonblocking(true)) {
                self.start(stream, peer, place, callers);
            }
        }
    }

    fn start(self: &Arc<Self>, stream: StdStream, peer: SocketAddr, place: Place, callers: &Callers) {
        // On a socket for both families IPv4 is written as IPv6: ::ffff:192.0.2.1.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        _ = stream.set_nodelay(true);
        let (listener, closing) = (Arc::clone(self), callers.closing.clone());
        let (serving, connected) = (self.app.tasks.token(), callers.connections.token());
        callers.workers.serve(stream, move |stream| async move {
            listener.serve(stream, peer, closing).await;
            drop((place, connected, serving));
        });
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, closing: CancellationToken) {
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

fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use hyper::{Response, body::Bytes};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        sync::oneshot,
        time::Instant,
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
