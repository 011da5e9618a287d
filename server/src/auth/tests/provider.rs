//! Keys that an identity provider publishes: which are taken, which answers for a token, and what a token of an unknown
//! one waits for.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tunnel_oidc::discovery::Issuer;

use super::*;
use crate::auth::published::Published;

/// A key as a provider publishes it.
pub(crate) fn jwk(signer: &Signer, kid: &str) -> Value {
    let raw = signer.pair.der_bytes();
    let part = |range: std::ops::Range<usize>| BASE64.encode(&raw[range]);
    let mut jwk = match signer.alg {
        // SEQUENCE, INTEGER of 257 bytes, INTEGER of three (RFC 8017 §A.1.1).
        "RS256" => json!({"kty": "RSA", "n": part(9..265), "e": part(267..270)}),
        "ES256" => json!({"kty": "EC", "crv": "P-256", "x": part(1..33), "y": part(33..65)}),
        "ES384" => json!({"kty": "EC", "crv": "P-384", "x": part(1..49), "y": part(49..97)}),
        _ => json!({"kty": "OKP", "crv": "Ed25519", "x": part(0..32)}),
    };
    jwk["kid"] = kid.into();
    jwk
}

/// `jwk` with one member changed.
fn with(mut jwk: Value, name: &str, value: impl Into<Value>) -> Value {
    jwk[name] = value.into();
    jwk
}

pub(crate) fn set(keys: &[Value]) -> Result<KeySet, KeySetError> {
    KeySet::parse(json!({"keys": keys, "more": 1}).to_string().as_bytes())
}

pub(crate) fn idp() -> AuthConfig {
    AuthConfig {
        secret: None,
        provider: Some(KeySource::Issuer(Issuer::parse(ISSUER).unwrap())),
        audience: Some("tunnel".into()),
        ..config()
    }
}

/// An authenticator that has fetched these keys.
fn knowing(config: AuthConfig, keys: &[Value]) -> Authenticator {
    let authenticator = Authenticator::new(config).unwrap();
    authenticator.replace_published(set(keys).unwrap());
    authenticator
}

fn claims() -> String {
    good(r#""aud":"tunnel""#)
}

fn token(signer: &Signer, kid: &str) -> String {
    signer.sign(&format!(r#"{{"alg":"{}","kid":"{kid}"}}"#, signer.alg), &claims())
}

fn unlabelled(signer: &Signer) -> String {
    signer.sign(&format!(r#"{{"alg":"{}"}}"#, signer.alg), &claims())
}

fn reason(verdict: Result<Arc<Identity>, AuthError>) -> &'static str {
    match verdict {
        Err(AuthError::Invalid(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_kind_of_key_answers_for_its_label() {
    let keys: Vec<_> = signers().iter().map(|signer| jwk(signer, signer.alg)).collect();
    let authenticator = knowing(idp(), &keys);
    for signer in signers() {
        let identity = authenticator.verify_at(&token(signer, signer.alg), at(NOW)).unwrap();
        assert_eq!(identity.user, UserId::new(ISSUER, "alice").unwrap());
        // Without a label, it is the one key for the algorithm.
        authenticator.verify_at(&unlabelled(signer), at(NOW)).unwrap();
        assert_eq!(authenticator.verify_at(&token(signer, "new"), at(NOW)), Err(AuthError::KeyUnknown));
    }
    let two = knowing(idp(), &[jwk(&P256, "1"), jwk(&Signer::new("ES256", &PKCS_ECDSA_P256_SHA256), "2")]);
    assert_eq!(reason(two.verify_at(&unlabelled(&P256), at(NOW))), "no key for this algorithm");
}

#[test]
fn t02_the_algorithm_is_the_keys_own() {
    let authenticator = knowing(idp(), &[jwk(&RSA, "1"), with(jwk(&ED, "2"), "alg", "Ed25519")]);
    authenticator.verify_at(&token(&ED, "2"), at(NOW)).unwrap();
    // Another label's, another algorithm of the same key, and the public key for a secret.
    assert_eq!(reason(authenticator.verify_at(&token(&ED, "1"), at(NOW))), "no key for this algorithm");
    let ps = RSA.sign(r#"{"alg":"PS256","kid":"1"}"#, &claims());
    assert_eq!(reason(authenticator.verify_at(&ps, at(NOW))), "no key for this algorithm");
    for alg in ["HS256", "HS384", "HS512"] {
        for secret in [RSA.pair.der_bytes(), RSA.pair.public_key_pem().as_bytes()] {
            let forged = hmac(secret, &format!(r#"{{"alg":"{alg}","kid":"1"}}"#), &claims());
            assert_eq!(reason(authenticator.verify_at(&forged, at(NOW))), "no key for this algorithm");
        }
    }
    let named = knowing(idp(), &[with(jwk(&RSA, "1"), "alg", "RS512")]);
    assert_eq!(reason(named.verify_at(&token(&RSA, "1"), at(NOW))), "no key for this algorithm");
}

#[test]
fn t06_t09_t36_a_provider_speaks_for_its_issuer_and_audience_alone() {
    let judge = |authenticator: &Authenticator, payload: &str| {
        authenticator.verify_at(&ED.sign(r#"{"alg":"EdDSA","kid":"1"}"#, payload), at(NOW))
    };
    let authenticator = knowing(idp(), &[jwk(&ED, "1")]);
    let exp = NOW + 60;
    let claims = |iss: &str, more: &str| format!(r#"{{"sub":"alice","exp":{exp}{iss}{more}}}"#);
    let (ours, aud) = (format!(r#","iss":"{ISSUER}""#), r#","aud":"tunnel""#);
    judge(&authenticator, &claims(&ours, aud)).unwrap();
    for iss in [format!(r#","iss":"{ISSUER}/""#), format!(r#","iss":"{OWN_ISSUER}""#), r#","iss":"""#.into()] {
        assert_eq!(reason(judge(&authenticator, &claims(&iss, aud))), "from another issuer");
    }
    assert_eq!(reason(judge(&authenticator, &claims("", aud))), "iss is missing");
    for aud in ["", r#","aud":"other""#, r#","aud":[]"#] {
        assert_eq!(reason(judge(&authenticator, &claims(&ours, aud))), "for another audience");
    }
    assert_eq!(reason(judge(&authenticator, &format!(r#"{{"sub":"alice"{ours}{aud}}}"#))), "exp is missing");
    assert_eq!(reason(judge(&authenticator, &format!(r#"{{"exp":{exp}{ours}{aud}}}"#))), "sub is missing");
    // A set without an issuer speaks for any but ours; with one, for that.
    let jwks = || AuthConfig { provider: Some(KeySource::Jwks("https://x.example/keys".parse().unwrap())), ..idp() };
    let any = knowing(jwks(), &[jwk(&ED, "1")]);
    judge(&any, &claims(r#","iss":"https://whoever.example""#, aud)).unwrap();
    assert_eq!(reason(judge(&any, &claims(&format!(r#","iss":"{OWN_ISSUER}""#), aud))), "from another issuer");
    let one = knowing(AuthConfig { issuer: Some(ISSUER.into()), ..jwks() }, &[jwk(&ED, "1")]);
    judge(&one, &claims(&ours, aud)).unwrap();
    assert_eq!(reason(judge(&one, &claims(r#","iss":"https://x.example""#, aud))), "from another issuer");
    assert_eq!(Authenticator::new(AuthConfig { audience: None, ..idp() }).unwrap_err(), AuthConfigError::NoAudience);
}

#[test]
fn three_sources_at_once_do_not_speak_for_each_other() {
    let fixed = Signer::new("ES256", &PKCS_ECDSA_P256_SHA256);
    let all = AuthConfig { secret: config().secret, public_key: Some(fixed.public()), ..idp() };
    let authenticator = knowing(all, &[jwk(&P256, "1")]);
    let verify = |token: &str| authenticator.verify_at(token, at(NOW));
    verify(&token(&P256, "1")).unwrap();
    verify(&hs256(&claims())).unwrap(); // the operator may speak for anyone
    let elsewhere = claims().replace(ISSUER, "https://elsewhere.example");
    for header in [r#"{"alg":"ES256"}"#, r#"{"alg":"ES256","kid":"1"}"#, r#"{"alg":"ES256","kid":"7"}"#] {
        verify(&fixed.sign(header, &elsewhere)).unwrap();
        assert_eq!(reason(verify(&fixed.sign(header, &claims()))), "from another issuer");
    }
    // Of neither, perhaps of a key that the provider has published since.
    assert_eq!(verify(&token(&Signer::new("ES256", &PKCS_ECDSA_P256_SHA256), "7")), Err(AuthError::KeyUnknown));
}

#[test]
fn t17_a_set_with_something_secret_is_refused_whole() {
    for poison in [
        json!({"kty": "oct", "k": "c2VjcmV0", "kid": "2"}),
        json!({"kty": "oct", "kid": "2"}),
        with(jwk(&P256, "2"), "d", "c2VjcmV0"),
        with(jwk(&RSA, "2"), "d", "c2VjcmV0"),
        with(jwk(&ED, "2"), "k", "c2VjcmV0"),
        json!({"kty": "AKP", "d": {}}),
    ] {
        assert!(matches!(set(&[jwk(&P256, "1"), poison.clone()]), Err(KeySetError::Secret)), "{poison}");
    }
    for broken in
        ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[{}]}"#, r#"{"keys":[{"kty":1}]}"#, "\u{feff}{}", "<html>"]
    {
        assert!(matches!(KeySet::parse(broken.as_bytes()), Err(KeySetError::Malformed(_))), "{broken}");
    }
    assert!(matches!(set(&vec![jwk(&ED, "1"); 65]), Err(KeySetError::TooMany)));
}

#[test]
fn t17_keys_for_something_else_are_left_out() {
    let weak = BASE64.encode([0xff; 128]);
    let padded = BASE64.encode([[0; 128], [0xff; 128]].concat());
    let useless = [
        with(jwk(&RSA, "1"), "use", "enc"),
        with(jwk(&RSA, "1"), "alg", "RSA-OAEP"),
        with(jwk(&RSA, "1"), "alg", "HS256"),
        with(jwk(&RSA, "1"), "alg", "none"),
        with(jwk(&RSA, "1"), "alg", "ES256"),
        with(jwk(&P256, "1"), "alg", "ES384"),
        with(jwk(&P256, "1"), "key_ops", json!(["encrypt"])),
        with(jwk(&P256, "1"), "crv", "P-521"),
        with(jwk(&P256, "1"), "x", "AAAA"),
        with(jwk(&P256, "1"), "kty", "OKP"),
        with(jwk(&ED, "1"), "crv", "X25519"),
        with(jwk(&ED, "1"), "x", "AAAA"),
        with(jwk(&RSA, "1"), "n", weak),
        with(jwk(&RSA, "1"), "n", padded),
        with(jwk(&RSA, "1"), "n", BASE64.encode([0xff; 2048])),
        with(jwk(&RSA, "1"), "n", "not base64!"),
    ];
    for key in useless {
        assert!(matches!(set(std::slice::from_ref(&key)), Err(KeySetError::NoneUsable)), "{key}");
        assert_eq!(set(&[key, jwk(&ED, "2")]).unwrap().len(), 1);
    }
    assert!(matches!(set(&[]), Err(KeySetError::NoneUsable)));
}

#[test]
fn t14_a_withdrawn_key_ends_its_tokens_and_no_others() {
    let authenticator = knowing(idp(), &[jwk(&P256, "1"), jwk(&ED, "2")]);
    let [old, kept] = [token(&P256, "1"), token(&ED, "2")];
    let identity = authenticator.verify_at(&old, at(NOW)).unwrap();
    authenticator.verify_at(&kept, at(NOW)).unwrap();
    assert!(!authenticator.replace_published(set(&[jwk(&P256, "1"), jwk(&ED, "2")]).unwrap()), "no change");
    assert!(authenticator.replace_published(set(&[jwk(&ED, "2"), jwk(&P384, "3")]).unwrap()));
    assert_eq!(authenticator.verify_at(&old, at(NOW)), Err(AuthError::KeyUnknown));
    assert_eq!(futures_util::FutureExt::now_or_never(authenticator.refused(&identity)), Some(AuthError::KeyReplaced));
    authenticator.verify_at(&kept, at(NOW)).unwrap();
    authenticator.verify_at(&token(&P384, "3"), at(NOW)).unwrap();
    // Keys do not come into a server that was not told to follow a provider.
    assert!(!Authenticator::new(config()).unwrap().replace_published(set(&[jwk(&ED, "2")]).unwrap()));
}

/// Judges a token of a key that is never known, and counts how often.
async fn unknown(published: &Published, times: &AtomicUsize) -> Result<(), AuthError> {
    published
        .judge(|| {
            times.fetch_add(1, Ordering::Relaxed);
            Err(AuthError::KeyUnknown)
        })
        .await
}

#[tokio::test(start_paused = true)]
async fn t15_an_unknown_key_asks_once_and_waits_for_the_answer() {
    let (published, times) = (Published::new(), AtomicUsize::new(0));
    published.are(Freshness::Aged);
    let asked =
        async || tokio::time::timeout(Duration::from_secs(60), published.one_missing()).await.expect("asked for");
    let fetching = async {
        asked().await;
        published.are(Freshness::Coming);
        tokio::time::sleep(Duration::from_secs(3)).await;
        published.are(Freshness::Fresh);
    };
    let (verdict, ()) = tokio::join!(unknown(&published, &times), fetching);
    assert_eq!((verdict, times.load(Ordering::Relaxed)), (Err(AuthError::KeyUnknown), 3));
    assert_eq!(futures_util::FutureExt::now_or_never(published.one_missing()), None, "asked for once");
    // While they are fresh, at once; and not forgotten.
    let verdict = futures_util::FutureExt::now_or_never(unknown(&published, &times));
    assert_eq!(verdict, Some(Err(AuthError::KeyUnknown)));
    asked().await;
}

#[tokio::test(start_paused = true)]
async fn t16_who_cannot_be_judged_is_told_so_in_time() {
    let (published, times) = (Published::new(), AtomicUsize::new(0));
    // Keys that never come.
    let started = tokio::time::Instant::now();
    assert_eq!(unknown(&published, &times).await, Err(AuthError::KeysUnavailable));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    published.are(Freshness::Unavailable);
    let verdict = futures_util::FutureExt::now_or_never(unknown(&published, &times));
    assert_eq!(verdict, Some(Err(AuthError::KeysUnavailable)));
    // Others do not wait for them.
    assert_eq!(published.judge(|| Ok(())).await, Ok(()));
    assert_eq!(published.judge(|| Err::<(), _>(AuthError::Expired)).await, Err(AuthError::Expired));
}
