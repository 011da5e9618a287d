//! Bodies of requests and responses, made for tests: whole, empty, endless, or one piece at a time.
//!
//! The same bodies serve the fake Ollama's answers and the callers' uploads.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use tokio::sync::mpsc;

use crate::{eventually::with_deadline, pattern};

/// Any error of a body.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Any body of a test.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// How the length of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// In `Content-Length`.
    Fixed,
    /// Not in advance: chunked, in HTTP/1.1.
    Unknown,
}

/// The peer of a body has gone: nobody takes the bytes any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// No body.
#[must_use]
pub fn empty() -> Body {
    boxed(Empty::new())
}

/// A whole body of known length.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    boxed(Full::new(bytes.into()))
}

/// `length` bytes of the [`pattern`], made as they are asked for.
#[must_use]
pub fn generated(length: u64, told: Length) -> Body {
    boxed(Generated { at: 0, length, told })
}

/// A body of unknown length whose pieces are handed over one at a time.
#[must_use]
pub fn stepwise() -> (Pieces, Body) {
    let (sender, receiver) = mpsc::channel(1);
    (Pieces(sender), Stepwise(receiver).boxed_unsync())
}

fn boxed(body: impl http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static) -> Body {
    body.map_err(|never| match never {}).boxed_unsync()
}

/// The sending half of a [`stepwise`] body. Dropping it is the body's clean end.
#[derive(Debug)]
pub struct Pieces(mpsc::Sender<Result<Bytes, BodyError>>);

impl Pieces {
    /// Hands over the next piece once the one before has been taken; panics where that takes for ever.
    pub async fn send(&mut self, bytes: impl Into<Bytes>) -> Result<(), Gone> {
        with_deadline("the peer takes a piece of a body", self.0.send(Ok(bytes.into()))).await.map_err(|_| Gone)
    }

    /// Breaks the body off: the connection that carries it ends without the body's end.
    pub async fn fail(self) {
        let _gone = self.0.send(Err("broken off by the test".into())).await;
    }

    /// Waits until the other half has been dropped.
    pub async fn gone(&self) {
        with_deadline("the body is dropped", self.0.closed()).await;
    }
}

struct Stepwise(mpsc::Receiver<Result<Bytes, BodyError>>);

impl http_body::Body for Stepwise {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

struct Generated {
    at: u64,
    length: u64,
    told: Length,
}

impl http_body::Body for Generated {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let left = usize::try_from(self.length - self.at).unwrap_or(usize::MAX);
        if left == 0 {
            return Poll::Ready(None);
        }
        let bytes = pattern::slice(self.at, left);
        self.at += bytes.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.at == self.length
    }

    fn size_hint(&self) -> SizeHint {
        match self.told {
            Length::Fixed => SizeHint::with_exact(self.length - self.at),
            Length::Unknown => SizeHint::new(),
        }
    }
}
