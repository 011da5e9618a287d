//! Identifiers as types, so that a user is never mistaken for a tunnel or a string.
//!
//! Owns what makes an identifier valid. Knows nothing about tokens or HTTP.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use thiserror::Error;

/// The longest issuer or subject that is accepted, in bytes.
pub const MAX_ID_BYTES: usize = 255;

/// A user: the pair (issuer, subject) of a verified token, compared as bytes.
///
/// There is no trimming, case folding or Unicode normalisation: `Bob` is not `bob`, and the same subject from two
/// issuers is two users.
#[derive(Clone)]
pub struct UserId(Arc<(Box<str>, Box<str>)>);

/// Why a pair of issuer and subject names no user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("issuer and subject must each have 1 to {MAX_ID_BYTES} bytes")]
pub struct InvalidUserId;

impl UserId {
    /// A user from the `iss` and `sub` claims of a token.
    pub fn new(issuer: &str, subject: &str) -> Result<Self, InvalidUserId> {
        let fits = |part: &str| (1..=MAX_ID_BYTES).contains(&part.len());
        if fits(issuer) && fits(subject) {
            Ok(Self(Arc::new((issuer.into(), subject.into()))))
        } else {
            Err(InvalidUserId)
        }
    }

    /// Who vouches for the subject (`iss`).
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.0.0
    }

    /// The name of the user at its issuer (`sub`).
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.0.1
    }
}

impl PartialEq for UserId {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for UserId {}

impl Hash for UserId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.subject())
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{}", self.issuer(), self.subject())
    }
}

/// The longest name of a desktop, in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// Whether a desktop may have this name: 1 to 64 bytes of visible ASCII, as they stand in a header and a claim.
#[must_use]
pub fn is_desktop_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// One tunnel in the life of this process. A reconnect is a new tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TunnelId(u64);

impl TunnelId {
    /// The next unused id.
    #[must_use]
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for TunnelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

/// One request, in the logs of both programs and in the answer's `X-Request-Id`. Always made here, never taken from
/// a caller (a `UUIDv7`, RFC 9562: sortable by time). 32 hexadecimal digits: only their text is ever needed, and more than
/// once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId([u8; 32]);

impl RequestId {
    /// A fresh id.
    #[must_use]
    pub fn new() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        // Unique, not secret: a system call for better randomness would be one per request.
        let random = fastrand::u128(..).to_be_bytes();
        let random = random.first_chunk().expect("16 bytes begin with 10");
        let mut digits = [0; 32];
        uuid::Builder::from_unix_timestamp_millis(millis, random).into_uuid().simple().encode_lower(&mut digits);
        Self(digits)
    }

    /// Its digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("hexadecimal digits")
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t36_users_are_bytes() {
        let user = |iss, sub| UserId::new(iss, sub).unwrap();
        assert_eq!(user("a", "bob"), user("a", "bob"));
        assert_ne!(user("a", "bob"), user("a", "Bob"));
        assert_ne!(user("a", "bob"), user("b", "bob"));
        assert_ne!(user("a", "bob"), user("a", " bob"));
        assert_ne!(user("a", "caf\u{e9}"), user("a", "cafe\u{301}"));
        // The boundary between the parts is part of the key.
        assert_ne!(user("ab", "c"), user("a", "bc"));
    }

    #[test]
    fn t36_length_is_bounded() {
        assert!(UserId::new("a", "").is_err());
        assert!(UserId::new("", "a").is_err());
        assert!(UserId::new("a", &"x".repeat(255)).is_ok());
        assert!(UserId::new("a", &"x".repeat(256)).is_err());
    }
}
