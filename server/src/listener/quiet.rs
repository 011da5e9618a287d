//! Whether a connection is at work, and since when it is not: an HTTP/1 connection must not be closed under a request
//! that is on its way. Its end is announced (`Connection: close`) or comes when nothing has happened for a while.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use tokio::{sync::watch, time::timeout};

/// What one connection has done.
#[derive(Debug, Default)]
pub(super) struct Activity(watch::Sender<Requests>);

#[derive(Debug, Default, Clone, Copy)]
struct Requests {
    begun: bool,
    in_flight: usize,
}

/// One request, until its response has been sent or given up.
#[derive(Debug)]
pub(super) struct Busy(watch::Sender<Requests>);

impl Activity {
    /// A request begins.
    pub(super) fn begin(&self) -> Busy {
        self.0.send_modify(|requests| {
            requests.begun = true;
            requests.in_flight += 1;
        });
        Busy(self.0.clone())
    }

    /// Whether there was ever a request.
    pub(super) fn has_begun(&self) -> bool {
        self.0.borrow().begun
    }

    /// Waits until there has been no request for this long.
    pub(super) async fn quiet(&self, time: Duration) {
        let mut requests = self.0.subscribe();
        loop {
            drop(requests.wait_for(|now| now.in_flight == 0).await);
            if timeout(time, requests.wait_for(|now| now.in_flight > 0)).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|requests| requests.in_flight -= 1);
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
