//! What the server says of a user's desktops, as its own callers learn it.

use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use integration_tests::body;
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    caller::Callers,
    line::{Line, Protocol},
    ticket::User,
};

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// A user's desktops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    /// Their names, those that take requests.
    pub(crate) desktops: Vec<String>,
    /// Their requests.
    pub(crate) in_flight: u64,
}

/// Asks `/api/tunnel/status`; `None` where there is no answer.
pub(crate) async fn status(callers: &Callers, user: User) -> Option<Status> {
    let asking = async {
        let line = Line::new(callers, user, Protocol::Http1);
        let mut taken = line.take().await.ok()?;
        let request = Request::get("/api/tunnel/status").body(body::empty()).ok()?;
        let response = line.send(&mut taken, request).await.ok()?;
        let body = response.into_body().collect().await.ok()?.to_bytes();
        let status: Value = serde_json::from_slice(&body).ok()?;
        let tunnels = status.get("tunnels")?.as_array()?;
        let desktops = tunnels.iter().filter_map(|tunnel| Some(tunnel.get("name")?.as_str()?.to_owned())).collect();
        let in_flight = tunnels.iter().filter_map(|tunnel| tunnel.get("in_flight")?.as_u64()).sum();
        Some(Status { desktops, in_flight })
    };
    timeout(ANSWER_WITHIN, asking).await.ok().flatten()
}
