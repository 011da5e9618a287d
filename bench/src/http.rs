//! HTTP/1.1 as both ends of the bench speak it: just enough, and cheap, so that the programs in the middle are what is
//! measured. Not for use outside the bench: it trusts its peers.

use std::{fmt::Display, io};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// More than any head or chunk header here needs.
const MAX_HEADERS: usize = 32;

/// How the body of a message ends (RFC 9112 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After this many more bytes.
    Length(u64),
    /// With the chunk of no length.
    Chunked,
}

/// A buffered reader of messages.
#[derive(Debug)]
pub(crate) struct Messages<R> {
    io: R,
    buffer: BytesMut,
    body: Framing,
    /// Bytes left of the chunk that is being read.
    chunk: u64,
}

impl<R: AsyncRead + Unpin> Messages<R> {
    pub(crate) fn new(io: R) -> Self {
        Self { io, buffer: BytesMut::with_capacity(64 * 1024), body: Framing::Length(0), chunk: 0 }
    }

    /// The target of the next request; `None` when the peer has closed.
    pub(crate) async fn request(&mut self) -> io::Result<Option<String>> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut head = httparse::Request::new(&mut headers);
            if let httparse::Status::Complete(length) = head.parse(&self.buffer).map_err(broken)? {
                let target = head.path.unwrap_or_default().to_owned();
                let framing = framing(head.headers)?;
                self.start_body(length, framing);
                return Ok(Some(target));
            }
            if self.fill().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// The status of the next response.
    pub(crate) async fn response(&mut self) -> io::Result<u16> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut head = httparse::Response::new(&mut headers);
            if let httparse::Status::Complete(length) = head.parse(&self.buffer).map_err(broken)? {
                let status = head.code.unwrap_or_default();
                let framing = framing(head.headers)?;
                self.start_body(length, framing);
                return Ok(status);
            }
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The next piece of the body, as it came; `None` at its end.
    pub(crate) async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let body = self.body;
            match body {
                Framing::Length(0) => return Ok(None),
                Framing::Length(left) if !self.buffer.is_empty() => {
                    let piece = self.take(left);
                    self.body = Framing::Length(left - piece.len() as u64);
                    return Ok(Some(piece));
                }
                Framing::Chunked if self.chunk == 0 && self.next_chunk()? => {
                    if self.chunk == 0 {
                        self.body = Framing::Length(0);
                    }
                    continue;
                }
                Framing::Chunked if self.chunk > 0 && !self.buffer.is_empty() => {
                    let piece = self.take(self.chunk);
                    self.chunk -= piece.len() as u64;
                    return Ok(Some(piece));
                }
                _ => {}
            }
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads the body to its end; returns its length in bytes.
    pub(crate) async fn drain(&mut self) -> io::Result<u64> {
        let mut length = 0;
        while let Some(piece) = self.piece().await? {
            length += piece.len() as u64;
        }
        Ok(length)
    }

    /// Waits until the peer closes its side, or fails; what it still sends is dropped.
    pub(crate) async fn closed(&mut self) {
        while matches!(self.fill().await, Ok(1..)) {
            self.buffer.clear();
        }
    }

    /// The writing half.
    pub(crate) fn io(&mut self) -> &mut R {
        &mut self.io
    }

    fn start_body(&mut self, head: usize, framing: Framing) {
        self.buffer.advance(head);
        self.body = framing;
        self.chunk = 0;
    }

    /// Reads `[CRLF] size CRLF`, and after the last chunk the empty trailer; `false` if it is not all there yet.
    fn next_chunk(&mut self) -> io::Result<bool> {
        let skip = if self.buffer.starts_with(b"\r\n") { 2 } else { 0 };
        match httparse::parse_chunk_size(&self.buffer[skip..]) {
            Ok(httparse::Status::Complete((length, 0))) if self.buffer.len() >= skip + length + 2 => {
                self.buffer.advance(skip + length + 2);
                self.chunk = 0;
                Ok(true)
            }
            Ok(httparse::Status::Complete((_, 0)) | httparse::Status::Partial) => Ok(false),
            Ok(httparse::Status::Complete((length, size))) => {
                self.buffer.advance(skip + length);
                self.chunk = size;
                Ok(true)
            }
            Err(_) => Err(broken("chunk size")),
        }
    }

    /// What is buffered, at most `limit` bytes of it.
    fn take(&mut self, limit: u64) -> Bytes {
        let length = usize::try_from(limit).unwrap_or(usize::MAX).min(self.buffer.len());
        self.buffer.split_to(length).freeze()
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(16 * 1024);
        self.io.read_buf(&mut self.buffer).await
    }
}

fn framing(headers: &[httparse::Header<'_>]) -> io::Result<Framing> {
    for header in headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = std::str::from_utf8(header.value).ok().and_then(|value| value.parse().ok());
            return length.map(Framing::Length).ok_or_else(|| broken("Content-Length"));
        }
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Ok(Framing::Chunked);
        }
    }
    Ok(Framing::Length(0))
}

fn broken(what: impl Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP as the bench speaks it: {what}"))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn messages(bytes: &'static [u8], at_a_time: usize) -> Messages<tokio::io::DuplexStream> {
        let (mut near, far) = tokio::io::duplex(at_a_time);
        tokio::spawn(async move { near.write_all(bytes).await });
        Messages::new(far)
    }

    #[tokio::test]
    async fn a_chunked_response_is_read_whole_however_it_is_cut() {
        let bytes =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n\
                      HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno";
        for at_a_time in [1, 2, 3, 7, 1000] {
            let mut messages = messages(bytes, at_a_time);
            assert_eq!(messages.response().await.unwrap(), 200);
            assert_eq!(messages.drain().await.unwrap(), 20);
            assert_eq!(messages.response().await.unwrap(), 404);
            assert_eq!(messages.drain().await.unwrap(), 2);
        }
    }

    #[tokio::test]
    async fn requests_follow_each_other_until_the_peer_closes() {
        let bytes =
            b"POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /small HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut messages = messages(bytes, 5);
        assert_eq!(messages.request().await.unwrap().unwrap(), "/sink");
        assert_eq!(messages.drain().await.unwrap(), 3);
        assert_eq!(messages.request().await.unwrap().unwrap(), "/small");
        assert!(messages.request().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_cut_body_is_an_error() {
        let mut messages = messages(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", 100);
        messages.response().await.unwrap();
        assert!(messages.drain().await.is_err());
    }
}
