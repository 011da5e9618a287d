//! `tunneld` inside the test's process, on a port of its own.

use std::{net::SocketAddr, sync::mpsc};

use tunneld::{config::Config, server::Server};

use crate::{
    background::{Background, Flavour},
    eventually::LIMIT,
};

/// A running server. Dropped, it is asked to stop as by a SIGTERM, and cut if that takes long.
#[derive(Debug)]
pub struct TestServer {
    addr: SocketAddr,
    background: Background,
}

impl TestServer {
    /// Starts with `config`, on whatever thread and address that takes; panics with the reason where it cannot.
    #[must_use]
    pub fn start(config: Config) -> Self {
        let (bound, started) = mpsc::sync_channel(1);
        let background = Background::spawn("tunneld", Flavour::Multi, move |stop| async move {
            let server = match Server::bind(config).await {
                Ok(server) => server,
                Err(error) => return bound.send(Err(error.to_string())).expect("the test waits"),
            };
            bound.send(Ok(server.local_addr())).expect("the test waits");
            server.run(stop.cancelled_owned()).await;
        });
        let addr = started.recv_timeout(LIMIT).expect("a server starts or says why not").expect("a server");
        Self { addr, background }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Asks it to stop, as SIGTERM does, and returns at once.
    pub fn ask_to_stop(&self) {
        self.background.ask_to_stop();
    }

    /// Whether it has stopped.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.background.has_ended()
    }

    /// Ends it as `kill -9` does: sockets close without a word, the port is free.
    pub fn kill(self) {
        self.background.cut();
    }
}
