//! One request and its answer, compared byte for byte with what its ticket says.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use integration_tests::body::{self, Body, BodyError};
use serde_json::Value;
use tokio::time::{Sleep, sleep};

use crate::{
    caller::Order,
    expected::{Differs, Expected},
    line::{Line, Taken, causes},
    ticket::{Kind, Ticket},
    verdict::{Failure, Wrong},
};

/// How a request ended.
#[derive(Debug)]
pub(crate) enum End {
    /// All of it came, this many bytes.
    Complete(u64),
    /// The caller left.
    Cancelled,
    /// Visibly.
    Failed(Failure),
    /// As it must not.
    Wrong(Wrong, String),
}

impl Failure {
    /// Whether it says that a deadline was exceeded.
    pub(crate) fn is_deadline(&self) -> bool {
        match self {
            Self::Refused(status, _) => *status == 504,
            // Where the cut fell within a record there is no place for an error record.
            Self::Cut { record, .. } => record.as_deref().is_none_or(|code| code == "deadline_exceeded"),
            Self::Connect(_) | Self::TurnedAway | Self::NoHead(_) => false,
        }
    }
}

/// Sends the request and reads the answer to its end.
pub(crate) async fn run(line: &Line, order: &Order) -> End {
    let sent = match send(line, order).await {
        Err(Failure::TurnedAway) => {
            line.hang_up();
            send(line, order).await
        }
        sent => sent,
    };
    let (taken, response) = match sent {
        Ok(sent) => sent,
        Err(failure) => return End::Failed(failure),
    };
    let (head, mut body) = response.into_parts();
    if head.status != StatusCode::OK {
        let code = head.headers.get("tunnel-error").and_then(|code| code.to_str().ok()).unwrap_or_default();
        return End::Failed(Failure::Refused(head.status.as_u16(), code.to_owned()));
    }
    let end = read(order, &mut body).await;
    let is_last = head.headers.get(header::CONNECTION).is_some_and(|value| value == "close");
    if matches!(end, End::Complete(_)) && !is_last {
        line.keep(taken);
    }
    end
}

async fn send(line: &Line, order: &Order) -> Result<(Taken, Response<Incoming>), Failure> {
    let mut taken = line.take().await?;
    let response = line.send(&mut taken, request(order)).await?;
    Ok((taken, response))
}

fn request(order: &Order) -> Request<Body> {
    let ticket = order.ticket;
    let method = if ticket.kind == Kind::Get { Method::GET } else { Method::POST };
    let mut request = Request::builder().method(method).uri(ticket.target());
    if let Some(deadline) = order.deadline {
        request = request.header("tunnel-deadline", format!("{}ms", deadline.as_millis()));
    }
    let body = match ticket.asked(0) {
        None => body::empty(),
        Some(all) if !ticket.kind.uploads() => body::full(all),
        Some(_) => Upload { ticket, next: 0, sent: 0, pause: None }.boxed_unsync(),
    };
    request.body(body).expect("a request")
}

async fn read(order: &Order, body: &mut Incoming) -> End {
    let ticket = order.ticket;
    let mut expected = Expected::answer(ticket);
    let mut dawdles = order.dawdles;
    while let Some(frame) = body.frame().await {
        let taken = match frame {
            Ok(frame) => expected.take(frame.into_data().unwrap_or_default()),
            Err(error) => return End::Failed(Failure::Cut { at: expected.at(), record: None, error: causes(&error) }),
        };
        if let Err(differs) = taken {
            return odd(ticket, differs, body).await;
        }
        if let Some(time) = dawdles.take() {
            sleep(time).await; // what is sent meanwhile fills every buffer on the way
        }
    }
    if expected.is_complete() {
        return End::Complete(expected.at());
    }
    End::Wrong(Wrong::Truncated, format!("a clean end after {} bytes", expected.at()))
}

/// Bytes that are not the ticket's: a terminal record, after which the body must be cut; or something worse.
async fn odd(ticket: Ticket, differs: Differs, body: &mut Incoming) -> End {
    let mut got = differs.got.to_vec();
    let end = loop {
        match body.frame().await {
            None => break Ok(()),
            Some(Err(error)) => break Err(causes(&error)),
            Some(Ok(frame)) if got.len() < 4096 => got.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Some(Ok(_)) => {}
        }
    };
    let text = String::from_utf8_lossy(&got);
    match (terminal_code(&text), end) {
        (Some(code), Err(error)) if ticket.kind.streams() && differs.between_pieces => {
            End::Failed(Failure::Cut { at: differs.at, record: Some(code), error })
        }
        (Some(code), Ok(())) => End::Wrong(Wrong::Truncated, format!("a clean end after the error record {code}")),
        _ => {
            let start: String = text.chars().take(200).collect();
            End::Wrong(Wrong::Crossed, format!("after {} bytes: {start:?}", differs.at))
        }
    }
}

/// The code in a terminal error record of either format.
fn terminal_code(text: &str) -> Option<String> {
    let json = text.trim_start_matches("data: ").lines().next()?;
    let record: Value = serde_json::from_str(json).ok()?;
    let code = record.get("error")?.get("code").or(record.get("code"))?;
    code.as_str().map(str::to_owned)
}

/// The bytes of a ticket on their way up.
struct Upload {
    ticket: Ticket,
    next: usize,
    sent: u64,
    pause: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ticket.pace > 0 {
            let time = self.ticket.pause();
            ready!(self.pause.get_or_insert_with(|| Box::pin(sleep(time))).as_mut().poll(cx));
            self.pause = None;
        }
        let piece = self.ticket.asked(self.next);
        self.next += 1;
        self.sent += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.sent == self.ticket.size as u64
    }

    fn size_hint(&self) -> SizeHint {
        match self.ticket.kind {
            Kind::Upload => SizeHint::with_exact(self.ticket.size as u64 - self.sent),
            _ => SizeHint::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_records_of_both_formats() {
        let native = r#"{"error":"gone","code":"tunnel_lost","request_id":"1"}"#;
        assert_eq!(terminal_code(&format!("{native}\n")).as_deref(), Some("tunnel_lost"));
        let openai = r#"data: {"error":{"message":"gone","type":"tunnel_error","code":"tunnel_lost","param":null}}"#;
        assert_eq!(terminal_code(&format!("{openai}\n\n")).as_deref(), Some("tunnel_lost"));
        assert_eq!(terminal_code(r#"{"ticket":"alice-1-get-1-0"}"#), None);
    }
}
