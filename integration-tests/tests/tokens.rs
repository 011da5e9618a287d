//! Which tokens are good: signatures, claims, issuers, clocks, expiry.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant, SystemTime};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use http::Method;
use integration_tests::{
    body,
    caller::{Caller, Protocol},
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
    let mut connection = caller.connect(Protocol::Http2).await;
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
