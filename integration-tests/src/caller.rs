//! Who calls the tunnel: an HTTP/1.1 or HTTP/2 connection on TLS or plain TCP, or bare bytes on one.
//!
//! A request has a connection of its own unless the test opens one and sends several on it. Dropping a reply drops
//! its connection: that is how a caller leaves.

mod reply;

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock},
};

use http::{HeaderValue, Method, Request, Uri, header, uri::Authority};
use hyper::{
    client::conn::{http1, http2},
    rt::Executor,
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    body::{self, Body},
    eventually::with_deadline,
};

pub use self::reply::Reply;

/// A connection under HTTP.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// The HTTP on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, by ALPN on TLS and with prior knowledge without.
    Http2,
}

/// How to reach a server, and as whom.
#[derive(Debug, Clone)]
pub struct Caller {
    addr: SocketAddr,
    authority: Authority,
    tls: Option<ClientConfig>,
    token: Option<String>,
}

impl Caller {
    /// A caller of the server on `addr` that calls it `host` (in SNI, `Host` and certificate), without TLS where there
    /// is no `tls` configuration, and without a token.
    #[must_use]
    pub fn new(host: &str, addr: SocketAddr, tls: Option<ClientConfig>) -> Self {
        let authority = format!("{host}:{}", addr.port()).parse().expect("a host");
        Self { addr, authority, tls, token: None }
    }

    /// The same caller, with this token in `Authorization: Bearer`.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same caller without a token.
    #[must_use]
    pub fn anonymous(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    /// A request for `target`, with `Host` and the token.
    #[must_use]
    pub fn request(&self, method: Method, target: &str, body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().expect("a target");
        let host = HeaderValue::from_str(self.authority.as_str()).expect("an authority");
        request.headers_mut().insert(header::HOST, host);
        if let Some(token) = &self.token {
            let bearer = HeaderValue::from_str(&format!("Bearer {token}")).expect("a token");
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
        }
        request
    }

    /// GET, on a connection of its own.
    pub async fn get(&self, target: &str) -> Reply {
        self.send(self.request(Method::GET, target, body::empty())).await
    }

    /// POST, on a connection of its own.
    pub async fn post(&self, target: &str, body: Body) -> Reply {
        self.send(self.request(Method::POST, target, body)).await
    }

    /// Any request, on an HTTP/1.1 connection of its own.
    pub async fn send(&self, request: Request<Body>) -> Reply {
        self.connect(Protocol::Http1).await.send(request).await
    }

    /// A connection for several requests.
    pub async fn connect(&self, protocol: Protocol) -> Connection {
        let tasks = Tasks { close: CancellationToken::new() };
        let opened = runtime().spawn(open(self.clone(), protocol, tasks.clone()));
        let sender = with_deadline("HTTP with the server", opened).await.expect("a connection");
        Connection { sender, authority: self.authority.clone(), close: Arc::new(tasks.close.drop_guard()) }
    }

    /// A socket with TLS done and this protocol agreed on, and nothing sent yet.
    pub async fn socket(&self, protocol: Protocol) -> Box<dyn Io> {
        let connect = async {
            let tcp = TcpStream::connect(self.addr).await?;
            tcp.set_nodelay(true)?;
            let Some(tls) = &self.tls else { return Ok(Box::new(tcp) as Box<dyn Io>) };
            let mut tls = tls.clone();
            tls.alpn_protocols = vec![match protocol {
                Protocol::Http1 => b"http/1.1".to_vec(),
                Protocol::Http2 => b"h2".to_vec(),
            }];
            let name = ServerName::try_from(self.authority.host().to_owned()).expect("a host");
            let stream = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await?;
            Ok::<_, std::io::Error>(Box::new(stream))
        };
        with_deadline("a connection to the server", connect).await.expect("a connection to the server")
    }

    /// Sends `bytes` as they are and gives all that comes back until the server closes.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut socket = self.socket(Protocol::Http1).await;
        let exchange = async {
            let _refused_early = socket.write_all(bytes).await;
            let mut answer = Vec::new();
            let _closed_without_a_word = socket.read_to_end(&mut answer).await;
            answer
        };
        let answer = with_deadline("the server closes after a raw request", exchange).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// `Host: …` and, with a token, `Authorization: …`, for requests written by hand.
    #[must_use]
    pub fn raw_headers(&self) -> String {
        let token = self.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n"));
        format!("Host: {}\r\n{}", self.authority, token.unwrap_or_default())
    }
}

/// Connections have a runtime of their own, so that they close also while a test waits for its other parts to stop.
fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("callers").enable_all().build().expect("a runtime")
    });
    &RUNTIME
}

/// The tasks of one connection. All of them end at once when it is closed; hyper by itself would still finish sending
/// the bodies of an HTTP/2 connection.
#[derive(Debug, Clone)]
struct Tasks {
    close: CancellationToken,
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        runtime().spawn(self.close.clone().run_until_cancelled_owned(task));
    }
}

async fn open(caller: Caller, protocol: Protocol, tasks: Tasks) -> Sender {
    let io = TokioIo::new(caller.socket(protocol).await);
    match protocol {
        Protocol::Http1 => {
            let (sender, driver) = http1::handshake(io).await.expect("HTTP/1.1");
            tasks.execute(driver);
            Sender::Http1(sender)
        }
        Protocol::Http2 => {
            let (sender, driver) = http2::handshake(tasks.clone(), io).await.expect("HTTP/2");
            tasks.execute(driver);
            Sender::Http2(sender)
        }
    }
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// An open connection. It closes when it and all its replies are dropped.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    authority: Authority,
    close: Arc<DropGuard>,
}

impl Connection {
    /// Sends a request and waits for the head of its response.
    pub async fn send(&mut self, request: Request<Body>) -> Reply {
        self.try_send(request).await.expect("a response")
    }

    /// The same where there may be no response.
    pub async fn try_send(&mut self, mut request: Request<Body>) -> Result<Reply, hyper::Error> {
        let what = format!("the head of the response to {} {}", request.method(), request.uri());
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                with_deadline(&what, sender.send_request(request)).await?
            }
            Sender::Http2(sender) => {
                let target = std::mem::take(request.uri_mut());
                let target = target.into_parts().path_and_query.expect("a path");
                let absolute = Uri::builder().scheme("https").authority(self.authority.clone()).path_and_query(target);
                *request.uri_mut() = absolute.build().expect("parts of a URI");
                request.headers_mut().remove(header::HOST);
                sender.ready().await?;
                with_deadline(&what, sender.send_request(request)).await?
            }
        };
        let (head, body) = response.into_parts();
        Ok(Reply::new(head, body, Arc::clone(&self.close)))
    }

    /// Whether the server has closed the connection or asked us to.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }
}
