//! One line in the log for each request, written when the last byte has left or the caller has.
//!
//! An [`Access`] is made when a request arrives and logs when it is dropped, so that no way out of the code can forget
//! it. Nothing secret enters it: the path is redacted first.

use std::{net::IpAddr, time::Duration};

use http::{Method, StatusCode};
use tokio::time::Instant;
use tracing::info;

use super::capability::redact;
use crate::{
    error::Refusal,
    id::{RequestId, TunnelId, UserId},
    proxy::Ending,
};

/// What is known of a request so far.
#[derive(Debug)]
pub(crate) struct Access {
    pub(crate) id: RequestId,
    pub(crate) arrived: Instant,
    /// The deadline in force, if the caller asked for one: each answer from then on says it.
    pub(super) deadline: Option<Duration>,
    client: IpAddr,
    method: Method,
    path: String,
    user: Option<UserId>,
    tunnel: Option<TunnelId>,
    status: Option<StatusCode>,
    bytes: u64,
    first_byte: Option<Duration>,
    outcome: Option<&'static str>,
    detail: Option<String>,
}

impl Access {
    pub(crate) fn new(client: IpAddr, method: &Method, target: &str) -> Self {
        Self {
            id: RequestId::new(),
            arrived: Instant::now(),
            deadline: None,
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
        }
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
        self.outcome.get_or_insert("complete");
    }

    pub(crate) fn refused(&mut self, refusal: &Refusal) {
        self.outcome = Some(refusal.code().as_str());
        self.detail = refusal.detail().map(str::to_owned);
    }

    /// The body of a forwarded response is over.
    pub(crate) fn ended(&mut self, bytes: u64, ending: &Ending) {
        self.bytes = bytes;
        match ending {
            Ending::Complete => {}
            Ending::CallerLeft => self.outcome = Some("caller_left"),
            Ending::Cut(refusal) => self.refused(refusal),
        }
    }
}

/// Enough of a path for a log: who is not known yet must not fill it.
fn shortened(mut path: String) -> String {
    const MOST: usize = 512;
    if let Some((end, _)) = path.char_indices().nth(MOST) {
        path.truncate(end);
        path.push('…');
    }
    path
}

impl Drop for Access {
    fn drop(&mut self) {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        info!(
            target: "access",
            request = %self.id,
            client = %self.client,
            user = self.user.as_ref().map(UserId::subject), // as a string, which the text format quotes (T35)
            tunnel = self.tunnel.map(tracing::field::display),
            method = %self.method,
            path = self.path,
            status = self.status.map(|status| status.as_u16()),
            bytes = self.bytes,
            first_byte_ms = self.first_byte.map(millis),
            duration_ms = millis(self.arrived.elapsed()),
            outcome = self.outcome.unwrap_or("caller_left"),
            detail = self.detail,
            "request"
        );
    }
}
