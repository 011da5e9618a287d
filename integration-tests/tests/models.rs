//! What a desktop offers, in the status that its user asks the server for.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use integration_tests::{admin::Administered, eventually::eventually, ollama::Ollama, setup::Setup};
use serde_json::{Value, json};
use tunnel::event::Event;
use tunnel_frame::policy::Rule;

/// What the status says of the upstream of the only desktop, as soon as it says something.
async fn offers(this: &Administered) -> Value {
    let caller = this.world.caller();
    eventually("an upstream in the status", async || {
        let status = caller.get("/api/tunnel/status").await.json().await;
        Some(status["tunnels"][0]["upstream"].clone()).filter(|upstream| !upstream.is_null())
    })
    .await
}

#[tokio::test]
async fn the_status_has_the_upstream_s_version_and_models() {
    let this = Administered::start(Setup::new().client(|config| config.report_models = true)).await;
    let expected = json!({"version": "0.0.0", "models": ["fake:latest"], "left_out": 0});
    assert_eq!(offers(&this).await, expected);
    let tunnels = this.admin().get("/tunnels").await.json().await;
    assert_eq!(tunnels["tunnels"][0]["upstream"], expected);
    // Nobody else's.
    let other = this.world.caller_for("bob").get("/api/tunnel/status").await.text().await;
    assert!(!other.contains("fake"), "{other}");
    // The next tunnel tells it anew.
    let kick = format!("/tunnels/{}/kick", tunnels["tunnels"][0]["id"].as_str().unwrap());
    this.admin().post(&kick, integration_tests::body::empty()).await;
    this.world.client().connected(2).await;
    assert_eq!(offers(&this).await, expected);
}

#[tokio::test]
async fn an_upstream_that_starts_after_its_desktop_is_seen_and_told_of() {
    let addr = Ollama::start().addr();
    let setup = Setup::new().upstream(addr).client(|config| config.report_models = true);
    let this = Administered::start(setup).await;
    let client = this.world.client();
    client.event("nothing answers", |event| matches!(event, Event::UpstreamDown { .. }).then_some(())).await;
    let _ollama = Ollama::start_on(addr);
    client.event("it answers", |event| matches!(event, Event::UpstreamUp).then_some(())).await;
    assert_eq!(offers(&this).await, json!({"version": "0.0.0", "models": ["fake:latest"], "left_out": 0}));
}

#[tokio::test]
async fn what_the_desktop_does_not_allow_is_not_told() {
    let setup = Setup::new().client(|config| {
        config.report_models = true;
        config.allow = vec!["GET /api/version".parse::<Rule>().unwrap()];
    });
    let this = Administered::start(setup).await;
    assert_eq!(offers(&this).await, json!({"version": "0.0.0", "models": [], "left_out": 0}));
    let asked: Vec<_> = this.world.ollama().received().into_iter().map(|received| received.target).collect();
    assert_eq!(asked, ["/api/version"]);
}
