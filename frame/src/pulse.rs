//! Notices bytes that arrive, below TLS record or WebSocket message boundaries: any byte is life.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A transport that remembers whether anything was read since it was last asked.
#[derive(Debug)]
pub struct Pulse<T> {
    inner: T,
    heard: bool,
}

impl<T> Pulse<T> {
    /// Listens to `inner`.
    pub fn new(inner: T) -> Self {
        Self { inner, heard: false }
    }

    /// Whether bytes were read since the last call.
    pub(crate) fn take(&mut self) -> bool {
        std::mem::take(&mut self.heard)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Pulse<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.heard |= buf.filled().len() > before;
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Pulse<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
