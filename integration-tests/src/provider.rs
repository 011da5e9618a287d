//! An identity provider in the test's hands: it answers each path with what a test gives it, good or hostile.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr, TcpListener as StdListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tunneld::{auth::KeySource, config::Config};

use crate::background::{Background, Flavour};

/// What it calls this server.
pub const AUDIENCE: &str = "https://tunnel.example.com";

/// What it calls the programs that people sign in with.
pub const CLIENT: &str = "tunnel-app";

/// Where its keys are.
pub const KEYS: &str = "/keys";

/// Where its document is.
pub const DOCUMENT: &str = "/.well-known/openid-configuration";

/// A running provider. It stops when it is dropped.
#[derive(Debug)]
pub struct Provider {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    _background: Background,
}

#[derive(Debug, Default)]
struct State {
    answers: HashMap<String, Answer>,
    asked: Vec<Asked>,
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its path, without a query.
    pub path: String,
    /// The fields of its form, if it had one.
    pub form: HashMap<String, String>,
}

#[derive(Debug, Clone)]
enum Answer {
    Body(StatusCode, Bytes),
    Redirect(String),
    /// None, ever.
    Silence,
}

impl Provider {
    /// Starts on a free port, with its document and without keys.
    #[must_use]
    pub fn start() -> Self {
        Self::start_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Starts on `addr`: again, where another was before.
    #[must_use]
    pub fn start_on(addr: SocketAddr) -> Self {
        let listener = StdListener::bind(addr).expect("a free port");
        listener.set_nonblocking(true).expect("a socket of our own");
        let addr = listener.local_addr().expect("a bound address");
        let state = Arc::<Mutex<State>>::default();
        let background = Background::spawn("provider", Flavour::Current, {
            let state = Arc::clone(&state);
            |stop| serve(listener, state, stop)
        });
        let provider = Self { addr, state, _background: background };
        let at = |path: &str| format!("{}{path}", provider.issuer());
        let document = json!({
            "issuer": provider.issuer(), "jwks_uri": at(KEYS), "token_endpoint": at("/token"),
            "device_authorization_endpoint": at("/device"), "revocation_endpoint": at("/revoke"),
        });
        provider.answer(DOCUMENT, 200, &document.to_string());
        provider
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its name, which is where it is.
    #[must_use]
    pub fn issuer(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Publishes these keys and no others.
    pub fn publish(&self, keys: &[Value]) {
        self.answer(KEYS, 200, &json!({"keys": keys}).to_string());
    }

    /// Answers a path, from now on.
    pub fn answer(&self, path: &str, status: u16, body: &str) {
        let status = StatusCode::from_u16(status).expect("a status");
        self.set(path, Answer::Body(status, Bytes::copy_from_slice(body.as_bytes())));
    }

    /// Sends who asks for a path elsewhere.
    pub fn redirect(&self, path: &str, to: &str) {
        self.set(path, Answer::Redirect(to.to_owned()));
    }

    /// Lets who asks for a path wait.
    pub fn ignore(&self, path: &str) {
        self.set(path, Answer::Silence);
    }

    /// Every request for a path so far, oldest first.
    #[must_use]
    pub fn asked(&self, path: &str) -> Vec<Asked> {
        lock(&self.state).asked.iter().filter(|asked| asked.path == path).cloned().collect()
    }

    /// Makes a server follow it, and nobody else for these tokens.
    pub fn trusted_by(issuer: &str, config: &mut Config) {
        let issuer = issuer.to_owned().try_into().expect("an issuer");
        config.auth.provider = Some(KeySource::Issuer(issuer));
        config.auth.audience = Some(AUDIENCE.to_owned());
    }

    fn set(&self, path: &str, answer: Answer) {
        lock(&self.state).answers.insert(path.to_owned(), answer);
    }
}

async fn serve(listener: StdListener, state: Arc<Mutex<State>>, stop: CancellationToken) {
    let listener = TcpListener::from_std(listener).expect("a socket of our own");
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _peer)) = accepted else { continue };
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = service_fn(|request| answer(Arc::clone(&state), request));
            let _left = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let form = url::form_urlencoded::parse(&body).into_owned().collect();
    let answer = {
        let mut state = lock(&state);
        state.asked.push(Asked { path: path.clone(), form });
        state.answers.get(&path).cloned().unwrap_or(Answer::Body(StatusCode::NOT_FOUND, Bytes::new()))
    };
    let mut response = Response::new(Full::default());
    match answer {
        Answer::Body(status, body) => {
            *response.status_mut() = status;
            *response.body_mut() = Full::new(body);
        }
        Answer::Redirect(to) => {
            *response.status_mut() = StatusCode::FOUND;
            response.headers_mut().insert(header::LOCATION, HeaderValue::try_from(to).expect("an address"));
        }
        Answer::Silence => std::future::pending().await,
    }
    Ok(response)
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
