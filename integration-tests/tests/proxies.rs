//! Desktops behind an HTTP proxy, as in a company: CONNECT, user and password, and what goes past it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use integration_tests::{
    binaries::{Program, command},
    ollama::Ollama,
    pki,
    proxy::{ConnectProxy, Door},
    setup::{ALICE, Setup},
    workshop::{Workshop, run},
};
use tunnel::proxy::{Proxies, Proxy};

const CREDENTIAL: &str = "bob:p%40ss:word";
const DECODED: &str = "bob:p@ss:word";

#[tokio::test]
async fn a_desktop_connects_through_a_proxy_that_wants_a_password() {
    let world = Setup::new().without_desktop().start().await;
    let addr = world.server().addr();
    let proxy = ConnectProxy::to(addr, Door::Locked(DECODED));
    let mut config = world.client_config(&pki::token(ALICE), "desktop", world.ollama().addr());
    config.proxies = Proxies::always(Proxy::parse(&proxy.url(CREDENTIAL)).unwrap());
    let client = integration_tests::client::TestClient::start(config);
    client.connected(1).await;
    assert_eq!(world.caller().get("/api/version").await.status(), 200);
    let [asked] = &proxy.asked()[..] else { panic!("not one CONNECT: {:?}", proxy.asked()) };
    assert!(asked.starts_with(&format!("CONNECT {addr} HTTP/1.1\r\n")), "{asked}");
    assert!(asked.to_lowercase().contains(&format!("host: {addr}\r\n")), "{asked}");
    assert!(!asked.to_lowercase().contains("\r\nauthorization:"), "{asked}");
}

/// What `tunnel connect` says when the way through a proxy is closed, and that its password is in no line.
async fn complains(proxy: &str, parts: &[&str]) {
    let shop = Workshop::new().await;
    let token = shop.file("token", &shop.token(&["--user", "alice", "--server", "https://127.0.0.1:9"]).await);
    let args = ["connect", "--token-file", &token, "--proxy", proxy, "--log-level", "trace"];
    let mut client = Program::tunnel(args);
    let line = client.logs(&[&["offline", "the proxy http://127.0.0.1:"], parts].concat()).await;
    for line in client.errors().iter().chain([&line]) {
        for secret in ["p%40ss", "p@ss", "Ym9iO"] {
            assert!(!line.contains(secret), "{line}");
        }
    }
}

#[tokio::test]
async fn t32_a_proxy_that_says_no_is_named_and_its_password_is_not() {
    let nowhere = Ollama::start();
    let locked = ConnectProxy::to(nowhere.addr(), Door::Locked("bob:other"));
    let shut = ConnectProxy::to(nowhere.addr(), Door::Shut);
    complains(&locked.url(CREDENTIAL), &["does not accept the user and password"]).await;
    complains(&locked.url(""), &["wants a user and password", "http://USER:PASSWORD@HOST:PORT"]).await;
    complains(&shut.url(CREDENTIAL), &["answered 403 Forbidden when asked for 127.0.0.1:9", "must allow CONNECT"])
        .await;
}

#[tokio::test]
async fn the_environment_names_a_proxy_for_other_machines_only() {
    let shop = Workshop::new().await;
    let certs = shop.arg("named");
    let made = run("tunneld", ["certs", "--out", &certs, "--host", "tunnel.test", "--host", "127.0.0.1"]).await;
    assert_eq!(made.success().len(), 3);
    let (cert, key, ca) = (shop.arg("named/server.pem"), shop.arg("named/server-key.pem"), shop.arg("named/ca.pem"));
    let secret = shop.arg("secret");
    let args =
        ["serve", "--listen", "127.0.0.1:0", "--tls-cert", &cert, "--tls-key", &key, "--jwt-secret-file", &secret];
    let mut server = Program::tunneld(args);
    let addr = server.listening().await;
    let proxy = ConnectProxy::to(addr, Door::Open);
    let token = shop.file("token", &shop.token(&["--user", "alice"]).await);
    let connect = |host: &str, variable: &str, no_proxy: &str| {
        let url = format!("https://{host}:{}", addr.port());
        let args = ["connect", "--token-file", &token, "--ca", &ca, "--name", "x", "--server", &url];
        Program::start(command("tunnel").args(args).env(variable, proxy.url("")).env("NO_PROXY", no_proxy))
    };
    // Nobody but the proxy knows this name.
    for variable in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
        let mut client = connect("tunnel.test", variable, "example.com");
        client.logs(&["online"]).await;
    }
    assert_eq!(proxy.asked().len(), 3);
    let mut excepted = connect("tunnel.test", "HTTPS_PROXY", "example.com,.test");
    excepted.logs(&["offline", "cannot connect to tunnel.test", "check the name"]).await;
    let mut local = connect("127.0.0.1", "HTTPS_PROXY", "");
    local.logs(&["online"]).await;
    assert_eq!(proxy.asked().len(), 3, "asked for this machine: {:?}", proxy.asked());
}
