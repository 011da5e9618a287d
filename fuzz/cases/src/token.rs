//! Tokens: whoever has no key gets nowhere, and what a key's owner signs is read as it says.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use serde_json::Value;
use tunneld::auth::{Allow, AuthConfig, AuthError, Authenticator, Identity, OWN_ISSUER, PublicKey, Scope, Secret};

use crate::input::Input;

/// The instant at which every token here is judged, in seconds since 1970: an input must mean the same tomorrow.
const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"the secret of the fuzz targets, which is long enough";
const AUDIENCE: &str = "tunnel";

/// RFC 8032 §7.1, test 1: a private key that everyone knows, in PKCS #8, and its public key, in SPKI.
const PRIVATE: &str = "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v_VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g";
const PUBLIC: &str = "MCowBQYDK2VwAyEA11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

/// Good for both authenticators, by the secret and by the public key.
static GOOD: LazyLock<[String; 2]> = LazyLock::new(|| {
    let claims = format!(r#"{{"sub":"bob","iss":"https://id.example","aud":"{AUDIENCE}","exp":{}}}"#, NOW + 600);
    [
        signed(br#"{"alg":"HS256","typ":"JWT"}"#, claims.as_bytes(), SECRET, Algorithm::HS256),
        signed(br#"{"alg":"EdDSA","kid":"k1"}"#, claims.as_bytes(), &der(PRIVATE), Algorithm::EdDSA),
    ]
});

/// One that asks for no audience, and one that asks for everything.
static AUTHENTICATORS: LazyLock<[Authenticator; 2]> = LazyLock::new(|| {
    let spki = der(PUBLIC);
    [false, true].map(|strict| {
        let config = AuthConfig {
            secret: Some(Secret::new(SECRET).expect("long enough")),
            public_key: PublicKey::from_spki(&SubjectPublicKeyInfoDer::from(spki.as_slice())),
            provider: None,
            issuer: strict.then(|| "https://id.example".to_owned()),
            audience: strict.then(|| AUDIENCE.to_owned()),
            allow: Allow::Any,
            require_scope: strict,
        };
        Authenticator::new(config).expect("a configuration")
    })
});

/// The first byte says what follows:
///
/// * `0` a token; `1` changes to a good one: pairs of a place and a byte.
/// * `2` `3` a header in a line, then claims, signed by the secret and by the private key.
/// * `4` the same, signed with the public key for a secret; `5` the same, with a signature in a line between.
pub fn token(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 6 {
        0 => {
            if let Ok(text) = str::from_utf8(input.rest()) {
                refused(text);
            }
        }
        1 => changed(input),
        2 => judged(&input_signed(input, SECRET, Algorithm::HS256), Signer::Secret),
        3 => judged(&input_signed(input, &der(PRIVATE), Algorithm::EdDSA), Signer::Key),
        4 => refused(&input_signed(input, &der(PUBLIC), Algorithm::HS256)),
        _ => {
            let header = BASE64.encode(input.line());
            let Some(signature) = input.text() else { return };
            refused(&format!("{header}.{}.{signature}", BASE64.encode(input.rest())));
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Signer {
    Secret,
    Key,
}

fn input_signed(mut input: Input<'_>, key: &[u8], algorithm: Algorithm) -> String {
    signed(input.line(), input.rest(), key, algorithm)
}

fn signed(header: &[u8], claims: &[u8], key: &[u8], algorithm: Algorithm) -> String {
    let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let key = match algorithm {
        Algorithm::EdDSA => EncodingKey::from_ed_der(key),
        _ => EncodingKey::from_secret(key),
    };
    let signature = crypto::sign(message.as_bytes(), &key, algorithm).expect("a key that signs");
    format!("{message}.{signature}")
}

fn der(text: &str) -> Vec<u8> {
    BASE64.decode(text).expect("base64")
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// What nobody with a key has signed opens nothing.
fn refused(token: &str) {
    for authenticator in &*AUTHENTICATORS {
        let judged = authenticator.verify_at(token, at(NOW));
        assert!(matches!(judged, Err(AuthError::Invalid(_))), "{judged:?} for {token:?}");
    }
}

/// A good token with bytes changed is a good token only if nothing changed.
fn changed(mut input: Input<'_>) {
    let good = &GOOD[usize::from(input.byte() % 2)];
    let mut bytes = good.clone().into_bytes();
    for change in input.rest().chunks_exact(3) {
        let place = usize::from(u16::from_be_bytes([change[0], change[1]])) % (bytes.len() + 1);
        match change[2] {
            0 => bytes.truncate(place),
            byte if place == bytes.len() => bytes.push(byte),
            byte => bytes[place] = byte,
        }
    }
    let Ok(token) = String::from_utf8(bytes) else { return };
    if token == *good {
        for authenticator in &*AUTHENTICATORS {
            authenticator.verify_at(&token, at(NOW)).expect("a good token");
        }
    } else {
        refused(&token);
    }
}

/// A token with a good signature: what is believed of it is what it says.
fn judged(token: &str, signer: Signer) {
    for (strict, authenticator) in [false, true].into_iter().zip(&*AUTHENTICATORS) {
        let Ok(identity) = authenticator.verify_at(token, at(NOW)) else { continue };
        assert!(token.len() <= 8 * 1024, "a token of {} bytes", token.len());
        let part = |index: usize| -> Value {
            let text = token.split('.').nth(index).expect("three parts");
            serde_json::from_slice(&BASE64.decode(text).expect("base64")).expect("JSON")
        };
        check_header(&part(0), signer);
        check_claims(&part(1), &identity, signer, strict);
        let last = identity.expires + Duration::from_secs(30);
        assert_eq!(authenticator.verify_at(token, last).as_ref(), Ok(&identity));
        assert_eq!(authenticator.verify_at(token, last + Duration::from_secs(1)), Err(AuthError::Expired));
    }
}

fn check_header(header: &Value, signer: Signer) {
    let algorithm = if signer == Signer::Secret { "HS256" } else { "EdDSA" };
    assert_eq!(header["alg"], algorithm, "{header}");
    assert!(header["crit"].is_null(), "critical extensions: {header}");
    if let Some(typ) = header["typ"].as_str() {
        assert!(typ.to_ascii_lowercase().ends_with("jwt"), "{header}");
    }
}

fn check_claims(claims: &Value, identity: &Identity, signer: Signer, strict: bool) {
    let text = |name: &str| claims.get(name).map(|value| value.as_str().expect("a text"));
    let seconds = |name: &str| claims.get(name).map(|value| value.as_u64().expect("whole seconds"));
    assert_eq!(Some(identity.user.subject()), text("sub"));
    assert_eq!(identity.user.issuer(), text("iss").unwrap_or(OWN_ISSUER));
    for part in [identity.user.subject(), identity.user.issuer()] {
        assert!((1..=255).contains(&part.len()));
    }
    if signer == Signer::Key {
        assert_ne!(identity.user.issuer(), OWN_ISSUER, "a stranger speaks for us");
        assert!(!strict || identity.user.issuer() == "https://id.example");
    }
    let expires = seconds("exp").expect("an end");
    assert_eq!(identity.expires, at(expires));
    assert!(expires + 30 >= NOW, "expired");
    assert!(seconds("nbf").unwrap_or(0) <= NOW + 30, "not valid yet");
    assert!(seconds("iat").unwrap_or(0) <= NOW + 60, "from the future");
    if strict {
        let named = |value: &Value| value == AUDIENCE;
        assert!(named(&claims["aud"]) || claims["aud"].as_array().is_some_and(|list| list.iter().any(named)));
    }
    assert_eq!(identity.tunnel.as_deref(), text("tunnel"));
    assert_eq!(identity.jti.as_deref(), text("jti"));
    assert!(identity.tunnel.as_ref().is_none_or(|name| (1..=255).contains(&name.len())));
    check_scope(claims, identity.scope, strict);
}

/// Nothing is allowed that no word allows; where no word is about tunnels, what the configuration says.
fn check_scope(claims: &Value, scope: Scope, strict: bool) {
    let lists = [&claims["scope"], &claims["scp"]];
    let words: Vec<&str> = lists
        .into_iter()
        .flat_map(|value| value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice))
        .filter_map(Value::as_str)
        .flat_map(str::split_ascii_whitespace)
        .collect();
    let silent = !words.iter().any(|word| word.to_ascii_lowercase().starts_with("tunnel:"));
    let open = silent && !strict;
    let says = |name: &str| words.contains(&name);
    assert_eq!(scope.contains(Scope::CONNECT), open || says("tunnel:connect"));
    assert_eq!(scope.contains(Scope::PROXY), open || says("tunnel:proxy"));
    assert_eq!(scope.contains(Scope::INFER), open || says("tunnel:proxy") || says("tunnel:infer"));
}
