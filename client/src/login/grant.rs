//! What a provider's token endpoint answers (RFC 6749 §5): tokens, or why not.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::Deserialize;
use thiserror::Error;
use tunnel_oidc::{
    Login, TokenKind,
    fetch::{Answer, FetchError, Fetcher},
};
use url::Url;

use crate::token::Token;

/// Longest text of a provider that is repeated.
const MAX_TEXT: usize = 200;

/// Why a provider gave no token.
#[derive(Debug, Error)]
pub enum GrantError {
    /// No answer.
    #[error("it {0}")]
    Fetch(FetchError),
    /// A refusal, with its code and perhaps a sentence (RFC 6749 §5.2).
    #[error("it refused ({code}){}", .description.as_deref().map(|text| format!(": {text}")).unwrap_or_default())]
    Refused {
        /// Such as `access_denied`.
        code: String,
        /// Its own words.
        description: Option<String>,
    },
    /// Neither tokens nor a refusal.
    #[error("it answered {0} and no token")]
    Strange(http::StatusCode),
    /// A token that no server can verify by itself.
    #[error(
        "its access token is no JSON web token, so the server could not read it: its operator must set up an API with the \
         audience {0:?} there, or use the client ID for audience, so that the ID token counts"
    )]
    Opaque(String),
    /// The kind that the server takes is not among what came.
    #[error("it gave no {}", if *.0 == TokenKind::Id { "ID token; the scope must contain openid" } else { "access token" })]
    Missing(TokenKind),
}

impl GrantError {
    /// Whether time may heal it: no answer, or one that says that the provider itself is in trouble.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Fetch(_) => true,
            Self::Strange(status) => status.is_server_error() || *status == http::StatusCode::TOO_MANY_REQUESTS,
            Self::Refused { code, .. } => matches!(code.as_str(), "temporarily_unavailable" | "server_error"),
            Self::Opaque(_) | Self::Missing(_) => false,
        }
    }
}

/// Tokens, as they came.
pub(super) struct Granted {
    /// The one for the server.
    pub(super) token: Token,
    /// By this machine's clock.
    pub(super) expires: Option<SystemTime>,
    pub(super) refresh_token: Option<String>,
}

impl fmt::Debug for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Granted").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// Asks for tokens with the fields of a grant.
pub(super) async fn request(
    fetcher: &Fetcher,
    endpoint: &Url,
    login: &Login,
    grant: &[(&str, &str)],
) -> Result<Granted, GrantError> {
    let fields = [grant, &login.fields()].concat();
    let answer = fetcher.post_form(endpoint, &fields).await.map_err(GrantError::Fetch)?;
    read(login, &answer, SystemTime::now())
}

fn read(login: &Login, answer: &Answer, now: SystemTime) -> Result<Granted, GrantError> {
    #[derive(Deserialize)]
    struct Tokens {
        access_token: Option<String>,
        id_token: Option<String>,
        refresh_token: Option<String>,
        expires_in: Option<u64>,
    }
    if !answer.status.is_success() {
        return Err(refusal(answer));
    }
    let tokens: Tokens = serde_json::from_slice(&answer.body).map_err(|_| GrantError::Strange(answer.status))?;
    let kind = login.token();
    let text = match kind {
        TokenKind::Access => tokens.access_token,
        TokenKind::Id => tokens.id_token,
    };
    let token = Token::parse(&text.ok_or(GrantError::Missing(kind))?)
        .map_err(|_| GrantError::Opaque(login.audience.clone()))?;
    // `expires_in` is about the access token, and needs no clock that agrees with the provider's.
    let told = tokens.expires_in.filter(|_| kind == TokenKind::Access);
    let expires = told.and_then(|seconds| now.checked_add(Duration::from_secs(seconds)));
    let expires = expires.or_else(|| token.claims().expires());
    Ok(Granted { token, expires, refresh_token: tokens.refresh_token })
}

/// The refusal in an answer that is no success.
pub(super) fn refusal(answer: &Answer) -> GrantError {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
        error_description: Option<String>,
    }
    match serde_json::from_slice::<Refusal>(&answer.body) {
        Ok(Refusal { error, error_description }) => {
            GrantError::Refused { code: tame(&error), description: error_description.as_deref().map(tame) }
        }
        Err(_) => GrantError::Strange(answer.status),
    }
}

/// Text of a provider as it may appear on a terminal: short, on one line, no control characters (T35).
pub(super) fn tame(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde_json::{Value, json};

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn login(audience: &str) -> Login {
        let issuer = "https://id.example".to_owned().try_into().unwrap();
        Login { issuer, client_id: "app".into(), audience: audience.into(), scope: "openid".into() }
    }

    fn answer(status: u16, body: &Value) -> Answer {
        Answer { status: StatusCode::from_u16(status).unwrap(), body: body.to_string().into() }
    }

    #[test]
    fn the_token_that_the_server_takes_is_taken() {
        let tokens =
            json!({"access_token": "a.b.c", "id_token": "e30.eyJleHAiOjd9.x", "refresh_token": "r", "expires_in": 60});
        let api = read(&login("https://api"), &answer(200, &tokens), NOW).unwrap();
        assert_eq!((api.token.secret(), api.expires), ("a.b.c", Some(NOW + Duration::from_secs(60))));
        let id = read(&login("app"), &answer(200, &tokens), NOW).unwrap();
        assert_eq!((id.token.secret(), id.expires), ("e30.eyJleHAiOjd9.x", Some(NOW + Duration::from_secs(7))));
        assert_eq!(id.refresh_token.as_deref(), Some("r"));
        assert!(!format!("{id:?}").contains("e30"));
    }

    #[test]
    fn an_opaque_token_is_explained() {
        let error = read(&login("https://api"), &answer(200, &json!({"access_token": "opaque"})), NOW).unwrap_err();
        assert!(error.to_string().contains(r#"audience "https://api""#) && !error.may_pass(), "{error}");
        let error = read(&login("app"), &answer(200, &json!({"access_token": "opaque"})), NOW).unwrap_err();
        assert!(error.to_string().contains("no ID token"), "{error}");
    }

    #[test]
    fn t35_a_refusal_is_repeated_on_one_line() {
        let body = json!({"error": "invalid_grant", "error_description": "gone\n\u{1b}[31mfor good"});
        let error = read(&login("x"), &answer(400, &body), NOW).unwrap_err();
        assert_eq!(error.to_string(), "it refused (invalid_grant): gone[31mfor good");
        assert!(!error.may_pass());
        assert!(read(&login("x"), &answer(503, &json!(null)), NOW).unwrap_err().may_pass());
        assert!(!read(&login("x"), &answer(404, &json!(null)), NOW).unwrap_err().may_pass());
    }
}
