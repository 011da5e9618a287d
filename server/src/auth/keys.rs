//! The keys that tokens are judged by, and which of them answers for a token.
//!
//! Owns the binding of a key to its one algorithm (RFC 8725 §3.1): the token's header selects a key, and then must
//! say that key's algorithm. Nothing in a header is ever fetched, opened or trusted.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use jsonwebtoken::{Algorithm, DecodingKey, Header};
use rustls::pki_types::{AlgorithmIdentifier, SubjectPublicKeyInfoDer, alg_id};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tunnel_certs::pem::{self, PemError};

use super::{
    AuthError, Secret,
    jwks::{Found, KeySet},
};

/// A public key and the algorithm that it is for: RSA of 2048 bits or more (RS256), P-256 (ES256), P-384 (ES384) or
/// Ed25519 (`EdDSA`).
#[derive(Clone)]
pub struct PublicKey {
    id: KeyId,
    algorithm: Algorithm,
    decoding: DecodingKey,
}

/// Which key answered for a token: a hash of the key, so that the same key loaded again is the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 32]);

impl KeyId {
    pub(super) fn of(kind: &str, key: &[u8]) -> Self {
        Self(Sha256::new().chain_update(kind).chain_update([0]).chain_update(key).finalize().into())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyId(…)")
    }
}

/// A file without a usable public key. Displays as one line: the file, what is wrong, what to do.
#[derive(Debug, Error)]
pub enum PublicKeyError {
    /// Not a PEM file with a public key or certificate.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// A key of another kind.
    #[error(
        "{} has a public key that cannot verify tokens here; RSA of 2048 bits or more, P-256, P-384 and Ed25519 can",
        .0.display()
    )]
    Unsupported(PathBuf),
}

/// The kinds of key, by what stands in front of the key in its `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7).
const KINDS: [(AlgorithmIdentifier, Algorithm, FromBits); 4] = [
    (alg_id::RSA_ENCRYPTION, Algorithm::RS256, DecodingKey::from_rsa_der),
    (alg_id::ECDSA_P256, Algorithm::ES256, DecodingKey::from_ec_der),
    (alg_id::ECDSA_P384, Algorithm::ES384, DecodingKey::from_ec_der),
    (alg_id::ED25519, Algorithm::EdDSA, DecodingKey::from_ed_der),
];

/// Makes a key of what follows.
type FromBits = fn(&[u8]) -> DecodingKey;

impl PublicKey {
    /// The public key, or the key of the first certificate, in a PEM file.
    pub fn read(path: &Path) -> Result<Self, PublicKeyError> {
        let spki = pem::public_key(path)?;
        Self::from_spki(&spki).ok_or_else(|| PublicKeyError::Unsupported(path.to_owned()))
    }

    /// A key in DER; `None` if it is none of the kinds above.
    #[must_use]
    pub fn from_spki(spki: &SubjectPublicKeyInfoDer<'_>) -> Option<Self> {
        let (der::SEQUENCE, info, []) = der::element(spki)? else { return None };
        let (der::SEQUENCE, kind, info) = der::element(info)? else { return None };
        // A bit string starts with the number of bits to leave out at its end: none.
        let (der::BIT_STRING, [0, key @ ..], []) = der::element(info)? else { return None };
        let (_, algorithm, decoding) = KINDS.into_iter().find(|(id, ..)| id.as_ref() == kind)?;
        let usable = match algorithm {
            Algorithm::RS256 => rsa_bits(key)? >= 2048,
            // 0x04: both coordinates follow, which is all that the verifier understands.
            Algorithm::ES256 => key.len() == 65 && key[0] == 4,
            Algorithm::ES384 => key.len() == 97 && key[0] == 4,
            _ => key.len() == 32,
        };
        usable.then(|| Self { id: KeyId::of("public", spki), algorithm, decoding: decoding(key) })
    }

    /// The algorithm, as tokens name it.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        match self.algorithm {
            Algorithm::RS256 => "RS256",
            Algorithm::ES256 => "ES256",
            Algorithm::ES384 => "ES384",
            _ => "EdDSA",
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.algorithm())
    }
}

/// Who answers for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The operator of this server, with the shared secret.
    Secret,
    /// The issuer, with the private key of the one public key.
    PublicKey,
    /// The identity provider, with a private key of a public key that it publishes.
    Provider,
}

/// A key, its one algorithm, and whose word it is.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) id: KeyId,
    pub(super) source: Source,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

impl Key {
    fn of_secret(secret: &Secret) -> Self {
        Self {
            id: KeyId::of("secret", secret.bytes()),
            source: Source::Secret,
            algorithm: Algorithm::HS256,
            decoding: DecodingKey::from_secret(secret.bytes()),
        }
    }

    fn of_public(public: PublicKey) -> Self {
        let PublicKey { id, algorithm, decoding } = public;
        Self { id, source: Source::PublicKey, algorithm, decoding }
    }
}

/// All keys.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    secret: Option<Key>,
    public: Option<Key>,
    /// Empty until the first ones have come.
    provider: Option<KeySet>,
}

impl Keys {
    pub(super) fn new(secret: Option<&Secret>, public: Option<PublicKey>, provider: Option<KeySet>) -> Self {
        Self { secret: secret.map(Key::of_secret), public: public.map(Key::of_public), provider }
    }

    /// Puts the secret's key in place of the one before. Without one before there is still none: what a server trusts
    /// is decided at its start.
    pub(super) fn replace_secret(&mut self, secret: &Secret) {
        self.secret = self.secret.as_ref().map(|_| Key::of_secret(secret));
    }

    /// The same for the public key.
    pub(super) fn replace_public(&mut self, public: PublicKey) {
        self.public = self.public.as_ref().map(|_| Key::of_public(public));
    }

    /// The same for the provider's keys.
    pub(super) fn replace_published(&mut self, keys: KeySet) {
        self.provider = self.provider.as_ref().map(|_| keys);
    }

    /// Whether this key is one of these.
    pub(super) fn has(&self, id: KeyId) -> bool {
        self.secret.iter().chain(&self.public).any(|key| key.id == id)
            || self.provider.as_ref().is_some_and(|keys| keys.has(id))
    }

    /// Whether `other` has the same keys.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        let ids = |keys: &Self| [&keys.secret, &keys.public].map(|key| key.as_ref().map(|key| key.id));
        let same_set = match (&self.provider, &other.provider) {
            (Some(ours), Some(theirs)) => ours.same_as(theirs),
            (ours, theirs) => ours.is_none() && theirs.is_none(),
        };
        ids(self) == ids(other) && same_set
    }

    /// The key that answers for a token with this header, by the check of its signature: `is_signed_by`.
    ///
    /// The label selects a key of the provider. The one public key has no label, so a token may be its own whatever label
    /// it names. Two keys at most are tried.
    pub(super) fn answering(
        &self,
        header: &Header,
        mut is_signed_by: impl FnMut(&Key) -> Result<bool, AuthError>,
    ) -> Result<&Key, AuthError> {
        const NO_KEY: AuthError = AuthError::Invalid("no key for this algorithm");
        const MISMATCH: AuthError = AuthError::Invalid("the signature does not match");
        if !header.kid.as_deref().is_none_or(is_label) {
            return Err(AuthError::Invalid("the key id is no label"));
        }
        let fixed = if is_asymmetric(header.alg) { &self.public } else { &self.secret };
        let fixed = fixed.as_ref().filter(|key| key.algorithm == header.alg);
        let published = self.provider.as_ref().filter(|_| is_asymmetric(header.alg)).map(|keys| keys.find(header));
        let published_key = match published {
            Some(Found::Key(key)) => Some(key),
            _ => None,
        };
        for key in published_key.into_iter().chain(fixed) {
            if is_signed_by(key)? {
                return Ok(key);
            }
        }
        match published {
            Some(Found::Missing) => Err(AuthError::KeyUnknown),
            Some(Found::Key(_)) => Err(MISMATCH),
            Some(Found::Unfit) | None => Err(if fixed.is_some() { MISMATCH } else { NO_KEY }),
        }
    }
}

/// Whether whoever can verify cannot sign.
fn is_asymmetric(algorithm: Algorithm) -> bool {
    !matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
}

/// Whether a key id could be a label that someone gave to a key: a number, a name, a hash in hex or either base64.
///
/// It only ever selects one of the keys at hand; but one that is a path, an address or a query was made to
/// attack whoever opens it, and no issuer of ours sends such.
fn is_label(kid: &str) -> bool {
    (1..=255).contains(&kid.len())
        && kid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=:@".contains(&byte))
        && !kid.contains("..")
        && !kid.contains("://")
        && (!kid.starts_with('/') || kid.ends_with('=')) // base64 may start with a slash
}

/// The size of an RSA key (RFC 8017 §A.1.1): of its first number.
fn rsa_bits(key: &[u8]) -> Option<usize> {
    let (der::SEQUENCE, numbers, []) = der::element(key)? else { return None };
    let (der::INTEGER, modulus, _) = der::element(numbers)? else { return None };
    let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
    Some(modulus.len() * 8 - modulus.first()?.leading_zeros() as usize)
}

/// As much of DER (X.690) as it takes to look into a public key.
mod der {
    pub(super) const INTEGER: u8 = 0x02;
    pub(super) const BIT_STRING: u8 = 0x03;
    pub(super) const SEQUENCE: u8 = 0x30;

    /// The first element: its tag, its contents, and what follows it.
    pub(super) fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
        let (&tag, input) = input.split_first()?;
        let (&len, input) = input.split_first()?;
        let (len, input) = match len {
            0..=0x7f => (usize::from(len), input),
            // The length itself takes one or two bytes: 64 KiB at most, and no key is as long.
            0x81 | 0x82 => {
                let (len, input) = input.split_at_checked(usize::from(len & 3))?;
                (len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), input)
            }
            _ => return None,
        };
        let (contents, rest) = input.split_at_checked(len)?;
        Some((tag, contents, rest))
    }
}
