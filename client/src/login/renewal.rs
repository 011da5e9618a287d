//! A signed-in user's token, renewed before it expires.
//!
//! Every process reads the token from the one file, and whoever renews it writes it there: a running tunnel sees the
//! new token as it would see any other change of a token file, and moves over to it.

use std::time::{Duration, SystemTime};

use tokio::time::sleep;
use tracing::{debug, warn};
use tunnel_oidc::{discovery::discover, fetch::Fetcher};
use url::Url;

use super::{
    LoginError, grant,
    store::{Account, Store},
};
use crate::{backoff::Backoff, token::Token};

/// A clock that jumps, or a machine that has slept, is noticed within this time.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// At least this long after a renewal comes the next one, whatever the provider says.
const PAUSE: Duration = Duration::from_secs(5);

/// Keeps a token fresh.
#[derive(Debug)]
pub struct Renewal {
    store: Store,
    fetcher: Fetcher,
    server: Url,
}

impl Renewal {
    /// For the account in `store`, as long as it is one of `server`.
    #[must_use]
    pub fn new(store: Store, fetcher: Fetcher, server: Url) -> Self {
        Self { store, fetcher, server }
    }

    /// The token at hand, fresh or not.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub fn token(&self) -> Result<Token, LoginError> {
        self.account().map(|account| account.token)
    }

    /// A token that is good for a while, renewed if need be.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub async fn fresh(&self) -> Result<Token, LoginError> {
        let account = self.account()?;
        if !account.is_due(SystemTime::now()) {
            return Ok(account.token);
        }
        match self.renew().await {
            Ok(account) => Ok(account.token),
            // Better than none, while the provider is down.
            Err(error) if error.may_pass() && account.expires().is_some_and(|at| at > SystemTime::now()) => {
                debug!(%error, "not renewed yet");
                Ok(account.token)
            }
            Err(error) => Err(error),
        }
    }

    /// Renews for ever, each time before the token expires.
    pub(crate) async fn run(&self) {
        let mut backoff = Backoff::default();
        let mut told = String::new();
        loop {
            let wait = match self.account() {
                Ok(account) if account.is_due(SystemTime::now()) => match self.renew().await {
                    Ok(account) => {
                        debug!("the token was renewed");
                        (backoff, told) = (Backoff::default(), String::new());
                        until_due(&account).max(PAUSE)
                    }
                    Err(error) => {
                        if error.to_string() != told {
                            told = error.to_string();
                            warn!("the token could not be renewed: {told}");
                        }
                        // What does not pass by itself ends with a `tunnel login`, which is noticed here.
                        if error.may_pass() { backoff.failed() } else { LOOK_EVERY }
                    }
                },
                Ok(account) => until_due(&account),
                Err(_) => LOOK_EVERY,
            };
            sleep(wait.min(LOOK_EVERY)).await;
        }
    }

    fn account(&self) -> Result<Account, LoginError> {
        let account = self.store.load()?;
        if account.server.origin() == self.server.origin() {
            return Ok(account);
        }
        let name = crate::config::origin;
        Err(LoginError::OtherServer(name(&account.server), name(&self.server)))
    }

    /// Renews, unless another process has done so while this one waited for it.
    async fn renew(&self) -> Result<Account, LoginError> {
        let _alone = self.store.lock().await?;
        let account = self.account()?;
        if !account.is_due(SystemTime::now()) {
            return Ok(account);
        }
        let Some(refresh_token) = account.refresh_token.clone() else {
            return Err(LoginError::Over(", and the identity provider gave nothing to renew it with".to_owned()));
        };
        let endpoints = discover(&self.fetcher, &account.login.issuer).await?;
        let endpoint = endpoints
            .token_endpoint
            .ok_or_else(|| LoginError::Unsupported(account.login.issuer.to_string(), "token endpoint"))?;
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.as_str())];
        let granted = grant::request(&self.fetcher, &endpoint, &account.login, &form).await.map_err(|error| {
            if error.may_pass() { LoginError::Grant(error) } else { LoginError::Over(format!(" ({error})")) }
        })?;
        // Whoever has signed in or out meanwhile without the lock, by hand for example, has the last word.
        let now = self.account()?;
        if now.refresh_token != account.refresh_token {
            return Ok(now);
        }
        let account = account.renewed(granted);
        self.store.save(&account)?;
        Ok(account)
    }
}

/// How long until it is time to renew, where that is known.
fn until_due(account: &Account) -> Duration {
    account.renew_at().and_then(|at| at.duration_since(SystemTime::now()).ok()).unwrap_or(LOOK_EVERY)
}
