//! One line in the log for each request, written when the last byte has left or the caller has, and its place in the
//! metrics.
//!
//! An [`Access`] is made when a request arrives and tells when it is dropped, so that no way out of the code can forget
//! it. Nothing secret enters it: the path is redacted first.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Method, StatusCode};
use tokio::time::Instant;
use tracing::info;

use super::{capability::redact, trace::TraceId};
use crate::{
    error::Refusal,
    figures::Figures,
    id::{RequestId, TunnelId, UserId},
    metrics::{self, Endpoint, Metrics, Outcome},
    proxy::Ending,
};

/// What is known of a request so far.
pub(crate) struct Access {
    pub(crate) id: RequestId,
    pub(crate) arrived: Instant,
    pub(super) endpoint: Endpoint,
    /// The deadline in force, if the caller asked for one: each answer from then on says it.
    pub(super) deadline: Option<Duration>,
    /// The trace that the caller says this is part of.
    pub(super) trace: Option<TraceId>,
    /// Of the request's body, as far as it was read; `None` without one.
    pub(super) bytes_up: Option<Arc<AtomicU64>>,
    metrics: Arc<Metrics>,
    client: Arc<str>,
    method: Method,
    path: String,
    user: Option<UserId>,
    tunnel: Option<TunnelId>,
    status: Option<StatusCode>,
    bytes: u64,
    first_byte: Option<Duration>,
    outcome: Option<Outcome>,
    detail: Option<String>,
    figures: Option<Figures>,
}

impl Access {
    /// A request for `target`, of which `path` is left without a capability prefix. In a box, since it changes hands.
    pub(crate) fn new(metrics: Arc<Metrics>, client: Arc<str>, method: &Method, target: &str, path: &str) -> Box<Self> {
        Box::new(Self {
            id: RequestId::new(),
            arrived: Instant::now(),
            endpoint: Endpoint::of(path),
            deadline: None,
            trace: None,
            bytes_up: None,
            metrics,
            client,
            method: method.clone(),
            path: shortened(redact(target).into_owned()),
            user: None,
            tunnel: None,
            status: None,
            bytes: 0,
            first_byte: None,
            outcome: None,
            detail: None,
            figures: None,
        })
    }

    pub(crate) fn user(&mut self, user: &UserId) {
        self.user = Some(user.clone());
    }

    pub(crate) fn tunnel(&mut self, tunnel: TunnelId) {
        self.tunnel = Some(tunnel);
    }

    /// The head of the response is decided.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.first_byte.get_or_insert(self.arrived.elapsed());
        self.outcome.get_or_insert(Outcome::Complete);
    }

    pub(crate) fn refused(&mut self, refusal: &Refusal) {
        self.outcome = Some(Outcome::Failed(refusal.code()));
        self.detail = refusal.detail().map(str::to_owned);
    }

    /// The body of a forwarded response is over.
    pub(crate) fn ended(&mut self, bytes: u64, ending: &Ending, figures: Option<Figures>) {
        self.bytes = bytes;
        self.figures = figures;
        match ending {
            Ending::Complete => {}
            Ending::CallerLeft => self.outcome = Some(Outcome::CallerLeft),
            Ending::Cut(refusal) => self.refused(refusal),
        }
    }

    fn count(&self, outcome: Outcome, duration: Duration) {
        // What we answer ourselves in microseconds would hide how long desktops take.
        let is_relayed = self.tunnel.is_some();
        self.metrics.request(&metrics::Request {
            endpoint: self.endpoint,
            status: self.status,
            outcome,
            first_byte: self.first_byte.filter(|_| is_relayed),
            duration: is_relayed.then_some(duration),
        });
        if let (Some(figures), Some(user)) = (&self.figures, &self.user) {
            self.metrics.models.count(figures, user);
        }
    }
}

/// Enough of a path for a log: who is not known yet must not fill it.
fn shortened(mut path: String) -> String {
    const MOST: usize = 512;
    if path.len() > MOST
        && let Some((end, _)) = path.char_indices().nth(MOST)
    {
        path.truncate(end);
        path.push('…');
    }
    path
}

impl Drop for Access {
    fn drop(&mut self) {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let outcome = self.outcome.unwrap_or(Outcome::CallerLeft);
        let duration = self.arrived.elapsed();
        self.count(outcome, duration);
        let figures = self.figures.as_ref();
        info!(
            target: "access",
            request = %self.id,
            trace = self.trace.map(tracing::field::display),
            client = %self.client,
            user = self.user.as_ref().map(UserId::subject), // as a string, which the text format quotes (T35)
            tunnel = self.tunnel.map(tracing::field::display),
            method = %self.method,
            path = self.path,
            status = self.status.map(|status| status.as_u16()),
            bytes_up = self.bytes_up.as_ref().map(|bytes| bytes.load(Ordering::Relaxed)),
            bytes = self.bytes,
            first_byte_ms = self.first_byte.map(millis),
            duration_ms = millis(duration),
            outcome = outcome.as_str(),
            detail = self.detail,
            model = figures.and_then(|figures| figures.model.as_deref()),
            tokens_in = figures.and_then(|figures| figures.tokens_in),
            tokens_out = figures.and_then(|figures| figures.tokens_out),
            tokens_per_second = figures.and_then(|figures| figures.tokens_per_second).map(|n| (n * 10.0).round() / 10.0),
            first_token_ms = figures.and_then(|figures| figures.first_token).map(millis),
            load_ms = figures.and_then(|figures| figures.load).map(millis),
            "request"
        );
    }
}
