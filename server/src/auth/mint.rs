//! Making a token with the shared secret: what `tunneld token` does.
//!
//! Owns what stands in such a token. Whatever is minted here, [`super::Authenticator`] accepts.

use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;
use thiserror::Error;
use uuid::Uuid;

use super::{MAX_TOKEN_BYTES, OWN_ISSUER, Scope, Secret};
use crate::id::{InvalidUserId, MAX_NAME_BYTES, UserId, is_desktop_name};

/// How long a token is good when nothing is said: a working day.
pub const DEFAULT_TTL: Duration = Duration::from_secs(12 * 60 * 60);

/// What to put in a token.
#[derive(Debug, Clone)]
pub struct MintRequest {
    /// `sub`.
    pub user: String,
    /// `scope`.
    pub scope: Scope,
    /// From now to `exp`; whole seconds count.
    pub ttl: Duration,
    /// `iss`; `None` for [`OWN_ISSUER`].
    pub issuer: Option<String>,
    /// `aud`.
    pub audience: Option<String>,
    /// `tunnel`: the one desktop that the token is for.
    pub tunnel: Option<String>,
    /// `tunnel_server`: where the client is to connect.
    pub server: Option<String>,
}

impl MintRequest {
    /// A token for a user who may connect and proxy, for 12 hours.
    #[must_use]
    pub fn new(user: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            scope: Scope::CONNECT | Scope::PROXY,
            ttl: DEFAULT_TTL,
            issuer: None,
            audience: None,
            tunnel: None,
            server: None,
        }
    }
}

/// What cannot be put in a token. Displays as one line.
#[derive(Debug, Error)]
pub enum MintError {
    /// The issuer or the subject.
    #[error("user and issuer: {0}")]
    User(#[from] InvalidUserId),
    /// The desktop's name.
    #[error("a desktop's name must have 1 to {MAX_NAME_BYTES} characters of visible ASCII, without spaces")]
    Tunnel,
    /// A token that allows nothing.
    #[error("a token needs a scope: connect, proxy or infer")]
    NoScope,
    /// Less than a second, or past the end of time.
    #[error("a token must be good for at least a second and at most some thousand years")]
    Ttl,
    /// It would be refused.
    #[error("the token would be over 8 KiB; use shorter values")]
    TooLong,
    /// The cryptography.
    #[error("cannot sign: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// A token, good from now on.
pub fn mint(secret: &Secret, request: &MintRequest) -> Result<String, MintError> {
    mint_at(secret, request, SystemTime::now())
}

/// A token, good from `now` on.
pub fn mint_at(secret: &Secret, request: &MintRequest, now: SystemTime) -> Result<String, MintError> {
    let iss = request.issuer.as_deref().unwrap_or(OWN_ISSUER);
    UserId::new(iss, &request.user)?;
    if request.scope.is_empty() {
        return Err(MintError::NoScope);
    }
    if request.tunnel.as_deref().is_some_and(|name| !is_desktop_name(name)) {
        return Err(MintError::Tunnel);
    }
    let iat = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since_1970| since_1970.as_secs());
    let exp = iat.checked_add(request.ttl.as_secs()).filter(|exp| (iat + 1..=LAST_SECOND).contains(exp));
    let claims = Claims {
        iss,
        sub: &request.user,
        aud: request.audience.as_deref(),
        iat,
        exp: exp.ok_or(MintError::Ttl)?,
        jti: Uuid::now_v7().to_string(),
        scope: request.scope.to_string(),
        tunnel: request.tunnel.as_deref(),
        tunnel_server: request.server.as_deref(),
    };
    let token = encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret.bytes()))?;
    if token.len() > MAX_TOKEN_BYTES { Err(MintError::TooLong) } else { Ok(token) }
}

/// The end of the year 9999, where date libraries end too.
const LAST_SECOND: u64 = 253_402_300_799;

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    iat: u64,
    exp: u64,
    jti: String,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel_server: Option<&'a str>,
}
