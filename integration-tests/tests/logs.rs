//! What the two programs log: one line for each request, no secret, nothing that a stranger could forge.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use base64::prelude::{BASE64_STANDARD, Engine};
use http::{HeaderValue, Method};
use integration_tests::{
    binaries::{Program, Signal, from_shell},
    body,
    caller::{Protocol, Reply},
    handshake::IdleDesktop,
    jwt::{claims, hmac, hs256, with},
    ollama::Ollama,
    pki::SECRET,
    workshop::{Workshop, run_command},
};
use serde_json::{Value, json};

/// Calls with `token` in every place where one may be, rightly or wrongly.
async fn everywhere(shop: &Workshop, addr: std::net::SocketAddr, token: &str) {
    let caller = shop.caller(addr);
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("x:{token}")));
    let bearer = format!("Bearer {token}");
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for (target, field, value) in [
            ("/api/version".to_owned(), "authorization", bearer.as_str()),
            ("/api/version".to_owned(), "authorization", &basic),
            ("/api/version".to_owned(), "x-api-key", token),
            ("/api/version".to_owned(), "cookie", token),
            ("/ws/tunnel".to_owned(), "authorization", &bearer),
            (format!("/t/{token}/api/version"), "referer", &format!("https://localhost/t/{token}/x")),
            (format!("/t/{token}/../x"), "x-y", "z"),
            (format!("/t/{token}"), "authorization", &bearer),
        ] {
            let mut request = caller.request(Method::GET, &target, body::empty());
            request.headers_mut().insert(field, HeaderValue::from_str(value).unwrap());
            let reply = caller.connect(protocol).await.send(request).await;
            let id = reply.header("x-request-id").to_owned();
            assert!(!id.is_empty(), "{target}");
            let head = format!("{:?}", reply.headers());
            let (text, _end) = reply_text(reply).await;
            assert!(!head.contains(token) && !text.contains(token), "the answer repeats the token: {head} {text}");
        }
        let twice = format!(
            "GET /x HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer}\r\nAuthorization: {basic}\r\nConnection: close\r\n\r\n"
        );
        assert!(!caller.raw(twice.as_bytes()).await.contains(token));
        let garbage = format!("GET /t/{token}/x HTTP/9.9\r\nAuthorization {bearer}\r\n\r\n");
        assert!(!caller.raw(garbage.as_bytes()).await.contains(token));
    }
}

async fn reply_text(mut reply: Reply) -> (String, bool) {
    let (bytes, end) = reply.rest().await;
    (String::from_utf8_lossy(&bytes).into_owned(), end.is_ok())
}

/// No line of either program holds a token, or the part of it that makes it one.
fn silent(programs: &[&Program], tokens: &[String]) {
    for line in programs.iter().flat_map(|program| program.errors().into_iter().chain(program.output())) {
        for token in tokens {
            let secret_part = token.rsplit('.').next().unwrap();
            let basic = BASE64_STANDARD.encode(format!("x:{token}"));
            for canary in [token.as_str(), secret_part, &basic[..basic.len() - 4]] {
                assert!(!line.contains(canary), "a token in a log: {line}");
            }
        }
        assert!(!line.contains("the secret of the integration tests"), "the secret in a log: {line}");
    }
}

#[tokio::test]
async fn t32_t33_no_token_in_any_log() {
    let shop = Workshop::new().await;
    let upstream = Ollama::start();
    for (level, format) in [("debug", "text"), ("debug", "json"), ("trace", "text")] {
        let log = ["--log-level", level, "--log-format", format];
        let (mut server, addr) = shop.serve(&log).await;
        let mut client = shop.connect(addr, upstream.addr(), &log).await;
        let url = format!("https://localhost:{}", addr.port());
        let in_path = shop.token(&["--user", "alice", "--url", "--server", &url]).await;
        let mut tokens = vec![
            std::fs::read_to_string(shop.path("desktop.token")).unwrap(),
            in_path.rsplit('/').next().unwrap().to_owned(),
            hs256(&claims("alice")),
            hs256(&with(claims("alice"), &json!({"exp": 1_700_000_000}))),
            hmac(b"a canary's own secret, long enough to be one", &claims("alice")),
        ];
        for token in &tokens {
            everywhere(&shop, addr, token).await;
        }
        tokens.push("canary.that.is-no-token-at-all-but-was-meant-for-one".to_owned());
        everywhere(&shop, addr, tokens.last().unwrap()).await;
        let mut last = shop.caller(addr).request(Method::GET, "/the-last-one", body::empty());
        last.headers_mut().insert("x-api-key", HeaderValue::from_str(&tokens[2]).unwrap());
        assert_eq!(shop.caller(addr).send(last).await.status(), 404);
        server.logs(&["/the-last-one"]).await;
        client.signal(Signal::Terminate);
        client.wait().await;
        server.signal(Signal::Terminate);
        server.wait().await;
        let redacted = |line: &&String| line.contains("/t/") && line.contains("/api/version");
        assert!(server.errors().iter().filter(redacted).count() >= tokens.len(), "no line for capability URLs");
        silent(&[&server, &client], &tokens);
    }
}

#[tokio::test]
async fn one_line_for_each_request() {
    let shop = Workshop::new().await;
    let upstream = Ollama::start();
    let (mut server, addr) = shop.serve(&["--log-format", "json"]).await;
    let _client = shop.connect(addr, upstream.addr(), &[]).await;
    let caller = shop.caller(addr).with_token(&hs256(&claims("alice")));
    let good = caller.get("/bytes?n=12345").await;
    let good_id = good.header("x-request-id").to_owned();
    assert_eq!(good.bytes().await.len(), 12345);
    let bad = caller.anonymous().get("/api/tags").await;
    let bad_id = bad.header("x-request-id").to_owned();
    for (id, parts) in [
        (&good_id, ["\"GET\"", "/bytes", "200", "12345", "alice", "complete"]),
        (&bad_id, ["\"GET\"", "/api/tags", "401", "", "", "token_missing"]),
    ] {
        let line = server.logs(&[id]).await;
        let fields: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}"));
        assert!(fields.is_object());
        for part in parts {
            assert!(line.contains(part), "{part:?} is not in {line}");
        }
    }
    server.signal(Signal::Terminate);
    server.wait().await;
    for id in [&good_id, &bad_id] {
        assert_eq!(server.errors().iter().filter(|line| line.contains(id.as_str())).count(), 1);
    }
    for line in server.errors() {
        serde_json::from_str::<Value>(&line).unwrap_or_else(|error| panic!("{error} in {line}"));
    }
}

#[tokio::test]
async fn a_model_s_answer_is_one_line_with_its_figures_and_its_trace() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let shop = Workshop::new().await;
    let upstream = Ollama::start();
    let (mut server, addr) = shop.serve(&["--log-format", "json"]).await;
    let _client = shop.connect(addr, upstream.addr(), &[]).await;
    let caller = shop.caller(addr).with_token(&hs256(&claims("alice")));
    let asked = r#"{"model":"llama3.2:3b"}"#;
    let mut request = caller.request(Method::POST, "/api/chat?x=1", body::full(asked));
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    request.headers_mut().insert("traceparent", HeaderValue::from_str(&parent).unwrap());
    request.headers_mut().insert("tracestate", HeaderValue::from_static("congo=t61rcWkgMzE"));
    let reply = caller.send(request).await;
    let id = reply.header("x-request-id").to_owned();
    let length = reply.bytes().await.len();
    let line: Value = serde_json::from_str(&server.logs(&[&id]).await).unwrap();
    for (field, expected) in [
        ("trace", json!(TRACE)),
        ("user", json!("alice")),
        ("path", json!("/api/chat?…")),
        ("bytes_up", json!(asked.len())),
        ("bytes", json!(length)),
        ("model", json!("llama3.2:3b")),
        ("tokens_in", json!(11)),
        ("tokens_out", json!(5)),
        ("tokens_per_second", json!(100.0)),
        ("load_ms", json!(7)),
        ("outcome", json!("complete")),
    ] {
        assert_eq!(line[field], expected, "{field} in {line}");
    }
    assert!(line["first_token_ms"].is_u64() && line["tunnel"].is_string(), "{line}");
    let received = upstream.received_for("/api/chat").await;
    assert_eq!((received.header("traceparent"), received.header("tracestate")), (&*parent, "congo=t61rcWkgMzE"));
    // What is malformed does not cross, and stands in no log.
    let mut request = caller.request(Method::GET, "/api/tags", body::empty());
    request.headers_mut().insert("traceparent", HeaderValue::from_static("00-forged-trace-01"));
    request.headers_mut().insert("tracestate", HeaderValue::from_static("congo=t61rcWkgMzE"));
    let reply = caller.send(request).await;
    let line: Value = serde_json::from_str(&server.logs(&[reply.header("x-request-id")]).await).unwrap();
    assert_eq!((&line["trace"], &line["model"], &line["bytes_up"]), (&Value::Null, &Value::Null, &Value::Null));
    let received = upstream.received_for("/api/tags").await;
    assert_eq!((received.header("traceparent"), received.header("tracestate")), ("", ""));
}

#[tokio::test]
async fn t35_what_a_user_writes_starts_no_line() {
    let shop = Workshop::new().await;
    let (mut server, addr) = shop.serve(&[]).await;
    let evil = "eve\n2026-01-01T00:00:00.000000Z  INFO forged: line\u{1b}[31m\r\u{7f}\u{9b}";
    let caller = shop.caller(addr).with_token(&hs256(&claims(evil)));
    let reply = caller.get("/x").await;
    let id = reply.header("x-request-id").to_owned();
    server.logs(&[&id]).await;
    let desktop = IdleDesktop::connect(&caller, "desktop", &uuid::Uuid::now_v7().to_string()).await;
    desktop.close(4999, "bye\nforged: another line\u{1b}[0m").await;
    server.logs(&["desktop disconnected"]).await;
    for line in server.errors() {
        assert!(!line.starts_with("2026-01-01") && !line.starts_with("forged"), "{line}");
        assert!(!line.chars().any(|c| c.is_control() && c != '\t'), "{line:?}");
    }
}

/// Gives stderr the look of a stream to the journal.
#[cfg(target_os = "linux")]
const JOURNAL: &str = r#"export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/$$/fd/2); exec "$0" "$@""#;

/// Starts a server with this script, asks it something that it refuses, and gives its log.
#[cfg(target_os = "linux")]
async fn log_of(shop: &Workshop, script: &str, format: &str) -> Vec<String> {
    let mut command = from_shell(script, "tunneld");
    command.arg("serve").args(shop.server_args()).args(["--log-level", "debug", "--log-format", format]);
    let mut server = Program::start(&mut command);
    let addr = server.listening().await;
    let caller = shop.caller(addr);
    let request = caller.request(Method::GET, "/x", body::empty());
    caller.connect(Protocol::Http2).await.send(request).await;
    server.logs(&["token_missing"]).await;
    std::fs::write(shop.path("secret"), "short").unwrap();
    server.signal(Signal::Hangup);
    server.logs(&["kept what was in force"]).await;
    std::fs::write(shop.path("secret"), format!("{SECRET}\n")).unwrap();
    server.signal(Signal::Terminate);
    server.wait().await;
    server.errors()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_journal_gets_priorities_and_keeps_the_time_itself() {
    let shop = Workshop::new().await;
    for (format, is_text) in [("text", true), ("json", false)] {
        let lines = log_of(&shop, JOURNAL, format).await;
        let levels = [("DEBUG", "<7>"), ("INFO", "<6>"), ("WARN", "<4>")];
        for line in &lines {
            let (_, mark) = levels.iter().find(|(level, _)| line.contains(level)).unwrap_or_else(|| panic!("{line}"));
            let rest = line.strip_prefix(mark).unwrap_or_else(|| panic!("no {mark} before {line}"));
            if is_text {
                assert!(rest.trim_start().starts_with(char::is_alphabetic), "a time: {line}");
            } else {
                assert!(serde_json::from_str::<Value>(rest).unwrap()["timestamp"].is_string(), "{line}");
            }
        }
        for (level, _) in levels {
            assert!(lines.iter().any(|line| line.contains(level)), "nothing at {level}: {lines:?}");
        }
    }
    let mut wrong = from_shell(JOURNAL, "tunnel");
    let said = run_command(wrong.args(["connect", "--to", "nonsense:"])).await;
    assert!(said.errors[0].starts_with("<3>error: "), "{said:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_stream_that_is_not_the_journal_s_has_the_time_and_no_priority() {
    let shop = Workshop::new().await;
    // Inherited from a service whose log goes elsewhere now.
    let elsewhere = r#"export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/$$/fd/1); exec "$0" "$@""#;
    for line in log_of(&shop, elsewhere, "text").await {
        assert!(line.starts_with("20"), "{line}");
    }
}
