//! One request, from the stream that brings it to the last byte of its answer.
//!
//! Reads top to bottom: accept, read the head, ask the policy, ask the upstream, relay. At every point where it waits
//! it also watches the stream, so that a caller who leaves frees the upstream at once.

use std::{sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, poll};
use http::{HeaderMap, Method, Response, StatusCode, header};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::{
    sync::oneshot,
    time::{error::Elapsed, sleep, timeout},
};
use tracing::{Instrument, debug, debug_span};
use tunnel_certs::client::reason;
use tunnel_frame::{
    Abort, AbortCode, BodySize, Cut, Frame, FrameError, FrameReader, FrameWriter, RequestHead, ResponseHead, Stream,
    Watcher, limits, policy::Policy,
};

use crate::{
    board::{Board, Progress},
    body::{BodyProgress, RequestBody},
    connection::ResponseBody,
    tick::Tick,
    upstream::Upstream,
};

/// How often a stream is looked at while the upstream takes no bytes of the body, when nothing else would tell that
/// the caller has left.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The server enforces the deadline and resets the stream. This much later it is enforced here, in case it does not.
const DEADLINE_GRACE: Duration = Duration::from_secs(2);

/// How long the accept waits at most for an answer to leave with: yamux allows 256 streams that are not acknowledged, and the
/// server takes it as a sign of life, so it must leave long before an upstream that thinks answers.
const ACCEPT_AFTER: Duration = Duration::from_millis(2);

/// How long a stream may take to bring its head.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// Why it cannot fail to queue a frame of these.
const ALWAYS: &str = "a frame of this size is always accepted";

/// What every stream needs.
pub(crate) struct Service {
    pub(crate) upstream: Upstream,
    pub(crate) policy: Policy,
    accepts: Tick,
}

impl Service {
    pub(crate) fn new(upstream: Upstream, policy: Policy) -> Self {
        Self { upstream, policy, accepts: Tick::new(ACCEPT_AFTER) }
    }
}

/// How a stream ended, for whoever shows the upstream's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The upstream's answer was relayed, whatever its status.
    Answered,
    /// The upstream failed, or was not asked.
    Aborted(Abort),
    /// The caller, or the tunnel, is gone.
    Cut,
}

/// Answers one stream.
pub(crate) async fn serve(service: Arc<Service>, stream: Stream, board: &Board) -> Outcome {
    let (mut reader, mut writer) = stream.split();
    writer.queue(&Frame::Accept).expect(ALWAYS);
    let head = match first_frame(&mut reader, &mut writer).await {
        Ok(Some(Frame::Request(head))) => head,
        Ok(None) => return Outcome::Cut,
        Ok(Some(_)) | Err(_) => {
            let abort = Abort::new(AbortCode::BadRequest, "a stream must begin with a request head");
            return fail(&mut writer, abort).await;
        }
    };
    let running = board.begin(&head);
    let span = debug_span!("request", id = head.request_id, method = %head.method);
    let within = head.deadline + DEADLINE_GRACE;
    let exchange = Box::pin(exchange(&service, head, reader, &mut writer, &running.progress));
    let exchange = exchange.instrument(span.clone());
    let result = timeout(within, exchange).await.unwrap_or_else(|_| {
        Err(Failure::Abort(Abort::new(AbortCode::DeadlineExceeded, "the deadline passed at the desktop")))
    });
    let outcome = match result {
        Ok(()) => Outcome::Answered,
        Err(Failure::Cut) => Outcome::Cut,
        Err(Failure::Abort(abort)) => {
            span.in_scope(|| debug!(%abort, "request failed"));
            fail(&mut writer, abort).await
        }
    };
    running.finish(&outcome);
    outcome
}

/// The frame that a stream begins with; mostly it came with the stream.
async fn first_frame(reader: &mut FrameReader, writer: &mut FrameWriter) -> Result<Option<Frame>, NoFrame> {
    if let Some(frame) = reader.frame().now_or_never() {
        return Ok(frame?);
    }
    if writer.flush().await.is_err() {
        return Ok(None);
    }
    Ok(timeout(HEAD_WITHIN, reader.frame()).await??)
}

/// Nothing that could be a request came, or not in time.
struct NoFrame;

impl From<FrameError> for NoFrame {
    fn from(_: FrameError) -> Self {
        Self
    }
}

impl From<Elapsed> for NoFrame {
    fn from(_: Elapsed) -> Self {
        Self
    }
}

/// Why an exchange ended early.
enum Failure {
    Abort(Abort),
    Cut,
}

impl From<Cut> for Failure {
    fn from(Cut: Cut) -> Self {
        Self::Cut
    }
}

impl From<Abort> for Failure {
    fn from(abort: Abort) -> Self {
        Self::Abort(abort)
    }
}

async fn fail(writer: &mut FrameWriter, abort: Abort) -> Outcome {
    if writer.queue(&Frame::Abort(abort.clone())).is_ok() {
        // A peer that gives no credit for this learns it from the reset.
        _ = timeout(LOOK_EVERY, writer.flush()).await;
    }
    Outcome::Aborted(abort)
}

async fn exchange(
    service: &Service,
    mut head: Box<RequestHead>,
    reader: FrameReader,
    writer: &mut FrameWriter,
    progress: &Progress,
) -> Result<(), Failure> {
    if !service.policy.allows(&head.method, &head.target) {
        return Err(Abort::new(AbortCode::NotAllowed, "this desktop does not allow this request").into());
    }
    let method = head.method.clone();
    let expects_continue = head.headers.remove(header::EXPECT).is_some();
    let mut watch = Watch { probe: reader.watcher(), reader: None, finished: None };
    let (body, mut begun) = if matches!(head.body, BodySize::Empty | BodySize::Known(0)) {
        watch.reader = Some(reader);
        (RequestBody::empty(), None)
    } else {
        let (body, BodyProgress { begun, finished }) = RequestBody::from_stream(reader, head.body);
        watch.finished = Some(finished);
        (body, expects_continue.then_some(begun))
    };
    let response = {
        let mut sending = std::pin::pin!(service.upstream.send(*head, body));
        let mut accept = std::pin::pin!(service.accepts.wait());
        let mut accepted = false;
        loop {
            tokio::select! {
                biased;
                response = &mut sending => break response?,
                () = watch.cut() => return Err(Failure::Cut),
                () = has_begun(&mut begun) => {
                    writer.send(&Frame::Continue).await.map_err(|_| Failure::Cut)?;
                }
                () = &mut accept, if !accepted => {
                    accepted = true;
                    writer.flush().await?;
                }
            }
        }
    };
    relay(&service.upstream, &method, response, &mut watch, writer, progress).await
}

/// Waits until the upstream takes the first bytes of a body; for ever if that is not asked for, or never happens.
async fn has_begun(begun: &mut Option<oneshot::Receiver<()>>) {
    if let Some(receiver) = begun {
        let has_begun = receiver.await.is_ok();
        *begun = None;
        if has_begun {
            return;
        }
    }
    std::future::pending::<()>().await;
}

/// Relays a response as it comes. What is ready together leaves together; nothing waits for more.
async fn relay(
    upstream: &Upstream,
    method: &Method,
    response: Response<ResponseBody>,
    watch: &mut Watch,
    writer: &mut FrameWriter,
    progress: &Progress,
) -> Result<(), Failure> {
    let (parts, mut body) = response.into_parts();
    // An upgrade that nobody asked for, or no status of HTTP at all (RFC 9110 §15).
    if !(200..600).contains(&parts.status.as_u16()) {
        let message = format!("the upstream answered with status {}", parts.status.as_u16());
        return Err(Abort::new(AbortCode::UpstreamError, message).into());
    }
    progress.answered(parts.status);
    let head = ResponseHead {
        status: parts.status,
        body: body_size(method, parts.status, &parts.headers, &body),
        headers: upstream.response_headers(parts.headers),
    };
    let too_large = |_| Abort::new(AbortCode::UpstreamError, "the upstream's head is too large");
    writer.queue(&Frame::Response(Box::new(head))).map_err(too_large)?;
    loop {
        let next = if let Poll::Ready(next) = poll!(body.frame()) {
            next
        } else {
            body.during(writer.flush()).await?;
            tokio::select! {
                biased;
                next = body.frame() => next,
                () = watch.cut() => return Err(Failure::Cut),
            }
        };
        match next {
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default(); // trailers do not cross
                progress.relayed(data.len());
                body.during(send_data(writer, data)).await?;
            }
            Some(Err(error)) => {
                writer.flush().await?;
                return Err(Abort::new(AbortCode::UpstreamError, reason(&error)).into());
            }
            None => {
                writer.queue(&Frame::End).expect(ALWAYS);
                return Ok(writer.flush().await?);
            }
        }
    }
}

/// Queues a small piece behind what is already queued; sends when there is a chunk's worth.
async fn send_data(writer: &mut FrameWriter, bytes: Bytes) -> Result<(), Cut> {
    if bytes.len() + writer.queued() < limits::CHUNK_SENT && !bytes.is_empty() {
        writer.queue(&Frame::Chunk(bytes)).expect(ALWAYS);
        return Ok(());
    }
    writer.send_bytes(bytes).await
}

/// What is known of a response's body: announced even where none follows (RFC 9110 §9.3.2, §15.4.5).
fn body_size(method: &Method, status: StatusCode, headers: &HeaderMap, body: &ResponseBody) -> BodySize {
    let announced = || headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    if method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
        announced().map_or(BodySize::Empty, BodySize::Known)
    } else if status == StatusCode::NO_CONTENT {
        BodySize::Empty
    } else {
        body.size_hint().exact().map_or(BodySize::Unknown, BodySize::Known)
    }
}

/// Notices that the stream was cut, whoever has the reader.
struct Watch {
    probe: Watcher,
    /// Here while there is no body, and again when the body is complete.
    reader: Option<FrameReader>,
    /// Brings the reader back.
    finished: Option<oneshot::Receiver<FrameReader>>,
}

impl Watch {
    /// Resolves when the stream was cut, or when the server sends what it must not. Cancel safe.
    async fn cut(&mut self) {
        loop {
            if let Some(reader) = &mut self.reader {
                match reader.frame().await {
                    Ok(Some(Frame::End)) => {} // of a request without a body
                    _ => return,
                }
            } else if let Some(finished) = &mut self.finished {
                tokio::select! {
                    biased;
                    reader = finished => {
                        self.reader = reader.ok();
                        self.finished = None;
                    }
                    () = sleep(LOOK_EVERY) => if self.probe.is_cut() { return },
                }
            } else {
                // The upstream answered without taking the whole body; hyper has dropped it.
                sleep(LOOK_EVERY).await;
                if self.probe.is_cut() {
                    return;
                }
            }
        }
    }
}
