//! A desktop's handshake by hand: for the answers that `tunnel connect` never provokes, and for a desktop that does
//! nothing at all once it is connected.

use futures_util::StreamExt;
use http::{HeaderValue, Method, Request};
use serde_json::Value;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, handshake::client::generate_key, protocol::CloseFrame},
};

use crate::{
    body::{self, Body},
    caller::{Caller, Io, Reply},
    eventually::with_deadline,
};

/// Where desktops connect.
pub const PATH: &str = "/ws/tunnel";

/// The one version of the wire.
pub const SUBPROTOCOL: &str = "tunnel.yamux.v1";

/// A handshake as a desktop sends it, with the token of `caller`, under `name`, as a new instance.
#[must_use]
pub fn request(caller: &Caller, name: &str) -> Request<Body> {
    let mut request = caller.request(Method::GET, PATH, body::empty());
    let instance = uuid::Uuid::now_v7().to_string();
    let key = generate_key();
    for (field, value) in [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", &key),
        ("sec-websocket-protocol", SUBPROTOCOL),
        ("tunnel-name", name),
        ("tunnel-instance", &instance),
    ] {
        request.headers_mut().insert(field, HeaderValue::from_str(value).expect("a value"));
    }
    request
}

/// Sends the usual handshake and gives the answer: 101, or a refusal.
pub async fn knock(caller: &Caller, name: &str) -> Reply {
    caller.send(request(caller, name)).await
}

/// A desktop that is connected and says nothing more. It answers no ping while nobody reads from it.
pub struct IdleDesktop {
    ws: WebSocketStream<Box<dyn Io>>,
    /// What the server said first: who, where, under which name.
    pub welcome: Value,
}

impl IdleDesktop {
    /// Connects and reads the welcome. `instance` is the process that it claims to be.
    pub async fn connect(caller: &Caller, name: &str, instance: &str) -> Self {
        let mut with_uri = request(caller, name).map(|_body| ());
        let host = with_uri.headers()["host"].to_str().expect("a host").to_owned();
        *with_uri.uri_mut() = format!("ws://{host}{PATH}").parse().expect("a URI");
        with_uri.headers_mut().insert("tunnel-instance", HeaderValue::from_str(instance).expect("an instance"));
        let socket = caller.socket(crate::caller::Protocol::Http1).await;
        let connecting = with_deadline("a handshake by hand", client_async(with_uri, socket));
        let (mut ws, _response) = connecting.await.expect("a tunnel");
        let welcome = text(&mut ws).await.expect("a welcome");
        assert_eq!(welcome["type"], "welcome");
        Self { ws, welcome }
    }

    /// The next control message of the server; `None` when it closes or is gone.
    pub async fn control(&mut self) -> Option<Value> {
        text(&mut self.ws).await
    }

    /// Says goodbye in these words.
    pub async fn close(mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        with_deadline("a goodbye by hand", self.ws.close(Some(frame))).await.expect("an open tunnel");
        let _answered = self.closed().await;
    }

    /// Reads on until the server closes the tunnel: code and reason, where it gave them.
    pub async fn closed(&mut self) -> Option<(u16, String)> {
        loop {
            match with_deadline("the server closes the tunnel", self.ws.next()).await {
                Some(Ok(Message::Close(frame))) => return frame.as_ref().map(reason),
                Some(Ok(_other)) => {}
                Some(Err(Error::ConnectionClosed | Error::Io(_) | Error::Protocol(_))) | None => return None,
                Some(Err(other)) => panic!("{other}"),
            }
        }
    }
}

fn reason(frame: &CloseFrame) -> (u16, String) {
    (frame.code.into(), frame.reason.as_str().to_owned())
}

async fn text(ws: &mut WebSocketStream<Box<dyn Io>>) -> Option<Value> {
    loop {
        match with_deadline("a control message", ws.next()).await? {
            Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).expect("JSON")),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_bytes_or_ping) => {}
        }
    }
}
