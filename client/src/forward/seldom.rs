//! How often a warning is said: a program that is refused and asks again at once must not fill the log.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::StatusCode;
use tokio::time::Instant;

/// A warning of one kind is not said again for so long.
const EVERY: Duration = Duration::from_secs(10);

/// What a warning is about. There are few: a status is three digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// No program can connect.
    Accept,
    /// The server said no, with this status.
    Refused(StatusCode),
    /// We did, with this code.
    Failed(&'static str),
}

/// When each kind was said, and how many were left out since.
#[derive(Debug, Default)]
pub(super) struct Seldom(Mutex<HashMap<Kind, (Instant, u64)>>);

impl Seldom {
    /// Calls `say` unless this kind was said just now; with how many were left out since then, if any.
    pub(super) fn warn(&self, kind: Kind, say: impl FnOnce(Option<u64>)) {
        let now = Instant::now();
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((said, left_out)) = kinds.get_mut(&kind)
            && now - *said < EVERY
        {
            *left_out += 1;
            return;
        }
        let before = kinds.insert(kind, (now, 0));
        drop(kinds);
        say(before.map(|(_, left_out)| left_out).filter(|left_out| *left_out > 0));
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_kind_is_said_once_in_ten_seconds_with_what_was_left_out() {
        let seldom = Seldom::default();
        let mut said = Vec::new();
        let mut warn = |kind| seldom.warn(kind, |left_out| said.push((kind, left_out)));
        let (offline, lost) = (Kind::Refused(StatusCode::SERVICE_UNAVAILABLE), Kind::Failed("server_lost"));
        for _ in 0..100 {
            warn(offline);
            advance(Duration::from_millis(99)).await;
        }
        warn(lost);
        advance(Duration::from_millis(100)).await;
        for kind in [offline, offline, lost] {
            warn(kind);
        }
        advance(EVERY).await;
        warn(lost);
        warn(Kind::Accept);
        let expected = [(offline, None), (lost, None), (offline, Some(99)), (lost, Some(1)), (Kind::Accept, None)];
        assert_eq!(said, expected);
    }
}
