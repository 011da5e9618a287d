//! When a fault is over: everything that it touched is connected again.

use std::{
    io,
    sync::PoisonError,
    time::{Duration, Instant},
};

use tokio::time::sleep;
use tunnel::backoff;

use super::{DESKTOP, Injector};
use crate::{ticket::User, watch};

/// The longest wait for a tunnel after a fault: a client that was lost again and again waits before it dials, and then
/// it dials.
const BACK_WITHIN: Duration = backoff::LONGEST.saturating_add(Duration::from_secs(10));

/// Between two looks.
const LOOK: Duration = Duration::from_millis(25);

impl Injector {
    /// How often a user's client has been online.
    pub(super) async fn online(&self, user: User) -> io::Result<usize> {
        match &*self.stage.desk(user).client.lock().await {
            Some(client) => Ok(std::fs::read_to_string(client.log())?.matches(" online ").count()),
            None => Ok(0),
        }
    }

    /// Waits until both desktops have come to a new server.
    pub(super) async fn await_server(&self, entry: usize) -> io::Result<()> {
        let since = Instant::now();
        for user in User::ALL {
            self.await_connected(entry, user, since).await;
        }
        self.over(entry)
    }

    /// Waits until a client has been online once more, and is.
    pub(super) async fn await_client(&self, entry: usize, user: User, before: usize, since: Instant) -> io::Result<()> {
        while self.online(user).await? <= before && since.elapsed() < BACK_WITHIN {
            sleep(LOOK).await;
        }
        self.await_connected(entry, user, since).await;
        Ok(())
    }

    pub(super) async fn await_connected(&self, entry: usize, user: User, since: Instant) {
        loop {
            let status = watch::status(&self.callers, user).await;
            if status.is_some_and(|status| status.desktops.iter().any(|name| name == DESKTOP)) {
                break;
            }
            if since.elapsed() > BACK_WITHIN {
                if !self.callers.timeline.overlaps(entry, user) {
                    self.stage.complain(format!("{} is not back after {BACK_WITHIN:?}", user.name()));
                }
                return;
            }
            sleep(LOOK).await;
        }
        if !self.callers.timeline.overlaps(entry, user) {
            self.recoveries.lock().unwrap_or_else(PoisonError::into_inner).push(since.elapsed());
        }
    }
}
