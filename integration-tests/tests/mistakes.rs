//! What people get wrong on a command line: one line that says what to do, and an exit code for scripts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use integration_tests::{
    binaries::Program,
    jwt::{claims, hmac, hs256, with},
    ollama::Ollama,
    raw::RawUpstream,
    workshop::{Workshop, run},
};
use serde_json::json;

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
    let named = |flag: &str, file: &str| format!("{flag}: {file} ");
    let [cert_missing, cert_garbage, cert_damaged] =
        [&missing, &garbage, &damaged].map(|file| named("--tls-cert", file));
    let [key_missing, key_garbage] = [&missing, &garbage].map(|file| named("--tls-key", file));
    let key_of_another = format!("--tls-key: the key in {other_key} ");
    let cases: Vec<(Vec<String>, &str)> = vec![
        (set(&good, "--tls-crt", "x"), "--tls-crt"),
        (set(&good, "--listen", "nowhere"), "--listen"),
        (set(&good, "--listen", "127.0.0.1:99999"), "--listen"),
        (set(&good, "--tls-cert", &missing), &cert_missing),
        (set(&good, "--tls-cert", &garbage), &cert_garbage),
        (set(&good, "--tls-cert", &damaged), &cert_damaged),
        (set(&good, "--tls-key", &missing), &key_missing),
        (set(&good, "--tls-key", &garbage), &key_garbage),
        (set(&good, "--tls-key", &other_key), &key_of_another),
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
async fn a_token_is_signed_with_the_servers_secret_or_not_at_all() {
    let shop = Workshop::new().await;
    let missing = shop.arg("missing");
    let said = run("tunneld", ["token", "--user", "bob", "--jwt-secret-file", &missing]).await;
    let line = said.error(64);
    assert!(line.contains(&missing) && line.contains("that the server has its secret from"), "{line}");
    assert!(!line.contains("openssl"), "a new secret signs nothing that the server takes: {line}");
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
    let [ca_missing, ca_garbage] = [&missing, &garbage].map(|file| format!("--ca: {file} "));
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
        (set(&good, "--ca", &missing), &ca_missing),
        (set(&good, "--ca", &garbage), &ca_garbage),
        (set(&good, "--log-format", "xml"), "--log-format"),
        (set(&good, "--config", &unknown_key), "tokn"),
        (vec!["desktop.token".into()], "write --token-file desktop.token"),
        (vec!["https://example.com".into()], "write --server https://example.com"),
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
async fn plain_http_where_tls_is_spoken_is_named_and_no_refusal() {
    let shop = Workshop::new().await;
    let (_server, addr) = shop.serve(&[]).await;
    let (token, server) = (shop.file("token", &hs256(&claims("alice"))), format!("http://{addr}"));
    let mut client = Program::tunnel(["connect", "--token-file", &token, "--to", "1", "--server", &server]);
    client.logs(&["does not answer in plain HTTP; if it speaks TLS, write https://"]).await;
    client.logs(&["connecting", "attempt=2"]).await;
}

#[tokio::test]
async fn a_400_that_says_nothing_of_tls_is_shown_as_it_is() {
    let shop = Workshop::new().await;
    let mut stranger = RawUpstream::start().await;
    let (token, server) = (shop.file("token", &hs256(&claims("alice"))), format!("http://{}", stranger.addr()));
    let answer = "HTTP/1.1 400 Bad Request\r\nContent-Length: 12\r\n\r\nwhat is that";
    let args = ["connect", "--token-file", &token, "--to", "1", "--server", &server];
    let (said, _asked) = tokio::join!(run("tunnel", args), stranger.answer_once(answer.as_bytes()));
    let lines = said.errors.iter().map(String::as_str).collect::<Vec<_>>();
    let last = lines.last().unwrap_or(&"");
    assert!(said.code == Some(77) && last.starts_with("error: the server answered 400 Bad Request"), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("plain HTTP")), "{lines:?}");
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
        let names_the_file = errors[0].ends_with(&format!(" Put another token into {file} and start again."));
        assert_eq!(names_the_file, code.starts_with("token_"), "{said:?}");
        assert!(said.errors.last().unwrap().starts_with("error: "), "{said:?}");
    }
}
