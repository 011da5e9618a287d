//! What the operator can ask: health, metrics, tunnels and revocations.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tracing::info;
use tunnel_frame::{Close, CloseCode};

use super::{Answer, Content, not_found, page, refuse};
use crate::{
    auth::revocation::{Revocation, RevocationsError, Subject},
    registry::Tunnel,
    server::App,
};

/// Bytes of a request's body, and how long it may take.
const MAX_BODY: usize = 16 * 1024;
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// Health and metrics need no token.
pub(super) fn is_open<B>(request: &Request<B>) -> bool {
    request.method() == Method::GET && matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics")
}

/// What a person looks at in a browser.
pub(super) fn is_page<B>(request: &Request<B>) -> bool {
    request.method() == Method::GET && request.uri().path() == "/"
}

/// Answers one request of somebody who may ask.
pub(super) async fn answer(app: &Arc<App>, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let path: Vec<&str> = parts.uri.path().split('/').skip(1).collect();
    match (parts.method.as_str(), &path[..]) {
        ("GET", [""]) => {
            let (html, policy) = page::page(app);
            (StatusCode::OK, Content::Page(html, policy))
        }
        ("GET", ["healthz"]) => (StatusCode::OK, json!({ "status": "ok" }).into()),
        ("GET", ["readyz"]) if app.is_draining() => {
            (StatusCode::SERVICE_UNAVAILABLE, json!({ "status": "draining" }).into())
        }
        ("GET", ["readyz"]) => (StatusCode::OK, json!({ "status": "ready" }).into()),
        ("GET", ["metrics"]) => (StatusCode::OK, Content::Metrics(app.metrics.text(app))),
        ("GET", ["tunnels"]) => {
            let tunnels: Vec<_> = app.registry.all().iter().map(|tunnel| about(tunnel)).collect();
            (StatusCode::OK, json!({ "tunnels": tunnels }).into())
        }
        ("POST", ["tunnels", id, "kick"]) => kick(app, id),
        ("GET", ["revocations"]) => list(app),
        ("POST", ["revocations"]) => {
            let body = timeout(BODY_WITHIN, Limited::new(body, MAX_BODY).collect()).await;
            let Ok(Ok(body)) = body else {
                return refuse(StatusCode::BAD_REQUEST, "the body is over 16 KiB, or did not come");
            };
            revoke(app, &body.to_bytes()).await
        }
        ("DELETE", ["revocations", id]) => restore(app, (*id).to_owned()).await,
        _ => not_found(),
    }
}

fn about(tunnel: &Tunnel) -> Value {
    json!({
        "id": tunnel.id.to_string(),
        "user": tunnel.user.subject(),
        "issuer": tunnel.user.issuer(),
        "name": tunnel.name,
        "since": humantime::format_rfc3339_seconds(tunnel.since).to_string(),
        "client": tunnel.client,
        "in_flight": tunnel.session.streams(),
        "rtt_ms": tunnel.session.rtt().map(|rtt| (rtt.as_secs_f64() * 1e5).round() / 100.0),
        "draining": !tunnel.takes_requests(),
        "upstream": tunnel.models(),
    })
}

/// Closes a tunnel at once. Its desktop may connect again, and does.
fn kick(app: &App, id: &str) -> Answer {
    let Some(tunnel) = app.registry.all().into_iter().find(|tunnel| tunnel.id.to_string() == id) else {
        return refuse(StatusCode::NOT_FOUND, "there is no such tunnel; GET /tunnels lists those that are");
    };
    info!(user = tunnel.user.subject(), tunnel = %tunnel.id, "kicked");
    tunnel.drain();
    tunnel.session.close(Close::new(CloseCode::GoingAway, "the operator disconnected this desktop"));
    (StatusCode::OK, json!({ "kicked": id }).into())
}

fn list(app: &App) -> Answer {
    let revocations = app.authenticator.revocations();
    let all: Vec<_> = revocations.all().iter().map(with_id).collect();
    (StatusCode::OK, json!({ "revocations": all, "persisted": revocations.are_kept() }).into())
}

async fn revoke(app: &Arc<App>, body: &[u8]) -> Answer {
    let now = SystemTime::now();
    let revocation = match Revocation::from_json(body, now) {
        Ok(revocation) if revocation.at > now => {
            return refuse(StatusCode::BAD_REQUEST, "\"at\" lies in the future; leave it out for now");
        }
        Ok(revocation) => revocation,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let mut answer = with_id(&revocation);
    info!(revocation = %answer, "revoked");
    let next_second = revocation.at + Duration::from_secs(1);
    let is_user = matches!(revocation.subject, Subject::User(_));
    let kept = on_disk(app, move |app| app.authenticator.revoke(revocation)).await;
    if is_user {
        // Tokens say when they were issued to the second: whoever waits for this answer mints one that is good.
        sleep(next_second.duration_since(SystemTime::now()).unwrap_or_default()).await;
    }
    answer["persisted"] = (kept.is_ok() && app.authenticator.revocations().are_kept()).into();
    match kept {
        Ok(()) => (StatusCode::CREATED, answer.into()),
        Err(error) => not_kept(answer, &error),
    }
}

/// Takes a revocation back.
async fn restore(app: &Arc<App>, id: String) -> Answer {
    match on_disk(app, move |app| app.authenticator.revocations().remove(&id)).await {
        Ok(Some(revocation)) => {
            let answer = with_id(&revocation);
            info!(revocation = %answer, "no longer revoked");
            (StatusCode::OK, answer.into())
        }
        Ok(None) => refuse(StatusCode::NOT_FOUND, "there is no such revocation; GET /revocations lists those that are"),
        Err(error) => not_kept(json!({}), &error),
    }
}

async fn on_disk<T: Send + 'static>(app: &Arc<App>, write: impl FnOnce(&App) -> T + Send + 'static) -> T {
    let app = Arc::clone(app);
    spawn_blocking(move || write(&app)).await.expect("files do not make it panic")
}

fn not_kept(mut answer: Value, error: &RevocationsError) -> Answer {
    answer["persisted"] = false.into();
    answer["error"] = format!("in force now, but lost with this process: {error}").into();
    (StatusCode::INTERNAL_SERVER_ERROR, answer.into())
}

fn with_id(revocation: &Revocation) -> Value {
    let mut value = revocation.to_json();
    value["id"] = revocation.id().into();
    value
}
