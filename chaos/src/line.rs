//! A caller's connection to the server, opened when there is none, kept for the next request.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Request, Response, Uri, header};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use integration_tests::{body::Body, pki::HOST};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, sync::watch, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{caller::Callers, ticket::User, verdict::Failure};

/// A server that stands still accepts connections and says nothing; longer than any fault.
const CONNECT_WITHIN: Duration = Duration::from_secs(40);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "h1",
            Self::Http2 => "h2",
        }
    }
}

/// See the module. HTTP/2 connections can be used by several callers at once, HTTP/1.1 ones are taken.
pub(crate) struct Line {
    protocol: Protocol,
    tls: TlsConnector,
    server: watch::Receiver<SocketAddr>,
    bearer: String,
    idle: Mutex<Option<(SocketAddr, Sender)>>,
}

/// A connection in use. Dropped without [`Line::keep`], HTTP/1.1 closes it.
pub(crate) struct Taken {
    addr: SocketAddr,
    sender: Sender,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Line {
    pub(crate) fn new(callers: &Callers, user: User, protocol: Protocol) -> Self {
        let mut tls: ClientConfig = callers.tls.clone();
        tls.alpn_protocols = vec![match protocol {
            Protocol::Http1 => b"http/1.1".to_vec(),
            Protocol::Http2 => b"h2".to_vec(),
        }];
        Self {
            protocol,
            tls: TlsConnector::from(Arc::new(tls)),
            server: callers.server.clone(),
            bearer: format!("Bearer {}", (callers.token)(user)),
            idle: Mutex::default(),
        }
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Lets go of the idle connection.
    pub(crate) fn hang_up(&self) {
        *self.idle() = None;
    }

    /// The idle connection, or a new one.
    pub(crate) async fn take(&self) -> Result<Taken, Failure> {
        let addr = *self.server.borrow();
        if let Some(taken) = self.reuse(addr) {
            return Ok(taken);
        }
        let failed = |error: &dyn std::fmt::Display| Failure::Connect(error.to_string());
        let opened = timeout(CONNECT_WITHIN, self.open(addr)).await.map_err(|elapsed| failed(&elapsed))?;
        let sender = opened.map_err(|error| failed(&error))?;
        if let Sender::Http2(sender) = &sender {
            *self.idle() = Some((addr, Sender::Http2(sender.clone())));
        }
        Ok(Taken { addr, sender })
    }

    /// Gives a connection back whose response has been read to its end.
    pub(crate) fn keep(&self, taken: Taken) {
        if let Sender::Http1(_) = &taken.sender {
            *self.idle() = Some((taken.addr, taken.sender));
        }
    }

    fn reuse(&self, addr: SocketAddr) -> Option<Taken> {
        let mut idle = self.idle();
        let (to, sender) = idle.take()?;
        if to != addr || sender.is_closed() {
            return None;
        }
        if let Sender::Http2(shared) = &sender {
            *idle = Some((to, Sender::Http2(shared.clone())));
        }
        Some(Taken { addr, sender })
    }

    async fn open(&self, addr: SocketAddr) -> io::Result<Sender> {
        let io = TokioIo::new(self.socket(addr).await?);
        Ok(match self.protocol {
            Protocol::Http1 => {
                let (sender, driver) = http1::handshake(io).await.map_err(io::Error::other)?;
                tokio::spawn(driver);
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await.map_err(io::Error::other)?;
                tokio::spawn(driver);
                Sender::Http2(sender)
            }
        })
    }

    async fn socket(&self, addr: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(addr).await?;
        tcp.set_nodelay(true)?;
        self.tls.connect(ServerName::try_from(HOST).map_err(io::Error::other)?, tcp).await
    }

    /// Sends a request on it and waits for the head of the response.
    pub(crate) async fn send(
        &self,
        taken: &mut Taken,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, Failure> {
        let no_head = |error: hyper::Error| Failure::NoHead(causes(&error));
        let bearer = header::HeaderValue::try_from(&self.bearer).expect("a token");
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
        let authority = format!("{HOST}:{}", taken.addr.port());
        match &mut taken.sender {
            Sender::Http1(sender) => {
                request.headers_mut().insert(header::HOST, header::HeaderValue::try_from(authority).expect("a host"));
                sender.ready().await.map_err(no_head)?;
                sender.send_request(request).await.map_err(no_head)
            }
            Sender::Http2(sender) => {
                let target = request.uri().path_and_query().cloned().expect("a target");
                let uri = Uri::builder().scheme("https").authority(authority).path_and_query(target).build();
                *request.uri_mut() = uri.expect("parts of a URI");
                let failed = |error| if is_turned_away(&error) { Failure::TurnedAway } else { no_head(error) };
                sender.ready().await.map_err(failed)?;
                sender.send_request(request).await.map_err(failed)
            }
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Option<(SocketAddr, Sender)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender {
    fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }
}

/// The server had said that it takes no more on this HTTP/2 connection, before the request was sent or instead of taking
/// it: every client asks again on another (RFC 9113 §6.8), but the library leaves that to us.
///
/// No loss hides here. hyper calls cancelled only what it has not taken from its queue. h2 gives a stream the GOAWAY for its
/// error only where its id is above the last one that the server takes, or where it was not opened any more; a stream that
/// was taken and breaks off with its connection has another error. Should a server have run it all the same, asking again
/// shows in the ledger as one request run twice.
fn is_turned_away(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    let said =
        |cause: &h2::Error| cause.is_go_away() && cause.is_remote() && cause.reason() == Some(h2::Reason::NO_ERROR);
    error.is_canceled() || cause.is_some_and(said)
}

/// An error with all its causes.
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error;
    while let Some(next) = cause.source() {
        text = format!("{text}: {next}");
        cause = next;
    }
    text
}
