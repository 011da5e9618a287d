//! Issuers, and the document in which one names its endpoints (`OpenID` Connect Discovery 1.0 §4, RFC 8414).

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use url::Url;

use crate::fetch::{FetchError, Fetcher, Reach, check};

/// Where the document is, after the issuer.
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// The name of a provider: a URL, compared byte for byte (a slash at its end matters), as it stands in `iss`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Issuer {
    text: String,
    document: Url,
}

impl Issuer {
    /// An issuer as an operator writes it. The error is one sentence.
    ///
    /// # Errors
    /// Not a URL that could be an issuer (`OpenID` Connect Core §2: https, no query, no fragment).
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXAMPLE: &str = "write it as the provider does, for example https://id.example.com/realms/home";
        let url = Url::parse(text).map_err(|error| format!("{text:?} is no issuer ({error}); {EXAMPLE}"))?;
        check(&url).map_err(|error| format!("{text} {error}"))?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!("{text} has a query or fragment, which no issuer has; {EXAMPLE}"));
        }
        if url.path().ends_with(WELL_KNOWN) {
            return Err(format!("{text} is the address of a document; leave {WELL_KNOWN} out"));
        }
        let document = format!("{}{WELL_KNOWN}", text.trim_end_matches('/'));
        let document = Url::parse(&document).map_err(|error| format!("{text:?} is no issuer ({error}); {EXAMPLE}"))?;
        Ok(Self { text: text.to_owned(), document })
    }

    /// Exactly as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Issuer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Issuer> for String {
    fn from(issuer: Issuer) -> Self {
        issuer.text
    }
}

/// What a provider says about itself, as far as it is used here. Every address in it may be asked ([`check`]).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Endpoints {
    issuer: String,
    /// The keys that it signs with.
    pub jwks_uri: Url,
    /// Where tokens come from.
    pub token_endpoint: Option<Url>,
    /// Where a device begins to sign in (RFC 8628 §3.1).
    pub device_authorization_endpoint: Option<Url>,
    /// Where a token is given back (RFC 7009).
    pub revocation_endpoint: Option<Url>,
}

/// Why a provider could not be found. Displays as one line.
#[derive(Debug, Error)]
pub enum DiscoveryError {
    /// No document.
    #[error("{0} {1}")]
    Fetch(String, FetchError),
    /// The document of somebody else, or of the same under another name.
    #[error("{document} is about the issuer {told:?}; write exactly that instead of {asked:?}")]
    OtherIssuer {
        /// Where it came from.
        document: String,
        /// Who it is about.
        told: String,
        /// Who was asked for.
        asked: String,
    },
    /// It sends us where nobody should be sent.
    #[error("{0}, which {1} names, {2}")]
    Endpoint(String, String, FetchError),
}

/// Reads the document of an issuer.
///
/// # Errors
/// See [`DiscoveryError`].
pub async fn discover(fetcher: &Fetcher, issuer: &Issuer) -> Result<Endpoints, DiscoveryError> {
    let document = &issuer.document;
    let endpoints: Endpoints =
        fetcher.get_json(document).await.map_err(|error| DiscoveryError::Fetch(document.to_string(), error))?;
    endpoints.checked(issuer)
}

impl Endpoints {
    /// Not taken on trust: the issuer must be the one that was asked (`OpenID` Connect Discovery §4.3), and may not send
    /// us to what it could not reach itself: a provider on the network names nothing of this machine.
    fn checked(self, issuer: &Issuer) -> Result<Self, DiscoveryError> {
        if self.issuer != issuer.text {
            let (document, asked) = (issuer.document.to_string(), issuer.text.clone());
            return Err(DiscoveryError::OtherIssuer { document, told: self.issuer, asked });
        }
        let others = [&self.token_endpoint, &self.device_authorization_endpoint, &self.revocation_endpoint];
        let reach = Reach::of(&issuer.document);
        for url in [&self.jwks_uri].into_iter().chain(others.into_iter().flatten()) {
            let inside = || if Reach::of(url) < reach { Err(FetchError::Inside) } else { Ok(()) };
            check(url)
                .and_then(|()| inside())
                .map_err(|error| DiscoveryError::Endpoint(url.to_string(), issuer.to_string(), error))?;
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_keep_every_byte_and_say_where_their_document_is() {
        for (text, document) in [
            ("https://id.example", "https://id.example/.well-known/openid-configuration"),
            ("https://id.example/", "https://id.example/.well-known/openid-configuration"),
            ("https://id.example/realms/a", "https://id.example/realms/a/.well-known/openid-configuration"),
            ("http://127.0.0.1:8080/x/", "http://127.0.0.1:8080/x/.well-known/openid-configuration"),
        ] {
            let issuer = Issuer::parse(text).unwrap();
            assert_eq!((issuer.as_str(), issuer.document.as_str()), (text, document));
            assert_eq!(serde_json::to_string(&issuer).unwrap(), format!("{text:?}"));
        }
    }

    #[test]
    fn what_is_no_issuer_is_one_sentence() {
        for (text, part) in [
            ("id.example", "no issuer"),
            ("http://id.example", "not encrypted"),
            ("https://id.example?x", "query"),
            ("https://id.example#x", "query or fragment"),
            ("https://id.example/.well-known/openid-configuration", "leave"),
        ] {
            let error = Issuer::parse(text).unwrap_err();
            assert!(error.contains(part) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn t17_a_document_of_another_issuer_or_with_open_addresses_is_refused() {
        let issuer = Issuer::parse("https://id.example").unwrap();
        let read = |json: &str| serde_json::from_str::<Endpoints>(json).unwrap().checked(&issuer);
        let good = read(r#"{"issuer":"https://id.example","jwks_uri":"https://keys.example/x","other":[1]}"#).unwrap();
        assert_eq!(good.jwks_uri.as_str(), "https://keys.example/x");
        assert_eq!(good.token_endpoint, None);
        let slash = read(r#"{"issuer":"https://id.example/","jwks_uri":"https://id.example/x"}"#).unwrap_err();
        assert!(slash.to_string().contains(r#"write exactly that instead of "https://id.example""#), "{slash}");
        for open in [
            r#"{"issuer":"https://id.example","jwks_uri":"http://id.example/x"}"#,
            r#"{"issuer":"https://id.example","jwks_uri":"https://id.example/x","token_endpoint":"http://id.example/t"}"#,
            r#"{"issuer":"https://id.example","jwks_uri":"file:///x"}"#,
        ] {
            assert!(matches!(read(open), Err(DiscoveryError::Endpoint(..))), "{open}");
        }
    }

    #[test]
    fn t17_a_provider_sends_nobody_to_what_is_nearer_than_itself() {
        const MACHINE: [&str; 7] = [
            "http://127.0.0.1:11434/api/delete",
            "https://127.0.0.1/x",
            "http://localhost/x",
            "https://a.localhost./x",
            "https://[::1]/x",
            "https://0.0.0.0/x",
            "https://[::ffff:127.0.0.1]/x",
        ];
        const NETWORK: [&str; 6] = [
            "https://10.1.2.3/x",
            "https://192.168.0.1/x",
            "https://169.254.169.254/latest",
            "https://[fe80::1]/x",
            "https://[fd00::1]/x",
            "https://100.100.100.100/x",
        ];
        const WORLD: [&str; 3] = ["https://keys.example/x", "https://192.0.2.1/x", "https://[2001:db8::1]/x"];
        let named = |issuer: &str, url: &str, endpoint: &str| {
            let mut document = serde_json::json!({"issuer": issuer, "jwks_uri": "https://keys.example/x"});
            document[endpoint] = url.into();
            serde_json::from_value::<Endpoints>(document).unwrap().checked(&Issuer::parse(issuer).unwrap())
        };
        for (issuer, good, bad) in [
            ("https://id.example", vec![&WORLD[..]], vec![&MACHINE[..], &NETWORK[..]]),
            ("https://10.0.0.5", vec![&WORLD[..], &NETWORK[..]], vec![&MACHINE[..]]),
            ("http://127.0.0.1:8080", vec![&WORLD[..], &NETWORK[..], &MACHINE[..]], vec![]),
        ] {
            for endpoint in ["jwks_uri", "token_endpoint", "device_authorization_endpoint", "revocation_endpoint"] {
                for url in good.concat() {
                    let known = named(issuer, url, endpoint);
                    assert!(known.is_ok(), "{issuer} may name {url} as {endpoint}: {known:?}");
                }
                for url in bad.concat() {
                    let refused = named(issuer, url, endpoint).unwrap_err();
                    assert!(matches!(refused, DiscoveryError::Endpoint(..)), "{issuer}, {url}: {refused}");
                }
            }
        }
    }
}
