//! From a bound socket to requests: accept, TLS, HTTP/1.1 or HTTP/2.
//!
//! Nothing of a peer is awaited in the accept loop: one slow handshake delays nobody.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};
use tunnel_certs::ALPN_HTTP2;

use crate::{edge, patience::Patient, server::App};

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

/// Serves connections.
pub(crate) struct Listener {
    app: Arc<App>,
    tls: Option<TlsAcceptor>,
    http1: auto::Builder<TokioExecutor>,
    http2: auto::Builder<TokioExecutor>,
}

/// What a connection speaks, by ALPN (RFC 7301). It is never guessed from its first bytes, which may never come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

impl Listener {
    pub(crate) fn new(app: Arc<App>, tls: Option<ServerConfig>) -> Arc<Self> {
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HANDSHAKE_WITHIN)
            .max_headers(H1_FIELDS)
            .max_buf_size(BUFFER);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(H2_STREAMS)
            .initial_stream_window_size(H2_STREAM_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .max_header_list_size(H2_HEADER_LIST)
            .max_send_buf_size(BUFFER)
            .keep_alive_interval(H2_PING_EVERY);
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        Arc::new(Self { app, tls, http1: http.clone().http1_only(), http2: http.http2_only() })
    }

    /// Accepts until the server drains. Connections go on as tasks of the server; what is returned can tell them to
    /// finish.
    pub(crate) async fn accept(self: Arc<Self>, listener: TcpListener) -> GracefulShutdown {
        let connections = GracefulShutdown::new();
        loop {
            let next = async {
                let room = self.app.admission.connections.room().await;
                (listener.accept().await, room)
            };
            let (accepted, room) = tokio::select! {
                accepted = next => accepted,
                () = self.app.draining.cancelled() => return connections,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let Some(place) = self.app.admission.connection(peer.ip(), room) else {
                        debug!(%peer, "too many connections of this address");
                        continue;
                    };
                    _ = stream.set_nodelay(true);
                    let watcher = connections.watcher();
                    let served = Arc::clone(&self).serve(stream, peer, watcher);
                    self.app.tasks.spawn(async move {
                        served.await;
                        drop(place);
                    });
                }
                Err(error) if is_of_the_peer(&error) => debug!(%error, "a connection was gone before it was accepted"),
                Err(error) => {
                    warn!(%error, "cannot accept connections; pausing");
                    sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, watcher: Watcher) {
        let Some(tls) = &self.tls else { return self.serve_http(Protocol::Http1, stream, peer, watcher).await };
        let limit = |connection: &mut rustls::ServerConnection| connection.set_buffer_limit(Some(TLS_BUFFER));
        match timeout(HANDSHAKE_WITHIN, tls.accept_with(stream, limit)).await {
            Ok(Ok(stream)) => {
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(ALPN_HTTP2);
                let protocol = if is_http2 { Protocol::Http2 } else { Protocol::Http1 };
                self.serve_http(protocol, stream, peer, watcher).await;
            }
            Ok(Err(error)) => debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => debug!(%peer, "TLS handshake took too long"),
        }
    }

    async fn serve_http<S>(&self, protocol: Protocol, stream: S, peer: SocketAddr, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let asked = Arc::new(AtomicBool::new(false));
        let service = service_fn(|request: Request<Incoming>| {
            let app = Arc::clone(&self.app);
            asked.store(true, Ordering::Relaxed);
            async move { Ok::<_, std::convert::Infallible>(edge::handle(app, peer.ip(), request).await) }
        });
        let stream = TokioIo::new(Patient::new(stream, self.app.limits.stall_timeout));
        let http = match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
        };
        let mut connection = pin!(watcher.watch(http.serve_connection_with_upgrades(stream, service)));
        let served = match timeout(HANDSHAKE_WITHIN, &mut connection).await {
            Ok(served) => served,
            // hyper has no timer for an HTTP/2 connection that never begins.
            Err(_) if !asked.load(Ordering::Relaxed) => return debug!(%peer, "connection without a request"),
            Err(_) => connection.await,
        };
        if let Err(error) = served {
            debug!(%peer, error, "connection ended");
        }
    }
}

fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
