//! Where a token may be: header fields, API keys, passwords, never a query; and where it may not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use base64::prelude::{BASE64_STANDARD, Engine};
use http::{HeaderValue, Method};
use integration_tests::{
    body,
    caller::{Caller, Reply},
    jwt::{claims, hs256, with},
    pki,
    setup::{ALICE, Setup},
};
use serde_json::json;

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
