//! What the tasks of a client share: how a request is answered, how many there are, and whom to tell.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use tunnel_frame::AbortCode;

use crate::{
    board::Board,
    event::Event,
    stream::{self, Outcome, Service},
};

/// What the tasks of a client share.
pub(crate) struct Shared {
    service: Arc<Service>,
    board: Board,
    events: Box<dyn Fn(Event) + Send + Sync>,
    in_flight: AtomicUsize,
    total: AtomicU64,
    upstream_down: AtomicBool,
}

impl Shared {
    pub(crate) fn new(service: Service, board: Board, events: impl Fn(Event) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            service: Arc::new(service),
            board,
            events: Box::new(events),
            in_flight: AtomicUsize::new(0),
            total: AtomicU64::new(0),
            upstream_down: AtomicBool::new(false),
        })
    }

    /// How a request is answered.
    pub(crate) fn service(&self) -> Arc<Service> {
        Arc::clone(&self.service)
    }

    /// Requests being answered right now.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn tell(&self, event: Event) {
        self.board.note(&event);
        (self.events)(event);
    }

    /// Answers one stream, and counts it while it lives.
    pub(crate) async fn answer(self: Arc<Self>, stream: tunnel_frame::Stream) {
        let _counted = InFlight::new(Arc::clone(&self));
        match stream::serve(Arc::clone(&self.service), stream, &self.board).await {
            Outcome::Answered => self.upstream_is(None),
            Outcome::Aborted(abort) if abort.code == AbortCode::UpstreamUnreachable => {
                self.upstream_is(Some(abort.message));
            }
            Outcome::Aborted(_) | Outcome::Cut => {}
        }
    }

    /// Asks the upstream whether it is there, so that a person hears it before a caller does.
    pub(crate) async fn look_at_upstream(self: Arc<Self>) {
        self.upstream_is(self.service.upstream.probe().await.err());
    }

    /// Notes whether the upstream answers; told only when that changes.
    fn upstream_is(&self, down: Option<String>) {
        let was_down = self.upstream_down.swap(down.is_some(), Ordering::Relaxed);
        match down {
            Some(error) if !was_down => self.tell(Event::UpstreamDown { error }),
            None if was_down => self.tell(Event::UpstreamUp),
            _ => {}
        }
    }
}

/// Counts a request while it lives.
struct InFlight(Arc<Shared>);

impl InFlight {
    fn new(shared: Arc<Shared>) -> Self {
        let in_flight = shared.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        let total = shared.total.fetch_add(1, Ordering::Relaxed) + 1;
        shared.tell(Event::Requests { in_flight, total });
        Self(shared)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let in_flight = self.0.in_flight.fetch_sub(1, Ordering::Relaxed) - 1;
        self.0.tell(Event::Requests { in_flight, total: self.0.total.load(Ordering::Relaxed) });
    }
}
