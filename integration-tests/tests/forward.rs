//! `tunnel forward`: a local port for programs that know neither the token nor the CA.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use integration_tests::{
    background::{Background, Flavour},
    binaries::{Program, Signal},
    body::{self, Length},
    caller::Caller,
    jwt::{claims, hs256, with},
    ollama::Ollama,
    pattern::Check,
    pki,
    setup::{ALICE, Setup, World},
    workshop::{Workshop, run},
};
use serde_json::json;
use tunnel::{
    connector::Connector,
    forward::{Forward, Guard, allowed_origin},
    proxy::Proxies,
    token::{Token, TokenSource},
};
use url::Url;

const PAGE: &str = "http://localhost:3000";

/// A port, while it lives.
struct Port {
    addr: SocketAddr,
    token: String,
    _background: Background,
}

impl Port {
    /// A port toward `server`.
    async fn open(server: &str, ca: Option<&std::path::Path>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().into_std().unwrap();
        let addr = listener.local_addr().unwrap();
        let token = pki::token(ALICE);
        let forward = Forward {
            server: Some(Url::parse(server).unwrap()),
            token: TokenSource::Inline(Token::parse(&token).unwrap()),
            name: Some(HeaderValue::from_static("desktop")),
            connector: Connector::new(ca, Proxies::default()).unwrap(),
            guard: Guard::new(vec![allowed_origin(PAGE).unwrap()]),
        };
        let background = Background::spawn("forward", Flavour::Current, move |stop| async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            forward.run(listener, stop.cancelled_owned()).await;
        });
        Self { addr, token, _background: background }
    }

    async fn to(world: &World) -> Self {
        Self::open(&world.url(), Some(&world.pki().ca())).await
    }

    /// A program that knows nothing but the port.
    fn caller(&self) -> Caller {
        Caller::new("127.0.0.1", self.addr, None)
    }
}

#[tokio::test]
async fn a_program_without_token_and_ca_is_served_as_it_streams() {
    let world = Setup::new().start().await;
    let port = Port::to(&world).await;
    let mut played = world.ollama().play("/api/chat");
    let (mut pieces, upload) = body::stepwise();
    let call = tokio::spawn({
        let caller = port.caller();
        async move { caller.post("/api/chat?x=%2F", upload).await }
    });
    let mut exchange = played.next().await;
    pieces.send("first").await.unwrap();
    assert_eq!(exchange.read().await.unwrap().unwrap(), "first");
    drop(pieces);
    exchange.read_all().await.unwrap();
    exchange.start_ok("application/x-ndjson");
    let mut reply = call.await.unwrap();
    for record in ["{\"a\":1}\n", "{\"a\":2}\n"] {
        exchange.send(record).await.unwrap();
        reply.expect(record).await;
    }
    drop(reply);
    exchange.caller_leaves().await;
}

#[tokio::test]
async fn who_leaves_before_the_answer_frees_the_upstream() {
    let world = Setup::new().start().await;
    let port = Port::to(&world).await;
    let mut played = world.ollama().play("/api/chat");
    let call = tokio::spawn({
        let caller = port.caller();
        async move { caller.post("/api/chat", body::full("{}")).await }
    });
    let mut exchange = played.next().await;
    exchange.read_all().await.unwrap();
    assert!(!exchange.caller_has_left());
    call.abort();
    exchange.caller_leaves().await;
}

#[tokio::test]
async fn bulk_passes_undamaged_in_both_directions() {
    const LENGTH: u64 = 5_000_000;
    let world = Setup::new().start().await;
    let port = Port::to(&world).await;
    let mut check = Check::default();
    check.push(&port.caller().get(&format!("/bytes?n={LENGTH}")).await.bytes().await);
    assert_eq!((check.length(), check.damaged_at()), (LENGTH, None));
    let told = port.caller().post("/sink", body::generated(LENGTH, Length::Fixed)).await.json().await;
    assert_eq!(told["length"], LENGTH, "{told}");
    assert!(told["damaged_at"].is_null(), "{told}");
}

#[tokio::test]
async fn errors_of_the_server_pass_as_they_are() {
    let world = Setup::new().without_desktop().start().await;
    let port = Port::to(&world).await;
    for path in ["/api/tags", "/v1/models"] {
        let (direct, through) = (world.caller().get(path).await, port.caller().get(path).await);
        assert_eq!(through.error(), (503, "tunnel_offline"));
        assert_eq!(through.header("x-should-retry"), direct.header("x-should-retry"));
        assert_eq!(through.header("content-type"), direct.header("content-type"));
        let without_id = |text: String| text.split("\"request_id\"").next().unwrap().to_owned();
        assert_eq!(without_id(through.text().await), without_id(direct.text().await));
    }
}

#[tokio::test]
async fn head_has_the_length_and_a_get_its_body() {
    let world = Setup::new().start().await;
    let port = Port::to(&world).await;
    let caller = port.caller();
    let reply = caller.send(caller.request(Method::HEAD, "/bytes?n=1000", body::empty())).await;
    assert_eq!(reply.header("content-length"), "1000");
    let head = format!("GET /sink HTTP/1.1\r\n{}", caller.raw_headers());
    let request = format!("{head}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    let answer = caller.raw(request.as_bytes()).await;
    assert!(answer.contains("\"length\":3"), "{answer}");
}

/// What arrives at the server's side when it is no more than a mirror.
async fn mirrored(port: &Port, headers: &[(&'static str, &'static str)]) -> serde_json::Value {
    let mut request = port.caller().request(Method::GET, "/echo/%2e%2e/a?b=%20", body::empty());
    for (name, value) in headers {
        request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    port.caller().send(request).await.json().await
}

#[tokio::test]
async fn t31_only_our_own_credential_and_no_cookie_leaves_this_machine() {
    let mirror = Ollama::start();
    let port = Port::open(&format!("http://{}", mirror.addr()), None).await;
    let seen = mirrored(
        &port,
        &[
            ("authorization", "Bearer dummy"),
            ("x-api-key", "dummy"),
            ("cookie", "session=other-program"),
            ("origin", PAGE),
            ("referer", "http://localhost:3000/secret"),
            ("sec-fetch-site", "cross-site"),
            ("x-kept", "yes"),
        ],
    )
    .await;
    assert_eq!(seen["target"], "/echo/%2e%2e/a?b=%20", "{seen}");
    let names: Vec<&str> = seen["headers"].as_array().unwrap().iter().map(|pair| pair[0].as_str().unwrap()).collect();
    for gone in ["x-api-key", "cookie", "origin", "referer", "sec-fetch-site"] {
        assert!(!names.contains(&gone), "{gone}: {seen}");
    }
    let value = |name: &str| {
        let pairs = seen["headers"].as_array().unwrap();
        let values: Vec<_> =
            pairs.iter().filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap()).collect();
        values.join("|")
    };
    assert_eq!(value("authorization"), format!("Bearer {}", port.token));
    assert_eq!(value("host"), mirror.addr().to_string());
    assert_eq!((value("tunnel-name").as_str(), value("x-kept").as_str()), ("desktop", "yes"));
}

#[tokio::test]
async fn web_pages_and_foreign_names_are_kept_out() {
    let mirror = Ollama::start();
    let port = Port::open(&format!("http://{}", mirror.addr()), None).await;
    let ask = async |method: Method, headers: &[(&'static str, &'static str)]| {
        let mut request = port.caller().request(method, "/api/tags", body::empty());
        for (name, value) in headers {
            request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        port.caller().send(request).await
    };
    for headers in [
        &[("host", "rebound.example")][..],
        &[("host", "rebound.example"), ("origin", PAGE)],
        &[("origin", "http://evil.example")],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site")],
    ] {
        let reply = ask(Method::POST, headers).await;
        assert_eq!(reply.error(), (403, "not_allowed"), "{headers:?}");
        assert!(!reply.headers().contains_key("access-control-allow-origin"), "{headers:?}");
    }
    let question =
        [("origin", PAGE), ("access-control-request-method", "POST"), ("access-control-request-headers", "x-a")];
    let reply = ask(Method::OPTIONS, &question).await;
    assert_eq!(reply.status(), StatusCode::NO_CONTENT);
    assert_eq!(reply.header("access-control-allow-origin"), PAGE);
    assert_eq!(reply.header("access-control-allow-headers"), "x-a");
    assert!(mirror.received().is_empty(), "nothing of that may leave this machine");
    let reply = ask(Method::GET, &[("origin", PAGE)]).await;
    assert_eq!((reply.status().as_u16(), reply.header("access-control-allow-origin")), (200, PAGE));
}

#[tokio::test]
async fn a_server_that_is_away_is_a_502_in_the_shape_of_the_api() {
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let port = Port::open(&format!("http://{away}"), None).await;
    for (path, message) in
        [("/api/chat", "/error"), ("/v1/chat/completions", "/error/message"), ("/v1/messages", "/error/message")]
    {
        let reply = port.caller().post(path, body::full("{}")).await;
        assert_eq!(reply.error(), (502, "server_unreachable"), "{path}");
        let json = reply.json().await;
        assert!(json.pointer(message).unwrap().as_str().unwrap().contains("tunnel doctor"), "{json}");
    }
}

#[tokio::test]
async fn the_program_listens_on_this_machine_only() {
    let shop = Workshop::new().await;
    let ollama = Ollama::start();
    let (_server, addr) = shop.serve(&[]).await;
    let _client = shop.connect(addr, ollama.addr(), &[]).await;
    let (token, ca) = (shop.arg("desktop.token"), shop.arg("ca.pem"));
    let args = ["forward", "--token-file", &token, "--ca", &ca];
    let said = run("tunnel", [&args[..], &["--listen", "0.0.0.0:0"]].concat()).await;
    assert!(said.error(64).starts_with("--listen: 0.0.0.0:0 can be reached from outside"), "{said:?}");
    let mut forward = Program::tunnel([&args[..], &["--listen", "127.0.0.1:0"]].concat());
    let port = forward.listening().await;
    assert_eq!(Caller::new("127.0.0.1", port, None).get("/api/version").await.status(), 200);
    let occupied = port.to_string();
    let said = run("tunnel", [&args[..], &["--listen", &occupied]].concat()).await;
    assert!(said.errors.iter().any(|line| line.contains("is taken, perhaps by an Ollama")), "{said:?}");
}

#[tokio::test]
async fn the_program_says_which_request_failed_and_never_the_token() {
    let shop = Workshop::new().await;
    let (server, addr) = shop.serve(&[]).await;
    let text = shop.token(&["--user", "alice", "--server", &format!("https://localhost:{}", addr.port())]).await;
    let (token, ca) = (shop.file("key", &text), shop.arg("ca.pem"));
    let mut forward = Program::tunnel(["forward", "--token-file", &token, "--ca", &ca, "--listen", "127.0.0.1:0"]);
    let caller = Caller::new("127.0.0.1", forward.listening().await, None);
    assert_eq!(caller.get("/api/tags").await.error(), (503, "tunnel_offline"));
    forward.logs(&["WARN", "the server refused a request", "path=\"/api/tags\"", "tunnel_offline"]).await;
    drop(server);
    assert_eq!(caller.get("/api/ps").await.status(), 502);
    forward.logs(&["WARN", "try `tunnel doctor`", "path=\"/api/ps\""]).await;
    let signature = text.rsplit_once('.').unwrap().1;
    assert!(!forward.errors().iter().any(|line| line.contains(signature)));
}

#[tokio::test]
async fn what_every_request_would_meet_is_said_at_start() {
    let shop = Workshop::new().await;
    let (_server, addr) = shop.serve(&[]).await;
    let (server, ca) = (format!("https://localhost:{}", addr.port()), shop.arg("ca.pem"));
    let expired = hs256(&with(claims("bob"), &json!({"exp": 1_700_000_000})));
    let connects = shop.token(&["--user", "bob", "--scope", "connect"]).await;
    let good = shop.token(&["--user", "bob"]).await;
    let args = ["forward", "--listen", "127.0.0.1:0", "--server", &server];
    for (token, ca, said) in [
        (&expired, ["--ca", &ca].as_slice(), "the token has expired"),
        (&connects, &["--ca", &ca], "the token connects a desktop and sends no request"),
        (&good, &[], "cannot be reached: "),
        (&good, &["--ca", &ca], "the server refused a request"),
    ] {
        let token = shop.file("key", token);
        let mut forward = Program::tunnel([&args, ["--token-file", &token].as_slice(), ca].concat());
        let port = forward.listening().await;
        if said.starts_with("the server") {
            assert_eq!(Caller::new("127.0.0.1", port, None).get("/").await.error(), (503, "tunnel_offline"));
        }
        forward.logs(&["WARN", said]).await;
        let warnings = forward.errors().into_iter().filter(|line| line.contains("WARN")).count();
        assert_eq!(warnings, 1, "{:?}", forward.errors());
    }
}

#[tokio::test]
async fn a_program_that_hammers_does_not_fill_the_log() {
    let shop = Workshop::new().await;
    let (_server, addr) = shop.serve(&[]).await;
    let url = format!("https://localhost:{}", addr.port());
    let text = shop.token(&["--user", "bob", "--scope", "infer", "--server", &url]).await;
    let (token, ca) = (shop.file("key", &text), shop.arg("ca.pem"));
    let mut forward = Program::tunnel(["forward", "--token-file", &token, "--ca", &ca, "--listen", "127.0.0.1:0"]);
    let caller = Caller::new("localhost", forward.listening().await, None);
    for _ in 0..5 {
        assert_eq!(caller.get("/x").await.error(), (403, "scope_denied"));
    }
    forward.signal(Signal::Terminate);
    forward.wait().await;
    let warnings = forward.errors().into_iter().filter(|line| line.contains("WARN")).collect::<Vec<_>>();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}
