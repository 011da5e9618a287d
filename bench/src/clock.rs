//! One clock for the writer and the reader of a token.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since the bench started.
pub(crate) fn now() -> u64 {
    u64::try_from(START.elapsed().as_nanos()).expect("less than 584 years")
}

/// How long ago `then` was.
pub(crate) fn since(then: u64) -> Duration {
    Duration::from_nanos(now().saturating_sub(then))
}
