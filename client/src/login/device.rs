//! Signing in on a machine that may have no browser (RFC 8628): it shows a code, the user enters it elsewhere, and it
//! asks now and then whether that has happened.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::debug;
use tunnel_oidc::{
    Login,
    discovery::discover,
    fetch::{Fetcher, check},
};
use url::Url;

use super::{
    GrantError, LoginError,
    grant::{self, tame},
    store::Account,
};

/// Between two questions, where the provider says nothing (RFC 8628 §3.2), and after each `slow_down` (§3.5).
const INTERVAL: Duration = Duration::from_secs(5);

/// The longest pause, and the longest time for the user to act, whatever the provider says.
const MAX_INTERVAL: Duration = Duration::from_secs(60);
const MAX_LIFE: Duration = Duration::from_secs(60 * 60);

/// A sign-in that waits for the user.
#[derive(Debug)]
pub struct Pending {
    fetcher: Fetcher,
    login: Login,
    token_endpoint: Url,
    device_code: String,
    interval: Duration,
    until: Instant,
    /// What the user enters.
    pub user_code: String,
    /// Where.
    pub page: Url,
    /// The same with the code in it.
    pub page_with_code: Option<Url>,
}

/// The answer that begins it (RFC 8628 §3.2).
#[derive(Deserialize)]
struct Begun {
    device_code: String,
    user_code: String,
    #[serde(alias = "verification_url")] // as Google has it
    verification_uri: Url,
    verification_uri_complete: Option<Url>,
    expires_in: u64,
    interval: Option<u64>,
}

/// Begins to sign in.
///
/// # Errors
/// See [`LoginError`].
pub async fn begin(fetcher: Fetcher, login: Login) -> Result<Pending, LoginError> {
    let endpoints = discover(&fetcher, &login.issuer).await?;
    let lacks = |what| LoginError::Unsupported(login.issuer.to_string(), what);
    let token_endpoint = endpoints.token_endpoint.ok_or_else(|| lacks("token endpoint"))?;
    let endpoint =
        endpoints.device_authorization_endpoint.ok_or_else(|| lacks("way to sign in from a device (RFC 8628)"))?;
    let fields = [login.fields(), vec![("scope", login.scope.as_str())]].concat();
    let answer = fetcher.post_form(&endpoint, &fields).await.map_err(GrantError::Fetch)?;
    if !answer.status.is_success() {
        return Err(grant::refusal(&answer).into());
    }
    let begun: Begun = serde_json::from_slice(&answer.body).map_err(|_| GrantError::Strange(answer.status))?;
    // People are about to open these.
    for page in [Some(&begun.verification_uri), begun.verification_uri_complete.as_ref()].into_iter().flatten() {
        check(page).map_err(GrantError::Fetch)?;
    }
    Ok(Pending {
        interval: begun.interval.map_or(INTERVAL, Duration::from_secs).clamp(Duration::from_secs(1), MAX_INTERVAL),
        until: Instant::now() + Duration::from_secs(begun.expires_in).min(MAX_LIFE),
        device_code: begun.device_code,
        user_code: tame(&begun.user_code),
        page: begun.verification_uri,
        page_with_code: begun.verification_uri_complete,
        fetcher,
        login,
        token_endpoint,
    })
}

impl Pending {
    /// Waits until the user has signed in, has refused to, or has let the code expire. `server` and `ca` are kept with
    /// the tokens.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn wait(mut self, server: Url, ca: Option<PathBuf>) -> Result<Account, LoginError> {
        loop {
            tokio::select! {
                () = sleep(self.interval) => {}
                () = sleep_until(self.until) => return Err(expired().into()),
            }
            let form = [
                ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
                ("device_code", self.device_code.as_str()),
            ];
            match grant::request(&self.fetcher, &self.token_endpoint, &self.login, &form).await {
                Ok(granted) => return Ok(Account::new(server, ca, self.login, granted)),
                Err(GrantError::Refused { code, .. }) if code == "authorization_pending" => {}
                Err(GrantError::Refused { code, .. }) if code == "slow_down" => {
                    self.slow_down(self.interval + INTERVAL);
                }
                Err(GrantError::Refused { code, .. }) if code == "expired_token" => return Err(expired().into()),
                Err(error) if error.may_pass() => {
                    debug!(%error, "not answered");
                    self.slow_down(self.interval * 2);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn slow_down(&mut self, interval: Duration) {
        self.interval = interval.min(MAX_INTERVAL);
    }
}

fn expired() -> GrantError {
    let description = Some("the code was not entered in time; run `tunnel login` again".to_owned());
    GrantError::Refused { code: "expired_token".to_owned(), description }
}
