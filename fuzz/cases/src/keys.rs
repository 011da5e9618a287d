//! Sets of keys of an identity provider: nothing secret gets in, whatever the rest looks like.

use serde_json::Value;
use tunneld::auth::{Allow, AuthConfig, Authenticator, KeySet, KeySource};

/// Any bytes, as a provider's answer.
pub fn keys(data: &[u8]) {
    let Ok(set) = KeySet::parse(data) else { return };
    // Read a second time, and naively: what was taken is what it looks like. What nobody asks for is skipped there, and may
    // hold half of a surrogate pair, which no text here can.
    let Ok(document) = serde_json::from_slice::<Value>(data) else { return };
    let keys = document["keys"].as_array().expect("what was taken has a list of keys");
    assert!((1..=keys.len().min(64)).contains(&set.len()), "{} of {}", set.len(), keys.len());
    for key in keys {
        assert!(key.get("d").is_none_or(Value::is_null), "a private key was taken");
        assert!(key.get("k").is_none_or(Value::is_null), "a shared secret was taken");
        assert_ne!(key["kty"], "oct", "a shared secret was taken");
    }
    // And it can be put in force.
    let config = AuthConfig {
        secret: None,
        public_key: None,
        provider: Some(KeySource::Jwks("https://id.example/keys".parse().expect("a URL"))),
        issuer: None,
        audience: Some("tunnel".into()),
        allow: Allow::Any,
        require_scope: false,
    };
    assert!(Authenticator::new(config).expect("a configuration").replace_published(set));
}
