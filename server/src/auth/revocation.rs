//! Tokens that are good no more although they did not expire: one token by its `jti`, or all that a user had.
//!
//! Owns which identities a revocation ends, and its form in JSON. What is kept on disk is in `file`.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{AuthError, Identity, OWN_ISSUER};
use crate::id::{MAX_ID_BYTES, UserId};

mod file;

pub use file::RevocationsError;

/// How long a revocation outlives the `exp` of its token, so that a clock that jumped forward and back frees nobody.
const KEPT_AFTER_EXPIRY: Duration = Duration::from_secs(24 * 60 * 60);

/// What is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// The token with this `jti`, whoever signed it.
    Token(String),
    /// Every token of this user that was issued (`iat`) until the revocation, or that does not say when.
    User(UserId),
}

/// One revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// What is revoked.
    pub subject: Subject,
    /// Since when, to the second.
    pub at: SystemTime,
    /// The last `exp` of the tokens it is about, if that is known: later the revocation is forgotten.
    pub expires: Option<SystemTime>,
}

/// Text that is no revocation. Reads as the end of a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}; write {{\"jti\":…}} or {{\"user\":…,\"issuer\":…}}")]
pub struct NoRevocation(String);

/// A revocation in JSON: in the file, and on the admin interface. Times are RFC 3339.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

impl Revocation {
    /// A revocation of now.
    #[must_use]
    pub fn now(subject: Subject) -> Self {
        Self { subject, at: whole_seconds(SystemTime::now()), expires: None }
    }

    /// Names it, the same way in every process: the start of a hash of its subject.
    #[must_use]
    pub fn id(&self) -> String {
        let parts: [&[u8]; 3] = match &self.subject {
            Subject::Token(jti) => [b"jti", b"", jti.as_bytes()],
            Subject::User(user) => [b"user", user.issuer().as_bytes(), user.subject().as_bytes()],
        };
        let hash = parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part).chain_update([0xff]));
        let start = hash.finalize();
        let start = start.first_chunk().expect("32 bytes begin with 8");
        format!("{:016x}", u64::from_be_bytes(*start))
    }

    /// Reads one. Without `at` it is one of `now`.
    pub fn from_json(text: &[u8], now: SystemTime) -> Result<Self, NoRevocation> {
        let json: Json = serde_json::from_slice(text).map_err(|error| NoRevocation(error.to_string()))?;
        let time = |text: Option<String>| match text.map(|text| (humantime::parse_rfc3339_weak(&text), text)) {
            None => Ok(None),
            Some((Ok(time), _)) => Ok(Some(whole_seconds(time))),
            Some((Err(_), text)) => Err(NoRevocation(format!("{text:?} is no time such as 2026-01-31T12:00:00Z"))),
        };
        let subject = match (json.jti, json.user, json.issuer) {
            (Some(jti), None, None) if (1..=MAX_ID_BYTES).contains(&jti.len()) => Subject::Token(jti),
            (Some(_), None, None) => return Err(NoRevocation("a jti has 1 to 255 bytes".into())),
            (None, Some(user), issuer) => {
                let user = UserId::new(issuer.as_deref().unwrap_or(OWN_ISSUER), &user);
                Subject::User(user.map_err(|error| NoRevocation(error.to_string()))?)
            }
            (Some(_), ..) => return Err(NoRevocation("a token or a user, not both".into())),
            (None, None, _) => return Err(NoRevocation("neither a token nor a user".into())),
        };
        Ok(Self { subject, at: time(json.at)?.unwrap_or(whole_seconds(now)), expires: time(json.expires)? })
    }

    /// Writes it, as one object.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let time = |time: SystemTime| humantime::format_rfc3339_seconds(time).to_string();
        let (jti, user) = match &self.subject {
            Subject::Token(jti) => (Some(jti.clone()), None),
            Subject::User(user) => (None, Some(user)),
        };
        let json = Json {
            jti,
            user: user.map(|user| user.subject().to_owned()),
            issuer: user.map(|user| user.issuer().to_owned()),
            at: Some(time(self.at)),
            expires: self.expires.map(time),
        };
        serde_json::to_value(json).expect("texts always serialise")
    }

    fn terms(&self) -> Terms {
        Terms { at: self.at, expires: self.expires }
    }
}

/// When, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Terms {
    at: SystemTime,
    expires: Option<SystemTime>,
}

/// The revocations in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct List {
    tokens: HashMap<String, Terms>,
    users: HashMap<UserId, Terms>,
}

impl List {
    fn covers(&self, identity: &Identity) -> bool {
        let token = identity.jti.as_deref().is_some_and(|jti| self.tokens.contains_key(jti));
        let issued_by = |at: SystemTime| identity.issued.is_none_or(|issued| issued <= at);
        token || self.users.get(&identity.user).is_some_and(|terms| issued_by(terms.at))
    }

    /// Adds one; of two about the same, the wider terms hold.
    fn add(&mut self, revocation: Revocation) {
        let terms = revocation.terms();
        let known = match revocation.subject {
            Subject::Token(jti) => self.tokens.entry(jti).or_insert(terms),
            Subject::User(user) => self.users.entry(user).or_insert(terms),
        };
        known.at = known.at.max(terms.at);
        known.expires = known.expires.zip(terms.expires).map(|(known, new)| known.max(new));
    }

    fn remove(&mut self, id: &str) -> Option<Revocation> {
        let found = self.all().into_iter().find(|revocation| revocation.id() == id)?;
        match &found.subject {
            Subject::Token(jti) => self.tokens.remove(jti),
            Subject::User(user) => self.users.remove(user),
        };
        Some(found)
    }

    fn forget_expired(&mut self, now: SystemTime) {
        let in_force = |terms: &mut Terms| terms.expires.is_none_or(|expires| now < expires + KEPT_AFTER_EXPIRY);
        self.tokens.retain(|_, terms| in_force(terms));
        self.users.retain(|_, terms| in_force(terms));
    }

    /// The oldest first.
    fn all(&self) -> Vec<Revocation> {
        let one = |subject, terms: &Terms| Revocation { subject, at: terms.at, expires: terms.expires };
        let tokens = self.tokens.iter().map(|(jti, terms)| one(Subject::Token(jti.clone()), terms));
        let users = self.users.iter().map(|(user, terms)| one(Subject::User(user.clone()), terms));
        let mut all: Vec<_> = tokens.chain(users).collect();
        all.sort_by_cached_key(|revocation| (revocation.at, revocation.id()));
        all
    }
}

/// The revocations of a server: in memory, and in a file where there is one.
#[derive(Debug, Default)]
pub struct Revocations {
    list: RwLock<List>,
    file: Option<file::File>,
}

impl Revocations {
    /// Whether this identity is still good.
    pub(super) fn check(&self, identity: &Identity) -> Result<(), AuthError> {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        if list.covers(identity) { Err(AuthError::Revoked) } else { Ok(()) }
    }

    /// All of them, the oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Revocation> {
        self.list.read().unwrap_or_else(PoisonError::into_inner).all()
    }

    /// Applies a change to what is in force.
    fn change<T>(&self, change: impl FnOnce(&mut List) -> T) -> T {
        change(&mut self.list.write().unwrap_or_else(PoisonError::into_inner))
    }
}

fn whole_seconds(time: SystemTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

#[cfg(test)]
mod tests;
