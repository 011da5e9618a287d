//! A hostile server: any bytes to the real `tunnel`, in the handshake and behind it.

use std::net::Ipv4Addr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    DECIDED,
    recorder::Recorder,
    tunnel::{Mask, Peer},
};
use crate::{
    binaries::Program,
    jwt::{claims, hs256},
    workshop::Workshop,
};

/// What a server says first.
pub const WELCOME: &str =
    r#"{"type":"welcome","tunnel":"t1","user":"alice","name":"desktop","url":"http://localhost","version":"0"}"#;

/// A server for one desktop, whose program it starts.
pub struct HostileServer {
    listener: TcpListener,
    /// The desktop.
    pub client: Program,
}

/// A connection on which the desktop has asked for a tunnel.
pub struct Asked {
    /// The desktop's end.
    pub socket: TcpStream,
    /// Its request.
    pub head: String,
}

impl HostileServer {
    /// Listens, and starts `tunnel connect` with these settings besides.
    pub async fn start(shop: &Workshop, recorder: &Recorder, name: &str, more: &[&str]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound address"));
        let token = shop.file(&format!("{name}.token"), &hs256(&claims("alice")));
        let to = recorder.addr().to_string();
        let args = ["connect", "--token-file", &token, "--server", &url, "--to", &to];
        Self { listener, client: Program::tunnel([&args[..], more].concat()) }
    }

    /// The next connection of the desktop; `None` if it does not come.
    pub async fn asked(&self) -> Option<Asked> {
        let ask = async {
            let (mut socket, _peer) = self.listener.accept().await.ok()?;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                if socket.read_buf(&mut head).await.ok()? == 0 {
                    return None;
                }
            }
            Some(Asked { socket, head: String::from_utf8_lossy(&head).into_owned() })
        };
        timeout(DECIDED, ask).await.ok().flatten()
    }

    /// The same, with a good answer and a welcome.
    pub async fn tunnel(&self) -> Option<Peer> {
        let Asked { mut socket, head } = self.asked().await?;
        socket.write_all(switching(&head, "").as_bytes()).await.ok()?;
        let mut peer = Peer::new(Box::new(socket), Mask::None, &[]);
        peer.text(WELCOME).await;
        Some(peer)
    }
}

/// A good answer to the handshake in `head`, with these fields besides.
#[must_use]
pub fn switching(head: &str, more: &str) -> String {
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    });
    let accept = derive_accept_key(key.unwrap_or_default().as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: \
         tunnel.yamux.v1\r\nSec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
}
