//! Tokens with whatever claims a test wants: signed with the secret of the tests, or by an identity provider.

use std::{io::Write, path::Path, time::SystemTime};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tunneld::auth::PublicKey;

use crate::pki::SECRET;

/// Seconds since 1970, `offset` seconds from now.
#[must_use]
pub fn seconds(offset: i64) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970").as_secs();
    i64::try_from(now).expect("a clock before the end of time") + offset
}

/// Claims of a good token for `user`, without a scope: for a test to change.
#[must_use]
pub fn claims(user: &str) -> Value {
    json!({"sub": user, "iss": "tunneld", "exp": seconds(600)})
}

/// `claims` with these members set; `null` takes one away.
#[must_use]
pub fn with(mut claims: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().expect("an object") {
        let members = claims.as_object_mut().expect("an object");
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    claims
}

/// Signed with the secret of the tests.
#[must_use]
pub fn hs256(claims: &Value) -> String {
    hmac(SECRET.as_bytes(), claims)
}

/// Signed with any bytes for a secret.
#[must_use]
pub fn hmac(secret: &[u8], claims: &Value) -> String {
    signed(Algorithm::HS256, &EncodingKey::from_secret(secret), claims)
}

/// An identity provider with an ES256 key of its own.
#[derive(Debug)]
pub struct Issuer {
    key: KeyPair,
    public: NamedTempFile,
}

impl Issuer {
    /// Makes the key.
    #[must_use]
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a P-256 key");
        let mut public = NamedTempFile::new().expect("a temporary file");
        public.write_all(key.public_key_pem().as_bytes()).expect("a temporary file");
        Self { key, public }
    }

    /// Its public key, as the server takes it.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey::read(self.public.path()).expect("a public key")
    }

    /// The file with its public key.
    #[must_use]
    pub fn public_file(&self) -> &Path {
        self.public.path()
    }

    /// Its public key as text, which everyone may know.
    #[must_use]
    pub fn public_pem(&self) -> String {
        self.key.public_key_pem()
    }

    /// The signature on `message`.
    #[must_use]
    pub fn sign(&self, message: &str) -> String {
        let key = EncodingKey::from_ec_der(self.key.serialized_der());
        jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::ES256).expect("a signature")
    }

    /// Its public key as a member of a JSON Web Key Set, with this label.
    #[must_use]
    pub fn jwk(&self, kid: &str) -> Value {
        let point = self.key.der_bytes(); // 0x04, and both coordinates
        let [x, y] = [&point[1..33], &point[33..65]].map(|coordinate| BASE64_URL_SAFE_NO_PAD.encode(coordinate));
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": kid, "x": x, "y": y})
    }

    /// A token with these claims that names the key by its label.
    #[must_use]
    pub fn labelled(&self, kid: &str, claims: &Value) -> String {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_der(self.key.serialized_der());
        jsonwebtoken::encode(&header, claims, &key).expect("a token")
    }

    /// A token with these claims.
    #[must_use]
    pub fn token(&self, claims: &Value) -> String {
        signed(Algorithm::ES256, &EncodingKey::from_ec_der(self.key.serialized_der()), claims)
    }
}

impl Default for Issuer {
    fn default() -> Self {
        Self::new()
    }
}

fn signed(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, key).expect("a token")
}
