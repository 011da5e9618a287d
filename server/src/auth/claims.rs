//! The claims of a token whose signature is good, typed strictly.
//!
//! Owns the reading of claims (RFC 7519 §4): a claim is absent, or of exactly its type, or the token is refused. What
//! the claims must say is decided in `verify`.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::{Map, Value};

use super::{AuthError, Scope};

/// The longest text that is kept of a claim, in bytes.
const MAX_TEXT_BYTES: usize = 255;

/// The claims, each name once.
#[derive(Debug)]
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    /// A text. `wrong` is the reason when it is anything else.
    pub(super) fn text(&self, name: &str, wrong: &'static str) -> Result<Option<&str>, AuthError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(AuthError::Invalid(wrong)),
        }
    }

    /// A text of 1 to 255 bytes that outlives the token.
    pub(super) fn label(&self, name: &str, wrong: &'static str) -> Result<Option<String>, AuthError> {
        match self.text(name, wrong)? {
            Some(text) if !(1..=MAX_TEXT_BYTES).contains(&text.len()) => Err(AuthError::Invalid(wrong)),
            text => Ok(text.map(str::to_owned)),
        }
    }

    /// An instant: whole seconds since 1970 as a JSON integer. Neither a string nor `1e9` nor `1.0` is one.
    pub(super) fn time(&self, name: &str, wrong: &'static str) -> Result<Option<SystemTime>, AuthError> {
        self.0
            .get(name)
            .map(|value| {
                value
                    .as_u64()
                    .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
                    .ok_or(AuthError::Invalid(wrong))
            })
            .transpose()
    }

    /// Whether `aud`, a text or a list of texts, names `audience`.
    pub(super) fn is_for(&self, audience: &str) -> bool {
        match self.0.get("aud") {
            Some(Value::String(text)) => text == audience,
            Some(Value::Array(list)) => list.iter().all(Value::is_string) && list.iter().any(|one| one == audience),
            _ => false,
        }
    }

    /// What the token allows; `None` if it says nothing about tunnels.
    ///
    /// Some issuers write a list instead of a text, or `scp` instead of `scope`. Both are read: overlooking a scope
    /// would grant more than it says.
    pub(super) fn scope(&self) -> Result<Option<Scope>, AuthError> {
        const WRONG: AuthError = AuthError::Invalid("scope is neither a text nor a list of texts");
        let mut scope = None;
        for value in ["scope", "scp"].into_iter().filter_map(|name| self.0.get(name)) {
            let list = match value {
                Value::Array(list) => list.as_slice(),
                value => std::slice::from_ref(value),
            };
            for words in list {
                let more = Scope::of_words(words.as_str().ok_or(WRONG)?);
                scope = match (scope, more) {
                    (Some(scope), Some(more)) => Some(scope | more),
                    (scope, more) => scope.or(more),
                };
            }
        }
        Ok(scope)
    }

    /// Whether a claim reads `wanted`, or is a list with a member that does.
    pub(super) fn has(&self, name: &str, wanted: &str) -> bool {
        let reads = |value: &Value| match value {
            Value::String(text) => text == wanted,
            Value::Bool(flag) => wanted.parse() == Ok(*flag),
            Value::Number(number) => number.to_string() == wanted,
            _ => false,
        };
        match self.0.get(name) {
            Some(Value::Array(list)) => list.iter().any(reads),
            Some(value) => reads(value),
            None => false,
        }
    }
}

/// Refuses a name that occurs twice: the issuer and we must not read two different tokens (RFC 7519 §4).
impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;

        impl<'de> Visitor<'de> for Once {
            type Value = Map<String, Value>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut map = Map::new();
                while let Some((name, value)) = entries.next_entry()? {
                    if map.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name occurs twice"));
                    }
                }
                Ok(map)
            }
        }

        deserializer.deserialize_map(Once).map(Self)
    }
}
