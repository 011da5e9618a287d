//! Whether a connection is at work, and since when it is not: an HTTP/1 connection must not be closed under a request
//! that is on its way. Its end is announced (`Connection: close`) or comes when nothing has happened for a while.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use tokio::{sync::Notify, task::yield_now, time::timeout};

/// What one connection has done. Clones share it.
#[derive(Debug, Default, Clone)]
pub(super) struct Activity(Arc<Requests>);

#[derive(Debug, Default)]
struct Requests {
    begun: AtomicBool,
    in_flight: AtomicUsize,
    /// One has begun, or the last one is over.
    changed: Notify,
}

/// One request, until its response has been sent or given up.
#[derive(Debug)]
pub(super) struct Busy(Activity);

impl Activity {
    /// A request begins.
    pub(super) fn begin(&self) -> Busy {
        self.0.begun.store(true, Ordering::Relaxed);
        self.0.in_flight.fetch_add(1, Ordering::Relaxed);
        self.0.changed.notify_waiters();
        Busy(self.clone())
    }

    /// Whether there was ever a request.
    pub(super) fn has_begun(&self) -> bool {
        self.0.begun.load(Ordering::Relaxed)
    }

    /// Waits until there has been no request for this long, and what has arrived meanwhile could be read: on a busy
    /// machine it may still lie in the socket.
    pub(super) async fn quiet(&self, time: Duration) {
        loop {
            let changed = self.0.changed.notified();
            if self.0.in_flight.load(Ordering::Relaxed) > 0 {
                changed.await;
            } else if timeout(time, changed).await.is_err() {
                return yield_now().await;
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Activity(requests) = &self.0;
        if requests.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 {
            requests.changed.notify_waiters();
        }
    }
}

/// A response's body; its request is over when it is dropped.
pub(super) struct Counted<B> {
    pub(super) body: B,
    pub(super) _busy: Busy,
}

impl<B: Body + Unpin> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::{Instant, advance};

    use super::*;

    const WHILE: Duration = Duration::from_millis(500);

    #[tokio::test(start_paused = true)]
    async fn quiet_is_counted_from_the_end_of_the_last_request() {
        let activity = Activity::default();
        assert!(!activity.has_begun());
        let first = activity.begin();
        let mut quiet = std::pin::pin!(activity.quiet(WHILE));
        assert!(quiet.as_mut().now_or_never().is_none());
        advance(WHILE * 2).await;
        assert!(quiet.as_mut().now_or_never().is_none());
        drop(first);
        assert!(quiet.as_mut().now_or_never().is_none());
        advance(WHILE / 2).await;
        drop(activity.begin());
        let since = Instant::now();
        quiet.await;
        assert!(activity.has_begun() && since.elapsed() >= WHILE / 2);
    }
}
