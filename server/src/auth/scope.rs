//! What a token allows: a small set.
//!
//! Owns the names and what they imply. What each permission guards is decided where it is asked for.

use std::{fmt, ops::BitOr, str::FromStr};

use thiserror::Error;

/// A set of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Scope(u8);

/// A word that names no permission.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no scope; the scopes are connect, proxy and infer")]
pub struct UnknownScope(String);

/// What every name starts with.
const PREFIX: &str = "tunnel:";

/// The names. `proxy` comes before `infer`, which it implies.
const NAMES: [(&str, Scope); 3] =
    [("tunnel:connect", Scope::CONNECT), ("tunnel:proxy", Scope::PROXY), ("tunnel:infer", Scope::INFER)];

impl Scope {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Register a desktop.
    pub const CONNECT: Self = Self(0b001);
    /// Send any request to the desktop. Its bits include those of [`Self::INFER`], which it implies.
    pub const PROXY: Self = Self(0b110);
    /// Send requests to inference endpoints only.
    pub const INFER: Self = Self(0b100);

    /// Whether all of `wanted` is allowed.
    #[must_use]
    pub fn contains(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    /// Whether nothing is allowed.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// The set as it travels to the desktop: bit 0 connect, bit 1 proxy, bit 2 infer.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// The permissions among space-separated words (RFC 8693 §4.2); `None` if no word is about tunnels at all.
    ///
    /// A word that is, but is unknown or in another case, allows nothing, and is not taken for absence either.
    pub(super) fn of_words(text: &str) -> Option<Self> {
        text.split_ascii_whitespace()
            .filter(|word| word.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX)))
            .map(|word| NAMES.iter().find(|(name, _)| *name == word).map_or(Self::NONE, |(_, scope)| *scope))
            .reduce(Self::bitor)
    }
}

impl BitOr for Scope {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// As in a token: `tunnel:connect tunnel:proxy`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = *self;
        let mut separator = "";
        for (name, scope) in NAMES {
            if left.contains(scope) {
                write!(f, "{separator}{name}")?;
                separator = " ";
                left = Self(left.0 & !scope.0);
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({self})")
    }
}

/// As on a command line: `connect,proxy`; the names of a token are understood too.
impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        text.split([',', ' ']).map(str::trim).filter(|word| !word.is_empty()).try_fold(Self::NONE, |scope, word| {
            let short = word.strip_prefix(PREFIX).unwrap_or(word);
            NAMES
                .iter()
                .find(|(name, _)| &name[PREFIX.len()..] == short)
                .map(|(_, named)| scope | *named)
                .ok_or_else(|| UnknownScope(word.to_owned()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_implies_infer_and_not_the_reverse() {
        assert!(Scope::PROXY.contains(Scope::INFER));
        assert!(!Scope::INFER.contains(Scope::PROXY));
        assert!(!(Scope::CONNECT | Scope::INFER).contains(Scope::PROXY));
        assert!(!Scope::PROXY.contains(Scope::CONNECT));
    }

    #[test]
    fn words_of_a_token() {
        let cases = [
            ("", None),
            ("openid email mytunnel:proxy", None),
            ("tunnel:connect", Some(Scope::CONNECT)),
            ("openid tunnel:infer  tunnel:connect", Some(Scope::CONNECT | Scope::INFER)),
            ("tunnel:everything", Some(Scope::NONE)),
            ("TUNNEL:PROXY", Some(Scope::NONE)),
            ("\ttunnel:infer\n", Some(Scope::INFER)),
        ];
        for (text, expected) in cases {
            assert_eq!(Scope::of_words(text), expected, "{text:?}");
        }
    }

    #[test]
    fn words_of_a_command_line() {
        assert_eq!("connect,proxy".parse(), Ok(Scope::CONNECT | Scope::PROXY));
        assert_eq!("tunnel:infer, connect".parse(), Ok(Scope::CONNECT | Scope::INFER));
        assert_eq!("".parse(), Ok(Scope::NONE));
        assert!("conect".parse::<Scope>().unwrap_err().to_string().contains("conect"));
    }

    #[test]
    fn display_is_read_back() {
        for bits in [0, 1, 4, 5, 6, 7] {
            let scope = Scope(bits);
            assert_eq!(scope.to_string().parse(), Ok(scope));
            assert_eq!(Scope::of_words(&scope.to_string()).unwrap_or_default(), scope);
        }
        assert_eq!((Scope::CONNECT | Scope::PROXY).to_string(), "tunnel:connect tunnel:proxy");
    }
}
