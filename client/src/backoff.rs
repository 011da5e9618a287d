//! How long to wait before connecting again: exponential with full jitter, so that a thousand desktops that lost the
//! same server do not come back at the same moment.

use std::time::Duration;

/// Upper bound of the first wait.
pub const FIRST: Duration = Duration::from_millis(500);

/// Upper bound of every wait.
pub const LONGEST: Duration = Duration::from_secs(30);

/// A connection that lasted this long was a good one: the next wait is short again.
pub const STABLE: Duration = Duration::from_secs(60);

/// The waits of one client.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
    rng: fastrand::Rng,
}

impl Backoff {
    /// Starts with short waits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The wait after a failure: anything between nothing and a bound that doubles each time, in whole milliseconds.
    pub fn failed(&mut self) -> Duration {
        let bound = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        Duration::from_millis(self.rng.u64(0..=u64::try_from(bound.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Tells how long a connection lasted, before asking for the wait after it.
    pub fn lasted(&mut self, duration: Duration) {
        if duration >= STABLE {
            self.failures = 0;
        }
    }

    /// Failures since the last good connection.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seeded(seed: u64) -> Backoff {
        Backoff { failures: 0, rng: fastrand::Rng::with_seed(seed) }
    }

    proptest! {
        #[test]
        fn waits_stay_within_bounds(seed: u64, lasted in prop::collection::vec(0u64..120, 0..80)) {
            let mut backoff = seeded(seed);
            let mut bound = FIRST;
            for seconds in lasted {
                backoff.lasted(Duration::from_secs(seconds));
                if seconds >= STABLE.as_secs() {
                    bound = FIRST;
                }
                prop_assert!(backoff.failed() <= bound);
                bound = (bound * 2).min(LONGEST);
            }
        }
    }

    #[test]
    fn waits_use_their_whole_range() {
        let mut backoff = seeded(7);
        let waits: Vec<_> = (0..1000).map(|_| backoff.failed()).skip(10).collect();
        assert!(waits.iter().any(|wait| *wait < LONGEST / 10));
        assert!(waits.iter().any(|wait| *wait > LONGEST * 9 / 10));
    }

    #[test]
    fn failures_without_end_are_fine() {
        let mut backoff = Backoff { failures: u32::MAX, rng: fastrand::Rng::with_seed(1) };
        assert!(backoff.failed() <= LONGEST);
        assert_eq!(backoff.failures(), u32::MAX);
    }
}
