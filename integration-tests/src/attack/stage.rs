//! The real programs as they run in earnest: `tunneld`, `tunnel` of one user in front of a [`Recorder`], and nginx in
//! front of both where that is asked for.

use std::net::{Ipv4Addr, SocketAddr};

use http::{Method, StatusCode};

use super::{recorder::Recorder, wire::Terms};
use crate::{
    binaries::Program,
    body,
    caller::Caller,
    jwt::{claims, hs256},
    nginx,
    pki::HOST,
    workshop::Workshop,
};

/// The user whose desktop is attacked through the server, and who must be served afterwards.
pub const ALICE: &str = "alice";

/// Shorter waits of nginx, so that every connection ends soon.
const IMPATIENT: &str = "keepalive_timeout 1s;\nclient_header_timeout 6s;\nclient_body_timeout 6s;\n";

/// How callers reach `tunneld`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By its own TLS.
    Direct,
    /// Through nginx.
    Nginx,
}

/// Everything that runs.
pub struct Stage {
    /// Where certificates and tokens are.
    pub shop: Workshop,
    /// Behind the desktop.
    pub recorder: Recorder,
    /// The server's program.
    pub server: Program,
    /// The desktop's program.
    pub client: Program,
    /// How callers come.
    pub way: Way,
    nginx: Option<Program>,
    addr: SocketAddr,
}

impl Stage {
    /// Starts all of it with these settings of the server besides, and waits until the desktop is connected.
    pub async fn start(way: Way, settings: &[&str]) -> Self {
        let shop = Workshop::new().await;
        let recorder = Recorder::start().await;
        let (mut nginx, mut public) = (None, None);
        let (server, mut addr) = match way {
            Way::Direct => shop.serve(settings).await,
            Way::Nginx => {
                let port = nginx::free_port();
                public = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
                let (secret, url) = (shop.arg("secret"), format!("https://{HOST}:{port}"));
                let args = ["serve", "--listen", "127.0.0.1:0", "--plain-http", "--public-url", &url];
                let trust = ["--trusted-proxy", "127.0.0.1", "--jwt-secret-file", &secret];
                let mut server = Program::tunneld([&args[..], &trust, settings].concat());
                let addr = server.listening().await;
                (server, addr)
            }
        };
        if let Some(public) = public {
            nginx = Some(nginx::start(&shop, public.port(), addr, IMPATIENT).await);
            addr = public;
        }
        let url = format!("https://{HOST}:{}", addr.port());
        let token = shop.file("desktop.token", &hs256(&crate::jwt::with(claims(ALICE), &audience(settings))));
        let (ca, to) = (shop.arg("ca.pem"), recorder.addr().to_string());
        let mut client = Program::tunnel([
            "connect",
            "--token-file",
            &token,
            "--server",
            &url,
            "--ca",
            &ca,
            "--to",
            &to,
            "--name",
            "desktop",
        ]);
        client.logs(&["online"]).await;
        Self { shop, recorder, server, client, way, nginx, addr }
    }

    /// A caller without a token.
    #[must_use]
    pub fn caller(&self) -> Caller {
        self.shop.caller(self.addr)
    }

    /// Where callers come to.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What the placeholders of the notation stand for here.
    #[must_use]
    pub fn terms(&self, marker: String) -> Terms {
        Terms { host: format!("{HOST}:{}", self.addr.port()), token: hs256(&claims(ALICE)), marker }
    }

    /// Insists that the attack has left no trace: the same programs serve the same tunnel, nothing panicked, and the
    /// upstream saw `requests` requests, all well-formed.
    pub async fn is_unharmed(&mut self, requests: usize) {
        self.serves_with(&hs256(&claims(ALICE))).await;
        assert_eq!(self.recorder.count(), requests + 1, "requests at the upstream that belong to no case");
    }

    /// Insists that a normal request is answered by the tunnel that there was from the beginning.
    pub async fn serves_with(&mut self, token: &str) {
        let caller = self.caller().with_token(token);
        let reply = caller.send(caller.request(Method::POST, "/after/all", body::full("well"))).await;
        assert_eq!(reply.status(), StatusCode::OK);
        assert_eq!(reply.text().await, "/after/all");
        assert_eq!(self.recorder.violations(), Vec::<String>::new());
        let online = self.client.errors().iter().filter(|line| line.contains("online")).count();
        assert_eq!(online, 1, "the desktop had to connect anew");
        for program in [Some(&self.server), Some(&self.client), self.nginx.as_ref()].into_iter().flatten() {
            assert_no_panic(program);
        }
    }
}

/// Insists that a program has not panicked.
pub fn assert_no_panic(program: &Program) {
    let panics: Vec<String> = program.errors().into_iter().filter(|line| line.contains("panicked")).collect();
    assert!(panics.is_empty(), "{panics:?}");
}

/// The claim that `--jwt-audience` asks for.
fn audience(settings: &[&str]) -> serde_json::Value {
    let at = settings.iter().position(|setting| *setting == "--jwt-audience");
    at.map_or_else(|| serde_json::json!({}), |at| serde_json::json!({ "aud": settings[at + 1] }))
}
