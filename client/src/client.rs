//! The life of a client: dial, serve, and dial again until told to stop or refused for good.
//!
//! One loop in [`Client::run`]. Each tunnel is a task of its own, so that an old one can finish its streams while a
//! new one already stands.

use std::{pin::Pin, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_tungstenite::WebSocketStream;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::debug;
use tunnel_certs::client::ClientTlsError;
use tunnel_frame::{
    Close, CloseCode, Control, Driver, Ended, Event as TunnelEvent, Pulse, Role, Session, Welcome, policy::Policy,
};
use url::Url;

use crate::{
    backoff::Backoff,
    board::Board,
    config::{Config, NoServer, server_url},
    connector::{Connector, Transport},
    dial::{DialError, Dialer, Refusal},
    event::{Connected, Event},
    report,
    shared::Shared,
    stream::Service,
    token::{Token, TokenError},
    upstream::Upstream,
    wake::Clocks,
};

/// How long requests in flight may take to finish when the client stops.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// How often a refusal is tried again once the server had accepted this desktop.
const REFUSED_AGAIN: Duration = Duration::from_secs(30);

/// How often the round-trip time and the token's file are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A tunnel that is to be replaced sooner than this waits like one that failed, or a server that drains each new
/// tunnel would be dialled without end.
const SHORT_LIVED: Duration = Duration::from_secs(1);

/// How long a server may take to answer after this machine has slept. Its side has probably given the tunnel up.
const WAKE_WITHIN: Duration = Duration::from_secs(2);

/// How long the close of the last tunnel may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// A client, configured and not yet connected.
pub struct Client {
    config: Config,
    dialer: Dialer,
    shared: Arc<Shared>,
    board: Board,
    /// One task per tunnel, and one per request.
    tunnels: TaskTracker,
    streams: TaskTracker,
}

/// Why a client cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// No roots of trust.
    #[error("--ca: {0}")]
    Tls(#[from] ClientTlsError),
}

/// Why a client stopped although nobody told it to.
#[derive(Debug, Error)]
pub enum Final {
    /// The server refused this desktop for good.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no token to connect with.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// There is no server to connect to.
    #[error(transparent)]
    NoServer(#[from] NoServer),
}

/// What the loop needs to know between two dials.
#[derive(Default)]
struct Progress {
    backoff: Backoff,
    /// The server has accepted this process before: a refusal may pass.
    accepted: bool,
    /// The tunnel that serves until the next one stands.
    previous: Option<Tunnel>,
}

/// A tunnel that runs.
struct Tunnel {
    session: Session,
    /// Its requests.
    streams: TaskTracker,
    ends: Ends,
}

/// Who ends a tunnel that another has replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// We, when it has no requests: new ones are sent elsewhere by now.
    Here,
    /// The server, which drains: callers that are still connected to it may send more.
    There,
}

impl Tunnel {
    /// Lets the requests in flight finish, and closes. `stopped` is empty and closed when the client stops.
    async fn retire(self, stopped: TaskTracker) {
        const REASON: &str = "another tunnel took over";
        self.session.send(Control::Drain { reason: REASON.into() });
        self.streams.close();
        let over = async {
            match self.ends {
                Ends::Here => self.streams.wait().await,
                Ends::There => tokio::select! {
                    () = self.session.over() => {}
                    () = stopped.wait() => {}
                },
            }
        };
        _ = timeout(DRAIN_WITHIN, over).await;
        self.session.close(Close::new(CloseCode::Normal, REASON));
    }
}

/// Why a tunnel is no longer the one that takes requests.
enum Over {
    /// It ended.
    Ended(Ended),
    /// The server drains it, or there is a new token: connect anew first, it finishes by itself.
    ToReplace,
    /// The client was told to stop.
    Shutdown,
}

impl Client {
    /// A client for this configuration. `events` is told what happens; it must not block.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn new(config: Config, events: impl Fn(Event) + Send + Sync + 'static) -> Result<Self, StartError> {
        let dialer = Dialer::new(Connector::new(config.ca.as_deref(), config.proxies.clone())?);
        let service = Service::new(Upstream::new(&config.to), Policy::new(config.allow.clone()));
        let board = Board::new(&config.to);
        let shared = Shared::new(service, board.clone(), events);
        Ok(Self { config, dialer, shared, board, tunnels: TaskTracker::new(), streams: TaskTracker::new() })
    }

    /// How things stand with it, also while it runs.
    #[must_use]
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// Runs until `shutdown` resolves and the requests in flight are answered.
    ///
    /// # Errors
    /// See [`Final`].
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Final> {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut progress = Progress::default();
        let _watching = AbortOnDropHandle::new(tokio::spawn(self.shared.clone().watch_upstream()));
        let _renewing = AbortOnDropHandle::new(tokio::spawn(self.config.token.clone().keep_fresh()));
        loop {
            let tried = self.config.token.read().ok();
            let dialled = tokio::select! {
                dialled = self.dial(&progress) => dialled,
                () = &mut shutdown => {
                    self.finish().await;
                    return Ok(());
                }
            };
            let wait = match dialled {
                Ok((ws, server, token)) => {
                    let since = Instant::now();
                    let over = self.serve(ws, &server, &token, &mut progress, shutdown.as_mut()).await;
                    progress.backoff.lasted(since.elapsed());
                    match over {
                        Over::Shutdown => return Ok(()),
                        Over::ToReplace if since.elapsed() < SHORT_LIVED => progress.backoff.failed(),
                        Over::ToReplace => continue,
                        Over::Ended(ended) => self.ended(&ended, &mut progress)?,
                    }
                }
                Err(failure) => self.failed(failure, &mut progress)?,
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = self.other_token_than(tried) => {}
                () = &mut shutdown => {
                    self.finish().await;
                    return Ok(());
                }
            }
        }
    }

    /// Waits until the token's file holds another token: reason enough to dial at once.
    async fn other_token_than(&self, tried: Option<Token>) {
        loop {
            sleep(LOOK_EVERY).await;
            if self.config.token.read().is_ok_and(|now| Some(now) != tried) {
                return;
            }
        }
    }

    async fn dial(&self, progress: &Progress) -> Result<(WebSocketStream<Pulse<Transport>>, Url, Token), DialFailure> {
        let token = self.config.token.fresh().await?;
        let server = self.config.server_for(&token)?;
        self.shared.tell(Event::Connecting { server: server.clone(), attempt: progress.backoff.failures() + 1 });
        let ws = self.dialer.dial(&server, &token, &self.config.name_for(&token)).await?;
        Ok((ws, server, token))
    }

    /// Serves one tunnel until it is no longer the one that takes requests.
    async fn serve(
        &self,
        ws: WebSocketStream<Pulse<Transport>>,
        server: &Url,
        token: &Token,
        progress: &mut Progress,
        mut shutdown: Pin<&mut impl Future<Output = ()>>,
    ) -> Over {
        let (session, driver) = tunnel_frame::session(ws, Role::Desktop);
        let (controls, mut control) = mpsc::unbounded_channel();
        let streams = TaskTracker::new();
        let tunnel = self.tunnels.spawn(self.drive(driver, controls, streams.clone()));
        let mut rtt = None;
        let mut welcomed = false;
        let mut clocks = Clocks::now();
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(control) = control.recv() => match control {
                    Control::Welcome(welcome) => {
                        progress.accepted = true;
                        self.retire(progress.previous.take());
                        self.shared.tell(Event::Connected(connected(welcome, server, token)));
                        if self.config.report_models && !std::mem::replace(&mut welcomed, true) {
                            self.tunnels.spawn(report::run(self.shared.clone(), session.clone()));
                        }
                    }
                    Control::Drain { reason } => {
                        debug!(reason, "the server drains this tunnel");
                        self.retire(progress.previous.replace(Tunnel { session, streams, ends: Ends::There }));
                        return Over::ToReplace;
                    }
                    Control::Bye { code, message } => debug!(code, message, "the server says bye"),
                    Control::Models(_) | Control::Unknown => {}
                },
                () = session.over() => {
                    _ = tunnel.await;
                    let gone = || Ended::Lost("the tunnel's task failed".into());
                    return Over::Ended(session.ended().cloned().unwrap_or_else(gone));
                }
                _ = look.tick() => {
                    if clocks.have_slept() && !session.is_alive(WAKE_WITHIN).await {
                        debug!("this machine has slept, and the tunnel did not survive it");
                        session.close(Close::new(CloseCode::GoingAway, "the desktop has slept"));
                        return Over::ToReplace;
                    }
                    if session.rtt() != rtt {
                        rtt = session.rtt();
                        if let Some(rtt) = rtt {
                            self.shared.tell(Event::RoundTrip(rtt));
                        }
                    }
                    // A file that cannot be read just now may be in the middle of being replaced.
                    if self.config.token.read().is_ok_and(|now| now != *token) {
                        debug!("the token's file has changed");
                        self.retire(progress.previous.replace(Tunnel { session, streams, ends: Ends::Here }));
                        return Over::ToReplace;
                    }
                }
                () = &mut shutdown => {
                    self.drain(&session).await;
                    return Over::Shutdown;
                }
            }
        }
    }

    /// Runs a tunnel; each of its streams is a task, counted for the tunnel and for the client.
    fn drive(
        &self,
        driver: Driver<Transport>,
        controls: mpsc::UnboundedSender<Control>,
        streams: TaskTracker,
    ) -> impl Future<Output = ()> + use<> {
        let (shared, all) = (Arc::clone(&self.shared), self.streams.clone());
        async move {
            let ended = driver
                .run(|event| match event {
                    TunnelEvent::Stream(stream) => {
                        // In a box: what tracks and spawns it moves it some ten times.
                        let answer = Box::pin(Arc::clone(&shared).answer(stream));
                        streams.spawn(all.track_future(answer));
                    }
                    TunnelEvent::Control(control) => _ = controls.send(control),
                })
                .await;
            debug!(%ended, "tunnel ended");
        }
    }

    fn retire(&self, tunnel: Option<Tunnel>) {
        if let Some(tunnel) = tunnel {
            self.tunnels.spawn(tunnel.retire(self.streams.clone()));
        }
    }

    /// Takes no new requests, lets those in flight finish, and closes.
    async fn drain(&self, session: &Session) {
        session.send(Control::Drain { reason: "the client stops".into() });
        self.finish().await;
        session.close(Close::new(CloseCode::Normal, "the client stops"));
        self.tunnels.close();
        _ = timeout(CLOSE_WITHIN, self.tunnels.wait()).await;
    }

    /// Lets the requests in flight finish, also those of tunnels that a server drains.
    async fn finish(&self) {
        self.shared.tell(Event::Draining { in_flight: self.shared.in_flight() });
        self.streams.close();
        _ = timeout(DRAIN_WITHIN, self.streams.wait()).await;
    }

    /// What to do after the end of a tunnel: the wait before the next dial.
    fn ended(&self, ended: &Ended, progress: &mut Progress) -> Result<Duration, Final> {
        if let Ended::There(Close { code: CloseCode::TokenRevoked, message }) = ended {
            return Err(Refusal { code: "token_revoked".into(), message: message.clone() }.into());
        }
        let retry_in = progress.backoff.failed();
        self.shared.tell(Event::Disconnected { reason: ended.to_string(), retry_in });
        Ok(retry_in)
    }

    /// What to do after a dial that brought no tunnel: the wait before the next one.
    fn failed(&self, failure: DialFailure, progress: &mut Progress) -> Result<Duration, Final> {
        let reason = match failure {
            DialFailure::Dial(DialError::Refused(refusal)) if progress.accepted => {
                let Refusal { code, message } = refusal;
                self.shared.tell(Event::Refused { code, message, retry_in: REFUSED_AGAIN });
                return Ok(REFUSED_AGAIN);
            }
            DialFailure::Dial(DialError::Refused(refusal)) => return Err(refusal.into()),
            DialFailure::Dial(DialError::Unreachable(reason)) => reason,
            // A token file may be in the middle of being replaced, and an identity provider comes back.
            DialFailure::Token(error) if progress.accepted || error.may_pass() => error.to_string(),
            DialFailure::Token(error) => return Err(error.into()),
            DialFailure::NoServer(error) => return Err(error.into()),
        };
        let retry_in = progress.backoff.failed();
        self.shared.tell(Event::Disconnected { reason, retry_in });
        Ok(retry_in)
    }
}

/// Why a dial brought no tunnel.
#[derive(Debug, Error)]
enum DialFailure {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    NoServer(#[from] NoServer),
}

/// What the server says of this tunnel. An address that is none of a server's is not repeated to people.
fn connected(welcome: Welcome, server: &Url, token: &Token) -> Connected {
    Connected {
        user: welcome.user,
        name: welcome.name,
        public_url: server_url(&welcome.url).unwrap_or_else(|_| server.clone()),
        token_expires: token.claims().expires(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_servers_address_is_taken_from_a_welcome() {
        let (server, token) = (server_url("https://dialled.example").unwrap(), Token::parse("a.b.c").unwrap());
        for (url, shown) in [
            ("https://public.example:8443", "https://public.example:8443/"),
            ("https://a/;$(reboot)", server.as_str()),
            ("https://a;reboot@b", server.as_str()),
            ("data:,$(reboot)", server.as_str()),
            ("", server.as_str()),
        ] {
            let text = String::new;
            let welcome = Welcome { tunnel: text(), user: text(), name: text(), url: url.into(), version: text() };
            assert_eq!(connected(welcome, &server, &token).public_url.as_str(), shown, "{url}");
        }
    }
}
