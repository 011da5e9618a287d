//! From a URL to a connection that speaks HTTP with the server: TCP, or the way through a proxy, then TLS.
//!
//! Sends nothing of HTTP itself, so a token goes out only after the server has proved its name. Also a service for
//! hyper's pooled client, for requests other than the tunnel's own.

use std::{
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use rustls::{ClientConfig, pki_types::ServerName};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;
use tunnel_certs::client::ClientTlsError;
use url::Url;

use crate::{
    net,
    proxy::{Proxies, ProxyError},
};

/// A connection that does not stand by then will not.
pub const WITHIN: Duration = Duration::from_secs(10);

/// Plaintext that rustls holds before a write waits; more would delay tokens behind bulk.
const TLS_BUFFER: usize = 16 * 1024;

/// Connects to servers. Clones share what they know of TLS.
#[derive(Debug, Clone)]
pub struct Connector {
    tls: Arc<ClientConfig>,
    /// For the words of a refusal.
    ca: Option<Arc<Path>>,
    proxies: Proxies,
}

/// Why there is no connection. Each displays as one sentence that says what to do.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The server, or the proxy on the way to it, takes no connection: `HOST:PORT`, and why.
    #[error("cannot connect to {0}: {1}")]
    Tcp(String, io::Error),
    /// The proxy gives no way.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// A variable of the environment names no usable proxy.
    #[error("{0}")]
    NoProxy(String),
    /// No TLS, or a server that cannot prove its name.
    #[error("{0}")]
    Tls(String),
    /// It took longer than [`WITHIN`].
    #[error("no answer within {} s", WITHIN.as_secs())]
    TooSlow,
}

impl ConnectError {
    /// What may be wrong, as the end of its sentence.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Tcp(_, error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                "; nothing listens there: is the port right, and does it run?"
            }
            // std has no kind for a name without an address.
            Self::Tcp(_, error) if error.to_string().starts_with("failed to lookup address") => {
                "; check the name, and this computer's DNS"
            }
            _ => "",
        }
    }
}

impl Connector {
    /// A connector that trusts the system's authorities and those in the file `ca`.
    pub fn new(ca: Option<&Path>, proxies: Proxies) -> Result<Self, ClientTlsError> {
        Ok(Self { tls: Arc::new(tunnel_certs::client::config(ca)?), ca: ca.map(Into::into), proxies })
    }

    /// The proxies that it uses.
    #[must_use]
    pub fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    /// Connects to the host and port of `url`; with TLS if its scheme is `https`. Takes as long as it takes.
    pub async fn connect(&self, url: &Url) -> Result<Transport, ConnectError> {
        let stream = self.reach(url).await?;
        if url.scheme() == "http" {
            return Ok(Transport(Either::Left(stream)));
        }
        let (host, _) = host_and_port(url);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| ConnectError::Tls(format!("{host} is not a host name that a certificate can be for")))?;
        let limit = |connection: &mut rustls::ClientConnection| connection.set_buffer_limit(Some(TLS_BUFFER));
        let tls = TlsConnector::from(Arc::clone(&self.tls)).connect_with(name, stream, limit).await;
        tls.map(|tls| Transport(Either::Right(tls))).map_err(|error| ConnectError::Tls(self.tls_sentence(&error)))
    }

    /// A TCP connection that ends at the server, maybe behind a proxy.
    async fn reach(&self, url: &Url) -> Result<TcpStream, ConnectError> {
        let (host, port) = host_and_port(url);
        let proxy = self.proxies.for_server(url).map_err(ConnectError::NoProxy)?;
        let (to, to_port) = proxy.map_or((host, port), crate::proxy::Proxy::address);
        let stream = TcpStream::connect((to, to_port)).await.map_err(|error| {
            let which = if proxy.is_some() { "the proxy " } else { "" };
            ConnectError::Tcp(format!("{which}{}", authority(to, to_port)), error)
        })?;
        net::tune(&stream);
        match proxy {
            Some(proxy) => Ok(proxy.tunnel(stream, &authority(host, port)).await?),
            None => Ok(stream),
        }
    }

    fn tls_sentence(&self, error: &io::Error) -> String {
        let explained = tunnel_certs::client::explain_with(error, self.ca.as_deref());
        explained.unwrap_or_else(|| format!("the connection broke off: {error}"))
    }
}

/// Host, without the brackets of IPv6, and port of a server.
pub(crate) fn host_and_port(url: &Url) -> (&str, u16) {
    let host = url.host_str().unwrap_or_default();
    (host.trim_start_matches('[').trim_end_matches(']'), url.port_or_known_default().unwrap_or(443))
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Transport>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let url = Url::parse(&uri.to_string()).map_err(|error| ConnectError::Tls(error.to_string()))?;
            let connected = timeout(WITHIN, connector.connect(&url)).await;
            connected.unwrap_or(Err(ConnectError::TooSlow)).map(TokioIo::new)
        })
    }
}

/// A connection, encrypted or not.
#[derive(Debug)]
pub struct Transport(Either<TcpStream, TlsStream<TcpStream>>);

impl Transport {
    /// The TLS session, if there is one.
    #[must_use]
    pub fn tls(&self) -> Option<&rustls::ClientConnection> {
        match &self.0 {
            Either::Left(_) => None,
            Either::Right(tls) => Some(tls.get_ref().1),
        }
    }
}

impl Connection for Transport {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use rustls::{CertificateError, Error};

    use super::*;

    #[test]
    fn an_authority_that_was_named_in_vain_is_named_again() {
        let dir = tempfile::tempdir().unwrap();
        let made = tunnel_certs::dev::generate(dir.path(), &["localhost"], tunnel_certs::dev::Existing::Keep).unwrap();
        let connector = Connector::new(Some(&made.ca), Proxies::default()).unwrap();
        let error = io::Error::other(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        let sentence = connector.tls_sentence(&error);
        let advice = format!("not by that of {}; give the CA's own certificate", made.ca.display());
        assert!(sentence.contains(&advice) && !sentence.contains("--ca"), "{sentence}");
    }
}
