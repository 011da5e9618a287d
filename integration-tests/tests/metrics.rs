//! What Prometheus reads on the admin listener, and what models say of their answers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use http::StatusCode;
use integration_tests::{
    admin::{Administered, TOKEN},
    binaries::command,
    body,
    caller::Caller,
    eventually::eventually,
    ollama::Ollama,
    setup::{ALICE, Setup},
    workshop::Workshop,
};
use serde_json::json;
use tokio::task::spawn_blocking;

/// The value of a series, as Prometheus would find it.
fn value(metrics: &str, series: &str) -> Option<f64> {
    let line = metrics.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
    Some(line[series.len()..].trim().parse().unwrap())
}

async fn scrape(caller: &Caller) -> String {
    let reply = caller.anonymous().get("/metrics").await;
    assert_eq!(reply.status(), StatusCode::OK);
    assert!(reply.header("content-type").starts_with("text/plain; version=0.0.4"), "{:?}", reply.headers());
    reply.text().await
}

/// Waits until the series has this value: the end of a request is counted when its body is dropped, a moment after the
/// caller has the last byte.
async fn comes_to(caller: &Caller, series: &str, expected: f64) {
    let what = format!("{series} {expected}");
    let same = |metrics: String| (value(&metrics, series) == Some(expected)).then_some(());
    eventually(&what, async || same(scrape(caller).await)).await;
}

const UP: &str = "tunneld_relayed_bytes_total{direction=\"up\"}";
const DOWN: &str = "tunneld_relayed_bytes_total{direction=\"down\"}";

#[tokio::test]
async fn requests_are_counted_by_endpoint_status_and_outcome() {
    let this = Administered::start(Setup::new()).await;
    let (caller, admin) = (this.world.caller(), this.admin());
    assert_eq!(caller.get("/bytes?n=70000").await.bytes().await.len(), 70_000);
    assert_eq!(caller.post("/sink", body::full("x".repeat(5000))).await.status(), 200);
    assert_eq!(caller.get("/api/tags").await.status(), 200);
    assert_eq!(caller.get("/status/404").await.status(), 404);
    assert_eq!(caller.anonymous().get("/api/chat").await.status(), 401);
    assert_eq!(this.world.caller_for("nobody").get("/a/secret/path").await.status(), 503);
    let requests = |endpoint: &str, status: &str, outcome: &str| {
        format!("tunneld_requests_total{{endpoint=\"{endpoint}\",outcome=\"{outcome}\",status=\"{status}\"}}")
    };
    for (series, expected) in [
        (requests("other", "2xx", "complete"), 2.0),
        (requests("/api/tags", "2xx", "complete"), 1.0),
        (requests("other", "4xx", "complete"), 1.0),
        (requests("/api/chat", "4xx", "token_missing"), 1.0),
        (requests("other", "5xx", "tunnel_offline"), 1.0),
        (requests("/ws/tunnel", "1xx", "complete"), 1.0),
        ("tunneld_time_to_first_byte_seconds_count{endpoint=\"other\"}".into(), 3.0),
        ("tunneld_request_duration_seconds_count{endpoint=\"/api/tags\"}".into(), 1.0),
        (UP.into(), 5000.0),
        ("tunneld_streams".into(), 0.0),
    ] {
        comes_to(&admin, &series, expected).await;
    }
    let metrics = scrape(&admin).await;
    assert!(value(&metrics, DOWN).unwrap() > 70_000.0);
    assert!(value(&metrics, "process_start_time_seconds").unwrap() > 1.7e9);
    let build = format!("tunneld_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(value(&metrics, &build), Some(1.0));
    assert!(value(&metrics, "tunneld_certificate_expiry_timestamp_seconds").unwrap() > 1.7e9);
    // No user, no path, no address, no secret in any label.
    for stranger in [ALICE, "nobody", "secret", "127.0.0.1", TOKEN, "/sink"] {
        assert!(!metrics.contains(stranger), "{stranger} in {metrics}");
    }
}

#[tokio::test]
async fn tunnels_are_counted_as_they_come_and_go() {
    let mut this = Administered::start(Setup::new()).await;
    let admin = this.admin();
    comes_to(&admin, "tunneld_tunnels{state=\"active\"}", 1.0).await;
    let measured =
        async || value(&scrape(&admin).await, "tunneld_tunnel_rtt_seconds{stat=\"max\"}").filter(|rtt| *rtt > 0.0);
    eventually("a round trip", measured).await;
    comes_to(&admin, "tunneld_tunnels_connected_total{kind=\"new\"}", 1.0).await;
    // Kicked, the same process comes back.
    let tunnels = admin.get("/tunnels").await.json().await;
    let kick = format!("/tunnels/{}/kick", tunnels["tunnels"][0]["id"].as_str().unwrap());
    assert_eq!(admin.post(&kick, body::empty()).await.status(), 200);
    this.world.client().connected(2).await;
    comes_to(&admin, "tunneld_tunnels_connected_total{kind=\"reconnect\"}", 1.0).await;
    comes_to(&admin, "tunneld_tunnels_disconnected_total{reason=\"going_away\"}", 1.0).await;
    drop(this.world.take_client());
    comes_to(&admin, "tunneld_tunnels{state=\"active\"}", 0.0).await;
    comes_to(&admin, "tunneld_tunnels_disconnected_total{reason=\"normal\"}", 1.0).await;
    assert_eq!(value(&scrape(&admin).await, "tunneld_tunnel_rtt_seconds{stat=\"max\"}"), None);
    // Who is not let in, and who says nothing that can be understood.
    assert_eq!(this.world.caller().anonymous().get("/ws/tunnel").await.status(), 401);
    comes_to(&admin, "tunneld_rejected_handshakes_total{reason=\"token_missing\"}", 1.0).await;
    let mut plain = std::net::TcpStream::connect(this.world.server().addr()).unwrap();
    plain.write_all(b"neither TLS nor HTTP").unwrap();
    comes_to(&admin, "tunneld_rejected_handshakes_total{reason=\"tls\"}", 1.0).await;
    // A file that is read again, well and badly.
    this.world.server().reload();
    comes_to(&admin, "tunneld_reloads_total{result=\"unchanged\",setting=\"admin-token-file\"}", 1.0).await;
    std::fs::write(this.file("admin"), "short").unwrap();
    this.world.server().reload();
    let failed = async || {
        let failed =
            value(&scrape(&admin).await, "tunneld_reloads_total{result=\"failed\",setting=\"admin-token-file\"}");
        failed.filter(|times| *times >= 1.0)
    };
    eventually("a failed reload", failed).await;
}

fn chat(model: &str, stream: bool) -> body::Body {
    body::full(json!({ "model": model, "stream": stream }).to_string())
}

#[tokio::test]
async fn models_are_counted_by_what_they_say_of_themselves() {
    let this = Administered::start(Setup::new()).await;
    let (caller, admin) = (this.world.caller(), this.admin());
    for (path, model, stream) in [
        ("/api/chat", "llama3.2:3b", true),
        ("/api/generate", "llama3.2:3b", false),
        ("/v1/chat/completions", "gpt", true),
        ("/v1/messages", "claude", true),
        ("/api/chat", "<b>no name</b>", true),
    ] {
        let reply = caller.post(path, chat(model, stream)).await;
        assert_eq!(reply.status(), 200, "{path}");
        reply.bytes().await;
    }
    let tokens = |model: &str, direction: &str| {
        format!("tunneld_model_tokens_total{{direction=\"{direction}\",model=\"{model}\"}}")
    };
    for (series, expected) in [
        (tokens("llama3.2:3b", "in"), 22.0),
        (tokens("llama3.2:3b", "out"), 10.0),
        (tokens("gpt", "out"), 5.0),
        (tokens("claude", "in"), 1.0),
        (tokens("claude", "out"), 5.0),
        (tokens("other", "out"), 5.0),
        ("tunneld_model_first_token_seconds_count{model=\"llama3.2:3b\"}".into(), 1.0),
        ("tunneld_model_load_seconds_count{model=\"llama3.2:3b\"}".into(), 2.0),
        ("tunneld_model_tokens_per_second_sum{model=\"llama3.2:3b\"}".into(), 200.0),
    ] {
        comes_to(&admin, &series, expected).await;
    }
    assert!(!scrape(&admin).await.contains("<b>"));
}

#[tokio::test]
async fn figures_of_models_can_be_switched_off() {
    let this = Administered::start(Setup::new().server(|config| config.model_figures = false)).await;
    this.world.caller().post("/api/chat", chat("llama3.2:3b", true)).await.bytes().await;
    let admin = this.admin();
    comes_to(&admin, "tunneld_requests_total{endpoint=\"/api/chat\",outcome=\"complete\",status=\"2xx\"}", 1.0).await;
    assert!(!scrape(&admin).await.contains("llama"));
}

/// By Prometheus' own tool, where it is installed (on Debian: the package `prometheus`).
#[tokio::test]
async fn promtool_finds_nothing_to_say() {
    let this = Administered::start(Setup::new()).await;
    this.world.caller().post("/api/chat", chat("m", true)).await.bytes().await;
    let admin = this.admin();
    comes_to(&admin, "tunneld_model_tokens_total{direction=\"out\",model=\"m\"}", 5.0).await;
    let metrics = scrape(&admin).await;
    let checked = spawn_blocking(move || {
        let promtool =
            Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut promtool = promtool.ok()?;
        promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
        Some(promtool.wait_with_output().unwrap())
    });
    match checked.await.unwrap() {
        Some(said) => {
            assert!(said.status.success() && said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
        }
        None => eprintln!("promtool is not installed: nothing was checked"),
    }
}

#[tokio::test]
async fn f13_a_log_that_cannot_be_written_harms_nobody_and_is_counted() {
    let shop = Workshop::new().await;
    let upstream = Ollama::start();
    let admin_token = shop.file("admin", TOKEN);
    let admin = ["--admin-listen", "127.0.0.1:0", "--admin-token-file", &admin_token];
    let mut args = vec!["serve".to_owned()];
    args.extend(shop.server_args().into_iter().chain(admin.map(str::to_owned)));
    let mut server = command("tunneld").args(args).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let log = server.stderr.take().unwrap();
    let _server = Killed(server);
    // Read until both addresses have been said; then its reader is gone, and each write fails as on a full disk.
    let mut log = BufReader::new(log);
    let (public, admin) = spawn_blocking(move || {
        let (mut public, mut admin) = (None, None);
        let mut line = String::new();
        while public.is_none() || admin.is_none() {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the server has ended");
            let addr = || line.split("addr=").nth(1)?.split_whitespace().next()?.parse().ok();
            if line.contains("admin interface") {
                admin = addr();
            } else if line.contains("listening") {
                public = addr();
            }
        }
        (public.unwrap(), admin.unwrap())
    })
    .await
    .unwrap();
    let _client = shop.connect(public, upstream.addr(), &[]).await;
    let caller = shop.caller(public).with_token(&shop.token(&["--user", "alice"]).await);
    let admin = Caller::new("localhost", admin, None);
    let lost = async || {
        assert_eq!(caller.get("/api/version").await.status(), 200);
        value(&scrape(&admin).await, "tunneld_log_lines_lost_total").filter(|lines| *lines > 0.0)
    };
    eventually("lost log lines", lost).await;
    assert_eq!(caller.get("/api/version").await.status(), 200);
}

/// A program that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _has_ended = self.0.kill();
        let _status = self.0.wait();
    }
}
