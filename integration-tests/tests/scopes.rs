//! What a token allows: to connect, to proxy, to infer; for all of a user's desktops or one of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use http::{HeaderValue, Method};
use integration_tests::{
    body,
    client::TestClient,
    handshake,
    jwt::{claims, hs256, with},
    ollama::Ollama,
    pki,
    setup::{ALICE, Setup},
};
use serde_json::json;
use tunneld::auth::mint::MintRequest;

fn scoped(scope: &str) -> String {
    hs256(&with(claims(ALICE), &json!({"scope": scope})))
}

#[tokio::test]
async fn a_token_without_a_scope_may_connect_and_proxy() {
    let world = Setup::new().without_desktop().start().await;
    let plain = hs256(&with(claims(ALICE), &json!({"scope": "openid email"})));
    let desktop = TestClient::start(world.client_config(&plain, "desktop", world.ollama().addr()));
    desktop.connected(1).await;
    assert_eq!(world.caller().with_token(&plain).get("/api/version").await.status(), 200);
}

#[tokio::test]
async fn require_scope_takes_that_away() {
    let world = Setup::new().without_desktop().server(|config| config.auth.require_scope = true).start().await;
    let plain = hs256(&claims(ALICE));
    let desktop = TestClient::start(world.client_config(&plain, "desktop", world.ollama().addr()));
    assert!(desktop.refused().await.contains("scope_denied"));
    assert_eq!(world.caller().with_token(&plain).get("/api/version").await.error(), (403, "scope_denied"));
    let desktop = TestClient::start(world.client_config(&scoped("tunnel:connect"), "desktop", world.ollama().addr()));
    desktop.connected(1).await;
    assert_eq!(world.caller().with_token(&scoped("x tunnel:proxy")).get("/api/version").await.status(), 200);
}

#[tokio::test]
async fn t41_a_token_to_proxy_cannot_register_a_desktop() {
    let world = Setup::new().without_desktop().start().await;
    for scope in ["tunnel:proxy", "tunnel:infer", "tunnel:proxy tunnel:infer", "tunnel:connected"] {
        let caller = world.caller().with_token(&scoped(scope));
        assert_eq!(handshake::knock(&caller, "x").await.error(), (403, "scope_denied"), "{scope}");
        let desktop = TestClient::start(world.client_config(&scoped(scope), "x", world.ollama().addr()));
        let said = desktop.refused().await;
        assert!(said.contains("scope_denied"), "{said}");
        assert_eq!(desktop.connections(), 0);
    }
    assert_eq!(world.caller().get("/api/tunnel/status").await.json().await["tunnels"], json!([]));
}

#[tokio::test]
async fn t40_a_token_to_connect_cannot_proxy() {
    let world = Setup::new().start().await;
    let caller = world.caller().with_token(&scoped("tunnel:connect"));
    for path in ["/api/version", "/api/chat", "/"] {
        assert_eq!(caller.get(path).await.error(), (403, "scope_denied"), "{path}");
    }
    assert_eq!(world.ollama().received().len(), 0);
}

const INFERENCE: [(&str, &str); 12] = [
    ("POST", "/api/chat"),
    ("POST", "/api/generate"),
    ("POST", "/api/embed"),
    ("POST", "/api/embeddings"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/messages"),
    ("GET", "/api/tags"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/org%2Fmodel:tag"),
];

const NOT_INFERENCE: [(&str, &str); 38] = [
    ("DELETE", "/api/delete"),
    ("POST", "/api/pull"),
    ("POST", "/api/create"),
    ("POST", "/api/copy"),
    ("POST", "/api/push"),
    ("POST", "/api/blobs/sha256:00"),
    ("HEAD", "/api/blobs/sha256:00"),
    ("POST", "/api/delete"),
    ("DELETE", "/api/chat"),
    ("DELETE", "/v1/models/x"),
    ("GET", "/anything"),
    // T64: by any spelling of the path.
    ("DELETE", "/api//delete"),
    ("DELETE", "//api/delete"),
    ("DELETE", "/api/delete/"),
    ("DELETE", "/API/DELETE"),
    ("DELETE", "/api/%64elete"),
    ("DELETE", "/api%2fdelete"),
    ("DELETE", "/%61pi/delete"),
    ("DELETE", "/api/./delete"),
    ("DELETE", "/api/chat/../delete"),
    ("DELETE", "/api/chat/%2e%2e/delete"),
    ("DELETE", "/api/chat%2f..%2fdelete"),
    ("DELETE", "/api/chat%2F%2E%2E%2Fdelete"),
    ("DELETE", "/api/chat/%252e%252e/delete"),
    ("DELETE", "/api/chat;/../delete"),
    ("DELETE", "/api/delete?/api/chat"),
    ("POST", "/api/pull?x=/api/chat"),
    ("POST", "/api/chat/../pull"),
    ("POST", "/api/chat%00/../pull"),
    ("POST", "/api/pull%00/api/chat"),
    ("POST", "/api/pull;/api/chat"),
    ("POST", "/v1/../api/pull"),
    ("POST", "/v1/models/..%2f..%2fapi%2fpull"),
    ("POST", "/v1/models/../../api/pull"),
    ("GET", "/v1/models/..%2f..%2fapi%2ftags"),
    ("POST", "/v1/chat/completions/../../../api/pull"),
    ("POST", "/api/pull/api/chat"),
    ("POST", "/v1/api/pull"),
];

#[tokio::test]
async fn t64_infer_reaches_only_inference() {
    let world = Setup::new().start().await;
    let token = scoped("tunnel:infer");
    let bearer = world.caller().with_token(&token);
    for (method, path) in NOT_INFERENCE {
        for (caller, target) in [(bearer.clone(), path.to_owned()), (bearer.anonymous(), format!("/t/{token}{path}"))] {
            let reply = caller.send(caller.request(method.parse().unwrap(), &target, body::empty())).await;
            let refused = matches!(reply.error(), (403, "scope_denied") | (400, "bad_request"));
            assert!(refused, "{method} {target}: {:?}", reply.error());
        }
    }
    assert_eq!(world.ollama().received().len(), 0);
    for (method, path) in INFERENCE {
        for (caller, target) in [(bearer.clone(), path.to_owned()), (bearer.anonymous(), format!("/t/{token}{path}"))] {
            let reply = caller.send(caller.request(method.parse().unwrap(), &target, body::full("{}"))).await;
            assert_eq!(reply.header("tunnel-error"), "", "{method} {target}");
            assert_eq!(world.ollama().received().pop().unwrap().target, path, "{method} {target}");
        }
    }
}

#[tokio::test]
async fn a_claim_binds_a_desktop_to_its_name() {
    let world = Setup::new().without_desktop().start().await;
    let bound = pki::mint(&MintRequest { tunnel: Some("attic".to_owned()), ..MintRequest::new(ALICE) });
    let reply = handshake::knock(&world.caller().with_token(&bound), "cellar").await;
    assert_eq!(reply.status(), 403, "{:?}", reply.error());
    let mut config = world.client_config(&bound, "cellar", world.ollama().addr());
    assert_eq!(TestClient::start(config.clone()).connections(), 0);
    config.name = None;
    let desktop = TestClient::start(config);
    assert_eq!(desktop.connected(1).await.name, "attic");
}

#[tokio::test]
async fn a_claim_binds_a_caller_to_its_desktop() {
    let world = Setup::new().without_desktop().start().await;
    let [attic, cellar] = [Ollama::start(), Ollama::start()];
    let _attic = world.connect(ALICE, "attic", attic.addr()).await;
    let _cellar = world.connect(ALICE, "cellar", cellar.addr()).await;
    let bound = pki::mint(&MintRequest { tunnel: Some("attic".to_owned()), ..MintRequest::new(ALICE) });
    let caller = world.caller().with_token(&bound);
    assert_eq!(caller.get("/echo").await.status(), 200);
    let mut request = caller.request(Method::GET, "/echo/elsewhere", body::empty());
    request.headers_mut().insert("tunnel-name", HeaderValue::from_static("cellar"));
    let _refused_or_ignored = caller.send(request).await;
    assert_eq!(cellar.received().len(), 0, "a caller left the desktop that its token is bound to");
    assert_eq!(attic.received()[0].target, "/echo");
    let absent = pki::mint(&MintRequest { tunnel: Some("garage".to_owned()), ..MintRequest::new(ALICE) });
    assert_eq!(world.caller().with_token(&absent).get("/echo").await.error(), (503, "tunnel_offline"));
}

#[tokio::test]
async fn a_claim_shows_a_caller_its_desktop_alone() {
    let world = Setup::new().without_desktop().start().await;
    let _attic = world.connect(ALICE, "attic", world.ollama().addr()).await;
    let _cellar = world.connect(ALICE, "cellar", world.ollama().addr()).await;
    let names = async |tunnel: Option<&str>| {
        let token = pki::mint(&MintRequest { tunnel: tunnel.map(str::to_owned), ..MintRequest::new(ALICE) });
        let status = world.caller().with_token(&token).get("/api/tunnel/status").await.json().await;
        let tunnels = status["tunnels"].as_array().unwrap();
        assert_eq!(status["connected"], json!(!tunnels.is_empty()));
        tunnels.iter().map(|tunnel| tunnel["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(None).await.len(), 2);
    assert_eq!(names(Some("attic")).await, ["attic"]);
    assert_eq!(names(Some("garage")).await, [""; 0]);
}

#[tokio::test]
async fn t40_a_token_that_allows_nothing_is_told_nothing() {
    let world = Setup::new().start().await;
    for path in ["/api/tunnel/status", "/api/tunnel/ticks", "/api/version"] {
        let nothing = world.caller().with_token(&scoped("tunnel:nothing"));
        assert_eq!(nothing.get(path).await.error(), (403, "scope_denied"), "{path}");
    }
    for scope in ["tunnel:connect", "tunnel:proxy", "tunnel:infer"] {
        let reply = world.caller().with_token(&scoped(scope)).get("/api/tunnel/status").await;
        assert_eq!(reply.status(), 200, "{scope}");
    }
}
