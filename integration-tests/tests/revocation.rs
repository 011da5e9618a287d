//! Revoked tokens and users: refused, cut, remembered; and the command that does it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::Write,
    time::{Duration, Instant},
};

use http::Method;
use integration_tests::{
    admin::{Administered, TOKEN, send},
    body,
    caller::Protocol,
    client::TestClient,
    eventually::eventually,
    jwt::{claims, hs256, seconds, with},
    ollama::Ollama,
    pki,
    setup::{ALICE, Setup},
    workshop::{Workshop, run},
};
use serde_json::{Value, json};
use tunnel::token::TokenSource;

/// A token of a user with this `jti`, issued a while ago.
fn token(user: &str, jti: &str) -> String {
    hs256(&with(claims(user), &json!({"jti": jti, "iat": seconds(-60)})))
}

/// Waits until the client was told for good that it is revoked; within the time of T13.
async fn cut_for_good(client: &TestClient, since: Instant) {
    let said = client.refused().await;
    assert!(said.contains("revoked"), "{said}");
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    eventually("the client ends", async || client.has_stopped().then_some(())).await;
}

#[tokio::test]
async fn t13_a_revoked_token_is_refused_and_its_tunnel_closed() {
    let this = Administered::start(Setup::new()).await;
    let world = &this.world;
    let upstream = world.ollama().addr();
    let (bad, good) = (token(ALICE, "bad"), token(ALICE, "good"));
    let on_bad = TestClient::start(world.client_config(&bad, "on-bad", upstream));
    on_bad.connected(1).await;
    let caller = world.caller().with_token(&bad);
    // On one connection, with a token that was verified before.
    let mut connection = caller.connect(Protocol::Http1).await;
    let ask = || caller.request(Method::GET, "/api/version", body::empty());
    assert_eq!(connection.send(ask()).await.bytes().await.len(), 19);
    let since = Instant::now();
    let answer = this.revoke(json!({"jti": "bad", "expires": "2999-01-01T00:00:00Z"})).await;
    assert_eq!((&answer["jti"], &answer["persisted"]), (&json!("bad"), &json!(true)));
    let refused = connection.send(ask()).await;
    assert_eq!(refused.error(), (401, "token_invalid"));
    let said = refused.json().await;
    assert!(said["error"].as_str().unwrap().contains("revoked"), "{said}");
    cut_for_good(&on_bad, since).await;
    assert_eq!(world.caller().with_token(&good).get("/api/version").await.status(), 200);
    assert_eq!(world.client().connections(), 1);
    // It does not come back, until it is forgiven.
    let again = TestClient::start(world.client_config(&bad, "on-bad", upstream));
    assert!(again.refused().await.contains("token_invalid"));
    let listed = this.admin().get("/revocations").await.json().await;
    assert_eq!((&listed["revocations"][0]["id"], &listed["persisted"]), (&answer["id"], &json!(true)));
    let path = format!("/revocations/{}", answer["id"].as_str().unwrap());
    assert_eq!(send(&this.admin(), Method::DELETE, &path).await.status(), 200);
    assert_eq!(send(&this.admin(), Method::DELETE, &path).await.status(), 404);
    assert_eq!(caller.get("/api/version").await.status(), 200);
}

#[tokio::test]
async fn t13_t36_a_revoked_user_is_out_until_there_is_a_new_token() {
    let this = Administered::start(Setup::new()).await;
    let world = &this.world;
    let without_iat = hs256(&claims(ALICE));
    let same_name = hs256(&with(claims(ALICE), &json!({"iss": "another", "iat": seconds(-60)})));
    for token in [&without_iat, &same_name] {
        assert_eq!(world.caller().with_token(token).get("/api/tunnel/status").await.status(), 200);
    }
    let since = Instant::now();
    let revoked = tokio::spawn({
        let (admin, what) = (this.admin(), json!({"user": ALICE}).to_string());
        async move { admin.post("/revocations", body::full(what)).await.json().await }
    });
    cut_for_good(world.client(), since).await;
    let answer = revoked.await.unwrap();
    assert_eq!((&answer["user"], &answer["issuer"]), (&json!(ALICE), &json!("tunneld")));
    // Minted in the very next moment.
    let fresh = pki::token(ALICE);
    let status = async |token: &str| world.caller().with_token(token).get("/api/tunnel/status").await.status().as_u16();
    assert_eq!(status(&fresh).await, 200);
    assert_eq!((status(&without_iat).await, status(&token(ALICE, "any")).await), (401, 401));
    assert_eq!(status(&same_name).await, 200, "another issuer's user");
    let desktop = TestClient::start(world.client_config(&fresh, "desktop", world.ollama().addr()));
    desktop.connected(1).await;
    assert_eq!(world.caller().with_token(&fresh).get("/api/version").await.status(), 200);
}

#[tokio::test]
async fn t13_a_restart_forgets_no_revocation() {
    let mut this = Administered::start(Setup::new().without_desktop()).await;
    let caller = this.world.caller().with_token(&token(ALICE, "bad"));
    this.revoke(json!({"jti": "bad"})).await;
    this.revoke(json!({"user": "zoe", "issuer": "idp"})).await;
    let before = this.admin().get("/revocations").await.json().await;
    this.world.take_server().kill();
    this.world.start_server();
    assert_eq!(caller.get("/api/tunnel/status").await.error(), (401, "token_invalid"));
    assert_eq!(this.admin().get("/revocations").await.json().await, before);
}

#[tokio::test]
async fn t13_the_file_may_be_edited_by_others() {
    let this = Administered::start(Setup::new().without_desktop()).await;
    let client = TestClient::start(this.world.client_config(&token(ALICE, "bad"), "d", this.world.ollama().addr()));
    client.connected(1).await;
    this.revoke(json!({"jti": "first"})).await;
    let since = Instant::now();
    let mut file = fs::OpenOptions::new().append(true).open(this.file("revoked")).unwrap();
    writeln!(file, "{}", json!({"jti": "bad"})).unwrap();
    drop(file);
    cut_for_good(&client, since).await;
    // And our next change does not undo theirs.
    this.revoke(json!({"jti": "last"})).await;
    let text = fs::read_to_string(this.file("revoked")).unwrap();
    assert!(["first", "bad", "last"].iter().all(|jti| text.contains(jti)), "{text}");
}

#[tokio::test]
async fn t13_what_cannot_be_written_is_in_force_all_the_same() {
    let this = Administered::start(Setup::new().without_desktop()).await;
    fs::write(this.file("revoked"), "half a li").unwrap();
    let reply = this.admin().post("/revocations", body::full("{\"jti\":\"bad\"}")).await;
    assert_eq!(reply.status(), 500);
    let said = reply.json().await;
    assert!(said["persisted"] == false && said["error"].as_str().unwrap().contains("line 1"), "{said}");
    let caller = this.world.caller().with_token(&token(ALICE, "bad"));
    assert_eq!(caller.get("/api/tunnel/status").await.error(), (401, "token_invalid"));
    assert_eq!(fs::read_to_string(this.file("revoked")).unwrap(), "half a li");
}

#[tokio::test]
async fn what_is_no_revocation_is_refused_in_one_sentence() {
    let this = Administered::start(Setup::new().without_desktop()).await;
    let long = format!("{{\"jti\":\"{}\"}}", "x".repeat(20_000));
    let future = "{\"user\":\"a\",\"at\":\"2999-01-01T00:00:00Z\"}";
    for bad in ["", "[]", "{}", "{\"jti\":\"a\",\"user\":\"b\"}", "{\"jti\":\"a\",\"x\":1}", future, &long] {
        let reply = this.admin().post("/revocations", body::full(bad.to_owned())).await;
        assert_eq!(reply.status(), 400, "{bad}");
        assert!(reply.json().await["error"].as_str().unwrap().len() > 10);
    }
    assert_eq!(this.admin().get("/revocations").await.json().await["revocations"], json!([]));
    assert!(!this.file("revoked").exists());
}

#[tokio::test]
async fn t13_a_tunnel_that_drains_is_cut_too() {
    let this = Administered::start(Setup::new().without_desktop()).await;
    let world = &this.world;
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), token(ALICE, "old")).unwrap();
    let mut config = world.client_config(&token(ALICE, "old"), "desktop", world.ollama().addr());
    config.token = TokenSource::File(file.path().into());
    let client = TestClient::start(config);
    client.connected(1).await;
    let caller = world.caller();
    let mut played = world.ollama().play("/api/chat");
    let mut connection = caller.connect(Protocol::Http1).await;
    let request = caller.request(Method::POST, "/api/chat", body::empty());
    let (mut open, mut exchange) = tokio::join!(connection.send(request), played.start_ok("application/octet-stream"));
    fs::write(file.path(), token(ALICE, "new")).unwrap();
    client.connected(2).await;
    exchange.send("{}").await.unwrap();
    open.expect("{}").await;
    let since = Instant::now();
    this.revoke(json!({"jti": "old"})).await;
    open.rest().await.1.unwrap_err();
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    exchange.caller_leaves().await;
    assert_eq!(caller.get("/api/version").await.status(), 200);
    assert!(!client.has_stopped());
    assert_eq!(client.connections(), 2);
}

#[tokio::test]
async fn t13_t32_the_revoke_command_ends_a_desktop_and_shows_no_secret() {
    let shop = Workshop::new().await;
    let upstream = Ollama::start();
    let admin_token = shop.file("admin", TOKEN);
    let refused = ["serve", "--plain-http", "--admin-listen", "0.0.0.0:0", "--jwt-secret-file", &shop.arg("secret")];
    assert!(run("tunneld", refused).await.error(64).contains("--admin-token-file"));
    let (mut server, addr) = shop.serve(&["--admin-listen", "127.0.0.1:0", "--admin-token-file", &admin_token]).await;
    let line = server.logs(&["admin interface is open", "token=true"]).await;
    let listen = line.split("addr=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let admin = ["--admin-listen", &listen, "--admin-token-file", &admin_token];
    let mut desktop = shop.connect(addr, upstream.addr(), &[]).await;
    let leaked = fs::read_to_string(shop.path("desktop.token")).unwrap();
    let signature = leaked.rsplit_once('.').unwrap().1;
    let said = run("tunneld", [&["revoke", "--user", ""], &admin[..]].concat()).await;
    assert!(said.error(64).starts_with("--user: "), "{said:?}");
    let said = run("tunneld", [&["revoke", "--token-file", &admin_token], &admin[..]].concat()).await;
    assert!(said.error(64).contains("no JSON web token"), "{said:?}");
    assert!(run("tunneld", ["revoke", "--admin-listen", &listen]).await.error(64).contains("--user"));
    // As people find it: in a URL, in a header, alone.
    for pasted in [format!("https://localhost/t/{leaked}/\n"), format!("Bearer {leaked}"), leaked.clone()] {
        let file = shop.file("leaked", &pasted);
        let said = run("tunneld", [&["revoke", "--token-file", &file], &admin[..]].concat()).await;
        let answer: Value = serde_json::from_str(&said.success()[0]).unwrap();
        assert!(answer["expires"].is_string() && answer["persisted"] == false, "{answer}");
        assert!(!said.output[0].contains(signature), "{answer}");
    }
    assert_eq!(desktop.wait().await.code(), Some(77));
    let caller = shop.caller(addr).with_token(&leaked);
    assert_eq!(caller.get("/api/version").await.error(), (401, "token_invalid"));
    server.logs(&["revoked", "jti"]).await;
    assert_eq!(run("tunneld", [&["revoke", "--user", "zoe"], &admin[..]].concat()).await.success().len(), 1);
    for line in server.errors().iter().chain(&desktop.errors()).chain(&said.errors) {
        assert!(!line.contains("canary") && !line.contains(signature), "{line}");
    }
    let stranger = shop.file("stranger", &"x".repeat(40));
    let said =
        run("tunneld", ["revoke", "--user", "a", "--admin-listen", &listen, "--admin-token-file", &stranger]).await;
    assert!(said.error(1).contains(&format!("the server does not accept the token in {stranger}; ")), "{said:?}");
}
