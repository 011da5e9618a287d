//! What the server counts, and how Prometheus reads it.
//!
//! Owns the name, help and labels of each metric; no label can take more than a known number of values, and none holds a
//! user, a path or an address. What counts often has a handle that was made before: counting is an atomic addition,
//! takes no lock and looks nothing up. What others know at any moment (tunnels, streams, round trips) is asked when
//! somebody reads. The table of all metrics is in `docs/operations.md`.

mod endpoint;
mod models;
mod requests;

use std::{
    collections::BTreeMap,
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use prometheus::{
    Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};
use tunnel_frame::{CloseCode, Ended};

pub(crate) use self::{
    endpoint::Endpoint,
    requests::{Outcome, Request},
};
use self::{models::Models, requests::Requests};
use crate::{registry::Arrival, server::App};

/// Everything that is counted.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Requests,
    /// Of bodies, from callers to desktops and back.
    pub(crate) bytes_up: IntCounter,
    pub(crate) bytes_down: IntCounter,
    pub(crate) models: Models,
    connected: IntCounterVec,
    disconnected: IntCounterVec,
    rejected_handshakes: IntCounterVec,
    reloads: IntCounterVec,
    /// One reader at a time.
    reading: Mutex<Asked>,
    lost_lines: OnceLock<LostLines>,
}

/// How many log lines were lost until now.
type LostLines = Box<dyn Fn() -> u64 + Send + Sync>;

/// What is asked for when somebody reads.
struct Asked {
    tunnels: IntGaugeVec,
    streams: IntGauge,
    connections: IntGauge,
    round_trip: GaugeVec,
    /// Only where there is a certificate.
    certificate: GaugeVec,
    lost_lines: IntCounter,
}

/// What became of a file that was read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reloaded {
    Changed,
    Unchanged,
    Failed,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let start = Gauge::new("process_start_time_seconds", "When this process started, in seconds since 1970.");
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        register(&registry, start).set(since_1970.as_secs_f64());
        let build = counted::<IntGaugeVec>(&registry, "tunneld_build_info", "Always 1; what runs.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let relayed = counted::<IntCounterVec>(
            &registry,
            "tunneld_relayed_bytes_total",
            "Bytes of bodies: up from callers to desktops, down from desktops to callers.",
            &["direction"],
        );
        let asked = Asked {
            tunnels: counted(&registry, "tunneld_tunnels", "Desktops that are connected.", &["state"]),
            streams: register(&registry, IntGauge::new("tunneld_streams", "Requests that are in flight.")),
            connections: register(
                &registry,
                IntGauge::new("tunneld_connections", "Connections of callers, and of desktops that shake hands."),
            ),
            round_trip: counted(
                &registry,
                "tunneld_tunnel_rtt_seconds",
                "Round trip of the last heartbeat to the desktops that are connected.",
                &["stat"],
            ),
            certificate: counted(
                &registry,
                "tunneld_certificate_expiry_timestamp_seconds",
                "When the certificate of the public side ends, in seconds since 1970.",
                &[],
            ),
            lost_lines: register(
                &registry,
                IntCounter::new("tunneld_log_lines_lost_total", "Log lines that could not be written."),
            ),
        };
        Self {
            requests: Requests::new(&registry),
            bytes_up: relayed.with_label_values(&["up"]),
            bytes_down: relayed.with_label_values(&["down"]),
            models: Models::new(&registry),
            connected: counted(
                &registry,
                "tunneld_tunnels_connected_total",
                "Desktops that connected: for the first time, again after a loss, or beside their old tunnel.",
                &["kind"],
            ),
            disconnected: counted(
                &registry,
                "tunneld_tunnels_disconnected_total",
                "Tunnels that ended, by the reason.",
                &["reason"],
            ),
            rejected_handshakes: counted(
                &registry,
                "tunneld_rejected_handshakes_total",
                "Connections that did not get as far as a request, and desktops that were refused.",
                &["reason"],
            ),
            reloads: counted(
                &registry,
                "tunneld_reloads_total",
                "Files that were read again while the server ran.",
                &["setting", "result"],
            ),
            reading: Mutex::new(asked),
            lost_lines: OnceLock::new(),
            registry,
        }
    }

    /// Where to ask how many log lines were lost.
    pub(crate) fn ask_for_lost_lines(&self, lost: impl Fn() -> u64 + Send + Sync + 'static) {
        _ = self.lost_lines.set(Box::new(lost));
    }

    /// A request is over.
    pub(crate) fn request(&self, request: &Request) {
        self.requests.count(request);
    }

    /// Requests that are over, by their outcome.
    pub(crate) fn outcomes(&self) -> BTreeMap<String, u64> {
        self.requests.outcomes()
    }

    /// A desktop was refused, or a connection ended before it asked for anything.
    pub(crate) fn rejected_handshake(&self, reason: &'static str) {
        self.rejected_handshakes.with_label_values(&[reason]).inc();
    }

    /// A desktop is connected.
    pub(crate) fn connected(&self, arrival: Arrival) {
        let kind = match arrival {
            Arrival::New => "new",
            Arrival::Back => "reconnect",
            Arrival::Beside => "replacement",
        };
        self.connected.with_label_values(&[kind]).inc();
    }

    /// A tunnel has ended.
    pub(crate) fn disconnected(&self, ended: &Ended) {
        let reason = match ended {
            Ended::Silent => "silent",
            Ended::Lost(_) => "lost",
            Ended::Here(close) | Ended::There(close) => match close.code {
                CloseCode::Normal => "normal",
                CloseCode::GoingAway => "going_away",
                CloseCode::Protocol => "protocol",
                CloseCode::Policy => "policy",
                CloseCode::TooBig => "too_big",
                CloseCode::Replaced => "replaced",
                CloseCode::TokenExpired => "token_expired",
                CloseCode::TokenRevoked => "token_revoked",
                CloseCode::Other(_) => "other",
            },
        };
        self.disconnected.with_label_values(&[reason]).inc();
    }

    /// A file was read again.
    pub(crate) fn reloaded(&self, setting: &'static str, reloaded: Reloaded) {
        let result = match reloaded {
            Reloaded::Changed => "changed",
            Reloaded::Unchanged => "unchanged",
            Reloaded::Failed => "failed",
        };
        self.reloads.with_label_values(&[setting, result]).inc();
    }

    /// All of it in the text format of Prometheus, version 0.0.4.
    pub(crate) fn text(&self, app: &App) -> String {
        let asked = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        asked.ask(app);
        if let Some(lost) = self.lost_lines.get() {
            asked.lost_lines.inc_by(lost().saturating_sub(asked.lost_lines.get()));
        }
        TextEncoder::new().encode_to_string(&self.registry.gather()).expect("text and numbers")
    }
}

impl Asked {
    fn ask(&self, app: &App) {
        let tunnels = app.registry.all();
        let (active, draining): (Vec<_>, Vec<_>) = tunnels.iter().partition(|tunnel| tunnel.takes_requests());
        for (state, tunnels) in [("active", active), ("draining", draining)] {
            self.tunnels.with_label_values(&[state]).set(as_i64(tunnels.len()));
        }
        self.streams.set(as_i64(tunnels.iter().map(|tunnel| tunnel.session.streams()).sum()));
        self.connections.set(as_i64(app.admission.connections.count()));
        if let Some(about) = app.certs.as_ref().and_then(|certs| certs.about()) {
            let end = about.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.certificate.with_label_values(&[] as &[&str]).set(end.as_secs_f64());
        }
        let mut round_trips: Vec<Duration> = tunnels.iter().filter_map(|tunnel| tunnel.session.rtt()).collect();
        round_trips.sort_unstable();
        let worst = round_trips.last();
        for (stat, rtt) in [("median", round_trips.get(round_trips.len() / 2)), ("max", worst)] {
            match rtt {
                Some(rtt) => self.round_trip.with_label_values(&[stat]).set(rtt.as_secs_f64()),
                // Without a desktop there is no round trip, not one of zero.
                None => _ = self.round_trip.remove_label_values(&[stat]),
            }
        }
    }
}

/// A family of metrics that can be made of a name and labels.
trait Family: Collector + Clone + Sized + 'static {
    fn make(opts: Opts, labels: &[&str]) -> prometheus::Result<Self>;
}

impl Family for IntCounterVec {
    fn make(opts: Opts, labels: &[&str]) -> prometheus::Result<Self> {
        Self::new(opts, labels)
    }
}

impl Family for IntGaugeVec {
    fn make(opts: Opts, labels: &[&str]) -> prometheus::Result<Self> {
        Self::new(opts, labels)
    }
}

impl Family for GaugeVec {
    fn make(opts: Opts, labels: &[&str]) -> prometheus::Result<Self> {
        Self::new(opts, labels)
    }
}

fn counted<F: Family>(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> F {
    register(registry, F::make(Opts::new(name, help), labels))
}

fn register<M: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<M>) -> M {
    let metric = metric.expect("names and labels are constants");
    registry.register(Box::new(metric.clone())).expect("each name is used once");
    metric
}

fn as_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
