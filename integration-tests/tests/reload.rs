//! Files that are replaced while the server runs: certificates under load, keys, and what is broken in between.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::Method;
use integration_tests::{
    binaries::{Program, Signal},
    body,
    caller::{Caller, Protocol},
    client::TestClient,
    eventually::eventually,
    jwt::{Issuer, claims, hmac, hs256, with},
    ollama::Ollama,
    pki::{self, HOST, Pki, SECRET},
    setup::{ALICE, Setup, World},
    workshop::{Workshop, run},
};
use rustls::{ClientConfig, client::Resumption, pki_types::CertificateDer};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tunnel::{event::Event, token::TokenSource};
use tunneld::{auth::PublicKey, config::KeyFiles};

const IDP: &str = "https://idp.example.com";
const FRESH: &str = "the secret that comes after the first one of these tests";

/// The certificate that a new connection gets, as `tls` trusts it.
async fn presented(caller: std::net::SocketAddr, tls: &ClientConfig) -> CertificateDer<'static> {
    let tcp = TcpStream::connect(caller).await.unwrap();
    let stream = TlsConnector::from(Arc::new(tls.clone())).connect(HOST.try_into().unwrap(), tcp).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// Requests one after the other until told to stop, half of them on new connections; how many there were. The first
/// failure panics.
async fn load(caller: Caller, stop: Arc<AtomicBool>) -> usize {
    let mut requests = 0;
    while !stop.load(Ordering::Relaxed) {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let mut connection = caller.connect(protocol).await;
            for _ in 0..2 {
                let reply = connection.send(caller.request(Method::GET, "/api/version", body::empty())).await;
                assert_eq!(reply.status(), 200);
                assert_eq!(reply.text().await, "{\"version\":\"0.0.0\"}");
                requests += 1;
            }
        }
    }
    requests
}

#[tokio::test]
async fn f11_certificates_rotate_under_load_without_a_failed_request() {
    let world = Setup::new().start().await;
    let (first, second) = (Pki::new(), Pki::new());
    let served = world.pki().tls_files();
    // Callers trust all three authorities.
    let cas = [world.pki().ca(), first.ca(), second.ca()].map(|path| fs::read(path).unwrap()).concat();
    let bundle = tempfile::NamedTempFile::new().unwrap();
    fs::write(bundle.path(), cas).unwrap();
    let mut tls = tunnel_certs::client::config(Some(bundle.path())).unwrap();
    // A resumed session shows the certificate of the handshake that began it, however old.
    tls.resumption = Resumption::disabled();
    let addr = world.server().addr();
    let caller = Caller::new(HOST, addr, Some(tls.clone())).with_token(&pki::token(ALICE));

    let mut played = world.ollama().play("/api/chat");
    let mut connection = caller.connect(Protocol::Http2).await;
    let request = caller.request(Method::POST, "/api/chat", body::empty());
    let (mut open, mut exchange) = tokio::join!(connection.send(request), played.start_ok("application/x-ndjson"));

    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4).map(|_| tokio::spawn(load(caller.clone(), Arc::clone(&stop)))).collect();
    let mut before = presented(addr, &tls).await;
    for fresh in [&first, &second, &first] {
        let fresh = fresh.tls_files();
        // As careless as can be: in place, and one file after the other.
        fs::copy(fresh.cert, &served.cert).unwrap();
        fs::copy(fresh.key, &served.key).unwrap();
        before = eventually("new connections get the new certificate", async || {
            let now = presented(addr, &tls).await;
            (now != before).then_some(now)
        })
        .await;
        exchange.send("{}\n").await.unwrap();
        open.expect("{}\n").await;
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        assert!(caller.await.unwrap() > 10);
    }
    exchange.end();
    assert!(open.rest().await.1.is_ok());
    assert_eq!(world.client().connections(), 1, "the tunnel lived through all of it");
}

/// Lines of the log with these words.
fn count(program: &Program, words: &[&str]) -> usize {
    program.errors().iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

#[tokio::test]
async fn f11_a_broken_file_changes_nothing_and_is_told_once() {
    let shop = Workshop::new().await;
    let upstream = Ollama::start();
    let (mut server, addr) = shop.serve(&[]).await;
    let _desktop = shop.connect(addr, upstream.addr(), &[]).await;
    let caller = shop.caller(addr).with_token(&shop.token(&["--user", "alice"]).await);
    let [cert, secret] = ["server.pem", "secret"].map(|name| shop.path(name));
    let good = [&cert, &secret].map(|path| fs::read(path).unwrap());
    fs::write(&cert, &good[0][..good[0].len() / 2]).unwrap();
    fs::write(&secret, "short").unwrap();
    let kept = ["WARN", "kept what was in force"];
    server.logs(&[kept[0], kept[1], "tls-cert", "server.pem"]).await;
    server.logs(&[kept[0], kept[1], "jwt-secret-file", "at least 32"]).await;
    assert_eq!(caller.get("/api/version").await.status(), 200);
    // Somebody else's certificate, without its key.
    fs::write(&cert, fs::read(Pki::new().tls_files().cert).unwrap()).unwrap();
    server.logs(&[kept[0], "does not belong to the certificate"]).await;
    fs::remove_file(&secret).unwrap();
    server.logs(&[kept[0], "jwt-secret-file", "cannot be read"]).await;
    assert_eq!(caller.get("/api/version").await.status(), 200);
    assert_eq!(count(&server, &kept), 4, "one line for each change");
    // The good files again: nothing to take over, nothing to complain of.
    fs::write(&cert, &good[0]).unwrap();
    fs::write(&secret, &good[1]).unwrap();
    server.signal(Signal::Hangup);
    server.logs(&["tls-cert", "nothing new"]).await;
    server.logs(&["jwt-secret-file", "nothing new"]).await;
    assert_eq!(caller.get("/api/version").await.status(), 200);
    assert_eq!(count(&server, &kept), 4);
    let canary = SECRET.split(' ').next_back().unwrap();
    assert!(!server.errors().iter().any(|line| line.contains(canary) && line.contains("integration")));
}

#[tokio::test]
async fn f11_a_hangup_takes_a_new_certificate_over() {
    let shop = Workshop::new().await;
    let (mut server, addr) = shop.serve(&[]).await;
    let old = shop.caller(addr);
    assert_eq!(old.get("/healthz").await.status(), 200);
    assert_eq!(run("tunneld", ["certs", "--force", "--out", &shop.arg("")]).await.success().len(), 3);
    server.signal(Signal::Hangup);
    server.logs(&["hangup"]).await;
    server.logs(&["tls-cert", "took over"]).await;
    // Its authority is another one: the old one's callers would refuse it.
    assert_eq!(shop.caller(addr).get("/healthz").await.status(), 200);
    server.signal(Signal::Terminate);
    assert!(server.wait().await.success());
}

/// A world whose secret and public key are in files.
async fn with_key_files(secret: &tempfile::NamedTempFile, idp: &Issuer) -> World {
    fs::write(secret.path(), SECRET).unwrap();
    let files = KeyFiles { secret: Some(secret.path().into()), public_key: Some(idp.public_file().into()) };
    let key = idp.public_key();
    let setup = Setup::new().server(move |config| {
        config.key_files = files.clone();
        config.auth.public_key = Some(key.clone());
        config.auth.issuer = Some(IDP.into());
    });
    setup.without_desktop().start().await
}

fn disconnected(event: &Event) -> Option<String> {
    match event {
        Event::Disconnected { reason, .. } => Some(reason.clone()),
        _ => None,
    }
}

#[tokio::test]
async fn a_replaced_secret_cuts_whoever_came_with_it_and_nobody_else() {
    let (secret, idp) = (tempfile::NamedTempFile::new().unwrap(), Issuer::new());
    let world = with_key_files(&secret, &idp).await;
    let upstream = world.ollama().addr();
    let of_idp = |user| idp.token(&with(claims(user), &json!({"iss": IDP})));
    let leaked = hs256(&claims(ALICE));
    let on_leaked = TestClient::start(world.client_config(&leaked, "leaked", upstream));
    let token_file = tempfile::NamedTempFile::new().unwrap();
    fs::write(token_file.path(), &leaked).unwrap();
    let mut config = world.client_config(&leaked, "with-file", upstream);
    config.token = TokenSource::File(token_file.path().into());
    let with_file = TestClient::start(config);
    let other = TestClient::start(world.client_config(&of_idp("zoe"), "other", upstream));
    for client in [&on_leaked, &with_file, &other] {
        client.connected(1).await;
    }
    let (caller, zoe) = (world.caller().with_token(&leaked), world.caller().with_token(&of_idp("zoe")));
    assert_eq!(caller.get("/api/version").await.status(), 200);

    let stop = Arc::new(AtomicBool::new(false));
    let others = tokio::spawn(load(zoe, Arc::clone(&stop)));
    let fresh = hmac(FRESH.as_bytes(), &claims(ALICE));
    assert_eq!(world.caller().with_token(&fresh).get("/api/version").await.error(), (401, "token_invalid"));
    fs::write(secret.path(), format!("{FRESH}\n")).unwrap();
    let said = on_leaked.event("a cut", disconnected).await;
    assert!(said.contains("4002") && said.contains("key"), "{said}");
    eventually("the old token is refused", async || {
        (caller.get("/api/version").await.error() == (401, "token_invalid")).then_some(())
    })
    .await;
    // Whoever came with it tries again now and then, and at once when there is a token of the new key in the file.
    let refused = |event: &Event| matches!(event, Event::Refused { .. }).then_some(());
    for client in [&on_leaked, &with_file] {
        client.event("a refusal that is not final", refused).await;
    }
    let since = Instant::now();
    fs::write(token_file.path(), &fresh).unwrap();
    with_file.connected(2).await;
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    assert_eq!(world.caller().with_token(&fresh).get("/api/version").await.status(), 200);
    stop.store(true, Ordering::Relaxed);
    assert!(others.await.unwrap() > 10);
    assert_eq!(other.connections(), 1);
    assert!(!on_leaked.has_stopped());
}

#[tokio::test]
async fn a_replaced_public_key_is_taken_over() {
    let (secret, idp) = (tempfile::NamedTempFile::new().unwrap(), Issuer::new());
    let world = with_key_files(&secret, &idp).await;
    let idle = TestClient::start(world.client_config(&hs256(&claims(ALICE)), "desktop", world.ollama().addr()));
    idle.connected(1).await;
    let next = Issuer::new();
    let token = |issuer: &Issuer| issuer.token(&with(claims(ALICE), &json!({"iss": IDP})));
    let status = async |token: String| {
        let caller = world.caller().with_token(&token);
        caller.get("/api/tunnel/status").await.status().as_u16()
    };
    assert_eq!((status(token(&idp)).await, status(token(&next)).await), (200, 401));
    fs::write(idp.public_file(), next.public_pem()).unwrap();
    world.server().reload();
    eventually("tokens of the new key", async || (status(token(&next)).await == 200).then_some(())).await;
    assert_eq!(status(token(&idp)).await, 401);
    // A private key by mistake: the public one stays.
    fs::write(idp.public_file(), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
    PublicKey::read(idp.public_file()).unwrap_err();
    let looks = AtomicUsize::new(0);
    eventually("some looks", async || {
        world.server().reload();
        assert_eq!(status(token(&next)).await, 200);
        (looks.fetch_add(1, Ordering::Relaxed) > 20).then_some(())
    })
    .await;
    assert_eq!(idle.connections(), 1, "another key, another desktop");
}
