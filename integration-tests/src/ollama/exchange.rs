//! One request that a test answers itself, step by step.

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{mpsc, oneshot};

use super::{
    Received,
    connection::{Cut, Link},
};
use crate::{
    body::{self, Body, Gone, Pieces},
    eventually::with_deadline,
};

/// A request and the hand on its answer. Dropped before it was answered, it cuts the connection.
#[derive(Debug)]
pub struct Exchange {
    /// The head of the request.
    pub head: Received,
    body: Incoming,
    link: Link,
    answer: Option<oneshot::Sender<Response<Body>>>,
    pieces: Option<Pieces>,
}

/// Gives the request to the test, and waits for the answer.
pub(super) async fn hand_over(
    player: &mpsc::UnboundedSender<Exchange>,
    head: Received,
    body: Incoming,
    link: Link,
) -> Response<Body> {
    let (answer, answered) = oneshot::channel();
    let cut = link.clone();
    let exchange = Exchange { head, body, link, answer: Some(answer), pieces: None };
    let _test_is_over = player.send(exchange);
    if let Ok(response) = answered.await {
        return response;
    }
    cut.cut(Cut::Fin);
    std::future::pending().await
}

impl Exchange {
    /// The next piece of the request's body; `None` is its clean end, an error is a body that was cut.
    pub async fn read(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        let frame = with_deadline("a piece of the request's body at the upstream", self.body.frame()).await?;
        Some(frame.map(|frame| frame.into_data().unwrap_or_default()))
    }

    /// The rest of the request's body.
    pub async fn read_all(&mut self) -> Result<Bytes, hyper::Error> {
        let collected = with_deadline("the request's body at the upstream", (&mut self.body).collect()).await;
        collected.map(http_body_util::Collected::to_bytes)
    }

    /// Answers with `response` as it is, all of it.
    pub fn respond(&mut self, response: Response<Body>) {
        let answer = self.answer.take().expect("one response for each request");
        let _caller_has_left = answer.send(response);
    }

    /// Answers with a head alone; the body follows by [`Exchange::send`], of unknown length unless `response` names it.
    pub fn start(&mut self, response: Response<()>) {
        let (pieces, stream) = body::stepwise();
        self.pieces = Some(pieces);
        self.respond(response.map(|()| stream));
    }

    /// Answers 200 with a head of this media type alone.
    pub fn start_ok(&mut self, content_type: &str) {
        let head = Response::builder().status(StatusCode::OK).header(header::CONTENT_TYPE, content_type);
        self.start(head.body(()).expect("a media type"));
    }

    /// The next piece of the response's body, once the one before has been taken.
    pub async fn send(&mut self, bytes: impl Into<Bytes>) -> Result<(), Gone> {
        self.pieces.as_mut().expect("a started response").send(bytes).await
    }

    /// The clean end of the response.
    pub fn end(&mut self) {
        self.pieces = None;
    }

    /// Breaks the response off: the connection closes in the middle of the body.
    pub async fn fail(&mut self) {
        self.pieces.take().expect("a started response").fail().await;
    }

    /// Cuts the connection, whatever was sent.
    pub fn cut(&self, how: Cut) {
        self.link.cut(how);
    }

    /// Closes our half of the connection in the middle of the answer, and still reads.
    pub fn half_close(&self) {
        self.link.half_close();
    }

    /// Waits until the caller has closed the connection.
    pub async fn caller_leaves(&mut self) {
        self.link.caller_leaves().await;
    }

    /// Whether it has.
    #[must_use]
    pub fn caller_has_left(&self) -> bool {
        self.link.caller_has_left()
    }
}
