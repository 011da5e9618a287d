//! `deploy/nginx.conf` in a real nginx: it holds nothing back, cuts nothing short and hides nobody.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use http::Method;
use integration_tests::{
    binaries::{Program, Signal},
    body::{self, Length},
    caller::{Caller, Protocol},
    eventually::eventually,
    jwt::{claims, hs256},
    nginx,
    ollama::Ollama,
    pattern::Check,
    pki::HOST,
    workshop::Workshop,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// nginx gives up a silent upstream after 60 s, unless told otherwise.
const LONGER_THAN_USUAL: Duration = Duration::from_secs(65);

/// A desktop that came through nginx, and callers who do.
struct Front {
    shop: Workshop,
    ollama: Ollama,
    addr: SocketAddr,
    server: Program,
    client: Program,
    nginx: Program,
}

impl Front {
    async fn start() -> Self {
        let shop = Workshop::new().await;
        let (port, secret, ollama) = (nginx::free_port(), shop.arg("secret"), Ollama::start());
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let url = format!("https://{HOST}:{port}");
        let mut server = Program::tunneld([
            "serve",
            "--plain-http",
            "--listen",
            "127.0.0.1:0",
            "--trusted-proxy",
            "127.0.0.1",
            "--public-url",
            &url,
            "--jwt-secret-file",
            &secret,
            "--stream-deadline",
            "10m",
            "--stall-timeout",
            "10m",
        ]);
        let nginx = nginx::start(&shop, port, server.listening().await, "").await;
        let client = shop.connect(addr, ollama.addr(), &[]).await;
        Self { shop, ollama, addr, server, client, nginx }
    }

    fn caller(&self) -> Caller {
        self.shop.caller(self.addr).with_token(&hs256(&claims("alice")))
    }
}

#[tokio::test]
#[ignore = "needs nginx"]
async fn a_desktop_that_comes_without_tls_is_told() {
    let front = Front::start().await;
    let (token, server) = (front.shop.file("key", &hs256(&claims("bob"))), format!("http://{}", front.addr));
    let mut client = Program::tunnel(["connect", "--token-file", &token, "--to", "1", "--server", &server]);
    client.logs(&["does not answer in plain HTTP; if it speaks TLS, write https://"]).await;
}

#[tokio::test]
#[ignore = "needs nginx"]
async fn each_token_arrives_before_the_next_is_made() {
    let front = Front::start().await;
    let mut played = front.ollama.play("/api/chat");
    for protocol in PROTOCOLS {
        let caller = front.caller();
        let mut connection = caller.connect(protocol).await;
        let request = caller.request(Method::POST, "/api/chat", body::empty());
        let record = |number: usize| format!("{{\"n\":{number}}}\n");
        // nginx sends the head of an HTTP/2 response with the first bytes of its body, as Ollama does anyway.
        let (mut reply, mut exchange) = tokio::join!(connection.send(request), async {
            let mut exchange = played.start_ok("application/x-ndjson").await;
            exchange.send(record(0)).await.unwrap();
            exchange
        });
        reply.expect(record(0)).await;
        for number in 1..50 {
            exchange.send(record(number)).await.unwrap();
            reply.expect(record(number)).await; // and only then the next one
        }
        exchange.end();
        assert!(reply.rest().await.1.is_ok());
    }
}

#[tokio::test]
#[ignore = "needs nginx"]
async fn an_upload_goes_on_while_it_comes_and_may_be_large() {
    let front = Front::start().await;
    let mut played = front.ollama.play("/api/create");
    for protocol in PROTOCOLS {
        let (mut pieces, body) = body::stepwise();
        let mut connection = front.caller().connect(protocol).await;
        let request = front.caller().request(Method::POST, "/api/create", body);
        let call = tokio::spawn(async move { connection.send(request).await });
        pieces.send("half").await.unwrap();
        let mut exchange = played.next().await;
        assert_eq!(exchange.read().await.unwrap().unwrap(), "half", "{protocol:?}");
        drop(pieces);
        exchange.read_all().await.unwrap();
        exchange.start_ok("application/json");
        exchange.end();
        assert_eq!(call.await.unwrap().status(), 200);
    }
    let large = 64 << 20; // nginx allows 1 MiB, unless told otherwise
    let caller = front.caller();
    let call = tokio::spawn(async move { caller.post("/api/create", body::generated(large, Length::Fixed)).await });
    let mut exchange = played.next().await;
    let mut check = Check::default();
    while let Some(bytes) = exchange.read().await {
        check.push(&bytes.unwrap());
    }
    assert_eq!((check.length(), check.damaged_at()), (large, None));
    exchange.start_ok("application/json");
    exchange.end();
    assert_eq!(call.await.unwrap().status(), 200);
}

#[tokio::test]
#[ignore = "needs nginx, and more than a minute"]
async fn f17_silence_longer_than_nginx_is_used_to_cuts_neither_tunnel_nor_stream() {
    let front = Front::start().await;
    let mut played = front.ollama.play("/api/chat");
    let caller = front.caller();
    let (mut reply, mut exchange) =
        tokio::join!(caller.post("/api/chat", body::empty()), played.start_ok("application/x-ndjson"));
    let mut loading = caller.socket(Protocol::Http1).await; // a reply would be waited for no longer than usual
    let token = hs256(&claims("alice"));
    let head = format!(
        "POST /api/chat HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n\r\n"
    );
    loading.write_all(head.as_bytes()).await.unwrap();
    let mut late = played.next().await;
    sleep(LONGER_THAN_USUAL).await; // the point: nothing happens meanwhile
    exchange.send("{\"done\":true}\n").await.unwrap();
    reply.expect("{\"done\":true}\n").await;
    late.start_ok("application/json");
    late.end();
    let mut status = [0; 12];
    loading.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200", "a model may load for longer than a minute");
    let online = front.client.errors().iter().filter(|line| line.contains("online")).count();
    assert_eq!(online, 1, "the tunnel was cut");
}

#[tokio::test]
#[ignore = "needs nginx"]
async fn t33_t65_the_log_has_the_callers_own_address_and_nginx_has_no_token() {
    let mut front = Front::start().await;
    let (server, resolve) =
        (format!("https://{HOST}:{}", front.addr.port()), format!("{HOST}:{}:127.0.0.1", front.addr.port()));
    let url = front.shop.token(&["--user", "alice", "--url", "--server", &server]).await;
    let path = &format!("{url}/api/tags")[server.len()..];
    let ca = front.shop.arg("ca.pem");
    let curl = Command::new("curl")
        .args(["-sS", "-f", "--noproxy", "*", "--cacert", &ca, "--interface", "127.0.0.2", "--resolve", &resolve])
        .args(["-H", "X-Forwarded-For: 203.0.113.9", &format!("{url}/api/tags")])
        .output()
        .unwrap();
    assert!(curl.status.success(), "{curl:?}");
    // 127.0.0.2 is no trusted proxy: what it says of others is not believed.
    front.server.logs(&["access", "client=127.0.0.2", "/t/[redacted]/api/tags"]).await;
    assert_eq!(front.caller().get("/healthz").await.status(), 200);
    let log = || std::fs::read_to_string(front.shop.path("nginx-access.log")).unwrap();
    let log =
        eventually("the later request in nginx's log", async || Some(log()).filter(|log| log.contains("/healthz")));
    assert!(!log.await.contains("/t/"));
    // nginx says which request it could not pass on.
    front.server.signal(Signal::Kill);
    front.server.wait().await;
    assert_eq!(front.caller().get("/api/tags").await.status(), 502);
    assert_eq!(front.shop.caller(front.addr).get(path).await.status(), 502);
    assert_eq!(front.caller().get("/api/version").await.status(), 502);
    front.nginx.logs(&["connect() failed", "GET /api/version"]).await;
    let token = path.trim_start_matches("/t/").trim_end_matches("/api/tags");
    assert!(front.nginx.errors().iter().all(|line| !line.contains(token)), "{:?}", front.nginx.errors());
}
