//! A whole tunnel for one test: fake Ollama, desktop, relay if asked for, server, callers.
//!
//! ```no_run
//! # async fn test() {
//! use integration_tests::setup::Setup;
//! let world = Setup::new().start().await;
//! let reply = world.caller().get("/api/version").await;
//! # }
//! ```

use std::net::SocketAddr;

use tunnel::{
    proxy::Proxies,
    token::{Token, TokenSource},
};
use tunneld::{
    auth::{Allow, AuthConfig},
    config::{KeyFiles, Limits},
};
use url::Url;

use crate::{
    caller::Caller,
    client::TestClient,
    ollama::Ollama,
    pki::{self, HOST, Pki},
    relay::Relay,
    server::TestServer,
};

type ServerConfig = tunneld::config::Config;
type ClientConfig = tunnel::config::Config;

/// What a test changes in a configuration.
type Change<C> = Box<dyn Fn(&mut C) + Send + Sync>;

/// The user of a test that needs no other.
pub const ALICE: &str = "alice";

/// What a test wants. Unless told otherwise: TLS, one user with one desktop, connected.
#[derive(Default)]
#[must_use]
pub struct Setup {
    edge: Edge,
    way: Way,
    desktop: Desktop,
    server: Option<Change<ServerConfig>>,
    client: Option<Change<ClientConfig>>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Edge {
    #[default]
    Tls,
    Plain,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Way {
    #[default]
    Direct,
    Relayed,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Desktop {
    #[default]
    WithOllama,
    WithUpstream(SocketAddr),
    Absent,
}

impl Setup {
    /// The usual.
    pub fn new() -> Self {
        Self::default()
    }

    /// No TLS on the server, as behind a proxy.
    pub fn plain_http(self) -> Self {
        Self { edge: Edge::Plain, ..self }
    }

    /// A [`Relay`] between desktops and server.
    pub fn relayed(self) -> Self {
        Self { way: Way::Relayed, ..self }
    }

    /// No desktop, until [`World::connect`].
    pub fn without_desktop(self) -> Self {
        Self { desktop: Desktop::Absent, ..self }
    }

    /// Another upstream behind the desktop than the fake Ollama.
    pub fn upstream(self, addr: SocketAddr) -> Self {
        Self { desktop: Desktop::WithUpstream(addr), ..self }
    }

    /// Changes the server's settings before each of its starts, after what was to be changed before.
    pub fn server(self, change: impl Fn(&mut ServerConfig) + Send + Sync + 'static) -> Self {
        let before = self.server;
        let both = move |config: &mut ServerConfig| {
            if let Some(before) = &before {
                before(config);
            }
            change(config);
        };
        Self { server: Some(Box::new(both)), ..self }
    }

    /// Changes the settings of each desktop's client.
    pub fn client(self, change: impl Fn(&mut ClientConfig) + Send + Sync + 'static) -> Self {
        Self { client: Some(Box::new(change)), ..self }
    }

    /// Starts everything and waits until the desktop is connected.
    pub async fn start(self) -> World {
        trace();
        let pki = Pki::new();
        let ollama = Ollama::start();
        let server = TestServer::start(self.server_config(&pki, SocketAddr::from(([127, 0, 0, 1], 0))));
        let relay = (self.way == Way::Relayed).then(|| Relay::to(server.addr()));
        let addr = server.addr();
        let mut world = World { client: None, server: Some(server), addr, relay, ollama, pki, setup: self };
        let upstream = match world.setup.desktop {
            Desktop::WithOllama => world.ollama.addr(),
            Desktop::WithUpstream(addr) => addr,
            Desktop::Absent => return world,
        };
        world.client = Some(world.connect(ALICE, "desktop", upstream).await);
        world
    }

    fn server_config(&self, pki: &Pki, listen: SocketAddr) -> ServerConfig {
        let mut config = ServerConfig {
            listen,
            tls: (self.edge == Edge::Tls).then(|| pki.tls_files()),
            public_url: None,
            trusted_proxies: Vec::new(),
            auth: AuthConfig {
                secret: Some(pki::secret()),
                public_key: None,
                provider: None,
                issuer: None,
                audience: None,
                allow: Allow::Any,
                require_scope: false,
            },
            login: None,
            key_files: KeyFiles::default(),
            revocations_file: None,
            admin: None,
            model_figures: true,
            limits: Limits::default(),
            cors_origins: Vec::new(),
        };
        if let Some(change) = &self.server {
            change(&mut config);
        }
        config
    }
}

/// What a test has. Dropped, all of it stops: the desktop first.
pub struct World {
    client: Option<TestClient>,
    server: Option<TestServer>,
    addr: SocketAddr,
    relay: Option<Relay>,
    ollama: Ollama,
    pki: Pki,
    setup: Setup,
}

impl World {
    /// The fake Ollama behind the first desktop.
    #[must_use]
    pub fn ollama(&self) -> &Ollama {
        &self.ollama
    }

    /// The first desktop.
    #[must_use]
    pub fn client(&self) -> &TestClient {
        self.client.as_ref().expect("a setup with a desktop")
    }

    /// Takes the first desktop away, to stop or kill it.
    pub fn take_client(&mut self) -> TestClient {
        self.client.take().expect("a setup with a desktop")
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &TestServer {
        self.server.as_ref().expect("a running server")
    }

    /// Takes the server away, to kill it.
    pub fn take_server(&mut self) -> TestServer {
        self.server.take().expect("a running server")
    }

    /// Starts a server with the same settings on the same address, after the one before has gone.
    pub fn start_server(&mut self) {
        assert!(self.server.is_none(), "the server runs");
        self.server = Some(TestServer::start(self.setup.server_config(&self.pki, self.addr)));
    }

    /// The relay between desktops and server.
    #[must_use]
    pub fn relay(&self) -> &Relay {
        self.relay.as_ref().expect("a setup with a relay")
    }

    /// The CA and certificate.
    #[must_use]
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// Where callers reach the server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{HOST}:{}", self.scheme(), self.addr.port())
    }

    /// A caller with a token of the usual user.
    #[must_use]
    pub fn caller(&self) -> Caller {
        self.caller_for(ALICE)
    }

    /// A caller with a token of `user`.
    #[must_use]
    pub fn caller_for(&self, user: &str) -> Caller {
        let tls = (self.setup.edge == Edge::Tls).then(|| self.pki.caller_tls());
        Caller::new(HOST, self.addr, tls).with_token(&pki::token(user))
    }

    /// Connects another desktop and waits until it is there.
    pub async fn connect(&self, user: &str, name: &str, upstream: SocketAddr) -> TestClient {
        let client = TestClient::start(self.client_config(&pki::token(user), name, upstream));
        client.connected(1).await;
        client
    }

    /// The settings of a desktop, for a test that starts it itself.
    #[must_use]
    pub fn client_config(&self, token: &str, name: &str, upstream: SocketAddr) -> ClientConfig {
        let addr = self.relay.as_ref().map_or(self.addr, Relay::addr);
        let url = |scheme: &str, addr| Url::parse(&format!("{scheme}://{addr}")).expect("a URL");
        let mut config = ClientConfig {
            token: TokenSource::Inline(Token::parse(token).expect("a token")),
            server: Some(url(self.scheme(), addr)),
            to: url("http", upstream),
            name: Some(name.to_owned()),
            ca: (self.setup.edge == Edge::Tls).then(|| self.pki.ca()),
            proxies: Proxies::default(),
            allow: Vec::new(),
            report_models: false, // tests count what the upstream gets
        };
        if let Some(change) = &self.setup.client {
            change(&mut config);
        }
        config
    }

    fn scheme(&self) -> &'static str {
        match self.setup.edge {
            Edge::Tls => "https",
            Edge::Plain => "http",
        }
    }
}

/// Shows the logs of all parts, in a test that is run with `RUST_LOG` set.
fn trace() {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        let _another_test_has_done_so = log.try_init();
    }
}
