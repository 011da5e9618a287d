//! The main job: a request of a caller reaches the user's desktop, and the answer streams back as it is made.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use http::{Method, StatusCode};
use integration_tests::{
    body,
    caller::Protocol,
    ollama::WORDS,
    setup::{ALICE, Setup},
};
use serde_json::json;

#[tokio::test]
async fn a_get_reaches_the_upstream() {
    let world = Setup::new().start().await;
    let reply = world.caller().get("/api/version").await;
    assert_eq!(reply.status(), StatusCode::OK);
    assert_eq!(reply.json().await, json!({"version": "0.0.0"}));
    assert_eq!(world.ollama().received().len(), 1);
}

#[tokio::test]
async fn a_post_and_its_answer_arrive_whole() {
    let world = Setup::new().start().await;
    let echoed = world.caller().post("/echo", body::full("{\"model\":\"m\"}")).await.json().await;
    assert_eq!(echoed["method"], "POST");
    assert_eq!(echoed["body"], "{\"model\":\"m\"}");
}

/// Record k is with the caller before record k+1 exists: nothing on the way waits for more.
async fn streams_record_by_record(path: &str, content_type: &str, protocol: Protocol, records: &[&str]) {
    let world = Setup::new().start().await;
    let caller = world.caller();
    let mut played = world.ollama().play(path);
    let mut connection = caller.connect(protocol).await;
    let request = caller.request(Method::POST, path, body::full("{\"stream\":true}"));
    let (mut reply, mut exchange) = tokio::join!(connection.send(request), played.start_ok(content_type));
    assert_eq!((reply.status(), reply.header("content-type")), (StatusCode::OK, content_type));
    assert_eq!(exchange.read_all().await.unwrap(), "{\"stream\":true}");
    for record in records {
        exchange.send((*record).to_owned()).await.unwrap();
        reply.expect(record).await;
    }
    exchange.end();
    let (rest, end) = reply.rest().await;
    assert_eq!((rest.len(), end.is_ok()), (0, true));
}

const NDJSON: [&str; 3] =
    ["{\"message\":{\"content\":\"Once\"}}\n", "{\"message\":{\"content\":\" upon\"}}\n", "{\"done\":true}\n"];

const SSE: [&str; 3] = ["data: {\"choices\":[{}]}\n\n", "data: {\"choices\":[]}\n\n", "data: [DONE]\n\n"];

#[tokio::test]
async fn ndjson_streams_record_by_record() {
    streams_record_by_record("/api/chat", "application/x-ndjson", Protocol::Http1, &NDJSON).await;
}

#[tokio::test]
async fn ndjson_streams_record_by_record_over_http2() {
    streams_record_by_record("/api/chat", "application/x-ndjson", Protocol::Http2, &NDJSON).await;
}

#[tokio::test]
async fn sse_streams_record_by_record() {
    streams_record_by_record("/v1/chat/completions", "text/event-stream", Protocol::Http1, &SSE).await;
}

#[tokio::test]
async fn sse_streams_record_by_record_over_http2() {
    streams_record_by_record("/v1/chat/completions", "text/event-stream", Protocol::Http2, &SSE).await;
}

#[tokio::test]
async fn the_head_comes_before_the_first_record() {
    let world = Setup::new().start().await;
    let caller = world.caller();
    let mut played = world.ollama().play("/api/pull");
    let (reply, _exchange) =
        tokio::join!(caller.post("/api/pull", body::full("{}")), played.start_ok("application/x-ndjson"));
    assert_eq!(reply.status(), StatusCode::OK);
}

#[tokio::test]
async fn many_streams_at_once_do_not_mix() {
    let world = Setup::new().start().await;
    let calls = (0..64).map(|n| {
        let caller = world.caller();
        async move {
            let body = body::full(json!({"model": format!("m{n}")}).to_string());
            let text = caller.post("/api/chat", body).await.text().await;
            assert_eq!(text.lines().count(), WORDS.len() + 1);
            assert!(text.lines().all(|line| line.contains(&format!("\"m{n}\""))), "{text}");
        }
    });
    futures_util::future::join_all(calls).await;
}

#[tokio::test]
async fn works_without_tls_behind_a_proxy() {
    let world = Setup::new().plain_http().start().await;
    assert!(world.url().starts_with("http://"));
    assert_eq!(world.caller().get("/api/version").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_client_is_told_who_and_where_it_is() {
    let world = Setup::new().start().await;
    let connected = world.client().connected(1).await;
    assert_eq!((connected.user.as_str(), connected.name.as_str()), (ALICE, "desktop"));
    let status = world.caller().get("/api/tunnel/status").await.json().await;
    assert_eq!((&status["user"], &status["connected"]), (&json!(ALICE), &json!(true)));
    assert_eq!(status["tunnels"][0]["name"], "desktop");
    assert_eq!(world.ollama().received().len(), 0, "the status is the server's own");
}

#[tokio::test]
async fn health_needs_no_token() {
    let world = Setup::new().without_desktop().start().await;
    for path in ["/api/tunnel/health", "/healthz", "/readyz"] {
        assert_eq!(world.caller().anonymous().get(path).await.status(), StatusCode::OK, "{path}");
    }
}
