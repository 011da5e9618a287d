//! An upstream that speaks whatever bytes a test writes: for answers that no HTTP library would send.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::eventually::with_deadline;

/// A listener on a free port of the loopback interface, and nothing more.
#[derive(Debug)]
pub struct RawUpstream {
    listener: TcpListener,
}

impl RawUpstream {
    /// Starts to listen, in the test's own runtime.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        Self { listener }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("a bound address")
    }

    /// The next connection.
    pub async fn accept(&self) -> RawExchange {
        let (stream, _peer) =
            with_deadline("a connection to the raw upstream", self.listener.accept()).await.expect("a connection");
        stream.set_nodelay(true).expect("an open socket");
        RawExchange { stream, read: Vec::new() }
    }

    /// Takes one connection, reads a request's head, and answers with `bytes`. The connection stays open.
    pub async fn answer_once(&self, bytes: &[u8]) -> RawExchange {
        let mut exchange = self.accept().await;
        exchange.read_head().await;
        exchange.write(bytes).await;
        exchange
    }
}

/// One connection, in bytes.
#[derive(Debug)]
pub struct RawExchange {
    stream: TcpStream,
    read: Vec<u8>,
}

impl RawExchange {
    /// The head of the next request, up to and with its empty line.
    pub async fn read_head(&mut self) -> String {
        let end = self.read_until(b"\r\n\r\n").await;
        let head: Vec<u8> = self.read.drain(..end).collect();
        String::from_utf8_lossy(&head).into_owned()
    }

    /// The next `length` bytes.
    pub async fn read_exactly(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            assert!(self.read_more().await, "the caller left after {} bytes of {length}", self.read.len());
        }
        self.read.drain(..length).collect()
    }

    /// Everything up to the caller's FIN; an error is a RST.
    pub async fn read_to_end(&mut self) -> std::io::Result<Vec<u8>> {
        let rest = with_deadline("the caller of the raw upstream leaves", self.stream.read_to_end(&mut self.read));
        rest.await.map(|_length| std::mem::take(&mut self.read))
    }

    /// Writes `bytes`; a caller who has left is no failure.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _caller_has_left = with_deadline("the raw upstream's bytes are taken", self.stream.write_all(bytes)).await;
    }

    /// Closes with a RST.
    pub fn reset(self) {
        self.stream.set_zero_linger().expect("an open socket");
    }

    async fn read_until(&mut self, mark: &[u8]) -> usize {
        loop {
            if let Some(at) = self.read.windows(mark.len()).position(|window| window == mark) {
                return at + mark.len();
            }
            assert!(self.read_more().await, "the caller left in the middle of a head: {:?}", self.read);
        }
    }

    async fn read_more(&mut self) -> bool {
        let reading = self.stream.read_buf(&mut self.read);
        with_deadline("bytes at the raw upstream", reading).await.is_ok_and(|length| length > 0)
    }
}
