//! Gigabytes through the real programs: every byte arrives, and neither program holds more than a little of them.
//!
//! Long, so `#[ignore]`: `scripts/test --all` runs it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use http::StatusCode;
use integration_tests::{
    binaries::Program,
    body::{self, Length},
    caller::{Caller, Protocol},
    ollama::Ollama,
    pattern::Check,
    workshop::Workshop,
};

/// Each way.
const VOLUME: u64 = 2 << 30;

/// What either program may grow by, from idle to the peak.
const GROWTH: u64 = 16 << 20;

/// The real programs in front of a fake Ollama.
struct Programs {
    server: Program,
    client: Program,
    caller: Caller,
    _ollama: Ollama,
    _shop: Workshop,
}

impl Programs {
    /// Started and used once: what is allocated at first use is no growth.
    async fn start() -> Self {
        let ollama = Ollama::start();
        let shop = Workshop::new().await;
        let deadlines = ["--stream-deadline", "10m", "--stall-timeout", "1m"];
        let (server, addr) = shop.serve(&deadlines).await;
        let client = shop.connect(addr, ollama.addr(), &[]).await;
        let caller = shop.caller(addr).with_token(&shop.token(&["--user", "alice"]).await);
        let warm = caller.post("/sink", body::generated(1 << 20, Length::Fixed)).await;
        assert_eq!(warm.status(), StatusCode::OK);
        Self { server, client, caller, _ollama: ollama, _shop: shop }
    }

    /// What the server and the client hold now, and the most they ever held.
    fn memory(&self) -> Option<[(u64, u64); 2]> {
        let (server, client) = (self.server.memory()?, self.client.memory()?);
        Some([(server.resident, server.peak), (client.resident, client.peak)])
    }
}

/// Compares the peaks with what was held before.
fn assert_bounded(before: Option<[(u64, u64); 2]>, after: Option<[(u64, u64); 2]>) {
    let (Some(before), Some(after)) = (before, after) else { return };
    for (name, before, after) in [("tunneld", before[0], after[0]), ("tunnel", before[1], after[1])] {
        let growth = after.1.saturating_sub(before.0);
        assert!(growth < GROWTH, "{name} grew by {} KiB, from {} KiB", growth >> 10, before.0 >> 10);
    }
}

#[tokio::test]
#[ignore = "two GiB: scripts/test --all"]
async fn two_gib_up_with_little_memory() {
    let programs = Programs::start().await;
    let before = programs.memory();
    let request = programs.caller.request(http::Method::POST, "/sink", body::generated(VOLUME, Length::Fixed));
    let mut connection = programs.caller.connect(Protocol::Http1).await;
    let sunk = connection.try_send(request).await.unwrap().json().await;
    assert_eq!((sunk["length"].as_u64(), &sunk["damaged_at"]), (Some(VOLUME), &serde_json::Value::Null));
    assert_bounded(before, programs.memory());
}

#[tokio::test]
#[ignore = "two GiB: scripts/test --all"]
async fn two_gib_down_with_little_memory() {
    let programs = Programs::start().await;
    let before = programs.memory();
    let mut reply = programs.caller.get(&format!("/bytes?n={VOLUME}")).await;
    let mut check = Check::default();
    while let Some(piece) = reply.next().await {
        check.push(&piece.unwrap());
    }
    assert_eq!((check.length(), check.damaged_at()), (VOLUME, None));
    assert_bounded(before, programs.memory());
}
