//! Bodies in both directions: fixed length and chunked, held back by whoever is slow, at the same time, cut short.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use http::Method;
use integration_tests::{
    body::{self, Length},
    caller::{Caller, Protocol},
    eventually::with_deadline,
    pattern::{self, Check},
    raw::RawUpstream,
    setup::Setup,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Enough for many turns of every window and buffer on the way.
const BULK: u64 = 24 * 1024 * 1024;

/// More than all buffers on the way may hold together: the kernel's on three connections, and ours.
const BUFFERS: u64 = 64 * 1024 * 1024;

/// No byte for this long: whoever is held back has come to a halt.
const HALT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn uploads_arrive_whole_and_framed_as_they_were() {
    let world = Setup::new().start().await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for (told, length, encoding) in
            [(Length::Fixed, BULK.to_string(), ""), (Length::Unknown, String::new(), "chunked")]
        {
            let request = world.caller().request(Method::POST, "/sink", body::generated(BULK, told));
            let sunk = world.caller().connect(protocol).await.send(request).await.json().await;
            assert_eq!(sunk, json!({"length": BULK, "damaged_at": null}), "{told:?} over {protocol:?}");
            let received = world.ollama().received().pop().unwrap();
            assert_eq!(received.header("content-length"), length, "{protocol:?}");
            assert_eq!(received.header("transfer-encoding"), encoding, "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn downloads_arrive_whole_and_framed_as_they_were() {
    let world = Setup::new().start().await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for (query, length) in [("", BULK.to_string()), ("&chunked", String::new())] {
            let target = format!("/bytes?n={BULK}{query}");
            let request = world.caller().request(Method::GET, &target, body::empty());
            let mut reply = world.caller().connect(protocol).await.send(request).await;
            assert_eq!(reply.header("content-length"), length, "{query} over {protocol:?}");
            let mut check = Check::default();
            while let Some(piece) = reply.next().await {
                check.push(&piece.unwrap());
            }
            assert_eq!((check.length(), check.damaged_at()), (BULK, None), "{query} over {protocol:?}");
        }
    }
}

/// RFC 9110 §9.3.1 lets a GET have one, and search engines want it.
#[tokio::test]
async fn a_body_of_unknown_length_arrives_whatever_the_method() {
    let world = Setup::new().start().await;
    let caller = world.caller();
    for method in [Method::GET, Method::DELETE] {
        let head = format!("{method} /sink HTTP/1.1\r\n{}", caller.raw_headers());
        let request = format!("{head}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        let answer = caller.raw(request.as_bytes()).await;
        assert!(answer.contains("\"length\":3"), "{method}: {answer}");
        let request = caller.request(method.clone(), "/sink", body::generated(BULK, Length::Unknown));
        let sunk = caller.connect(Protocol::Http2).await.send(request).await.json().await;
        assert_eq!(sunk, json!({"length": BULK, "damaged_at": null}), "{method}");
    }
}

#[tokio::test]
async fn no_body_stays_no_body() {
    let world = Setup::new().start().await;
    let caller = world.caller();
    caller.get("/echo/none").await;
    let received = world.ollama().received_for("/echo/none").await;
    assert_eq!((received.header("content-length"), received.header("transfer-encoding")), ("", ""));
    for (fields, length) in [("Content-Length: 0\r\n", "0"), ("", "0")] {
        let headers = caller.raw_headers();
        let request = format!("POST /echo/zero HTTP/1.1\r\n{headers}{fields}Connection: close\r\n\r\n");
        assert!(caller.raw(request.as_bytes()).await.starts_with("HTTP/1.1 200"));
        let received = world.ollama().received().pop().unwrap();
        // RFC 9110 §8.6 wants the length of an empty POST, and allows to leave it out.
        assert!(["", length].contains(&received.header("content-length")), "{:?}", received.headers);
        assert_eq!(received.header("transfer-encoding"), "");
    }
}

#[tokio::test]
async fn both_directions_flow_at_the_same_time() {
    let world = Setup::new().start().await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (mut pieces, body) = body::stepwise();
        let request = world.caller().request(Method::POST, "/duplex", body);
        let mut connection = world.caller().connect(protocol).await;
        let mut reply = connection.send(request).await;
        for piece in ["one", "two", "three"] {
            pieces.send(piece).await.unwrap();
            reply.expect(piece).await;
        }
        drop(pieces);
        reply.rest().await.1.unwrap();
    }
}

#[tokio::test]
async fn a_slow_upstream_holds_the_caller_back() {
    let world = Setup::new().start().await;
    let caller = world.caller();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut played = world.ollama().play("/api/create");
        let (mut pieces, body) = body::stepwise();
        let request = caller.request(Method::POST, "/api/create", body);
        let mut connection = caller.connect(protocol).await;
        let call = tokio::spawn(async move { connection.send(request).await.json().await });
        let mut exchange = played.next().await;
        let mut sent = 0;
        while sent < BUFFERS {
            let piece = pattern::slice(sent, 32 * 1024);
            let length = piece.len() as u64;
            let Ok(taken) = tokio::time::timeout(HALT, pieces.send(piece)).await else { break };
            taken.unwrap();
            sent += length;
        }
        assert!(sent < BUFFERS, "{sent} bytes vanished between a caller and an upstream that reads nothing");
        drop(pieces);
        let mut check = Check::default();
        while let Some(piece) = exchange.read().await {
            check.push(&piece.unwrap());
        }
        assert_eq!((check.length(), check.damaged_at()), (sent, None), "{protocol:?}");
        exchange.respond(http::Response::new(body::full("{}")));
        assert_eq!(with_deadline("the answer", call).await.unwrap(), json!({}));
    }
}

#[tokio::test]
async fn a_slow_caller_holds_the_upstream_back() {
    let world = Setup::new().start().await;
    let caller = world.caller();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut played = world.ollama().play("/api/pull");
        let mut connection = caller.connect(protocol).await;
        let request = caller.request(Method::GET, "/api/pull", body::empty());
        let (mut reply, mut exchange) = tokio::join!(connection.send(request), played.start_ok("text/plain"));
        let mut sent = 0;
        while sent < BUFFERS {
            let piece = pattern::slice(sent, 32 * 1024);
            let length = piece.len() as u64;
            let Ok(taken) = tokio::time::timeout(HALT, exchange.send(piece)).await else { break };
            taken.unwrap();
            sent += length;
        }
        assert!(sent < BUFFERS, "{sent} bytes vanished between an upstream and a caller who reads nothing");
        exchange.end();
        let mut check = Check::default();
        while let Some(piece) = reply.next().await {
            check.push(&piece.unwrap());
        }
        assert_eq!((check.length(), check.damaged_at()), (sent, None), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_stalled_reader_does_not_hold_others_back() {
    let world = Setup::new().start().await;
    let caller = world.caller();
    let stalled = futures_util::future::join_all((0..8).map(|_| caller.get("/bytes?n=100000000"))).await;
    let sunk = caller.post("/sink", body::generated(BULK, Length::Fixed)).await.json().await;
    assert_eq!(sunk, json!({"length": BULK, "damaged_at": null}));
    assert_eq!(caller.get("/api/version").await.status(), 200);
    drop(stalled);
}

/// Sends a head that waits for leave to send its body, and gives what came back, up to the end of a head.
async fn expecting(caller: &Caller, target: &str, socket: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> String {
    let headers = caller.raw_headers();
    let head = format!("POST {target} HTTP/1.1\r\n{headers}Expect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    read_head(socket).await
}

async fn read_head(socket: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(with_deadline("a head", socket.read_u8()).await.expect("a head before the end"));
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn continue_is_said_when_the_body_is_wanted() {
    let world = Setup::new().start().await;
    let caller = world.caller();
    let mut socket = caller.socket(Protocol::Http1).await;
    assert_eq!(expecting(&caller, "/echo", &mut socket).await, "HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(b"body").await.unwrap();
    assert!(read_head(&mut socket).await.starts_with("HTTP/1.1 200 OK"));
    assert_eq!(world.ollama().received_for("/echo").await.header("expect"), "", "the edge has answered it");
}

#[tokio::test]
async fn continue_is_not_said_to_who_is_refused() {
    let world = Setup::new().start().await;
    let nobody = world.caller_for("nobody");
    for (caller, status) in [(&nobody, "503"), (&world.caller().with_token("bad"), "401")] {
        let mut socket = caller.socket(Protocol::Http1).await;
        let head = expecting(caller, "/echo", &mut socket).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
    }
}

#[tokio::test]
async fn an_answer_may_come_before_the_upload_is_over() {
    let world = Setup::new().start().await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (mut pieces, body) = body::stepwise();
        let request = world.caller().request(Method::POST, "/early", body);
        let mut connection = world.caller().connect(protocol).await;
        let (reply, ()) = tokio::join!(connection.send(request), async { pieces.send("start").await.unwrap() });
        assert_eq!(reply.status(), 200, "{protocol:?}");
        assert_eq!(reply.text().await, "there already", "{protocol:?}");
    }
    // And nothing is left behind that would harm the next one.
    assert_eq!(world.caller().get("/api/version").await.status(), 200);
}

#[tokio::test]
async fn an_early_answer_to_a_large_upload_is_not_lost() {
    let world = Setup::new().start().await;
    for _ in 0..8 {
        let request = world.caller().request(Method::POST, "/early", body::generated(BULK, Length::Fixed));
        let reply = world.caller().connect(Protocol::Http2).await.send(request).await;
        assert_eq!((reply.status().as_u16(), reply.text().await.as_str()), (200, "there already"));
    }
}

#[tokio::test]
async fn t20_two_ways_to_frame_are_never_two_requests() {
    let world = Setup::new().start().await;
    let caller = world.caller();
    let headers = caller.raw_headers();
    let smuggled = format!("GET /echo/smuggled HTTP/1.1\r\n{headers}\r\n");
    for framing in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
    ] {
        let request = format!("POST /echo HTTP/1.1\r\n{headers}{framing}Connection: close\r\n\r\n0\r\n\r\n{smuggled}");
        caller.raw(request.as_bytes()).await;
        let targets: Vec<_> = world.ollama().received().into_iter().map(|received| received.target).collect();
        assert!(!targets.contains(&"/echo/smuggled".to_owned()), "{framing:?} let a second request through");
    }
}

#[tokio::test]
async fn t21_trailers_and_chunk_extensions_do_not_cross() {
    let mut upstream = RawUpstream::start().await;
    let world = Setup::new().upstream(upstream.addr()).start().await;
    let caller = world.caller();
    let headers = caller.raw_headers();
    let request = format!(
        "POST /x HTTP/1.1\r\n{headers}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
         4;ext=up\r\nbody\r\n0\r\nX-Trailer-Up: 1\r\n\r\n"
    );
    let upstream = async {
        let mut exchange = upstream.next().await;
        let body = exchange.read_exactly("4\r\nbody\r\n0\r\n\r\n".len()).await;
        exchange
            .write(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Trailer-Down\r\n\r\n\
                  6;ext=down\r\nanswer\r\n0\r\nX-Trailer-Down: 1\r\n\r\n",
            )
            .await;
        (exchange.head, String::from_utf8(body).unwrap())
    };
    let (answer, (head, body)) = tokio::join!(caller.raw(request.as_bytes()), upstream);
    assert_eq!(body, "4\r\nbody\r\n0\r\n\r\n");
    assert!(!head.to_ascii_lowercase().contains("trailer"), "{head}");
    assert!(answer.contains("answer"), "{answer}");
    assert!(!answer.to_ascii_lowercase().contains("trailer") && !answer.contains("ext="), "{answer}");
}

#[tokio::test]
async fn a_refused_upload_is_not_read_for_ever() {
    let world = Setup::new().server(|config| config.limits.max_body = Some(1000)).start().await;
    let caller = world.caller();
    let reply = caller.post("/sink", body::generated(1001, Length::Fixed)).await;
    assert_eq!(reply.error(), (413, "body_too_large"));
    assert_eq!(world.ollama().received().len(), 0, "a length that is told is refused at once");
    let reply = caller.post("/sink", body::generated(1000, Length::Fixed)).await.json().await;
    assert_eq!(reply["length"], 1000);
    let request = caller.request(Method::POST, "/sink", body::generated(1001, Length::Unknown));
    let reply = caller.connect(Protocol::Http2).await.send(request).await;
    assert_eq!(reply.error(), (413, "body_too_large"));
    assert_ne!(reply.json().await["error"], Value::Null);
}
