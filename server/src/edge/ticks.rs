//! `GET /api/tunnel/ticks`: a few lines with pauses between them, so that `tunnel doctor` can tell whether something on
//! the way collects answers.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::{Body, Frame};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How many there are.
const TICKS: u8 = 5;

/// From one to the next: longer than any network gathers bytes for.
const APART: Duration = Duration::from_millis(200);

/// A body of lines, `{"tick":1}` and so on, one every 200 ms.
#[derive(Debug)]
pub(crate) struct Ticks {
    sent: u8,
    clock: Interval,
}

/// The answer, with what an answer from a desktop says to proxies.
pub(super) fn ticks() -> Response<Ticks> {
    let mut clock = interval(APART);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut response = Response::new(Ticks { sent: 0, clock });
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl Body for Ticks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.sent == TICKS {
            return Poll::Ready(None);
        }
        ready!(self.clock.poll_tick(cx));
        self.sent += 1;
        Poll::Ready(Some(Ok(Frame::data(format!("{{\"tick\":{}}}\n", self.sent).into()))))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_tick_is_a_piece_of_its_own() {
        let (begun, mut body) = (Instant::now(), ticks().into_body());
        let mut pieces = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            pieces.push((begun.elapsed().as_millis(), frame.into_data().unwrap()));
        }
        assert_eq!(pieces.len(), 5);
        assert_eq!(pieces[0], (0, "{\"tick\":1}\n".into()));
        assert_eq!(pieces[4], (800, "{\"tick\":5}\n".into()));
    }
}
