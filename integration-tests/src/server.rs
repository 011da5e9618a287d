//! `tunneld` inside the test's process, on a port of its own.

use std::{net::SocketAddr, sync::mpsc};

use tunneld::{config::Config, reload::Reloader, server::Server};

use crate::{
    background::{Background, Flavour},
    eventually::LIMIT,
};

/// A running server. Dropped, it is asked to stop as by a SIGTERM, and cut if that takes long.
#[derive(Debug)]
pub struct TestServer {
    addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
    reloader: Reloader,
    background: Background,
}

impl TestServer {
    /// Starts with `config`, on whatever thread and address that takes; panics with the reason where it cannot.
    #[must_use]
    pub fn start(config: Config) -> Self {
        let (bound, started) = mpsc::sync_channel(1);
        let background = Background::spawn("tunneld", Flavour::Multi, move |stop| async move {
            let server = match Server::bind(config, Vec::new()).await {
                Ok(server) => server,
                Err(error) => return bound.send(Err(error.to_string())).expect("the test waits"),
            };
            let about = (server.local_addr(), server.admin_addr(), server.reloader());
            bound.send(Ok(about)).expect("the test waits");
            server.run(stop.cancelled_owned()).await;
        });
        let started = started.recv_timeout(LIMIT).expect("a server starts or says why not");
        let (addr, admin_addr, reloader) = started.expect("a server");
        Self { addr, admin_addr, reloader, background }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where its admin interface is.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr.expect("a server with an admin interface")
    }

    /// Asks it to read its files again, as SIGHUP does, and returns at once.
    pub fn reload(&self) {
        self.reloader.reload();
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
