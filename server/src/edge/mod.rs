//! The public side: every request comes here first, and every answer leaves from here.
//!
//! `handle` reads top to bottom: own endpoints, preflight, checks, credential, scope, desktop, proxy. What each step
//! decides is in a file of its own:
//! * [`target`]: what a request may look like; [`capability`] and [`credential`]: where its token is.
//! * `forward`: the way to the desktop and back; [`headers`]: what crosses the tunnel; [`cors`]: which web pages may
//!   read an answer.
//! * `own`: health, status and where to sign in; `ticks`: whether answers stream; `web`: the web client; `trace`: whose
//!   trace it is part of; `access`: the log line. The one table of errors is [`crate::error`].

pub(crate) mod access;
pub mod capability;
pub mod cors;
pub mod credential;
mod forward;
pub mod headers;
mod linger;
mod own;
pub(crate) mod peer;
pub mod target;
mod ticks;
mod trace;
pub(crate) mod web;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use tunnel_frame::policy::is_inference;
use tunnel_oidc::Login;

use self::{
    access::Access,
    capability::Capability,
    credential::{Credential, Source},
    linger::RequestBody,
    peer::Peer,
};
use crate::{
    auth::{Identity, Scope},
    error::{ErrorCode, Refusal, X_REQUEST_ID, body::BodyShape},
    server::App,
    tunnel,
};

/// Asks for one of several desktops by its name.
pub(crate) const TUNNEL_NAME: HeaderName = HeaderName::from_static("tunnel-name");

/// What a browser wants a response for (W3C Fetch Metadata).
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// A response: ours, or one that comes over a tunnel.
pub(crate) type EdgeBody = Either<Full<Bytes>, Either<forward::Forwarded, ticks::Ticks>>;

/// How a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// As the server is configured: over TLS, or over plain HTTP from a proxy.
    Expected,
    /// In the clear where TLS was expected: `http://` was written for `https://`.
    InTheClear,
}

/// Answers one request.
pub(crate) async fn handle(
    app: Arc<App>,
    peer: &Peer,
    channel: Channel,
    mut request: Request<Incoming>,
) -> Response<EdgeBody> {
    let target = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let capability = capability::split(&target);
    let path = capability.as_ref().map_or(target.as_str(), |capability| &capability.rest);
    let client = app.client(peer, request.headers());
    let mut access = Access::new(Arc::clone(&app.metrics), client, request.method(), &target, path);
    access.trace = trace::check(request.headers_mut());
    let id = access.id;
    let origin = app.cors.origin(request.headers());
    let is_head = request.method() == Method::HEAD;
    let is_http1 = request.version() != Version::HTTP_2;
    let answer = match channel {
        Channel::Expected => route(&app, request, capability.as_ref(), path, &mut access).await,
        Channel::InTheClear => Err(in_the_clear(&app, request)),
    };
    let deadline = access.deadline;
    let mut response = match answer {
        Ok(Answer::Ours(response)) => ours(access, response, is_head),
        Ok(Answer::Ticks(response)) => {
            access.answered(response.status());
            response.map(|body| Either::Right(Either::Right(body)))
        }
        Ok(Answer::Forwarded(response)) => {
            access.answered(response.status());
            response.map(|body| Either::Right(Either::Left(body.log(access))))
        }
        Err(refusal) => {
            access.refused(&refusal);
            let mut response = refusal.response(BodyShape::of(path), &id);
            if is_http1 && refusal.leaves_doubt() {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            ours(access, response, is_head)
        }
    };
    let ends = is_http1 && app.is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    if ends {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close")); // there is another server by now
    }
    headers.insert(X_REQUEST_ID, HeaderValue::from_str(id.as_str()).expect("hexadecimal digits"));
    if let Some(deadline) = deadline {
        let value = HeaderValue::try_from(format!("{}ms", deadline.as_millis())).expect("a number and a unit");
        headers.insert(forward::TUNNEL_DEADLINE, value);
    }
    if capability.is_some() {
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")); // T33
    }
    app.cors.decorate(origin, headers);
    response
}

/// The same for every request, whatever it asks for and whoever sends it: nobody is asked for a token in the clear.
fn in_the_clear(app: &App, request: Request<Incoming>) -> Refusal {
    let (parts, body) = request.into_parts();
    drop(RequestBody::new(body, &parts, app)); // it lingers
    Refusal::with_message(ErrorCode::BadRequest, "This port speaks HTTPS; write https:// for http:// in the address.")
        .because("plain HTTP where TLS was expected")
}

/// What a request is answered with, if it is not refused.
enum Answer {
    Ours(Response<Bytes>),
    Ticks(Response<ticks::Ticks>),
    Forwarded(Box<Response<forward::Unlogged>>),
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
        tunnel::PATH => {
            // In a box, like the way through the tunnel below: each call of a function moves its whole state.
            let accepted = Box::pin(tunnel::accept(app, request, access)).await;
            let refused = |refusal: &Refusal| app.metrics.rejected_handshake(refusal.code().as_str());
            return accepted.inspect_err(refused).map(Answer::Ours);
        }
        "/healthz" | "/api/tunnel/health" => {
            return Ok(Answer::Ours(own::health(StatusCode::OK, "{\"status\":\"ok\"}\n")));
        }
        "/readyz" if app.is_draining() => {
            return Ok(Answer::Ours(own::health(StatusCode::SERVICE_UNAVAILABLE, "{\"status\":\"draining\"}\n")));
        }
        "/readyz" => return Ok(Answer::Ours(own::health(StatusCode::OK, "{\"status\":\"ready\"}\n"))),
        Login::PATH => return own::login(app.login.as_ref()).map(Answer::Ours),
        _ => {}
    }
    let (parts, body) = request.into_parts();
    let body = RequestBody::new(body, &parts, app);
    access.bytes_up = body.received();
    if let Some(preflight) = app.cors.preflight(&parts) {
        return Ok(Answer::Ours(preflight));
    }
    target::check(&parts)?;
    if let Some(answer) = app.web.answer(&parts) {
        return answer.map(Answer::Ours);
    }
    if capability.is_some() && is_part_of_a_page(&parts.headers) {
        let message = "A page may not load scripts or styles from a desktop; read its answers with fetch().";
        return Err(Refusal::with_message(ErrorCode::NotAllowed, message));
    }
    // What a page is told that may not call at all: not that it should send a token, which a preflight never carries.
    let is_foreign = app.cors.is_foreign_preflight(&parts);
    let refuse = |refusal| if is_foreign { Refusal::foreign_origin() } else { refusal };
    let credential = credential::find(&parts.headers, capability).map_err(refuse)?;
    let identity = authenticate(app, &credential).await?;
    access.user(&identity.user);
    let only_path = path.split_once('?').map_or(path, |(path, _)| path);
    if identity.scope.is_empty() {
        return Err(credential.source.refuse(Refusal::scope(identity.scope, "proxy")));
    }
    if only_path == "/api/tunnel/status" {
        return Ok(Answer::Ours(own::status(&app.registry, &identity)));
    }
    if only_path == "/api/tunnel/ticks" && capability.is_none() {
        return Ok(Answer::Ticks(ticks::ticks()));
    }
    authorise(&identity, &parts.method, only_path).map_err(|refusal| credential.source.refuse(refuse(refusal)))?;
    if credential.source == Source::Capability && parts.method == Method::HEAD && only_path == "/" {
        // The Ollama CLI asks this before each command, and shows nothing of an error.
        return Ok(Answer::Ours(Response::new(Bytes::new())));
    }
    let response = Box::pin(forward::forward(app, &identity, parts, body, capability, path, access)).await?;
    Ok(Answer::Forwarded(Box::new(response)))
}

/// Whether a browser wants to run this, or to style a page with it. The web client may run what is of our origin, and under
/// `/t/` a desktop answers there, to whoever has a token for it (T59). Other credentials cannot be sent that way.
fn is_part_of_a_page(headers: &HeaderMap) -> bool {
    const PARTS: [&[u8]; 9] = [
        b"audioworklet",
        b"json",
        b"paintworklet",
        b"script",
        b"serviceworker",
        b"sharedworker",
        b"style",
        b"worker",
        b"xslt",
    ];
    headers.get_all(SEC_FETCH_DEST).iter().any(|part| PARTS.contains(&part.as_bytes()))
}

/// Who sends this.
pub(crate) async fn authenticate(app: &App, credential: &Credential<'_>) -> Result<Arc<Identity>, Refusal> {
    let verified = app.authenticator.identify(&credential.token).await;
    let identity = verified.map_err(|error| credential.source.refuse(error))?;
    // Paths end up in histories and logs: what they give away must not be a whole desktop (T62).
    if credential.source == Source::Capability && identity.scope.contains(Scope::CONNECT) {
        let message = "A token that may connect a desktop is refused in a path; mint one with 'tunneld token --url'.";
        return Err(Refusal::with_message(ErrorCode::ScopeDenied, message).in_path());
    }
    Ok(identity)
}

/// Whether the token's scope covers this request (T40, T64).
fn authorise(identity: &Identity, method: &Method, path: &str) -> Result<(), Refusal> {
    let (wanted, needed) = if is_inference(method, path) { (Scope::INFER, "infer") } else { (Scope::PROXY, "proxy") };
    if identity.scope.contains(wanted) { Ok(()) } else { Err(Refusal::scope(identity.scope, needed)) }
}

/// A response of ours. One to HEAD has the length of its body, but not the body (RFC 9110 §9.3.2).
fn ours(mut access: Box<Access>, mut response: Response<Bytes>, is_head: bool) -> Response<EdgeBody> {
    access.answered(response.status());
    if is_head && response.status() != StatusCode::NOT_MODIFIED {
        let body = std::mem::take(response.body_mut());
        response.headers_mut().insert(header::CONTENT_LENGTH, body.len().into());
    }
    response.map(|bytes| Either::Left(Full::new(bytes)))
}
