//! The tunnel comes back: after a cut, a freeze, a restart; and it goes in good order when it is told to.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::Write,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use http::Method;
use integration_tests::{
    body,
    caller::{Caller, Protocol, Reply},
    client::TestClient,
    eventually::{eventually, with_deadline},
    ollama::{Cut, Exchange, Ollama},
    pki::{self, Pki},
    setup::{ALICE, Setup, World},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
};
use tunnel::{event::Event, token::TokenSource};
use tunneld::auth::{
    Secret,
    mint::{self, MintRequest},
};

const NDJSON: &str = "application/x-ndjson";

/// A stream through the tunnel whose head has come: both of its ends.
async fn stream(world: &World, caller: &Caller, protocol: Protocol) -> (Reply, Exchange) {
    let mut played = world.ollama().play("/api/chat");
    let mut connection = caller.connect(protocol).await;
    let request = caller.request(Method::POST, "/api/chat", body::empty());
    tokio::join!(connection.send(request), played.start_ok(NDJSON))
}

/// One more record passes through an open stream.
async fn goes_on((reply, exchange): &mut (Reply, Exchange)) {
    exchange.send("{}\n").await.unwrap();
    reply.expect("{}\n").await;
}

async fn ends_well((mut reply, mut exchange): (Reply, Exchange)) {
    exchange.end();
    let (rest, end) = reply.rest().await;
    assert_eq!((rest.len(), end.is_ok()), (0, true));
}

fn spawn_get(caller: &Caller, path: &'static str) -> JoinHandle<Reply> {
    let caller = caller.clone();
    tokio::spawn(async move { caller.get(path).await })
}

async fn offline(caller: &Caller) {
    eventually("the server knows that the tunnel is gone", async || {
        (caller.get("/api/tunnel/status").await.json().await["connected"] == false).then_some(())
    })
    .await;
}

fn disconnected(event: &Event) -> Option<String> {
    match event {
        Event::Disconnected { reason, .. } => Some(reason.clone()),
        _ => None,
    }
}

#[tokio::test]
async fn the_client_connects_anew_after_a_cut() {
    let world = Setup::new().relayed().start().await;
    for (times, how) in [(2, Cut::Fin), (3, Cut::Reset), (4, Cut::Fin)] {
        world.relay().cut(how).await;
        world.client().connected(times).await;
        assert_eq!(world.caller().get("/api/version").await.status(), 200, "{how:?}");
    }
}

#[tokio::test]
async fn f03_a_cut_tunnel_ends_its_requests_at_once() {
    let world = Setup::new().relayed().start().await;
    let caller = world.caller();
    let (mut reply, _exchange) = stream(&world, &caller, Protocol::Http1).await;
    let mut played = world.ollama().play("/api/show");
    let before_the_head = spawn_get(&caller, "/api/show");
    let mut waiting = played.next().await;
    let started = Instant::now();
    world.relay().cut(Cut::Reset).await;
    assert_eq!(with_deadline("an answer", before_the_head).await.unwrap().error(), (502, "tunnel_lost"));
    assert!(reply.rest().await.1.is_err(), "a cut stream ended cleanly");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    // The desktop lets go of the work that nobody waits for.
    waiting.caller_leaves().await;
    assert!(played.is_empty(), "a request ran twice");
}

#[tokio::test]
async fn f03_the_server_is_killed_and_comes_back() {
    let mut world = Setup::new().start().await;
    let caller = world.caller();
    let (mut reply, mut exchange) = stream(&world, &caller, Protocol::Http1).await;
    world.take_server().kill();
    assert!(reply.rest().await.1.is_err(), "a cut stream ended cleanly");
    exchange.caller_leaves().await;
    world.start_server();
    world.client().connected(2).await;
    assert_eq!(world.caller().get("/api/version").await.status(), 200);
}

#[tokio::test]
async fn the_client_may_start_before_the_server() {
    let mut world = Setup::new().without_desktop().start().await;
    world.take_server().kill();
    let client = TestClient::start(world.client_config(&pki::token(ALICE), "desktop", world.ollama().addr()));
    client.event("a failed attempt", disconnected).await;
    assert!(!client.has_stopped());
    world.start_server();
    client.connected(1).await;
    assert_eq!(world.caller().get("/api/version").await.status(), 200);
}

#[tokio::test]
async fn a_request_in_the_gap_waits_for_the_desktop() {
    let world = Setup::new().relayed().start().await;
    let caller = world.caller();
    world.relay().refuse();
    world.relay().cut(Cut::Reset).await;
    offline(&caller).await;
    let waiting = spawn_get(&caller, "/echo/waited");
    world.relay().admit();
    assert_eq!(with_deadline("an answer", waiting).await.unwrap().status(), 200);
    assert_eq!(world.ollama().received().len(), 1);
}

#[tokio::test]
async fn a_request_in_the_gap_waits_two_seconds_at_most() {
    let world = Setup::new().relayed().start().await;
    let caller = world.caller();
    world.relay().refuse();
    world.relay().cut(Cut::Reset).await;
    offline(&caller).await;
    let started = Instant::now();
    assert_eq!(caller.get("/echo").await.error(), (503, "tunnel_offline"));
    let waited = started.elapsed();
    assert!(waited > Duration::from_millis(1500) && waited < Duration::from_secs(6), "{waited:?}");
}

#[tokio::test]
async fn a_caller_who_waits_may_leave() {
    let world = Setup::new().relayed().start().await;
    let caller = world.caller();
    world.relay().refuse();
    world.relay().cut(Cut::Reset).await;
    offline(&caller).await;
    let waiting = spawn_get(&caller, "/echo/left");
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    world.relay().admit();
    world.client().connected(2).await;
    assert_eq!(caller.get("/echo/stayed").await.status(), 200);
    let targets: Vec<_> = world.ollama().received().into_iter().map(|head| head.target).collect();
    assert_eq!(targets, ["/echo/stayed"]);
}

#[tokio::test]
async fn f08_three_seconds_of_silence_are_no_loss() {
    let world = Setup::new().relayed().start().await;
    let caller = world.caller();
    let mut open = stream(&world, &caller, Protocol::Http2).await;
    goes_on(&mut open).await;
    world.relay().freeze();
    let asked = spawn_get(&caller, "/echo");
    tokio::time::sleep(Duration::from_secs(3)).await; // the fault itself
    assert!(!asked.is_finished());
    world.relay().thaw();
    assert_eq!(with_deadline("an answer", asked).await.unwrap().status(), 200);
    goes_on(&mut open).await;
    ends_well(open).await;
    assert_eq!(world.client().connections(), 1);
}

#[tokio::test]
async fn f01_a_lost_network_is_noticed_at_both_ends() {
    let world = Setup::new().relayed().start().await;
    let caller = world.caller();
    let mut played = world.ollama().play("/api/chat");
    let waiting = spawn_get(&caller, "/api/chat");
    let mut exchange = played.next().await;
    world.relay().freeze();
    let started = Instant::now();
    assert_eq!(with_deadline("an answer", waiting).await.unwrap().error(), (502, "tunnel_lost"));
    offline(&caller).await;
    world.client().event("the client notices", disconnected).await;
    exchange.caller_leaves().await;
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
    world.relay().thaw();
    world.client().connected(2).await;
    assert_eq!(caller.get("/api/version").await.status(), 200);
}

/// Waits until a listener on `addr` would find it free.
async fn free(addr: SocketAddr) {
    eventually("the draining server does not listen any more", async || std::net::TcpListener::bind(addr).ok()).await;
}

#[tokio::test]
async fn f04_a_server_that_stops_finishes_its_streams() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut world = Setup::new().start().await;
        let caller = world.caller();
        let mut open = stream(&world, &caller, protocol).await;
        goes_on(&mut open).await;
        let old = world.take_server();
        old.ask_to_stop();
        free(old.addr()).await;
        goes_on(&mut open).await;
        // A second server in its place, as when a service restarts: the desktop goes there, the stream stays.
        world.start_server();
        world.client().connected(2).await;
        assert_eq!(caller.get("/api/version").await.status(), 200);
        goes_on(&mut open).await;
        assert!(!old.has_stopped(), "{protocol:?}");
        ends_well(open).await;
        eventually("the old server ends with its last stream", async || old.has_stopped().then_some(())).await;
        assert_eq!(caller.get("/api/version").await.status(), 200);
        assert_eq!(world.client().connections(), 2, "{protocol:?}");
    }
}

#[tokio::test]
async fn f04_a_server_without_streams_stops_at_once() {
    let world = Setup::new().start().await;
    assert_eq!(world.caller().get("/api/version").await.status(), 200);
    let mut idle = world.caller().connect(Protocol::Http1).await;
    let request = world.caller().request(Method::GET, "/api/version", body::empty());
    assert_eq!(idle.send(request).await.text().await, "{\"version\":\"0.0.0\"}");
    let started = Instant::now();
    world.server().ask_to_stop();
    eventually("the server ends", async || world.server().has_stopped().then_some(())).await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    world.client().event("the client is told", disconnected).await;
}

#[tokio::test]
async fn f04_a_server_that_stops_answers_a_request_whose_head_has_begun() {
    let world = Setup::new().start().await;
    let caller = world.caller();
    let (start, rest) = ("GET /healthz HTTP/1.1\r\n", format!("{}\r\n", caller.raw_headers()));
    let (mut new, mut used) = (caller.socket(Protocol::Http1).await, caller.socket(Protocol::Http1).await);
    used.write_all(format!("{start}{rest}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}\n") {
        with_deadline("a first answer", used.read_buf(&mut answer)).await.unwrap();
    }
    for socket in [&mut new, &mut used] {
        socket.write_all(start.as_bytes()).await.unwrap();
    }
    let mut idle = caller.socket(Protocol::Http1).await;
    world.server().ask_to_stop();
    let closed = with_deadline("the idle connection is closed", idle.read(&mut [0])).await;
    assert!(matches!(closed, Ok(0)), "{closed:?}");
    for mut socket in [new, used] {
        socket.write_all(rest.as_bytes()).await.unwrap();
        let mut answer = String::new();
        with_deadline("an answer, and the end", socket.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_stops_finishes_its_streams() {
    let world = Setup::new().start().await;
    let caller = world.caller();
    let mut open = stream(&world, &caller, Protocol::Http1).await;
    goes_on(&mut open).await;
    world.client().ask_to_stop();
    let draining = |event: &Event| matches!(event, Event::Draining { in_flight: 1 }).then_some(());
    world.client().event("the client drains", draining).await;
    goes_on(&mut open).await;
    eventually("new requests are refused", async || {
        let reply = caller.get("/api/version").await;
        matches!(reply.error(), (503, "tunnel_offline" | "draining")).then_some(())
    })
    .await;
    goes_on(&mut open).await;
    assert!(!world.client().has_stopped());
    ends_well(open).await;
    eventually("the client ends with its last stream", async || world.client().has_stopped().then_some(())).await;
}

#[tokio::test]
async fn a_client_that_stops_hands_over_to_another() {
    let world = Setup::new().start().await;
    let caller = world.caller();
    let mut open = stream(&world, &caller, Protocol::Http2).await;
    let other = Ollama::start();
    let _older_by_name_only = world.connect(ALICE, "other", other.addr()).await;
    world.client().ask_to_stop();
    let draining = |event: &Event| matches!(event, Event::Draining { .. }).then_some(());
    world.client().event("the client drains", draining).await;
    for _ in 0..10 {
        assert_eq!(caller.get("/echo").await.status(), 200);
    }
    assert_eq!(other.received().len(), 10);
    goes_on(&mut open).await;
    ends_well(open).await;
}

#[tokio::test]
async fn a_client_without_streams_stops_at_once() {
    let world = Setup::new().start().await;
    let started = Instant::now();
    world.client().ask_to_stop();
    eventually("the client ends", async || world.client().has_stopped().then_some(())).await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    offline(&world.caller()).await;
}

#[tokio::test]
async fn a_first_refusal_is_final() {
    let world = Setup::new().start().await;
    let expired = SystemTime::now() - Duration::from_secs(3600);
    let request = MintRequest { ttl: Duration::from_secs(1), ..MintRequest::new(ALICE) };
    let expired = mint::mint_at(&pki::secret(), &request, expired).unwrap();
    let stranger = Secret::new("a secret that this server has never seen").unwrap();
    let invalid = mint::mint(&stranger, &MintRequest::new(ALICE)).unwrap();
    for (token, name, code) in [
        (expired.as_str(), "other", "token_expired"),
        (&invalid, "other", "token_invalid"),
        (&pki::token(ALICE), "desktop", "name_in_use"),
    ] {
        let client = TestClient::start(world.client_config(token, name, world.ollama().addr()));
        let said = client.refused().await;
        assert!(said.contains(code) && !said.contains(token), "{said}");
        eventually("the client ends", async || client.has_stopped().then_some(())).await;
    }
}

#[tokio::test]
async fn a_later_refusal_is_not_final() {
    let strange = Arc::new(AtomicBool::new(false));
    let secret = {
        let strange = Arc::clone(&strange);
        move |config: &mut tunneld::config::Config| {
            if strange.load(Ordering::SeqCst) {
                config.auth.secret = Some(Secret::new("another secret, given by mistake or for ever").unwrap());
            }
        }
    };
    let mut world = Setup::new().server(secret).start().await;
    world.take_server().kill();
    strange.store(true, Ordering::SeqCst);
    world.start_server();
    let refused = |event: &Event| match event {
        Event::Refused { code, retry_in, .. } => Some((code.clone(), *retry_in)),
        _ => None,
    };
    let (code, retry_in) = world.client().event("a refusal", refused).await;
    assert_eq!((code.as_str(), retry_in), ("token_invalid", Duration::from_secs(30)));
    assert!(!world.client().has_stopped());
}

#[tokio::test]
async fn t56_a_server_with_a_strange_certificate_gets_no_token() {
    let world = Setup::new().without_desktop().start().await;
    let stranger = Pki::new();
    let mut config = world.client_config(&pki::token(ALICE), "desktop", world.ollama().addr());
    config.ca = Some(stranger.ca());
    let client = TestClient::start(config);
    let said = tokio::select! {
        reason = client.event("a failed attempt", disconnected) => reason,
        reason = client.refused() => reason,
    };
    assert!(said.to_lowercase().contains("certificate"), "{said}");
    assert_eq!(client.connections(), 0);
}

#[tokio::test]
async fn t12_a_new_token_in_the_file_takes_over_before_the_old_one_ends() {
    let world = Setup::new().without_desktop().start().await;
    let ttl = Duration::from_secs(1);
    let minted = SystemTime::now() + Duration::from_secs(5) - ttl - tunneld::auth::LEEWAY;
    let old = mint::mint_at(&pki::secret(), &MintRequest { ttl, ..MintRequest::new(ALICE) }, minted).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{old}").unwrap();
    let mut config = world.client_config(&old, "desktop", world.ollama().addr());
    config.token = TokenSource::File(file.path().to_owned());
    let client = TestClient::start(config);
    client.connected(1).await;
    std::fs::write(file.path(), pki::token(ALICE)).unwrap();
    let caller = world.caller();
    let renewed = async {
        client.connected(2).await;
        client.connections()
    };
    let requests = async {
        loop {
            assert_eq!(caller.get("/api/version").await.status(), 200, "a request was lost in the renewal");
        }
    };
    let times = tokio::select! {
        times = renewed => times,
        () = requests => unreachable!("an endless loop"),
    };
    assert_eq!(times, 2);
    assert_eq!(caller.get("/api/version").await.status(), 200);
    let gaps: Vec<_> = client.events().iter().filter_map(disconnected).collect();
    assert!(gaps.is_empty(), "the desktop was gone in between: {gaps:?}");
}
