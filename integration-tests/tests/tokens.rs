//! Who may do what: credentials in all their places, scopes, issuers, expiry.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant, SystemTime};

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use http::{HeaderValue, Method};
use integration_tests::{
    body,
    caller::{Caller, Reply},
    client::TestClient,
    handshake::{self, IdleDesktop},
    jwt::{self, Issuer, claims, hs256, seconds, with},
    ollama::Ollama,
    pki,
    setup::{ALICE, Setup, World},
};
use serde_json::{Value, json};
use tunnel::event::Event;
use tunneld::auth::mint::{self, MintRequest};

/// An issuer that is not us.
const IDP: &str = "https://idp.example.com";

fn scoped(scope: &str) -> String {
    hs256(&with(claims(ALICE), &json!({"scope": scope})))
}

/// A GET with these fields besides the usual ones.
async fn get_with(caller: &Caller, path: &str, fields: &[(&'static str, &str)]) -> Reply {
    let mut request = caller.request(Method::GET, path, body::empty());
    for (name, value) in fields {
        request.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
    }
    caller.send(request).await
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

#[tokio::test]
async fn t01_to_t11_bad_tokens() {
    let world = Setup::new().start().await;
    let good = hs256(&claims(ALICE));
    let (head, payload) = good.rsplit_once('.').unwrap().0.split_once('.').unwrap();
    let tampered = format!("{head}.{payload}A.{}", good.rsplit_once('.').unwrap().1);
    let unsigned = |alg: &str| {
        let head = BASE64_URL_SAFE_NO_PAD.encode(json!({"alg": alg, "typ": "JWT"}).to_string());
        format!("{head}.{payload}.")
    };
    let changed = |changes: Value| hs256(&with(claims(ALICE), &changes));
    let bad = [
        ("no token", "x".to_owned()),
        ("another secret", jwt::hmac(b"another secret that is also long enough", &claims(ALICE))),
        ("T01 none", unsigned("none")),
        ("T01 nOnE", unsigned("nOnE")),
        ("tampered", tampered),
        ("no signature", format!("{head}.{payload}.")),
        ("T06 no exp", changed(json!({"exp": null}))),
        ("T06 no sub", changed(json!({"sub": null}))),
        ("T36 empty sub", changed(json!({"sub": ""}))),
        ("T36 long sub", changed(json!({"sub": "x".repeat(256)}))),
        ("T07 exp as text", changed(json!({"exp": "9999999999"}))),
        ("T07 negative exp", changed(json!({"exp": -1}))),
        ("T08 nbf ahead", changed(json!({"nbf": seconds(120)}))),
        ("T08 iat ahead", changed(json!({"iat": seconds(120)}))),
        ("T11 long", changed(json!({"x": "x".repeat(9000)}))),
    ];
    for (what, token) in bad {
        let caller = world.caller().with_token(&token);
        for path in ["/api/version", "/api/tunnel/status", "/nothing"] {
            let reply = caller.get(path).await;
            assert_eq!(reply.status(), 401, "{what} at {path}");
            assert_eq!(reply.header("tunnel-error"), "token_invalid", "{what} at {path}");
            assert!(reply.header("www-authenticate").starts_with("Bearer"), "{what} at {path}");
        }
        let reply = handshake::knock(&caller, "x").await;
        assert_eq!(reply.status(), 401, "{what} in a handshake");
    }
    assert_eq!(world.ollama().received().len(), 0);
}

#[tokio::test]
async fn t10_clocks_may_be_half_a_minute_apart() {
    let world = Setup::new().start().await;
    for (changes, status) in [
        (json!({"exp": seconds(-20)}), 200),
        (json!({"exp": seconds(-40)}), 401),
        (json!({"nbf": seconds(20)}), 200),
        (json!({"iat": seconds(20)}), 200),
    ] {
        let token = hs256(&with(claims(ALICE), &changes));
        assert_eq!(world.caller().with_token(&token).get("/api/version").await.status(), status, "{changes}");
    }
}

#[tokio::test]
async fn t09_audience() {
    let world =
        Setup::new().without_desktop().server(|config| config.auth.audience = Some("tunnels".to_owned())).start().await;
    for (changes, status) in [
        (json!({}), 401),
        (json!({"aud": "others"}), 401),
        (json!({"aud": "tunnels"}), 200),
        (json!({"aud": ["others", "tunnels"]}), 200),
    ] {
        let token = hs256(&with(claims(ALICE), &changes));
        let reply = world.caller().with_token(&token).get("/api/tunnel/status").await;
        assert_eq!(reply.status(), status, "{changes}");
    }
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

#[tokio::test]
async fn t62_a_token_that_may_connect_is_refused_in_a_path() {
    let world = Setup::new().start().await;
    for token in [scoped("tunnel:connect tunnel:proxy"), scoped("tunnel:connect"), hs256(&claims(ALICE))] {
        for path in ["/api/version", "/api/tunnel/status", "", "/"] {
            let reply = world.caller().anonymous().get(&format!("/t/{token}{path}")).await;
            assert_eq!(reply.status(), 403, "{path}");
            let text = reply.text().await;
            assert!(text.contains("--url") && !text.contains(&token), "{text}");
        }
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
async fn t31_an_api_key_is_a_token() {
    let world = Setup::new().start().await;
    let token = pki::token(ALICE);
    let anonymous = world.caller().anonymous();
    assert_eq!(get_with(&anonymous, "/echo", &[("x-api-key", &token)]).await.status(), 200);
    assert_eq!(get_with(&anonymous, "/echo", &[("authorization", &basic("any", &token))]).await.status(), 200);
    assert_eq!(get_with(&anonymous, "/echo", &[("authorization", &basic("", &token))]).await.status(), 200);
    assert_eq!(get_with(&anonymous, "/echo", &[("authorization", &format!("bearer {token}"))]).await.status(), 200);
    for received in world.ollama().received() {
        for name in ["authorization", "x-api-key", "cookie"] {
            assert!(!received.headers.contains_key(name), "{name} reached the upstream");
        }
    }
    assert_eq!(get_with(&anonymous, "/echo", &[("x-api-key", "wrong")]).await.error(), (401, "token_invalid"));
    assert_eq!(
        get_with(&anonymous, "/echo", &[("authorization", &basic("any", "wrong"))]).await.error(),
        (401, "token_invalid")
    );
}

#[tokio::test]
async fn t63_basic_is_no_ambient_right_of_a_browser() {
    let world = Setup::new().start().await;
    let password = basic("any", &pki::token(ALICE));
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-origin"),
        ("sec-fetch-site", "none"),
    ] {
        let fields = [("authorization", password.as_str()), (name, value)];
        let reply = get_with(&world.caller().anonymous(), "/echo", &fields).await;
        assert_eq!(reply.status(), 403, "{name}: {value}");
        assert!(!reply.header("tunnel-error").is_empty());
    }
    assert_eq!(world.ollama().received().len(), 0);
}

#[tokio::test]
async fn t19_several_authorization_fields() {
    let world = Setup::new().start().await;
    let bearer = format!("Bearer {}", pki::token(ALICE));
    for second in [bearer.as_str(), "Bearer x", "Basic eDp5"] {
        for fields in [[bearer.as_str(), second], [second, bearer.as_str()]] {
            let fields = fields.map(|value| ("authorization", value));
            let reply = get_with(&world.caller().anonymous(), "/echo", &fields).await;
            assert_eq!(reply.error(), (400, "bad_request"), "{second}");
        }
    }
    assert_eq!(world.ollama().received().len(), 0);
}

#[tokio::test]
async fn the_first_credential_counts_and_no_other() {
    let world = Setup::new().start().await;
    let (good, other) = (pki::token(ALICE), pki::token("bob"));
    let infer = scoped("tunnel:infer");
    let anonymous = world.caller().anonymous();
    let bad_bearer = [("authorization", "Bearer x.y.z"), ("x-api-key", good.as_str())];
    assert_eq!(get_with(&anonymous, "/echo", &bad_bearer).await.error(), (401, "token_invalid"));
    let bad_key = format!("Bearer {good}");
    let bad_key = [("x-api-key", "x.y.z"), ("authorization", bad_key.as_str())];
    assert_eq!(get_with(&anonymous, "/echo", &bad_key).await.status(), 200);
    let bob = format!("Bearer {other}");
    let in_path = get_with(&anonymous, &format!("/t/{infer}/api/tags"), &[("authorization", &bob)]).await;
    assert_eq!(in_path.status(), 200, "the token in the path is alice's");
    let bad_path = get_with(&anonymous, "/t/x.y.z/api/tags", &[("authorization", &format!("Bearer {good}"))]).await;
    assert_eq!(bad_path.error(), (403, "token_invalid"));
    for received in world.ollama().received() {
        assert!(!received.headers.contains_key("authorization") && !received.headers.contains_key("x-api-key"));
    }
}

#[tokio::test]
async fn a_query_is_no_place_for_a_token() {
    let world = Setup::new().start().await;
    let token = pki::token(ALICE);
    for name in ["token", "access_token", "key", "api_key", "authorization"] {
        let reply = world.caller().anonymous().get(&format!("/echo?{name}={token}")).await;
        assert_eq!(reply.error(), (401, "token_missing"), "{name}");
    }
}

/// A server that trusts the secret and an identity provider.
async fn with_both(idp: &Issuer) -> World {
    let key = idp.public_key();
    let both = move |config: &mut tunneld::config::Config| {
        config.auth.public_key = Some(key.clone());
        config.auth.issuer = Some(IDP.to_owned());
    };
    Setup::new().without_desktop().server(both).start().await
}

#[tokio::test]
async fn t36_the_same_subject_of_two_issuers_never_meets() {
    let idp = Issuer::new();
    let world = with_both(&idp).await;
    let of_idp = idp.token(&with(claims(ALICE), &json!({"iss": IDP})));
    let [ours, theirs] = [Ollama::start(), Ollama::start()];
    let _ours = world.connect(ALICE, "desktop", ours.addr()).await;
    let their_caller = world.caller().with_token(&of_idp);
    assert_eq!(their_caller.get("/echo/early").await.error(), (503, "tunnel_offline"));
    assert_eq!(their_caller.get("/api/tunnel/status").await.json().await["tunnels"], json!([]));
    // The same name, too: it is taken in another namespace.
    let their_desktop = TestClient::start(world.client_config(&of_idp, "desktop", theirs.addr()));
    their_desktop.connected(1).await;
    assert_eq!(their_caller.get("/echo/theirs").await.status(), 200);
    assert_eq!(world.caller().get("/echo/ours").await.status(), 200);
    // A token of the secret may name the provider, and reaches the desktop of its user.
    let minted = hs256(&with(claims(ALICE), &json!({"iss": IDP})));
    assert_eq!(world.caller().with_token(&minted).get("/echo/minted").await.status(), 200);
    // No issuer at all means ours.
    let bare = hs256(&with(claims(ALICE), &json!({"iss": null})));
    assert_eq!(world.caller().with_token(&bare).get("/echo/bare").await.status(), 200);
    let targets = |ollama: &Ollama| ollama.received().into_iter().map(|head| head.target).collect::<Vec<_>>();
    assert_eq!(targets(&ours), ["/echo/ours", "/echo/bare"]);
    assert_eq!(targets(&theirs), ["/echo/theirs", "/echo/minted"]);
}

#[tokio::test]
async fn t02_a_key_is_bound_to_its_algorithm_and_issuer() {
    let (idp, stranger) = (Issuer::new(), Issuer::new());
    let world = with_both(&idp).await;
    let good = with(claims(ALICE), &json!({"iss": IDP}));
    for (what, token, status) in [
        ("of the provider", idp.token(&good), 200),
        ("of a stranger", stranger.token(&good), 401),
        ("of another issuer", idp.token(&with(claims(ALICE), &json!({"iss": "https://other.example"}))), 401),
        ("in our name", idp.token(&claims(ALICE)), 401),
        ("of nobody", idp.token(&with(claims(ALICE), &json!({"iss": null}))), 401),
        ("signed with the public key", jwt::hmac(idp.public_pem().as_bytes(), &good), 401),
        ("signed with its text", jwt::hmac(idp.public_pem().trim().as_bytes(), &good), 401),
    ] {
        let reply = world.caller().with_token(&token).get("/api/tunnel/status").await;
        assert_eq!(reply.status(), status, "{what}");
    }
}

#[tokio::test]
async fn t36_a_user_is_bytes() {
    let world = Setup::new().without_desktop().start().await;
    let _bob = world.connect("bob", "desktop", world.ollama().addr()).await;
    let _nfc = world.connect("Zo\u{eb}", "desktop", world.ollama().addr()).await;
    for other in ["Bob", "BOB", " bob", "bob ", "bob\0", "Zoe\u{308}", "zo\u{eb}", "tunneldbob"] {
        let status = world.caller_for_claims(other).get("/api/tunnel/status").await;
        if status.status() == 200 {
            assert_eq!(status.json().await["tunnels"], json!([]), "{other:?}");
        }
    }
    for same in ["bob", "Zo\u{eb}"] {
        let status = world.caller_for_claims(same).get("/api/tunnel/status").await.json().await;
        assert_eq!(status["connected"], true, "{same:?}");
    }
}

/// Callers of users whom `tunneld token` might refuse.
trait CallerForClaims {
    fn caller_for_claims(&self, user: &str) -> Caller;
}

impl CallerForClaims for World {
    fn caller_for_claims(&self, user: &str) -> Caller {
        self.caller().with_token(&hs256(&claims(user)))
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
    let _refused_or_ignored = get_with(&caller, "/echo/elsewhere", &[("tunnel-name", "cellar")]).await;
    assert_eq!(cellar.received().len(), 0, "a caller left the desktop that its token is bound to");
    assert_eq!(attic.received()[0].target, "/echo");
    let absent = pki::mint(&MintRequest { tunnel: Some("garage".to_owned()), ..MintRequest::new(ALICE) });
    assert_eq!(world.caller().with_token(&absent).get("/echo").await.error(), (503, "tunnel_offline"));
}

/// A token whose `exp` has passed, and whose last second of leeway is near.
fn nearly_spent(left: Duration) -> String {
    let ttl = Duration::from_secs(1);
    let minted = SystemTime::now() + left - ttl - tunneld::auth::LEEWAY;
    mint::mint_at(&pki::secret(), &MintRequest { ttl, ..MintRequest::new(ALICE) }, minted).unwrap()
}

#[tokio::test]
async fn t12_expiry_while_connected() {
    let world = Setup::new().without_desktop().start().await;
    let left = Duration::from_secs(4);
    let started = Instant::now();
    let token = nearly_spent(left);
    let desktop = TestClient::start(world.client_config(&token, "desktop", world.ollama().addr()));
    desktop.connected(1).await;
    assert_eq!(world.caller().get("/api/version").await.status(), 200);
    let disconnected = |event: &Event| match event {
        Event::Disconnected { reason, .. } => Some(reason.clone()),
        Event::Refused { code, .. } => Some(code.clone()),
        _ => None,
    };
    let reason = desktop.event("the tunnel closes with its token", disconnected).await;
    assert!(reason.contains("expired"), "{reason}");
    assert!(started.elapsed() > left.saturating_sub(Duration::from_secs(2)), "too early: {:?}", started.elapsed());
    assert_eq!(world.caller().get("/api/version").await.error(), (503, "tunnel_offline"));
}

#[tokio::test]
async fn t12_the_close_says_so() {
    let world = Setup::new().without_desktop().start().await;
    let caller = world.caller().with_token(&nearly_spent(Duration::from_secs(3)));
    let mut desktop = IdleDesktop::connect(&caller, "desktop", &uuid::Uuid::now_v7().to_string()).await;
    let (code, reason) = desktop.closed().await.expect("a close with a reason");
    assert!(code >= 4000 && reason.contains("expired"), "{code} {reason}");
}

#[tokio::test]
async fn t40_a_token_expires_between_two_requests_of_a_connection() {
    let world = Setup::new().start().await;
    let caller = world.caller().with_token(&nearly_spent(Duration::from_secs(3)));
    let mut connection = caller.connect(integration_tests::caller::Protocol::Http2).await;
    assert_eq!(connection.send(caller.request(Method::GET, "/api/version", body::empty())).await.status(), 200);
    let started = Instant::now();
    loop {
        let reply = connection.send(caller.request(Method::GET, "/api/version", body::empty())).await;
        if reply.status() != 200 {
            assert_eq!(reply.error(), (401, "token_expired"));
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "still good after {:?}", started.elapsed());
    }
}
