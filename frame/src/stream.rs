//! One yamux stream as two halves that read and write [`Frame`]s.
//!
//! yamux's window is the only queue: bytes are read when the reader is polled, and a writer waits for credit. Dropping
//! both halves resets the stream; it is never half-closed.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream as _, io::AsyncWrite};
use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    codec::{self, Decoder, Frame, FrameError},
    limits,
};

/// A stream of a session, before it is split.
#[derive(Debug)]
pub struct Stream {
    yamux: yamux::Stream,
    /// One of the session's [`limits::STREAMS_OPEN`], given back when both halves are gone.
    permit: OwnedSemaphorePermit,
}

/// The other side reset the stream, or the tunnel is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the stream was cut")]
pub struct Cut;

/// Why a frame could not be sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SendError {
    /// Nobody reads it any more.
    #[error(transparent)]
    Cut(#[from] Cut),
    /// It is larger than a peer would accept.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl Stream {
    pub(crate) fn new(yamux: yamux::Stream, permit: OwnedSemaphorePermit) -> Self {
        Self { yamux, permit }
    }

    /// Splits the stream. It is reset when the last half is dropped.
    #[must_use]
    pub fn split(self) -> (FrameReader, FrameWriter) {
        let open = Open { yamux: self.yamux, _permit: self.permit };
        let shared = Arc::new(Shared { open: Mutex::new(Some(open)) });
        let reader = FrameReader { shared: Arc::clone(&shared), decoder: Decoder::default(), packet: Bytes::new() };
        (reader, FrameWriter { shared, out: BytesMut::new() })
    }
}

/// What the halves share. `None` once the stream was reset from here.
#[derive(Debug)]
struct Shared {
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    yamux: yamux::Stream,
    _permit: OwnedSemaphorePermit,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().expect("no panic while a stream is locked")
    }
}

/// The half that reads.
#[derive(Debug)]
pub struct FrameReader {
    shared: Arc<Shared>,
    decoder: Decoder,
    packet: Bytes,
}

impl FrameReader {
    /// The next frame; `None` when the stream was cut or the tunnel is gone. What arrived before a cut is read first.
    ///
    /// # Errors
    /// The peer broke the framing; the stream must be dropped.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, FrameError>> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.packet)? {
                return Poll::Ready(Ok(Some(frame)));
            }
            let next = match &mut *self.shared.lock() {
                Some(open) => ready!(Pin::new(&mut open.yamux).poll_next(cx)),
                None => None,
            };
            match next {
                Some(Ok(packet)) => self.packet = Bytes::from_owner(packet),
                Some(Err(_)) | None => return Poll::Ready(Ok(None)),
            }
        }
    }

    /// See [`Self::poll_frame`]. Cancel safe.
    ///
    /// # Errors
    /// See [`Self::poll_frame`].
    pub async fn frame(&mut self) -> Result<Option<Frame>, FrameError> {
        poll_fn(|cx| self.poll_frame(cx)).await
    }

    /// A way to look at the stream, or to end it, while someone else has the halves.
    #[must_use]
    pub fn watcher(&self) -> Watcher {
        Watcher(Arc::clone(&self.shared))
    }
}

/// Looks at a stream from outside. It counts as a half: the stream is reset only when it is gone too.
#[derive(Debug)]
pub struct Watcher(Arc<Shared>);

impl Watcher {
    /// Whether the stream was reset by the other side, or the tunnel is gone. Unlike reading, this looks past bytes
    /// that nobody has taken yet.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.0.lock().as_ref().is_none_or(|open| open.yamux.is_closed())
    }

    /// Resets the stream now, whoever holds its halves and whether or not they are polled.
    pub fn reset(&self) {
        drop(self.0.lock().take());
    }
}

/// The half that writes.
#[derive(Debug)]
pub struct FrameWriter {
    shared: Arc<Shared>,
    /// Encoded and not yet taken by yamux: at most [`limits::CHUNK_SENT`], or one head.
    out: BytesMut,
}

impl FrameWriter {
    /// Encodes a frame behind those already queued, so that small ones leave together.
    ///
    /// # Errors
    /// The frame is larger than a peer would accept; nothing was queued.
    pub fn queue(&mut self, frame: &Frame) -> Result<(), FrameError> {
        let before = self.out.len();
        codec::encode(frame, &mut self.out).inspect_err(|_| self.out.truncate(before))
    }

    /// Bytes that are queued.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.out.len()
    }

    /// Hands what is queued to yamux; pending while the peer gives no credit.
    ///
    /// # Errors
    /// Nobody reads it any more.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        while !self.out.is_empty() {
            let n = match &mut *self.shared.lock() {
                Some(open) => ready!(Pin::new(&mut open.yamux).poll_write(cx, &self.out)).map_err(|_| Cut)?,
                None => return Poll::Ready(Err(Cut)),
            };
            self.out.advance(n);
        }
        Poll::Ready(Ok(()))
    }

    /// See [`Self::poll_flush`]. Cancel safe: what is not yet taken stays queued.
    ///
    /// # Errors
    /// See [`Self::poll_flush`].
    pub async fn flush(&mut self) -> Result<(), Cut> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Sends one frame, and what was queued before it.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(&mut self, frame: &Frame) -> Result<(), SendError> {
        self.queue(frame)?;
        Ok(self.flush().await?)
    }

    /// Sends bytes of a body in chunks of at most [`limits::CHUNK_SENT`]. Empty bytes send nothing.
    ///
    /// # Errors
    /// Nobody reads them any more.
    pub async fn send_bytes(&mut self, mut bytes: Bytes) -> Result<(), Cut> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(limits::CHUNK_SENT - codec::HEADER));
            self.queue(&Frame::Chunk(piece)).expect("a chunk of this size is always accepted");
            self.flush().await?;
        }
        Ok(())
    }
}
