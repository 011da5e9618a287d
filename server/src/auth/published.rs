//! Where requests meet the task that fetches an identity provider's keys.
//!
//! A token of a key that is not known is a reason to fetch, because the provider may have a new one; it must not be a
//! means to make the server fetch without end. Owns what such a token waits for. When to fetch is the task's business
//! (`crate::provider`), and no request runs it.

use std::time::Duration;

use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};

use super::AuthError;

/// How long a request waits for keys. A new key is to be accepted within 5 s (T14).
const WAIT: Duration = Duration::from_secs(4);

/// How far the keys at hand can be relied upon to be all that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// They are being fetched: wait.
    Coming,
    /// They were fetched a while ago: what is missing is a reason to fetch.
    Aged,
    /// They were fetched just now, because one was missing: what is missing now does not exist. This answers a flood of
    /// invented labels without asking the provider (T15).
    Fresh,
    /// The provider did not give any: nobody knows whether what is missing exists (T16).
    Unavailable,
}

/// The meeting point.
#[derive(Debug)]
pub(super) struct Published {
    freshness: watch::Sender<Freshness>,
    missing: Notify,
}

impl Published {
    /// Before the first fetch.
    pub(super) fn new() -> Self {
        Self { freshness: watch::Sender::new(Freshness::Coming), missing: Notify::new() }
    }

    pub(super) fn are(&self, freshness: Freshness) {
        self.freshness.send_replace(freshness);
    }

    /// Resolves when a key is missing, now or since the last time.
    pub(super) async fn one_missing(&self) {
        self.missing.notified().await;
    }

    /// Judges by `verify`, again after keys have come, until its verdict does not depend on a key that is missing.
    pub(super) async fn judge<T>(&self, verify: impl Fn() -> Result<T, AuthError>) -> Result<T, AuthError> {
        let until = Instant::now() + WAIT;
        let mut freshness = self.freshness.subscribe();
        let mut waited = false;
        loop {
            // Looked at first: the keys are at least as fresh as this says.
            let now = *freshness.borrow_and_update();
            match verify() {
                Err(AuthError::KeyUnknown) => {}
                verdict => return verdict,
            }
            match now {
                Freshness::Unavailable => return Err(AuthError::KeysUnavailable),
                Freshness::Fresh => {
                    // Looked for when it is time, so that a flood does not hide a new key for longer.
                    if !waited {
                        self.missing.notify_one();
                    }
                    return Err(AuthError::KeyUnknown);
                }
                Freshness::Aged => self.missing.notify_one(),
                Freshness::Coming => {}
            }
            waited = true;
            if !matches!(timeout_at(until, freshness.changed()).await, Ok(Ok(()))) {
                return Err(AuthError::KeysUnavailable);
            }
        }
    }
}
