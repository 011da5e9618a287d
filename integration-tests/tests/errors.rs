//! The error table: every code that a test can provoke, with its status, its headers and its body in three shapes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use http::{HeaderValue, Method};
use integration_tests::{
    body,
    caller::{Caller, Protocol, Reply},
    eventually::{eventually, with_deadline},
    jwt, pki,
    raw::RawUpstream,
    refusal::{self, Retry, Shape},
    setup::{ALICE, Setup, World},
};
use serde_json::json;
use tunneld::auth::Allow;

/// A path for each shape of body.
const SHAPES: [(&str, Shape); 5] = [
    ("/api/chat", Shape::Ollama),
    ("/whatever", Shape::Ollama),
    ("/v1/chat/completions", Shape::OpenAi),
    ("/v1/models", Shape::OpenAi),
    ("/v1/messages", Shape::Anthropic),
];

/// The same refusal in every shape; gives the sentence.
async fn everywhere(caller: &Caller, status: u16, code: &str, retry: Retry) -> String {
    let all = SHAPES.map(|(path, shape)| async move {
        let reply = caller.post(path, body::full("{}")).await;
        refusal::check(reply, status, code, retry, shape).await
    });
    futures_util::future::join_all(all).await.swap_remove(0)
}

/// A POST with these fields besides the usual ones.
async fn post_with(caller: &Caller, path: &str, fields: &[(&'static str, &str)]) -> Reply {
    let mut request = caller.request(Method::POST, path, body::full("{}"));
    for (name, value) in fields {
        request.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
    }
    caller.send(request).await
}

fn untouched(world: &World) {
    assert_eq!(world.ollama().received().len(), 0, "a refused request reached the upstream");
}

#[tokio::test]
async fn token_missing() {
    let world = Setup::new().start().await;
    everywhere(&world.caller().anonymous(), 401, "token_missing", Retry::Unsaid).await;
    untouched(&world);
}

#[tokio::test]
async fn plain_http_on_a_port_of_tls_is_told_so() {
    let world = Setup::new().start().await;
    let token = pki::token(ALICE);
    let clear = Caller::new(pki::HOST, world.server().addr(), None).with_token(&token);
    let sentence = everywhere(&clear, 400, "bad_request", Retry::Unsaid).await;
    assert!(sentence.contains("https://"), "{sentence}");
    // Whatever is asked for, and by whom; a body that is still on its way does not break the answer.
    for request in [
        clear.anonymous().request(Method::GET, "/healthz", body::empty()),
        clear.request(Method::GET, "/ws/tunnel", body::empty()),
        clear.request(Method::POST, "/api/chat", body::full("x".repeat(4 * 1024 * 1024))),
    ] {
        let reply = clear.send(request).await;
        assert_eq!((reply.status().as_u16(), reply.header("connection")), (400, "close"));
    }
    untouched(&world);
    world.caller().get("/api/version").await;
}

#[tokio::test]
async fn token_invalid() {
    let world = Setup::new().start().await;
    everywhere(&world.caller().with_token("not.a.token"), 401, "token_invalid", Retry::Unsaid).await;
    untouched(&world);
}

#[tokio::test]
async fn token_expired() {
    let world = Setup::new().start().await;
    let old = jwt::hs256(&jwt::with(jwt::claims(ALICE), &json!({"exp": jwt::seconds(-60)})));
    everywhere(&world.caller().with_token(&old), 401, "token_expired", Retry::Unsaid).await;
    untouched(&world);
}

#[tokio::test]
async fn scope_denied() {
    let world = Setup::new().start().await;
    let connect = jwt::hs256(&jwt::with(jwt::claims(ALICE), &json!({"scope": "tunnel:connect"})));
    let said = everywhere(&world.caller().with_token(&connect), 403, "scope_denied", Retry::Unsaid).await;
    assert!(
        said.contains("is tunnel:connect, and this needs tunnel:infer;") && said.contains("--scope infer"),
        "{said}"
    );
    let infer = jwt::hs256(&jwt::with(jwt::claims(ALICE), &json!({"scope": "tunnel:infer"})));
    let said = world.caller().with_token(&infer).get("/api/ps/x").await.text().await;
    assert!(said.contains("is tunnel:infer, and this needs tunnel:proxy;") && said.contains("--scope proxy"), "{said}");
    untouched(&world);
}

#[tokio::test]
async fn not_allowed_by_the_operator() {
    let allow = |config: &mut tunneld::config::Config| config.auth.allow = Allow::Users(vec![ALICE.to_owned()]);
    let world = Setup::new().server(allow).start().await;
    everywhere(&world.caller_for("mallory"), 403, "not_allowed", Retry::Unsaid).await;
    untouched(&world);
    assert_eq!(world.caller().get("/api/version").await.status(), 200);
}

#[tokio::test]
async fn t53_not_allowed_by_the_desktop() {
    let rules = |config: &mut tunnel::config::Config| config.allow = vec!["GET /api/version".parse().unwrap()];
    let world = Setup::new().client(rules).start().await;
    everywhere(&world.caller(), 403, "not_allowed", Retry::Unsaid).await;
    untouched(&world);
    assert_eq!(world.caller().get("/api/version").await.status(), 200);
}

#[tokio::test]
async fn bad_request() {
    let world = Setup::new().start().await;
    for (path, shape) in SHAPES {
        let reply = post_with(&world.caller(), path, &[("tunnel-deadline", "soon")]).await;
        refusal::check(reply, 400, "bad_request", Retry::Unsaid, shape).await;
    }
    untouched(&world);
}

#[tokio::test]
async fn expectation_failed() {
    let world = Setup::new().start().await;
    let reply = post_with(&world.caller(), "/api/chat", &[("expect", "a-miracle")]).await;
    let code = reply.header("tunnel-error").to_owned();
    refusal::check(reply, 417, &code, Retry::Unsaid, Shape::Ollama).await;
    assert!(!code.is_empty());
    untouched(&world);
}

#[tokio::test]
async fn not_supported() {
    let world = Setup::new().start().await;
    let caller = world.caller();
    let trace = caller.send(caller.request(Method::TRACE, "/v1/models", body::empty())).await;
    refusal::check(trace, 501, "not_supported", Retry::Unsaid, Shape::OpenAi).await;
    let upgrade = post_with(&caller, "/api/chat", &[("connection", "upgrade"), ("upgrade", "websocket")]).await;
    refusal::check(upgrade, 501, "not_supported", Retry::Unsaid, Shape::Ollama).await;
    untouched(&world);
}

#[tokio::test]
async fn t30_body_too_large() {
    let world = Setup::new().server(|config| config.limits.max_body = Some(1000)).start().await;
    let caller = world.caller();
    let fits = caller.post("/sink", body::generated(1000, body::Length::Fixed)).await;
    assert_eq!(fits.json().await["length"], 1000);
    let told = caller.post("/v1/messages", body::generated(1001, body::Length::Fixed)).await;
    refusal::check(told, 413, "body_too_large", Retry::Unsaid, Shape::Anthropic).await;
    assert_eq!(world.ollama().received().len(), 1, "a length over the limit is refused before it is sent on");
    let (mut pieces, body) = body::stepwise();
    let untold = tokio::spawn(async move { caller.post("/sink", body).await });
    pieces.send("x".repeat(1000)).await.unwrap();
    world.ollama().received_for("/sink").await;
    assert!(!untold.is_finished());
    pieces.send("x").await.unwrap();
    let reply = with_deadline("an answer", untold).await.unwrap();
    refusal::check(reply, 413, "body_too_large", Retry::Unsaid, Shape::Ollama).await;
}

/// The same when the upload was on its way already: refused at the limit, or answered early by the upstream.
#[tokio::test]
async fn t30_an_answer_in_the_middle_of_a_large_upload_is_not_lost() {
    let world = Setup::new().server(|config| config.limits.max_body = Some(1 << 20)).start().await;
    let caller = world.caller();
    for (path, told, length, expected) in [
        ("/sink", body::Length::Unknown, 4 << 20, (413, "body_too_large")),
        ("/sink", body::Length::Fixed, 4 << 20, (413, "body_too_large")),
        ("/early", body::Length::Fixed, 1 << 20, (200, "")),
    ] {
        for _ in 0..8 {
            let request = caller.request(Method::POST, path, body::generated(length, told));
            let answer = caller.connect(Protocol::Http1).await.try_send(request).await;
            let reply = answer.unwrap_or_else(|error| panic!("the answer was lost: {path} {told:?}: {error:?}"));
            assert_eq!(reply.error(), expected, "{path} {told:?}");
        }
    }
    assert_eq!(world.client().connections(), 1);
}

/// A server that closes with bytes of the upload unread sends a RST, and the answer may be lost on the way.
#[tokio::test]
async fn a_refusal_of_a_large_upload_is_not_lost() {
    let world = Setup::new().without_desktop().start().await;
    let caller = world.caller().anonymous();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for _ in 0..16 {
            let request = caller.request(Method::POST, "/api/create", body::generated(4 << 20, body::Length::Fixed));
            let answer = caller.connect(protocol).await.try_send(request).await;
            let reply = answer.unwrap_or_else(|error| panic!("the answer was lost over {protocol:?}: {error:?}"));
            assert_eq!(reply.error(), (401, "token_missing"), "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn t29_head_too_large() {
    let world = Setup::new().start().await;
    let many = "X-Field: x\r\n".repeat(101);
    let long = format!("X-Long: {}\r\n", "x".repeat(33 * 1024));
    for fields in [many, long] {
        let head = format!("GET /echo HTTP/1.1\r\n{}{fields}Connection: close\r\n\r\n", world.caller().raw_headers());
        let answer = world.caller().raw(head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    let mut request = world.caller().request(Method::GET, "/echo", body::empty());
    for n in 0..101 {
        let name = http::HeaderName::from_bytes(format!("x-field-{n}").as_bytes()).unwrap();
        request.headers_mut().insert(name, HeaderValue::from_static("x"));
    }
    let reply = world.caller().connect(Protocol::Http2).await.send(request).await;
    assert_eq!(reply.error(), (431, "head_too_large"));
    untouched(&world);
}

#[tokio::test]
async fn t49_too_many_streams() {
    let world = Setup::new().server(|config| config.limits.max_streams_per_user = 1).start().await;
    let mut played = world.ollama().play("/api/pull");
    let caller = world.caller();
    let (running, exchange) =
        tokio::join!(caller.post("/api/pull", body::empty()), played.start_ok("application/x-ndjson"));
    everywhere(&caller, 429, "too_many_streams", Retry::After("1")).await;
    assert_eq!(world.ollama().received().len(), 1);
    assert_eq!(world.caller_for("bob").get("/x").await.error(), (503, "tunnel_offline"), "the limit is per user");
    drop((running, exchange));
    let next = async || Some(caller.get("/api/version").await.status()).filter(|status| *status == 200);
    eventually("room for another stream", next).await;
}

#[tokio::test]
async fn f06_upstream_unreachable() {
    let nowhere = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let world = Setup::new().upstream(nowhere).start().await;
    let started = Instant::now();
    everywhere(&world.caller(), 502, "upstream_unreachable", Retry::Never).await;
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(world.client().connections(), 1, "the tunnel stays up");
}

#[tokio::test]
async fn f06_the_upstream_comes_back() {
    let nowhere = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let world = Setup::new().upstream(nowhere).start().await;
    assert_eq!(world.caller().get("/api/version").await.error(), (502, "upstream_unreachable"));
    let _ollama = integration_tests::ollama::Ollama::start_on(nowhere);
    assert_eq!(world.caller().get("/api/version").await.status(), 200);
    assert_eq!(world.client().connections(), 1);
}

#[tokio::test]
async fn t27_upstream_error() {
    let mut upstream = RawUpstream::start().await;
    let world = Setup::new().upstream(upstream.addr()).start().await;
    let caller = world.caller();
    for answer in [
        "garbage that is no HTTP\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nX-Bad: a\0b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 9999 What\r\nContent-Length: 0\r\n\r\n",
    ] {
        let (reply, _open) =
            tokio::join!(caller.post("/v1/messages", body::empty()), upstream.answer_once(answer.as_bytes()));
        refusal::check(reply, 502, "upstream_error", Retry::Never, Shape::Anthropic).await;
    }
    let flood = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(10_000);
    let (reply, _open) = tokio::join!(caller.post("/api/chat", body::empty()), async {
        let mut exchange = upstream.next().await;
        let _cut_by_the_desktop = tokio::time::timeout(Duration::from_secs(5), exchange.write(flood.as_bytes())).await;
        exchange.reset();
    });
    refusal::check(reply, 502, "upstream_error", Retry::Never, Shape::Ollama).await;
    assert_eq!(world.client().connections(), 1, "the tunnel stays up");
}

#[tokio::test]
async fn tunnel_lost() {
    let mut world = Setup::new().start().await;
    let mut played = world.ollama().play("/v1/chat/completions");
    let caller = world.caller();
    let call = tokio::spawn(async move { caller.post("/v1/chat/completions", body::full("{}")).await });
    let _exchange = played.next().await;
    world.take_client().kill();
    let reply = with_deadline("an answer", call).await.unwrap();
    refusal::check(reply, 502, "tunnel_lost", Retry::Never, Shape::OpenAi).await;
}

#[tokio::test]
async fn f05_tunnel_lost_after_the_head_is_a_visible_cut() {
    let mut world = Setup::new().start().await;
    let mut played = world.ollama().play("/api/chat");
    let caller = world.caller();
    let (mut reply, mut exchange) =
        tokio::join!(caller.post("/api/chat", body::full("{}")), played.start_ok("application/x-ndjson"));
    exchange.send("{\"done\":false}\n").await.unwrap();
    reply.expect("{\"done\":false}\n").await;
    world.take_client().kill();
    let (rest, end) = reply.rest().await;
    let rest = String::from_utf8(rest.into()).unwrap();
    assert!(rest.starts_with("{\"error\":") && rest.ends_with("}\n"), "{rest:?}");
    assert!(end.is_err(), "a cut stream ended cleanly");
}

#[tokio::test]
async fn tunnel_offline() {
    let world = Setup::new().without_desktop().start().await;
    let bob = everywhere(&world.caller_for("bob"), 503, "tunnel_offline", Retry::Never).await;
    let status = world.caller_for("bob").get("/api/tunnel/status").await.json().await;
    assert_eq!((&status["connected"], &status["tunnels"]), (&json!(false), &json!([])));
    assert!(!bob.contains("since"), "bob never was here: {bob}");
}

#[tokio::test]
async fn tunnel_offline_says_since_when() {
    let mut world = Setup::new().start().await;
    drop(world.take_client());
    let reply = world.caller().get("/api/tags").await;
    let said = refusal::check(reply, 503, "tunnel_offline", Retry::Never, Shape::Ollama).await;
    assert!(said.contains("since") && said.contains(|c: char| c.is_ascii_digit()), "since when? {said}");
}

/// 50 ms are promised; on a busy machine a test insists only that nothing waits as it does for a tunnel just lost.
#[tokio::test]
async fn tunnel_offline_is_known_at_once() {
    let world = Setup::new().without_desktop().start().await;
    let caller = world.caller_for("nobody");
    eventually("an answer without a wait, once the server is older than 5 s", async || {
        let started = Instant::now();
        assert_eq!(caller.get("/api/tags").await.error(), (503, "tunnel_offline"));
        (started.elapsed() < Duration::from_millis(500)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_refusal_has_an_id_of_its_own() {
    let world = Setup::new().start().await;
    let caller = world.caller().anonymous();
    let mut ids = std::collections::HashSet::new();
    for _ in 0..5 {
        ids.insert(caller.get("/x").await.header("x-request-id").to_owned());
    }
    assert_eq!(ids.len(), 5);
}

#[tokio::test]
async fn t28_a_request_id_from_outside_is_not_repeated_unseen() {
    let world = Setup::new().start().await;
    for evil in ["x".repeat(300), "a b\"<script>".to_owned()] {
        let reply = post_with(&world.caller().anonymous(), "/x", &[("x-request-id", &evil)]).await;
        let text = reply.headers().iter().map(|(_, value)| value.to_str().unwrap().to_owned()).collect::<String>();
        assert!(!text.contains(&evil) && !reply.text().await.contains(&evil));
    }
}

#[tokio::test]
async fn a_refusal_to_head_has_no_body() {
    let world = Setup::new().start().await;
    let mut connection = world.caller().connect(Protocol::Http1).await;
    for _ in 0..2 {
        let request = world.caller().anonymous().request(Method::HEAD, "/api/tags", body::empty());
        let reply = connection.send(request).await;
        assert_eq!(reply.error(), (401, "token_missing"));
        assert_eq!(reply.text().await, "");
    }
}

#[tokio::test]
async fn a_capability_prefix_does_not_change_the_shape() {
    let world = Setup::new().without_desktop().start().await;
    let token = jwt::hs256(&jwt::with(jwt::claims(ALICE), &json!({"scope": "tunnel:proxy"})));
    let (caller, token) = (&world.caller().anonymous(), &token);
    let all = SHAPES.map(|(path, shape)| async move {
        let reply = caller.get(&format!("/t/{token}{path}")).await;
        refusal::check(reply, 503, "tunnel_offline", Retry::Never, shape).await;
        // On 401 the Ollama CLI tells people to sign in to its cloud.
        let reply = caller.get(&format!("/t/not.a.token{path}")).await;
        refusal::check(reply, 403, "token_invalid", Retry::Unsaid, shape).await;
    });
    futures_util::future::join_all(all).await;
}
