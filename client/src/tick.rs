//! One timer for all who want to wait a little: the first starts it, and it wakes them all.
//!
//! A timer each would cost a system call each: tokio wakes its driver for one that is due before all others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};

/// The timer. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Tick {
    length: Duration,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    runs: AtomicBool,
    over: Notify,
}

impl Tick {
    pub(crate) fn new(length: Duration) -> Self {
        Self { length, shared: Arc::default() }
    }

    /// Waits until the tick that is running is over, or a new one: for its length at most.
    pub(crate) async fn wait(&self) {
        let over = self.shared.over.notified();
        if !self.shared.runs.swap(true, Ordering::Relaxed) {
            let Self { length, shared } = self.clone();
            tokio::spawn(async move {
                sleep(length).await;
                shared.runs.store(false, Ordering::Relaxed);
                shared.over.notify_waiters();
            });
        }
        over.await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const LENGTH: Duration = Duration::from_millis(2);

    #[tokio::test(start_paused = true)]
    async fn all_wait_for_the_end_of_the_same_tick_and_the_next_starts_with_the_next_who_waits() {
        let (tick, start) = (Tick::new(LENGTH), Instant::now());
        let late = async {
            sleep(LENGTH / 2).await;
            tick.wait().await;
            start.elapsed()
        };
        let (first, late) = tokio::join!(async { (tick.wait().await, start.elapsed()).1 }, late);
        assert_eq!((first, late), (LENGTH, LENGTH));
        tick.wait().await;
        assert_eq!(start.elapsed(), LENGTH * 2);
    }
}
