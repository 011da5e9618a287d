//! Which header fields cross the tunnel, in each direction: end-to-end ones as they are, the others not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use http::{HeaderMap, HeaderValue, Method};
use integration_tests::{
    body,
    caller::{Protocol, Reply},
    ollama::Received,
    raw::RawUpstream,
    setup::Setup,
};

/// Sends a GET with these fields and gives what came to the upstream.
async fn arrives(protocol: Protocol, fields: &[(&'static str, &str)]) -> Received {
    let world = Setup::new().start().await;
    let caller = world.caller();
    let mut request = caller.request(Method::GET, "/echo", body::empty());
    for (name, value) in fields {
        request.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
    }
    let reply = caller.connect(protocol).await.send(request).await;
    assert_eq!(reply.status(), 200);
    world.ollama().received_for("/echo").await
}

/// What a caller gets when the upstream answers with these fields.
async fn comes_back(fields: &str) -> Reply {
    let mut upstream = RawUpstream::start().await;
    let world = Setup::new().upstream(upstream.addr()).start().await;
    let caller = world.caller();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n{fields}\r\nbody");
    let (mut reply, _open) = tokio::join!(caller.get("/x"), upstream.answer_once(answer.as_bytes()));
    reply.expect("body").await;
    reply
}

fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn end_to_end_fields_pass_in_order() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let fields = [
            ("x-twice", "first"),
            ("user-agent", "ollama-python/0.5"),
            ("x-twice", "second, and \"third\""),
            ("accept", "*/*"),
            ("accept-encoding", "gzip, br"),
            ("x-stainless-lang", "python"),
            ("range", "bytes=0-1"),
            ("x-empty", ""),
        ];
        let received = arrives(protocol, &fields).await;
        for (name, _) in fields {
            let sent: Vec<_> = fields.iter().filter(|field| field.0 == name).map(|field| field.1).collect();
            assert_eq!(all(&received.headers, name), sent, "{name} over {protocol:?}");
        }
    }
}

#[tokio::test]
async fn bytes_beyond_ascii_pass_in_a_value() {
    let world = Setup::new().start().await;
    let mut request = world.caller().request(Method::GET, "/echo", body::empty());
    let value = HeaderValue::from_bytes(b"caf\xe9 \xf0\x9f\xa6\x99").unwrap();
    request.headers_mut().insert("x-name", value.clone());
    world.caller().send(request).await;
    assert_eq!(world.ollama().received_for("/echo").await.headers["x-name"], value);
}

#[tokio::test]
async fn t23_hop_by_hop_fields_end_at_the_edge() {
    let received = arrives(
        Protocol::Http1,
        &[
            ("connection", "x-one, keep-alive, X-Two"),
            ("connection", "authorization, host"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic eDp5"),
        ],
    )
    .await;
    for name in [
        "x-one",
        "x-two",
        "keep-alive",
        "te",
        "trailer",
        "proxy-connection",
        "proxy-authorization",
        "transfer-encoding",
    ] {
        assert_eq!(all(&received.headers, name), [""; 0], "{name}");
    }
    assert_eq!(received.header("x-three"), "3");
    assert!(received.header("host").starts_with("127.0.0.1:"), "{:?}", received.headers);
    assert!(!received.header("connection").contains("x-one"));
}

#[tokio::test]
async fn t31_nothing_about_the_caller_reaches_the_upstream() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let private = [
            ("cookie", "a=b"),
            ("referer", "https://app.example/"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-host", "app.example"),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "192.0.2.1"),
            ("forwarded", "for=192.0.2.1"),
            ("tunnel-name", "desktop"),
            ("tunnel-deadline", "20s"),
            ("x-api-key", "a-second-credential"),
        ];
        let received = arrives(protocol, &private).await;
        for (name, _) in private.iter().chain(&[("authorization", ""), ("origin", "")]) {
            assert_eq!(all(&received.headers, name), [""; 0], "{name} over {protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_page_on_another_origin_is_no_matter_for_the_upstream() {
    // The fake refuses a foreign Origin and Host with 403, as Ollama does: 200 proves that neither reached it.
    arrives(Protocol::Http1, &[("origin", "https://app.example")]).await;
}

#[tokio::test]
async fn t61_what_could_act_in_our_origin_is_dropped_from_answers() {
    let reply = comes_back(
        "Set-Cookie: a=b\r\nClear-Site-Data: \"*\"\r\nStrict-Transport-Security: max-age=0\r\nAlt-Svc: h3=\":1\"\r\n\
         Refresh: 0; url=/\r\nService-Worker-Allowed: /\r\nAccess-Control-Allow-Origin: *\r\n\
         Access-Control-Allow-Credentials: true\r\nTunnel-Error: fake\r\nKeep-Alive: timeout=5\r\n\
         Connection: x-up\r\nX-Up: 1\r\nX-Kept: kept\r\nX-Kept: twice\r\nContent-Type: text/html\r\n",
    )
    .await;
    for name in [
        "set-cookie",
        "clear-site-data",
        "strict-transport-security",
        "alt-svc",
        "refresh",
        "service-worker-allowed",
        "access-control-allow-origin",
        "access-control-allow-credentials",
        "tunnel-error",
        "keep-alive",
        "x-up",
    ] {
        assert_eq!(all(reply.headers(), name), [""; 0], "{name}");
    }
    assert_eq!(all(reply.headers(), "x-kept"), ["kept", "twice"]);
    assert_eq!(reply.header("content-type"), "text/html");
    assert_eq!(reply.header("content-security-policy"), "sandbox");
    assert_eq!(reply.header("x-content-type-options"), "nosniff");
    assert_eq!(reply.header("x-accel-buffering"), "no");
    assert!(!reply.header("x-request-id").is_empty());
}

#[tokio::test]
async fn a_location_that_names_the_upstream_leads_back_to_us() {
    let mut upstream = RawUpstream::start().await;
    let world = Setup::new().upstream(upstream.addr()).start().await;
    let caller = world.caller();
    for (given, passed) in [
        (format!("http://{}/a?b", upstream.addr()), "/a?b"),
        ("http://127.0.0.1:1/secret".to_owned(), ""),
        ("https://elsewhere.example/x".to_owned(), "https://elsewhere.example/x"),
    ] {
        let answer =
            format!("HTTP/1.1 302 Found\r\nLocation: {given}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let (reply, _open) = tokio::join!(caller.get("/x"), upstream.answer_once(answer.as_bytes()));
        assert_eq!(reply.header("location"), passed, "{given}");
    }
}

#[tokio::test]
async fn informational_answers_of_the_upstream_are_dropped() {
    let mut upstream = RawUpstream::start().await;
    let world = Setup::new().upstream(upstream.addr()).start().await;
    let caller = world.caller();
    let answer = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
        HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (reply, _open) = tokio::join!(caller.get("/x"), upstream.answer_once(answer));
    assert_eq!((reply.status().as_u16(), reply.header("link")), (200, ""));
    assert_eq!(reply.text().await, "ok");
}

#[tokio::test]
async fn each_answer_has_its_own_request_id() {
    let world = Setup::new().start().await;
    let mut connection = world.caller().connect(Protocol::Http1).await;
    let mut ids = std::collections::HashSet::new();
    for _ in 0..4 {
        let mut request = world.caller().request(Method::GET, "/", body::empty());
        request.headers_mut().insert("x-request-id", HeaderValue::from_static("mine"));
        let reply = connection.send(request).await;
        let id = reply.header("x-request-id").to_owned();
        assert!(!id.is_empty() && id != "mine" && ids.insert(id.clone()), "{id:?}");
        reply.text().await;
    }
}
