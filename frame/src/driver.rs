//! The task that owns a tunnel's I/O: it reads, writes, opens streams, keeps the heartbeat and closes.
//!
//! One turn of the driver: let yamux read and write, hand on what arrived, do what the handle asked, look at the
//! clock, and then send everything that was written as ONE message. It is woken behind the tasks that are ready, on a
//! runtime that keeps their order; what they write until its turn comes leaves in the same message.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep, sleep_until, timeout},
};
use tokio_tungstenite::WebSocketStream;

use crate::{
    close::{Close, CloseCode, Ended},
    control::Control,
    limits,
    pipe::{Pipe, PipeHandle},
    pulse::Pulse,
    session::Session,
    stream::Stream,
};

/// Which end of the tunnel this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// tunneld: opens a stream per request (yamux client).
    Server,
    /// The desktop: accepts them (yamux server). It may open none.
    Desktop,
}

/// What the driver hands to its owner.
#[derive(Debug)]
pub enum Event {
    /// A stream was opened by the server (desktop only).
    Stream(Stream),
    /// A control message arrived.
    Control(Control),
}

/// Runs a session. Nothing moves unless [`Driver::run`] is polled.
pub struct Driver<T> {
    role: Role,
    session: Session,
    pipe: PipeHandle<T>,
    yamux: yamux::Connection<PipeHandle<T>>,
    heartbeat: Heartbeat,
    /// A ping that the socket did not take yet.
    ping_due: bool,
}

/// A session on a WebSocket whose handshake is done, and the driver that must be run for it.
pub fn session<T>(ws: WebSocketStream<Pulse<T>>, role: Role) -> (Session, Driver<T>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut config = yamux::Config::default();
    config
        .set_max_num_streams(limits::YAMUX_STREAMS)
        .set_max_connection_receive_window(Some(limits::YAMUX_RECEIVE))
        .set_read_after_close(true)
        .set_split_send_size(limits::YAMUX_SPLIT);
    let mode = match role {
        Role::Server => yamux::Mode::Client,
        Role::Desktop => yamux::Mode::Server,
    };
    let pipe = PipeHandle::new(Pipe::new(ws));
    let session = Session::new(role);
    let driver = Driver {
        role,
        session: session.clone(),
        yamux: yamux::Connection::new(pipe.clone(), config, mode),
        pipe,
        heartbeat: Heartbeat::new(),
        ping_due: true, // the first ping measures the round trip
    };
    (session, driver)
}

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    /// Runs the session to its end. `on_event` must not block.
    pub async fn run(mut self, mut on_event: impl FnMut(Event)) -> Ended {
        let ended = poll_fn(|cx| self.poll(cx, &mut on_event)).await;
        self.session.shared.end(&ended);
        let Self { pipe, yamux, .. } = self;
        drop(yamux); // wakes all streams: their tunnel is gone
        _ = timeout(limits::CLOSE_FLUSH, say_farewell(&pipe, &ended)).await;
        ended
    }

    fn poll(&mut self, cx: &mut Context<'_>, on_event: &mut impl FnMut(Event)) -> Poll<Ended> {
        loop {
            if let Poll::Ready(ended) = self.poll_yamux(cx, on_event) {
                return Poll::Ready(ended);
            }
            if let Err(ended) = self.heartbeat(cx) {
                return Poll::Ready(ended);
            }
            let opened = match self.open_streams(cx) {
                Ok(opened) => opened,
                Err(ended) => return Poll::Ready(ended),
            };
            if let Poll::Ready(close) = self.poll_requests(cx) {
                return Poll::Ready(Ended::Here(close));
            }
            // A new stream's channel is watched only once yamux has been polled again.
            if opened {
                continue;
            }
            if !self.pipe.lock().has_output() {
                return Poll::Pending;
            }
            match ready!(self.pipe.lock().poll_send(cx)) {
                Err(error) => return Poll::Ready(Ended::lost(&error)),
                // yamux waits for the room that there is now.
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
            }
        }
    }

    /// Lets yamux read and write until it can do no more, or until enough new streams wait for their tasks.
    fn poll_yamux(&mut self, cx: &mut Context<'_>, on_event: &mut impl FnMut(Event)) -> Poll<Ended> {
        let mut inbound = 0;
        while inbound < limits::INBOUND_BURST {
            let polled = self.yamux.poll_next_inbound(cx);
            loop {
                let control = self.pipe.lock().take_control();
                let Some(control) = control else { break };
                on_event(Event::Control(control));
            }
            match polled {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(stream))) if self.role == Role::Desktop => {
                    inbound += 1;
                    if let Some(stream) = self.session.accept(stream) {
                        on_event(Event::Stream(stream));
                    }
                }
                Poll::Ready(Some(Ok(_))) => {
                    let close = Close::new(CloseCode::Protocol, "a desktop may not open streams");
                    return Poll::Ready(Ended::Here(close));
                }
                Poll::Ready(Some(Err(error))) => {
                    // Unless the pipe says why, or broke, yamux ended the session: the peer broke its protocol.
                    let otherwise = || match &error {
                        yamux::ConnectionError::Io(error) => Ended::lost(error),
                        error => Ended::Here(Close::new(CloseCode::Protocol, format!("yamux: {error}"))),
                    };
                    return Poll::Ready(self.pipe.lock().ended().unwrap_or_else(otherwise));
                }
                Poll::Ready(None) => {
                    let away = || Ended::There(Close::new(CloseCode::GoingAway, "yamux session closed"));
                    return Poll::Ready(self.pipe.lock().ended().unwrap_or_else(away));
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Opens as many streams as are waited for, and a few spare ones on a busy tunnel.
    fn open_streams(&mut self, cx: &mut Context<'_>) -> Result<bool, Ended> {
        // While writes are blocked, yamux does not see which streams were dropped and would run into its limit.
        if self.role == Role::Desktop || self.pipe.lock().is_blocked() {
            return Ok(false);
        }
        let mut state = self.session.shared.lock();
        let before = state.spare.len();
        let wanted = state.waiting + if state.busy { limits::SPARE_STREAMS } else { 0 };
        // Several at a time, so that not every turn opens one.
        if before >= state.waiting && 2 * before >= wanted {
            return Ok(false);
        }
        while state.spare.len() < wanted {
            match self.yamux.poll_new_outbound(cx) {
                Poll::Ready(Ok(stream)) => state.spare.push_back(stream),
                Poll::Ready(Err(error)) => return Err(Ended::Lost(format!("yamux: {error}"))),
                Poll::Pending => break,
            }
        }
        let opened = state.spare.len() > before;
        let waiting = state.waiting > 0;
        drop(state);
        if opened && waiting {
            self.session.shared.streams_were_opened();
        }
        Ok(opened)
    }

    /// Sends pings and control messages; ready when the handle asked to close.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<Close> {
        let mut state = self.session.shared.lock();
        if !state.driver.as_ref().is_some_and(|driver| driver.will_wake(cx.waker())) {
            state.driver = Some(cx.waker().clone());
        }
        let mut pipe = self.pipe.lock();
        if let Some(rtt) = pipe.take_rtt() {
            state.rtt = Some(rtt);
        }
        // Errors show up at the next read as well, with their reason.
        if self.ping_due && pipe.poll_ping(cx).is_ready() {
            self.ping_due = false;
        }
        while let Some(control) = state.controls.front() {
            if pipe.poll_control(cx, control).is_pending() {
                break;
            }
            state.controls.pop_front();
            if state.controls.is_empty() {
                state.controls = VecDeque::new(); // an idle tunnel sends none for days
            }
        }
        // A peer that does not read cannot put this off.
        state.close.take().map_or(Poll::Pending, Poll::Ready)
    }

    /// Notes signs of life; sends a ping after [`limits::PING_AFTER`] of silence and gives up after
    /// [`limits::SILENCE`].
    fn heartbeat(&mut self, cx: &mut Context<'_>) -> Result<(), Ended> {
        if self.pipe.lock().heard() {
            self.heartbeat.last = Instant::now();
            self.heartbeat.probing = false;
            let probes = std::mem::take(&mut self.session.shared.lock().probes);
            for probe in probes {
                _ = probe.send(());
            }
        } else if !self.heartbeat.probing && !self.session.shared.lock().probes.is_empty() {
            // Many probes must not become many pings, which the peer would take for a flood.
            let next = self.heartbeat.probed.map_or_else(Instant::now, |last| last + limits::PROBE_EVERY);
            if Instant::now() >= next {
                self.heartbeat.probed = Some(Instant::now());
                self.heartbeat.probing = true;
                self.ping_due = true;
            } else if self.heartbeat.timer.deadline() > next {
                self.heartbeat.timer.as_mut().reset(next);
            }
        }
        while self.heartbeat.timer.as_mut().poll(cx).is_ready() {
            let silence = self.heartbeat.last.elapsed();
            if silence >= limits::SILENCE {
                return Err(Ended::Silent);
            }
            let next = if silence >= limits::PING_AFTER {
                self.ping_due = true;
                self.rest();
                Instant::now() + limits::PING_AFTER.min(limits::SILENCE.saturating_sub(silence))
            } else {
                self.heartbeat.last + limits::PING_AFTER
            };
            self.heartbeat.timer.as_mut().reset(next.max(Instant::now() + Duration::from_millis(1)));
        }
        Ok(())
    }

    /// Gives back what only a busy tunnel needs.
    fn rest(&mut self) {
        let spare = {
            let mut state = self.session.shared.lock();
            state.busy = false;
            if state.waiting > 0 { VecDeque::new() } else { std::mem::take(&mut state.spare) }
        };
        drop(spare);
        self.pipe.lock().shrink();
    }
}

/// When the peer was last heard, and when to look again.
struct Heartbeat {
    last: Instant,
    /// When a ping was last sent for those who probe.
    probed: Option<Instant>,
    /// That ping is under way.
    probing: bool,
    timer: Pin<Box<Sleep>>,
}

impl Heartbeat {
    fn new() -> Self {
        let now = Instant::now();
        Self { last: now, probed: None, probing: false, timer: Box::pin(sleep_until(now + limits::PING_AFTER)) }
    }
}

/// Sends what is left and the close frame, and waits for the peer to have read it.
async fn say_farewell<T>(pipe: &PipeHandle<T>, ended: &Ended) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    match ended {
        Ended::Silent | Ended::Lost(_) => Ok(()),
        // tungstenite has queued the answer to the peer's close frame.
        Ended::There(_) => poll_fn(|cx| pipe.lock().poll_flush(cx)).await,
        Ended::Here(close) => {
            poll_fn(|cx| pipe.lock().poll_send(cx)).await?;
            let bye = Control::Bye { code: close.code.to_wire(), message: close.message.clone() };
            poll_fn(|cx| pipe.lock().poll_control(cx, &bye)).await?;
            poll_fn(|cx| pipe.lock().poll_close_frame(cx, close)).await?;
            poll_fn(|cx| pipe.lock().poll_flush(cx)).await?;
            // A socket closed with unread bytes resets the connection, and the peer may never see the reason.
            poll_fn(|cx| pipe.lock().poll_drain(cx)).await;
            Ok(())
        }
    }
}
