//! The body of a request: how much of it came, and what becomes of the rest when the answer does not need it.
//!
//! To close a connection with bytes unread resets it, and the reset can overtake the answer: the caller would see a
//! broken connection and not the sentence that says why. So what is still being sent after an early answer is read for
//! a moment and forgotten (as RFC 9112 §9.6 advises). The same for HTTP/2, whose reset of one stream makes curl throw the
//! answer away.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{header, request::Parts};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prometheus::IntCounter;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::server::App;

/// How long the rest of a body is read. Clients that look for an early answer find it within this.
const LINGER: Duration = Duration::from_secs(2);

/// How many bytes of it at most.
const LINGER_BYTES: usize = 64 * 1024 * 1024;

/// The body of a request. Dropped before its end, the rest is read and forgotten.
pub(crate) struct RequestBody {
    body: Option<Incoming>,
    tasks: TaskTracker,
    /// The caller sends only when it is asked to, which is what the first read does.
    waits: bool,
    /// Bytes that came so far: of this body, and of all.
    received: Option<(Arc<AtomicU64>, IntCounter)>,
}

impl RequestBody {
    pub(super) fn new(body: Incoming, request: &Parts, app: &App) -> Self {
        let waits = request.headers.contains_key(header::EXPECT);
        let received = (!body.is_end_stream()).then(|| (Arc::default(), app.metrics.bytes_up.clone()));
        Self { body: Some(body), tasks: app.tasks.clone(), waits, received }
    }

    /// Counts the bytes that come; `None` if there is no body.
    pub(super) fn received(&self) -> Option<Arc<AtomicU64>> {
        self.received.as_ref().map(|(bytes, _)| Arc::clone(bytes))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.waits = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if let (Some(Ok(frame)), Some((bytes, all))) = (&frame, &self.received) {
            let length = frame.data_ref().map_or(0, Bytes::len) as u64;
            bytes.fetch_add(length, Ordering::Relaxed);
            all.inc_by(length);
        }
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if self.is_end_stream() || self.waits {
            return;
        }
        if let Some(body) = self.body.take() {
            self.tasks.spawn(timeout(LINGER, read_and_forget(body)));
        }
    }
}

async fn read_and_forget(mut body: Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > LINGER_BYTES {
            return;
        }
    }
}
