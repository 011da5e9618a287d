//! Patience with a peer that has still to read, and its end.
//!
//! A connection on which a write makes no progress for too long is broken: hyper waits for ever, and asks nothing of a body
//! meanwhile; no other timer would notice. One that is shut down is read on until the peer has closed it too, or for a
//! moment (RFC 9112 §9.6): closed with bytes unread it would be reset, and a peer that writes then, as HTTP/2 does while it
//! reads, never sees the end of its answer.

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

/// How long a peer may take to close after us: it has to read what is on its way.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// A transport whose writes fail when they make no progress, and whose shutdown waits for that of the peer.
pub(crate) struct Patient<T> {
    inner: T,
    patience: Duration,
    /// Runs while a write is pending.
    waiting: Option<Pin<Box<Sleep>>>,
    /// Runs since this side is shut down.
    closing: Option<Pin<Box<Sleep>>>,
}

impl<T> Patient<T> {
    pub(crate) fn new(inner: T, patience: Duration) -> Self {
        Self { inner, patience, waiting: None, closing: None }
    }

    /// Looks at the clock while a write is pending, and stops it when one is done.
    fn bounded<R>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
        waiting.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Patient<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Patient<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.bounded(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.bounded(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.bounded(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
            ready!(self.bounded(cx, shut))?;
        }
        let Self { inner, closing, .. } = &mut *self;
        let closing = closing.get_or_insert_with(|| Box::pin(sleep(CLOSE_WITHIN)));
        // First, for a peer that sends as fast as it is read.
        if closing.as_mut().poll(cx).is_ready() {
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
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::Instant,
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn t43_a_peer_that_never_reads_is_given_up() {
        let (here, _there) = duplex(64);
        let start = Instant::now();
        let error = Patient::new(here, PATIENCE).write_all(&[0; 100]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_peer_is_not() {
        let (here, mut there) = duplex(64);
        let mut here = Patient::new(here, PATIENCE);
        let write = tokio::spawn(async move { here.write_all(&[0; 640]).await });
        for _ in 0..10 {
            sleep(PATIENCE.mul_f32(0.9)).await;
            there.read_exact(&mut [0; 64]).await.unwrap();
        }
        write.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_still_writes_is_read_until_it_closes() {
        let ((mut there, here), start) = (duplex(64), Instant::now());
        let closing = tokio::spawn(async move { Patient::new(here, PATIENCE).shutdown().await });
        assert_eq!(there.read(&mut [0]).await.unwrap(), 0);
        there.write_all(&[0; 4096]).await.unwrap();
        assert!(!closing.is_finished());
        drop(there);
        closing.await.unwrap().unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_close_is_left_after_a_second() {
        let ((_there, here), start) = (duplex(64), Instant::now());
        Patient::new(here, PATIENCE).shutdown().await.unwrap();
        assert_eq!(start.elapsed(), CLOSE_WITHIN);
    }
}
