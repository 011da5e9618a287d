//! A session: the yamux life of one tunnel, as a handle for those who use it.
//!
//! The handle opens streams, sends control messages, asks for a sign of life and closes. All I/O happens in the one
//! task that runs the [`Driver`](crate::driver::Driver).

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    task::Waker,
    time::Duration,
};

use thiserror::Error;
use tokio::{
    sync::{Notify, Semaphore, oneshot},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    close::{Close, Ended},
    control::Control,
    driver::Role,
    limits,
    stream::Stream,
};

/// How often who waits for the end of all streams looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A handle on a session; clones share it.
#[derive(Debug, Clone)]
pub struct Session {
    pub(crate) shared: Arc<Shared>,
}

/// Why no stream could be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenError {
    /// [`limits::STREAMS_OPEN`] streams are open.
    #[error("too many streams are open on this tunnel")]
    TooMany,
    /// The session has ended.
    #[error("the tunnel is gone")]
    Gone,
}

impl Session {
    pub(crate) fn new(role: Role) -> Self {
        let limit = match role {
            Role::Server => limits::STREAMS_OPEN,
            Role::Desktop => limits::YAMUX_STREAMS,
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                opened: Notify::new(),
                permits: Arc::new(Semaphore::new(limit)),
                limit,
                ended: OnceLock::new(),
                over: CancellationToken::new(),
            }),
        }
    }

    /// Opens a stream (server only). Waits while 256 streams are not yet accepted by the desktop.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(&self) -> Result<Stream, OpenError> {
        let permit = Arc::clone(&self.shared.permits).try_acquire_owned().map_err(|_| OpenError::TooMany)?;
        if let Some(stream) = self.shared.lock().take_spare() {
            return Ok(Stream::new(stream, permit));
        }
        let _waiting = Waiting::new(&self.shared);
        loop {
            let mut opened = pin!(self.shared.opened.notified());
            // Registered before the look, so that a stream opened in between is not missed.
            opened.as_mut().enable();
            if self.shared.ended.get().is_some() {
                return Err(OpenError::Gone);
            }
            if let Some(stream) = self.shared.lock().take_spare() {
                return Ok(Stream::new(stream, permit));
            }
            opened.await;
        }
    }

    /// A stream that the other side has opened (desktop only), unless as many are open as can be.
    pub(crate) fn accept(&self, stream: yamux::Stream) -> Option<Stream> {
        let permit = Arc::clone(&self.shared.permits).try_acquire_owned().ok()?;
        Some(Stream::new(stream, permit))
    }

    /// Streams that are open now.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.shared.limit.saturating_sub(self.shared.permits.available_permits())
    }

    /// Waits until no stream is open. Looks from time to time: to wait for all permits would take those that are free, and
    /// show them as open streams.
    pub async fn idle(&self) {
        while self.streams() > 0 {
            sleep(LOOK_EVERY).await;
        }
    }

    /// Sends a control message.
    pub fn send(&self, control: Control) {
        self.shared.tell_driver(|state| state.controls.push_back(control));
    }

    /// Closes the session. The first reason stands.
    pub fn close(&self, close: Close) {
        self.shared.tell_driver(|state| _ = state.close.get_or_insert(close));
    }

    /// Pings the peer; whether any byte came back in time.
    pub async fn is_alive(&self, within: Duration) -> bool {
        let (heard, answer) = oneshot::channel();
        self.shared.tell_driver(|state| state.probes.push(heard));
        tokio::time::timeout(within, answer).await.is_ok_and(|answer| answer.is_ok())
    }

    /// Round-trip time of the last ping, if one was answered.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.shared.lock().rtt
    }

    /// Why the session ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<&Ended> {
        self.shared.ended.get()
    }

    /// Waits for the end of the session.
    pub async fn over(&self) {
        self.shared.over.cancelled().await;
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Spare streams were added, or the session ended.
    opened: Notify,
    permits: Arc<Semaphore>,
    /// Permits in all.
    limit: usize,
    ended: OnceLock<Ended>,
    over: CancellationToken,
}

/// What the handle asks of the driver, and what the driver tells.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Opened ahead of need. yamux sends nothing for a stream before its first byte.
    pub(crate) spare: VecDeque<yamux::Stream>,
    /// Callers of [`Session::open`] that wait.
    pub(crate) waiting: usize,
    /// A stream was taken since the driver last looked: worth keeping spare ones.
    pub(crate) busy: bool,
    pub(crate) controls: VecDeque<Control>,
    pub(crate) close: Option<Close>,
    /// Who wants to know whether the peer lives; dropped unanswered when the session ends.
    pub(crate) probes: Vec<oneshot::Sender<()>>,
    pub(crate) rtt: Option<Duration>,
    pub(crate) driver: Option<Waker>,
}

impl State {
    fn take_spare(&mut self) -> Option<yamux::Stream> {
        self.busy = true;
        let stream = self.spare.pop_front();
        if self.spare.len() < limits::SPARE_STREAMS / 2
            && let Some(driver) = &self.driver
        {
            driver.wake_by_ref();
        }
        stream
    }
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while a session is locked")
    }

    fn tell_driver(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        if let Some(driver) = &state.driver {
            driver.wake_by_ref();
        }
    }

    pub(crate) fn streams_were_opened(&self) {
        self.opened.notify_waiters();
    }

    pub(crate) fn end(&self, ended: &Ended) {
        _ = self.ended.set(ended.clone());
        let left_over = {
            let mut state = self.lock();
            state.driver = None;
            state.probes.clear();
            std::mem::take(&mut state.spare)
        };
        drop(left_over);
        self.opened.notify_waiters();
        self.over.cancel();
    }
}

/// Counts a caller that waits for a stream.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.tell_driver(|state| state.waiting += 1);
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}
