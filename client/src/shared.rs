//! What the tasks of a client share: how a request is answered, how many there are, whether the upstream answers, and
//! whom to tell.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::timeout};
use tunnel_frame::AbortCode;

use crate::{
    board::Board,
    event::Event,
    stream::{self, Outcome, Service},
};

/// From one look at an upstream that does not answer to the next. A person waits for it.
const LOOK_WHILE_DOWN: Duration = Duration::from_secs(5);

/// The same while it answers and no request says so: nobody waits, and a laptop should sleep.
const LOOK_WHILE_UP: Duration = Duration::from_secs(60);

/// What the tasks of a client share.
pub(crate) struct Shared {
    service: Arc<Service>,
    board: Board,
    events: Box<dyn Fn(Event) + Send + Sync>,
    in_flight: AtomicUsize,
    total: AtomicU64,
    upstream: watch::Sender<Upstream>,
    /// Whether something was learnt of the upstream since this was last looked at.
    heard: AtomicBool,
}

/// Whether the upstream answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upstream {
    /// It does, as far as is known.
    Up,
    /// It did not when it was asked last.
    Down,
}

impl Shared {
    pub(crate) fn new(service: Service, board: Board, events: impl Fn(Event) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            service: Arc::new(service),
            board,
            events: Box::new(events),
            in_flight: AtomicUsize::new(0),
            total: AtomicU64::new(0),
            upstream: watch::Sender::new(Upstream::Up),
            heard: AtomicBool::new(false),
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

    /// Whether the upstream answers, and each change of that.
    pub(crate) fn upstream(&self) -> watch::Receiver<Upstream> {
        self.upstream.subscribe()
    }

    /// Keeps an eye on the upstream for ever, so that a person hears of it before a caller does.
    pub(crate) async fn watch_upstream(self: Arc<Self>) {
        self.watch(|| self.service.upstream.probe()).await;
    }

    async fn watch<F: Future<Output = Result<(), String>>>(&self, look: impl Fn() -> F) {
        let mut changes = self.upstream();
        loop {
            self.upstream_is(look().await.err());
            self.heard.store(false, Ordering::Relaxed);
            loop {
                let state = *changes.borrow_and_update();
                let wait = match state {
                    Upstream::Up => LOOK_WHILE_UP,
                    Upstream::Down => LOOK_WHILE_DOWN,
                };
                let is_time = timeout(wait, changes.changed()).await.is_err();
                // An upstream that does one thing at a time may be at a request.
                let busy = self.heard.swap(false, Ordering::Relaxed) || self.in_flight() > 0;
                if is_time && (state == Upstream::Down || !busy) {
                    break;
                }
            }
        }
    }

    /// Notes whether the upstream answers; told only when that changes.
    fn upstream_is(&self, down: Option<String>) {
        self.heard.store(true, Ordering::Relaxed);
        let now = if down.is_some() { Upstream::Down } else { Upstream::Up };
        if self.upstream.send_if_modified(|state| std::mem::replace(state, now) != now) {
            self.tell(down.map_or(Event::UpstreamUp, |error| Event::UpstreamDown { error }));
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::{Instant, sleep};
    use tunnel_frame::policy::Policy;
    use url::Url;

    use super::*;

    /// An upstream of which only is known whether it answers, and when it was asked.
    struct Fake {
        shared: Arc<Shared>,
        answers: AtomicBool,
        looks: Mutex<Vec<Duration>>,
        /// What was told of it: whether it answers, and when.
        told: Arc<Mutex<Vec<(bool, Duration)>>>,
        start: Instant,
    }

    impl Fake {
        fn new(answers: bool) -> Self {
            let (start, told) = (Instant::now(), Arc::<Mutex<Vec<_>>>::default());
            let url = Url::parse("http://127.0.0.1:1").unwrap();
            let service = Service::new(crate::upstream::Upstream::new(&url), Policy::new(Vec::new()));
            let note = {
                let told = Arc::clone(&told);
                move |event: Event| match event {
                    Event::UpstreamUp => told.lock().unwrap().push((true, start.elapsed())),
                    Event::UpstreamDown { .. } => told.lock().unwrap().push((false, start.elapsed())),
                    _ => {}
                }
            };
            let shared = Shared::new(service, Board::new(&url), note);
            Self { shared, answers: answers.into(), looks: Mutex::default(), told, start }
        }

        fn look(&self) -> impl Future<Output = Result<(), String>> + use<> {
            self.looks.lock().unwrap().push(self.start.elapsed());
            let answers = self.answers.load(Ordering::Relaxed);
            std::future::ready(if answers { Ok(()) } else { Err("refused".into()) })
        }

        /// Watches while `script` runs.
        async fn during(&self, script: impl Future<Output = ()>) {
            tokio::select! {
                () = self.shared.watch(|| self.look()) => {}
                () = script => {}
            }
        }

        fn looks(&self) -> Vec<u64> {
            self.looks.lock().unwrap().drain(..).map(|at| at.as_secs()).collect()
        }

        fn told(&self) -> Vec<(bool, u64)> {
            self.told.lock().unwrap().drain(..).map(|(up, at)| (up, at.as_secs())).collect()
        }
    }

    fn seconds(seconds: u64) -> tokio::time::Sleep {
        sleep(Duration::from_secs(seconds))
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_that_comes_is_seen_within_seconds_and_one_that_goes_within_a_minute() {
        let fake = Fake::new(false);
        fake.during(async {
            seconds(12).await;
            assert_eq!((fake.looks(), fake.told()), (vec![0, 5, 10], vec![(false, 0)]));
            fake.answers.store(true, Ordering::Relaxed);
            seconds(90).await;
            assert_eq!((fake.looks(), fake.told()), (vec![15, 75], vec![(true, 15)]));
            fake.answers.store(false, Ordering::Relaxed);
            seconds(40).await;
            assert_eq!((fake.looks(), fake.told()), (vec![135, 140], vec![(false, 135)]));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn requests_spare_the_looks() {
        let fake = Fake::new(true);
        fake.during(async {
            for _ in 0..20 {
                seconds(30).await;
                fake.shared.upstream_is(None);
            }
            let running = InFlight::new(Arc::clone(&fake.shared));
            seconds(600).await;
            assert_eq!((fake.looks(), fake.told()), (vec![0], vec![]));
            drop(running);
            // A caller hears first that it has gone.
            fake.answers.store(false, Ordering::Relaxed);
            fake.shared.upstream_is(Some("refused".into()));
            seconds(6).await;
            assert_eq!((fake.looks(), fake.told()), (vec![1205], vec![(false, 1200)]));
        })
        .await;
    }
}
