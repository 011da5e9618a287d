//! Every check on a token, in order: shape, key, signature, then what the claims say.
//!
//! Owns the order and the reasons. Remembers nothing.

use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::{Header, crypto, decode_header};

use super::{
    Allow, AuthConfig, AuthError, Identity, LEEWAY, OWN_ISSUER, Scope,
    claims::Claims,
    config::KeySource,
    jwks::KeySet,
    keys::{Keys, Source},
};
use crate::id::UserId;

/// How far ahead of our clock a token may have been issued. A clock wrong by more is wrong about `exp` too.
const MAX_ISSUED_AHEAD: Duration = Duration::from_secs(60);

/// What may stand in `typ` (RFC 7519 §5.1, RFC 9068 §2.1). Tokens for other purposes of the same issuer, such as
/// `logout+jwt`, are none of ours (RFC 8725 §3.11).
const TYPES: [&str; 4] = ["jwt", "at+jwt", "application/jwt", "application/at+jwt"];

/// What is not even three parts of base64 with a header that says a known algorithm.
const NO_TOKEN: AuthError = AuthError::Invalid("not a JSON web token");

/// Judges tokens.
#[derive(Debug, Clone)]
pub(super) struct Verifier {
    pub(super) keys: Keys,
    issuer: Option<String>,
    provider_issuer: Option<String>,
    audience: Option<String>,
    allow: Allow,
    unscoped: Scope,
}

impl Verifier {
    pub(super) fn new(config: AuthConfig) -> Self {
        Self {
            keys: Keys::new(
                config.secret.as_ref(),
                config.public_key,
                config.provider.as_ref().map(|_| KeySet::default()),
            ),
            provider_issuer: match config.provider {
                Some(KeySource::Issuer(issuer)) => Some(issuer.into()),
                Some(KeySource::Jwks(_)) | None => config.issuer.clone(),
            },
            issuer: config.issuer,
            audience: config.audience,
            allow: config.allow,
            unscoped: if config.require_scope { Scope::NONE } else { Scope::CONNECT | Scope::PROXY },
        }
    }

    pub(super) fn verify(&self, token: &str, now: SystemTime) -> Result<Identity, AuthError> {
        let header = decode_header(token).map_err(|_| NO_TOKEN)?;
        let (message, signature) = token.rsplit_once('.').ok_or(NO_TOKEN)?;
        let (_, payload) = message.rsplit_once('.').ok_or(NO_TOKEN)?;
        check_header(&header)?;
        let key = self.keys.answering(&header, |key| {
            crypto::verify(signature, message.as_bytes(), &key.decoding, key.algorithm).map_err(|_| NO_TOKEN)
        })?;
        // Not the library's reading of claims: it takes a float for a time, and null for an absent claim.
        let claims: Claims = BASE64
            .decode(payload)
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok())
            .ok_or(AuthError::Invalid("the claims are no JSON object"))?;

        let (issued, expires) = check_times(&claims, now)?;
        let user = self.user(&claims, key.source)?;
        if self.audience.as_deref().is_some_and(|audience| !claims.is_for(audience)) {
            return Err(AuthError::Invalid("for another audience"));
        }
        if !self.is_allowed(&user, &claims) {
            return Err(AuthError::NotAllowed);
        }
        Ok(Identity {
            user,
            scope: claims.scope()?.unwrap_or(self.unscoped),
            issued,
            expires,
            key: key.id,
            tunnel: claims.label("tunnel", "tunnel is no name of 1 to 255 bytes")?,
            jti: claims.label("jti", "jti is no text of 1 to 255 bytes")?,
            server: claims.text("tunnel_server", "tunnel_server is no text")?.map(str::to_owned),
        })
    }

    /// The user, if whoever signed may speak for the issuer.
    fn user(&self, claims: &Claims, source: Source) -> Result<UserId, AuthError> {
        const OTHER: AuthError = AuthError::Invalid("from another issuer");
        let told = claims.text("iss", "iss is no text")?;
        let expected = match source {
            Source::Secret => None,
            Source::PublicKey => self.issuer.as_deref(),
            Source::Provider => self.provider_issuer.as_deref(),
        };
        let issuer = match (source, told, expected) {
            (Source::Secret, told, _) => told.unwrap_or(OWN_ISSUER),
            (_, None, _) => return Err(AuthError::Invalid("iss is missing")),
            (_, Some(issuer), Some(expected)) => Some(issuer).filter(|issuer| *issuer == expected).ok_or(OTHER)?,
            // Any will do, but not one that another source speaks for.
            (_, Some(issuer), None) => {
                let taken = issuer == OWN_ISSUER || self.provider_issuer.as_deref() == Some(issuer);
                Some(issuer).filter(|_| !taken).ok_or(OTHER)?
            }
        };
        let subject = claims.text("sub", "sub is no text")?.ok_or(AuthError::Invalid("sub is missing"))?;
        UserId::new(issuer, subject).map_err(|_| AuthError::Invalid("iss or sub is empty or over 255 bytes"))
    }

    fn is_allowed(&self, user: &UserId, claims: &Claims) -> bool {
        match &self.allow {
            Allow::Any => true,
            Allow::Users(users) => users.iter().any(|allowed| allowed == user.subject()),
            Allow::Claims(wanted) => wanted.iter().all(|(name, value)| claims.has(name, value)),
        }
    }
}

fn check_header(header: &Header) -> Result<(), AuthError> {
    // We understand no extension, and `crit` says that one must be understood (RFC 7515 §4.1.11).
    if header.crit.is_some() {
        return Err(AuthError::Invalid("the header has critical extensions"));
    }
    let known = |typ: &str| TYPES.iter().any(|known| known.eq_ignore_ascii_case(typ));
    if !header.typ.as_deref().is_none_or(known) {
        return Err(AuthError::Invalid("a token of another type"));
    }
    Ok(())
}

/// The instants in `iat`, where there is one, and `exp`, if the token is good at `now`.
fn check_times(claims: &Claims, now: SystemTime) -> Result<(Option<SystemTime>, SystemTime), AuthError> {
    let issued = claims.time("iat", "iat is no whole number of seconds")?;
    let not_before = claims.time("nbf", "nbf is no whole number of seconds")?;
    let expires =
        claims.time("exp", "exp is no whole number of seconds")?.ok_or(AuthError::Invalid("exp is missing"))?;
    // Tells apart what can never be a date from what merely lies far ahead.
    let good_until = expires.checked_add(LEEWAY).ok_or(AuthError::Invalid("exp is out of range"))?;
    if not_before.is_some_and(|not_before| not_before > now + LEEWAY) {
        return Err(AuthError::Invalid("not valid yet"));
    }
    if issued.is_some_and(|issued| issued > now + MAX_ISSUED_AHEAD) {
        return Err(AuthError::Invalid("issued in the future"));
    }
    if now > good_until { Err(AuthError::Expired) } else { Ok((issued, expires)) }
}
