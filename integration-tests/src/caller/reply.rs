//! A response in a caller's hands: its head at once, its body as it comes.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, Version, response::Parts};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tokio_util::sync::DropGuard;

use crate::eventually::with_deadline;

/// A response: its head, and a body that is read as it comes.
#[derive(Debug)]
pub struct Reply {
    head: Parts,
    body: Incoming,
    read: BytesMut,
    _connection: Arc<DropGuard>,
}

impl Reply {
    pub(super) fn new(head: Parts, body: Incoming, connection: Arc<DropGuard>) -> Self {
        Self { head, body, read: BytesMut::new(), _connection: connection }
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// The protocol's version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// All header fields.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The value of a header field as text; empty where it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.head.headers.get(name).map_or("", |value| value.to_str().expect("a value in ASCII"))
    }

    /// The next piece of the body; `None` is its clean end, an error is a body that was cut.
    pub async fn next(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        if !self.read.is_empty() {
            return Some(Ok(self.read.split().freeze()));
        }
        let frame = with_deadline("a piece of the response's body", self.body.frame()).await?;
        Some(frame.map(|frame| frame.into_data().unwrap_or_default()))
    }

    /// Reads as many bytes as `expected` has and insists that they are the same.
    pub async fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        while self.read.len() < expected.len() {
            let frame = with_deadline("a piece of the response's body", self.body.frame()).await;
            let frame = frame.expect("more of the body").expect("a body that is not cut");
            self.read.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
        let read = self.read.split_to(expected.len());
        assert_eq!(String::from_utf8_lossy(&read), String::from_utf8_lossy(expected));
    }

    /// The rest of the body and how it ended: `Ok` with its clean end, `Err` cut.
    pub async fn rest(&mut self) -> (Bytes, Result<(), hyper::Error>) {
        let mut read = std::mem::take(&mut self.read);
        while let Some(frame) = self.next().await {
            match frame {
                Ok(bytes) => read.extend_from_slice(&bytes),
                Err(error) => return (read.freeze(), Err(error)),
            }
        }
        (read.freeze(), Ok(()))
    }

    /// The rest of the body, which must end cleanly.
    pub async fn bytes(mut self) -> Bytes {
        let (bytes, end) = self.rest().await;
        end.unwrap_or_else(|error| panic!("the body was cut ({error}) after {:?}", String::from_utf8_lossy(&bytes)));
        bytes
    }

    /// The same as text.
    pub async fn text(self) -> String {
        String::from_utf8(self.bytes().await.into()).expect("UTF-8")
    }

    /// The same as JSON.
    pub async fn json(self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
    }

    /// The status and our own error code of a refusal.
    #[must_use]
    pub fn error(&self) -> (u16, &str) {
        (self.status().as_u16(), self.header("tunnel-error"))
    }
}
