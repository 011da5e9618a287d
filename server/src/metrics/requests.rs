//! Requests: how many, how they ended, how long they took.

use std::{collections::BTreeMap, sync::OnceLock, time::Duration};

use http::StatusCode;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Registry, core::Collector};

use super::{Endpoint, counted, register};
use crate::error::ErrorCode;

/// Upper bounds in seconds: an answer from memory takes milliseconds, a large model minutes to load.
const FIRST_BYTE: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// The same for whole answers: a long generation, or gigabytes of a model, take longer.
const DURATION: [f64; 14] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// To its last byte.
    Complete,
    /// Before that, because the caller wanted no more.
    CallerLeft,
    /// With an error, in place of an answer or in the middle of one.
    Failed(ErrorCode),
}

impl Outcome {
    /// As logs and metrics say it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::CallerLeft => "caller_left",
            Self::Failed(code) => code.as_str(),
        }
    }
}

/// What is counted of a request that is over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) endpoint: Endpoint,
    /// `None`: the caller left before there was one.
    pub(crate) status: Option<StatusCode>,
    pub(crate) outcome: Outcome,
    /// From the request's arrival to the head of a desktop's answer.
    pub(crate) first_byte: Option<Duration>,
    /// From the request's arrival to the end, if a desktop answered.
    pub(crate) duration: Option<Duration>,
}

/// All requests.
pub(super) struct Requests {
    all: IntCounterVec,
    first_byte: HistogramVec,
    duration: HistogramVec,
    /// Handles for what is common, made when an endpoint is first asked for: others have no series.
    usual: [OnceLock<Usual>; Endpoint::COUNT],
}

struct Usual {
    complete: IntCounter,
    first_byte: Histogram,
    duration: Histogram,
}

impl Requests {
    pub(super) fn new(registry: &Registry) -> Self {
        let histogram = |name: &str, help: &str, bounds: &[f64]| {
            let opts = HistogramOpts::new(name, help).buckets(bounds.to_vec());
            register(registry, HistogramVec::new(opts, &["endpoint"]))
        };
        Self {
            all: counted(
                registry,
                "tunneld_requests_total",
                "Requests that are over; outcome is complete, caller_left or the code of an error.",
                &["endpoint", "status", "outcome"],
            ),
            first_byte: histogram(
                "tunneld_time_to_first_byte_seconds",
                "From a request's arrival to the head of its desktop's answer.",
                &FIRST_BYTE,
            ),
            duration: histogram(
                "tunneld_request_duration_seconds",
                "From a request's arrival to the end of its desktop's answer.",
                &DURATION,
            ),
            usual: [const { OnceLock::new() }; Endpoint::COUNT],
        }
    }

    pub(super) fn count(&self, request: &Request) {
        let Request { endpoint, status, outcome, first_byte, duration } = *request;
        let usual = || self.usual[endpoint.index()].get_or_init(|| self.usual(endpoint));
        if outcome == Outcome::Complete && status.is_some_and(|status| status.is_success()) {
            usual().complete.inc();
        } else {
            self.all.with_label_values(&[endpoint.as_str(), class(status), outcome.as_str()]).inc();
        }
        if let Some(first_byte) = first_byte {
            usual().first_byte.observe(first_byte.as_secs_f64());
        }
        if let Some(duration) = duration {
            usual().duration.observe(duration.as_secs_f64());
        }
    }

    /// How many there were of each outcome.
    pub(super) fn outcomes(&self) -> BTreeMap<String, u64> {
        let mut outcomes = BTreeMap::new();
        for family in self.all.collect() {
            for metric in family.get_metric() {
                let outcome = metric.get_label().iter().find(|label| label.name() == "outcome");
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was a u64 before")]
                let count = metric.get_counter().get_value() as u64;
                *outcomes.entry(outcome.map_or("", |label| label.value()).to_owned()).or_default() += count;
            }
        }
        outcomes
    }

    fn usual(&self, endpoint: Endpoint) -> Usual {
        let label = endpoint.as_str();
        Usual {
            complete: self.all.with_label_values(&[label, "2xx", Outcome::Complete.as_str()]),
            first_byte: self.first_byte.with_label_values(&[label]),
            duration: self.duration.with_label_values(&[label]),
        }
    }
}

fn class(status: Option<StatusCode>) -> &'static str {
    match status.map_or(0, |status| status.as_u16() / 100) {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "none",
    }
}
