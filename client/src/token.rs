//! The desktop's own token: where it is read from, and what it says about itself.
//!
//! Nothing here verifies a token; only the server can. A token never shows in `Debug` or in an error.

use std::{
    fmt, fs, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tunnel_cli::value::bare_token;

use crate::login::{LoginError, Renewal};

/// Longest token that a server looks at, in bytes.
pub const MAX_TOKEN: usize = 8 * 1024;

/// Where the token is read from.
#[derive(Debug, Clone)]
pub enum TokenSource {
    /// It was given, and stays.
    Inline(Token),
    /// It is in a file, which may be replaced at any time.
    File(PathBuf),
    /// It comes from an identity provider, and is renewed there.
    Login(Arc<Renewal>),
}

impl TokenSource {
    /// The token as it is now. Reads the file each time.
    pub fn read(&self) -> Result<Token, TokenError> {
        let path = match self {
            Self::Inline(token) => return Ok(token.clone()),
            Self::File(path) => path,
            Self::Login(renewal) => return Ok(renewal.token()?),
        };
        let text = fs::read_to_string(path).map_err(|error| TokenError::Unreadable(path.clone(), error))?;
        Token::parse(&text)
    }

    /// The token to connect with: the same, but renewed first where it can be and has to be.
    pub async fn fresh(&self) -> Result<Token, TokenError> {
        match self {
            Self::Inline(_) | Self::File(_) => self.read(),
            Self::Login(renewal) => Ok(renewal.fresh().await?),
        }
    }

    /// Keeps the token fresh for ever, where that can be done.
    pub(crate) async fn keep_fresh(self) {
        if let Self::Login(renewal) = self {
            renewal.run().await;
        }
    }
}

/// A JSON Web Token in its compact form (RFC 7519), unverified.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Token(Box<str>);

/// Why there is no token.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The file is missing or closed to us.
    #[error("cannot read {path}: {1}", path = .0.display())]
    Unreadable(PathBuf, #[source] io::Error),
    /// Nothing but white space.
    #[error("the token is empty; mint one with `tunneld token --user NAME` on the server")]
    Empty,
    /// An address without a token in it.
    #[error(
        "that is a URL and no token; one that holds a token is https://SERVER/t/TOKEN, and --server takes the server's"
    )]
    Url,
    /// Something else was pasted.
    #[error("that is no token: one has three parts joined by dots, as `tunneld token --user NAME` prints it")]
    Shape,
    /// No server would look at it.
    #[error("the token is longer than {MAX_TOKEN} bytes")]
    TooLong,
    /// Nobody is signed in, or not any more.
    #[error(transparent)]
    Login(#[from] LoginError),
}

impl TokenError {
    /// Whether time may heal it.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Login(error) if error.may_pass())
    }
}

impl Token {
    /// Takes a token as a file or a shell hands it over, with white space around it; also as a header has it
    /// (`Bearer TOKEN`) and as a capability URL has it (`https://SERVER/t/TOKEN/`).
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = bare_token(text);
        let plain =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        match text {
            "" => Err(TokenError::Empty),
            long if long.len() > MAX_TOKEN => Err(TokenError::TooLong),
            url if url.contains("://") => Err(TokenError::Url),
            jwt if jwt.split('.').count() == 3 && jwt.split('.').all(plain) => Ok(Self(jwt.into())),
            _ => Err(TokenError::Shape),
        }
    }

    /// The text, for the `Authorization` header of the handshake and nowhere else.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// What the token says about itself, unverified. What cannot be read is absent.
    #[must_use]
    pub fn claims(&self) -> Claims {
        let payload = self.0.split('.').nth(1).unwrap_or_default();
        let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
        serde_json::from_slice(&payload).unwrap_or_default()
    }
}

impl TryFrom<String> for Token {
    type Error = TokenError;

    fn try_from(text: String) -> Result<Self, TokenError> {
        Self::parse(&text)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// The claims that a client acts upon.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Claims {
    /// Who vouches for the user. Callers of the same user need a token with the same issuer.
    #[serde(rename = "iss")]
    pub issuer: Option<String>,
    /// The user, by the name that its issuer gave.
    #[serde(rename = "sub")]
    pub subject: Option<String>,
    /// Words, or a list of them, as different issuers write it.
    scope: Option<serde_json::Value>,
    /// Seconds since 1970 after which the token is void.
    exp: Option<f64>,
    /// Where to connect.
    #[serde(rename = "tunnel_server")]
    pub server: Option<String>,
    /// The only name under which a desktop may register with this token.
    pub tunnel: Option<String>,
}

impl Claims {
    /// What the token may do, in the words of its issuer.
    #[must_use]
    pub fn scope(&self) -> Option<String> {
        match self.scope.as_ref()? {
            serde_json::Value::String(words) => Some(words.clone()),
            serde_json::Value::Array(words) => {
                Some(words.iter().filter_map(serde_json::Value::as_str).collect::<Vec<_>>().join(" "))
            }
            _ => None,
        }
    }

    /// Whether the token says that it is for requests and not for a desktop. One that says nothing may do both.
    #[must_use]
    pub fn is_callers(&self) -> bool {
        let scope = self.scope().unwrap_or_default();
        let may = |name| scope.split_ascii_whitespace().any(|word| word == name);
        !may("tunnel:connect") && (may("tunnel:proxy") || may("tunnel:infer"))
    }

    /// Whether the token says that it is for a desktop and not for requests.
    #[must_use]
    pub fn is_desktops(&self) -> bool {
        let scope = self.scope().unwrap_or_default();
        let may = |name| scope.split_ascii_whitespace().any(|word| word == name);
        may("tunnel:connect") && !may("tunnel:proxy") && !may("tunnel:infer")
    }

    /// When the token expires; `None` if it says nothing that a person could mean (dates end with the year 9999).
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        const YEAR_10_000: f64 = 253_402_300_800.0;
        let since_1970 = Duration::try_from_secs_f64(self.exp.filter(|exp| *exp < YEAR_10_000)?).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(since_1970)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn token(claims: &str) -> Token {
        Token::parse(&format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims))).unwrap()
    }

    #[test]
    fn shapes() {
        assert!(Token::parse(" a.b.c\r\n").is_ok());
        assert!(matches!(Token::parse(" \n"), Err(TokenError::Empty)));
        for bad in ["a", "a.b", "a.b.c.d", "a..c", "a.b c.d", "a.b.c\nd", "a.b.c\u{e9}"] {
            assert!(matches!(Token::parse(bad), Err(TokenError::Shape)), "{bad}");
        }
        assert!(matches!(Token::parse(&"a.".repeat(8000)), Err(TokenError::TooLong)));
    }

    #[test]
    fn claims_are_read_where_they_can_be() {
        let claims =
            token(r#"{"iss":"x","exp":1700000000,"tunnel_server":"https://a","sub":"bob","other":[1]}"#).claims();
        assert_eq!(claims.issuer.as_deref(), Some("x"));
        assert_eq!(claims.server.as_deref(), Some("https://a"));
        assert_eq!(claims.expires(), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)));
        assert_eq!(Token::parse("a.b.c").unwrap().claims(), Claims::default());
        assert_eq!(token(r#"{"exp":-1}"#).claims().expires(), None);
        assert_eq!(token(r#"{"exp":1e300}"#).claims().expires(), None);
        // The classic slip: milliseconds.
        assert_eq!(token(r#"{"exp":1700000000000}"#).claims().expires(), None);
    }

    #[test]
    fn what_is_pasted_with_a_token_around_is_taken_for_it() {
        for pasted in ["Bearer a.b.c", "bearer  a.b.c\n", "https://h.example/t/a.b.c", "http://[::1]:8443/t/a.b.c/v1?x"]
        {
            assert_eq!(Token::parse(pasted).unwrap().secret(), "a.b.c", "{pasted}");
        }
        for url in ["https://h.example", "https://h.example/app/#a.b.c", "https://a.b.c"] {
            assert!(matches!(Token::parse(url), Err(TokenError::Url)), "{url}");
        }
        for bad in ["Bearer a", "Basic a.b.c", "https://h/t/a", "x/t/a.b.c"] {
            let error = Token::parse(bad).unwrap_err();
            assert!(matches!(error, TokenError::Shape) && !error.to_string().contains(bad), "{bad}: {error}");
        }
    }

    #[test]
    fn whose_a_token_is_is_known_by_its_scope() {
        let desktops = token(r#"{"scope":"tunnel:connect"}"#).claims();
        assert!(desktops.is_desktops() && !desktops.is_callers());
        for (claims, expected) in [
            (r#"{"scope":"tunnel:infer"}"#, true),
            (r#"{"scope":["openid","tunnel:proxy"]}"#, true),
            (r#"{"scope":"tunnel:connect tunnel:proxy"}"#, false),
            (r#"{"scope":"openid"}"#, false),
            ("{}", false),
        ] {
            assert_eq!(token(claims).claims().is_callers(), expected, "{claims}");
            assert!(!token(claims).claims().is_desktops(), "{claims}");
        }
    }

    #[test]
    fn a_file_is_read_again_each_time() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"a.b.c\n").unwrap();
        let source = TokenSource::File(file.path().to_owned());
        assert_eq!(source.read().unwrap().secret(), "a.b.c");
        fs::write(file.path(), "d.e.f").unwrap();
        assert_eq!(source.read().unwrap().secret(), "d.e.f");
        drop(file);
        assert!(matches!(source.read(), Err(TokenError::Unreadable(..))));
    }

    #[test]
    fn t32_a_token_never_shows() {
        let source = TokenSource::Inline(Token::parse("canary.canary.canary").unwrap());
        assert!(!format!("{source:?}").contains("canary"));
    }
}
