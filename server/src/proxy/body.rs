//! The body of a response, read from the stream when hyper polls for it: no channel and no task lies between.
//!
//! Owns the end of a stream: complete, or cut with a visible error. A cut is never a clean end.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame as BodyFrame, SizeHint};
use thiserror::Error;
use tokio::time::{Sleep, sleep};
use tokio_util::task::AbortOnDropHandle;
use tunnel_frame::{BodySize, Frame, FrameReader, Watcher};

use super::{aborted, clock::Clock, timed_out};
use crate::{
    error::{
        ErrorCode, Refusal,
        body::{RecordBoundary, StreamFormat},
    },
    id::RequestId,
};

/// hyper drops what it has not yet written when a body fails, the head included. It needs a moment to leave: without
/// one a caller may see no response at all, and ask again.
const FLUSH_WITHIN: Duration = Duration::from_millis(20);

/// The same for a terminal record, which nothing else would say.
const RECORD_WITHIN: Duration = Duration::from_millis(250);

/// Bytes after which a caller that does not read can stop hyper from polling. Until then hyper and the kernel take all.
const WATCH_AFTER: u64 = 32 * 1024;

/// From when on the limits are enforced although nobody polls the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// From the head: an HTTP/2 caller may give no window at all.
    Now,
    /// When more came than hyper and the kernel take unasked.
    WhenLarge,
}

/// What to do when a limit is reached that nobody polls for.
type OnExpiry = Box<dyn FnOnce(Refusal) + Send>;

/// A response body that comes over a tunnel.
pub struct ResponseBody {
    reader: FrameReader,
    clock: Clock,
    /// The request's body may still be under way; dropped with the response.
    upload: Option<AbortOnDropHandle<Result<(), Refusal>>>,
    size: BodySize,
    received: u64,
    /// Enforces the limits while hyper does not poll.
    watchdog: Option<AbortOnDropHandle<()>>,
    on_expiry: Option<OnExpiry>,
    /// Where a terminal error record would be understood.
    records: Option<(RecordBoundary, RequestId)>,
    state: State,
}

enum State {
    /// Chunks are coming.
    Open,
    /// What was handed to hyper may leave; the cut follows.
    Flushing(Pin<Box<Sleep>>, Refusal),
    /// Over.
    Closed(Ending),
}

/// How a body ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It did not: whoever reads it left.
    CallerLeft,
    /// The desktop said that it was complete.
    Complete,
    /// It was cut, and the caller can see it.
    Cut(Refusal),
}

/// The body was cut; hyper aborts the connection (HTTP/1) or the stream (HTTP/2).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the response was cut: {0}")]
pub struct BodyCut(Refusal);

impl ResponseBody {
    pub(super) fn new(
        reader: FrameReader,
        clock: Clock,
        upload: Option<AbortOnDropHandle<Result<(), Refusal>>>,
        size: BodySize,
    ) -> Self {
        Self {
            reader,
            clock,
            upload,
            size,
            received: 0,
            watchdog: None,
            on_expiry: None,
            records: None,
            state: State::Open,
        }
    }

    /// The response is to a HEAD request: whatever length was announced, no body follows.
    pub fn forget_size(&mut self) {
        self.size = BodySize::Empty;
    }

    /// Resets the stream at its limits even if nobody polls this body, and then calls `on_expiry`.
    pub fn watch(&mut self, watch: Watch, on_expiry: impl FnOnce(Refusal) + Send + 'static) {
        self.on_expiry = Some(Box::new(on_expiry));
        if watch == Watch::Now && !self.is_end_stream() {
            self.start_watch();
        }
    }

    fn start_watch(&mut self) {
        if let Some(on_expiry) = self.on_expiry.take() {
            let watch = watch(self.clock.twin(), self.reader.watcher(), on_expiry);
            self.watchdog = Some(AbortOnDropHandle::new(tokio::spawn(watch)));
        }
    }

    /// If this stream is cut, one last record may say why.
    pub fn with_terminal_record(&mut self, format: StreamFormat, request_id: RequestId) {
        if self.size == BodySize::Unknown {
            self.records = Some((RecordBoundary::new(format), request_id));
        }
    }

    /// How the body ended.
    #[must_use]
    pub fn ending(&self) -> Ending {
        match &self.state {
            // hyper does not ask again after the last announced byte.
            State::Open if self.is_end_stream() => Ending::Complete,
            State::Open => Ending::CallerLeft,
            State::Flushing(_, refusal) => Ending::Cut(refusal.clone()),
            State::Closed(ending) => ending.clone(),
        }
    }

    /// The next chunk; `Ready(Ok(None))` at the end of a complete body.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Refusal>> {
        if let Some(upload) = &mut self.upload
            && let Poll::Ready(uploaded) = Pin::new(upload).poll(cx)
        {
            self.upload = None;
            uploaded
                .unwrap_or_else(|_| Err(Refusal::new(ErrorCode::TunnelLost).because("the upload's task failed")))?;
        }
        // First, so that a slow reader who always finds more is held to its deadline too.
        if let Poll::Ready(expired) = self.clock.poll_expired(cx) {
            return Poll::Ready(Err(timed_out(&self.clock, expired)));
        }
        let cut = |detail: String| Refusal::new(ErrorCode::TunnelLost).because(detail);
        match self.reader.poll_frame(cx) {
            Poll::Ready(Ok(Some(Frame::Chunk(bytes)))) => {
                self.clock.note();
                self.received += bytes.len() as u64;
                if self.received > WATCH_AFTER {
                    self.start_watch();
                }
                match self.size {
                    BodySize::Known(size) if self.received > size => Poll::Ready(Err(wrong_length())),
                    BodySize::Empty => Poll::Ready(Err(wrong_length())),
                    _ => Poll::Ready(Ok(Some(bytes))),
                }
            }
            Poll::Ready(Ok(Some(Frame::End))) => match self.size {
                BodySize::Known(size) if self.received != size => Poll::Ready(Err(wrong_length())),
                _ => Poll::Ready(Ok(None)),
            },
            Poll::Ready(Ok(Some(Frame::Abort(abort)))) => Poll::Ready(Err(aborted(&self.clock, abort))),
            // It crossed with the head.
            Poll::Ready(Ok(Some(Frame::Continue))) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(Ok(Some(_))) => Poll::Ready(Err(cut("a frame that has no place in a body".into()))),
            Poll::Ready(Ok(None)) => Poll::Ready(Err(cut("the stream was cut".into()))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(cut(error.to_string()))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Ends the body with a failure. What is returned is a terminal record, where it would be read as one.
    fn fail(&mut self, refusal: Refusal) -> Option<Bytes> {
        // The desktop need not wait for what is only between us and the caller.
        self.reader.watcher().reset();
        self.upload = None;
        let (record, wait) = match &self.records {
            Some((boundary, request_id)) if boundary.is_here() => {
                (Some(boundary.format().terminal_record(&refusal, request_id)), RECORD_WITHIN)
            }
            _ => (None, FLUSH_WITHIN),
        };
        self.state = State::Flushing(Box::pin(sleep(wait)), refusal);
        record
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyCut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<BodyFrame<Bytes>, BodyCut>>> {
        loop {
            match &mut self.state {
                State::Open => match ready!(self.poll_chunk(cx)) {
                    Ok(Some(bytes)) => {
                        if let Some((boundary, _)) = &mut self.records {
                            boundary.observe(&bytes);
                        }
                        return Poll::Ready(Some(Ok(BodyFrame::data(bytes))));
                    }
                    Ok(None) => {
                        self.state = State::Closed(Ending::Complete);
                        return Poll::Ready(None);
                    }
                    Err(refusal) => {
                        if let Some(record) = self.fail(refusal) {
                            return Poll::Ready(Some(Ok(BodyFrame::data(record))));
                        }
                    }
                },
                State::Flushing(wait, refusal) => {
                    ready!(wait.as_mut().poll(cx));
                    let refusal = refusal.clone();
                    self.state = State::Closed(Ending::Cut(refusal.clone()));
                    return Poll::Ready(Some(Err(BodyCut(refusal))));
                }
                State::Closed(_) => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match (&self.state, self.size) {
            (State::Closed(_), _) | (_, BodySize::Empty) => true,
            (_, BodySize::Known(size)) => self.received == size,
            (_, BodySize::Unknown) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.size {
            BodySize::Empty => SizeHint::with_exact(0),
            BodySize::Known(size) => SizeHint::with_exact(size.saturating_sub(self.received)),
            BodySize::Unknown => SizeHint::default(),
        }
    }
}

/// The desktop, and what is counted for the user, must not wait for a caller that does not read.
async fn watch(mut clock: Clock, stream: Watcher, on_expiry: OnExpiry) {
    let expired = clock.expired().await;
    stream.reset();
    on_expiry(timed_out(&clock, expired));
}

fn wrong_length() -> Refusal {
    Refusal::new(ErrorCode::UpstreamError).because("the body is not as long as was announced")
}
