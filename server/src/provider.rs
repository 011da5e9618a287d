//! Follows the keys that an identity provider publishes.
//!
//! One task that owns when they are fetched: at the start, every ten minutes, when a token names a key that is not at hand
//! (but not for each of a flood of such tokens), and again and again while the provider does not answer. Known keys stay
//! meanwhile, for a day. Which keys are taken is decided in `auth`, which address may be asked in `tunnel-oidc`.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};
use tunnel_certs::client::ClientTlsError;
use tunnel_oidc::{discovery::discover, fetch::Fetcher};

use crate::{
    auth::{Authenticator, Freshness, KeySet, KeySource},
    server::App,
};

#[cfg(test)]
mod tests;

/// How soon a key that the provider has withdrawn is refused. Most providers announce new ones for longer.
const REFRESH_EVERY: Duration = Duration::from_secs(10 * 60);

/// Between two fetches for keys that were missing (T15).
const MISSING_AT_MOST_EVERY: Duration = Duration::from_secs(30);

/// After the first failure, and after many.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_AFTER_AT_MOST: Duration = Duration::from_secs(20);

/// How long keys are trusted that the provider does not confirm (T16): a working day to repair it.
const TRUST_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// The task, not yet running.
pub(crate) struct Provider {
    app: Arc<App>,
    fetcher: Fetcher,
    keys: KeySource,
}

/// Why keys are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It is time.
    Due,
    /// A token named one that is not at hand.
    Missing,
}

impl Provider {
    pub(crate) fn new(app: Arc<App>, keys: KeySource) -> Result<Self, ClientTlsError> {
        Ok(Self { app, fetcher: Fetcher::new(tunnel_certs::client::config(None)?), keys })
    }

    /// Fetches for ever.
    pub(crate) async fn run(self) {
        follow(&self.app.authenticator, || fetch(&self.fetcher, &self.keys)).await;
    }
}

/// Asks the provider once, for an operator who wants to know; how many keys of it can verify tokens.
///
/// # Errors
/// One line that says what is wrong.
pub async fn look(keys: &KeySource) -> Result<usize, String> {
    let tls = tunnel_certs::client::config(None).map_err(|error| error.to_string())?;
    fetch(&Fetcher::new(tls), keys).await.map(|keys| keys.len())
}

/// The keys as they are published now. The error is one line.
async fn fetch(fetcher: &Fetcher, keys: &KeySource) -> Result<KeySet, String> {
    let url = match keys {
        KeySource::Jwks(url) => url.clone(),
        KeySource::Issuer(issuer) => discover(fetcher, issuer).await.map_err(|error| error.to_string())?.jwks_uri,
    };
    let document = fetcher.get(&url).await.map_err(|error| format!("{url} {error}"))?;
    KeySet::parse(&document).map_err(|error| format!("{url} {error}"))
}

/// Keeps the authenticator's keys as `fetch` gives them.
async fn follow<F>(authenticator: &Authenticator, fetch: impl Fn() -> F)
where
    F: Future<Output = Result<KeySet, String>>,
{
    let mut why = Why::Due;
    let mut confirmed = None;
    loop {
        authenticator.published_are(Freshness::Coming);
        let keys = fetch_until_it_succeeds(authenticator, &fetch, confirmed).await;
        confirmed = Some(Instant::now());
        let count = keys.len();
        if authenticator.replace_published(keys) {
            info!(keys = count, "took over the keys of the identity provider");
        }
        if why == Why::Missing {
            authenticator.published_are(Freshness::Fresh);
            sleep(MISSING_AT_MOST_EVERY).await;
        }
        authenticator.published_are(Freshness::Aged);
        why = tokio::select! {
            () = authenticator.published_key_missing() => Why::Missing,
            () = sleep(REFRESH_EVERY) => Why::Due,
        };
    }
}

async fn fetch_until_it_succeeds<F>(
    authenticator: &Authenticator,
    fetch: &impl Fn() -> F,
    confirmed: Option<Instant>,
) -> KeySet
where
    F: Future<Output = Result<KeySet, String>>,
{
    let mut wait = RETRY_AFTER;
    let mut told = String::new();
    loop {
        let error = match fetch().await {
            Ok(keys) => return keys,
            Err(error) => error,
        };
        authenticator.published_are(Freshness::Unavailable);
        // Once for each reason: an hour of failure is not a hundred lines.
        if error == told {
            debug!(error, "still no keys from the identity provider");
        } else {
            let meanwhile = if confirmed.is_some() { "those at hand stay" } else { "its tokens get 503" };
            warn!(error, meanwhile, "no keys from the identity provider; asking again");
            told = error;
        }
        if confirmed.is_some_and(|at| at.elapsed() > TRUST_FOR) && authenticator.replace_published(KeySet::default()) {
            warn!("the identity provider has not confirmed its keys for a day: they are good no more");
        }
        // Up to half as long again, so that several servers do not ask in step.
        sleep(wait.mul_f64(1.0 + fastrand::f64() / 2.0)).await;
        wait = (wait * 2).min(RETRY_AFTER_AT_MOST);
    }
}
