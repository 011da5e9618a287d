//! A world whose server has an admin interface, a file of revocations, and an operator who uses both.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use http::{Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tunneld::config::AdminConfig;

use crate::{
    body,
    caller::{Caller, Reply},
    setup::{Setup, World},
};

/// What opens the admin interface.
pub const TOKEN: &str = "admin-canary-admin-canary-admin-canary";

/// Where it listens: a free port.
pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A world with an admin interface, and the directory of its files.
pub struct Administered {
    /// The world.
    pub world: World,
    files: TempDir,
}

impl Administered {
    /// Starts everything.
    pub async fn start(setup: Setup) -> Self {
        let files = tempfile::tempdir().expect("a temporary directory");
        let [token, revoked] = ["admin", "revoked"].map(|name| files.path().join(name));
        fs::write(&token, format!("{TOKEN}\n")).expect("a temporary file");
        let world = setup.server(move |config| {
            config.admin = Some(AdminConfig { listen: LISTEN, token_file: Some(token.clone()) });
            config.revocations_file = Some(revoked.clone());
        });
        Self { world: world.start().await, files }
    }

    /// The operator.
    #[must_use]
    pub fn admin(&self) -> Caller {
        Caller::new("localhost", self.world.server().admin_addr(), None).with_token(TOKEN)
    }

    /// The file with the admin token, `admin`, or with the revocations, `revoked`.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Revokes, and insists that it works.
    pub async fn revoke(&self, what: Value) -> Value {
        let reply = self.admin().post("/revocations", body::full(what.to_string())).await;
        assert_eq!(reply.status(), StatusCode::CREATED);
        reply.json().await
    }
}

/// A request without a body.
pub async fn send(caller: &Caller, method: Method, path: &str) -> Reply {
    caller.send(caller.request(method, path, body::empty())).await
}
