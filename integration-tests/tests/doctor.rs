//! `tunnel doctor` finds what is wrong, and disturbs nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{convert::Infallible, net::SocketAddr};

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use integration_tests::{
    background::{Background, Flavour},
    jwt,
    ollama::Ollama,
    pki::HOST,
    workshop::{Said, Workshop, run},
};

/// A finding in what the doctor printed: its mark, and the rest.
fn finding<'a>(said: &'a Said, step: &str) -> (char, &'a str) {
    let found = said.output.iter().find_map(|line| {
        let (mark, rest) = line.split_once(' ')?;
        Some((mark.chars().next()?, rest.strip_prefix(step)?.strip_prefix(' ')?.trim()))
    });
    found.unwrap_or_else(|| panic!("nothing about {step}: {said:?}"))
}

fn advice<'a>(said: &'a Said, step: &str) -> &'a str {
    let at = said.output.iter().position(|line| line[3..].trim_start().starts_with(step)).unwrap();
    said.output[at + 1].trim_start().strip_prefix("\u{2192} ").unwrap_or_else(|| panic!("no advice: {said:?}"))
}

#[tokio::test]
async fn a_healthy_tunnel_is_healthy_and_stays_undisturbed() {
    let shop = Workshop::new().await;
    let ollama = Ollama::start();
    let (server, addr) = shop.serve(&[]).await;
    let client = shop.connect(addr, ollama.addr(), &[]).await;
    let (token, ca, to) = (shop.arg("desktop.token"), shop.arg("ca.pem"), ollama.addr().to_string());
    let args = ["doctor", "--token-file", &token, "--ca", &ca, "--to", &to, "--name", "desktop"];
    let said = run("tunnel", args).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    for step in ["dns", "tcp", "proxy", "tls", "server", "clock", "upgrade", "streaming", "upstream", "host", "models"]
    {
        assert_eq!(finding(&said, step).0, '\u{2713}', "{step}: {said:?}");
    }
    assert_eq!(finding(&said, "token").0, '\u{2713}', "{said:?}");
    assert!(finding(&said, "tls").1.contains("until 20"), "{said:?}");
    assert_eq!(finding(&said, "streaming").1, "5 ticks arrived one by one");
    assert!(finding(&said, "models").1.contains("fake:latest"), "{said:?}");
    let connected = server.errors().iter().filter(|line| line.contains("desktop connected")).count();
    assert_eq!(connected, 1, "the probe is no desktop");
    assert!(!client.errors().iter().any(|line| line.contains("offline")));

    let said = run("tunnel", [&args[..], &["--json"]].concat()).await;
    let report: serde_json::Value = serde_json::from_str(&said.success()[0]).unwrap();
    assert_eq!((&report["healthy"], report["findings"].as_array().unwrap().len()), (&true.into(), 12), "{report}");
}

#[tokio::test]
async fn a_caller_is_asked_for_what_a_caller_needs() {
    let shop = Workshop::new().await;
    let ollama = Ollama::start();
    let (_server, addr) = shop.serve(&[]).await;
    let client = shop.connect(addr, ollama.addr(), &[]).await;
    let server = format!("https://{HOST}:{}", addr.port());
    let token = shop.token(&["--user", "alice", "--scope", "infer", "--ttl", "90d", "--server", &server]).await;
    let (token, ca) = (shop.file("caller", &token), shop.arg("ca.pem"));
    let said = run("tunnel", ["doctor", "--token-file", &token, "--ca", &ca]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(finding(&said, "desktop").1.starts_with("desktop is online since 20"), "{said:?}");
    assert_eq!((finding(&said, "caller").0, finding(&said, "streaming").0), ('\u{2713}', '\u{2713}'), "{said:?}");
    for of_a_desktop in ["upgrade", "upstream", "host", "models"] {
        assert!(!said.output.iter().any(|line| line[3..].trim_start().starts_with(of_a_desktop)), "{said:?}");
    }
    drop(client);
}

#[tokio::test]
async fn what_is_wrong_is_bad_and_named() {
    let shop = Workshop::new().await;
    let (_server, addr) = shop.serve(&[]).await;
    let server = format!("https://{HOST}:{}", addr.port());
    let ca = shop.arg("ca.pem");
    let proxy_only = shop.file("proxy", &shop.token(&["--user", "alice", "--scope", "proxy"]).await);
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let to = ["--to", nowhere.as_str()];
    let doctor = async |args: &[&str]| {
        let said = run("tunnel", [&["doctor"], args, &to[..]].concat()).await;
        assert_eq!(said.code, Some(1), "{said:?}");
        said
    };
    let said = doctor(&["--server", &server, "--ca", &ca, "--token-file", &proxy_only]).await;
    assert_eq!(finding(&said, "desktop").0, '\u{2717}', "{said:?}");
    assert!(advice(&said, "desktop").contains("tunnel connect"), "{said:?}");
    assert_eq!(finding(&said, "streaming").0, '\u{2713}', "{said:?}");

    // A token without scope, where the server asks for one.
    let unscoped = shop.file("unscoped", &jwt::hs256(&jwt::claims("alice")));
    let (_strict, strict) = shop.serve(&["--require-scope"]).await;
    let strict = format!("https://{HOST}:{}", strict.port());
    let said = doctor(&["--server", &strict, "--ca", &ca, "--token-file", &unscoped]).await;
    assert!(finding(&said, "token").1.starts_with("refused (scope_denied)"), "{said:?}");
    assert!(advice(&said, "token").contains("--scope proxy"), "{said:?}");
    assert_eq!(finding(&said, "upstream").0, '\u{2717}', "{said:?}");

    let forged = shop.file("forged", "e30.eyJzdWIiOiJib2IifQ.c2ln");
    let said = doctor(&["--server", &server, "--ca", &ca, "--token-file", &forged]).await;
    assert!(finding(&said, "token").1.starts_with("refused (token_invalid): of bob"), "{said:?}");

    let said = doctor(&["--server", &server, "--ca", &ca]).await;
    assert_eq!(finding(&said, "token").0, '!', "{said:?}");
    assert!(finding(&said, "token").1.starts_with("none given"), "{said:?}");
    let said = doctor(&["--server", &server]).await;
    assert!(finding(&said, "tls").1.contains("--ca"), "{said:?}");
    let said = doctor(&["--server", &format!("http://{addr}")]).await;
    assert!(finding(&said, "server").1.contains("does not answer in plain HTTP"), "{said:?}");
    assert_eq!(advice(&said, "server"), "if it speaks TLS, write https://");
    let said = doctor(&["--server", &format!("https://{nowhere}")]).await;
    assert_eq!(finding(&said, "tcp").0, '\u{2717}');
    let said = doctor(&["--server", "https://name.invalid"]).await;
    assert_eq!(finding(&said, "dns").0, '\u{2717}');
    let plain = Ollama::start();
    let said = doctor(&["--server", &format!("http://{}", plain.addr())]).await;
    assert!(finding(&said, "server").1.contains("is no tunneld"), "{said:?}");
    let (proxy, _background) = collecting_proxy(nowhere.parse().unwrap());
    let said = doctor(&["--server", &format!("http://{proxy}")]).await;
    assert!(finding(&said, "server").1.ends_with("does not reach tunneld (502 Bad Gateway)"), "{said:?}");
    assert!(advice(&said, "server").starts_with("is tunneld running there?"), "{said:?}");
}

/// A proxy in front that collects every answer and passes no upgrade on.
fn collecting_proxy(target: SocketAddr) -> (SocketAddr, Background) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let addr = listener.local_addr().unwrap();
    let background = Background::spawn("proxy", Flavour::Current, move |stop| async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http::<Incoming>();
        let pass = move |mut request: Request<Incoming>| {
            let client = client.clone();
            async move {
                let path = request.uri().path_and_query().unwrap().clone();
                *request.uri_mut() = format!("http://{target}{path}").parse().unwrap();
                for name in ["upgrade", "connection"] {
                    request.headers_mut().remove(name);
                }
                let Ok(response) = client.request(request).await else {
                    return Ok::<_, Infallible>(
                        Response::builder().status(StatusCode::BAD_GATEWAY).body(Full::default()).unwrap(),
                    );
                };
                let (head, body) = response.into_parts();
                Ok(Response::from_parts(head, Full::new(body.collect().await.unwrap().to_bytes())))
            }
        };
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted.unwrap().0,
                () = stop.cancelled() => return,
            };
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service_fn(pass.clone())));
        }
    });
    (addr, background)
}

#[tokio::test]
async fn a_proxy_that_collects_answers_and_drops_upgrades_is_found_out() {
    let shop = Workshop::new().await;
    let ollama = Ollama::start();
    let secret = shop.arg("secret");
    let args = ["serve", "--plain-http", "--listen", "127.0.0.1:0", "--jwt-secret-file", &secret];
    let mut server = integration_tests::binaries::Program::tunneld(args);
    let (proxy, _background) = collecting_proxy(server.listening().await);
    let token = shop.file("token", &shop.token(&["--user", "alice", "--ttl", "90d"]).await);
    let (url, to) = (format!("http://{proxy}"), ollama.addr().to_string());
    let said = run("tunnel", ["doctor", "--server", &url, "--token-file", &token, "--to", &to]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(finding(&said, "upgrade").1.starts_with("refused (upgrade_required)"), "{said:?}");
    assert!(advice(&said, "upgrade").contains("proxy_set_header Upgrade"), "{said:?}");
    assert_eq!(finding(&said, "streaming"), ('\u{2717}', "5 ticks arrived in one lump"));
    assert!(advice(&said, "streaming").contains("proxy_buffering off"), "{said:?}");
    assert_eq!(finding(&said, "token").0, '\u{2713}', "{said:?}");
}
