//! Answers of our own when there is none of the server: status, code, and one sentence in the shape of the API that
//! was called, as tunneld's own errors have them.

use std::fmt;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::json;
use tunnel_certs::client::reason;
use url::Url;

use crate::config::origin;

/// Why a request was not answered by the server.
#[derive(Debug)]
pub(super) struct Sorry {
    status: StatusCode,
    pub(super) code: &'static str,
    message: String,
    retry: Retry,
}

/// What SDKs that repeat every 5xx are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    /// Nothing was sent.
    Fine,
    /// It may have run.
    No,
}

impl Sorry {
    pub(super) fn forbidden(message: &str) -> Self {
        Self { status: StatusCode::FORBIDDEN, code: "not_allowed", message: message.into(), retry: Retry::No }
    }

    pub(super) fn bad(message: &str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "bad_request", message: message.into(), retry: Retry::No }
    }

    /// There is no token to send, or it names no server.
    pub(super) fn token(error: &impl fmt::Display) -> Self {
        let message = format!("tunnel forward has no usable token: {error}");
        Self { status: StatusCode::BAD_GATEWAY, code: "token_missing", message, retry: Retry::No }
    }

    /// The request to the server failed before an answer came.
    pub(super) fn failed(server: &Url, error: &hyper_util::client::legacy::Error) -> Self {
        let (server, why) = (origin(server), reason(error));
        let (code, message, retry) = if error.is_connect() {
            ("server_unreachable", format!("{server} cannot be reached: {why}; try `tunnel doctor`"), Retry::Fine)
        } else {
            ("server_lost", format!("{server} broke off before it answered: {why}; try `tunnel doctor`"), Retry::No)
        };
        Self { status: StatusCode::BAD_GATEWAY, code, message, retry }
    }

    /// The answer to a request for `path`.
    pub(super) fn response(&self, path: &str) -> Response<Full<Bytes>> {
        let Self { status, code, message, retry } = self;
        let body = if path == "/v1/messages" || path.starts_with("/v1/messages/") {
            json!({"type": "error", "error": {"type": "api_error", "message": message}})
        } else if path.starts_with("/v1/") {
            json!({"error": {"message": message, "type": "tunnel_error", "code": code, "param": null}})
        } else {
            json!({"error": message, "code": code})
        };
        let mut response = Response::new(Full::from(format!("{body}\n")));
        *response.status_mut() = *status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert("tunnel-error", HeaderValue::from_static(code));
        if *retry == Retry::No {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response
    }
}

impl fmt::Display for Sorry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
