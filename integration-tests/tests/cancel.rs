//! Whoever leaves, the other side learns it: before the head and after, from the caller to the upstream and back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use http::{Method, Response};
use integration_tests::{
    body::{self, Length},
    caller::{Protocol, Reply},
    eventually::{eventually, with_deadline},
    ollama::{Cut, Exchange},
    pattern,
    setup::{Setup, World},
};
use tokio::{io::AsyncWriteExt, task::JoinHandle};
use tunnel::event::Event;

/// F07: how soon the upstream's socket closes after the caller has left.
const SOON: Duration = Duration::from_millis(500);

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// A call in a task, whose abortion is the caller's leaving.
async fn call(world: &World, protocol: Protocol, path: &str) -> JoinHandle<Reply> {
    let mut connection = world.caller().connect(protocol).await;
    let request = world.caller().request(Method::POST, path, body::full("{}"));
    tokio::spawn(async move { connection.send(request).await })
}

async fn leaves_soon(exchange: &mut Exchange, when: &str) {
    let started = Instant::now();
    exchange.caller_leaves().await;
    assert!(started.elapsed() < SOON, "{when}: the upstream's socket closed after {:?}", started.elapsed());
}

/// What the desktop says of itself.
fn in_flight(world: &World) -> usize {
    let mut counts = world.client().events().into_iter().filter_map(|event| match event {
        Event::Requests { in_flight, .. } => Some(in_flight),
        _ => None,
    });
    counts.next_back().unwrap_or(0)
}

async fn still_works(world: &World) {
    assert_eq!(world.caller().get("/api/version").await.status(), 200);
    assert_eq!(world.client().connections(), 1, "the tunnel was not lost");
}

#[tokio::test]
async fn f07_the_caller_leaves_before_the_head() {
    let world = Setup::new().start().await;
    let mut played = world.ollama().play("/api/chat");
    for protocol in PROTOCOLS {
        let call = call(&world, protocol, "/api/chat").await;
        let mut exchange = played.next().await;
        exchange.read_all().await.unwrap();
        assert!(!exchange.caller_has_left());
        call.abort();
        leaves_soon(&mut exchange, &format!("before the head over {protocol:?}")).await;
    }
    still_works(&world).await;
}

#[tokio::test]
async fn f07_the_caller_leaves_between_records() {
    let world = Setup::new().start().await;
    let mut played = world.ollama().play("/api/chat");
    for protocol in PROTOCOLS {
        let call = call(&world, protocol, "/api/chat").await;
        let mut exchange = played.start_ok("application/x-ndjson").await;
        let mut reply = call.await.unwrap();
        exchange.send("one\n").await.unwrap();
        reply.expect("one\n").await;
        assert!(!exchange.caller_has_left());
        drop(reply);
        leaves_soon(&mut exchange, &format!("between records over {protocol:?}")).await;
    }
    still_works(&world).await;
}

#[tokio::test]
async fn f07_the_caller_leaves_while_much_is_on_the_way() {
    let world = Setup::new().start().await;
    let mut played = world.ollama().play("/api/pull");
    for protocol in PROTOCOLS {
        let call = call(&world, protocol, "/api/pull").await;
        let mut exchange = played.start_ok("application/octet-stream").await;
        let reply = call.await.unwrap();
        // Until every window on the way is full: the caller reads nothing.
        while tokio::time::timeout(SOON, exchange.send(pattern::slice(0, 65_000))).await.is_ok() {}
        drop(reply);
        leaves_soon(&mut exchange, &format!("behind a full window over {protocol:?}")).await;
    }
    still_works(&world).await;
}

#[tokio::test]
async fn f07_the_caller_leaves_in_the_middle_of_an_upload() {
    let world = Setup::new().start().await;
    let mut played = world.ollama().play("/api/create");
    for protocol in PROTOCOLS {
        let (mut pieces, body) = body::stepwise();
        let mut connection = world.caller().connect(protocol).await;
        let request = world.caller().request(Method::POST, "/api/create", body);
        let call = tokio::spawn(async move { connection.send(request).await });
        let mut exchange = played.next().await;
        pieces.send("half").await.unwrap();
        assert_eq!(exchange.read().await.unwrap().unwrap(), "half");
        call.abort();
        leaves_soon(&mut exchange, &format!("during an upload over {protocol:?}")).await;
        assert!(exchange.read().await.unwrap().is_err(), "a body that was cut is no whole body ({protocol:?})");
    }
    still_works(&world).await;
}

#[tokio::test]
async fn f07_the_caller_leaves_while_the_upstream_takes_no_more() {
    let world = Setup::new().start().await;
    let mut played = world.ollama().play("/api/create");
    // Over HTTP/1.1 the caller's FIN is behind the bytes that nobody reads: only the stall timeout can tell.
    let mut connection = world.caller().connect(Protocol::Http2).await;
    let request = world.caller().request(Method::POST, "/api/create", body::generated(1 << 30, Length::Fixed));
    let call = tokio::spawn(async move { connection.send(request).await });
    let mut exchange = played.next().await;
    // Long enough for every window on the way to fill up behind an upstream that reads nothing.
    let _filling = tokio::time::timeout(SOON, exchange.caller_leaves()).await.expect_err("the caller waits");
    assert_eq!(in_flight(&world), 1);
    call.abort();
    let started = Instant::now();
    eventually("the desktop lets go", async || (in_flight(&world) == 0).then_some(())).await;
    assert!(started.elapsed() < SOON, "the desktop let go after {:?}", started.elapsed());
    // The FIN, too, is behind the bytes that this upstream has not read.
    let mut end = exchange.read().await;
    while let Some(Ok(_)) = end {
        end = exchange.read().await;
    }
    assert!(end.is_some(), "a body that was cut is no whole body");
    still_works(&world).await;
}

#[tokio::test]
async fn a_fin_on_http1_is_a_cancellation() {
    let world = Setup::new().start().await;
    let caller = world.caller();
    let mut played = world.ollama().play("/api/chat");
    let mut socket = caller.socket(Protocol::Http1).await;
    let head = format!("GET /api/chat HTTP/1.1\r\n{}\r\n", caller.raw_headers());
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut exchange = played.next().await;
    socket.shutdown().await.unwrap();
    leaves_soon(&mut exchange, "after a FIN").await;
}

#[tokio::test]
async fn the_end_of_an_http2_request_is_none() {
    let world = Setup::new().start().await;
    let mut played = world.ollama().play("/api/chat");
    let call = call(&world, Protocol::Http2, "/api/chat").await;
    let mut exchange = played.next().await;
    assert_eq!(exchange.read_all().await.unwrap(), "{}");
    let left = tokio::time::timeout(SOON, exchange.caller_leaves()).await;
    assert!(left.is_err(), "END_STREAM was taken for a cancellation");
    exchange.respond(Response::new(body::full("done")));
    assert_eq!(call.await.unwrap().text().await, "done");
}

#[tokio::test]
async fn t38_nothing_of_a_cancelled_answer_is_in_the_next() {
    let world = Setup::new().start().await;
    let caller = world.caller();
    let mut played = world.ollama().play("/api/chat");
    let mut connection = caller.connect(Protocol::Http2).await;
    for _ in 0..20 {
        let request = caller.request(Method::POST, "/api/chat", body::empty());
        let (reply, mut exchange) = tokio::join!(connection.send(request), played.start_ok("text/plain"));
        exchange.send("old ".repeat(2000)).await.unwrap();
        drop(reply);
        let request = caller.request(Method::GET, "/echo/new", body::empty());
        let text = connection.send(request).await.text().await;
        assert!(text.contains("/echo/new") && !text.contains("old"), "{text}");
    }
}

#[tokio::test]
async fn f05_the_upstream_leaves_before_the_head() {
    let world = Setup::new().start().await;
    let mut played = world.ollama().play("/api/chat");
    for how in [Cut::Fin, Cut::Reset] {
        let call = call(&world, Protocol::Http1, "/api/chat").await;
        let mut exchange = played.next().await;
        exchange.read_all().await.unwrap();
        let started = Instant::now();
        exchange.cut(how);
        let reply = with_deadline("an answer", call).await.unwrap();
        assert_eq!(reply.error(), (502, "upstream_error"), "{how:?}");
        assert_eq!(reply.header("x-should-retry"), "false");
        assert!(started.elapsed() < Duration::from_secs(1), "{how:?}: {:?}", started.elapsed());
    }
    assert!(played.is_empty(), "a request whose body was sent is not sent again");
    still_works(&world).await;
}

/// How a response ends whose upstream leaves after these bytes, which the caller has seen.
async fn ends_after(world: &World, path: &str, content_type: &str, sent: &str, how: Cut) -> (String, bool) {
    let mut played = world.ollama().play(path);
    let call = call(world, Protocol::Http1, path).await;
    let mut exchange = played.start_ok(content_type).await;
    exchange.send(sent.to_owned()).await.unwrap();
    let mut reply = call.await.unwrap();
    reply.expect(sent).await;
    exchange.cut(how);
    let (rest, end) = reply.rest().await;
    (String::from_utf8(rest.into()).unwrap(), end.is_ok())
}

#[tokio::test]
async fn f05_the_upstream_leaves_after_the_head() {
    let world = Setup::new().start().await;
    for how in [Cut::Fin, Cut::Reset] {
        let (rest, clean) = ends_after(&world, "/api/chat", "application/x-ndjson", "{\"done\":false}\n", how).await;
        assert!(rest.starts_with("{\"error\":") && rest.ends_with("}\n") && !clean, "{how:?}: {rest:?}");
        let (rest, clean) = ends_after(&world, "/v1/chat/completions", "text/event-stream", "data: {}\n\n", how).await;
        assert!(rest.starts_with("data: {\"error\":{") && rest.ends_with("}\n\n") && !clean, "{how:?}: {rest:?}");
        let (rest, clean) =
            ends_after(&world, "/v1/messages", "text/event-stream", "event: ping\ndata: {}\n\n", how).await;
        assert!(rest.starts_with("event: error\ndata: {") && rest.ends_with("}\n\n") && !clean, "{how:?}: {rest:?}");
        // In the middle of a record, or in another format, a record of ours would be damage: the cut alone.
        let (rest, clean) = ends_after(&world, "/api/chat", "application/x-ndjson", "{\"done\":", how).await;
        assert_eq!((rest.as_str(), clean), ("", false), "{how:?}");
        let (rest, clean) = ends_after(&world, "/api/chat", "text/plain", "text\n", how).await;
        assert_eq!((rest.as_str(), clean), ("", false), "{how:?}");
    }
    still_works(&world).await;
}

#[tokio::test]
async fn a_body_shorter_than_its_length_is_a_visible_cut() {
    let world = Setup::new().start().await;
    for protocol in PROTOCOLS {
        let mut played = world.ollama().play("/blob");
        let call = call(&world, protocol, "/blob").await;
        let mut exchange = played.next().await;
        exchange.start(Response::builder().header("content-length", "100").body(()).unwrap());
        exchange.send("only this").await.unwrap();
        let mut reply = call.await.unwrap();
        reply.expect("only this").await;
        exchange.cut(Cut::Fin);
        assert!(reply.rest().await.1.is_err(), "{protocol:?}");
    }
    still_works(&world).await;
}

#[tokio::test]
async fn the_upstream_leaves_during_an_upload() {
    let world = Setup::new().start().await;
    let mut played = world.ollama().play("/api/create");
    let (mut pieces, body) = body::stepwise();
    let mut connection = world.caller().connect(Protocol::Http2).await;
    let request = world.caller().request(Method::POST, "/api/create", body);
    let call = tokio::spawn(async move { connection.send(request).await });
    let mut exchange = played.next().await;
    pieces.send("half").await.unwrap();
    assert_eq!(exchange.read().await.unwrap().unwrap(), "half");
    exchange.cut(Cut::Reset);
    let reply = with_deadline("an answer", call).await.unwrap();
    assert_eq!(reply.error(), (502, "upstream_error"));
    still_works(&world).await;
}
