//! A request that may be forwarded: what goes to the desktop, and what the caller gets back.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode, Version, header, request::Parts};
use http_body::{Body, Frame, SizeHint};
use prometheus::IntCounter;
use tokio::sync::OwnedSemaphorePermit;
use tunnel_frame::BodySize;

use super::{TUNNEL_NAME, access::Access, capability::Capability, headers, linger::RequestBody};
use crate::{
    auth::Identity,
    error::{ErrorCode, More, Refusal, body::StreamFormat},
    figures::{Figures, Observer, Shape},
    proxy::{self, Bounds, Ending, Forward, NotOpened, Opened, Watch},
    server::App,
};

/// Asks for a deadline, and says in the response which one holds.
pub(super) const TUNNEL_DEADLINE: HeaderName = HeaderName::from_static("tunnel-deadline");

/// Sends a request to its desktop.
pub(super) async fn forward(
    app: &Arc<App>,
    identity: &Identity,
    parts: Parts,
    body: RequestBody,
    capability: Option<&Capability<'_>>,
    path: &str,
    access: &mut Access,
) -> Result<Response<Unlogged>, Refusal> {
    let limits = &app.limits;
    let asked = asked_deadline(&parts.headers)?;
    let allowed = asked.unwrap_or(limits.stream_deadline).min(limits.max_stream_deadline);
    access.deadline = asked.map(|_| allowed);
    let deadline = access.arrived + allowed;
    let size = body_size(&body, &parts.headers);
    if let (BodySize::Known(size), Some(max)) = (size, limits.max_body)
        && size > max
    {
        return Err(ErrorCode::BodyTooLarge.into());
    }
    let name = wanted_name(identity, &parts.headers)?;
    let at_most = limits.max_stream_deadline;
    let more = if allowed < at_most { More::OnRequest { at_most } } else { More::ByOperator };
    let bounds = Bounds { deadline, stall: limits.stall_timeout, more };
    let (opened, slot) = open(app, identity, name.as_deref(), bounds, access).await?;
    let request = Forward {
        expects_continue: parts.headers.contains_key(header::EXPECT),
        headers: headers::toward_desktop(parts.headers),
        method: parts.method.clone(),
        target: path.to_owned(),
        size,
        body,
        scope: identity.scope.bits(),
        request_id: access.id,
    };
    let (head, body) = proxy::forward(opened, request, limits.max_body).await?;
    let prefix = capability.map_or("", |capability| capability.prefix);
    let response = respond(head, body, &parts.method, prefix, path, access);
    // An HTTP/2 caller may give no window for a single byte.
    let watch = if parts.version == Version::HTTP_2 { Watch::Now } else { Watch::WhenLarge };
    let bytes_down = app.metrics.bytes_down.clone();
    let observer = (app.model_figures && access.endpoint.runs_a_model())
        .then(|| Shape::of(response.status(), response.headers()))
        .flatten()
        .map(|shape| Box::new(Observer::new(shape, access.arrived)));
    Ok(response.map(|body| Unlogged { body, slot, watch, bytes_down, observer }))
}

/// Opens a stream to the desktop that takes this request. A tunnel that ends just now is no reason to fail: nothing was
/// sent on it.
async fn open(
    app: &App,
    identity: &Identity,
    name: Option<&str>,
    bounds: Bounds,
    access: &mut Access,
) -> Result<(Opened, Option<OwnedSemaphorePermit>), Refusal> {
    loop {
        let found = app.registry.find(&identity.user, name, bounds.deadline).await;
        let tunnel = found.map_err(|offline| match name {
            _ if app.is_draining() => ErrorCode::Draining.into(),
            Some(_) if offline.others => Refusal::desktop_offline(),
            _ => Refusal::offline(offline.since),
        })?;
        access.tunnel(tunnel.id);
        let slot = app.registry.admit_stream(&identity.user).map_err(|_| Refusal::new(ErrorCode::TooManyStreams))?;
        match proxy::open(&tunnel.session, bounds).await {
            Ok(opened) => return Ok((opened, slot)),
            Err(NotOpened::Late(refusal)) => return Err(refusal),
            Err(NotOpened::TooMany) if tunnel.takes_requests() || app.is_draining() => {
                return Err(Refusal::new(ErrorCode::TooManyStreams).because("too many streams on this tunnel"));
            }
            Err(NotOpened::Gone | NotOpened::TooMany) => {}
        }
    }
}

/// Turns what came over the tunnel into a response for the caller.
fn respond(
    head: tunnel_frame::ResponseHead,
    mut body: proxy::ResponseBody,
    method: &Method,
    prefix: &str,
    path: &str,
    access: &Access,
) -> Response<proxy::ResponseBody> {
    let mut headers = headers::from_desktop(head.headers, prefix);
    let no_body = *method == Method::HEAD || head.status == StatusCode::NOT_MODIFIED;
    if let BodySize::Known(size) = head.body
        && no_body
    {
        headers.insert(header::CONTENT_LENGTH, size.into());
    }
    if no_body || head.status == StatusCode::NO_CONTENT {
        body.forget_size();
    }
    if let Some(format) = StreamFormat::of(&headers, path) {
        body.with_terminal_record(format, access.id);
    }
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = headers;
    response
}

/// `Tunnel-Deadline: 90s`.
fn asked_deadline(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let mut values = headers.get_all(TUNNEL_DEADLINE).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let asked = value.to_str().ok().and_then(|text| humantime::parse_duration(text.trim()).ok());
    match asked {
        Some(asked) if !asked.is_zero() && values.next().is_none() => Ok(Some(asked)),
        _ => {
            let message = "Tunnel-Deadline is not a duration; write it as in '90s' or '2m'.";
            Err(Refusal::with_message(ErrorCode::BadRequest, message))
        }
    }
}

/// The desktop that a request must go to: the one that its token is bound to, else the one it asks for.
fn wanted_name(identity: &Identity, headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all(TUNNEL_NAME).iter();
    let asked = match (values.next().map(|name| name.to_str()), values.next()) {
        (None, _) => None,
        (Some(Ok(name)), None) => Some(name.to_owned()),
        _ => return Err(Refusal::with_message(ErrorCode::BadRequest, "Tunnel-Name is not one plain name.")),
    };
    Ok(identity.tunnel.clone().or(asked))
}

fn body_size(body: &RequestBody, headers: &HeaderMap) -> BodySize {
    match body.size_hint().exact() {
        Some(0) if !headers.contains_key(header::CONTENT_LENGTH) => BodySize::Empty,
        Some(size) => BodySize::Known(size),
        None => BodySize::Unknown,
    }
}

/// A response body whose log line is still with the edge.
pub(super) struct Unlogged {
    body: proxy::ResponseBody,
    slot: Option<OwnedSemaphorePermit>,
    watch: Watch,
    bytes_down: IntCounter,
    observer: Option<Box<Observer>>,
}

impl Unlogged {
    /// From now on the log line ends with the body.
    pub(super) fn log(mut self, access: Box<Access>) -> Forwarded {
        let lease = Arc::new(Lease { held: Mutex::new(Some((access, self.slot))), bytes: AtomicU64::new(0) });
        let watched = Arc::clone(&lease);
        self.body.watch(self.watch, move |refusal| watched.end(&Ending::Cut(refusal), None));
        Forwarded { body: self.body, lease, bytes_down: self.bytes_down, observer: self.observer }
    }
}

/// What ends with a stream: the log line and the user's slot. A caller that does not read keeps neither for longer than
/// its deadline.
struct Lease {
    held: Mutex<Option<(Box<Access>, Option<OwnedSemaphorePermit>)>>,
    /// Of the body, handed on so far.
    bytes: AtomicU64,
}

impl Lease {
    fn end(&self, ending: &Ending, figures: Option<Figures>) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((mut access, _slot)) = held {
            access.ended(self.bytes.load(Ordering::Relaxed), ending, figures);
        }
    }
}

/// A forwarded body, with what ends when it does.
pub(crate) struct Forwarded {
    body: proxy::ResponseBody,
    lease: Arc<Lease>,
    /// Of all bodies.
    bytes_down: IntCounter,
    /// Only for what a model says.
    observer: Option<Box<Observer>>,
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        let figures = self.observer.take().map(|observer| observer.figures());
        self.lease.end(&self.body.ending(), figures);
    }
}

impl Body for Forwarded {
    type Data = Bytes;
    type Error = proxy::BodyCut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, proxy::BodyCut>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.lease.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
            self.bytes_down.inc_by(data.len() as u64);
            if let Some(observer) = &mut self.observer {
                observer.observe(data);
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
