//! The body of a request that is answered without it.
//!
//! To close a connection with bytes unread resets it, and the reset can overtake the answer: the caller would see a
//! broken connection and not the sentence that says why. So what a refused caller is still sending is read for a moment
//! and forgotten (as RFC 9112 §9.6 advises).

use std::time::Duration;

use http::{Version, header, request::Parts};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// How long a refused body is read. Clients that look for an early answer find it within this.
const LINGER: Duration = Duration::from_secs(2);

/// How many bytes of it at most.
const LINGER_BYTES: usize = 64 * 1024 * 1024;

/// A body that nobody has taken yet. Dropped so, it is read and forgotten.
pub(super) struct Unread<'a> {
    body: Option<Incoming>,
    tasks: &'a TaskTracker,
    lingers: bool,
}

impl<'a> Unread<'a> {
    pub(super) fn new(body: Incoming, request: &Parts, tasks: &'a TaskTracker) -> Self {
        // HTTP/2 ends one stream alone; who expects 100 Continue has sent nothing, and to read would be to ask for it.
        let lingers = request.version != Version::HTTP_2 && !request.headers.contains_key(header::EXPECT);
        Self { body: Some(body), tasks, lingers }
    }

    /// The body, to be forwarded.
    pub(super) fn take(mut self) -> Incoming {
        self.body.take().expect("a body is there until it is taken, once")
    }

    /// What is known of its size.
    pub(super) fn size(&self) -> Option<u64> {
        self.body.as_ref().and_then(|body| body.size_hint().exact())
    }
}

impl Drop for Unread<'_> {
    fn drop(&mut self) {
        if let Some(body) = self.body.take()
            && self.lingers
            && !body.is_end_stream()
        {
            self.tasks.spawn(timeout(LINGER, read_and_forget(body)));
        }
    }
}

async fn read_and_forget(mut body: Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, bytes::Bytes::len);
        if read > LINGER_BYTES {
            return;
        }
    }
}
