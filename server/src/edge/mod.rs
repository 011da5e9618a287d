//! The public side: every request comes here first, and every answer leaves from here.
//!
//! [`handle`] reads top to bottom: own endpoints, preflight, checks, credential, scope, desktop, proxy. What each step
//! decides is in a file of its own:
//! * [`target`]: what a request may look like; [`capability`] and [`credential`]: where its token is.
//! * [`headers`]: what crosses the tunnel in either direction; [`cors`]: which web pages may read an answer.
//! * [`error`]: the one table of errors; `own`: health and status; `access`: the log line.

pub(crate) mod access;
pub mod capability;
pub mod cors;
pub mod credential;
pub mod error;
pub mod headers;
mod own;
pub mod target;

use std::{
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tunnel_frame::{BodySize, policy::is_inference};

use self::{
    access::Access,
    capability::Capability,
    credential::{Credential, Source},
    error::{
        ErrorCode, Refusal, X_REQUEST_ID,
        body::{BodyShape, StreamFormat},
    },
};
use crate::{
    auth::{AuthError, Identity, Scope},
    proxy::{self, Bounds, Forward},
    server::App,
    tunnel,
};

/// Asks for a deadline, and says in the response which one holds.
const TUNNEL_DEADLINE: HeaderName = HeaderName::from_static("tunnel-deadline");

/// Asks for one of several desktops by its name.
pub(crate) const TUNNEL_NAME: HeaderName = HeaderName::from_static("tunnel-name");

/// A response: ours, or one that comes over a tunnel.
pub(crate) type EdgeBody = Either<Full<Bytes>, Forwarded>;

/// Answers one request.
pub(crate) async fn handle(app: Arc<App>, client: IpAddr, request: Request<Incoming>) -> Response<EdgeBody> {
    let target = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let capability = capability::split(&target);
    let path = capability.as_ref().map_or(target.as_str(), |capability| &capability.rest);
    let mut access = Access::new(app.client_address(client, request.headers()), request.method(), &target);
    let id = access.id.clone();
    let origin = app.cors.origin(request.headers());
    let is_head = request.method() == Method::HEAD;
    let answer = route(&app, request, capability.as_ref(), path, &mut access).await;
    let mut response = match answer {
        Ok(Answer::Ours(response)) => ours(access, response),
        Ok(Answer::Forwarded(response)) => forwarded(access, *response),
        Err(refusal) => {
            access.refused(&refusal);
            let mut response = refusal.response(BodyShape::of(path), &id);
            if is_head {
                *response.body_mut() = Bytes::new();
            }
            ours(access, response)
        }
    };
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, HeaderValue::try_from(id.to_string()).expect("hexadecimal digits"));
    app.cors.decorate(origin, headers);
    response
}

/// What a request is answered with, if it is not refused.
enum Answer {
    Ours(Response<Bytes>),
    Forwarded(Box<Response<(proxy::ResponseBody, Option<OwnedSemaphorePermit>)>>),
}

async fn route(
    app: &Arc<App>,
    request: Request<Incoming>,
    capability: Option<&Capability<'_>>,
    path: &str,
    access: &mut Access,
) -> Result<Answer, Refusal> {
    let uri_path = request.uri().path();
    match uri_path {
        tunnel::PATH => return tunnel::accept(app, request, access).await.map(Answer::Ours),
        "/healthz" | "/api/tunnel/health" => {
            return Ok(Answer::Ours(own::health(StatusCode::OK, "{\"status\":\"ok\"}\n")));
        }
        "/readyz" if app.is_draining() => {
            return Ok(Answer::Ours(own::health(StatusCode::SERVICE_UNAVAILABLE, "{\"status\":\"draining\"}\n")));
        }
        "/readyz" => return Ok(Answer::Ours(own::health(StatusCode::OK, "{\"status\":\"ready\"}\n"))),
        _ => {}
    }
    let (parts, body) = request.into_parts();
    if let Some(preflight) = app.cors.preflight(&parts) {
        return Ok(Answer::Ours(preflight));
    }
    target::check(&parts)?;
    let credential = credential::find(&parts.headers, capability)?;
    let identity = authenticate(app, &credential)?;
    access.user(&identity.user);
    let only_path = path.split_once('?').map_or(path, |(path, _)| path);
    if only_path == "/api/tunnel/status" {
        return Ok(Answer::Ours(own::status(&app.registry, &identity.user)));
    }
    authorise(&identity, &parts.method, only_path).map_err(|refusal| credential.source.refuse(refusal))?;
    if credential.source == Source::Capability && parts.method == Method::HEAD && only_path == "/" {
        // The Ollama CLI asks this before each command, and shows nothing of an error.
        return Ok(Answer::Ours(Response::new(Bytes::new())));
    }
    forward(app, &identity, parts, body, capability, path, access).await
}

/// Who sends this.
pub(crate) fn authenticate(app: &App, credential: &Credential<'_>) -> Result<Arc<Identity>, Refusal> {
    let identity = app.authenticator.verify(&credential.token).map_err(|error| {
        let code = match error {
            AuthError::Invalid(_) => ErrorCode::TokenInvalid,
            AuthError::Expired => ErrorCode::TokenExpired,
            AuthError::NotAllowed => ErrorCode::NotAllowed,
            AuthError::KeysUnavailable => ErrorCode::KeysUnavailable,
        };
        credential.source.refuse(Refusal::new(code).because(error.to_string()))
    })?;
    // Paths end up in histories and logs: what they give away must not be a whole desktop (T62).
    if credential.source == Source::Capability && identity.scope.contains(Scope::CONNECT) {
        let message = "A token that may connect a desktop is refused in a path; mint one with 'tunneld token --url'.";
        return Err(Refusal::with_message(ErrorCode::ScopeDenied, message).in_path());
    }
    Ok(identity)
}

/// Whether the token's scope covers this request (T40, T64).
fn authorise(identity: &Identity, method: &Method, path: &str) -> Result<(), Refusal> {
    if identity.scope.contains(Scope::PROXY) || (identity.scope.contains(Scope::INFER) && is_inference(method, path)) {
        return Ok(());
    }
    Err(ErrorCode::ScopeDenied.into())
}

/// Sends a request to its desktop.
async fn forward(
    app: &Arc<App>,
    identity: &Identity,
    parts: Parts,
    body: Incoming,
    capability: Option<&Capability<'_>>,
    path: &str,
    access: &mut Access,
) -> Result<Answer, Refusal> {
    if app.is_draining() {
        return Err(ErrorCode::Draining.into());
    }
    let limits = &app.limits;
    let asked = asked_deadline(&parts.headers)?;
    let allowed = asked.unwrap_or(limits.stream_deadline).min(limits.max_stream_deadline);
    let deadline = access.arrived + allowed;
    let size = body_size(&body);
    if let (BodySize::Known(size), Some(max)) = (size, limits.max_body)
        && size > max
    {
        return Err(ErrorCode::BodyTooLarge.into());
    }
    let name = wanted_name(identity, &parts.headers)?;
    let tunnel = app
        .registry
        .find(&identity.user, name.as_deref(), deadline)
        .await
        .map_err(|offline| Refusal::offline(offline.since))?;
    access.tunnel(tunnel.id);
    let slot = app.registry.admit_stream(&identity.user).map_err(|_| Refusal::new(ErrorCode::TooManyStreams))?;
    let request = Forward {
        expects_continue: parts.headers.contains_key(header::EXPECT),
        headers: to_desktop(parts.headers),
        method: parts.method.clone(),
        target: path.to_owned(),
        size,
        body,
        scope: identity.scope.bits(),
        request_id: access.id.clone(),
    };
    let bounds = Bounds { deadline, stall: limits.stall_timeout, max_body: limits.max_body };
    let (head, body) = proxy::forward(&tunnel.session, request, bounds).await?;
    let prefix = capability.map_or("", |capability| capability.prefix);
    let mut response = respond(head, body, &parts.method, prefix, path, access);
    if asked.is_some() {
        let value = HeaderValue::try_from(format!("{}ms", allowed.as_millis())).expect("a number and a unit");
        response.headers_mut().insert(TUNNEL_DEADLINE, value);
    }
    Ok(Answer::Forwarded(Box::new(response.map(|body| (body, slot)))))
}

/// The headers for the desktop. Expect travels: the desktop says when its upstream begins to take the body.
fn to_desktop(headers: HeaderMap) -> HeaderMap {
    let expect = headers.get(header::EXPECT).cloned();
    let mut headers = headers::toward_desktop(headers);
    if let Some(expect) = expect {
        headers.insert(header::EXPECT, expect);
    }
    headers
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
        body.with_terminal_record(format, access.id.clone());
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
    let asked = match headers.get(TUNNEL_NAME).map(|name| name.to_str()) {
        None => None,
        Some(Ok(name)) => Some(name.to_owned()),
        Some(Err(_)) => return Err(Refusal::with_message(ErrorCode::BadRequest, "Tunnel-Name is not plain ASCII.")),
    };
    Ok(identity.tunnel.clone().or(asked))
}

fn body_size(body: &Incoming) -> BodySize {
    match body.size_hint().exact() {
        // An announced length of zero and no announcement look alike; neither has a body.
        Some(0) => BodySize::Empty,
        Some(size) => BodySize::Known(size),
        None => BodySize::Unknown,
    }
}

fn ours(mut access: Access, response: Response<Bytes>) -> Response<EdgeBody> {
    access.answered(response.status());
    response.map(|bytes| Either::Left(Full::new(bytes)))
}

fn forwarded(
    mut access: Access,
    response: Response<(proxy::ResponseBody, Option<OwnedSemaphorePermit>)>,
) -> Response<EdgeBody> {
    access.answered(response.status());
    response.map(|(body, slot)| Either::Right(Forwarded { body, access, _slot: slot }))
}

/// A forwarded body, with what ends when it does: the log line and the user's slot.
pub(crate) struct Forwarded {
    body: proxy::ResponseBody,
    access: Access,
    _slot: Option<OwnedSemaphorePermit>,
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        self.access.ended(self.body.received(), &self.body.ending());
    }
}

impl Body for Forwarded {
    type Data = Bytes;
    type Error = proxy::BodyCut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, proxy::BodyCut>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
