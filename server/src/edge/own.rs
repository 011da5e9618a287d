//! The edge's own endpoints: health, readiness, where to sign in, and the caller's desktops.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use tunnel_frame::Models;
use tunnel_oidc::Login;

use crate::{
    auth::Identity,
    error::{ErrorCode, Refusal},
    registry::Registry,
};

/// `GET /api/tunnel/status`.
#[derive(Debug, Serialize)]
struct Status<'a> {
    user: &'a str,
    connected: bool,
    /// When the last desktop was lost, if none is connected and this process saw it. RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    offline_since: Option<String>,
    tunnels: Vec<Desktop<'a>>,
}

#[derive(Debug, Serialize)]
struct Desktop<'a> {
    name: &'a str,
    /// RFC 3339.
    since: String,
    rtt_ms: Option<f64>,
    in_flight: usize,
    client: &'a str,
    /// What it says that its upstream offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<Models>,
}

/// Alive, or ready for work.
pub(super) fn health(status: StatusCode, word: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(word.as_bytes()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The desktops that a token is for, the one that takes requests first.
pub(super) fn status(registry: &Registry, Identity { user, tunnel: bound, .. }: &Identity) -> Response<Bytes> {
    let (tunnels, lost) = registry.list(user);
    let desktops: Vec<_> = tunnels
        .iter()
        .filter(|tunnel| bound.as_ref().is_none_or(|name| **name == *tunnel.name))
        .map(|tunnel| Desktop {
            name: &tunnel.name,
            since: humantime::format_rfc3339_seconds(tunnel.since).to_string(),
            rtt_ms: tunnel.session.rtt().map(|rtt| (rtt.as_secs_f64() * 1e5).round() / 100.0),
            in_flight: tunnel.session.streams(),
            client: &tunnel.client,
            upstream: tunnel.models(),
        })
        .collect();
    let status = Status {
        user: user.subject(),
        connected: !desktops.is_empty(),
        offline_since: lost.map(|lost| humantime::format_rfc3339_seconds(lost).to_string()),
        tunnels: desktops,
    };
    json(&status)
}

/// How to sign in, for who wants a token.
pub(super) fn login(login: Option<&Login>) -> Result<Response<Bytes>, Refusal> {
    login.map(json).ok_or(ErrorCode::NoLogin.into())
}

fn json(value: &impl Serialize) -> Response<Bytes> {
    let json = serde_json::to_vec(value).expect("strings and numbers always serialise");
    let mut response = Response::new(Bytes::from(json));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
