//! The harness itself: a fake that lies would prove nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode};
use integration_tests::{
    body::{self, Length},
    caller::{Caller, Protocol},
    eventually::{LIMIT, eventually},
    ollama::{Cut, Ollama, WORDS},
    pattern::Check,
    raw::RawUpstream,
    relay::Relay,
};
use tokio::{io::AsyncReadExt, net::TcpStream};

fn caller(ollama: &Ollama) -> Caller {
    Caller::new("127.0.0.1", ollama.addr(), None)
}

#[tokio::test]
async fn answers_by_path() {
    let ollama = Ollama::start();
    let caller = caller(&ollama);
    assert_eq!(caller.get("/").await.text().await, "Ollama is running");
    assert_eq!(caller.get("/status/204").await.status(), StatusCode::NO_CONTENT);
    assert_eq!(caller.get("/nowhere").await.status(), StatusCode::NOT_FOUND);
    let chat = caller.post("/api/chat", body::full("{}")).await.text().await;
    assert_eq!(chat.lines().count(), WORDS.len() + 1);
    let sse = caller.post("/v1/chat/completions", body::full(r#"{"stream":true}"#)).await.text().await;
    assert!(sse.ends_with("data: [DONE]\n\n"), "{sse}");
    let echoed = caller.post("/echo/a%2Fb?c=%20", body::full("text")).await.json().await;
    assert_eq!((&echoed["target"], &echoed["body"]), (&"/echo/a%2Fb?c=%20".into(), &"text".into()));
}

#[tokio::test]
async fn refuses_a_foreign_origin_as_the_real_one_does() {
    let ollama = Ollama::start();
    let mut request = caller(&ollama).request(http::Method::GET, "/", body::empty());
    request.headers_mut().insert("origin", HeaderValue::from_static("https://example.com"));
    let reply = caller(&ollama).send(request).await;
    assert_eq!(reply.status(), StatusCode::FORBIDDEN);
    let foreign = Caller::new("localhost.example", ollama.addr(), None);
    assert_eq!(foreign.get("/").await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn carries_bulk_both_ways() {
    const LENGTH: u64 = 5_000_000;
    let ollama = Ollama::start();
    for told in [Length::Fixed, Length::Unknown] {
        let sunk = caller(&ollama).post("/sink", body::generated(LENGTH, told)).await.json().await;
        assert_eq!((&sunk["length"], &sunk["damaged_at"]), (&LENGTH.into(), &serde_json::Value::Null));
    }
    for (query, told) in [("", "5000000"), ("&chunked", "")] {
        let reply = caller(&ollama).get(&format!("/bytes?n={LENGTH}{query}")).await;
        assert_eq!(reply.header("content-length"), told);
        let mut check = Check::default();
        check.push(&reply.bytes().await);
        assert_eq!((check.length(), check.damaged_at()), (LENGTH, None));
    }
}

#[tokio::test]
async fn a_played_stream_moves_only_by_hand() {
    let ollama = Ollama::start();
    let mut played = ollama.play("/api/chat");
    let caller = caller(&ollama);
    let call = tokio::spawn(async move { caller.post("/api/chat", body::full("ask")).await });
    let mut exchange = played.next().await;
    assert_eq!(exchange.read_all().await.unwrap(), "ask");
    assert!(!call.is_finished());
    exchange.start_ok("application/x-ndjson");
    let mut reply = call.await.unwrap();
    for record in ["one\n", "two\n"] {
        exchange.send(record).await.unwrap();
        reply.expect(record).await;
    }
    exchange.end();
    reply.rest().await.1.unwrap();
}

#[tokio::test]
async fn a_cut_is_never_a_clean_end() {
    for how in [Cut::Fin, Cut::Reset] {
        let ollama = Ollama::start();
        let mut played = ollama.play("/api/chat");
        let call = tokio::spawn({
            let caller = caller(&ollama);
            async move { caller.get("/api/chat").await }
        });
        let mut exchange = played.next().await;
        exchange.start_ok("text/plain");
        exchange.send("half").await.unwrap();
        let mut reply = call.await.unwrap();
        reply.expect("half").await;
        exchange.cut(how);
        assert!(reply.rest().await.1.is_err(), "{how:?}");
        eventually("no connection is left", async || (ollama.open_connections() == 0).then_some(())).await;
    }
}

#[tokio::test]
async fn sees_the_caller_leave_before_and_after_the_head() {
    let ollama = Ollama::start();
    let mut played = ollama.play("/api/chat");
    let call = tokio::spawn({
        let caller = caller(&ollama);
        async move { caller.post("/api/chat", body::stepwise().1).await }
    });
    let mut exchange = played.next().await;
    assert!(!exchange.caller_has_left());
    call.abort();
    exchange.caller_leaves().await;

    let call = tokio::spawn({
        let caller = caller(&ollama);
        async move { caller.get("/api/chat").await }
    });
    let mut exchange = played.next().await;
    exchange.start_ok("text/plain");
    let reply = call.await.unwrap();
    assert!(!exchange.caller_has_left());
    drop(reply);
    exchange.caller_leaves().await;
    assert!(exchange.caller_has_left());
}

#[tokio::test]
async fn a_killed_one_frees_its_port() {
    let ollama = Ollama::start();
    let addr = ollama.addr();
    let mut connection = caller(&ollama).connect(Protocol::Http1).await;
    let request = caller(&ollama).request(http::Method::GET, "/", body::empty());
    connection.send(request).await.text().await;
    ollama.kill();
    eventually("the connection closes", async || connection.is_closed().then_some(())).await;
    let again = Ollama::start_on(addr);
    assert_eq!(caller(&again).get("/").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn raw_bytes_both_ways() {
    let mut upstream = RawUpstream::start().await;
    let caller = Caller::new("127.0.0.1", upstream.addr(), None);
    let (answer, ()) = tokio::join!(caller.raw(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\nrest"), async {
        let mut exchange = upstream.answer_once(b"HTTP/9.9 teapot").await;
        assert_eq!(exchange.read_exactly(4).await, b"rest");
        exchange.reset();
    });
    assert!(answer.is_empty() || answer == "HTTP/9.9 teapot", "{answer:?}");
}

#[tokio::test]
async fn the_relay_counts_freezes_and_cuts() {
    let ollama = Ollama::start();
    let relay = Relay::to(ollama.addr());
    let caller = Caller::new("127.0.0.1", relay.addr(), None);
    assert_eq!(caller.get("/").await.text().await, "Ollama is running");
    assert!(relay.bytes_up() > 0 && relay.bytes_down() > 0);
    assert_eq!(relay.accepted(), 1);

    let mut played = ollama.play("/api/chat");
    let call = tokio::spawn({
        let caller = caller.clone();
        async move { caller.get("/api/chat").await }
    });
    let mut exchange = played.next().await;
    exchange.start_ok("text/plain");
    let mut reply = call.await.unwrap();
    relay.freeze();
    exchange.send("later").await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(100), reply.expect("later")).await;
    assert!(early.is_err(), "bytes passed a frozen relay");
    relay.thaw();
    reply.expect("later").await;
    relay.cut(Cut::Reset).await;
    assert!(reply.rest().await.1.is_err());
    exchange.caller_leaves().await;
}

#[tokio::test]
async fn the_relay_delays_and_limits() {
    let ollama = Ollama::start();
    let relay = Relay::to(ollama.addr());
    let caller = Caller::new("127.0.0.1", relay.addr(), None);
    relay.delay(Duration::from_millis(50));
    let started = Instant::now();
    caller.get("/").await.text().await;
    assert!(started.elapsed() >= Duration::from_millis(100), "a round trip: {:?}", started.elapsed());

    relay.delay(Duration::ZERO);
    relay.limit(Some(1_000_000));
    let started = Instant::now();
    assert_eq!(caller.get("/bytes?n=300000").await.bytes().await.len(), 300_000);
    assert!(started.elapsed() >= Duration::from_millis(250), "300 kB at 1 MB/s: {:?}", started.elapsed());
    assert!(started.elapsed() < LIMIT);
}

#[tokio::test]
async fn the_relay_refuses() {
    let ollama = Ollama::start();
    let relay = Relay::to(ollama.addr());
    let caller = Caller::new("127.0.0.1", relay.addr(), None);
    relay.refuse();
    if let Ok(mut refused) = TcpStream::connect(relay.addr()).await {
        assert!(!matches!(refused.read(&mut [0]).await, Ok(1..)));
    }
    relay.admit();
    assert_eq!(caller.get("/").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_early_answer_is_not_lost_in_a_reset() {
    let ollama = Ollama::start();
    for _ in 0..8 {
        let upload = body::generated(8 << 20, Length::Fixed);
        assert_eq!(caller(&ollama).post("/early", upload).await.text().await, "there already");
    }
}
