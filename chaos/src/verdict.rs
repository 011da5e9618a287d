//! How requests end, and which ends are never excused.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    ledger::Ledger,
    ticket::Ticket,
    timeline::{Allows, Timeline},
};

/// What must never be, whatever fault was active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It failed though nothing justified it.
    Lost,
    /// It ran twice at the upstream; callers never repeat a ticket.
    Duplicated,
    /// Bytes of another request, or another user's upstream.
    Crossed,
    /// No end by its deadline and five seconds.
    Hung,
    /// It ended cleanly, and bytes were missing.
    Truncated,
}

impl Wrong {
    pub(crate) const ALL: [Self; 5] = [Self::Lost, Self::Duplicated, Self::Crossed, Self::Hung, Self::Truncated];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Duplicated => "duplicated",
            Self::Crossed => "crossed",
            Self::Hung => "hung",
            Self::Truncated => "truncated",
        }
    }
}

/// All that went wrong, from everyone who noticed.
#[derive(Debug, Default)]
pub(crate) struct Wrongs(Mutex<Vec<(Ticket, Wrong, String, Instant)>>);

impl Wrongs {
    pub(crate) fn note(&self, ticket: Ticket, wrong: Wrong, detail: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((ticket, wrong, detail, Instant::now()));
    }

    pub(crate) fn take(&self) -> Vec<(Ticket, Wrong, String, Instant)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How a request failed, as its caller saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// There was no connection to send it on.
    Connect(String),
    /// The connection was about to end, and took no more.
    TurnedAway,
    /// The connection broke before a head came.
    NoHead(String),
    /// An error of the tunnel: status and `Tunnel-Error`.
    Refused(u16, String),
    /// The body broke off, visibly; the code of a terminal record, if there was one.
    Cut { at: u64, record: Option<String>, error: String },
}

impl Failure {
    /// What it has in common with others.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Connect(_) => "no connection".to_owned(),
            Self::TurnedAway => "turned away".to_owned(),
            Self::NoHead(_) => "no head".to_owned(),
            Self::Refused(status, code) => format!("{status} {code}"),
            Self::Cut { record, .. } => format!("cut, {}", record.as_deref().unwrap_or("no record")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "no connection: {error}"),
            Self::TurnedAway => f.write_str("turned away twice"),
            Self::NoHead(error) => write!(f, "no head: {error}"),
            Self::Refused(status, code) => write!(f, "{status} {code}"),
            Self::Cut { at, record, error } => {
                write!(f, "cut after {at} bytes ({}): {error}", record.as_deref().unwrap_or("no record"))
            }
        }
    }
}

/// A request that failed; whether that was justified is known only when its fault is over.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    pub(crate) ticket: Ticket,
    pub(crate) how: Failure,
    pub(crate) since: Instant,
    pub(crate) at: Instant,
    /// For how long its caller did not read.
    pub(crate) away: Duration,
    pub(crate) protocol: &'static str,
}

impl Failed {
    /// Whether a fault justifies it: it was active when the request failed, it touched this user, and this is how
    /// such a fault may look.
    pub(crate) fn is_justified(&self, timeline: &Timeline, ledger: &Arc<Ledger>) -> bool {
        timeline.around(self.ticket.user, self.since, self.at, self.away).any(|allows| self.fits(allows, ledger))
    }

    fn fits(&self, allows: Allows, ledger: &Arc<Ledger>) -> bool {
        let not_sent = || !ledger.knows(self.ticket);
        match (allows, &self.how) {
            // Nothing but what never ran: a drain loses no request that was taken.
            (Allows::Unsent, Failure::Connect(_) | Failure::NoHead(_)) => not_sent(),
            (Allows::Unsent, Failure::Refused(503, code)) => {
                matches!(code.as_str(), "draining" | "tunnel_offline") && not_sent()
            }
            (Allows::Upstream, Failure::Refused(502, code)) => {
                matches!(code.as_str(), "upstream_unreachable" | "upstream_error")
            }
            (Allows::Upstream, Failure::Cut { record, .. }) => {
                record.as_deref().is_none_or(|code| code == "upstream_error")
            }
            (Allows::Breaks, Failure::Refused(status, _)) => matches!(status, 429 | 502 | 503 | 504),
            (Allows::Breaks, _) => true,
            (Allows::Nothing | Allows::Unsent | Allows::Upstream, _) => false,
        }
    }
}
