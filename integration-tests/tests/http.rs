//! Requests and responses as HTTP frames them: methods, statuses without bodies, targets, kept connections, HTTP/2.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use http::{Method, StatusCode, Version};
use integration_tests::{
    body,
    caller::{Connection, Protocol},
    raw::RawUpstream,
    setup::{Setup, World},
};

/// One exchange on an open connection, read to its end, so that the next one shows whether framing is intact.
async fn exchange(
    world: &World,
    connection: &mut Connection,
    method: Method,
    target: &str,
) -> (StatusCode, String, String) {
    let request = world.caller().request(method, target, body::empty());
    let reply = connection.send(request).await;
    let (status, length) = (reply.status(), reply.header("content-length").to_owned());
    (status, length, reply.text().await)
}

#[tokio::test]
async fn every_method_passes() {
    let world = Setup::new().start().await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut connection = world.caller().connect(protocol).await;
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "x-odd!method"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let (status, _, text) = exchange(&world, &mut connection, method.clone(), "/echo").await;
            assert_eq!(status, StatusCode::OK, "{method} over {protocol:?}");
            assert!(text.contains(&format!("\"method\":\"{method}\"")), "{text}");
        }
    }
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let world = Setup::new().start().await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut connection = world.caller().connect(protocol).await;
        for _ in 0..3 {
            let answer = exchange(&world, &mut connection, Method::HEAD, "/bytes?n=1000").await;
            assert_eq!(answer, (StatusCode::OK, "1000".to_owned(), String::new()), "{protocol:?}");
        }
        let answer = exchange(&world, &mut connection, Method::GET, "/").await;
        assert_eq!(answer.2, "Ollama is running", "{protocol:?}");
    }
}

#[tokio::test]
async fn no_content_and_not_modified_have_no_body() {
    let world = Setup::new().start().await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut connection = world.caller().connect(protocol).await;
        for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED] {
            for method in [Method::GET, Method::POST, Method::DELETE, Method::HEAD] {
                let target = format!("/status/{}", status.as_str());
                let answer = exchange(&world, &mut connection, method.clone(), &target).await;
                assert_eq!((answer.0, answer.2.as_str()), (status, ""), "{method} {target} over {protocol:?}");
                assert!(matches!(answer.1.as_str(), "" | "0"), "{method} {target}: {answer:?}");
            }
        }
        let answer = exchange(&world, &mut connection, Method::GET, "/").await;
        assert_eq!(answer.2, "Ollama is running", "{protocol:?}");
    }
}

#[tokio::test]
async fn a_304_keeps_its_fields() {
    let mut upstream = RawUpstream::start().await;
    let world = Setup::new().upstream(upstream.addr()).start().await;
    let caller = world.caller();
    let answer = b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 1234\r\n\r\n";
    let (reply, _open) = tokio::join!(caller.get("/blob"), upstream.answer_once(answer));
    assert_eq!((reply.status(), reply.header("etag")), (StatusCode::NOT_MODIFIED, "\"x\""));
    assert_eq!(reply.text().await, "");
}

#[tokio::test]
async fn every_status_passes() {
    let world = Setup::new().start().await;
    let mut connection = world.caller().connect(Protocol::Http1).await;
    for status in [200, 201, 202, 206, 299, 300, 400, 401, 404, 418, 429, 451, 500, 502, 503, 599] {
        let (got, _, text) = exchange(&world, &mut connection, Method::GET, &format!("/status/{status}")).await;
        assert_eq!((got.as_u16(), text), (status, status.to_string()));
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let mut upstream = RawUpstream::start().await;
    let world = Setup::new().upstream(upstream.addr()).start().await;
    let caller = world.caller();
    let answer = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n";
    let (reply, _open) = tokio::join!(caller.get("/here"), upstream.answer_once(answer));
    assert_eq!((reply.status().as_u16(), reply.header("location")), (307, "/elsewhere"));
}

const TARGETS: [&str; 14] = [
    "/echo/a%2Fb%2fc",
    "/echo//two//slashes/",
    "/echo/;v=1;w=2",
    "/echo/!$&'()*+,;=:@-._~",
    "/echo/%E2%82%AC%20%41",
    "/echo/a+b?x=a+b&y=%26&z&&=",
    "/echo/?",
    "/echo/?q=/../?x?",
    "/echo/model:tag@sha256:0123",
    "/echo/...",
    "/echo/.hidden/..two",
    "/echo/%25%32%46",
    "/echo/{braces}",
    "/echo?token=not-ours",
];

#[tokio::test]
async fn targets_pass_byte_for_byte() {
    let world = Setup::new().start().await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut connection = world.caller().connect(protocol).await;
        for target in TARGETS {
            let (status, ..) = exchange(&world, &mut connection, Method::GET, target).await;
            assert_eq!(status, StatusCode::OK, "{target}");
            assert_eq!(world.ollama().received().pop().unwrap().target, target, "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn the_target_is_on_the_wire_as_it_was_written() {
    let mut upstream = RawUpstream::start().await;
    let world = Setup::new().upstream(upstream.addr()).start().await;
    let caller = world.caller();
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let asked = async {
        let exchange = upstream.answer_once(answer).await;
        (exchange.head.clone(), exchange)
    };
    let (reply, (head, _open)) = tokio::join!(caller.get("/v1/models/org%2Fmodel%3a1?a=%7e"), asked);
    assert_eq!(reply.status(), StatusCode::OK);
    assert_eq!(head.lines().next(), Some("GET /v1/models/org%2Fmodel%3a1?a=%7e HTTP/1.1"));
    assert!(head.contains(&format!("\r\nhost: {}\r\n", upstream.addr())) || head.contains("\r\nHost: "), "{head}");
}

#[tokio::test]
async fn absolute_form_is_as_good_as_origin_form() {
    let world = Setup::new().start().await;
    let caller = world.caller();
    let request = format!("GET {}/echo/x HTTP/1.1\r\n{}Connection: close\r\n\r\n", world.url(), caller.raw_headers());
    let answer = caller.raw(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(world.ollama().received_for("/echo").await.target, "/echo/x");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let world = Setup::new().start().await;
    let caller = world.caller();
    let headers = caller.raw_headers();
    let request = format!(
        "POST /echo/1 HTTP/1.1\r\n{headers}Content-Length: 3\r\n\r\noneGET /echo/2 HTTP/1.1\r\n{headers}Connection: close\r\n\r\n"
    );
    let answer = caller.raw(request.as_bytes()).await;
    let (first, second) = (answer.find("\"/echo/1\""), answer.find("\"/echo/2\""));
    assert!(first.is_some() && first < second, "{answer}");
}

#[tokio::test]
async fn http2_carries_many_streams_on_one_connection() {
    let world = Setup::new().start().await;
    let caller = world.caller();
    let mut played = world.ollama().play("/api/chat");
    let mut connection = caller.connect(Protocol::Http2).await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        let request = caller.request(Method::POST, "/api/chat", body::empty());
        streams.push(tokio::join!(connection.send(request), played.start_ok("application/x-ndjson")));
    }
    // The other way round: the newest first, each while all others wait.
    for (n, (reply, exchange)) in streams.iter_mut().enumerate().rev() {
        assert_eq!(reply.version(), Version::HTTP_2);
        exchange.send(format!("{n}\n")).await.unwrap();
        reply.expect(format!("{n}\n")).await;
        exchange.end();
        reply.rest().await.1.unwrap();
    }
}

#[tokio::test]
async fn what_is_not_for_a_proxy_is_refused() {
    let world = Setup::new().start().await;
    let caller = world.caller();
    let headers = caller.raw_headers();
    for (start, fields, status) in [
        ("TRACE /echo HTTP/1.1", "", "501"),
        ("CONNECT localhost:1 HTTP/1.1", "", "501"),
        ("GET /echo HTTP/1.1", "Upgrade: websocket\r\nConnection: upgrade\r\n", "501"),
        ("GET /echo HTTP/1.0", "", "505"),
        ("GET /echo/../x HTTP/1.1", "", "400"),
        ("GET /echo/%2e%2e%2fx HTTP/1.1", "", "400"),
        ("POST /echo HTTP/1.1", "Expect: a-miracle\r\nContent-Length: 0\r\n", "417"),
    ] {
        let answer = caller.raw(format!("{start}\r\n{headers}{fields}Connection: close\r\n\r\n").as_bytes()).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{start}: {answer}");
    }
    assert_eq!(world.ollama().received().len(), 0);
}
