//! Keys that an identity provider publishes (JSON Web Key Set, RFC 7517).
//!
//! Owns which keys of a set are taken, and when a whole set is not: whoever publishes a private key or a shared secret
//! has lost it, and then nothing of the set can be trusted. Knows no network.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::{Algorithm, DecodingKey, Header};
use serde::{Deserialize, de::IgnoredAny};
use thiserror::Error;

use super::{
    KeyId,
    keys::{Key, Source},
};

/// The most keys in a set. Providers publish two to six.
const MAX_KEYS: usize = 64;

/// RSA: below, it can be broken (RFC 7518 §3.3); above, each check takes long, and the library refuses.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The keys of a set that can verify tokens, each with its label (`kid`).
#[derive(Debug, Clone, Default)]
pub struct KeySet(Vec<(Option<String>, Key)>);

/// A set that is not taken. Reads as the end of a sentence that starts with where it came from.
#[derive(Debug, Error)]
pub enum KeySetError {
    /// Not JSON, or members of the wrong type.
    #[error("is no JSON Web Key Set: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Known to everyone by now.
    #[error("publishes a private key or a shared secret, so nothing of it can be trusted")]
    Secret,
    /// Nobody has as many.
    #[error("has more than {MAX_KEYS} keys")]
    TooMany,
    /// Empty, or all keys are for something else.
    #[error(
        "has no key that can verify tokens here: RSA of 2048 to 8192 bits, P-256, P-384 or Ed25519, for signatures"
    )]
    NoneUsable,
}

/// What a set has for a token.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found<'a> {
    /// The one key that may answer.
    Key(&'a Key),
    /// The key, but for another algorithm; or no label, and not exactly one key to take it for.
    Unfit,
    /// No key with this label: the provider may have published it since.
    Missing,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Jwk>,
}

/// A JSON Web Key (RFC 7517 §4, RFC 7518 §6, RFC 8037). Members with other names are left out of account.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// The private part of any kind of key.
    d: Option<IgnoredAny>,
    /// A shared secret.
    k: Option<IgnoredAny>,
}

impl KeySet {
    /// Reads a set. Keys for encryption and of unknown kinds are left out.
    ///
    /// # Errors
    /// See [`KeySetError`].
    pub fn parse(json: &[u8]) -> Result<Self, KeySetError> {
        let Document { keys } = serde_json::from_slice(json)?;
        if keys.len() > MAX_KEYS {
            return Err(KeySetError::TooMany);
        }
        if keys.iter().any(|key| key.d.is_some() || key.k.is_some() || key.kty == "oct") {
            return Err(KeySetError::Secret);
        }
        let usable: Vec<_> = keys.into_iter().filter_map(|jwk| Some((jwk.kid.clone(), jwk.key()?))).collect();
        if usable.is_empty() { Err(KeySetError::NoneUsable) } else { Ok(Self(usable)) }
    }

    /// How many keys it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none: nothing was fetched yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, id: KeyId) -> bool {
        self.0.iter().any(|(_, key)| key.id == id)
    }

    pub(super) fn same_as(&self, other: &Self) -> bool {
        let same = |((kid, key), (other_kid, other)): (&(_, Key), &(_, Key))| kid == other_kid && key.id == other.id;
        self.len() == other.len() && self.0.iter().zip(&other.0).all(same)
    }

    /// The key for a token with this header. The algorithm is the key's, never the token's (RFC 8725 §3.1).
    pub(super) fn find(&self, header: &Header) -> Found<'_> {
        let fits = |key: &&Key| key.algorithm == header.alg;
        let mut keys = self.0.iter().map(|(_, key)| key).filter(fits);
        match &header.kid {
            _ if self.is_empty() => Found::Missing,
            Some(kid) => {
                let mut labelled = self.0.iter().filter(|(label, _)| label.as_ref() == Some(kid)).map(|(_, key)| key);
                match labelled.clone().find(fits) {
                    Some(key) => Found::Key(key),
                    None if labelled.next().is_some() => Found::Unfit,
                    None => Found::Missing,
                }
            }
            None => match (keys.next(), keys.next()) {
                (Some(key), None) => Found::Key(key),
                _ => Found::Unfit,
            },
        }
    }
}

impl Jwk {
    /// The key, if it is for signatures and of a kind that is understood.
    fn key(&self) -> Option<Key> {
        let for_signatures = self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && self.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
        if !for_signatures {
            return None;
        }
        let number = |text: &Option<String>| BASE64.decode(text.as_deref()?).ok();
        let (algorithm, decoding, bytes) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", None) => {
                let (modulus, exponent) = (number(&self.n)?, number(&self.e)?);
                let first = modulus.iter().position(|byte| *byte != 0)?;
                let bits = (modulus.len() - first) * 8 - modulus[first].leading_zeros() as usize;
                if !RSA_BITS.contains(&bits) {
                    return None;
                }
                let decoding = DecodingKey::from_rsa_raw_components(&modulus[first..], &exponent);
                (self.rsa_algorithm()?, decoding, [modulus, exponent].concat())
            }
            ("EC", Some(curve @ ("P-256" | "P-384"))) => {
                let (algorithm, len) = if curve == "P-256" { (Algorithm::ES256, 32) } else { (Algorithm::ES384, 48) };
                let (x, y) = (number(&self.x)?, number(&self.y)?);
                if x.len() != len || y.len() != len {
                    return None;
                }
                // 0x04: both coordinates follow (SEC 1 §2.3.3).
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                (algorithm, DecodingKey::from_ec_der(&point), point)
            }
            ("OKP", Some("Ed25519")) => {
                let key = number(&self.x).filter(|key| key.len() == 32)?;
                (Algorithm::EdDSA, DecodingKey::from_ed_der(&key), key)
            }
            _ => return None,
        };
        // RFC 9864 §2.2 names the curve in place of EdDSA.
        let name = |alg: &str| alg.parse() == Ok(algorithm) || (alg == "Ed25519" && algorithm == Algorithm::EdDSA);
        if !self.alg.as_deref().is_none_or(name) {
            return None;
        }
        let id = KeyId::of(&format!("provider {algorithm:?}"), &bytes);
        Some(Key { id, source: Source::Provider, algorithm, decoding })
    }

    /// The one algorithm of an RSA key: what it says, else the usual one.
    fn rsa_algorithm(&self) -> Option<Algorithm> {
        use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
        let named = self.alg.as_deref().map_or(Ok(RS256), str::parse).ok()?;
        [RS256, RS384, RS512, PS256, PS384, PS512].contains(&named).then_some(named)
    }
}
