//! An HTTP proxy as companies have them: CONNECT only, maybe with a user and password.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    background::{Background, Flavour},
    ollama::bind,
};

/// A proxy on a free port of the loopback interface.
#[derive(Debug)]
pub struct ConnectProxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _background: Background,
}

#[derive(Debug)]
struct Shared {
    /// Where every way leads, whatever was asked for: tests have no names in DNS.
    target: SocketAddr,
    door: Door,
    /// The heads of requests, whole.
    asked: Mutex<Vec<String>>,
}

/// Whom a proxy lets through.
#[derive(Debug, Clone, Copy)]
pub enum Door {
    /// Everyone.
    Open,
    /// Who has `USER:PASSWORD`.
    Locked(&'static str),
    /// Nobody: 403.
    Shut,
}

impl ConnectProxy {
    /// Starts a proxy all of whose ways lead to `target`.
    #[must_use]
    pub fn to(target: SocketAddr, door: Door) -> Self {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)));
        let addr = listener.local_addr().expect("a bound address");
        let shared = Arc::new(Shared { target, door, asked: Mutex::default() });
        let background = Background::spawn("proxy", Flavour::Current, {
            let shared = Arc::clone(&shared);
            move |stop| accept(listener, shared, stop)
        });
        Self { addr, shared, _background: background }
    }

    /// Its URL, with `USER:PASSWORD@` if given.
    #[must_use]
    pub fn url(&self, credential: &str) -> String {
        let at = if credential.is_empty() { "" } else { "@" };
        format!("http://{credential}{at}{}", self.addr)
    }

    /// The heads of the requests so far.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    let connections = TaskTracker::new();
    let accepting = async {
        while let Ok((stream, _)) = listener.accept().await {
            let (shared, stop) = (Arc::clone(&shared), stop.clone());
            connections.spawn(async move {
                tokio::select! {
                    _ended = serve(stream, &shared) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
    };
    tokio::select! {
        () = accepting => {}
        () = stop.cancelled() => {}
    }
    connections.close();
    connections.wait().await;
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    shared.asked.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
    let has_credential = |credential| {
        let wanted = format!("proxy-authorization: basic {}", BASE64_STANDARD.encode(credential)).to_lowercase();
        head.lines().any(|line| line.to_lowercase() == wanted)
    };
    let answer = match shared.door {
        _ if !head.starts_with("CONNECT ") => "405 Method Not Allowed",
        Door::Shut => "403 Forbidden",
        Door::Locked(credential) if !has_credential(credential) => {
            "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"office\""
        }
        Door::Open | Door::Locked(_) => "200 Connection established",
    };
    stream.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).await?;
    if answer.starts_with("200") {
        let mut target = TcpStream::connect(shared.target).await?;
        copy_bidirectional(&mut stream, &mut target).await?;
    }
    Ok(())
}
