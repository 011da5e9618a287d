//! Request heads on HTTP/1.1 end their lines with CRLF, or are refused (T20).
//!
//! hyper takes LF alone for a line end, as RFC 9112 §2.2 allows, and has no switch for it. A proxy in front that takes it
//! for a part of a value sees other fields than we do, and so perhaps another end of the request. So an LF of a head that
//! has no CR before it becomes a NUL on its way to hyper, and the end of the head: hyper answers 400 and closes the
//! connection.
//!
//! Only heads are looked at. Where a body ends is hyper's to say, and asked, not parsed again: no read goes beyond the
//! end of a head, and what follows waits until the request has been announced. A chunked body has no length to announce;
//! nothing behind it is taken for a request, the connection ends with its answer.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use http::Request;
use http_body::Body;
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Protocol;

/// What follows a head, as hyper has read it: so many bytes of a body and then the next head, or one of these.
const UNSAID: u64 = u64::MAX;
const NO_HEAD: u64 = u64::MAX - 1;

/// What a spoilt head ends with: hyper judges a head when it is whole.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// A transport that shows hyper only heads whose lines end with CRLF.
pub(super) struct Heads<T> {
    inner: T,
    follows: Follows,
    place: Place,
    /// Read from `inner`, and not yet passed on.
    held: BytesMut,
}

/// Tells a transport what follows the head that hyper has just read, and others whether one is coming in. `None`: there
/// are no heads in lines.
#[derive(Debug, Clone)]
pub(super) struct Follows(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    next: AtomicU64,
    /// A part of a head has come.
    in_head: AtomicBool,
}

/// Where the next byte belongs.
#[derive(Debug)]
enum Place {
    Head(Line),
    /// Behind a head, of which hyper has not yet been asked what follows.
    Behind,
    /// So many more bytes.
    Body(u64),
    /// Nowhere: a line of the head ended in LF alone.
    Spoilt,
}

/// How a head ends, and behind which byte.
enum End {
    Whole(usize),
    Spoilt(usize),
}

/// How far a head has come.
#[derive(Debug, Default)]
struct Line {
    /// There was a line before: empty ones in front of a request are skipped (RFC 9112 §2.2).
    begun: bool,
    /// Bytes of the line so far, and the last of them.
    length: usize,
    last: u8,
}

impl<T> Heads<T> {
    /// HTTP/2 has no lines; it passes as it is.
    pub(super) fn new(inner: T, protocol: Protocol) -> (Self, Follows) {
        let follows = Follows(match protocol {
            Protocol::Http1 | Protocol::InTheClear => {
                Some(Arc::new(Shared { next: AtomicU64::new(UNSAID), in_head: AtomicBool::new(false) }))
            }
            Protocol::Http2 => None,
        });
        let place = Place::Head(Line::default());
        (Self { inner, follows: follows.clone(), place, held: BytesMut::new() }, follows)
    }

    /// Looks at bytes that come next; how many of them may be passed on now.
    fn look(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if let Place::Behind = self.place {
            self.place = match self.follows.take() {
                UNSAID => return Err(io::Error::other("a read behind a head that is not read")),
                0 => Place::Head(Line::default()),
                length => Place::Body(length),
            };
        }
        match &mut self.place {
            Place::Body(left) => {
                let here = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= here as u64;
                if *left == 0 {
                    self.place = Place::Head(Line::default());
                }
                Ok(here)
            }
            Place::Head(line) => {
                let end = line.head_end(bytes);
                self.follows.set_in_head(end.is_none() && (line.begun || line.length > 0));
                match end {
                    None => Ok(bytes.len()),
                    Some(End::Whole(end)) => {
                        self.place = Place::Behind;
                        Ok(end)
                    }
                    Some(End::Spoilt(end)) => {
                        self.place = Place::Spoilt;
                        bytes[end - 1] = 0;
                        Ok(end)
                    }
                }
            }
            Place::Behind | Place::Spoilt => unreachable!("both were looked at before"),
        }
    }
}

impl Line {
    /// Where the head ends, if it does in `bytes`.
    fn head_end(&mut self, bytes: &[u8]) -> Option<End> {
        let mut start = 0;
        while let Some(length) = memchr(b'\n', &bytes[start..]) {
            let end = start + length;
            let before = if length == 0 { self.last } else { bytes[end - 1] };
            if before != b'\r' {
                return Some(End::Spoilt(end + 1));
            }
            let is_empty = self.length + length == 1;
            if is_empty && self.begun {
                return Some(End::Whole(end + 1));
            }
            self.begun |= !is_empty;
            (self.length, self.last) = (0, b'\n');
            start = end + 1;
        }
        self.length += bytes.len() - start;
        self.last = bytes[start..].last().copied().unwrap_or(self.last);
        None
    }
}

impl Follows {
    /// hyper has read this head. Whether the connection must end with its answer.
    pub(super) fn announce(&self, request: &Request<impl Body>) -> bool {
        let Some(shared) = &self.0 else { return false };
        let length = request.body().size_hint().exact();
        shared.next.store(length.unwrap_or(NO_HEAD), Ordering::Relaxed);
        length.is_none()
    }

    /// From now on the connection speaks something else.
    pub(super) fn switch(&self) {
        if let Some(shared) = &self.0 {
            shared.next.store(NO_HEAD, Ordering::Relaxed);
        }
    }

    /// Whether a head is coming in that is not whole yet.
    pub(super) fn in_head(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.in_head.load(Ordering::Relaxed))
    }

    fn set_in_head(&self, in_head: bool) {
        if let Some(shared) = &self.0 {
            shared.in_head.store(in_head, Ordering::Relaxed);
        }
    }

    fn are_heads(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.next.load(Ordering::Relaxed) != NO_HEAD)
    }

    fn take(&self) -> u64 {
        self.0.as_ref().map_or(NO_HEAD, |shared| shared.next.swap(UNSAID, Ordering::Relaxed))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Heads<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let start = buf.filled().len();
        let looks = this.follows.are_heads();
        if let Place::Spoilt = this.place {
            buf.put_slice(&HEAD_END[..HEAD_END.len().min(buf.remaining())]);
            return Poll::Ready(Ok(()));
        }
        if !this.held.is_empty() {
            let count = this.held.len().min(buf.remaining());
            buf.put_slice(&this.held[..count]);
            let passed = if looks { this.look(&mut buf.filled_mut()[start..])? } else { count };
            this.held.advance(passed);
            buf.set_filled(start + passed);
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        if looks && buf.filled().len() > start {
            let passed = this.look(&mut buf.filled_mut()[start..])?;
            this.held.extend_from_slice(&buf.filled()[start + passed..]);
            buf.set_filled(start + passed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Heads<T> {
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

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{Empty, Full, StreamBody};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What hyper gets to see of `bytes`, of which `piece` arrive at a time, when each head announces a body of the next
    /// of `bodies`.
    async fn seen(bytes: &[u8], piece: usize, bodies: &[u64]) -> String {
        let (there, here) = tokio::io::duplex(piece);
        let bytes = bytes.to_owned();
        let send = async move {
            let mut there = there;
            _ = there.write_all(&bytes).await; // nobody reads behind a spoilt head
        };
        let read = async {
            let (mut heads, follows) = Heads::new(here, Protocol::Http1);
            let (mut seen, mut bodies) = (Vec::new(), bodies.iter());
            loop {
                if let Place::Behind = heads.place {
                    let length = usize::try_from(*bodies.next().unwrap_or(&0)).unwrap();
                    follows.announce(&Request::new(Full::new(Bytes::from(vec![0; length]))));
                }
                seen.reserve(1024); // as hyper does
                let is_spoilt = matches!(heads.place, Place::Spoilt);
                if heads.read_buf(&mut seen).await.unwrap() == 0 || is_spoilt {
                    return String::from_utf8(seen).unwrap();
                }
            }
        };
        tokio::join!(send, read).1
    }

    #[tokio::test]
    async fn t20_a_bare_lf_spoils_every_head_and_no_body() {
        let good = "\r\nPOST / HTTP/1.1\r\nA: b\r\n\r\nx\ny\n\r\n\nGET /1 HTTP/1.1\r\nA: b\r\n\r\n";
        for (bad, spoilt) in [
            ("", ""),
            ("\n", "\0\r\n\r\n"),
            ("\r\n\nGET / HTTP/1.1", "\r\n\0\r\n\r\n"),
            ("GET /2 HTTP/1.1\n\n", "GET /2 HTTP/1.1\0\r\n\r\n"),
            ("GET /2 HTTP/1.1\r\nA: b\nB: c\r\n\r\n", "GET /2 HTTP/1.1\r\nA: b\0\r\n\r\n"),
            ("GET /2 HTTP/1.1\r\nA: b\r\n\nGET /3", "GET /2 HTTP/1.1\r\nA: b\r\n\0\r\n\r\n"),
        ] {
            let (sent, want) = (format!("{good}{bad}"), format!("{good}{spoilt}"));
            for piece in 1..=sent.len() {
                let seen = seen(sent.as_bytes(), piece, &[7]).await;
                assert_eq!(seen, want, "in pieces of {piece}");
            }
        }
    }

    #[tokio::test]
    async fn nothing_is_looked_at_once_the_connection_speaks_something_else() {
        let sent = b"GET / HTTP/1.1\r\n\r\na\nb\n\n";
        let (mut heads, follows) = Heads::new(&sent[..], Protocol::Http1);
        let mut seen = Vec::new();
        heads.read_buf(&mut seen).await.unwrap();
        assert_eq!(seen, b"GET / HTTP/1.1\r\n\r\n");
        assert!(!follows.announce(&Request::new(Empty::<Bytes>::new())));
        follows.switch();
        heads.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, sent);
    }

    #[test]
    fn t20_a_body_of_unknown_length_ends_the_connection() {
        let (_, follows) = Heads::new(&b""[..], Protocol::Http1);
        let body = StreamBody::new(futures_util::stream::empty::<io::Result<http_body::Frame<Bytes>>>());
        assert!(follows.announce(&Request::new(body)));
    }

    #[tokio::test]
    async fn what_hyper_has_not_read_is_not_guessed() {
        let (mut heads, _follows) = Heads::new(&b"GET / HTTP/1.1\r\n\r\nx"[..], Protocol::Http1);
        heads.read_buf(&mut Vec::new()).await.unwrap();
        assert!(heads.read_buf(&mut Vec::new()).await.is_err());
    }
}
