//! The life of a client: dial, serve, and dial again until told to stop or refused for good.
//!
//! One loop in [`Client::run`]. Each tunnel is a task of its own, so that an old one can finish its streams while a
//! new one already stands.

mod failure;
mod replaced;

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
    Close, CloseCode, Control, Driver, Ended, Event as TunnelEvent, Pulse, Role, Session, policy::Policy,
};
use url::Url;

use self::failure::DialFailure;
pub use self::failure::Final;
use self::replaced::{Ends, Replaced};
use crate::{
    backoff::Backoff,
    board::Board,
    config::Config,
    connector::{Connector, Transport},
    dial::{DialError, Dialer, Refusal},
    event::{Connected, Event},
    report,
    shared::Shared,
    stream::Service,
    token::Token,
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

/// What the loop needs to know between two dials.
#[derive(Default)]
struct Progress {
    backoff: Backoff,
    /// The server has accepted this process before: a refusal may pass.
    accepted: bool,
    /// The tunnel that serves until the next one stands.
    previous: Option<Replaced>,
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
                        self.shared.tell(Event::Connected(Connected::new(welcome, server, token)));
                        if self.config.report_models && !std::mem::replace(&mut welcomed, true) {
                            self.tunnels.spawn(report::run(self.shared.clone(), session.clone()));
                        }
                    }
                    Control::Drain { reason } => {
                        debug!(reason, "the server drains this tunnel");
                        self.retire(progress.previous.replace(Replaced { session, streams, ends: Ends::There }));
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
                        self.retire(progress.previous.replace(Replaced { session, streams, ends: Ends::Here }));
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

    fn retire(&self, tunnel: Option<Replaced>) {
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
