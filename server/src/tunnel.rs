//! The desktops' side: from the upgrade request to the end of the tunnel.
//!
//! [`accept`] decides while the connection is still HTTP, so that every refusal is an HTTP answer; [`run`] is a
//! tunnel's life. Knows nothing of the requests that go through it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role as WsRole},
};
use tracing::{Instrument, info, info_span, warn};
use tunnel_frame::{Close, CloseCode, Control, Driver, Event, Pulse, Role, Session, Welcome, limits};
use uuid::Uuid;

use crate::{
    auth::{AuthError, Identity, LEEWAY, Scope},
    edge::{self, TUNNEL_NAME, access::Access, credential},
    error::{ErrorCode, Refusal},
    id::UserId,
    id::is_desktop_name,
    registry::{AdmitError, Admitted, Tunnel},
    server::App,
};

/// Where desktops connect.
pub(crate) const PATH: &str = "/ws/tunnel";

/// The name of a desktop that gives none.
const UNNAMED: &str = "desktop";

/// Longest `User-Agent` that is remembered, in bytes.
const MAX_CLIENT: usize = 64;

/// Set in a handshake that only wants to know whether one would succeed: it registers nothing.
const PROBE: &str = "tunnel-probe";

/// How long a probe may look around.
const PROBE_WITHIN: Duration = Duration::from_secs(10);

/// How long the streams of a tunnel that drains may go on.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// Answers an upgrade request; the tunnel's task starts when the answer is on its way.
pub(crate) async fn accept(
    app: &Arc<App>,
    mut request: Request<Incoming>,
    access: &mut Access,
) -> Result<Response<Bytes>, Refusal> {
    let credential = credential::find(request.headers(), None)?;
    let identity = edge::authenticate(app, &credential).await?;
    access.user(&identity.user);
    if !identity.scope.contains(Scope::CONNECT) {
        return Err(Refusal::scope(identity.scope, "connect"));
    }
    let key = websocket_key(&request)?;
    if app.is_draining() {
        return Err(ErrorCode::Draining.into());
    }
    let desktop = Desktop::of(&identity, request.headers())?;
    let url = app.public_url(request.headers());
    if request.headers().contains_key(PROBE) {
        let place = app.admission.probe().ok_or(ErrorCode::Overloaded)?;
        let upgrade = hyper::upgrade::on(&mut request);
        app.tasks.spawn(timeout(PROBE_WITHIN, async move {
            probed(upgrade, identity, desktop, url).await;
            drop(place);
        }));
        return Ok(switching_protocols(&key));
    }
    app.registry.may_admit(&identity.user, &desktop.name, desktop.instance).await.map_err(refusal)?;
    // Last: who is refused takes no room from others.
    if !app.admission.tunnels.admit() {
        return Err(ErrorCode::Overloaded.into());
    }
    let upgrade = hyper::upgrade::on(&mut request);
    app.tasks.spawn(establish(Arc::clone(app), upgrade, identity, desktop, url).in_current_span());
    Ok(switching_protocols(&key))
}

/// What a desktop says of itself.
struct Desktop {
    name: Box<str>,
    instance: Uuid,
    client: Box<str>,
}

impl Desktop {
    fn of(identity: &Identity, headers: &HeaderMap) -> Result<Self, Refusal> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let name = text(TUNNEL_NAME.as_str()).or(identity.tunnel.as_deref()).unwrap_or(UNNAMED);
        if !is_desktop_name(name) {
            let message =
                "The name of a desktop must have 1 to 64 characters of visible ASCII; choose another with --name.";
            return Err(Refusal::with_message(ErrorCode::BadRequest, message));
        }
        if identity.tunnel.as_deref().is_some_and(|only| only != name) {
            let message =
                "This token is for a desktop of another name; connect with that --name, or mint another token.";
            return Err(Refusal::with_message(ErrorCode::NotAllowed, message));
        }
        let instance = text("tunnel-instance").and_then(|id| Uuid::try_parse(id).ok()).unwrap_or_else(Uuid::now_v7);
        let client = text("user-agent").unwrap_or("unknown");
        let client = client.chars().take(MAX_CLIENT).collect::<String>();
        Ok(Self { name: name.into(), instance, client: client.into() })
    }
}

/// The client's `Sec-WebSocket-Key`, if this is a handshake (RFC 6455 §4.2.1) for a version that we speak.
fn websocket_key(request: &Request<Incoming>) -> Result<HeaderValue, Refusal> {
    let headers = request.headers();
    let lists = |name, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(word))
    };
    let is_handshake = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && lists(header::CONNECTION, "upgrade")
        && lists(header::UPGRADE, "websocket")
        && lists(header::SEC_WEBSOCKET_VERSION, "13");
    match headers.get(header::SEC_WEBSOCKET_KEY) {
        Some(key) if is_handshake && lists(header::SEC_WEBSOCKET_PROTOCOL, limits::SUBPROTOCOL) => Ok(key.clone()),
        _ => Err(ErrorCode::UpgradeRequired.into()),
    }
}

fn switching_protocols(key: &HeaderValue) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).expect("base64");
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(limits::SUBPROTOCOL));
    response
}

fn refusal(error: AdmitError) -> Refusal {
    match error {
        AdmitError::NameInUse => ErrorCode::NameInUse,
        AdmitError::TunnelLimit => ErrorCode::TunnelLimit,
    }
    .into()
}

/// Takes the connection over from hyper, and starts the tunnel. Ends then, so that an idle tunnel keeps nothing of the
/// handshake in memory.
async fn establish(app: Arc<App>, upgrade: OnUpgrade, identity: Arc<Identity>, desktop: Desktop, url: String) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => return warn!(%error, "a desktop left during its handshake"),
    };
    let config = Some(tunnel_frame::websocket_config());
    let ws = WebSocketStream::from_raw_socket(Pulse::new(TokioIo::new(upgraded)), WsRole::Server, config).await;
    let (session, driver) = tunnel_frame::session(ws, Role::Server);
    let Desktop { name, instance, client } = desktop;
    let tunnel = Tunnel::new(identity.user.clone(), name, instance, client, session.clone());
    // What a peer wrote is logged as a string, which the text format quotes and escapes (T35).
    let span = info_span!("tunnel", user = tunnel.user.subject(), tunnel = %tunnel.id, desktop = &*tunnel.name);
    match app.registry.admit(tunnel) {
        Ok(admitted) => {
            let tunnel = admitted.tunnel();
            session.send(welcome(tunnel.id.to_string(), &tunnel.user, &tunnel.name, url));
            app.tasks.clone().spawn(run(app, admitted, identity, driver).instrument(span));
        }
        Err(error) => {
            // Another desktop was faster since the handshake was answered.
            let refusal = refusal(error);
            app.metrics.rejected_handshake(refusal.code().as_str());
            session.close(Close::new(CloseCode::Replaced, refusal.message()));
            app.tasks.spawn(async move { driver.run(|_| ()).await });
        }
    }
}

/// A tunnel that takes no requests, for `tunnel doctor`: the welcome, answers to pings, and the end.
async fn probed(upgrade: OnUpgrade, identity: Arc<Identity>, desktop: Desktop, url: String) {
    let Ok(upgraded) = upgrade.await else { return };
    let config = Some(tunnel_frame::websocket_config());
    let ws = WebSocketStream::from_raw_socket(Pulse::new(TokioIo::new(upgraded)), WsRole::Server, config).await;
    let (session, driver) = tunnel_frame::session(ws, Role::Server);
    session.send(welcome("probe".to_owned(), &identity.user, &desktop.name, url));
    driver.run(|_| ()).await;
}

fn welcome(tunnel: String, user: &UserId, name: &str, url: String) -> Control {
    Control::Welcome(Welcome {
        tunnel,
        user: user.subject().to_owned(),
        name: name.to_owned(),
        url,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// A tunnel's life: it ends by itself, or is closed when its token expires or is good no more, when another takes its
/// place, or when the server stops.
async fn run(app: Arc<App>, admitted: Admitted, identity: Arc<Identity>, driver: Driver<TokioIo<Upgraded>>) {
    let tunnel = Arc::clone(admitted.tunnel());
    app.metrics.connected(admitted.arrival());
    info!(client = &*tunnel.client, instance = %tunnel.instance, "desktop connected");
    let ended = {
        let mut driver = std::pin::pin!(driver.run(|event| match event {
            Event::Control(Control::Drain { reason }) => {
                info!(reason, "desktop drains");
                tunnel.drain();
            }
            Event::Control(Control::Models(models)) => tunnel.offers(models),
            Event::Control(_) | Event::Stream(_) => {}
        }));
        let life = async {
            tokio::select! {
                () = expiry(&identity) => {
                    tunnel.drain();
                    Close::new(CloseCode::TokenExpired, "the token of this tunnel has expired")
                }
                () = tunnel.replaced.cancelled() => {
                    drain(&tunnel.session, "another tunnel of this desktop took over").await;
                    Close::new(CloseCode::Replaced, "another tunnel of this desktop took over")
                }
                () = app.draining.cancelled() => {
                    // Callers that are still connected here are served until they have gone.
                    tunnel.session.send(Control::Drain { reason: "the server restarts".to_owned() });
                    let unused = async {
                        app.deserted.cancelled().await;
                        tunnel.session.idle().await;
                    };
                    _ = timeout(DRAIN_WITHIN, unused).await;
                    Close::new(CloseCode::GoingAway, "the server restarts")
                }
            }
        };
        tokio::select! {
            ended = &mut driver => ended,
            close = life => {
                tunnel.session.close(close);
                driver.await
            }
            // Also while it drains.
            error = app.authenticator.refused(&identity) => {
                tunnel.drain();
                tunnel.session.close(refused(error));
                driver.await
            }
        }
    };
    drop(admitted);
    app.metrics.disconnected(&ended);
    info!(ended = ended.to_string(), "desktop disconnected");
}

/// What a desktop is told whose token was good when it connected. A replaced key is no judgement on the desktop: it may
/// come back with a new token. A revocation is final.
fn refused(error: AuthError) -> Close {
    if error == AuthError::Revoked {
        return Close::new(CloseCode::TokenRevoked, "the token of this tunnel was revoked");
    }
    Close::new(CloseCode::TokenExpired, "the key of this tunnel's token was replaced; a new token is needed")
}

/// Tells the desktop to connect anew, and gives the streams time to finish.
async fn drain(session: &Session, reason: &str) {
    session.send(Control::Drain { reason: reason.to_owned() });
    _ = timeout(DRAIN_WITHIN, session.idle()).await;
}

/// The moment at which a tunnel's token is too old, by the wall clock, whatever happens to it.
async fn expiry(identity: &Identity) {
    /// A clock that jumps is noticed within this time.
    const LOOK_EVERY: Duration = Duration::from_secs(60);
    let last = identity.expires + LEEWAY;
    while let Ok(left) = last.duration_since(SystemTime::now()) {
        sleep(left.clamp(Duration::from_millis(1), LOOK_EVERY)).await;
    }
}
