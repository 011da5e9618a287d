//! A hostile desktop under the frames of a stream: WebSocket and yamux toward the real `tunneld`. It may cost the
//! desktop its own tunnel, and nobody else anything.

use integration_tests::attack::{
    self, desktop,
    stage::{Stage, Way},
    tunnel::Fate,
};

use crate::wire_cases::{Case, Side, WEBSOCKET, YAMUX};

/// Only a server meets these.
const TOWARD_SERVER: &[Case] = &[
    ("T66 a stream opened by a desktop", |s| s.yamux(&[s.syn(2)]), &[Fate::Closed(1002)]),
    ("T66 a stream with the server's id", |s| s.yamux(&[s.syn(1)]), &[Fate::Closed(1002)]),
    (
        "T66 a thousand streams",
        |s| s.yamux(&(1..1000).map(|n| s.syn(2 * n)).collect::<Vec<_>>()),
        &[Fate::Closed(1002)],
    ),
    (
        "a frame that is not masked",
        |_| attack::tunnel::ws(0x82, attack::tunnel::Mask::None, b"x"),
        &[Fate::Closed(1002)],
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t45_t46_t66_a_desktop_can_only_end_its_own_tunnel() {
    run(Way::Direct).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn t45_t46_t66_a_desktop_can_only_end_its_own_tunnel_behind_nginx() {
    run(Way::Nginx).await;
}

async fn run(way: Way) {
    let mut stage = Stage::start(way, &[]).await;
    let cases = [WEBSOCKET, YAMUX, TOWARD_SERVER].concat();
    attack::run(&format!("WebSocket and yamux toward the server, {way:?}"), &cases, async |number, case| {
        let (name, attack, fates) = case;
        let (mut peer, _caller) = desktop::connect(&stage, &format!("mallory-{number}")).await;
        peer.send(&attack(Side::Desktop)).await;
        match peer.fate().await {
            Some(fate) if fates.contains(&fate) => Ok(()),
            fate => Err(format!("{name}: {fates:?} but {fate:?}")),
        }
    })
    .await;
    stage.is_unharmed(0).await;
}
