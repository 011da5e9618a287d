//! Upstreams that are not Ollama: old, odd, broken or hostile answers, and connections that die in the pool.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use http::{HeaderValue, Method};
use integration_tests::{
    body,
    caller::{Protocol, Reply},
    ollama::Cut,
    raw::RawUpstream,
    setup::{Setup, World},
};

struct Odd {
    world: World,
    upstream: RawUpstream,
}

impl Odd {
    async fn start() -> Self {
        let upstream = RawUpstream::start().await;
        Self { world: Setup::new().upstream(upstream.addr()).start().await, upstream }
    }

    /// What a caller gets when the upstream answers with these bytes and closes.
    async fn answers(&mut self, bytes: &[u8]) -> Reply {
        let caller = self.world.caller();
        let (reply, ()) = tokio::join!(caller.get("/x"), async { drop(self.upstream.answer_once(bytes).await) });
        reply
    }
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection() {
    let mut odd = Odd::start().await;
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let answer = format!("{version} 200 OK\r\nContent-Type: text/plain\r\n\r\nto the end");
        let reply = odd.answers(answer.as_bytes()).await;
        assert_eq!((reply.status().as_u16(), reply.text().await.as_str()), (200, "to the end"), "{version}");
    }
}

#[tokio::test]
async fn a_reason_and_a_status_of_its_own() {
    let mut odd = Odd::start().await;
    let reply = odd.answers(b"HTTP/1.1 299 \xe2\x98\x83 maybe\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!((reply.status().as_u16(), reply.text().await.as_str()), (299, "ok"));
}

#[tokio::test]
async fn t27_what_is_not_http_is_a_bad_gateway() {
    let mut odd = Odd::start().await;
    let long = format!("HTTP/1.1 200 OK\r\nX-Long: {}\r\n\r\n", "x".repeat(512 * 1024));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-Many: x\r\n".repeat(20_000));
    let answers: [(&str, &[u8]); 9] = [
        ("nothing", b""),
        ("half a head", b"HTTP/1.1 200 OK\r\nContent-Le"),
        ("another protocol", b"SSH-2.0-OpenSSH_9.9\r\n"),
        ("no status", b"HTTP/1.1 abc OK\r\n\r\n"),
        ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        ("a malformed length", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\na"),
        ("a NUL in a value", b"HTTP/1.1 200 OK\r\nX-Nul: a\0b\r\nContent-Length: 0\r\n\r\n"),
        ("a long field", long.as_bytes()),
        ("many fields", many.as_bytes()),
    ];
    for (what, bytes) in answers {
        let started = Instant::now();
        let reply = odd.answers(bytes).await;
        assert_eq!(reply.error(), (502, "upstream_error"), "{what}");
        assert_eq!(reply.header("x-should-retry"), "false", "{what}");
        assert!(started.elapsed() < Duration::from_secs(1), "{what}: {:?}", started.elapsed());
    }
    assert_eq!(odd.world.client().connections(), 1, "the tunnel was not lost");
}

#[tokio::test]
async fn t27_two_ways_to_frame_an_answer_are_one_body_or_none() {
    let mut odd = Odd::start().await;
    let reply = odd
        .answers(
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
              2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled",
        )
        .await;
    if reply.status() == 200 {
        assert_eq!(reply.header("content-length"), "", "chunked wins (RFC 9112 §6.3), and no length is left");
        assert_eq!(reply.text().await, "ok");
    } else {
        assert_eq!(reply.error(), (502, "upstream_error"));
    }
}

#[tokio::test]
async fn t27_a_broken_chunk_is_a_visible_cut() {
    let mut odd = Odd::start().await;
    for (what, rest) in [("no end", ""), ("no size", "zz\r\n"), ("a size over all", "fffffffffffffffff\r\n")] {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n";
        let mut reply = odd.answers(format!("{head}{rest}").as_bytes()).await;
        // The cut may overtake the bytes before it, never the other way round.
        if reply.status() == 200 {
            assert!(reply.rest().await.1.is_err(), "{what}");
        } else {
            assert_eq!(reply.error(), (502, "upstream_error"), "{what}");
        }
    }
}

#[tokio::test]
async fn t27_a_flood_of_informational_answers_ends_at_the_deadline() {
    let mut odd = Odd::start().await;
    let caller = odd.world.caller();
    let mut request = caller.request(Method::GET, "/x", body::empty());
    request.headers_mut().insert("tunnel-deadline", HeaderValue::from_static("1s"));
    let flood = async {
        let mut exchange = odd.upstream.next().await;
        let some = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(1000);
        while exchange.try_write(&some).await {}
    };
    let (reply, ()) = tokio::join!(caller.send(request), flood);
    assert!(matches!(reply.status().as_u16(), 502 | 504), "{:?}", reply.error());
}

#[tokio::test]
async fn bytes_after_an_answer_are_in_no_other() {
    let mut odd = Odd::start().await;
    let caller = odd.world.caller();
    for _ in 0..4 {
        let extra = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad";
        let (reply, _kept_open) = tokio::join!(caller.get("/x"), odd.upstream.answer_once(extra));
        assert_eq!(reply.text().await, "ok");
    }
}

#[tokio::test]
async fn a_connection_that_died_in_the_pool_is_replaced() {
    let world = Setup::new().start().await;
    let mut played = world.ollama().play("/api/show");
    let mut connection = world.caller().connect(Protocol::Http1).await;
    for round in 0..40 {
        let request = world.caller().request(Method::POST, "/api/show", body::full("{}"));
        let answer = async {
            let mut exchange = played.next().await;
            exchange.read_all().await.unwrap();
            exchange.respond(http::Response::new(body::full("shown")));
            exchange
        };
        let (reply, mut exchange) = tokio::join!(connection.send(request), answer);
        assert_eq!(reply.status(), 200, "round {round}: {:?}", reply.error());
        assert_eq!(reply.text().await, "shown");
        exchange.cut(if round % 2 == 0 { Cut::Fin } else { Cut::Reset });
        exchange.caller_leaves().await;
    }
}

#[tokio::test]
async fn connections_to_the_upstream_are_reused() {
    let world = Setup::new().start().await;
    let mut connection = world.caller().connect(Protocol::Http1).await;
    for _ in 0..20 {
        let request = world.caller().request(Method::GET, "/api/version", body::empty());
        connection.send(request).await.text().await;
    }
    let accepted = world.ollama().accepted_connections();
    assert!(accepted <= 3, "{accepted} connections for 20 requests in a row");
}

#[tokio::test]
async fn an_upstream_that_accepts_and_says_nothing_does_not_keep_the_desktop_from_connecting() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let started = Instant::now();
    let world = Setup::new().upstream(silent.local_addr().unwrap()).start().await;
    assert!(started.elapsed() < Duration::from_secs(2), "connected after {:?}", started.elapsed());
    assert_eq!(world.caller().get("/healthz").await.status(), 200);
}
