//! What is shut down is read on until the peer has closed it too, or for a moment (RFC 9112 §9.6): closed with bytes unread
//! it would be reset, and a peer that writes then, as HTTP/2 does while it reads, never sees the end of its answer.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// How long a peer may take to close: it has to read what is on its way.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// A transport whose shutdown waits for that of the peer.
pub(super) struct Goodbye<T> {
    inner: T,
    /// Runs since this side is shut down.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<T> Goodbye<T> {
    pub(super) fn new(inner: T) -> Self {
        Self { inner, waiting: None }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Goodbye<T> {
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inner, waiting } = &mut *self;
        if waiting.is_none() {
            ready!(Pin::new(&mut *inner).poll_shutdown(cx))?;
        }
        let waiting = waiting.get_or_insert_with(|| Box::pin(sleep(CLOSE_WITHIN)));
        // First, for a peer that sends as fast as it is read.
        if waiting.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut unwanted = [MaybeUninit::uninit(); 1024];
        loop {
            let mut unwanted = ReadBuf::uninit(&mut unwanted);
            let read = ready!(Pin::new(&mut *inner).poll_read(cx, &mut unwanted));
            if read.is_err() || unwanted.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
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

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Goodbye<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::Instant,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_still_writes_is_read_until_it_closes() {
        let ((mut there, here), start) = (duplex(64), Instant::now());
        let closing = tokio::spawn(async move { Goodbye::new(here).shutdown().await });
        assert_eq!(there.read(&mut [0]).await.unwrap(), 0);
        there.write_all(&[0; 4096]).await.unwrap();
        assert!(!closing.is_finished());
        drop(there);
        closing.await.unwrap().unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stays_is_left_after_a_second() {
        let ((_there, here), start) = (duplex(64), Instant::now());
        Goodbye::new(here).shutdown().await.unwrap();
        assert_eq!(start.elapsed(), CLOSE_WITHIN);
    }
}
