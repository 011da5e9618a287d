//! An upstream that speaks whatever bytes a test writes: for answers that no HTTP library would send.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

use crate::eventually::with_deadline;

/// How a desktop looks whether an upstream is there.
const LOOK: &str = "HEAD / ";

/// A listener on a free port of the loopback interface that hands out connections with a request's head read.
///
/// It answers by itself only a desktop that looks whether it is there.
#[derive(Debug)]
pub struct RawUpstream {
    addr: SocketAddr,
    exchanges: mpsc::UnboundedReceiver<RawExchange>,
    _accepting: AbortOnDropHandle<()>,
}

impl RawUpstream {
    /// Starts to listen, in the test's own runtime.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let addr = listener.local_addr().expect("a bound address");
        let (sender, exchanges) = mpsc::unbounded_channel();
        let accepting = AbortOnDropHandle::new(tokio::spawn(accept(listener, sender)));
        Self { addr, exchanges, _accepting: accepting }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The next connection that brings a request.
    pub async fn next(&mut self) -> RawExchange {
        let exchange = with_deadline("a request at the raw upstream", self.exchanges.recv()).await;
        exchange.expect("the raw upstream listens")
    }

    /// Answers the next request with `bytes`. The connection stays open.
    pub async fn answer_once(&mut self, bytes: &[u8]) -> RawExchange {
        let mut exchange = self.next().await;
        exchange.write(bytes).await;
        exchange
    }
}

async fn accept(listener: TcpListener, exchanges: mpsc::UnboundedSender<RawExchange>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _peer)) = listener.accept().await {
        let exchanges = exchanges.clone();
        connections.spawn(async move {
            let mut exchange = RawExchange { head: String::new(), stream, read: Vec::new() };
            let _best_effort = exchange.stream.set_nodelay(true);
            match exchange.try_read_head().await {
                Ok(head) if head.starts_with(LOOK) => {
                    exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
                }
                Ok(head) => {
                    let _test_is_over = exchanges.send(RawExchange { head, ..exchange });
                }
                Err(_left) => {}
            }
        });
    }
}

/// One connection, in bytes.
#[derive(Debug)]
pub struct RawExchange {
    /// The head of the first request, up to and with its empty line.
    pub head: String,
    stream: TcpStream,
    read: Vec<u8>,
}

impl RawExchange {
    /// The head of the next request on this connection.
    pub async fn read_head(&mut self) -> String {
        with_deadline("a head at the raw upstream", self.try_read_head()).await.expect("a whole head")
    }

    /// The next `length` bytes.
    pub async fn read_exactly(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            assert!(self.read_more().await, "the caller left after {} bytes of {length}", self.read.len());
        }
        self.read.drain(..length).collect()
    }

    /// Everything up to the caller's FIN; an error is a RST.
    pub async fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let rest = with_deadline("the caller of the raw upstream leaves", self.stream.read_to_end(&mut self.read));
        rest.await.map(|_length| std::mem::take(&mut self.read))
    }

    /// Writes `bytes`; whether the caller is still there to take them.
    pub async fn try_write(&mut self, bytes: &[u8]) -> bool {
        with_deadline("the raw upstream's bytes are taken", self.stream.write_all(bytes)).await.is_ok()
    }

    /// Writes `bytes`; a caller who has left is no failure.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _caller_has_left = with_deadline("the raw upstream's bytes are taken", self.stream.write_all(bytes)).await;
    }

    /// Closes with a RST.
    pub fn reset(self) {
        self.stream.set_zero_linger().expect("an open socket");
    }

    async fn try_read_head(&mut self) -> io::Result<String> {
        const END: &[u8] = b"\r\n\r\n";
        loop {
            if let Some(at) = self.read.windows(END.len()).position(|window| window == END) {
                let head: Vec<u8> = self.read.drain(..at + END.len()).collect();
                return Ok(String::from_utf8_lossy(&head).into_owned());
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn read_more(&mut self) -> bool {
        let reading = self.stream.read_buf(&mut self.read);
        with_deadline("bytes at the raw upstream", reading).await.is_ok_and(|length| length > 0)
    }
}
