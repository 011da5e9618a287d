//! A hostile server under the frames of a stream, and floods of streams: WebSocket and yamux toward the real `tunnel`.
//! Whatever it does, the desktop is there again for the next server, and its upstream sees nothing of it.

use integration_tests::{
    attack::{
        self,
        recorder::Recorder,
        server::{HostileServer, WELCOME},
        stage::assert_no_panic,
        tunnel::{
            Fate, Peer, TEXT, stream,
            yamux::{self, SYN, data},
        },
        wire,
    },
    workshop::Workshop,
};

use crate::wire_cases::{Case, Side, WEBSOCKET, YAMUX};

const LIVES: &[Fate] = &[Fate::Lives];
const ANY_END: &[Fate] = &[Fate::Closed(1002), Fate::Closed(1008), Fate::Lives];

/// Only a desktop meets these.
#[rustfmt::skip]
const TOWARD_CLIENT: &[Case] = &[
    ("T46 a stream with the desktop's id", |s| s.yamux(&[s.syn(2)]), &[Fate::Closed(1002)]),
    ("T46 the same stream twice", |s| s.yamux(&[s.syn(101), s.syn(101)]), &[Fate::Closed(1002)]),
    ("T46 1,100 streams", |s| s.yamux(&(0..1100).map(|n| s.syn(2 * n + 101)).collect::<Vec<_>>()), &[Fate::Closed(1002)]),
    ("T46 a window of 2^32", |s| s.yamux(&[s.syn(101), yamux::frame(yamux::WINDOW, 0, 101, u32::MAX as usize)]), &[Fate::Closed(1002)]),
    ("T46 more than the window", |s| [s.yamux(&[s.syn(101)]), s.yamux(&[yamux::frame(yamux::DATA, 0, 101, 1 << 20)]), s.ws(0x82, &[0; 200_000]).repeat(6)].concat(), &[Fate::Closed(1002)]),
    ("T47 10,000 streams opened and reset", |s| (0..100).flat_map(|m| s.yamux(&(0..100).flat_map(|n| { let id = 2 * (100 * m + n) + 101; [s.syn(id), yamux::frame(yamux::DATA, yamux::RST, id, 0)] }).collect::<Vec<_>>())).collect(), ANY_END),
    ("T55 500 streams that say nothing", |s| s.yamux(&(0..500).map(|n| s.syn(2 * n + 101)).collect::<Vec<_>>()), LIVES),
    ("T55 500 streams of one byte each", |s| s.yamux(&(0..500).map(|n| data(SYN, 2 * n + 101, &[2])).collect::<Vec<_>>()), LIVES),
    ("T45 a storm of drains", |s| s.ws(TEXT, br#"{"type":"drain","reason":"x"}"#).repeat(2000), &[Fate::Closed(1008)]),
    ("T45 a few drains", |s| s.ws(TEXT, br#"{"type":"drain","reason":"x"}"#).repeat(3), LIVES),
    ("T35 a drain with escapes", |s| s.ws(TEXT, br#"{"type":"drain","reason":"\u001b[2J\r\nERROR evil"}"#), LIVES),
    ("T45 welcome again and again", |s| s.ws(TEXT, WELCOME.as_bytes()).repeat(20), LIVES),
    ("T35 a welcome with escapes", |s| s.ws(TEXT, br#"{"type":"welcome","tunnel":"\u001b[2J","user":"\r\nERROR evil","name":"\u0000","url":"javascript:alert(1)","version":"\u202e"}"#), LIVES),
    ("T45 bye and nothing more", |s| s.ws(TEXT, br#"{"type":"bye","code":1001,"message":"x"}"#), LIVES),
    ("an end without a reason", |s| s.ws(0x88, &[]), &[Fate::Closed(1005), Fate::Gone]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t35_t45_t46_t47_t55_a_server_cannot_harm_the_desktop() {
    let (shop, recorder) = (Workshop::new().await, Recorder::start().await);
    let cases = [WEBSOCKET, YAMUX, TOWARD_CLIENT].concat();
    attack::run("WebSocket and yamux toward the client", &cases, async |number, (name, bytes, fates)| {
        let marker = wire::marker(number);
        let server = HostileServer::start(&shop, &recorder, &marker, &[]).await;
        let judged =
            judge(&server, &marker, &bytes(Side::Server), fates).await.map_err(|what| format!("{name}: {what}"));
        assert_no_panic(&server.client);
        let forged = server.client.errors().into_iter().find(|line| line.starts_with("ERROR evil"));
        assert_eq!(forged, None);
        server.client.signal(integration_tests::binaries::Signal::Kill);
        judged
    })
    .await;
    assert_eq!(recorder.violations(), Vec::<String>::new());
    assert_eq!(recorder.count(), cases.len(), "one good request of each case");
}

async fn judge(server: &HostileServer, marker: &str, bytes: &[u8], fates: &[Fate]) -> Result<(), String> {
    let mut peer = server.tunnel().await.ok_or("the desktop does not come")?;
    peer.send(bytes).await;
    let fate = peer.fate().await.ok_or("no sign of life and no end")?;
    if !fates.contains(&fate) {
        return Err(format!("{fates:?} but {fate:?}"));
    }
    if fate != Fate::Lives || !is_served(&mut peer, marker).await {
        // It comes again, to this server as to any other.
        let mut again = server.tunnel().await.ok_or("the desktop does not come again")?;
        if !is_served(&mut again, marker).await {
            return Err("a normal request is not served any more".to_owned());
        }
    }
    Ok(())
}

/// A normal request on a new stream.
async fn is_served(peer: &mut Peer, marker: &str) -> bool {
    const ID: u32 = 1_000_001;
    peer.binary(&data(SYN, ID, &stream::request("GET", &format!("/{marker}")))).await;
    let mut answer = Vec::new();
    while let Some(frame) = peer.frame().await {
        if frame.stream == ID {
            answer.extend(frame.payload);
            if answer.ends_with(&stream::frame(5, &[])) {
                return answer.windows(5).any(|window| window == [8, 0, 2, 0, 200]);
            }
        }
    }
    false
}
