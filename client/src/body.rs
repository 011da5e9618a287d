//! The body of a request on its way from the tunnel to the upstream: read when hyper asks for it, never ahead.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame as BodyFrame, SizeHint};
use thiserror::Error;
use tokio::sync::oneshot;
use tunnel_frame::{BodySize, Frame, FrameError, FrameReader};

/// The body of one request.
pub(crate) struct RequestBody {
    source: Option<Source>,
    size: BodySize,
}

struct Source {
    reader: FrameReader,
    /// Told when the upstream takes the first bytes.
    begun: Option<oneshot::Sender<()>>,
    /// Gets the reader back when the body is complete.
    finished: oneshot::Sender<FrameReader>,
}

/// What the task of the stream learns about the body that it gave away.
pub(crate) struct BodyProgress {
    /// The upstream takes the body.
    pub(crate) begun: oneshot::Receiver<()>,
    /// The body is complete, and here is the reader; an error: the body was dropped unfinished.
    pub(crate) finished: oneshot::Receiver<FrameReader>,
}

/// Why a body broke off.
#[derive(Debug, Error)]
pub(crate) enum BodyError {
    #[error("the caller left before the body was complete")]
    Cut,
    #[error("the server sent a frame that is not part of a body")]
    Unexpected,
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl RequestBody {
    /// No body at all.
    pub(crate) fn empty() -> Self {
        Self { source: None, size: BodySize::Empty }
    }

    /// A body that is read from the stream.
    pub(crate) fn from_stream(reader: FrameReader, size: BodySize) -> (Self, BodyProgress) {
        let (begun, has_begun) = oneshot::channel();
        let (finished, has_finished) = oneshot::channel();
        let source = Source { reader, begun: Some(begun), finished };
        (Self { source: Some(source), size }, BodyProgress { begun: has_begun, finished: has_finished })
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<BodyFrame<Bytes>, BodyError>>> {
        let Some(source) = &mut self.source else { return Poll::Ready(None) };
        if let Some(begun) = source.begun.take() {
            _ = begun.send(());
        }
        match ready!(source.reader.poll_frame(cx)) {
            Ok(Some(Frame::Chunk(bytes))) => Poll::Ready(Some(Ok(BodyFrame::data(bytes)))),
            Ok(Some(Frame::End)) => {
                if let Some(Source { reader, finished, .. }) = self.source.take() {
                    _ = finished.send(reader);
                }
                Poll::Ready(None)
            }
            Ok(Some(_)) => Poll::Ready(Some(Err(BodyError::Unexpected))),
            Ok(None) => Poll::Ready(Some(Err(BodyError::Cut))),
            Err(error) => Poll::Ready(Some(Err(error.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.size {
            BodySize::Empty => SizeHint::with_exact(0),
            BodySize::Known(len) if self.source.is_some() => SizeHint::with_exact(len),
            BodySize::Known(_) | BodySize::Unknown => SizeHint::default(),
        }
    }
}
