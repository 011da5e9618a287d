//! Callers: each asks one thing after the other, for ever, and looks at every byte of what it gets.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fastrand::Rng;
use rustls::ClientConfig;
use tokio::{sync::watch, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    exchange::{self, End},
    line::{Line, Protocol},
    ticket::{Kind, Ticket, User},
    timeline::Timeline,
    verdict::{Failed, Wrong, Wrongs},
};

/// The deadline of the server: longer than every fault, so that waiting it out is never the reason for a failure.
pub(crate) const DEADLINE: Duration = Duration::from_secs(45);

/// What a deadline may be exceeded by before a request counts as hung.
const PATIENCE: Duration = Duration::from_secs(5);

/// After a failure, so that a server that is gone is not asked a thousand times a second.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// Callers of each user and protocol that ask small things with hardly a pause: what is sent in the very moment in which
/// something ends.
const HASTY: u64 = 1;

/// HTTP/1.1 callers of each user, each with a connection of its own.
const HTTP1_CALLERS: u64 = 5;

/// HTTP/2 callers of each user; they share one connection.
const HTTP2_CALLERS: u64 = 4;

/// What all callers share.
pub(crate) struct Callers {
    pub(crate) server: watch::Receiver<SocketAddr>,
    pub(crate) tls: ClientConfig,
    pub(crate) token: Box<dyn Fn(User) -> String + Send + Sync>,
    pub(crate) timeline: Arc<Timeline>,
    pub(crate) wrongs: Arc<Wrongs>,
    pub(crate) tally: Tally,
    pub(crate) stop: CancellationToken,
}

/// Counts, and the failures to be judged.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    next: AtomicU64,
    pub(crate) ok: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) cut_at_deadline: AtomicU64,
    pub(crate) bytes: AtomicU64,
    failed: Mutex<Vec<Failed>>,
}

/// What one caller does next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    pub(crate) ticket: Ticket,
    /// `Tunnel-Deadline`, sooner than the answer can be complete.
    pub(crate) deadline: Option<Duration>,
    /// The caller does not read for so long, once some of the answer is there.
    pub(crate) dawdles: Option<Duration>,
    /// The caller leaves then.
    leaves_after: Option<Duration>,
}

/// How a caller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Temper {
    /// Asks anything, with pauses.
    Calm,
    /// See [`HASTY`].
    Hasty,
}

impl Tally {
    /// The failures so far.
    pub(crate) fn failed(&self) -> Vec<Failed> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests that were begun.
    pub(crate) fn sent(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Starts them; they end, their last request finished, when they are told to stop.
pub(crate) fn start(callers: &Arc<Callers>, seed: u64) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for user in User::ALL {
        let shared = Arc::new(Line::new(callers, user, Protocol::Http2));
        for index in 0..HTTP1_CALLERS + HTTP2_CALLERS {
            let line = if index < HTTP1_CALLERS {
                Arc::new(Line::new(callers, user, Protocol::Http1))
            } else {
                Arc::clone(&shared)
            };
            let rng = Rng::with_seed(seed ^ ((index + 1) << 32) ^ ((user as u64 + 1) << 48));
            let first = if index < HTTP1_CALLERS { 0 } else { HTTP1_CALLERS };
            let temper = if index < first + HASTY { Temper::Hasty } else { Temper::Calm };
            tasks.spawn(run(Arc::clone(callers), line, user, temper, rng));
        }
    }
    tasks
}

async fn run(callers: Arc<Callers>, line: Arc<Line>, user: User, temper: Temper, mut rng: Rng) {
    while !callers.stop.is_cancelled() {
        let order = Order::choose(&mut rng, user, temper, callers.tally.number());
        if rng.u8(..8) == 0 {
            line.hang_up(); // the next request opens a new connection
        }
        let since = Instant::now();
        let end = tokio::select! {
            end = exchange::run(&line, &order) => end,
            () = leave(order.leaves_after) => End::Cancelled,
            () = hung(&callers, &order, since) => End::Wrong(Wrong::Hung, format!("no end after {:?}", since.elapsed())),
        };
        let failed = matches!(end, End::Failed(_));
        callers.judge(&order, end, since, line.protocol());
        match temper {
            _ if failed => sleep(AFTER_FAILURE).await,
            Temper::Calm => sleep(Duration::from_millis(rng.u64(..120))).await,
            Temper::Hasty => sleep(Duration::from_millis(rng.u64(..6))).await,
        }
    }
}

async fn leave(after: Option<Duration>) {
    match after {
        Some(after) => sleep(after).await,
        None => std::future::pending().await,
    }
}

/// Until the request has taken longer than it may, whatever stood still meanwhile.
async fn hung(callers: &Callers, order: &Order, since: Instant) {
    loop {
        let limit = order.deadline.unwrap_or(DEADLINE) + PATIENCE + callers.timeline.paused_since(since);
        match limit.checked_sub(since.elapsed()) {
            Some(left) if !left.is_zero() => sleep(left).await,
            _ => return,
        }
    }
}

impl Callers {
    fn judge(&self, order: &Order, end: End, since: Instant, protocol: Protocol) {
        let (ticket, took) = (order.ticket, since.elapsed());
        let count = |counter: &AtomicU64| _ = counter.fetch_add(1, Ordering::Relaxed);
        match end {
            End::Cancelled => count(&self.tally.cancelled),
            End::Wrong(wrong, detail) => self.wrongs.note(ticket, wrong, detail),
            End::Failed(how) if order.deadline.is_some_and(|deadline| took >= deadline && how.is_deadline()) => {
                count(&self.tally.cut_at_deadline);
            }
            End::Failed(how) => {
                let away = order.dawdles.unwrap_or_default();
                let failed = Failed { ticket, how, since, at: Instant::now(), away, protocol: protocol.name() };
                self.tally.failed.lock().unwrap_or_else(PoisonError::into_inner).push(failed);
            }
            End::Complete(bytes) => {
                count(&self.tally.ok);
                self.tally.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
        }
    }
}

impl Order {
    fn choose(rng: &mut Rng, user: User, temper: Temper, number: u64) -> Self {
        if temper == Temper::Hasty {
            let kind = if rng.bool() { Kind::Get } else { Kind::Json };
            let ticket = Ticket { user, number, kind, size: 1, pace: 0 };
            return Self { ticket, deadline: None, dawdles: None, leaves_after: None };
        }
        let kind = rng.choice(Kind::ALL).unwrap_or(Kind::Get);
        let (size, pace) = match kind {
            Kind::Get | Kind::Json => (1, if rng.u8(..4) == 0 { rng.u64(..1500) } else { 0 }),
            Kind::Ndjson | Kind::Sse => (rng.usize(1..120), rng.u64(..60)),
            Kind::Bulk => (1 << rng.u32(10..21), 0),
            Kind::Upload | Kind::Chunked => (1 << rng.u32(10..20), if rng.bool() { rng.u64(..25) } else { 0 }),
        };
        let size = if size > 1024 { size + rng.usize(..1024) } else { size };
        let ticket = Ticket { user, number, kind, size, pace };
        let mut order = Self { ticket, deadline: None, dawdles: None, leaves_after: None };
        match rng.u8(..100) {
            0..12 => order.leaves_after = Some(Duration::from_millis(rng.u64(..700))),
            12..16 => {
                order.ticket = Ticket { kind: Kind::Ndjson, size: 100, pace: 100, ..order.ticket };
                order.deadline = Some(Duration::from_millis(rng.u64(500..3000)));
            }
            16..22 => order.dawdles = Some(Duration::from_millis(rng.u64(200..4000))),
            _ => {}
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_orders() {
        let orders = |seed| {
            let mut rng = Rng::with_seed(seed);
            (0..50)
                .map(|number| format!("{:?}", Order::choose(&mut rng, User::Alice, Temper::Calm, number)))
                .collect::<Vec<_>>()
        };
        assert_eq!(orders(7), orders(7));
        assert_ne!(orders(7), orders(8));
    }
}
