//! One caller: a keep-alive connection, plain or TLS, to whatever is measured.

use std::{io, net::SocketAddr, path::Path, sync::Arc};

use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::http::Messages;

/// What a caller talks over: TCP, or TLS on it.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Where callers go, and what they say there.
#[derive(Clone)]
pub(crate) struct Target {
    address: SocketAddr,
    tls: Option<TlsConnector>,
    /// Header lines of each request.
    headers: Arc<str>,
}

impl Target {
    /// Straight to the upstream.
    pub(crate) fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None, headers: format!("Host: {address}\r\n").into() }
    }

    /// HTTPS to `localhost`, whose certificate `ca` has signed.
    pub(crate) fn tls(port: u16, ca: &Path, token: Option<&str>) -> io::Result<Self> {
        let config = tunnel_certs::client::config(Some(ca)).map_err(io::Error::other)?;
        let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        Ok(Self {
            address: ([127, 0, 0, 1], port).into(),
            tls: Some(TlsConnector::from(Arc::new(config))),
            headers: format!("Host: localhost:{port}\r\n{authorization}").into(),
        })
    }

    /// A connection without HTTP on it.
    pub(crate) async fn dial(&self) -> io::Result<Box<dyn Connection>> {
        let socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Box::new(socket),
            Some(connector) => {
                let name = ServerName::try_from("localhost").expect("a valid name");
                Box::new(connector.connect(name, socket).await?)
            }
        })
    }

    /// A connection for requests, one after the other.
    pub(crate) async fn connect(&self) -> io::Result<Caller> {
        Ok(Caller { messages: Messages::new(self.dial().await?), headers: self.headers.clone() })
    }
}

/// The connection of one caller. Dropping it is going away.
pub(crate) struct Caller {
    pub(crate) messages: Messages<Box<dyn Connection>>,
    headers: Arc<str>,
}

impl Caller {
    /// Sends a GET and reads the head of the response, which must be 200.
    pub(crate) async fn get(&mut self, path: &str) -> io::Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\n{}\r\n", self.headers);
        self.send(request.as_bytes()).await?;
        self.ok().await
    }

    /// Sends a POST with a body of so many MiB; reads the whole response, which must be 200.
    pub(crate) async fn post(&mut self, path: &str, mib: u64) -> io::Result<()> {
        static BLOCK: [u8; 64 * 1024] = [b'x'; 64 * 1024];
        let length = mib * 1024 * 1024;
        let head = format!("POST {path} HTTP/1.1\r\n{}Content-Length: {length}\r\n\r\n", self.headers);
        self.send(head.as_bytes()).await?;
        for _ in 0..length / BLOCK.len() as u64 {
            self.messages.io().write_all(&BLOCK).await?;
        }
        self.messages.io().flush().await?;
        self.ok().await?;
        self.messages.drain().await.map(drop)
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.messages.io().write_all(bytes).await?;
        self.messages.io().flush().await
    }

    async fn ok(&mut self) -> io::Result<()> {
        match self.messages.response().await? {
            200 => Ok(()),
            status => Err(io::Error::other(format!("HTTP status {status}"))),
        }
    }
}
