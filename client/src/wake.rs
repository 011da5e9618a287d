//! Notices that this machine has slept: the wall clock is then ahead of the monotonic one, which stands still in sleep
//! (on Linux and macOS; on Windows it does not, and the heartbeat alone has to tell).
//!
//! A clock that a person or NTP sets forward looks the same; it costs one ping.

use std::time::{Duration, Instant, SystemTime};

/// The difference that counts as sleep.
const SLEPT: Duration = Duration::from_secs(5);

/// Both clocks at the last look.
#[derive(Debug)]
pub(crate) struct Clocks {
    wall: SystemTime,
    monotonic: Instant,
}

impl Clocks {
    pub(crate) fn now() -> Self {
        Self { wall: SystemTime::now(), monotonic: Instant::now() }
    }

    /// Whether the machine has slept since the last look.
    pub(crate) fn have_slept(&mut self) -> bool {
        let now = Self::now();
        let slept = self.apart(&now) >= SLEPT;
        *self = now;
        slept
    }

    /// How much further the wall clock went than the monotonic one.
    fn apart(&self, later: &Self) -> Duration {
        let wall = later.wall.duration_since(self.wall).unwrap_or_default();
        wall.saturating_sub(later.monotonic.duration_since(self.monotonic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f02_only_a_wall_clock_that_ran_ahead_is_sleep() {
        let start = Clocks::now();
        let later = |wall: i64, monotonic: u64| {
            let ahead = Duration::from_secs(wall.unsigned_abs());
            let wall = if wall < 0 { start.wall - ahead } else { start.wall + ahead };
            start.apart(&Clocks { wall, monotonic: start.monotonic + Duration::from_secs(monotonic) }) >= SLEPT
        };
        assert!(later(3600, 2));
        assert!(later(7, 2));
        assert!(!later(2, 2)); // nothing happened
        assert!(!later(3600, 3600)); // the program was stopped, the machine was not
        assert!(!later(-3600, 2)); // F14: the clock was set back
    }
}
