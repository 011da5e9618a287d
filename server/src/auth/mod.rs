//! Who is calling: JSON web tokens (RFC 7519), verified with a shared secret, a public key, or those of a provider.
//!
//! Owns what makes a token good and what it allows. Knows no HTTP: a token comes in as text, an [`Identity`] or an
//! [`AuthError`] goes out.
//!
//! | module | what |
//! |---|---|
//! | `config` | what the operator chose: sources of trust, audience, who is let in |
//! | `secret` | the shared secret (HS256) |
//! | `keys` | public keys, and which key answers for a token |
//! | `jwks` | the keys that an identity provider publishes |
//! | `published` | how fresh those are, and what a token of an unknown key waits for |
//! | `claims` | the claims of a token, typed strictly |
//! | `verify` | every check on a token, in order |
//! | `cache` | tokens verified before |
//! | [`revocation`] | tokens that are good no more, although they did not expire |
//! | `scope` | what a token allows |
//! | [`mint`] | making a token with the shared secret |

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use thiserror::Error;
use tokio::sync::watch;

use crate::id::UserId;

mod cache;
mod claims;
mod config;
mod jwks;
mod keys;
pub mod mint;
mod published;
pub mod revocation;
mod scope;
mod secret;
#[cfg(test)]
pub(crate) mod tests;
mod verify;

pub use config::{Allow, AuthConfig, AuthConfigError, KeySource};
pub use jwks::{KeySet, KeySetError};
pub use keys::{KeyId, PublicKey, PublicKeyError};
pub use scope::{Scope, UnknownScope};
pub use secret::{Secret, SecretError, SecretProblem};

use cache::{Cache, digest};
use keys::Keys;
pub(crate) use published::Freshness;
use published::Published;
use revocation::{Revocation, Revocations, RevocationsError};
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
    /// The instant in `iat`, if the token says it.
    pub issued: Option<SystemTime>,
    /// The instant in `exp`. The token is good until [`LEEWAY`] later.
    pub expires: SystemTime,
    /// The key that answered for it.
    pub key: KeyId,
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
    /// A token of a key that this server does not use any more.
    #[error("the key of this token was replaced")]
    KeyReplaced,
    /// Revoked, itself or with its user.
    #[error("token revoked")]
    Revoked,
    /// A good token, too late.
    #[error("token expired")]
    Expired,
    /// A good token of a user who is not let in ([`Allow`]).
    #[error("user not allowed")]
    NotAllowed,
    /// A token of a key that its provider is not known to have.
    #[error("no key of this id")]
    KeyUnknown,
    /// The key that the token names cannot be fetched now: neither good nor bad, ask again later.
    #[error("keys unavailable")]
    KeysUnavailable,
}

/// Turns tokens into identities. Shared by all requests; never blocks on anything but a short lock.
#[derive(Debug)]
pub struct Authenticator {
    verifier: RwLock<Arc<Verifier>>,
    cache: Cache,
    revocations: Revocations,
    /// Of the provider, if there is one.
    published: Option<Published>,
    /// Told when an identity that was good may be so no more.
    changes: watch::Sender<()>,
}

impl Authenticator {
    /// An authenticator for this configuration, whose revocations are lost with the process.
    pub fn new(config: AuthConfig) -> Result<Self, AuthConfigError> {
        Self::with_revocations(config, Revocations::default())
    }

    /// An authenticator for this configuration.
    pub fn with_revocations(config: AuthConfig, revocations: Revocations) -> Result<Self, AuthConfigError> {
        config.check()?;
        let published = config.provider.as_ref().map(|_| Published::new());
        let verifier = RwLock::new(Arc::new(Verifier::new(config)));
        Ok(Self { verifier, cache: Cache::default(), revocations, published, changes: watch::Sender::default() })
    }

    /// The identity of a token's bearer, now. Waits, for some seconds at most, if the token names a key that its
    /// provider may just have published.
    pub async fn identify(&self, token: &str) -> Result<Arc<Identity>, AuthError> {
        match &self.published {
            Some(published) => published.judge(|| self.verify(token)).await,
            None => self.verify(token),
        }
    }

    /// The identity of a token's bearer, now, by the keys at hand.
    pub fn verify(&self, token: &str) -> Result<Arc<Identity>, AuthError> {
        self.verify_at(token, SystemTime::now())
    }

    /// The identity of a token's bearer at an instant of the wall clock.
    ///
    /// A token seen before costs one SHA-256 and a few look-ups; only good tokens are remembered, until they expire.
    pub fn verify_at(&self, token: &str, now: SystemTime) -> Result<Arc<Identity>, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::Invalid("longer than 8 KiB"));
        }
        let digest = digest(token);
        let verifier = self.verifier();
        // The key is compared, too: a look at the old one may have been going on when the cache forgot its tokens.
        if let Some(identity) = self.cache.get(&digest)
            && identity.is_good_at(now)
            && verifier.keys.has(identity.key)
        {
            self.revocations.check(&identity)?;
            return Ok(identity);
        }
        let identity = Arc::new(verifier.verify(token, now)?);
        self.revocations.check(&identity)?;
        self.cache.insert(digest, Arc::clone(&identity));
        Ok(identity)
    }

    /// Waits until an identity is good no more, because its key was replaced or because it was revoked. Time is not
    /// looked at.
    pub async fn refused(&self, identity: &Identity) -> AuthError {
        let mut changes = self.changes.subscribe();
        loop {
            if !self.verifier().keys.has(identity.key) {
                return AuthError::KeyReplaced;
            }
            if let Err(error) = self.revocations.check(identity) {
                return error;
            }
            changes.changed().await.expect("the sender is ours");
        }
    }

    /// Puts another secret in place of the one before. Tokens of the old one are good no more; whether it is another.
    pub fn replace_secret(&self, secret: &Secret) -> bool {
        self.replace(|keys| keys.replace_secret(secret))
    }

    /// Puts another public key in place of the one before. Tokens of the old one are good no more; whether it is
    /// another.
    pub fn replace_public_key(&self, public: PublicKey) -> bool {
        self.replace(|keys| keys.replace_public(public))
    }

    /// Puts the provider's keys in place of those before. Tokens of keys that are no longer among them are good no more;
    /// whether anything changed.
    pub fn replace_published(&self, keys: KeySet) -> bool {
        self.replace(|current| current.replace_published(keys))
    }

    /// Tells those who wait for keys of the provider.
    pub(crate) fn published_are(&self, freshness: Freshness) {
        if let Some(published) = &self.published {
            published.are(freshness);
        }
    }

    /// Resolves when a token named a key of the provider that is not at hand.
    pub(crate) async fn published_key_missing(&self) {
        match &self.published {
            Some(published) => published.one_missing().await,
            None => std::future::pending().await,
        }
    }

    /// Tokens that are good no more, to look at.
    #[must_use]
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// Revokes. In force when this returns, also where it then could not be written down. Blocks on a file.
    pub fn revoke(&self, revocation: Revocation) -> Result<(), RevocationsError> {
        let kept = self.revocations.add(revocation);
        self.changes.send_replace(());
        kept
    }

    /// Takes the file of revocations as it is now; whether they are others. Blocks on a file.
    pub fn reload_revocations(&self) -> Result<bool, RevocationsError> {
        let changed = self.revocations.reload()?;
        if changed {
            self.changes.send_replace(());
        }
        Ok(changed)
    }

    fn replace(&self, change: impl FnOnce(&mut Keys)) -> bool {
        let mut current = self.verifier.write().unwrap_or_else(PoisonError::into_inner);
        let mut fresh = Verifier::clone(&current);
        change(&mut fresh.keys);
        if fresh.keys.same_as(&current.keys) {
            return false;
        }
        let fresh = Arc::new(fresh);
        *current = Arc::clone(&fresh);
        drop(current);
        self.cache.forget(|identity| !fresh.keys.has(identity.key));
        self.changes.send_replace(());
        true
    }

    fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.verifier.read().unwrap_or_else(PoisonError::into_inner))
    }
}
