//! From a bound socket to connections. What happens on one is in [`connection`].
//!
//! Nothing of a peer is awaited in the accept loop: one slow handshake delays nobody.

mod connection;
mod heads;
mod quiet;

use std::{
    io,
    net::{SocketAddr, TcpStream as StdStream},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use rustls::ServerConfig;
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use self::connection::Connections;
use crate::{admission::Place, server::App, sockets::Holder, workers::Workers};

/// The pause after running out of file descriptors or memory, in which connections can end.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// How long a server that drains goes on taking connections at most, until its desktops have connected elsewhere: some
/// round trips, for TLS and the upgrade. As long as a request waits for a desktop at the server they go to.
const MOVE_WITHIN: Duration = Duration::from_secs(2);

/// Accepts connections.
pub(crate) struct Listener {
    app: Arc<App>,
    connections: Arc<Connections>,
}

/// The connections of callers, who serves them, and the sign for them to end.
struct Callers {
    workers: Arc<Workers>,
    connected: TaskTracker,
    /// No new ones are taken any more.
    closing: CancellationToken,
}

impl Listener {
    pub(crate) fn new(app: Arc<App>, tls: Option<ServerConfig>) -> Self {
        let connections = Connections::new(Arc::clone(&app), tls);
        Self { app, connections }
    }

    /// Accepts until the server drains and its desktops have gone elsewhere. Connections go on as tasks of the server;
    /// what is returned ends with the last of them.
    pub(crate) async fn accept(
        self,
        listener: TcpListener,
        holder: Holder,
        workers: Arc<Workers>,
    ) -> impl Future<Output = ()> {
        let callers = Callers { workers, connected: TaskTracker::new(), closing: CancellationToken::new() };
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
        callers.connected.close();
        async move { callers.connected.wait().await }
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
    fn close(&self, listener: TcpListener, callers: &Callers) {
        let Ok(listener) = listener.into_std() else { return };
        while let Ok((stream, peer)) = listener.accept() {
            let Some(room) = self.app.admission.connections.room().now_or_never() else { return };
            let place = self.app.admission.connection(peer.ip(), room);
            if let (Some(place), Ok(())) = (place, stream.set_nonblocking(true)) {
                self.start(stream, peer, place, callers);
            }
        }
    }

    fn start(&self, stream: StdStream, peer: SocketAddr, place: Place, callers: &Callers) {
        // On a socket for both families IPv4 is written as IPv6: ::ffff:192.0.2.1.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        _ = stream.set_nodelay(true);
        let (connections, closing) = (Arc::clone(&self.connections), callers.closing.clone());
        let (serving, connected) = (self.app.tasks.token(), callers.connected.token());
        callers.workers.serve(stream, move |stream| async move {
            connections.serve(stream, peer, closing).await;
            drop((place, connected, serving));
        });
    }
}

fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
