//! A hostile desktop: any bytes to the real `tunneld` behind a good handshake.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    stage::Stage,
    tunnel::{Mask, Peer},
};
use crate::{
    caller::{Caller, Protocol},
    jwt::{claims, hs256},
};

/// A desktop of `user`, connected and welcome, and a caller of the same user.
pub async fn connect(stage: &Stage, user: &str) -> (Peer, Caller) {
    let caller = stage.caller().with_token(&hs256(&claims(user)));
    let mut socket = caller.socket(Protocol::Http1).await;
    let head = format!(
        "GET /ws/tunnel HTTP/1.1\r\n{}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: tunnel.yamux.v1\r\n\r\n",
        caller.raw_headers()
    );
    socket.write_all(head.as_bytes()).await.expect("a server that takes the handshake");
    socket.flush().await.expect("a server that takes the handshake");
    let mut answer = Vec::new();
    let end = loop {
        if let Some(at) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        let reading = timeout(Duration::from_secs(20), socket.read_buf(&mut answer)).await;
        assert!(matches!(reading, Ok(Ok(1..))), "no answer to the handshake: {}", String::from_utf8_lossy(&answer));
    };
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    let mut peer = Peer::new(socket, Mask::Zeros, &answer[end..]);
    // The welcome is sent before the tunnel answers anything else.
    assert_eq!(peer.fate().await, Some(super::tunnel::Fate::Lives));
    (peer, caller)
}
