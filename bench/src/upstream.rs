//! The HTTP server behind everything that is measured: small answers, token streams, bodies of any size.
//!
//! Runs on a thread of its own, so that it and the callers share a clock but not a scheduler.
//!
//! | path | answer |
//! |---|---|
//! | `/small` | 128 bytes |
//! | `/slow` | the same, after [`THINKING`] |
//! | `/stream/N` | N token records, one per [`beat`](BEAT); all streams in step, as those of a batching model are |
//! | `/hang` | one record, then nothing; when its socket closes, the time is sent to [`Upstream::closed`] |
//! | `/bulk/N` | N MiB |
//! | `/sink` | reads the body, then 128 bytes |

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};

use crate::{clock, http::Messages};

/// Between two tokens of a stream: 50 tokens/s, a model that reads faster than people do.
pub(crate) const BEAT: Duration = Duration::from_millis(20);

/// How long `/slow` takes to answer, as a model that is loading or reading its prompt.
pub(crate) const THINKING: Duration = Duration::from_millis(500);

/// The length of a token record: about that of OpenAI's, `data: {"id":…,"choices":[{"delta":{"content":"word"}}]}`.
const RECORD: usize = 180;

/// `/small` and `/slow`.
const SMALL: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 128\r\n\r\n\
    {\"answer\":\"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234\"}";

/// How much of `/bulk` is written at a time.
static BLOCK: [u8; 64 * 1024] = [b'x'; 64 * 1024];

/// The running server.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// When sockets of `/hang` closed.
    pub(crate) closed: mpsc::UnboundedReceiver<Instant>,
}

impl Upstream {
    /// Starts it on a free port; it runs until the process ends.
    pub(crate) fn start() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (sender, closed) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("upstream".into()).spawn(move || runtime.block_on(serve(listener, sender)))?;
        Ok(Self { address, closed })
    }
}

async fn serve(listener: std::net::TcpListener, closed: mpsc::UnboundedSender<Instant>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let (beat, _) = watch::channel(());
    tokio::spawn(keep_time(beat.clone()));
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let connection = Connection { messages: Messages::new(socket), beat: beat.subscribe(), closed: closed.clone() };
        tokio::spawn(connection.serve());
    }
}

/// The drummer of all token streams.
async fn keep_time(beat: watch::Sender<()>) {
    let mut ticks = tokio::time::interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        beat.send_replace(());
    }
}

struct Connection {
    messages: Messages<TcpStream>,
    beat: watch::Receiver<()>,
    closed: mpsc::UnboundedSender<Instant>,
}

impl Connection {
    async fn serve(mut self) -> io::Result<()> {
        while let Some(target) = self.messages.request().await? {
            self.messages.drain().await?;
            let (name, count) = target[1..].split_once('/').unwrap_or((&target[1..], "0"));
            let count: u64 = count.parse().unwrap_or_default();
            match name {
                "slow" => {
                    tokio::time::sleep(THINKING).await;
                    self.messages.io().write_all(SMALL).await?;
                }
                "stream" => self.stream(count).await?,
                "hang" => return self.hang().await,
                "bulk" => self.bulk(count).await?,
                _ => self.messages.io().write_all(SMALL).await?,
            }
        }
        Ok(())
    }

    async fn stream(&mut self, tokens: u64) -> io::Result<()> {
        self.stream_head().await?;
        self.beat.mark_unchanged();
        for _ in 0..tokens {
            if self.beat.changed().await.is_err() {
                break;
            }
            self.record().await?;
        }
        self.messages.io().write_all(b"0\r\n\r\n").await
    }

    async fn hang(mut self) -> io::Result<()> {
        self.stream_head().await?;
        self.record().await?;
        self.messages.closed().await;
        // The receiver is gone only when the bench is.
        let _ = self.closed.send(Instant::now());
        Ok(())
    }

    async fn stream_head(&mut self) -> io::Result<()> {
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        self.messages.io().write_all(head).await
    }

    /// One chunk that holds one record that holds the time of its writing.
    async fn record(&mut self) -> io::Result<()> {
        let record = format!("data: {:020} {:.<fill$}\n\n", clock::now(), "", fill = RECORD - 29);
        self.messages.io().write_all(format!("{:x}\r\n{record}\r\n", record.len()).as_bytes()).await
    }

    async fn bulk(&mut self, mib: u64) -> io::Result<()> {
        let length = mib * 1024 * 1024;
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n");
        self.messages.io().write_all(head.as_bytes()).await?;
        for _ in 0..length / BLOCK.len() as u64 {
            self.messages.io().write_all(&BLOCK).await?;
        }
        Ok(())
    }
}
