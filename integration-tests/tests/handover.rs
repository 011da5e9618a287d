//! One server after the other on a socket that a service manager holds: who connects meanwhile is served by either.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    net::TcpListener,
    os::unix::net::UnixDatagram,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use integration_tests::{
    binaries::{Program, Signal},
    body,
    eventually::eventually,
    jwt::{claims, hs256},
    ollama::Ollama,
    workshop::Workshop,
};

/// What systemd does for a program: it holds the socket, and is told how the program is.
struct Manager {
    shop: Workshop,
    socket: TcpListener,
    told: UnixDatagram,
}

impl Manager {
    async fn new() -> Self {
        let shop = Workshop::new().await;
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let told = UnixDatagram::bind(shop.path("notify")).unwrap();
        told.set_nonblocking(true).unwrap();
        Self { shop, socket, told }
    }

    async fn start(&self) -> Program {
        let mut args = self.shop.server_args();
        args[1] = self.socket.local_addr().unwrap().to_string();
        let server =
            Program::tunneld_on(&self.socket, &self.shop.path("notify"), ["serve".to_owned()].into_iter().chain(args));
        self.hears("READY=1").await;
        server
    }

    async fn hears(&self, state: &str) {
        let heard = eventually("a word from the server", async || {
            let mut buffer = [0; 64];
            let len = self.told.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..len]).into_owned())
        });
        assert_eq!(heard.await.trim(), state);
    }
}

#[tokio::test]
async fn f04_servers_that_share_a_socket_take_over_without_a_lost_request() {
    let manager = Manager::new().await;
    let addr = manager.socket.local_addr().unwrap();
    let upstream = Ollama::start();
    let mut played = upstream.play("/api/chat");
    let mut server = manager.start().await;
    let _client = manager.shop.connect(addr, upstream.addr(), &[]).await;
    let caller = manager.shop.caller(addr).with_token(&hs256(&claims("alice")));
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = std::iter::repeat_with(|| {
        let (caller, stop, count) = (caller.clone(), Arc::clone(&stop), Arc::clone(&answered));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let reply = caller.get("/api/version").await;
                assert_eq!(reply.status(), 200, "{:?}", reply.error());
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
    })
    .take(4)
    .collect();
    let more_are_served = async || {
        let before = answered.load(Ordering::Relaxed);
        eventually("more requests", async || (answered.load(Ordering::Relaxed) > before + 20).then_some(())).await;
    };
    for _ in 0..3 {
        more_are_served().await;
        let (mut reply, mut exchange) =
            tokio::join!(caller.post("/api/chat", body::empty()), played.start_ok("application/x-ndjson"));
        let successor = manager.start().await;
        server.signal(Signal::Terminate);
        manager.hears("STOPPING=1").await;
        more_are_served().await;
        // What began at the old server ends there, long after the new one has taken over.
        exchange.send("{}\n").await.unwrap();
        reply.expect("{}\n").await;
        exchange.end();
        assert!(reply.rest().await.1.is_ok());
        drop(reply);
        assert_eq!(server.wait().await.code(), Some(0));
        server = successor;
    }
    more_are_served().await;
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
}

#[tokio::test]
async fn who_connects_between_two_servers_waits() {
    let manager = Manager::new().await;
    let addr = manager.socket.local_addr().unwrap();
    let mut server = manager.start().await;
    server.signal(Signal::Terminate);
    assert_eq!(server.wait().await.code(), Some(0));
    manager.hears("STOPPING=1").await;
    let caller = manager.shop.caller(addr);
    let call = tokio::spawn(async move { caller.get("/healthz").await.status() });
    tokio::time::sleep(Duration::from_millis(50)).await; // no matter when it connects: it is not refused
    assert!(!call.is_finished(), "nobody serves");
    let _server = manager.start().await;
    assert_eq!(call.await.unwrap(), 200);
}

#[tokio::test]
async fn a_passed_socket_without_a_setting_is_one_line_and_64() {
    let manager = Manager::new().await;
    let args = ["serve".to_owned()].into_iter().chain(manager.shop.server_args()); // --listen 127.0.0.1:0
    let mut server = Program::tunneld_on(&manager.socket, &manager.shop.path("notify"), args);
    assert_eq!(server.wait().await.code(), Some(64));
    let errors: Vec<_> = server.errors().into_iter().filter(|line| line.starts_with("error: ")).collect();
    let addr = manager.socket.local_addr().unwrap().to_string();
    assert!(matches!(&errors[..], [line] if line.contains(&addr) && line.contains("ListenStream=")), "{errors:?}");
}
