//! A fake Ollama: an HTTP/1.1 server on a port of its own that says what it received.
//!
//! Two ways to decide an answer. The path decides it (table in `routes.rs`): the real endpoints with short canned answers, and
//! a few of our own for echoes and bulk. Or the test plays the upstream itself: after [`Ollama::play`] each request
//! for that path is an [`Exchange`] in the test's hands, answered byte by byte, or cut.
//!
//! Like the real one it refuses, with a 403 without a body, a `Host` that is not its own and a foreign `Origin`.

mod connection;
mod exchange;
mod routes;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    background::{Background, Flavour},
    body::{self, Body},
    eventually::{eventually, with_deadline},
};

pub use self::{
    connection::{Cut, Link},
    exchange::Exchange,
    routes::{WORDS, ndjson},
};

/// The head of a request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    /// The method.
    pub method: Method,
    /// The request target, byte for byte.
    pub target: String,
    /// The protocol's version.
    pub version: Version,
    /// All header fields, in order within one name.
    pub headers: HeaderMap,
}

impl Received {
    /// The value of a header field as text; empty where it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a value in ASCII"))
    }
}

/// The server. It stops when it is dropped.
#[derive(Debug)]
pub struct Ollama {
    addr: SocketAddr,
    shared: Arc<Shared>,
    background: Background,
}

#[derive(Debug, Default)]
struct Shared {
    received: Mutex<Vec<Received>>,
    played: Mutex<HashMap<String, mpsc::UnboundedSender<Exchange>>>,
    open: AtomicUsize,
    accepted: AtomicUsize,
}

/// The requests for one path that the test answers itself.
#[derive(Debug)]
pub struct Played {
    path: String,
    exchanges: mpsc::UnboundedReceiver<Exchange>,
}

impl Played {
    /// The next request, as soon as its head is here.
    pub async fn next(&mut self) -> Exchange {
        let what = format!("a request for {} at the upstream", self.path);
        with_deadline(&what, self.exchanges.recv()).await.expect("the fake Ollama runs")
    }

    /// The next request, answered with the head of a 200 of this media type.
    pub async fn start_ok(&mut self, content_type: &str) -> Exchange {
        let mut exchange = self.next().await;
        exchange.start_ok(content_type);
        exchange
    }

    /// Whether no request waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exchanges.is_empty()
    }
}

impl Ollama {
    /// Starts on a free port of the loopback interface.
    #[must_use]
    pub fn start() -> Self {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Starts on `addr`: again, where another was before.
    #[must_use]
    pub fn start_on(addr: SocketAddr) -> Self {
        let listener = bind(addr);
        let addr = listener.local_addr().expect("a bound address");
        let shared = Arc::<Shared>::default();
        let background = Background::spawn("ollama", Flavour::Current, {
            let shared = Arc::clone(&shared);
            |stop| serve(listener, shared, stop)
        });
        Self { addr, shared, background }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Takes the answers to `path` (without a query, exactly) into the test's own hands, from now on.
    #[must_use]
    pub fn play(&self, path: &str) -> Played {
        let (sender, exchanges) = mpsc::unbounded_channel();
        lock(&self.shared.played).insert(path.to_owned(), sender);
        Played { path: path.to_owned(), exchanges }
    }

    /// Every request so far, oldest first, but for `HEAD /`: desktops look that way whether an upstream is there.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        lock(&self.shared.received).clone()
    }

    /// The newest request for a target that starts with `prefix`; waits for one.
    pub async fn received_for(&self, prefix: &str) -> Received {
        let what = format!("a request for {prefix} at the upstream");
        let matching = |received: Vec<Received>| received.into_iter().rfind(|r| r.target.starts_with(prefix));
        eventually(&what, async || matching(self.received())).await
    }

    /// How many connections are open now.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// How many connections there have been.
    #[must_use]
    pub fn accepted_connections(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Dies as a killed process does: all its sockets close at once, and its port is free.
    pub fn kill(self) {
        self.background.cut();
    }
}

/// Binds at once, so that the address is known, but leaves the reactor to the thread that will serve.
pub(crate) fn bind(addr: SocketAddr) -> std::net::TcpListener {
    std::net::TcpListener::bind(addr)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .unwrap_or_else(|error| panic!("cannot listen on {addr}: {error}"))
}

async fn serve(listener: std::net::TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let listener = TcpListener::from_std(listener).expect("a reactor");
    let connections = TaskTracker::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _peer)) => stream,
                Err(_reset_before_accept) => continue,
            },
            () = stop.cancelled() => return,
        };
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let open = Open::count(&shared);
        connections.spawn({
            let shared = Arc::clone(&shared);
            async move {
                let open = open;
                connection::serve(stream, |request, link| answer(Arc::clone(&shared), request, link)).await;
                drop(open);
            }
        });
    }
}

/// One open connection, counted as long as it lives.
struct Open(Arc<Shared>);

impl Open {
    fn count(shared: &Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>, link: Link) -> Response<Body> {
    let received = Received {
        method: request.method().clone(),
        target: request.uri().to_string(),
        version: request.version(),
        headers: request.headers().clone(),
    };
    if received.method != Method::HEAD || received.target != "/" {
        lock(&shared.received).push(received.clone());
    }
    if !is_local(&received.headers) {
        let mut refusal = Response::new(body::empty());
        *refusal.status_mut() = StatusCode::FORBIDDEN;
        return refusal;
    }
    let player = lock(&shared.played).get(request.uri().path()).cloned();
    match player {
        Some(player) => exchange::hand_over(&player, received, request.into_body(), link).await,
        None => routes::answer(request).await,
    }
}

/// Ollama's own rule (`allowedHostsMiddleware` and CORS of its `server/routes.go`), as far as a proxy meets it.
fn is_local(headers: &HeaderMap) -> bool {
    let ours = |authority: &str| {
        let host = authority.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
        matches!(host.as_deref(), Some("127.0.0.1" | "localhost"))
    };
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("not ASCII"));
    text(header::HOST).is_some_and(ours) && text(header::ORIGIN).is_none_or(ours)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
