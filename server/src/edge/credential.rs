//! Where a request carries its token.
//!
//! Owns the order of the four places and what is wrong with each. The first one that is present wins, without
//! fallback: a request is judged by one credential, and a second one cannot widen it. Does not look into the token,
//! and never looks into the query, which ends up in logs and histories.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::capability::Capability;
use crate::error::{ErrorCode, Refusal};

/// Where Anthropic's SDKs put an API key.
pub const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The place a token came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The path, `/t/<token>/`.
    Capability,
    /// `Authorization: Bearer` (RFC 6750 §2.1).
    Bearer,
    /// `x-api-key`.
    ApiKey,
    /// The password of `Authorization: Basic` (RFC 7617), under any user name.
    Basic,
}

impl Source {
    /// A refusal of a token from this place, with the status that fits the place.
    #[must_use]
    pub fn refuse(self, refusal: impl Into<Refusal>) -> Refusal {
        match self {
            Self::Capability => refusal.into().in_path(),
            Self::Bearer | Self::ApiKey | Self::Basic => refusal.into(),
        }
    }
}

/// A token that nobody has verified yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential<'a> {
    /// The token.
    pub token: Cow<'a, str>,
    /// Where it was.
    pub source: Source,
}

impl std::fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("source", &self.source).finish_non_exhaustive()
    }
}

/// Finds the credential of a request.
///
/// Refuses with `token_missing`, with `token_invalid` for what can be no token, with `bad_request` for repeated
/// fields, and with `not_allowed` for Basic from a web page.
pub fn find<'a>(headers: &'a HeaderMap, capability: Option<&Capability<'a>>) -> Result<Credential<'a>, Refusal> {
    if let Some(capability) = capability {
        return credential(Source::Capability, Cow::Borrowed(capability.token));
    }
    let authorization = authorization(headers)?;
    if let Some((scheme, token)) = authorization
        && scheme.eq_ignore_ascii_case("Bearer")
    {
        return credential(Source::Bearer, Cow::Borrowed(token));
    }
    if let Some(key) = only(headers, &X_API_KEY)? {
        return credential(Source::ApiKey, Cow::Borrowed(text(key)?.trim_ascii()));
    }
    match authorization {
        Some((scheme, userinfo)) if scheme.eq_ignore_ascii_case("Basic") => basic(headers, userinfo),
        Some(_) => Err(Refusal::with_message(
            ErrorCode::TokenMissing,
            "This scheme of Authorization carries no token; send 'Authorization: Bearer TOKEN'.",
        )),
        None => Err(ErrorCode::TokenMissing.into()),
    }
}

/// Scheme and credentials of the one `Authorization` field; schemes are case-insensitive (RFC 9110 §11.1).
fn authorization(headers: &HeaderMap) -> Result<Option<(&str, &str)>, Refusal> {
    let Some(value) = only(headers, &header::AUTHORIZATION)? else { return Ok(None) };
    let value = text(value)?.trim_ascii();
    Ok(Some(value.split_once(' ').map_or((value, ""), |(scheme, rest)| (scheme, rest.trim_ascii()))))
}

/// The token of Basic. A browser repeats a stored password on its own, to any page that asks for our addresses:
/// a web page has to send a token by itself (T63).
fn basic<'a>(headers: &HeaderMap, userinfo: &str) -> Result<Credential<'a>, Refusal> {
    if headers.contains_key(header::ORIGIN) || headers.contains_key(SEC_FETCH_SITE) {
        return Err(Refusal::with_message(
            ErrorCode::NotAllowed,
            "HTTP Basic is not accepted from a web page; send 'Authorization: Bearer TOKEN'.",
        ));
    }
    let pair = STANDARD.decode(userinfo).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = pair.ok_or_else(|| Refusal::new(ErrorCode::TokenInvalid).because("Basic is not base64 of UTF-8"))?;
    match pair.split_once(':') {
        Some((_, password)) if !password.is_empty() => credential(Source::Basic, Cow::Owned(password.to_owned())),
        _ => Err(Refusal::with_message(
            ErrorCode::TokenMissing,
            "HTTP Basic came without a password; put the token there, under any user name.",
        )),
    }
}

/// A present credential. Tokens are visible ASCII (RFC 6750 §2.1), which keeps log injection and lists of several
/// tokens away from everything behind this.
fn credential(source: Source, token: Cow<'_, str>) -> Result<Credential<'_>, Refusal> {
    if token.is_empty() {
        Err(source.refuse(ErrorCode::TokenMissing))
    } else if token.bytes().fold(true, |all, b| all & b.is_ascii_graphic()) {
        // `Iterator::all` would look at one byte at a time.
        Ok(Credential { token, source })
    } else {
        Err(source.refuse(Refusal::new(ErrorCode::TokenInvalid).because("characters that no token has")))
    }
}

/// The value of a field that may occur once. Which of two would count depends on who reads them, so two are refused
/// (T19).
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_none() {
        return Ok(first);
    }
    Err(Refusal::with_message(ErrorCode::BadRequest, format!("There are several {name} fields; send one.")))
}

fn text(value: &HeaderValue) -> Result<&str, Refusal> {
    let text = std::str::from_utf8(value.as_bytes()).ok().filter(|text| text.is_ascii());
    text.ok_or_else(|| Refusal::new(ErrorCode::TokenInvalid).because("a credential that is not ASCII"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::capability, *};

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for &(name, value) in pairs {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    fn found(pairs: &[(&'static str, &str)]) -> Result<(Source, String), (ErrorCode, u16)> {
        found_at(pairs, "/api/chat")
    }

    fn found_at(pairs: &[(&'static str, &str)], target: &str) -> Result<(Source, String), (ErrorCode, u16)> {
        find(&map(pairs), capability::split(target).as_ref())
            .map(|c| (c.source, c.token.into_owned()))
            .map_err(|r| (r.code(), r.status().as_u16()))
    }

    fn basic_of(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    const MISSING: Result<(Source, String), (ErrorCode, u16)> = Err((ErrorCode::TokenMissing, 401));
    const INVALID: Result<(Source, String), (ErrorCode, u16)> = Err((ErrorCode::TokenInvalid, 401));

    #[test]
    fn each_place_is_found() {
        assert_eq!(found(&[("authorization", "Bearer a.b.c")]), Ok((Source::Bearer, "a.b.c".into())));
        assert_eq!(found(&[("authorization", "bEARER   a.b.c")]), Ok((Source::Bearer, "a.b.c".into())));
        assert_eq!(found(&[("x-api-key", "a.b.c")]), Ok((Source::ApiKey, "a.b.c".into())));
        for user in ["", "me", "a.b.x"] {
            let basic = basic_of(&format!("{user}:a.b.c"));
            assert_eq!(found(&[("authorization", &basic)]), Ok((Source::Basic, "a.b.c".into())));
        }
        assert_eq!(found_at(&[], "/t/a.b.c/x"), Ok((Source::Capability, "a.b.c".into())));
    }

    #[test]
    fn the_first_present_wins_without_fallback() {
        let key = ("x-api-key", "key");
        let basic = basic_of("u:pw");
        let basic = ("authorization", basic.as_str());
        assert_eq!(found_at(&[("authorization", "Bearer b"), key], "/t/cap/"), Ok((Source::Capability, "cap".into())));
        assert_eq!(found(&[("authorization", "Bearer b"), key]), Ok((Source::Bearer, "b".into())));
        assert_eq!(found(&[basic, key]), Ok((Source::ApiKey, "key".into())));
        assert_eq!(found(&[("authorization", "Bearer "), key]), MISSING);
        assert_eq!(found(&[("authorization", "Bearer a b"), key]), INVALID);
        assert_eq!(found(&[("x-api-key", ""), basic]), MISSING);
        assert_eq!(found_at(&[("authorization", "Bearer b")], "/t//x"), Err((ErrorCode::TokenMissing, 403)));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        assert_eq!(found(&[]), MISSING);
        assert_eq!(found(&[("authorization", "Digest username=x")]), MISSING);
        assert_eq!(found(&[("authorization", "a.b.c")]), MISSING);
        assert_eq!(found(&[("cookie", "token=a.b.c")]), MISSING);
        assert_eq!(found_at(&[], "/api/chat?token=a.b.c"), MISSING);
        assert_eq!(found(&[("authorization", "Bearer a b")]), INVALID);
        assert_eq!(found(&[("authorization", "Bearer a, Bearer b")]), INVALID);
        assert_eq!(found(&[("authorization", "Basic %%%")]), INVALID);
        assert_eq!(found(&[("authorization", &basic_of("token"))]), MISSING);
        assert_eq!(found(&[("authorization", &basic_of("token:"))]), MISSING);
        let refusal = find(&map(&[("authorization", &basic_of("token:"))]), None).unwrap_err();
        assert!(refusal.message().contains("without a password"));
        assert_eq!(found(&[("authorization", &basic_of("u:a\nb"))]), INVALID);
        assert_eq!(found_at(&[], "/t/é/x"), Err((ErrorCode::TokenInvalid, 403)));
    }

    #[test]
    fn t19_several_fields_are_refused() {
        let twice = Err((ErrorCode::BadRequest, 400));
        assert_eq!(found(&[("authorization", "Bearer a"), ("authorization", "Bearer a")]), twice);
        assert_eq!(found(&[("authorization", "Bearer a"), ("authorization", "Basic a")]), twice);
        assert_eq!(found(&[("x-api-key", "a"), ("x-api-key", "b")]), twice);
    }

    #[test]
    fn t63_basic_from_a_web_page_is_refused() {
        let basic = basic_of("u:a.b.c");
        for sign in [("origin", "null"), ("origin", "https://a.example"), ("sec-fetch-site", "same-origin")] {
            assert_eq!(found(&[("authorization", &basic), sign]), Err((ErrorCode::NotAllowed, 403)));
            assert!(found(&[("authorization", "Bearer a"), sign]).is_ok());
        }
    }

    #[test]
    fn t32_a_credential_does_not_print_its_token() {
        let headers = map(&[("authorization", "Bearer canary")]);
        assert!(!format!("{:?}", find(&headers, None)).contains("canary"));
        let headers = map(&[("authorization", "Bearer canary canary")]);
        assert!(!format!("{:?}", find(&headers, None)).contains("canary"));
    }

    proptest! {
        #[test]
        fn a_found_token_is_one_visible_word(value in "\\PC{0,30}", name in "authorization|x-api-key") {
            let mut headers = HeaderMap::new();
            let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) else { return Ok(()) };
            headers.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
            if let Ok(credential) = find(&headers, None) {
                prop_assert!(!credential.token.is_empty());
                prop_assert!(credential.token.bytes().all(|b| b.is_ascii_graphic()));
            }
        }
    }
}
