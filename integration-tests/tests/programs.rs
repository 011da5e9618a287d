//! The two programs as people meet them: their commands, their mistakes, their exit codes, their logs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use http::{HeaderValue, Method};
use integration_tests::{
    binaries::{Program, Signal, command},
    body,
    caller::Protocol,
    eventually::eventually,
    handshake::IdleDesktop,
    jwt::{Issuer, claims, hmac, hs256, with},
    ollama::Ollama,
    workshop::{Workshop, run, run_command},
};
use serde_json::{Value, json};

/// Replaces the value of a flag, or adds both.
fn set(args: &[String], flag: &str, value: &str) -> Vec<String> {
    let mut args = args.to_vec();
    match args.iter().position(|arg| arg == flag) {
        Some(at) => value.clone_into(&mut args[at + 1]),
        None => args.extend([flag.to_owned(), value.to_owned()]),
    }
    args
}

fn without(args: &[String], flag: &str) -> Vec<String> {
    let mut args = args.to_vec();
    if let Some(at) = args.iter().position(|arg| arg == flag) {
        args.drain(at..at + 2);
    }
    args
}

#[tokio::test]
async fn every_mistake_in_tunneld_is_one_line_and_64() {
    let shop = Workshop::new().await;
    let good = shop.server_args();
    let garbage = shop.file("garbage.pem", "this is no certificate\n");
    let damaged = shop.file("damaged.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let short = shop.file("short", "too short\n");
    let empty = shop.file("empty", "");
    let (cert, key) = (shop.arg("server.pem"), shop.arg("server-key.pem"));
    let unknown_key = shop.file("unknown.toml", "listn = '127.0.0.1:0'\n");
    let no_toml = shop.file("no.toml", "listen = \n");
    let other = shop.path("other");
    assert_eq!(run("tunneld", ["certs", "--out", other.to_str().unwrap()]).await.success().len(), 3);
    let (other_key, missing) = (shop.arg("other/server-key.pem"), shop.arg("no/such/file"));
    let swapped = set(&set(&good, "--tls-cert", &key), "--tls-key", &cert);
    let cases: Vec<(Vec<String>, &str)> = vec![
        (set(&good, "--tls-crt", "x"), "--tls-crt"),
        (set(&good, "--listen", "nowhere"), "--listen"),
        (set(&good, "--listen", "127.0.0.1:99999"), "--listen"),
        (set(&good, "--tls-cert", &missing), &missing),
        (set(&good, "--tls-cert", &garbage), &garbage),
        (set(&good, "--tls-cert", &damaged), &damaged),
        (set(&good, "--tls-key", &missing), &missing),
        (set(&good, "--tls-key", &garbage), &garbage),
        (set(&good, "--tls-key", &other_key), &other_key),
        (swapped, "swapped"),
        (without(&good, "--tls-key"), "--tls-key"),
        (without(&without(&good, "--tls-key"), "--tls-cert"), "--plain-http"),
        (without(&good, "--jwt-secret-file"), "--jwt-secret-file"),
        (set(&good, "--jwt-secret-file", &missing), &missing),
        (set(&good, "--jwt-secret-file", &short), &short),
        (set(&good, "--jwt-secret-file", &empty), &empty),
        (set(&good, "--jwt-public-key", &garbage), &garbage),
        (set(&good, "--jwt-public-key", &key), &key),
        (set(&good, "--stream-deadline", "5 parsecs"), "--stream-deadline"),
        (set(&set(&good, "--stream-deadline", "2m"), "--max-stream-deadline", "1m"), "--max-stream-deadline"),
        (set(&good, "--stall-timeout", "0s"), "--stall-timeout"),
        (set(&good, "--max-body", "large"), "--max-body"),
        (set(&good, "--max-streams-per-user", "many"), "--max-streams-per-user"),
        (set(&good, "--public-url", "ftp://example.com"), "--public-url"),
        (set(&good, "--trusted-proxy", "10.0.0.0/99"), "--trusted-proxy"),
        (set(&good, "--cors-origin", "*"), "--cors-origin"),
        (set(&good, "--cors-origin", "https://app.example.com/path"), "--cors-origin"),
        (set(&good, "--require-claim", "admin"), "--require-claim"),
        (set(&good, "--log-format", "xml"), "--log-format"),
        (set(&good, "--config", &missing), &missing),
        (set(&good, "--config", &unknown_key), "listn"),
        (set(&good, "--config", &no_toml), &no_toml),
    ];
    for name in ["serve", "check"] {
        for (args, expected) in &cases {
            let said = run("tunneld", [name].into_iter().chain(args.iter().map(String::as_str))).await;
            let line = said.error(64);
            assert!(line.contains(expected), "{expected:?} is not in {line:?} of {name} {args:?}");
            assert!(!line.contains("too short\\n") && !line.contains("panicked"), "{line}");
        }
    }
}

#[tokio::test]
async fn a_port_in_use_is_one_line_and_64() {
    let shop = Workshop::new().await;
    let (_server, addr) = shop.serve(&[]).await;
    let args = set(&shop.server_args(), "--listen", &addr.to_string());
    let said = run("tunneld", ["serve".to_owned()].into_iter().chain(args)).await;
    assert!(said.error(64).contains(&addr.to_string()), "{said:?}");
}

#[tokio::test]
async fn every_mistake_in_tunnel_is_one_line_and_64() {
    let shop = Workshop::new().await;
    let token = hs256(&with(claims("alice"), &json!({"tunnel_server": "https://localhost:1"})));
    let good = ["--token-file".to_owned(), shop.file("token", &token)];
    let garbage = shop.file("garbage", "nothing of use\n");
    let empty = shop.file("empty", "\n");
    let bare = shop.file("bare", &hs256(&claims("alice")));
    let missing = shop.arg("no/such/file");
    let unknown_key = shop.file("unknown.toml", "tokn = 'x'\n");
    let cases: Vec<(Vec<String>, &str)> = vec![
        (vec![], "--token-file"),
        (set(&good, "--token-file", &missing), &missing),
        (set(&good, "--token-file", &garbage), "--token-file"),
        (set(&good, "--token-file", &empty), "--token-file"),
        (set(&good, "--token-file", &bare), "--server"),
        (set(&good, "--token", "x"), "--token"),
        (set(&good, "--tokn", "x"), "--tokn"),
        (set(&good, "--server", "ftp://example.com"), "--server"),
        (set(&good, "--server", "https://user:word@example.com"), "--server"),
        (set(&good, "--server", "https://example.com/path"), "--server"),
        (set(&good, "--to", "https://127.0.0.1:1"), "--to"),
        (set(&good, "--to", "127.0.0.1:99999"), "--to"),
        (set(&good, "--name", "no name"), "--name"),
        (set(&good, "--allow", "everything"), "--allow"),
        (set(&good, "--ca", &missing), &missing),
        (set(&good, "--ca", &garbage), &garbage),
        (set(&good, "--log-format", "xml"), "--log-format"),
        (set(&good, "--config", &unknown_key), "tokn"),
    ];
    for (args, expected) in cases {
        let said = run("tunnel", ["connect"].into_iter().chain(args.iter().map(String::as_str))).await;
        let line = said.error(64);
        assert!(line.contains(expected), "{expected:?} is not in {line:?} of {args:?}");
        assert!(!line.contains(&token) && !line.contains("word@") && !line.contains("panicked"), "{line}");
    }
}

#[tokio::test]
async fn unknown_commands_are_mistakes_and_help_is_none() {
    for program in ["tunneld", "tunnel"] {
        assert!(run(program, ["sreve"]).await.error(64).contains("sreve"));
        assert_eq!(run(program, [""; 0]).await.code, Some(64));
        let help = run(program, ["--help"]).await;
        assert!(help.success().iter().any(|line| line.contains("Usage")) && help.errors.is_empty(), "{help:?}");
        let version = run(program, ["--version"]).await;
        assert!(version.success()[0].starts_with(program), "{version:?}");
    }
}

#[tokio::test]
async fn a_refusal_for_good_is_77() {
    let shop = Workshop::new().await;
    let upstream = Ollama::start();
    let (_server, addr) = shop.serve(&["--allow-user", "alice"]).await;
    let _desktop = shop.connect(addr, upstream.addr(), &[]).await;
    let (ca, to) = (shop.arg("ca.pem"), upstream.addr().to_string());
    let server = format!("https://localhost:{}", addr.port());
    let stranger = hmac(b"a secret that is long enough but not the right one", &claims("alice"));
    for (token, code) in [
        (hs256(&claims("alice")), "name_in_use"),
        (stranger, "token_invalid"),
        (hs256(&with(claims("alice"), &json!({"exp": 1_700_000_000}))), "token_expired"),
        (hs256(&with(claims("alice"), &json!({"scope": "tunnel:proxy"}))), "scope_denied"),
        (hs256(&claims("mallory")), "not_allowed"),
    ] {
        let file = shop.file("refused.token", &token);
        let args =
            ["connect", "--token-file", &file, "--ca", &ca, "--to", &to, "--name", "desktop", "--server", &server];
        let said = run("tunnel", args).await;
        assert_eq!(said.code, Some(77), "{said:?}");
        let errors: Vec<_> = said.errors.iter().filter(|line| line.starts_with("error: ")).collect();
        assert!(matches!(errors[..], [line] if line.contains(code)), "{code}: {said:?}");
        assert!(said.errors.last().unwrap().starts_with("error: "), "{said:?}");
    }
}

#[tokio::test]
async fn check_says_what_would_run() {
    let shop = Workshop::new().await;
    let idp = Issuer::new();
    let key = shop.file("idp.pem", &idp.public_pem());
    let config = shop.file("x.toml", "stall-timeout = '7s'\nstream-deadline = '8s'\nmax-body = '5MiB'\n");
    let args = [
        &["--config", &config, "--jwt-public-key", &key, "--jwt-issuer", "https://idp.example.com"],
        ["--allow-user", "zoe", "--cors-origin", "https://app.example.com", "--stream-deadline", "9s"].as_slice(),
    ];
    let mut check = command("tunneld");
    check.arg("check").args(shop.server_args()).args(args.concat());
    check.envs([("TUNNELD_STREAM_DEADLINE", "11s"), ("TUNNELD_STALL_TIMEOUT", "6s")]);
    let said = run_command(&mut check).await;
    let report = said.success().join("\n");
    // Flag before environment before file.
    for part in
        ["127.0.0.1:0", "HS256", "ES256", "https://idp.example.com", "zoe", "https://app.example.com", "9s", "6s"]
    {
        assert!(report.contains(part), "{part} is not in {report}");
    }
    assert!(report.contains("5.0 MiB") || report.contains("5 MiB") || report.contains("5MiB"), "{report}");
    assert!(!report.contains("11s") && !report.contains("7s"), "{report}");
    assert!(!report.contains("the secret of the integration tests"), "{report}");
    assert!(said.errors.is_empty(), "{said:?}");
}

/// The claims in a token, unverified.
fn claims_of(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap_or_else(|| panic!("no token: {token:?}"));
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[tokio::test]
async fn token_mints_what_it_is_told_to() {
    let shop = Workshop::new().await;
    let plain = claims_of(&shop.token(&["--user", "zoe"]).await);
    assert_eq!((&plain["sub"], &plain["iss"]), (&json!("zoe"), &json!("tunneld")));
    let scope = |claims: &Value| {
        let mut scope: Vec<_> = claims["scope"].as_str().unwrap().split(' ').map(str::to_owned).collect();
        scope.sort();
        scope
    };
    assert_eq!(scope(&plain), ["tunnel:connect", "tunnel:proxy"]);
    let life = |claims: &Value| claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!(life(&plain), 12 * 3600);
    let told = ["--user", "zoe", "--scope", "proxy", "--ttl", "90m", "--issuer", "idp", "--server", "https://h:1"];
    let told = claims_of(&shop.token(&told).await);
    assert_eq!((&told["iss"], &told["tunnel_server"]), (&json!("idp"), &json!("https://h:1")));
    assert_eq!((scope(&told), life(&told)), (vec!["tunnel:proxy".to_owned()], 90 * 60));
    assert!(plain["jti"].is_string() && plain["jti"] != told["jti"]);
    let url = shop.token(&["--user", "zoe", "--url", "--server", "https://h:1"]).await;
    let in_path = url.strip_prefix("https://h:1/t/").unwrap_or_else(|| panic!("{url}"));
    assert_eq!(scope(&claims_of(in_path)), ["tunnel:infer"]);
    let secret = shop.arg("secret");
    for (wrong, expected) in [
        (["--user", "zoe", "--ttl", "soon"].as_slice(), "--ttl"),
        (&["--user", "zoe", "--ttl", "0s"], "--ttl"),
        (&["--user", ""], "--user"),
        (&["--user", "zoe", "--scope", "everything"], "everything"),
        (&["--user", "zoe", "--url"], "--server"),
        (&["--user", "zoe", "--url", "--server", "https://h", "--scope", "connect"], "connect"),
        (&["--scope", "proxy"], "--user"),
    ] {
        let said = run("tunneld", [&["token", "--jwt-secret-file", &secret], wrong].concat()).await;
        assert!(said.error(64).contains(expected), "{wrong:?}: {said:?}");
    }
    assert!(run("tunneld", ["token", "--user", "zoe"]).await.error(64).contains("--jwt-secret-file"));
}

#[tokio::test]
async fn certs_never_overwrites_unasked() {
    let shop = Workshop::new().await;
    let read = |name: &str| std::fs::read_to_string(shop.path(name)).unwrap();
    let before = ["ca.pem", "server.pem", "server-key.pem"].map(read);
    let out = shop.arg("");
    assert!(run("tunneld", ["certs", "--out", &out]).await.error(64).contains("--force"));
    assert_eq!(["ca.pem", "server.pem", "server-key.pem"].map(read), before);
    assert!(run("tunneld", ["certs", "--out", &out, "--host", "not a host"]).await.error(64).contains("--host"));
    assert_eq!(run("tunneld", ["certs", "--out", &out, "--force"]).await.success().len(), 3);
    assert_ne!(read("ca.pem"), before[0]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(shop.path("server-key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "others may read the key: {mode:o}");
    }
}

#[tokio::test]
async fn one_token_is_enough() {
    let shop = Workshop::new().await;
    let upstream = Ollama::start();
    let (server, addr) = shop.serve(&[]).await;
    let client = shop.connect(addr, upstream.addr(), &[]).await;
    let url =
        shop.token(&["--user", "alice", "--url", "--server", &format!("https://localhost:{}", addr.port())]).await;
    let path = &url[url.find("/t/").unwrap()..];
    let caller = shop.caller(addr);
    let reply = caller.send(caller.request(Method::HEAD, path, body::empty())).await;
    assert_eq!(reply.status(), 200);
    assert_eq!(caller.get(&format!("{path}/api/tags")).await.status(), 200);
    assert_eq!(
        caller.send(caller.request(Method::DELETE, &format!("{path}/api/delete"), body::empty())).await.status(),
        403
    );
    assert_eq!(upstream.received().len(), 1);
    drop((server, client));
}

#[tokio::test]
async fn a_token_on_the_command_line_is_a_warning() {
    let shop = Workshop::new().await;
    let (_server, addr) = shop.serve(&[]).await;
    let upstream = Ollama::start();
    let token = shop.token(&["--user", "alice", "--server", &format!("https://localhost:{}", addr.port())]).await;
    let (ca, to) = (shop.arg("ca.pem"), upstream.addr().to_string());
    let file = shop.file("alice.token", &token);
    let with = |name: &str, args: &[&str], variables: &[(&str, &str)]| {
        let mut command = command("tunnel");
        command.args(["connect", "--ca", &ca, "--to", &to, "--name", name]).args(args).envs(variables.iter().copied());
        Program::start(&mut command)
    };
    let warned = |program: &Program| program.errors().iter().any(|line| line.contains("WARN") && line.contains("ps"));
    let mut flag = with("flag", &["--token", &token], &[]);
    let mut variable = with("variable", &[], &[("TUNNEL_TOKEN", &token)]);
    let mut from_file = with("file", &["--token-file", &file], &[]);
    for program in [&mut flag, &mut variable, &mut from_file] {
        program.logs(&["online"]).await;
    }
    assert_eq!([warned(&flag), warned(&variable), warned(&from_file)], [true, false, false]);
}

#[tokio::test]
async fn an_upstream_that_is_down_is_a_warning() {
    let shop = Workshop::new().await;
    let (_server, addr) = shop.serve(&[]).await;
    let nowhere = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let mut client = shop.connect(addr, nowhere, &[]).await;
    client.logs(&["WARN", &nowhere.to_string()]).await;
    let caller = shop.caller(addr).with_token(&hs256(&claims("alice")));
    assert_eq!(caller.get("/api/tags").await.error(), (502, "upstream_unreachable"));
}

#[tokio::test]
async fn both_stop_on_a_signal_with_0() {
    let shop = Workshop::new().await;
    let upstream = Ollama::start();
    for signal in [Signal::Terminate, Signal::Interrupt] {
        let (mut server, addr) = shop.serve(&[]).await;
        let mut client = shop.connect(addr, upstream.addr(), &[]).await;
        client.signal(signal);
        assert_eq!(client.wait().await.code(), Some(0), "{signal:?}");
        server.signal(signal);
        assert_eq!(server.wait().await.code(), Some(0), "{signal:?}");
    }
}

#[tokio::test]
async fn f04_a_signal_lets_streams_finish_and_a_second_one_does_not() {
    let shop = Workshop::new().await;
    let upstream = Ollama::start();
    let mut played = upstream.play("/api/chat");
    for second in [false, true] {
        let (mut server, addr) = shop.serve(&[]).await;
        let mut client = shop.connect(addr, upstream.addr(), &[]).await;
        let caller = shop.caller(addr).with_token(&hs256(&claims("alice")));
        let (mut reply, mut exchange) =
            tokio::join!(caller.post("/api/chat", body::empty()), played.start_ok("application/x-ndjson"));
        server.signal(Signal::Terminate);
        server.logs(&["stopping"]).await;
        client.signal(Signal::Interrupt);
        client.logs(&["stopping"]).await;
        exchange.send("{}\n").await.unwrap();
        reply.expect("{}\n").await;
        if second {
            server.signal(Signal::Terminate);
            client.signal(Signal::Interrupt);
            assert!(reply.rest().await.1.is_err());
        } else {
            exchange.end();
            assert!(reply.rest().await.1.is_ok());
            drop(reply);
        }
        let codes = [client.wait().await.code(), server.wait().await.code()];
        assert!(second || codes == [Some(0), Some(0)], "{codes:?}");
    }
}

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

async fn reply_text(mut reply: integration_tests::caller::Reply) -> (String, bool) {
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

#[tokio::test]
async fn a_killed_server_is_found_again() {
    let shop = Workshop::new().await;
    let upstream = Ollama::start();
    let (mut server, addr) = shop.serve(&[]).await;
    let _client = shop.connect(addr, upstream.addr(), &[]).await;
    server.signal(Signal::Kill);
    server.wait().await;
    let args = set(&shop.server_args(), "--listen", &addr.to_string());
    let mut again = Program::tunneld(["serve".to_owned()].into_iter().chain(args));
    assert_eq!(again.listening().await, addr);
    let caller = shop.caller(addr).with_token(&hs256(&claims("alice")));
    eventually("the desktop is back", async || (caller.get("/api/version").await.status() == 200).then_some(())).await;
}
