//! Every stream ends in time, and a stream that was cut never looks as if it had ended well.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Response};
use integration_tests::{
    body,
    caller::{Caller, Protocol, Reply},
    eventually::with_deadline,
    ollama::{Exchange, Played},
    pattern,
    refusal::{self, Retry, Shape},
    setup::{Setup, World},
};
use serde_json::Value;

/// The deadline of most tests here.
const SHORT: Duration = Duration::from_millis(700);

/// Far more than [`SHORT`], far less than the 30 s that would have been without it.
const IN_TIME: Duration = Duration::from_secs(10);

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

const NDJSON: &str = "application/x-ndjson";

const SSE: &str = "text/event-stream";

async fn short_deadline() -> World {
    let limits = |config: &mut tunneld::config::Config| {
        config.limits.stream_deadline = SHORT;
        config.limits.max_stream_deadline = SHORT;
    };
    Setup::new().server(limits).start().await
}

async fn post(caller: &Caller, protocol: Protocol, path: &str, fields: &[(&'static str, &str)]) -> Reply {
    let mut request = caller.request(Method::POST, path, body::full("{}"));
    for (name, value) in fields {
        request.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
    }
    caller.connect(protocol).await.send(request).await
}

/// Nothing else suffered.
async fn still_works(world: &World) {
    assert_eq!(world.caller().get("/api/version").await.status(), 200);
    assert_eq!(world.client().connections(), 1, "the tunnel was not lost");
}

#[tokio::test]
async fn before_the_head_504() {
    let world = short_deadline().await;
    let shapes =
        [("/api/chat", Shape::Ollama), ("/v1/chat/completions", Shape::OpenAi), ("/v1/messages", Shape::Anthropic)];
    for protocol in PROTOCOLS {
        for (path, shape) in shapes {
            let mut played = world.ollama().play(path);
            let caller = world.caller();
            let started = Instant::now();
            let (reply, mut exchange) = tokio::join!(post(&caller, protocol, path, &[]), async {
                let mut exchange = played.next().await;
                exchange.read_all().await.unwrap();
                exchange
            });
            let waited = started.elapsed();
            assert!(waited >= SHORT && waited < IN_TIME, "{waited:?}");
            refusal::check(reply, 504, "deadline_exceeded", Retry::Never, shape).await;
            exchange.caller_leaves().await;
        }
    }
    still_works(&world).await;
}

#[tokio::test]
async fn the_upload_counts() {
    let world = short_deadline().await;
    for protocol in PROTOCOLS {
        let mut played = world.ollama().play("/api/create");
        let (mut pieces, body) = body::stepwise();
        let mut connection = world.caller().connect(protocol).await;
        let request = world.caller().request(Method::POST, "/api/create", body);
        let call = tokio::spawn(async move { connection.send(request).await });
        pieces.send("half").await.unwrap();
        let mut exchange = played.next().await;
        assert_eq!(exchange.read().await.unwrap().unwrap(), "half");
        let reply = with_deadline("an answer", call).await.unwrap();
        assert_eq!(reply.error(), (504, "deadline_exceeded"), "{protocol:?}");
        let text = reply.text().await;
        assert!(text.contains("--max-stream-deadline") && !text.contains("Tunnel-Deadline"), "more is clamped: {text}");
        exchange.caller_leaves().await;
        assert!(exchange.read().await.unwrap().is_err(), "a body that was cut is no whole body");
    }
    still_works(&world).await;
}

#[tokio::test]
async fn the_wait_for_a_desktop_counts() {
    let world = Setup::new().without_desktop().start().await; // young enough to wait 2 s for one
    let started = Instant::now();
    let reply = post(&world.caller(), Protocol::Http1, "/api/chat", &[("tunnel-deadline", "300ms")]).await;
    assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
    assert!(matches!(reply.error(), (504, "deadline_exceeded") | (503, "tunnel_offline")), "{:?}", reply.error());
}

/// What a caller sees of a stream after `records`: the rest, and whether it ended well.
async fn after(world: &World, protocol: Protocol, path: &str, head: Response<()>, records: &[&str]) -> (String, bool) {
    let mut played = world.ollama().play(path);
    let caller = world.caller();
    let started = Instant::now();
    let (mut reply, mut exchange) = tokio::join!(post(&caller, protocol, path, &[]), answered(&mut played, head));
    assert_eq!(reply.status(), 200);
    for record in records {
        exchange.send((*record).to_owned()).await.unwrap();
        reply.expect(record).await;
    }
    let (rest, end) = reply.rest().await;
    assert!(started.elapsed() < IN_TIME, "{:?}", started.elapsed());
    exchange.caller_leaves().await;
    (String::from_utf8(rest.into()).unwrap(), end.is_ok())
}

async fn answered(played: &mut Played, head: Response<()>) -> Exchange {
    let mut exchange = played.next().await;
    exchange.start(head);
    exchange
}

fn ok(content_type: &str) -> Response<()> {
    Response::builder().header("content-type", content_type).body(()).unwrap()
}

/// The JSON of a terminal record that starts and ends like this.
fn record(text: &str, start: &str, end: &str) -> Value {
    let json = text.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
    let json = json.unwrap_or_else(|| panic!("{text:?} is no record from {start:?} to {end:?}"));
    assert!(!json.contains('\n'), "{text:?}");
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error} in {text:?}"))
}

#[tokio::test]
async fn a_terminal_record_in_ndjson() {
    let world = short_deadline().await;
    for protocol in PROTOCOLS {
        for (content_type, records) in [
            (NDJSON, ["{\"done\":", "false}\n"].as_slice()),
            ("application/x-ndjson; charset=utf-8", ["{\"a\":1}\n{\"b\":2}\n"].as_slice()),
        ] {
            let (rest, clean) = after(&world, protocol, "/api/chat", ok(content_type), records).await;
            let error = &record(&rest, "", "\n")["error"];
            assert!(error.as_str().is_some_and(|error| error.contains("deadline")), "{rest}");
            assert!(!clean, "{protocol:?}: a stream that was cut ended cleanly");
        }
    }
    still_works(&world).await;
}

#[tokio::test]
async fn a_terminal_record_in_sse_of_openai() {
    let world = short_deadline().await;
    for protocol in PROTOCOLS {
        for (content_type, records) in [
            (SSE, ["data: {\"choices\":[]}\n", "\n"].as_slice()),
            ("Text/Event-Stream; charset=UTF-8", ["data: {\"choices\":[]}\r\n\r\n"].as_slice()),
            (SSE, [": a comment\n\n"].as_slice()),
        ] {
            let (rest, clean) = after(&world, protocol, "/v1/chat/completions", ok(content_type), records).await;
            let error = &record(&rest, "data: ", "\n\n")["error"];
            assert!(error["message"].as_str().is_some_and(|error| error.contains("deadline")), "{rest}");
            assert_eq!(error["code"], "deadline_exceeded", "{rest}");
            assert!(!rest.contains("[DONE]") && !clean, "{protocol:?}: a stream that was cut ended cleanly");
        }
    }
    still_works(&world).await;
}

#[tokio::test]
async fn a_terminal_record_in_sse_of_anthropic() {
    let world = short_deadline().await;
    for protocol in PROTOCOLS {
        let records = ["event: ping\ndata: {\"type\":\"ping\"}\n\n"];
        let (rest, clean) = after(&world, protocol, "/v1/messages", ok(SSE), &records).await;
        let json = record(&rest, "event: error\ndata: ", "\n\n");
        assert_eq!(json["type"], "error", "{rest}");
        let said = json["error"]["message"].as_str();
        assert!(said.is_some_and(|said| said.contains("deadline")) && json["error"]["type"].is_string(), "{rest}");
        assert!(!rest.contains("message_stop") && !clean, "{protocol:?}: a stream that was cut ended cleanly");
    }
    still_works(&world).await;
}

#[tokio::test]
async fn no_record_where_it_would_be_damage() {
    let world = short_deadline().await;
    let with = |content_type: &str, name: &'static str, value: &str| {
        let mut head = ok(content_type);
        head.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        head
    };
    for protocol in PROTOCOLS {
        for (path, head, records) in [
            ("/api/chat", ok(NDJSON), ["{\"done\":"]),
            ("/api/chat", ok(NDJSON), ["{\"a\":1}\n{"]),
            ("/v1/chat/completions", ok(SSE), ["data: {\"choices\":[]}\n"]),
            ("/v1/chat/completions", ok(SSE), ["data: {}\n\ndata: {"]),
            ("/v1/messages", ok(SSE), ["event: ping\n"]),
            ("/api/chat", ok("text/plain"), ["a line\n"]),
            ("/api/chat", ok("application/octet-stream"), ["a line\n"]),
            ("/api/chat", with(NDJSON, "content-length", "100"), ["{\"done\":false}\n"]),
            ("/v1/chat/completions", with(SSE, "content-length", "100"), ["data: {}\n\n"]),
            ("/api/chat", with(NDJSON, "content-encoding", "gzip"), ["{\"done\":false}\n"]),
            ("/v1/messages", with(SSE, "content-encoding", "br"), ["data: {}\n\n"]),
        ] {
            let what = format!("{path} {head:?} {records:?} over {protocol:?}");
            let end = after(&world, protocol, path, head, &records).await;
            assert_eq!(end, (String::new(), false), "{what}");
        }
    }
    still_works(&world).await;
}

/// The deadline in force, in whichever unit the server tells it.
fn echoed(reply: &Reply) -> Duration {
    let value = reply.header("tunnel-deadline");
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("Tunnel-Deadline: {value:?}"));
    match value.strip_suffix("ms") {
        Some(text) => Duration::from_millis(number(text)),
        None => Duration::from_secs(number(value.trim_end_matches('s'))),
    }
}

#[tokio::test]
async fn a_caller_asks_for_a_deadline() {
    let limits = |config: &mut tunneld::config::Config| {
        config.limits.stream_deadline = Duration::from_secs(20);
        config.limits.max_stream_deadline = Duration::from_secs(25);
    };
    let world = Setup::new().server(limits).start().await;
    let caller = world.caller();
    for (asked, effective) in [("21s", 21), ("1s", 1), ("90s", 25), ("1h", 25), ("25s", 25), ("1500ms", 1)] {
        let reply = post(&caller, Protocol::Http2, "/echo", &[("tunnel-deadline", asked)]).await;
        assert_eq!((reply.status().as_u16(), echoed(&reply).as_secs()), (200, effective), "{asked}");
        assert!(!world.ollama().received().pop().unwrap().headers.contains_key("tunnel-deadline"));
    }
    let mut played = world.ollama().play("/api/chat");
    let started = Instant::now();
    let asked = [("tunnel-deadline", "700ms")];
    let (reply, mut exchange) = tokio::join!(post(&caller, Protocol::Http1, "/api/chat", &asked), played.next());
    let waited = started.elapsed();
    assert!(waited >= SHORT && waited < IN_TIME, "{waited:?}");
    assert_eq!(reply.error(), (504, "deadline_exceeded"));
    assert_eq!(echoed(&reply), SHORT);
    let text = reply.text().await;
    assert!(text.contains("ask for more with 'Tunnel-Deadline: 25s'"), "{text}");
    exchange.caller_leaves().await;
    still_works(&world).await;
}

#[tokio::test]
async fn a_deadline_that_is_none_is_refused() {
    let world = Setup::new().start().await;
    for asked in ["soon", "", "-5s", "5 parsecs", "1s;2s", "99999999999999999999999s", "0x10s", "NaNs"] {
        let reply = post(&world.caller(), Protocol::Http1, "/echo", &[("tunnel-deadline", asked)]).await;
        refusal::check(reply, 400, "bad_request", Retry::Unsaid, Shape::Ollama).await;
    }
    let twice = [("tunnel-deadline", "5s"), ("tunnel-deadline", "6s")];
    let reply = post(&world.caller(), Protocol::Http1, "/echo", &twice).await;
    assert_eq!(reply.status(), 400, "two deadlines");
    assert_eq!(world.ollama().received().len(), 0);
}

#[tokio::test]
async fn a_longer_deadline_is_honoured_up_to_the_maximum() {
    let limits = |config: &mut tunneld::config::Config| config.limits.stream_deadline = SHORT; // the maximum stays 30 s
    let world = Setup::new().server(limits).start().await;
    let caller = world.caller();
    let mut played = world.ollama().play("/api/chat");
    let asked = [("tunnel-deadline", "20s")];
    let (reply, ()) = tokio::join!(post(&caller, Protocol::Http1, "/api/chat", &asked), async {
        let mut exchange = played.next().await;
        let left = tokio::time::timeout(SHORT * 2, exchange.caller_leaves()).await;
        assert!(left.is_err(), "the default deadline fired");
        exchange.respond(Response::new(body::full("late")));
    });
    assert_eq!(reply.text().await, "late");
}

async fn short_stall() -> World {
    Setup::new().server(|config| config.limits.stall_timeout = SHORT).start().await
}

#[tokio::test]
async fn a_stall_before_the_head() {
    let world = short_stall().await;
    let mut played = world.ollama().play("/v1/messages");
    let caller = world.caller();
    let started = Instant::now();
    let (reply, mut exchange) = tokio::join!(post(&caller, Protocol::Http1, "/v1/messages", &[]), played.next());
    assert!(started.elapsed() >= SHORT && started.elapsed() < IN_TIME, "{:?}", started.elapsed());
    refusal::check(reply, 504, "deadline_exceeded", Retry::Never, Shape::Anthropic).await;
    exchange.caller_leaves().await;
    still_works(&world).await;
}

#[tokio::test]
async fn a_stall_between_records() {
    let world = short_stall().await;
    for protocol in PROTOCOLS {
        let (rest, clean) = after(&world, protocol, "/api/chat", ok(NDJSON), &["{\"done\":false}\n"]).await;
        assert!(record(&rest, "", "\n")["error"].is_string(), "{rest}");
        assert!(!clean, "{protocol:?}");
        let (rest, clean) = after(&world, protocol, "/api/chat", ok(NDJSON), &["{\"done\":"]).await;
        assert_eq!((rest.as_str(), clean), ("", false), "{protocol:?}");
    }
    still_works(&world).await;
}

#[tokio::test]
async fn what_moves_does_not_stall() {
    let world = short_stall().await;
    let mut played = world.ollama().play("/api/pull");
    let caller = world.caller();
    let (mut reply, mut exchange) =
        tokio::join!(post(&caller, Protocol::Http1, "/api/pull", &[]), played.start_ok(NDJSON));
    let pause = SHORT / 2;
    for _ in 0..6 {
        let left = tokio::time::timeout(pause, exchange.caller_leaves()).await;
        assert!(left.is_err(), "cut although bytes moved");
        exchange.send("{}\n").await.unwrap();
        reply.expect("{}\n").await;
    }
    exchange.end();
    assert!(reply.rest().await.1.is_ok());
}

#[tokio::test]
async fn an_upload_that_moves_does_not_stall() {
    let world = short_stall().await;
    let mut played = world.ollama().play("/api/create");
    let (mut pieces, body) = body::stepwise();
    let mut connection = world.caller().connect(Protocol::Http1).await;
    let request = world.caller().request(Method::POST, "/api/create", body);
    let call = tokio::spawn(async move { connection.send(request).await });
    let mut exchange = played.next().await;
    for _ in 0..6 {
        let left = tokio::time::timeout(SHORT / 2, exchange.caller_leaves()).await;
        assert!(left.is_err(), "cut although bytes moved");
        pieces.send("piece").await.unwrap();
        assert_eq!(exchange.read().await.unwrap().unwrap(), "piece");
    }
    drop(pieces);
    exchange.read_all().await.unwrap();
    exchange.respond(Response::new(body::full("done")));
    assert_eq!(with_deadline("an answer", call).await.unwrap().text().await, "done");
}

/// Fills every window toward a caller who reads nothing, and waits until the upstream's socket closes.
async fn nobody_reads(world: &World, protocol: Protocol) {
    let mut played = world.ollama().play("/api/pull");
    let caller = world.caller();
    let (mut reply, mut exchange) =
        tokio::join!(post(&caller, protocol, "/api/pull", &[]), played.start_ok("application/octet-stream"));
    let started = Instant::now();
    while exchange.send(pattern::slice(0, 65_000)).await.is_ok() {
        assert!(started.elapsed() < IN_TIME, "the upstream was still read after {:?}", started.elapsed());
    }
    exchange.caller_leaves().await;
    assert!(started.elapsed() < IN_TIME, "{protocol:?}: {:?}", started.elapsed());
    let (_rest, end) = reply.rest().await;
    assert!(end.is_err(), "{protocol:?}: a body that was cut ended cleanly");
}

#[tokio::test]
async fn the_deadline_fires_for_a_caller_who_does_not_read() {
    let world = short_deadline().await;
    for protocol in PROTOCOLS {
        nobody_reads(&world, protocol).await;
    }
    still_works(&world).await;
}

#[tokio::test]
async fn the_stall_fires_for_a_caller_who_does_not_read() {
    let world = short_stall().await;
    for protocol in PROTOCOLS {
        nobody_reads(&world, protocol).await;
    }
    still_works(&world).await;
}

#[tokio::test]
async fn one_stream_s_deadline_is_not_its_neighbour_s() {
    let world = Setup::new().start().await;
    let caller = world.caller();
    let mut connection = caller.connect(Protocol::Http2).await;
    let mut calm = world.ollama().play("/api/chat");
    let request = caller.request(Method::POST, "/api/chat", body::empty());
    let (mut reply, mut exchange) = tokio::join!(connection.send(request), calm.start_ok(NDJSON));
    let _silent = world.ollama().play("/api/generate");
    let mut request = caller.request(Method::POST, "/api/generate", body::empty());
    request.headers_mut().insert("tunnel-deadline", HeaderValue::from_static("500ms"));
    assert_eq!(connection.send(request).await.error(), (504, "deadline_exceeded"));
    exchange.send("{}\n").await.unwrap();
    reply.expect("{}\n").await;
    exchange.end();
    assert!(reply.rest().await.1.is_ok());
}
