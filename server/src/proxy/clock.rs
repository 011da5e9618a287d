//! Time limits of one stream: the deadline, the stall timeout, and the time the desktop has to accept it.
//!
//! One timer for all three. Bytes that move only leave a note; the timer looks at it when it fires.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::Bounds;
use crate::error::More;

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    /// The whole stream took too long.
    Deadline,
    /// No byte moved for too long.
    Stall,
    /// The desktop did not accept the stream: it is not there any more.
    NotAccepted,
}

/// The limits of a stream that runs.
pub(super) struct Clock {
    start: Instant,
    deadline: Instant,
    stall: Duration,
    more: More,
    accept_by: Option<Instant>,
    moved: Moved,
    timer: Pin<Box<Sleep>>,
}

/// Notes that bytes moved. Clones share the note.
#[derive(Clone)]
pub(super) struct Moved {
    start: Instant,
    /// Milliseconds since `start`.
    last: Arc<AtomicU64>,
}

impl Moved {
    pub(super) fn note(&self) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(elapsed, Ordering::Relaxed);
    }
}

impl Clock {
    /// Starts now. `deadline` is counted from the request's arrival, so it may be nearer than its full length.
    pub(super) fn start(bounds: Bounds, accept_within: Duration) -> Self {
        let Bounds { deadline, stall, more } = bounds;
        let start = Instant::now();
        let accept_by = start + accept_within;
        let first = deadline.min(accept_by).min(start + stall);
        Self {
            start,
            deadline,
            stall,
            more,
            accept_by: Some(accept_by),
            moved: Moved { start, last: Arc::default() },
            timer: Box::pin(sleep_until(first)),
        }
    }

    /// A handle for whoever moves bytes.
    pub(super) fn moved(&self) -> Moved {
        self.moved.clone()
    }

    /// Notes that bytes moved.
    pub(super) fn note(&self) {
        self.moved.note();
    }

    /// The desktop has accepted the stream.
    pub(super) fn accepted(&mut self) {
        self.accept_by = None;
        self.note();
    }

    /// A second timer on the same limits, for someone who watches from outside.
    pub(super) fn twin(&self) -> Self {
        let timer = Box::pin(sleep_until(self.timer.deadline()));
        Self { moved: self.moved.clone(), timer, ..*self }
    }

    /// Who could have set a later deadline.
    pub(super) fn more(&self) -> More {
        self.more
    }

    /// What is left until the deadline.
    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Ready when a limit is reached.
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<Expired> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            let moved = self.start + Duration::from_millis(self.moved.last.load(Ordering::Relaxed));
            let stalled = moved + self.stall;
            if now >= self.deadline {
                return Poll::Ready(Expired::Deadline);
            }
            if self.accept_by.is_some_and(|by| now >= by) {
                return Poll::Ready(Expired::NotAccepted);
            }
            if now >= stalled {
                return Poll::Ready(Expired::Stall);
            }
            let next = self.deadline.min(stalled).min(self.accept_by.unwrap_or(self.deadline));
            self.timer.as_mut().reset(next);
        }
    }

    /// See [`Self::poll_expired`]. Cancel safe.
    pub(super) async fn expired(&mut self) -> Expired {
        std::future::poll_fn(|cx| self.poll_expired(cx)).await
    }
}
