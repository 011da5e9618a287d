//! From a request that may be forwarded to the response that comes back, over one stream of a tunnel.
//!
//! Reads top to bottom: open a stream, send the head, relay the body up while waiting for the head that comes down,
//! then hand hyper a [`ResponseBody`] that reads the stream when it is polled. Knows nothing of tokens, users or routes.

mod body;
mod clock;
mod upload;

use std::{fmt, future::Future, pin::Pin, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body::Body;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tunnel_frame::{
    Abort, AbortCode, BodySize, Frame, FrameReader, FrameWriter, OpenError, RequestHead, ResponseHead, SendError,
    Session, Stream, limits,
};

pub use self::body::{BodyCut, Ending, ResponseBody, Watch};
use self::clock::{Clock, Expired};
use crate::{
    error::{ErrorCode, More, Refusal},
    id::RequestId,
};

/// A request that was checked, authorised and stripped.
pub struct Forward<B> {
    /// RFC 9110 §9.
    pub method: Method,
    /// Path and query after any prefix, byte for byte.
    pub target: String,
    /// What goes to the desktop.
    pub headers: HeaderMap,
    /// Announced or not; framing headers are not among `headers`.
    pub size: BodySize,
    /// Read only as fast as the desktop takes it.
    pub body: B,
    /// The caller waits for 100 Continue, which hyper sends when the body is first read.
    pub expects_continue: bool,
    /// Scope bits of the caller's token.
    pub scope: u8,
    /// For both programs' logs.
    pub request_id: RequestId,
}

/// Time limits of one request.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// When the whole stream must be over.
    pub deadline: Instant,
    /// How long no byte may move.
    pub stall: Duration,
    /// Who could have set a later deadline.
    pub more: More,
}

/// The rest of a request's body, while it is not yet relayed.
type Upload = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>>;

/// A stream that is open, and its limits, which already count.
pub struct Opened {
    stream: Stream,
    clock: Clock,
}

/// Why no stream was opened. Nothing was sent to the desktop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotOpened {
    /// As many streams are open on this tunnel as it can carry.
    TooMany,
    /// The tunnel has ended meanwhile; another may take its place.
    Gone,
    /// The limits were reached while waiting.
    Late(Refusal),
}

/// Opens a stream.
///
/// # Errors
/// See [`NotOpened`].
pub async fn open(session: &Session, bounds: Bounds) -> Result<Opened, NotOpened> {
    let mut clock = Clock::start(bounds, limits::ACCEPT_WITHIN);
    tokio::select! {
        biased;
        opened = session.open() => match opened {
            Ok(stream) => Ok(Opened { stream, clock }),
            Err(OpenError::TooMany) => Err(NotOpened::TooMany),
            Err(OpenError::Gone) => Err(NotOpened::Gone),
        },
        expired = clock.expired() => Err(NotOpened::Late(timed_out(&clock, expired))),
    }
}

/// Forwards a request and waits for the head of its response.
///
/// Dropping the future, or the body that it returns, resets the stream; the desktop then lets go of its upstream.
///
/// # Errors
/// The refusal to answer with. Nothing of a response has arrived then.
pub async fn forward<B>(
    opened: Opened,
    request: Forward<B>,
    max_body: Option<u64>,
) -> Result<(ResponseHead, ResponseBody), Refusal>
where
    B: Body<Data = Bytes, Error: fmt::Display + Send> + Send + Unpin + 'static,
{
    let Opened { stream, mut clock } = opened;
    let (mut reader, mut writer) = stream.split();
    let Forward { method, target, headers, size, body, expects_continue, scope, request_id } = request;
    let deadline = clock.left();
    let request_id = request_id.to_string();
    let head = RequestHead { method, target, headers, deadline, request_id, scope, body: size };
    let has_body = tokio::select! {
        biased;
        sent = send_head(&mut writer, head) => sent?,
        expired = clock.expired() => return Err(timed_out(&clock, expired)),
    };
    let upload = has_body.then(|| -> Upload { Box::pin(upload::relay(body, writer, max_body, clock.moved())) });
    let mut exchange = Exchange { reader: &mut reader, clock: &mut clock, upload, may_upload: !expects_continue };
    let head = exchange.response_head().await?;
    // A caller that was never asked for its body keeps it: hyper then closes the connection.
    let upload =
        exchange.upload.filter(|_| exchange.may_upload).map(|upload| AbortOnDropHandle::new(tokio::spawn(upload)));
    let body = ResponseBody::new(reader, clock, upload, head.body);
    Ok((head, body))
}

/// Sends the head, and the end of a body that there is not; whether a body follows.
async fn send_head(writer: &mut FrameWriter, head: RequestHead) -> Result<bool, Refusal> {
    let has_body = !matches!(head.body, BodySize::Empty | BodySize::Known(0));
    let too_large = |error: tunnel_frame::FrameError| Refusal::new(ErrorCode::HeadTooLarge).because(error.to_string());
    writer.queue(&Frame::Request(Box::new(head))).map_err(too_large)?;
    if !has_body {
        writer.queue(&Frame::End).map_err(too_large)?;
    }
    writer
        .flush()
        .await
        .map_err(|cut| Refusal::new(ErrorCode::TunnelLost).because(SendError::from(cut).to_string()))?;
    Ok(has_body)
}

/// A request that was sent and not yet answered.
struct Exchange<'a> {
    reader: &'a mut FrameReader,
    clock: &'a mut Clock,
    upload: Option<Upload>,
    may_upload: bool,
}

impl Exchange<'_> {
    async fn response_head(&mut self) -> Result<ResponseHead, Refusal> {
        let lost = |detail| Refusal::new(ErrorCode::TunnelLost).because(detail);
        let mut accepted = false;
        loop {
            tokio::select! {
                biased;
                frame = self.reader.frame() => match frame {
                    Ok(Some(Frame::Accept)) if !accepted => {
                        accepted = true;
                        self.clock.accepted();
                    }
                    Ok(Some(_)) if !accepted => return Err(lost("the desktop did not begin with accept".into())),
                    Ok(Some(Frame::Continue)) => self.may_upload = true,
                    Ok(Some(Frame::Response(head))) => {
                        self.clock.note();
                        return Ok(*head);
                    }
                    Ok(Some(Frame::Abort(abort))) => return Err(aborted(self.clock, abort)),
                    Ok(Some(_)) => return Err(lost("the desktop sent a frame that has no place before a head".into())),
                    Ok(None) => return Err(lost("the stream was cut".to_owned())),
                    Err(error) => return Err(lost(error.to_string())),
                },
                uploaded = uploaded(&mut self.upload), if self.may_upload && self.upload.is_some() => {
                    self.upload = None;
                    uploaded?;
                }
                expired = self.clock.expired() => return Err(timed_out(self.clock, expired)),
            }
        }
    }
}

async fn uploaded(upload: &mut Option<Upload>) -> Result<(), Refusal> {
    match upload {
        Some(upload) => upload.await,
        None => std::future::pending().await,
    }
}

fn timed_out(clock: &Clock, expired: Expired) -> Refusal {
    match expired {
        Expired::Deadline => Refusal::deadline(clock.more()),
        Expired::Stall => Refusal::stalled(),
        Expired::NotAccepted => Refusal::new(ErrorCode::TunnelLost).because("the desktop did not accept the stream"),
    }
}

/// The desktop gave up; its clock is ours, and may be a moment ahead.
fn aborted(clock: &Clock, abort: Abort) -> Refusal {
    let refusal = match abort.code {
        AbortCode::DeadlineExceeded => Refusal::deadline(clock.more()),
        code => Refusal::from(code),
    };
    refusal.because(abort.message)
}
