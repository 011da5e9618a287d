//! Who is calling: JSON web tokens (RFC 7519), verified with a shared secret, a public key, or either.
//!
//! Owns what makes a token good and what it allows. Knows no HTTP: a token comes in as text, an [`Identity`] or an
//! [`AuthError`] goes out.
//!
//! | module | what |
//! |---|---|
//! | `config` | what the operator chose: sources of trust, audience, who is let in |
//! | `secret` | the shared secret (HS256) |
//! | `keys` | public keys, and which key answers for a token |
//! | `claims` | the claims of a token, typed strictly |
//! | `verify` | every check on a token, in order |
//! | `cache` | tokens verified before |
//! | `scope` | what a token allows |
//! | [`mint`] | making a token with the shared secret |

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use thiserror::Error;

use crate::id::UserId;

mod cache;
mod claims;
mod config;
mod keys;
pub mod mint;
mod scope;
mod secret;
#[cfg(test)]
mod tests;
mod verify;

pub use config::{Allow, AuthConfig, AuthConfigError};
pub use keys::{PublicKey, PublicKeyError};
pub use scope::{Scope, UnknownScope};
pub use secret::{Secret, SecretError, SecretProblem};

use cache::{Cache, digest};
use verify::Verifier;

/// The issuer of secret-signed tokens that name none. Reserved: a public key speaks for it only when configured to.
pub const OWN_ISSUER: &str = "tunneld";

/// The longest token that is looked at, in bytes. Longer ones are refused before any cryptography.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// How far two clocks may be apart: a token is good this long after `exp` and this long before `nbf`.
pub const LEEWAY: Duration = Duration::from_secs(30);

/// What a verified token says about its bearer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user (`iss`, `sub`).
    pub user: UserId,
    /// What the bearer may do (`scope`).
    pub scope: Scope,
    /// The instant in `exp`. The token is good until [`LEEWAY`] later.
    pub expires: SystemTime,
    /// The one desktop that the token is bound to (`tunnel`); `None` for any.
    pub tunnel: Option<String>,
    /// The token's own id (`jti`), by which it can be revoked.
    pub jti: Option<String>,
    /// The server that the token was made for (`tunnel_server`). For the client; nothing here depends on it.
    pub server: Option<String>,
}

impl Identity {
    /// The last instant at which the token is good: `exp` plus [`LEEWAY`].
    #[must_use]
    pub fn good_until(&self) -> SystemTime {
        self.expires + LEEWAY
    }

    /// Whether the token is still good at `now`, by the wall clock.
    #[must_use]
    pub fn is_good_at(&self, now: SystemTime) -> bool {
        now <= self.good_until()
    }
}

/// Why a token was refused. The reasons are for our own log: to the caller only the variant is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AuthError {
    /// Not a token of ours, or not one for us.
    #[error("token refused: {0}")]
    Invalid(&'static str),
    /// A good token, too late.
    #[error("token expired")]
    Expired,
    /// A good token of a user who is not let in ([`Allow`]).
    #[error("user not allowed")]
    NotAllowed,
    /// The key that the token names cannot be fetched now: neither good nor bad, ask again later.
    #[error("keys unavailable")]
    KeysUnavailable,
}

/// Turns tokens into identities. Shared by all requests; never blocks on anything but a short lock.
#[derive(Debug)]
pub struct Authenticator {
    verifier: Verifier,
    cache: Cache,
}

impl Authenticator {
    /// An authenticator for this configuration.
    pub fn new(config: AuthConfig) -> Result<Self, AuthConfigError> {
        config.check()?;
        Ok(Self { verifier: Verifier::new(config), cache: Cache::default() })
    }

    /// The identity of a token's bearer, now.
    pub fn verify(&self, token: &str) -> Result<Arc<Identity>, AuthError> {
        self.verify_at(token, SystemTime::now())
    }

    /// The identity of a token's bearer at an instant of the wall clock.
    ///
    /// A token seen before costs one SHA-256 and one look-up; only good tokens are remembered, until they expire.
    pub fn verify_at(&self, token: &str, now: SystemTime) -> Result<Arc<Identity>, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::Invalid("longer than 8 KiB"));
        }
        let digest = digest(token);
        if let Some(identity) = self.cache.get(&digest)
            && identity.is_good_at(now)
        {
            return Ok(identity);
        }
        let identity = Arc::new(self.verifier.verify(token, now)?);
        self.cache.insert(digest, Arc::clone(&identity));
        Ok(identity)
    }

    /// Forgets remembered tokens whose identity is `stale`, so that they are judged anew: after a change of keys or a
    /// revocation.
    pub fn forget(&self, stale: impl Fn(&Identity) -> bool) {
        self.cache.forget(stale);
    }
}
