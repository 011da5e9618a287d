//! The two programs as people run them: their commands, their signals, their warnings.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use http::Method;
use integration_tests::{
    binaries::{Program, Signal, command},
    body,
    eventually::eventually,
    jwt::{Issuer, claims, hs256},
    ollama::Ollama,
    workshop::{Workshop, run, run_command},
};
use serde_json::{Value, json};

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

#[tokio::test]
async fn a_health_check_needs_no_other_program() {
    let shop = Workshop::new().await;
    let mut args = shop.server_args();
    let check = async |args: &[String]| run("tunneld", [&["check".into(), "--running".into()], args].concat()).await;
    assert!(check(&args).await.error(64).contains("--admin-listen"));
    args.splice(0..6, ["--listen", "127.0.0.1:0", "--plain-http"].map(str::to_owned));
    let mut server = Program::tunneld([&["serve".to_owned()], &args[..]].concat());
    args[1] = server.listening().await.to_string();
    assert!(check(&args).await.success()[0].contains("ready"));
    server.signal(Signal::Kill);
    server.wait().await;
    assert!(check(&args).await.error(1).contains(&args[1]));
}

#[tokio::test]
async fn a_killed_server_is_found_again() {
    let shop = Workshop::new().await;
    let upstream = Ollama::start();
    let (mut server, addr) = shop.serve(&[]).await;
    let _client = shop.connect(addr, upstream.addr(), &[]).await;
    server.signal(Signal::Kill);
    server.wait().await;
    let (_again, listening) = shop.serve_on(addr, &[]).await;
    assert_eq!(listening, addr);
    let caller = shop.caller(addr).with_token(&hs256(&claims("alice")));
    eventually("the desktop is back", async || (caller.get("/api/version").await.status() == 200).then_some(())).await;
}
