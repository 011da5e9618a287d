//! The real programs as they run in earnest: `tunneld`, `tunnel` of one user in front of a [`Recorder`], and nginx in
//! front of both where that is asked for, set up as docs/operations.md says.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::Command,
};

use http::{Method, StatusCode};

use super::{recorder::Recorder, wire::Terms};
use crate::{
    binaries::Program,
    body,
    caller::Caller,
    jwt::{claims, hs256},
    pki::HOST,
    workshop::Workshop,
};

/// The user whose desktop is attacked through the server, and who must be served afterwards.
pub const ALICE: &str = "alice";

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
                let port = free_port();
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
            nginx = Some(start_nginx(&shop, public.port(), addr).await);
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

/// A port that was free a moment ago: nginx cannot be given a bound one.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound address").port()
}

/// Starts nginx with the server block of docs/operations.md, on ports and files of this test. Around it: shorter
/// waits, so that every connection ends soon, and nothing outside of the test's directory.
async fn start_nginx(shop: &Workshop, port: u16, to: SocketAddr) -> Program {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let docs = std::fs::read_to_string(docs).expect("docs/operations.md");
    let block =
        docs.split_once("```nginx\n").and_then(|(_, rest)| rest.split_once("```")).expect("a block for nginx").0;
    let mut block = block.to_owned();
    for (documented, ours) in [
        ("127.0.0.1:8080", to.to_string()),
        ("listen 443 ", format!("listen 127.0.0.1:{port} ")),
        ("/etc/ssl/tunnel/fullchain.pem", shop.arg("server.pem")),
        ("/etc/ssl/tunnel/privkey.pem", shop.arg("server-key.pem")),
    ] {
        assert!(block.contains(documented), "docs/operations.md has no {documented}");
        block = block.replace(documented, &ours);
    }
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {};\n", shop.arg(kind)))
        .concat();
    let waits = "keepalive_timeout 1s;\nclient_header_timeout 6s;\nclient_body_timeout 6s;\n";
    let file = shop.file(
        "nginx.conf",
        &format!(
            "daemon off;\nmaster_process off;\npid {};\nerror_log stderr notice;\nevents {{}}\nhttp {{\naccess_log \
             off;\n{temporary}{waits}{block}}}\n",
            shop.arg("nginx.pid")
        ),
    );
    let mut nginx = Program::start(Command::new("nginx").args(["-p", &shop.arg(""), "-e", "stderr", "-c", &file]));
    nginx.logs(&["using the", "event method"]).await;
    nginx
}
