//! Waiting without guessing: for something to become true, or for an answer that must come.
//!
//! No test sleeps to let something happen. It waits for the thing itself, under one generous limit, and a wait that
//! ends without success names what was waited for.

use std::{
    future::Future,
    time::{Duration, Instant},
};

/// How long anything may take before a test gives up: far more than it needs, also on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Between two looks. Short, because a test waits half of it too long on average.
const INTERVAL: Duration = Duration::from_millis(5);

/// The output of `future`; panics with `what` when it has not come within [`LIMIT`].
pub async fn with_deadline<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(LIMIT, future).await;
    waited.unwrap_or_else(|_elapsed| panic!("still waiting after {LIMIT:?}: {what}"))
}

/// Asks `probe` again and again until it gives `Some`; panics with `what` when it has not within [`LIMIT`].
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(output) = with_deadline(what, probe()).await {
            return output;
        }
        assert!(started.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn comes_true_later() {
        let mut looks = 0;
        let output = eventually("the third look", async || {
            looks += 1;
            (looks == 3).then_some("seen")
        })
        .await;
        assert_eq!((output, looks), ("seen", 3));
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "a thing that never comes")]
    async fn names_what_never_comes() {
        with_deadline("a thing that never comes", std::future::pending::<()>()).await;
    }
}
