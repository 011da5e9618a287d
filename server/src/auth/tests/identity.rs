//! What a good token says about its bearer, who is let in, and what is minted.

use super::*;
use crate::auth::mint::{MintError, MintRequest, mint_at};

#[test]
fn good_tokens_of_every_kind_are_accepted() {
    assert_eq!(judge(config(), &hs256(&good(""))).unwrap().user, UserId::new(ISSUER, "alice").unwrap());
    for signer in signers() {
        let identity = judge(public(signer), &signer.token(&good(r#""jti":"7""#))).unwrap();
        assert_eq!(identity.user.subject(), "alice", "{}", signer.alg);
        assert_eq!(identity.jti.as_deref(), Some("7"));
        assert_eq!(identity.expires, at(NOW + 60));
        assert_eq!(signer.public().algorithm(), signer.alg);
    }
}

#[test]
fn both_sources_at_once() {
    let both = || AuthConfig { secret: config().secret, ..public(&P256) };
    judge(both(), &P256.token(&good(""))).unwrap();
    let minted = hs256(&format!(r#"{{"sub":"alice","exp":{}}}"#, NOW + 1));
    assert_eq!(judge(both(), &minted).unwrap().user, UserId::new(OWN_ISSUER, "alice").unwrap());
    // With the issuer named, a token minted here reaches the user of the identity provider.
    assert_eq!(judge(both(), &hs256(&good(""))).unwrap().user, judge(both(), &P256.token(&good(""))).unwrap().user);
    refused(both(), &RSA.token(&good("")), "no key for this algorithm");
}

#[test]
fn t18_no_key_and_empty_settings_do_not_start() {
    let error = |config| Authenticator::new(config).unwrap_err();
    assert_eq!(error(AuthConfig { secret: None, ..config() }), AuthConfigError::NoKey);
    assert_eq!(error(AuthConfig { issuer: Some(String::new()), ..config() }), AuthConfigError::EmptyIssuer);
    assert_eq!(error(AuthConfig { audience: Some(String::new()), ..config() }), AuthConfigError::EmptyAudience);
    for nobody in [Allow::Users(vec![]), Allow::Users(vec![String::new()]), Allow::Claims(vec![])] {
        assert_eq!(error(AuthConfig { allow: nobody, ..config() }), AuthConfigError::NobodyAllowed);
    }
}

#[test]
fn t36_users_are_issuer_and_subject_as_bytes() {
    let user = |iss: &str, sub: &str| {
        let token = hs256(&format!(r#"{{"iss":"{iss}","sub":"{sub}","exp":{NOW}}}"#));
        judge(config(), &token).map(|identity| identity.user.clone())
    };
    for (iss, sub) in [("b", "bob"), ("a", "Bob"), ("a", " bob"), ("a", "bob "), ("a", "bob\\u0000")] {
        assert_ne!(user("a", "bob").unwrap(), user(iss, sub).unwrap(), "{iss} {sub}");
    }
    assert_ne!(user("a", "caf\u{e9}").unwrap(), user("a", "cafe\u{301}").unwrap());
    assert_eq!(user("a", "caf\u{e9}").unwrap(), user("a", "caf\\u00e9").unwrap());
    user("a", &"x".repeat(255)).unwrap();
    for (iss, sub) in [("a", ""), ("", "bob"), ("a", &*"x".repeat(256)), (&*"x".repeat(256), "bob"), ("a", "\\ud800")] {
        assert!(matches!(user(iss, sub), Err(AuthError::Invalid(_))), "{iss} {sub}");
    }
}

#[test]
fn t40_a_token_without_a_tunnel_scope_and_require_scope() {
    let strict = || AuthConfig { require_scope: true, ..config() };
    for (claim, lenient, required) in [
        ("", Scope::CONNECT | Scope::PROXY, Scope::NONE),
        (r#""scope":"openid email""#, Scope::CONNECT | Scope::PROXY, Scope::NONE),
        (r#""scope":"openid tunnel:infer""#, Scope::INFER, Scope::INFER),
        (r#""scope":["tunnel:infer"]"#, Scope::INFER, Scope::INFER),
        (
            r#""scp":"tunnel:connect","scope":"tunnel:infer""#,
            Scope::CONNECT | Scope::INFER,
            Scope::CONNECT | Scope::INFER,
        ),
        (r#""scope":"tunnel:admin""#, Scope::NONE, Scope::NONE),
        (r#""scope":"Tunnel:Proxy""#, Scope::NONE, Scope::NONE),
    ] {
        let token = hs256(&good(claim));
        assert_eq!(judge(config(), &token).unwrap().scope, lenient, "{claim}");
        assert_eq!(judge(strict(), &token).unwrap().scope, required, "{claim}");
    }
    for wrong in ["7", "null", "{}", "[7]", "true"] {
        refused_claims(&good(&format!(r#""scope":{wrong}"#)), "scope is neither");
    }
}

#[test]
fn who_is_let_in() {
    let judge = |allow, claims: &str| judge(AuthConfig { allow, ..config() }, &hs256(&good(claims))).map(|_| ());
    let users = |users: &[&str]| Allow::Users(users.iter().map(|&user| user.into()).collect());
    let claims = |claims: &[(&str, &str)]| Allow::Claims(claims.iter().map(|&(k, v)| (k.into(), v.into())).collect());

    assert_eq!(judge(users(&["bob", "alice"]), ""), Ok(()));
    for others in [&["bob"], &["Alice"], &["alice "]] {
        assert_eq!(judge(users(others), ""), Err(AuthError::NotAllowed));
    }
    let more = r#""groups":["llm","dev"],"email_verified":true,"level":3,"team":"a""#;
    for wanted in [("groups", "llm"), ("email_verified", "true"), ("level", "3"), ("team", "a"), ("sub", "alice")] {
        assert_eq!(judge(claims(&[wanted]), more), Ok(()), "{wanted:?}");
    }
    assert_eq!(judge(claims(&[("groups", "llm"), ("team", "a")]), more), Ok(()));
    assert_eq!(judge(claims(&[("groups", "llm"), ("team", "b")]), more), Err(AuthError::NotAllowed));
    for missing in [("groups", "ll"), ("groups", "llm,dev"), ("group", "llm"), ("team", ""), ("team", "A")] {
        assert_eq!(judge(claims(&[missing]), more), Err(AuthError::NotAllowed), "{missing:?}");
    }
}

#[test]
fn remembered_tokens_expire() {
    let token = hs256(&good(""));
    let authenticator = Authenticator::new(config()).unwrap();
    let first = authenticator.verify_at(&token, at(NOW)).unwrap();
    assert!(Arc::ptr_eq(&first, &authenticator.verify_at(&token, at(NOW + 90)).unwrap()));
    assert_eq!(authenticator.verify_at(&token, at(NOW + 91)), Err(AuthError::Expired));
}

#[test]
fn what_is_minted_is_accepted() {
    let secret = Secret::new(SECRET).unwrap();
    let request = MintRequest {
        scope: Scope::INFER,
        ttl: Duration::from_secs(60),
        issuer: Some(ISSUER.into()),
        audience: Some("tunnel".into()),
        tunnel: Some("attic".into()),
        server: Some("https://tunnel.example".into()),
        ..MintRequest::new("alice")
    };
    let token = mint_at(&secret, &request, at(NOW)).unwrap();
    let identity = judge(AuthConfig { audience: Some("tunnel".into()), ..config() }, &token).unwrap();
    assert_eq!(identity.user, UserId::new(ISSUER, "alice").unwrap());
    assert_eq!((identity.scope, identity.expires), (Scope::INFER, at(NOW + 60)));
    assert_eq!(identity.tunnel.as_deref(), Some("attic"));
    assert_eq!(identity.server.as_deref(), Some("https://tunnel.example"));
    assert_eq!(identity.jti.as_ref().unwrap().parse::<uuid::Uuid>().unwrap().get_version_num(), 7);

    let plain = judge(config(), &mint_at(&secret, &MintRequest::new("bob"), at(NOW)).unwrap()).unwrap();
    assert_eq!(plain.user, UserId::new(OWN_ISSUER, "bob").unwrap());
    assert_eq!(plain.scope, Scope::CONNECT | Scope::PROXY);
}

#[test]
fn what_would_be_refused_is_not_minted() {
    let secret = Secret::new(SECRET).unwrap();
    let error = |request| mint_at(&secret, &request, at(NOW)).unwrap_err();
    let alice = || MintRequest::new("alice");
    assert!(matches!(error(MintRequest::new("")), MintError::User(_)));
    assert!(matches!(error(MintRequest { scope: Scope::NONE, ..alice() }), MintError::NoScope));
    for name in ["", "my desk", "büro", "two\nlines", &"x".repeat(65)] {
        assert!(matches!(error(MintRequest { tunnel: Some(name.into()), ..alice() }), MintError::Tunnel), "{name}");
    }
    assert!(matches!(error(MintRequest { server: Some("x".repeat(8192)), ..alice() }), MintError::TooLong));
    for ttl in [Duration::ZERO, Duration::from_millis(999), Duration::MAX] {
        assert!(matches!(error(MintRequest { ttl, ..alice() }), MintError::Ttl));
    }
}

#[test]
fn t32_nothing_secret_in_debug_or_errors() {
    let token = hs256(&good(""));
    let authenticator = Authenticator::new(config()).unwrap();
    authenticator.verify_at(&token, at(NOW)).unwrap();
    let shown = format!("{authenticator:?} {:?}", config());
    assert!(!shown.contains(SECRET) && !shown.contains(&token) && !shown.contains("116, 104, 101, 32, 115"), "{shown}");
}
