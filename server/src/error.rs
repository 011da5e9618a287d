//! Every error that the edge answers with.
//!
//! Owns what a caller is told. The sentence says what is wrong and what to do; reasons for operators travel in
//! [`Refusal::detail`], which only the log sees, so that no address, path or text of a library reaches a body.
//! * `code`: the one table of status, code, retry header and sentence.
//! * [`body`]: how a sentence is written into a body or into a running stream.

pub mod body;
mod code;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use thiserror::Error;
use tunnel_frame::AbortCode;

pub use self::code::ErrorCode;
use self::{body::BodyShape, code::Retry};
use crate::{
    auth::{AuthError, Scope},
    id::RequestId,
};

/// Names the code of an error to programs, on every error response.
pub const TUNNEL_ERROR: HeaderName = HeaderName::from_static("tunnel-error");
/// The request's id, on every response.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Stops the retries of the OpenAI SDKs, which otherwise repeat 408, 409, 429 and every 5xx.
const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Who can give a request more time than it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum More {
    /// Its caller, by asking for it.
    OnRequest {
        /// The most that the server allows.
        at_most: Duration,
    },
    /// Only the operator: it had the most that the server allows.
    ByOperator,
}

/// A request that is answered with an error: the code, what the caller reads, and what the log reads.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct Refusal {
    code: ErrorCode,
    status: StatusCode,
    message: Cow<'static, str>,
    detail: Option<Cow<'static, str>>,
}

impl Refusal {
    /// A refusal in the words of the table.
    #[must_use]
    pub fn new(code: ErrorCode) -> Self {
        Self::with_message(code, code.message())
    }

    /// A refusal in better words: what is wrong and what to do, free of addresses and of text from libraries.
    #[must_use]
    pub fn with_message(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, status: code.status(), message: message.into(), detail: None }
    }

    /// No desktop is connected, and when the last one was lost, if this process knows it.
    #[must_use]
    pub fn offline(since: Option<SystemTime>) -> Self {
        let Some(since) = since.and_then(rfc3339) else { return Self::new(ErrorCode::TunnelOffline) };
        let message = format!("The desktop of this user is offline since {since}; run 'tunnel connect' on it.");
        Self::with_message(ErrorCode::TunnelOffline, message)
    }

    /// Others of the user's desktops may be connected, but not the one that was asked for.
    #[must_use]
    pub fn desktop_offline() -> Self {
        let message =
            "No desktop of this user is connected under that name; GET /api/tunnel/status lists those that are.";
        Self::with_message(ErrorCode::TunnelOffline, message)
    }

    /// The token's scope does not cover what is asked: which it has, and which is `needed`, without `tunnel:`.
    #[must_use]
    pub fn scope(has: Scope, needed: &str) -> Self {
        let has = if has.is_empty() { "none of this server".to_owned() } else { has.to_string() };
        Self::with_message(
            ErrorCode::ScopeDenied,
            format!(
                "The scope of this token is {has}, and this needs tunnel:{needed}; get one that 'tunneld token --user NAME \
                 --scope {needed}' mints, or ask who gave you this one."
            ),
        )
    }

    /// A page asks whether it may call, and its origin is not on the list. The origin itself is not repeated.
    #[must_use]
    pub fn foreign_origin() -> Self {
        let message =
            "Web pages of this origin may not call this server; its operator lets them in with --cors-origin.";
        Self::with_message(ErrorCode::NotAllowed, message).because("a preflight of an origin that is not listed")
    }

    /// The deadline has passed. Where it was the longest that the server allows, asking for more would change nothing.
    #[must_use]
    pub fn deadline(more: More) -> Self {
        match more {
            More::OnRequest { at_most } => Self::with_message(
                ErrorCode::DeadlineExceeded,
                format!(
                    "The response did not complete in time; ask for more with 'Tunnel-Deadline: {}', the most that \
                     this server allows.",
                    humantime::format_duration(at_most).to_string().replace(' ', "")
                ),
            ),
            More::ByOperator => Self::with_message(
                ErrorCode::DeadlineExceeded,
                "The response did not complete in the longest time that this server allows; ask its operator to raise                  --stream-deadline and --max-stream-deadline.",
            ),
        }
    }

    /// No byte moved within the stall timeout.
    #[must_use]
    pub fn stalled() -> Self {
        let message = "Nothing moved for longer than this server waits; if the model only needs more time, ask the                        operator to raise --stall-timeout.";
        Self::with_message(ErrorCode::DeadlineExceeded, message).because("no byte moved within the stall timeout")
    }

    /// Adds a reason for our log. It never leaves the server.
    #[must_use]
    pub fn because(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same refusal of a credential that came in the path: 403 where it were 401, because on 401 the Ollama CLI
    /// tells people to sign in to its cloud, and no challenge could be met.
    #[must_use]
    pub fn in_path(mut self) -> Self {
        if self.status == StatusCode::UNAUTHORIZED {
            self.status = StatusCode::FORBIDDEN;
        }
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The status of the response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What the caller reads.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the request itself was odd, so that nobody can be sure where it ends: an HTTP/1 connection is closed.
    #[must_use]
    pub fn leaves_doubt(&self) -> bool {
        matches!(self.status.as_u16(), 400 | 413 | 417 | 431 | 501 | 505)
    }

    /// What only our log reads.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// The response. To a `HEAD`, take the body out and leave the headers, `Content-Length` among them, as they are
    /// (RFC 9110 §9.3.2).
    #[must_use]
    pub fn response(&self, shape: BodyShape, request_id: &RequestId) -> Response<Bytes> {
        let body = shape.body(self, request_id);
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_LENGTH, body.len().into());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(TUNNEL_ERROR, HeaderValue::from_static(self.code.as_str()));
        if let Ok(id) = HeaderValue::from_str(request_id.as_str()) {
            headers.insert(X_REQUEST_ID, id);
        }
        match self.code.retry() {
            Retry::Unsaid => {}
            Retry::Never => _ = headers.insert(X_SHOULD_RETRY, HeaderValue::from_static("false")),
            Retry::After(seconds) => _ = headers.insert(header::RETRY_AFTER, seconds.into()),
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110 §15.5.2: a 401 carries a challenge.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            // RFC 9110 §15.5.6: a 405 lists what is allowed.
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        if self.status == StatusCode::UPGRADE_REQUIRED {
            // RFC 9110 §15.5.22: a 426 names the protocol; §7.8: Connection goes with it.
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        *response.body_mut() = body;
        response
    }
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self::new(code)
    }
}

/// What a caller is told when its token was not accepted. Pass it through
/// [`Source::refuse`](crate::edge::credential::Source::refuse).
impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Invalid(reason) => Self::new(ErrorCode::TokenInvalid).because(reason),
            AuthError::KeyUnknown => Self::new(ErrorCode::TokenInvalid).because("no key of this id"),
            AuthError::KeyReplaced => Self::new(ErrorCode::TokenInvalid).because("the key was replaced"),
            AuthError::Revoked => Self::with_message(
                ErrorCode::TokenInvalid,
                "This token was revoked; ask the operator of this server for a new one.",
            )
            .because("revoked"),
            AuthError::Expired => Self::new(ErrorCode::TokenExpired),
            AuthError::NotAllowed => Self::with_message(
                ErrorCode::NotAllowed,
                "This user may not use this server; ask its operator to be let in.",
            ),
            AuthError::KeysUnavailable => Self::new(ErrorCode::KeysUnavailable),
        }
    }
}

/// What a caller is told when the desktop gave a stream up. The desktop's own message is for the log.
impl From<AbortCode> for Refusal {
    fn from(code: AbortCode) -> Self {
        match code {
            AbortCode::UpstreamUnreachable => Self::new(ErrorCode::UpstreamUnreachable),
            AbortCode::UpstreamError => Self::new(ErrorCode::UpstreamError),
            AbortCode::NotAllowed => Self::with_message(
                ErrorCode::NotAllowed,
                "The desktop does not allow this request; start 'tunnel connect' there with an --allow that does.",
            ),
            AbortCode::DeadlineExceeded => Self::new(ErrorCode::DeadlineExceeded),
            AbortCode::Draining => Self::with_message(
                ErrorCode::Draining,
                "The desktop is about to disconnect and did not pass this request on; send it again.",
            ),
            // `Internal`, `BadRequest`, and what a newer client may say.
            _ => Self::with_message(
                ErrorCode::UpstreamError,
                "The tunnel client on the desktop failed on this request; look at its log there.",
            ),
        }
    }
}

/// A time to the second, in UTC; `None` where a broken clock gives one that has no such form.
fn rfc3339(time: SystemTime) -> Option<String> {
    const YEAR_10_000: u64 = 253_402_300_800;
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (since_1970.as_secs() < YEAR_10_000).then(|| humantime::format_rfc3339_seconds(time).to_string())
}
