//! The shared secret of HS256.
//!
//! Owns what makes a secret long enough (RFC 7518 §3.2) and that it never shows up in a log.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use thiserror::Error;

/// The shortest secret: as long as the hash, 256 bits (RFC 7518 §3.2).
const MIN_BYTES: usize = 32;

/// A secret that signs and verifies.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

/// Why these bytes are no secret. Reads as the end of a sentence that starts with where they came from.
#[derive(Debug, Error)]
pub enum SecretProblem {
    /// Missing, a directory, not permitted.
    #[error(
        "cannot be read: {0}; name a file with the secret that this user may read, or make a first one: openssl rand -hex 32"
    )]
    Unreadable(#[from] io::Error),
    /// Too short to resist guessing.
    #[error("has {0} bytes; a shared secret needs at least 32, make one with: openssl rand -hex 32")]
    TooShort(usize),
    /// A key or certificate: public, or of another kind.
    #[error("is a PEM file, not a shared secret; a public key belongs to --jwt-public-key")]
    Pem,
}

/// A file that holds no secret. Displays as one line: the file, what is wrong, what to do.
#[derive(Debug, Error)]
#[error("{} {problem}", path.display())]
pub struct SecretError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: SecretProblem,
}

impl Secret {
    /// A secret of at least 32 bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, SecretProblem> {
        let bytes = bytes.into();
        if bytes.trim_ascii_start().starts_with(b"-----BEGIN ") {
            // Whoever has the public key could sign.
            return Err(SecretProblem::Pem);
        }
        if bytes.len() < MIN_BYTES {
            return Err(SecretProblem::TooShort(bytes.len()));
        }
        Ok(Self(bytes))
    }

    /// The secret in a file: all of its bytes but one line ending at the end, which editors and `echo` add.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let read = || {
            let mut bytes = fs::read(path)?;
            if bytes.ends_with(b"\n") {
                bytes.pop();
                if bytes.ends_with(b"\r") {
                    bytes.pop();
                }
            }
            Self::new(bytes)
        };
        read().map_err(|problem| SecretError { path: path.to_owned(), problem })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The secret as text that a header can carry: visible characters only.
    #[must_use]
    pub fn as_visible(&self) -> Option<&str> {
        let visible = self.0.iter().all(u8::is_ascii_graphic);
        std::str::from_utf8(&self.0).ok().filter(|_| visible)
    }

    /// Whether both are the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.is(&other.0)
    }

    /// Whether `other` is this secret. How long it takes says nothing of where they differ: hashes are compared.
    #[must_use]
    pub fn is(&self, other: &[u8]) -> bool {
        let [ours, theirs] = [self.0.as_slice(), other].map(Sha256::digest);
        ours.iter().zip(theirs).fold(0, |differs, (ours, theirs)| differs | (ours ^ theirs)) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t18_empty_and_short_secrets_are_refused() {
        for short in ["", "a", &"x".repeat(31)] {
            assert!(matches!(Secret::new(short), Err(SecretProblem::TooShort(len)) if len == short.len()));
        }
        Secret::new("x".repeat(32)).unwrap();
    }

    #[test]
    fn t18_a_line_ending_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        for (text, len) in
            [("x".repeat(31) + "\n", None), ("x".repeat(32) + "\r\n", Some(32)), ("x".repeat(33) + "\n\n", Some(34))]
        {
            fs::write(&path, text).unwrap();
            assert_eq!(Secret::read(&path).ok().map(|secret| secret.0.len()), len);
        }
    }

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let error = Secret::read(&path).unwrap_err().to_string();
        assert!(error.starts_with(path.to_str().unwrap()) && error.contains("cannot be read"), "{error}");
    }

    #[test]
    fn t02_a_pem_file_is_no_secret() {
        let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n";
        assert!(matches!(Secret::new(pem), Err(SecretProblem::Pem)));
    }

    #[test]
    fn only_the_whole_secret_is_it() {
        let text = "x".repeat(40);
        let secret = Secret::new(text.as_str()).unwrap();
        assert!(secret.is(text.as_bytes()));
        for other in ["", "x", &text[1..], &(text.clone() + "x"), &text.replacen('x', "y", 1)] {
            assert!(!secret.is(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn t32_debug_shows_nothing() {
        let secret = Secret::new("canary-canary-canary-canary-canary").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }
}
