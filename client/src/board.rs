//! How things stand with a client, for whoever asks: the tunnel, the upstream, what runs and what ran last.
//!
//! Folds events as they are told, and keeps the last requests in a ring. Holds no token, no query and no body.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};
use tunnel_frame::RequestHead;
use url::Url;

use crate::{config::origin, event::Event, stream::Outcome};

/// Requests that are remembered when they have ended.
const LAST: usize = 20;

/// Bytes of a path that are remembered.
const PATH: usize = 256;

/// Bytes of a method or an id that are remembered.
const WORD: usize = 32;

/// How things stand. Times are RFC 3339.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whether callers reach this desktop now.
    pub connected: bool,
    /// Since when it is so, or not so.
    pub since: String,
    /// Why it is not, if it was tried.
    pub reason: Option<String>,
    /// The server: scheme and authority.
    pub server: Option<String>,
    /// The subject of the token.
    pub user: Option<String>,
    /// The name of this desktop.
    pub name: Option<String>,
    /// The last heartbeat.
    pub rtt_ms: Option<f64>,
    /// Tunnels after the first.
    pub reconnects: u64,
    /// Where requests go.
    pub upstream: String,
    /// Why the upstream does not answer; `None` if it does, as far as is known.
    pub upstream_error: Option<String>,
    /// Requests being answered right now.
    pub in_flight: usize,
    /// Requests since the program started, those in flight included.
    pub total: u64,
    /// What runs, then what ran last; each newest first.
    pub requests: Vec<Request>,
    /// The process.
    pub pid: u32,
    /// Its version.
    pub version: String,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// As in the response's `X-Request-Id`.
    pub id: String,
    /// Its method.
    pub method: String,
    /// Its path, without the query.
    pub path: String,
    /// The upstream's status, once it has answered.
    pub status: Option<u16>,
    /// Bytes of the response's body so far.
    pub bytes: u64,
    /// From the request's head to the response's.
    pub first_byte_ms: Option<u64>,
    /// From the request's head to the end, or to now.
    pub duration_ms: u64,
    /// `running`, `complete`, `caller_left`, or the code of an error.
    pub outcome: String,
}

/// Where the state of a client is kept. Clones share it.
#[derive(Debug, Clone)]
pub struct Board(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    upstream: String,
    link: Link,
    since: SystemTime,
    reason: Option<String>,
    server: Option<String>,
    user: Option<String>,
    name: Option<String>,
    round_trip: Option<Duration>,
    connections: u64,
    upstream_error: Option<String>,
    total: u64,
    running: Vec<Arc<Progress>>,
    ended: VecDeque<Ended>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    Down,
}

impl Board {
    pub(crate) fn new(upstream: &Url) -> Self {
        Self(Arc::new(Mutex::new(State {
            upstream: origin(upstream),
            link: Link::Down,
            since: SystemTime::now(),
            reason: None,
            server: None,
            user: None,
            name: None,
            round_trip: None,
            connections: 0,
            upstream_error: None,
            total: 0,
            running: Vec::new(),
            ended: VecDeque::with_capacity(LAST),
        })))
    }

    /// How things stand now.
    #[must_use]
    pub fn report(&self) -> Report {
        let state = self.lock();
        Report {
            connected: state.link == Link::Up,
            since: humantime::format_rfc3339_seconds(state.since).to_string(),
            reason: state.reason.clone(),
            server: state.server.clone(),
            user: state.user.clone(),
            name: state.name.clone(),
            rtt_ms: state.round_trip.map(|time| (time.as_secs_f64() * 1e5).round() / 100.0),
            reconnects: state.connections.saturating_sub(1),
            upstream: state.upstream.clone(),
            upstream_error: state.upstream_error.clone(),
            in_flight: state.running.len(),
            total: state.total,
            requests: state.requests(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// What runs, then what ran last; each newest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.lock().requests()
    }

    /// Takes note of what happened to the tunnel or the upstream.
    pub(crate) fn note(&self, event: &Event) {
        let mut state = self.lock();
        match event {
            Event::Connecting { server, .. } => state.server = Some(origin(server)),
            Event::Connected(connected) => {
                state.connections += 1;
                state.reason = None;
                state.user = Some(connected.user.clone());
                state.name = Some(connected.name.clone());
                state.turn(Link::Up);
            }
            Event::Disconnected { reason, .. } | Event::Refused { message: reason, .. } => {
                state.reason = Some(reason.clone());
                state.round_trip = None;
                state.turn(Link::Down);
            }
            Event::RoundTrip(time) => state.round_trip = Some(*time),
            Event::UpstreamDown { error } => state.upstream_error = Some(error.clone()),
            Event::UpstreamUp => state.upstream_error = None,
            Event::Requests { .. } | Event::Draining { .. } => {}
        }
    }

    /// A request begins. It runs until the result is dropped.
    pub(crate) fn begin(&self, head: &RequestHead) -> Running {
        let progress = Arc::new(Progress::new(head));
        let mut state = self.lock();
        state.total += 1;
        state.running.push(Arc::clone(&progress));
        Running { board: self.clone(), progress, outcome: "caller_left" }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn requests(&self) -> Vec<Request> {
        let running = self.running.iter().rev().map(|progress| progress.request(progress.milliseconds(), "running"));
        let ended = self.ended.iter().map(|ended| ended.progress.request(ended.milliseconds, ended.outcome));
        running.chain(ended).collect()
    }

    fn turn(&mut self, link: Link) {
        if self.link != link {
            self.link = link;
            self.since = SystemTime::now();
        }
    }
}

/// A request that runs: listed as such until it is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    board: Board,
    pub(crate) progress: Arc<Progress>,
    outcome: &'static str,
}

impl Running {
    /// It has come to its end, and did not just stop.
    pub(crate) fn finish(mut self, outcome: &Outcome) {
        self.outcome = match outcome {
            Outcome::Answered => "complete",
            Outcome::Aborted(abort) => abort.code.as_str(),
            Outcome::Cut => "caller_left",
        };
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.board.lock();
        state.running.retain(|running| !Arc::ptr_eq(running, &self.progress));
        state.ended.truncate(LAST - 1);
        let (progress, milliseconds) = (Arc::clone(&self.progress), self.progress.milliseconds());
        state.ended.push_front(Ended { progress, milliseconds, outcome: self.outcome });
    }
}

/// A request that has ended.
#[derive(Debug)]
struct Ended {
    progress: Arc<Progress>,
    /// How long it took.
    milliseconds: u64,
    outcome: &'static str,
}

/// How far a request has come. Written by its own task without a lock.
#[derive(Debug)]
pub(crate) struct Progress {
    id: String,
    method: String,
    path: String,
    begun: Instant,
    /// 0 until there is one.
    status: AtomicU16,
    first_byte_ms: AtomicU64,
    bytes: AtomicU64,
}

/// At most so many characters of a text.
fn start(text: &str, most: usize) -> String {
    let end = if text.len() <= most { None } else { text.char_indices().nth(most) };
    text[..end.map_or(text.len(), |(end, _)| end)].to_owned()
}

impl Progress {
    fn new(head: &RequestHead) -> Self {
        let path = head.target.split('?').next().unwrap_or_default();
        Self {
            id: start(&head.request_id, WORD),
            method: start(head.method.as_str(), WORD),
            path: start(path, PATH),
            begun: Instant::now(),
            status: AtomicU16::new(0),
            first_byte_ms: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// The upstream has answered.
    pub(crate) fn answered(&self, status: http::StatusCode) {
        self.first_byte_ms.store(self.milliseconds(), Ordering::Relaxed);
        self.status.store(status.as_u16(), Ordering::Release);
    }

    /// Bytes of the response's body have left.
    pub(crate) fn relayed(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn request(&self, duration_ms: u64, outcome: &str) -> Request {
        let status = Some(self.status.load(Ordering::Acquire)).filter(|status| *status != 0);
        Request {
            id: self.id.clone(),
            method: self.method.clone(),
            path: self.path.clone(),
            status,
            bytes: self.bytes.load(Ordering::Relaxed),
            first_byte_ms: status.map(|_| self.first_byte_ms.load(Ordering::Relaxed)),
            duration_ms,
            outcome: outcome.to_owned(),
        }
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, StatusCode};
    use tunnel_frame::BodySize;

    use super::*;

    fn head(target: &str) -> RequestHead {
        RequestHead {
            method: Method::GET,
            target: target.into(),
            headers: HeaderMap::new(),
            deadline: Duration::from_secs(30),
            request_id: "7".into(),
            scope: 0,
            body: BodySize::Empty,
        }
    }

    #[test]
    fn the_ring_is_bounded_and_newest_comes_first() {
        let board = Board::new(&Url::parse("http://127.0.0.1:1").unwrap());
        for n in 0..100 {
            board.begin(&head(&format!("/{n}"))).finish(&Outcome::Answered);
        }
        let running = board.begin(&head(&format!("/{}?secret", "x".repeat(1000))));
        running.progress.answered(StatusCode::OK);
        running.progress.relayed(5);
        let report = board.report();
        assert_eq!((report.in_flight, report.total, report.requests.len()), (1, 101, LAST + 1));
        let [first, second, ..] = &report.requests[..] else { panic!("two") };
        assert_eq!((first.outcome.as_str(), first.status, first.bytes), ("running", Some(200), 5));
        assert_eq!(first.path.len(), PATH);
        assert_eq!((second.outcome.as_str(), second.path.as_str(), second.status), ("complete", "/99", None));
    }

    #[test]
    fn t32_a_query_is_not_remembered() {
        let board = Board::new(&Url::parse("http://127.0.0.1:1").unwrap());
        drop(board.begin(&head("/a?token=canary")));
        let json = serde_json::to_string(&board.report()).unwrap();
        assert!(json.contains(r#""path":"/a""#) && !json.contains("canary"), "{json}");
    }

    #[test]
    fn an_outage_has_one_beginning() {
        let board = Board::new(&Url::parse("http://127.0.0.1:1").unwrap());
        let lost = Event::Disconnected { reason: "reset".into(), retry_in: Duration::ZERO };
        board.lock().since = SystemTime::UNIX_EPOCH;
        board.note(&lost);
        let report = board.report();
        assert_eq!((report.connected, report.reason.as_deref()), (false, Some("reset")));
        assert_eq!(report.since, "1970-01-01T00:00:00Z");
    }
}
