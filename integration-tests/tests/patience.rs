//! Callers that do not read, do not begin, or send what nobody needs: they cost what the limits say and no more.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use futures_util::future::join_all;
use http::{HeaderValue, Method, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use integration_tests::{
    body,
    caller::{Caller, Protocol},
    eventually::{eventually, with_deadline},
    handshake, pki,
    setup::{ALICE, Setup},
};
use tokio::{io::AsyncReadExt, net::TcpListener};

async fn in_flight(caller: &Caller) -> u64 {
    let status = caller.get("/api/tunnel/status").await.json().await;
    status["tunnels"][0]["in_flight"].as_u64().unwrap()
}

/// The server's patience is 10 s; nothing here waits for less than the end.
#[tokio::test]
async fn t43_an_http2_connection_that_never_begins_is_cut() {
    let world = Setup::new().without_desktop().start().await;
    let mut socket = world.caller().socket(Protocol::Http2).await;
    let mut settings = Vec::new();
    // Whether it ends with a goodbye or a reset: it ends.
    let _ = with_deadline("the server gives up", socket.read_to_end(&mut settings)).await;
}

#[tokio::test]
async fn t48_an_http2_caller_without_a_window_frees_its_slot_at_the_deadline() {
    let world = Setup::new()
        .server(|config| {
            config.limits.stream_deadline = Duration::from_secs(1);
            config.limits.max_stream_deadline = Duration::from_secs(1);
            config.limits.max_streams_per_user = 1;
        })
        .start()
        .await;
    let caller = world.caller();
    let io = TokioIo::new(caller.socket(Protocol::Http2).await);
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.initial_stream_window_size(0).handshake(io).await.unwrap();
    let connection = tokio::spawn(connection);
    let response = sender.send_request(caller.request(Method::GET, "/api/tags", body::empty())).await.unwrap();
    assert_eq!(response.status(), 200);
    eventually("the stream is over", async || (in_flight(&caller).await == 0).then_some(())).await;
    assert_eq!(caller.get("/api/tags").await.status(), 200);
    drop(response);
    connection.abort();
}

#[tokio::test]
async fn an_answer_behind_an_upload_that_was_already_on_its_way_is_not_lost() {
    // Nothing listens there any more.
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let world = Setup::new().upstream(dead).start().await;
    for _ in 0..8 {
        let upload = body::generated(16 << 20, body::Length::Fixed);
        let request = world.caller().request(Method::POST, "/api/create", upload);
        let reply = world.caller().connect(Protocol::Http1).await.try_send(request).await.expect("the answer");
        assert_eq!(reply.error(), (502, "upstream_unreachable"));
    }
}

#[tokio::test]
async fn head_of_what_the_server_itself_answers_has_a_length_and_no_body() {
    let world = Setup::new().without_desktop().start().await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for path in ["/healthz", "/readyz", "/api/tunnel/status", "/api/tags"] {
            let mut connection = world.caller().connect(protocol).await;
            let reply = connection.send(world.caller().request(Method::HEAD, path, body::empty())).await;
            assert_ne!(reply.header("content-length"), "0", "{path} over {protocol:?}");
            assert!(reply.bytes().await.is_empty(), "{path} over {protocol:?}");
            // The connection is none the worse for it.
            let reply = connection.send(world.caller().request(Method::GET, "/healthz", body::empty())).await;
            assert_eq!(reply.status(), StatusCode::OK, "after {path} over {protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_length_of_zero_that_was_announced_reaches_the_upstream() {
    let world = Setup::new().start().await;
    let mut request = world.caller().request(Method::POST, "/echo", body::empty());
    request.headers_mut().insert("content-length", HeaderValue::from_static("0"));
    assert_eq!(world.caller().send(request).await.status(), 200);
    let received = world.ollama().received();
    assert_eq!(received[0].header("content-length"), "0");
}

#[tokio::test]
async fn t45_refused_newcomers_do_not_push_a_live_desktop_out() {
    let world = Setup::new().start().await;
    let caller = world.caller();
    for reply in join_all((0..80).map(|_| handshake::knock(&caller, "desktop"))).await {
        assert_eq!(reply.error(), (409, "name_in_use"));
    }
    assert_eq!(world.client().connections(), 1);
    assert_eq!(world.caller().get("/api/tags").await.status(), 200);
}

#[tokio::test]
async fn t44_refused_newcomers_take_no_room_from_others() {
    let world = Setup::new().server(|config| config.limits.max_tunnels_per_user = 1).start().await;
    let caller = world.caller();
    // More than the server takes at once and in the meantime, if it counted them.
    let knocks = (0..4).map(|_| async {
        let mut connection = caller.connect(Protocol::Http1).await;
        for _ in 0..1000 {
            let reply = connection.send(handshake::request(&caller, "second")).await;
            assert_eq!(reply.error(), (409, "tunnel_limit"));
            reply.bytes().await;
        }
    });
    join_all(knocks).await;
    assert_eq!(handshake::knock(&world.caller_for("bob"), "desktop").await.status(), 101);
}

#[tokio::test]
async fn a_desktop_that_changes_its_user_leaves_the_old_one() {
    let world = Setup::new().without_desktop().start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pki::token(ALICE)).unwrap();
    let mut config = world.client_config(&pki::token(ALICE), "desktop", world.ollama().addr());
    config.token = tunnel::token::TokenSource::File(file.path().to_owned());
    let client = integration_tests::client::TestClient::start(config);
    client.connected(1).await;
    std::fs::write(file.path(), pki::token("bob")).unwrap();
    client.connected(2).await;
    let connected = async |user: &str| {
        world.caller_for(user).get("/api/tunnel/status").await.json().await["connected"].as_bool().unwrap()
    };
    eventually("alice's desktop is gone", async || (!connected(ALICE).await).then_some(())).await;
    assert!(connected("bob").await);
}

/// curl throws an HTTP/2 answer away if its stream is reset behind it; hyper's client does not, so it is asked itself.
#[tokio::test]
async fn curl_reads_a_refusal_of_an_upload_that_it_is_still_sending() {
    let world = Setup::new().without_desktop().start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(2 << 20).unwrap();
    for protocol in ["--http1.1", "--http2"] {
        let asked = tokio::process::Command::new("curl")
            .args([protocol, "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "20"])
            .args(["-H", "Authorization: Bearer nope", "--cacert"])
            .arg(world.pki().ca())
            .arg("--data-binary")
            .arg(format!("@{}", file.path().display()))
            .arg(format!("{}/api/chat", world.url()))
            .output();
        let said = with_deadline("curl", asked).await.expect("curl, which scripts/demo needs too");
        assert_eq!(String::from_utf8_lossy(&said.stdout), "401", "{protocol}: {said:?}");
    }
}
