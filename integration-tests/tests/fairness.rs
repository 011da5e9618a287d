//! Who shares a tunnel or a server shares it fairly: one stream, one desktop, never holds up another. That one user
//! does not use up what another needs is in `isolation` (T49).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_util::future::join_all;
use integration_tests::{
    body::{self, Length},
    caller::Caller,
    client::TestClient,
    eventually::with_deadline,
    ollama::Ollama,
    pki,
    relay::Relay,
    setup::{ALICE, Setup},
};
use tokio::task::JoinSet;

/// Whose desktop fails.
const BOB: &str = "bob";

/// More than any of these tests reads.
const ENDLESS: u64 = 1 << 40;

/// Downloads for ever; counts.
async fn download(caller: Caller, read: Arc<AtomicU64>) {
    let mut reply = caller.get(&format!("/bytes?n={ENDLESS}")).await;
    while let Some(Ok(piece)) = reply.next().await {
        read.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_model_s_tokens_and_bulk_in_both_directions_share_a_tunnel() {
    let world = Setup::new().start().await;
    let caller = world.caller();
    let counts: Vec<_> = (0..8).map(|_| Arc::new(AtomicU64::new(0))).collect();
    let mut bulk: JoinSet<()> = counts.iter().map(|read| download(caller.clone(), Arc::clone(read))).collect();
    for _ in 0..2 {
        let caller = caller.clone();
        bulk.spawn(async move {
            caller.post("/sink", body::generated(ENDLESS, Length::Unknown)).await;
        });
    }
    let stalled = join_all((0..4).map(|_| caller.get("/bytes?n=100000000"))).await;
    let mut played = world.ollama().play("/api/chat");
    let (mut reply, mut exchange) =
        tokio::join!(caller.post("/api/chat", body::empty()), played.start_ok("application/x-ndjson"));
    let before: Vec<_> = counts.iter().map(|read| read.load(Ordering::Relaxed)).collect();
    for number in 0..20 {
        let record = format!("{{\"n\":{number}}}\n");
        exchange.send(record.clone()).await.unwrap();
        reply.expect(record).await;
    }
    assert_eq!(caller.get("/api/version").await.status(), 200);
    for (read, before) in counts.iter().zip(before) {
        let moved = async {
            while read.load(Ordering::Relaxed) == before {
                tokio::task::yield_now().await;
            }
        };
        with_deadline("each bulk body moves as well", moved).await;
    }
    assert!(bulk.try_join_next().is_none(), "the bulk lasted through all of it");
    drop(stalled);
}

#[tokio::test]
async fn a_desktop_that_reads_nothing_holds_up_no_other() {
    let world = Setup::new().start().await;
    let (bobs, server) = (Ollama::start(), world.server().addr());
    let relay = Relay::to(server);
    let mut config = world.client_config(&pki::token(BOB), "desktop", bobs.addr());
    config.server.as_mut().unwrap().set_port(Some(relay.addr().port())).unwrap();
    let bob = TestClient::start(config);
    bob.connected(1).await;
    assert_eq!(world.caller_for(BOB).get("/api/version").await.status(), 200);
    relay.freeze();
    // Uploads fill all that lies between; requests wait for an answer that cannot come.
    let mut stuck: JoinSet<()> = JoinSet::new();
    for _ in 0..16 {
        let caller = world.caller_for(BOB);
        stuck.spawn(async move {
            caller.post("/sink", body::generated(ENDLESS, Length::Unknown)).await;
        });
    }
    let caller = world.caller_for(ALICE);
    for _ in 0..20 {
        let reply = with_deadline("an answer", caller.get("/api/version")).await;
        assert_eq!(reply.status(), 200);
    }
    assert!(stuck.try_join_next().is_none(), "bob's requests still wait");
}
