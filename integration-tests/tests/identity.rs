//! Tokens of an identity provider: keys that come and go, a provider that is down, one that is hostile.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use integration_tests::{
    caller::Caller,
    client::TestClient,
    eventually::eventually,
    jwt::{Issuer, claims, hmac, hs256, with},
    provider::{AUDIENCE, CLIENT, DOCUMENT, KEYS, Provider},
    setup::{ALICE, Setup, World},
    workshop::{Workshop, run},
};
use serde_json::{Value, json};
use tunnel::event::Event;
use tunneld::auth::KeySource;

/// What a hostile provider would have taken for a secret.
const OCT: &str = "a secret that everyone knows, because it is published";

const STATUS: &str = "/api/tunnel/status";

/// A provider with one key, and a server that trusts it beside the secret of the tests.
struct Trusting {
    provider: Provider,
    key: Issuer,
    world: World,
}

impl Trusting {
    async fn start() -> Self {
        let provider = Provider::start();
        let key = Issuer::new();
        provider.publish(&[key.jwk("one")]);
        let world = world(&provider.issuer()).await;
        Self { provider, key, world }
    }

    fn claims(&self) -> Value {
        claims_of(&self.provider)
    }

    /// A caller with the token that this key signs under this label.
    fn caller(&self, key: &Issuer, kid: &str) -> Caller {
        self.world.caller().with_token(&key.labelled(kid, &self.claims()))
    }

    /// Whether the first key's token is still good.
    async fn known_is_good(&self) -> bool {
        self.caller(&self.key, "one").get(STATUS).await.status() == 200
    }
}

async fn world(issuer: &str) -> World {
    let issuer = issuer.to_owned();
    Setup::new()
        .plain_http()
        .without_desktop()
        .server(move |config| Provider::trusted_by(&issuer, config))
        .start()
        .await
}

fn claims_of(provider: &Provider) -> Value {
    with(claims(ALICE), &json!({"iss": provider.issuer(), "aud": AUDIENCE}))
}

#[tokio::test]
async fn t14_a_rotated_key_is_accepted_within_5_s_and_a_withdrawn_one_cuts_its_desktop() {
    let t = Trusting::start().await;
    let token = t.key.labelled("one", &t.claims());
    let desktop = TestClient::start(t.world.client_config(&token, "desktop", t.world.ollama().addr()));
    desktop.connected(1).await;
    assert_eq!(t.caller(&t.key, "one").get("/api/version").await.status(), 200);
    let next = Issuer::new();
    t.provider.publish(&[next.jwk("two")]);
    assert!(t.known_is_good().await, "nobody has asked yet");
    let since = Instant::now();
    assert_eq!(t.caller(&next, "two").get(STATUS).await.status(), 200);
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    assert_eq!(t.caller(&t.key, "one").get(STATUS).await.error(), (401, "token_invalid"));
    let cut = |event: &Event| matches!(event, Event::Disconnected { .. }).then_some(());
    desktop.event("the withdrawn key's desktop is cut", cut).await;
}

#[tokio::test]
async fn t15_a_flood_of_labels_makes_one_request() {
    let t = Trusting::start().await;
    assert!(t.known_is_good().await);
    let before = t.provider.asked(KEYS).len();
    let flood = (0..300).map(|number| {
        let caller = t.caller(&t.key, &format!("invented-{number}"));
        async move { caller.get(STATUS).await.error() == (401, "token_invalid") }
    });
    let (refused, ()) = tokio::join!(futures_util::future::join_all(flood), async {
        for _ in 0..50 {
            assert!(t.known_is_good().await);
        }
    });
    assert!(refused.into_iter().all(|refused| refused));
    assert_eq!(t.provider.asked(KEYS).len() - before, 1);
}

#[tokio::test]
async fn t16_f12_a_provider_that_is_down() {
    let t = Trusting::start().await;
    assert!(t.known_is_good().await);
    t.provider.answer(KEYS, 500, "");
    let unknown = t.caller(&Issuer::new(), "two");
    for _ in 0..3 {
        let reply = unknown.get(STATUS).await;
        assert_eq!(reply.error(), (503, "keys_unavailable"));
        assert!(!reply.header("retry-after").is_empty());
        assert!(t.known_is_good().await);
    }
    // It hangs instead.
    t.provider.ignore(KEYS);
    assert!(t.known_is_good().await);
    assert_eq!(unknown.get(STATUS).await.error(), (503, "keys_unavailable"));
    t.provider.publish(&[t.key.jwk("one")]);
}

#[tokio::test]
async fn t16_a_provider_that_is_down_at_the_start() {
    let addr = Provider::start().addr();
    let world = world(&format!("http://{addr}")).await;
    let key = Issuer::new();
    let claims = with(claims(ALICE), &json!({"iss": format!("http://{addr}"), "aud": AUDIENCE}));
    let caller = world.caller().with_token(&key.labelled("one", &claims));
    assert_eq!(caller.get(STATUS).await.error(), (503, "keys_unavailable"));
    // The other source of trust does not depend on it.
    assert_eq!(world.caller().with_token(&hs256(&claims)).get(STATUS).await.status(), 200);
    let provider = Provider::start_on(addr);
    provider.publish(&[key.jwk("one")]);
    eventually("its keys come", async || (caller.get(STATUS).await.status() == 200).then_some(())).await;
}

/// Makes a provider hostile.
type Poison<'a> = Box<dyn Fn(&Provider) + 'a>;

#[tokio::test]
async fn t17_poison_is_kept_out_and_the_old_keys_stay() {
    let evil = Issuer::new();
    let changed = |changes: Value| with(evil.jwk("evil"), &changes);
    let set = |keys: &[Value]| json!({"keys": keys}).to_string();
    let padding = json!({"keys": [evil.jwk("evil")], "padding": "x".repeat(1 << 20)}).to_string();
    let oct = json!({"kty": "oct", "kid": "evil", "k": BASE64_URL_SAFE_NO_PAD.encode(OCT)});
    let poisons: [(&str, Poison<'_>); 9] = [
        ("a shared secret", Box::new(|p| p.answer(KEYS, 200, &set(&[evil.jwk("evil"), oct.clone()])))),
        ("a private key", Box::new(|p| p.answer(KEYS, 200, &set(&[changed(json!({"d": "AAAA"}))])))),
        ("a key to encrypt with", Box::new(|p| p.answer(KEYS, 200, &set(&[changed(json!({"use": "enc"}))])))),
        ("1 MB", Box::new(|p| p.answer(KEYS, 200, &padding))),
        ("a web page", Box::new(|p| p.answer(KEYS, 200, "<html>"))),
        ("no keys", Box::new(|p| p.answer(KEYS, 200, &set(&[])))),
        (
            "a redirect",
            Box::new(|p| {
                p.answer("/elsewhere", 200, &set(&[evil.jwk("evil")]));
                p.redirect(KEYS, &format!("{}/elsewhere", p.issuer()));
            }),
        ),
        (
            "keys in the clear",
            Box::new(|p| {
                let document = json!({"issuer": p.issuer(), "jwks_uri": "http://192.0.2.1/keys"});
                p.answer(DOCUMENT, 200, &document.to_string());
            }),
        ),
        (
            "the document of another",
            Box::new(|p| {
                let document =
                    json!({"issuer": "https://idp.example.com", "jwks_uri": format!("{}{KEYS}", p.issuer())});
                p.answer(DOCUMENT, 200, &document.to_string());
                p.answer(KEYS, 200, &set(&[evil.jwk("evil")]));
            }),
        ),
    ];
    for (what, poison) in poisons {
        let t = Trusting::start().await;
        assert!(t.known_is_good().await);
        poison(&t.provider);
        assert_eq!(t.caller(&evil, "evil").get(STATUS).await.error(), (503, "keys_unavailable"), "{what}");
        assert!(t.known_is_good().await, "{what}");
        let forged = t.world.caller().with_token(&hmac(OCT.as_bytes(), &t.claims()));
        assert_eq!(forged.get(STATUS).await.error(), (401, "token_invalid"), "{what}");
        assert!(t.provider.asked("/elsewhere").is_empty());
    }
}

#[tokio::test]
async fn t06_t09_t36_what_a_provider_may_say() {
    let t = Trusting::start().await;
    for (what, changes) in [
        ("T06 no exp", json!({"exp": null})),
        ("T06 no sub", json!({"sub": null})),
        ("T06 no iss", json!({"iss": null})),
        ("T06 no aud", json!({"aud": null})),
        ("T09 other aud", json!({"aud": CLIENT})),
        ("other iss", json!({"iss": "https://idp.example.com"})),
        ("our iss", json!({"iss": "tunneld"})),
        ("T36 empty sub", json!({"sub": ""})),
    ] {
        let token = t.key.labelled("one", &with(t.claims(), &changes));
        let reply = t.world.caller().with_token(&token).get(STATUS).await;
        assert_eq!(reply.error(), (401, "token_invalid"), "{what}");
    }
}

#[tokio::test]
async fn t36_the_same_subject_of_two_issuers_is_two_users() {
    let t = Trusting::start().await;
    let token = t.key.labelled("one", &t.claims());
    let desktop = TestClient::start(t.world.client_config(&token, "desktop", t.world.ollama().addr()));
    desktop.connected(1).await;
    let of_secret = |claims: &Value| t.world.caller().with_token(&hs256(claims));
    let ours = with(claims(ALICE), &json!({"aud": AUDIENCE}));
    assert_eq!(of_secret(&ours).get("/api/version").await.error(), (503, "tunnel_offline"));
    // Who has the secret may speak for the provider's users: that is how a URL for them is minted.
    assert_eq!(of_secret(&t.claims()).get("/api/version").await.status(), 200);
}

#[tokio::test]
async fn keys_at_an_address_and_where_to_sign_in() {
    let provider = Provider::start();
    let key = Issuer::new();
    provider.publish(&[key.jwk("one")]);
    let (keys, issuer) = (format!("{}{KEYS}", provider.issuer()), provider.issuer());
    let jwks = Setup::new().plain_http().without_desktop().server(move |config| {
        Provider::trusted_by(&issuer, config);
        config.auth.provider = Some(KeySource::Jwks(keys.parse().unwrap()));
    });
    let world = jwks.start().await;
    let caller = world.caller().with_token(&key.labelled("one", &claims_of(&provider)));
    assert_eq!(caller.get(STATUS).await.status(), 200);
    assert!(provider.asked(DOCUMENT).is_empty());
    assert_eq!(world.caller().anonymous().get("/api/tunnel/login").await.error(), (404, "no_login"));

    let issuer = provider.issuer();
    let with_login = Setup::new().plain_http().without_desktop().server(move |config| {
        let login = json!({"issuer": issuer, "client_id": CLIENT, "audience": AUDIENCE, "scope": "openid"});
        config.login = Some(serde_json::from_value(login).unwrap());
    });
    let reply = with_login.start().await.caller().anonymous().get("/api/tunnel/login").await;
    assert_eq!(reply.header("cache-control"), "no-store");
    let told = json!({"issuer": provider.issuer(), "client_id": CLIENT, "audience": AUDIENCE, "scope": "openid"});
    assert_eq!(reply.json().await, told);
}

#[tokio::test]
async fn check_asks_the_provider() {
    let shop = Workshop::new().await;
    let provider = Provider::start();
    provider.publish(&[Issuer::new().jwk("one")]);
    let issuer = provider.issuer();
    let check = async |issuer: &str| {
        let args =
            ["check", "--plain-http", "--oidc-issuer", issuer, "--jwt-audience", AUDIENCE, "--allow-user", "bob"];
        let secret = shop.arg("secret");
        run("tunneld", [&args[..], &["--jwt-secret-file", &secret]].concat())
            .await
            .success()
            .join(" ")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let good = check(&issuer).await;
    assert!(good.contains(&format!("keys of {issuer}")) && good.contains("can verify tokens: 1"), "{good}");
    let slash = check(&format!("{issuer}/")).await;
    assert!(slash.contains(&format!("write exactly that instead of \"{issuer}/\"")), "{slash}");
    provider.answer(KEYS, 404, "");
    let down = check(&issuer).await;
    let (_, thoughts) = down.split_once("Worth a thought").unwrap_or_else(|| panic!("nothing stands out: {down}"));
    assert!(thoughts.contains("- no keys from the identity provider"), "{down}");
    assert!(!good.contains("no keys"), "{good}");
}
