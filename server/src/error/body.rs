//! How an error is written: as the body of a response, or as the last record of a stream that had begun.
//!
//! Owns the three shapes of JSON that client libraries read, and the two stream formats. Decides nothing about what
//! went wrong.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};

use super::Refusal;
use crate::id::RequestId;

/// The JSON in which the client library of an endpoint looks for an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyShape {
    /// `{"type":"error","error":{"type","message"}}`
    Anthropic,
    /// `{"error":{"message","type","code","param"}}`
    OpenAi,
    /// `{"error","code","request_id"}`
    Ollama,
}

impl BodyShape {
    /// The shape for a path, taken after any capability prefix; a query is ignored.
    #[must_use]
    pub fn of(path: &str) -> Self {
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        match path.strip_prefix("/v1/") {
            Some(rest) if rest == "messages" || rest.starts_with("messages/") => Self::Anthropic,
            Some(_) => Self::OpenAi,
            None => Self::Ollama,
        }
    }

    /// One line of JSON, ended by a newline.
    pub(super) fn body(self, refusal: &Refusal, request_id: &RequestId) -> Bytes {
        (self.json(refusal, request_id) + "\n").into()
    }

    fn json(self, refusal: &Refusal, request_id: &RequestId) -> String {
        let message = quoted(refusal.message());
        let code = refusal.code().as_str();
        match self {
            Self::Anthropic => {
                let kind = anthropic_type(refusal);
                format!(r#"{{"type":"error","error":{{"type":"{kind}","message":{message}}}}}"#)
            }
            Self::OpenAi => {
                format!(r#"{{"error":{{"message":{message},"type":"tunnel_error","code":"{code}","param":null}}}}"#)
            }
            Self::Ollama => format!(r#"{{"error":{message},"code":"{code}","request_id":"{request_id}"}}"#),
        }
    }
}

/// The error types of Anthropic's API, by which its SDKs and Claude Code decide what to say.
fn anthropic_type(refusal: &Refusal) -> &'static str {
    use super::ErrorCode as E;
    match (refusal.status(), refusal.code()) {
        (StatusCode::UNAUTHORIZED, _) => "authentication_error",
        (StatusCode::FORBIDDEN, _) => "permission_error",
        (StatusCode::PAYLOAD_TOO_LARGE, _) => "request_too_large",
        (StatusCode::TOO_MANY_REQUESTS, _) => "rate_limit_error",
        (StatusCode::GATEWAY_TIMEOUT, _) => "timeout_error",
        (_, E::Draining | E::Overloaded) => "overloaded_error",
        (StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE, _) => "api_error",
        _ => "invalid_request_error",
    }
}

/// A JSON string with its quotes.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A body format in which an error can still be said after the head has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamFormat {
    /// Newline-delimited JSON, as Ollama streams.
    Ndjson,
    /// Server-sent events with bare `data:` lines, as OpenAI streams.
    OpenAiSse,
    /// Server-sent events with named events, as Anthropic streams.
    AnthropicSse,
}

impl StreamFormat {
    /// The format of a response to a request for `path`, taken after any capability prefix. `None` where a record of
    /// ours would not be read as one: another type, a content coding, or a declared length. A length that travels
    /// outside the headers is for the caller to look at.
    #[must_use]
    pub fn of(response: &HeaderMap, path: &str) -> Option<Self> {
        let full_type = response.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let essence = full_type.split(';').next().unwrap_or_default().trim();
        let is = |name: &str| essence.eq_ignore_ascii_case(name);
        let format = if is("application/x-ndjson") || is("application/ndjson") || is("application/jsonl") {
            Self::Ndjson
        } else if is("text/event-stream") {
            if BodyShape::of(path) == BodyShape::Anthropic { Self::AnthropicSse } else { Self::OpenAiSse }
        } else {
            return None;
        };
        let coded = response.get_all(header::CONTENT_ENCODING).iter().any(|coding| coding != "identity");
        let is_whole = !coded && !response.contains_key(header::CONTENT_LENGTH);
        is_whole.then_some(format)
    }

    /// The record that ends a stream with an error. The body is aborted after it: it is never a clean end.
    #[must_use]
    pub fn terminal_record(self, refusal: &Refusal, request_id: &RequestId) -> Bytes {
        let json = |shape: BodyShape| shape.json(refusal, request_id);
        match self {
            Self::Ndjson => json(BodyShape::Ollama) + "\n",
            Self::OpenAiSse => format!("data: {}\n\n", json(BodyShape::OpenAi)),
            Self::AnthropicSse => format!("event: error\ndata: {}\n\n", json(BodyShape::Anthropic)),
        }
        .into()
    }
}

/// Watches a body go by and knows whether its bytes so far end a record, so that a record of ours would begin one.
#[derive(Debug, Clone)]
pub struct RecordBoundary {
    format: StreamFormat,
    tail: [u8; Self::TAIL],
}

impl RecordBoundary {
    /// Three bytes tell a blank line in each of its spellings (HTML §9.2.5: LF, CR LF or CR ends a line).
    const TAIL: usize = 3;

    /// Before the first byte, where a record may begin.
    #[must_use]
    pub fn new(format: StreamFormat) -> Self {
        Self { format, tail: [b'\n'; Self::TAIL] }
    }

    /// The format that is watched for.
    #[must_use]
    pub fn format(&self) -> StreamFormat {
        self.format
    }

    /// Takes note of a chunk that was passed on.
    pub fn observe(&mut self, chunk: &[u8]) {
        let new = &chunk[chunk.len().saturating_sub(Self::TAIL)..];
        self.tail.rotate_left(new.len());
        self.tail[Self::TAIL - new.len()..].copy_from_slice(new);
    }

    /// Whether a record may begin here.
    #[must_use]
    pub fn is_here(&self) -> bool {
        match (self.format, self.tail) {
            (StreamFormat::Ndjson, [.., last]) => last == b'\n',
            // A CR LF pair is one line end, so it takes a third byte to see two.
            (_, [before, b'\r', b'\n']) => matches!(before, b'\r' | b'\n'),
            (_, [_, one, two]) => matches!(one, b'\r' | b'\n') && matches!(two, b'\r' | b'\n'),
        }
    }
}
