//! What the operator chose about tokens.
//!
//! Owns the checks that need nothing but these choices. Parses no flags and reads no files.

use std::fmt;

use thiserror::Error;
use tunnel_oidc::discovery::Issuer;
use url::Url;

use super::{PublicKey, Secret};

/// Whose tokens are good here, and for whom.
///
/// A token signed with HS256 is judged with the secret, any other with a public key: the provider's of that `kid`, or
/// the one from a file. Secret-signed tokens may carry
/// any issuer (none means [`OWN_ISSUER`](super::OWN_ISSUER)), so that one minted here can reach the desktop of a user
/// of the identity provider. Audience, [`Allow`] and `require_scope` hold for all.
#[derive(Debug, Clone)]
pub struct AuthConfig {
    /// The shared secret, for HS256 (`--jwt-secret-file`).
    pub secret: Option<Secret>,
    /// The issuer's public key (`--jwt-public-key`).
    pub public_key: Option<PublicKey>,
    /// The identity provider whose published keys are trusted (`--jwks-url`, `--oidc-issuer`).
    pub provider: Option<KeySource>,
    /// The `iss` that tokens of the public key, and those of [`KeySource::Jwks`], must carry (`--jwt-issuer`). With
    /// `None` they may carry any but [`OWN_ISSUER`](super::OWN_ISSUER), and must carry one.
    pub issuer: Option<String>,
    /// The `aud` that every token must carry, alone or among others (`--jwt-audience`). With `None` it is not read;
    /// a provider, which signs for others too, needs one.
    pub audience: Option<String>,
    /// Who is let in.
    pub allow: Allow,
    /// Whether a token without any `tunnel:` scope allows nothing, instead of connect and proxy (`--require-scope`).
    pub require_scope: bool,
}

/// Where an identity provider publishes its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// At this address (`--jwks-url`).
    Jwks(Url),
    /// Where the document of this issuer says (`--oidc-issuer`). Its tokens must carry it as `iss`.
    Issuer(Issuer),
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jwks(url) => url.fmt(f),
            Self::Issuer(issuer) => issuer.fmt(f),
        }
    }
}

/// Who is let in, of those with a good token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allow {
    /// Everyone.
    Any,
    /// Users with one of these subjects, compared as bytes (`--allow-user`).
    Users(Vec<String>),
    /// Users whose token carries every one of these claims (`--require-claim K=V`): a string, number or boolean that
    /// reads `V`, or a list with such a member.
    Claims(Vec<(String, String)>),
}

/// Choices that do not go together. Displays as one line that names the setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AuthConfigError {
    /// No key at all: nobody could ever be let in.
    #[error("no way to verify tokens: give --jwt-secret-file, --jwt-public-key, --jwks-url or --oidc-issuer")]
    NoKey,
    /// `--jwt-issuer ""`.
    #[error("--jwt-issuer is empty; give the issuer's exact `iss`, or leave the flag out")]
    EmptyIssuer,
    /// `--jwt-audience ""`.
    #[error("--jwt-audience is empty; give the exact `aud` of the tokens, or leave the flag out")]
    EmptyAudience,
    /// `--jwks-url` or `--oidc-issuer` alone: tokens for the provider's other programs would be good here.
    #[error("--jwt-audience is needed with an identity provider; give the exact `aud` of its tokens for this server")]
    NoAudience,
    /// An empty list lets nobody in.
    #[error("--allow-user and --require-claim need a value; leave them out to let in everyone who has a token")]
    NobodyAllowed,
}

impl AuthConfig {
    pub(super) fn check(&self) -> Result<(), AuthConfigError> {
        let nobody = match &self.allow {
            Allow::Any => false,
            Allow::Users(users) => users.iter().all(String::is_empty),
            Allow::Claims(claims) => claims.is_empty() || claims.iter().any(|(name, _)| name.is_empty()),
        };
        if self.secret.is_none() && self.public_key.is_none() && self.provider.is_none() {
            Err(AuthConfigError::NoKey)
        } else if self.provider.is_some() && self.audience.is_none() {
            Err(AuthConfigError::NoAudience)
        } else if self.issuer.as_deref() == Some("") {
            Err(AuthConfigError::EmptyIssuer)
        } else if self.audience.as_deref() == Some("") {
            Err(AuthConfigError::EmptyAudience)
        } else if nobody {
            Err(AuthConfigError::NobodyAllowed)
        } else {
            Ok(())
        }
    }
}
