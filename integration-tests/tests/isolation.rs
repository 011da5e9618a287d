//! A request reaches a desktop of its own user and no other: which one, by which rules, and how many there may be.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::future::join_all;
use http::{HeaderValue, Method, Request};
use integration_tests::{
    body::{self, Body},
    caller::{Caller, Protocol, Reply},
    client::TestClient,
    eventually::{eventually, with_deadline},
    handshake::{self, IdleDesktop},
    ollama::{Cut, Ollama},
    pki,
    refusal::{self, Retry, Shape},
    setup::{ALICE, Setup, World},
};
use serde_json::json;

const BOB: &str = "bob";

fn instance() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// A GET for the desktop of this name.
async fn get_from(caller: &Caller, path: &str, name: &str) -> Reply {
    let mut request = caller.request(Method::GET, path, body::empty());
    request.headers_mut().insert("tunnel-name", HeaderValue::from_str(name).unwrap());
    caller.send(request).await
}

fn targets(ollama: &Ollama) -> Vec<String> {
    ollama.received().into_iter().map(|head| head.target).collect()
}

/// The names of the user's desktops, as the server tells them.
async fn names(caller: &Caller) -> Vec<String> {
    let status = caller.get("/api/tunnel/status").await.json().await;
    let tunnels = status["tunnels"].as_array().unwrap();
    tunnels.iter().map(|tunnel| tunnel["name"].as_str().unwrap().to_owned()).collect()
}

/// An upload with a canary in path, field and body.
fn marked(caller: &Caller, canary: &str) -> Request<Body> {
    let body = canary.repeat(2000);
    let mut request = caller.request(Method::POST, &format!("/echo/{canary}"), body::full(body));
    request.headers_mut().insert("x-canary", HeaderValue::from_str(canary).unwrap());
    request
}

#[tokio::test]
async fn t36_t37_two_users_at_once() {
    let world = Setup::new().without_desktop().start().await;
    let [alices, bobs] = [Ollama::start(), Ollama::start()];
    let _alice = world.connect(ALICE, "desktop", alices.addr()).await;
    let _bob = world.connect(BOB, "desktop", bobs.addr()).await;
    let users = [ALICE, BOB].map(|user| (user, world.caller_for(user)));
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let calls = (0..8).map(|lane| {
            let users = &users;
            async move {
                // One connection for both users, as behind a proxy that pools.
                let mut connection = users[0].1.connect(protocol).await;
                for round in 0..8 {
                    let (user, caller) = &users[(lane + round) % 2];
                    let canary = format!("{user}-{lane}-{round}.");
                    let text = connection.send(marked(caller, &canary)).await.text().await;
                    let others = if *user == ALICE { BOB } else { ALICE };
                    assert_eq!(text.matches(&canary).count(), 2002, "{canary}");
                    assert!(!text.contains(&format!("{others}-")), "{canary} met another user's bytes");
                }
            }
        });
        join_all(calls).await;
    }
    for (user, ollama) in [(ALICE, &alices), (BOB, &bobs)] {
        let received = targets(ollama);
        assert_eq!(received.len(), 64);
        assert!(received.iter().all(|target| target.starts_with(&format!("/echo/{user}-"))), "{received:?}");
    }
}

#[tokio::test]
async fn t36_streams_of_two_users_interleave_on_one_connection() {
    let world = Setup::new().start().await;
    let bobs = Ollama::start();
    let _bob = world.connect(BOB, "desktop", bobs.addr()).await;
    let mut connection = world.caller().connect(Protocol::Http2).await;
    let mut streams = Vec::new();
    for n in 0..6 {
        let (ollama, user) = if n % 2 == 0 { (world.ollama(), ALICE) } else { (&bobs, BOB) };
        let mut played = ollama.play("/api/chat");
        let request = world.caller_for(user).request(Method::POST, "/api/chat", body::empty());
        streams.push(tokio::join!(connection.send(request), played.start_ok("application/x-ndjson")));
    }
    for round in 0..10 {
        for (n, (reply, exchange)) in streams.iter_mut().enumerate() {
            let record = format!("{{\"canary\":\"{n}-{round}\"}}\n");
            exchange.send(record.clone()).await.unwrap();
            reply.expect(&record).await;
        }
    }
}

#[tokio::test]
async fn t36_a_user_without_a_desktop_reaches_nobody() {
    let world = Setup::new().start().await;
    let caller = world.caller_for(BOB);
    let named = get_from(&caller, "/api/version", "desktop").await;
    assert_eq!(named.error(), (503, "tunnel_offline"));
    assert_eq!(names(&caller).await, Vec::<String>::new());
    assert_eq!(world.ollama().received().len(), 0);
}

#[tokio::test]
async fn the_newest_process_takes_the_requests() {
    let world = Setup::new().relayed().start().await; // the oldest desktop, through a relay
    let newest = Ollama::start();
    let second = world.connect(ALICE, "newest", newest.addr()).await;
    assert_eq!(world.caller().get("/echo/1").await.status(), 200);
    assert_eq!(targets(&newest), ["/echo/1"]);
    // A reconnect does not make a process younger: both connect anew, in whatever order.
    world.relay().cut(Cut::Reset).await;
    world.client().connected(2).await;
    second.connected(2).await;
    assert_eq!(world.caller().get("/echo/2").await.status(), 200);
    assert_eq!(targets(&newest), ["/echo/1", "/echo/2"]);
    drop(second);
    let caller = world.caller();
    eventually("the other desktop takes over", async || (caller.get("/echo/3").await.status() == 200).then_some(()))
        .await;
    assert_eq!(targets(world.ollama()), ["/echo/3"]);
}

#[tokio::test]
async fn the_age_is_that_of_the_process_not_of_the_connection() {
    let world = Setup::new().without_desktop().start().await;
    let older = instance();
    let [old, new] = ["old", "new"].map(|name| (name, Ollama::start()));
    let _new = world.connect(ALICE, new.0, new.1.addr()).await;
    // Connected later, but its process started earlier.
    let late = IdleDesktop::connect(&world.caller(), old.0, &older).await;
    assert_eq!(late.welcome["name"], "old");
    let mut seen = names(&world.caller()).await;
    seen.sort();
    assert_eq!(seen, ["new", "old"]);
    assert_eq!(world.caller().get("/echo").await.status(), 200);
    assert_eq!(targets(&new.1), ["/echo"]);
}

#[tokio::test]
async fn a_caller_names_the_desktop() {
    let world = Setup::new().without_desktop().start().await;
    let [attic, cellar] = [Ollama::start(), Ollama::start()];
    let _attic = world.connect(ALICE, "attic", attic.addr()).await;
    let _cellar = world.connect(ALICE, "cellar", cellar.addr()).await;
    for (name, ollama) in [("attic", &attic), ("cellar", &cellar)] {
        assert_eq!(get_from(&world.caller(), &format!("/echo/{name}"), name).await.status(), 200);
        assert_eq!(targets(ollama), [format!("/echo/{name}")]);
        assert!(ollama.received()[0].headers.keys().all(|field| !field.as_str().starts_with("tunnel-")));
    }
    for name in ["Attic", "garage", ""] {
        let reply = get_from(&world.caller(), "/echo/nowhere", name).await;
        assert!(matches!(reply.status().as_u16(), 400 | 503), "{name:?}: {:?}", reply.status());
    }
    assert_eq!(targets(&cellar).len(), 1);
}

#[tokio::test]
async fn t42_the_same_instance_replaces_itself() {
    let world = Setup::new().without_desktop().start().await;
    let (caller, process) = (world.caller(), instance());
    let mut before = IdleDesktop::connect(&caller, "desktop", &process).await;
    let after = IdleDesktop::connect(&caller, "desktop", &process).await;
    assert_ne!(before.welcome["tunnel"], after.welcome["tunnel"]);
    let told = before.control().await;
    assert!(told.is_none_or(|told| told["type"] == "drain" || told["type"] == "bye"));
    let one = async || (names(&caller).await == ["desktop"]).then_some(());
    eventually("one desktop of that name", one).await;
    // The late end of the first must not take the second away.
    drop(before);
    for _ in 0..20 {
        assert_eq!(names(&caller).await, ["desktop"]);
    }
}

#[tokio::test]
async fn a_live_desktop_keeps_its_name() {
    let world = Setup::new().start().await;
    let rival = Ollama::start();
    let other = TestClient::start(world.client_config(&pki::token(ALICE), "desktop", rival.addr()));
    let said = other.refused().await;
    assert!(said.contains("name_in_use"), "{said}");
    assert_eq!(other.connections(), 0);
    let reply = handshake::knock(&world.caller(), "desktop").await;
    let said = refusal::check(reply, 409, "name_in_use", Retry::Unsaid, Shape::Ollama).await;
    assert!(said.contains("name"), "{said}");
    assert_eq!(world.caller().get("/echo").await.status(), 200);
    assert_eq!((targets(world.ollama()), targets(&rival)), (vec!["/echo".to_owned()], vec![]));
    assert_eq!(world.client().connections(), 1);
    // The name is one user's own.
    let _bob = world.connect(BOB, "desktop", rival.addr()).await;
}

#[tokio::test]
async fn a_dead_desktop_loses_its_name() {
    let world = Setup::new().without_desktop().start().await;
    let dead = IdleDesktop::connect(&world.caller(), "desktop", &instance()).await;
    let started = std::time::Instant::now();
    let desktop = TestClient::start(world.client_config(&pki::token(ALICE), "desktop", world.ollama().addr()));
    desktop.connected(1).await;
    assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(world.caller().get("/echo").await.status(), 200);
    drop(dead);
    assert_eq!(names(&world.caller()).await, ["desktop"]);
}

#[tokio::test]
async fn t49_desktops_of_a_user_are_limited() {
    let world = Setup::new().server(|config| config.limits.max_tunnels_per_user = 2).start().await;
    let second = world.connect(ALICE, "second", world.ollama().addr()).await;
    let reply = handshake::knock(&world.caller(), "third").await;
    refusal::check(reply, 409, "tunnel_limit", Retry::Later, Shape::Ollama).await;
    let third = TestClient::start(world.client_config(&pki::token(ALICE), "third", world.ollama().addr()));
    let said = third.refused().await;
    assert!(said.contains("tunnel_limit"), "{said}");
    let _bob = world.connect(BOB, "third", world.ollama().addr()).await;
    drop(second);
    let caller = world.caller();
    eventually("room", async || (names(&caller).await.len() == 1).then_some(())).await;
    let _third = world.connect(ALICE, "third", world.ollama().addr()).await;
}

#[tokio::test]
async fn t49_a_reconnect_is_not_one_more() {
    let world = Setup::new().relayed().server(|config| config.limits.max_tunnels_per_user = 1).start().await;
    for times in 2..5 {
        world.relay().cut(Cut::Reset).await;
        world.client().connected(times).await;
    }
    assert_eq!(world.caller().get("/api/version").await.status(), 200);
}

/// Streams of a user that run now, each with its caller's end.
async fn running(world: &World, user: &str, ollama: &Ollama, count: usize) -> Vec<impl Sized> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut played = ollama.play("/api/pull");
        let caller = world.caller_for(user);
        streams.push(tokio::join!(caller.post("/api/pull", body::empty()), played.start_ok("application/x-ndjson")));
    }
    streams
}

#[tokio::test]
async fn t49_streams_of_a_user_are_limited_over_all_desktops() {
    let world = Setup::new().server(|config| config.limits.max_streams_per_user = 3).start().await;
    let second = Ollama::start();
    let _second = world.connect(ALICE, "second", second.addr()).await;
    let bobs = Ollama::start();
    let _bob = world.connect(BOB, "desktop", bobs.addr()).await;
    let streams = running(&world, ALICE, &second, 3).await;
    let reply = get_from(&world.caller(), "/api/tags", "desktop").await;
    refusal::check(reply, 429, "too_many_streams", Retry::After("1"), Shape::Ollama).await;
    assert_eq!(world.ollama().received().len(), 0);
    let of_bob = running(&world, BOB, &bobs, 3).await;
    assert_eq!(world.caller_for(BOB).get("/api/tags").await.error(), (429, "too_many_streams"));
    // Our own answers are no streams.
    assert_eq!(names(&world.caller()).await.len(), 2);
    drop((streams, of_bob));
    let caller = world.caller();
    eventually("room", async || (caller.get("/api/tags").await.status() == 200).then_some(())).await;
}

#[tokio::test]
async fn t49_refused_and_failed_requests_leave_no_trace_in_the_count() {
    let mut world = Setup::new().server(|config| config.limits.max_streams_per_user = 1).start().await;
    let caller = world.caller();
    for _ in 0..5 {
        assert_eq!(caller.get("/status/500").await.text().await, "500");
        assert_eq!(get_from(&caller, "/x", "nowhere").await.error(), (503, "tunnel_offline"));
    }
    let mut played = world.ollama().play("/api/chat");
    for _ in 0..3 {
        let call = tokio::spawn({
            let caller = caller.clone();
            async move { caller.post("/api/chat", body::empty()).await }
        });
        let exchange = played.next().await;
        exchange.cut(Cut::Reset);
        assert_eq!(with_deadline("an answer", call).await.unwrap().error(), (502, "upstream_error"));
    }
    world.take_client().kill();
    let status = caller.get("/api/tunnel/status").await.json().await;
    assert_eq!(status["user"], json!(ALICE));
    assert_eq!(caller.get("/api/version").await.error().0, 503);
}
