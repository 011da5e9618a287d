//! Peers that are slow on purpose (T43): each is cut about ten seconds after it began, all at the same time.

use std::time::{Duration, Instant};

use integration_tests::{
    attack::{
        self,
        stage::{Stage, Way},
    },
    caller::{Io, Protocol},
    jwt::{claims, hs256},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

/// The server's limit is 10 s; a busy machine is slower.
const CUT_WITHIN: Duration = Duration::from_secs(20);

/// How a peer begins, before it goes slow.
#[derive(Debug, Clone, Copy)]
enum Begins {
    Tcp,
    Tls(Protocol),
}

/// A name, how it begins, what it sends at once, and what it repeats for ever.
type Case = (&'static str, Begins, &'static str, &'static str);

const HELLO: &str = "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}";
const H2: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("TCP and nothing", Begins::Tcp, "", ""),
    ("half a TLS handshake", Begins::Tcp, HELLO, ""),
    ("half a TLS handshake, drop by drop", Begins::Tcp, HELLO, "\0"),
    ("half a head in the clear", Begins::Tcp, "GET /x HTTP/1.1\r\nHost: localhost\r\n", ""),
    ("a head in the clear, drop by drop", Begins::Tcp, "GET /x HTTP/1.1\r\nHost: localhost\r\n", "X: y\r\n"),
    ("TLS and nothing", Begins::Tls(Protocol::Http1), "", ""),
    ("TLS for HTTP/2 and nothing", Begins::Tls(Protocol::Http2), "", ""),
    ("half a preface of HTTP/2", Begins::Tls(Protocol::Http2), "PRI * HT", ""),
    ("a preface of HTTP/2 and nothing", Begins::Tls(Protocol::Http2), H2, ""),
    ("half a request line", Begins::Tls(Protocol::Http1), "GET /x HT", ""),
    ("half a head", Begins::Tls(Protocol::Http1), "GET /x HTTP/1.1\r\nHost: localhost\r\n", ""),
    ("a head, drop by drop", Begins::Tls(Protocol::Http1), "GET /x HTTP/1.1\r\nHost: localhost\r\n", "X: y\r\n"),
    ("empty lines, drop by drop", Begins::Tls(Protocol::Http1), "", "\r\n"),
    ("half a second head", Begins::Tls(Protocol::Http1), "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /x", ""),
    ("half a WebSocket handshake", Begins::Tls(Protocol::Http1), "GET /ws/tunnel HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nAuthorization: Bearer {token}\r\n", ""),
    ("a WebSocket handshake, drop by drop", Begins::Tls(Protocol::Http1), "GET /ws/tunnel HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n", "X: y\r\n"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t43_slow_peers_are_cut() {
    let mut stage = Stage::start(Way::Direct, &[]).await;
    // All at the same time: each takes as long as it may.
    let all = futures_util::future::join_all(CASES.iter().map(|case| is_cut(&stage, case))).await;
    attack::run("T43 slow peers", all, async |_, judged| judged).await;
    stage.is_unharmed(0).await;
}

async fn is_cut(stage: &Stage, (name, begins, first, more): &Case) -> Result<(), String> {
    let began = Instant::now();
    let socket: Box<dyn Io> = match begins {
        Begins::Tcp => Box::new(TcpStream::connect(stage.addr()).await.unwrap()),
        Begins::Tls(protocol) => stage.caller().socket(*protocol).await,
    };
    let (mut reader, mut writer) = tokio::io::split(socket);
    let token = hs256(&claims("mallory"));
    let bytes = |text: &str| text.replace("{token}", &token).chars().map(|c| c as u8).collect::<Vec<u8>>();
    let write = async {
        let mut next = bytes(first);
        while writer.write_all(&next).await.is_ok() && writer.flush().await.is_ok() && !more.is_empty() {
            sleep(Duration::from_millis(500)).await;
            next = bytes(more);
        }
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    let read = async { while matches!(reader.read_buf(&mut answer).await, Ok(1..)) {} };
    let cut = timeout(CUT_WITHIN, async {
        tokio::select! { () = read => {}, () = write => {} }
    })
    .await;
    match cut {
        Ok(()) if began.elapsed() > Duration::from_secs(5) || name.contains("lines") => Ok(()),
        Ok(()) => Err(format!("{name}: cut after {:?} already", began.elapsed())),
        Err(_) => Err(format!("{name}: not cut within {CUT_WITHIN:?}")),
    }
}
