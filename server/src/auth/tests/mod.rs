//! Tests of the whole module: tokens go in, verdicts come out.
//!
//! Here is how tokens are made, good ones and forged ones. All keys are made for the run; time is a parameter. The
//! names of tests carry the ids of the threats that they guard.

use std::{sync::LazyLock, time::UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData,
    SignatureAlgorithm, SigningKey,
};

use super::*;

mod changes;
mod hostile;
mod identity;
mod keys;
pub(crate) mod provider;

/// "Now" in every test: a round number.
const NOW: u64 = 1_800_000_000;

/// The shared secret of the tests.
const SECRET: &str = "the shared secret of these tests, never used elsewhere";

/// The issuer that the public keys speak for.
const ISSUER: &str = "https://issuer.example";

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A private key, made for this run.
pub(crate) struct Signer {
    alg: &'static str,
    pair: KeyPair,
}

impl Signer {
    fn new(alg: &'static str, kind: &'static SignatureAlgorithm) -> Self {
        Self { alg, pair: KeyPair::generate_for(kind).unwrap() }
    }

    fn public(&self) -> PublicKey {
        PublicKey::from_spki(&self.pair.subject_public_key_info().into()).unwrap()
    }

    /// A token with this header and payload, whatever they are.
    pub(crate) fn sign(&self, header: &str, payload: &str) -> String {
        let message = message(header, payload);
        let signature = match self.alg {
            // rcgen signs ECDSA as X.509 wants it, not as RFC 7518 §3.4 does.
            "ES256" => return es(Algorithm::ES256, &self.pair, &message),
            "ES384" => return es(Algorithm::ES384, &self.pair, &message),
            _ => self.pair.sign(message.as_bytes()).unwrap(),
        };
        format!("{message}.{}", BASE64.encode(signature))
    }

    fn token(&self, payload: &str) -> String {
        self.sign(&format!(r#"{{"alg":"{}","kid":"1"}}"#, self.alg), payload)
    }
}

fn es(algorithm: Algorithm, pair: &KeyPair, message: &str) -> String {
    let key = EncodingKey::from_ec_der(pair.serialized_der());
    format!("{message}.{}", crypto::sign(message.as_bytes(), &key, algorithm).unwrap())
}

static RSA: LazyLock<Signer> = LazyLock::new(|| Signer::new("RS256", &PKCS_RSA_SHA256));
pub(crate) static P256: LazyLock<Signer> = LazyLock::new(|| Signer::new("ES256", &PKCS_ECDSA_P256_SHA256));
static P384: LazyLock<Signer> = LazyLock::new(|| Signer::new("ES384", &PKCS_ECDSA_P384_SHA384));
pub(crate) static ED: LazyLock<Signer> = LazyLock::new(|| Signer::new("EdDSA", &PKCS_ED25519));

fn signers() -> [&'static Signer; 4] {
    [&RSA, &P256, &P384, &ED]
}

fn message(header: &str, payload: &str) -> String {
    format!("{}.{}", BASE64.encode(header), BASE64.encode(payload))
}

/// A token signed with the given secret as HMAC-SHA-256, whatever its header says.
fn hmac(secret: &[u8], header: &str, payload: &str) -> String {
    let message = message(header, payload);
    let key = EncodingKey::from_secret(secret);
    format!("{message}.{}", crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap())
}

/// A token signed with the shared secret.
fn hs256(payload: &str) -> String {
    hmac(SECRET.as_bytes(), r#"{"alg":"HS256","typ":"JWT"}"#, payload)
}

/// Claims that are good now, and these besides.
fn good(more: &str) -> String {
    let comma = if more.is_empty() { "" } else { "," };
    format!(r#"{{"sub":"alice","iss":"{ISSUER}","exp":{}{comma}{more}}}"#, NOW + 60)
}

/// The shared secret alone, everyone let in.
fn config() -> AuthConfig {
    AuthConfig {
        secret: Some(Secret::new(SECRET).unwrap()),
        public_key: None,
        provider: None,
        issuer: None,
        audience: None,
        allow: Allow::Any,
        require_scope: false,
    }
}

/// The public key of `signer` alone.
fn public(signer: &Signer) -> AuthConfig {
    AuthConfig { secret: None, public_key: Some(signer.public()), issuer: Some(ISSUER.into()), ..config() }
}

/// The verdict of a fresh authenticator.
fn judge(config: AuthConfig, token: &str) -> Result<Arc<Identity>, AuthError> {
    Authenticator::new(config).unwrap().verify_at(token, at(NOW))
}

/// Asserts that the token is refused, as invalid and for this reason.
#[track_caller]
fn refused(config: AuthConfig, token: &str, reason: &str) {
    match judge(config, token) {
        Err(AuthError::Invalid(given)) => assert!(given.contains(reason), "{given:?}, not {reason:?}: {token}"),
        other => panic!("{other:?}: {token}"),
    }
}

/// Asserts that a secret-signed token with these further claims is refused for this reason.
#[track_caller]
fn refused_claims(payload: &str, reason: &str) {
    refused(config(), &hs256(payload), reason);
}
