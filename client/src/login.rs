//! Signed in at an identity provider: getting tokens there, keeping them fresh, giving them back.
//!
//! ```text
//! device  signs in: the user enters a code in a browser, anywhere (RFC 8628)
//! grant   what a provider's token endpoint answers
//! store   the file with the tokens, for its owner only
//! renewal a token that is about to expire is renewed, by one process at a time
//! ```
//!
//! Verifies no token: only the server can.

pub mod device;
mod grant;
mod renewal;
pub mod store;
#[cfg(test)]
mod tests;

use thiserror::Error;
use tunnel_oidc::{
    Login,
    discovery::{DiscoveryError, discover},
    fetch::{FetchError, Fetcher},
};
use url::Url;

pub use grant::GrantError;
pub use renewal::Renewal;
use store::{Account, StoreError};

/// Why somebody is not signed in, or not any more. Each displays as one line that says what to do.
#[derive(Debug, Error)]
pub enum LoginError {
    /// The server does not say where to sign in.
    #[error(
        "{0} has no identity provider to sign in at; ask its operator for a token, for `tunnel connect --token-file`"
    )]
    NoLogin(String),
    /// The server does not answer as one of ours.
    #[error("{0} {1}")]
    Server(String, FetchError),
    /// The provider's document.
    #[error("the identity provider: {0}")]
    Discovery(#[from] DiscoveryError),
    /// A refusal or failure of the provider.
    #[error("the identity provider: {0}")]
    Grant(#[from] GrantError),
    /// The provider lacks what signing in takes.
    #[error("{0} offers no {1}; ask the server's operator for a token, for `tunnel connect --token-file`")]
    Unsupported(String, &'static str),
    /// The server does not take what the provider gives.
    #[error("signed in as {user}, but {server} refuses: {message}")]
    Refused {
        /// The token's subject.
        user: String,
        /// The server.
        server: String,
        /// Its sentence.
        message: String,
    },
    /// The file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody has signed in at another server meanwhile.
    #[error("signed in at {0} meanwhile, and no longer at {1}: restart, or run `tunnel login --server {1}`")]
    OtherServer(String, String),
    /// No refresh token, or one that is good no more.
    #[error("the sign-in has ended{0}: run `tunnel login`")]
    Over(String),
}

impl LoginError {
    /// Whether time may heal it.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Server(..) | Self::Discovery(_) | Self::Store(StoreError::Busy(_)) => true,
            Self::Grant(error) => error.may_pass(),
            _ => false,
        }
    }
}

/// Asks a server where to sign in.
///
/// # Errors
/// See [`LoginError`].
pub async fn ask(fetcher: &Fetcher, server: &Url) -> Result<Login, LoginError> {
    let url = at(server, Login::PATH);
    let name = || crate::config::origin(server);
    match fetcher.get_json(&url).await {
        Ok(login) => Ok(login),
        Err(FetchError::Status(http::StatusCode::NOT_FOUND)) => Err(LoginError::NoLogin(name())),
        Err(error) => Err(LoginError::Server(name(), error)),
    }
}

/// Asks the server whether it takes the token of an account; the user.
///
/// # Errors
/// See [`LoginError`].
pub async fn check(fetcher: &Fetcher, server: &Url, account: &Account) -> Result<String, LoginError> {
    #[derive(serde::Deserialize)]
    struct Body {
        user: Option<String>,
        error: Option<String>,
    }
    let name = || crate::config::origin(server);
    let answer = fetcher.get_as(&at(server, "/api/tunnel/status"), account.token.secret()).await;
    let answer = answer.map_err(|error| LoginError::Server(name(), error))?;
    let body = serde_json::from_slice(&answer.body).unwrap_or(Body { user: None, error: None });
    if let (http::StatusCode::OK, Some(user)) = (answer.status, body.user) {
        return Ok(user);
    }
    let user = account.token.claims().subject.unwrap_or_else(|| "somebody".to_owned());
    let message = body.error.unwrap_or_else(|| answer.status.to_string());
    Err(LoginError::Refused { user, server: name(), message })
}

/// Gives the tokens of an account back to the provider (RFC 7009), where it takes them; whether it did.
///
/// # Errors
/// See [`LoginError`].
pub async fn revoke(fetcher: &Fetcher, account: &Account) -> Result<bool, LoginError> {
    let endpoints = discover(fetcher, &account.login.issuer).await?;
    let (Some(url), Some(refresh_token)) = (endpoints.revocation_endpoint, &account.refresh_token) else {
        return Ok(false);
    };
    let fields = [
        ("token", refresh_token.as_str()),
        ("token_type_hint", "refresh_token"),
        ("client_id", &account.login.client_id),
    ];
    let answer = fetcher.post_form(&url, &fields).await.map_err(GrantError::Fetch)?;
    Ok(answer.status.is_success())
}

fn at(server: &Url, path: &str) -> Url {
    let mut url = server.clone();
    url.set_path(path);
    url
}
