//! Running response bodies: where a record ends, and the one of ours that may end them.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;
use tunneld::{
    error::{
        ErrorCode, Refusal,
        body::{RecordBoundary, StreamFormat},
    },
    id::RequestId,
};

use crate::input::{Input, pieces};

const CODES: [ErrorCode; 6] = [
    ErrorCode::TunnelLost,
    ErrorCode::DeadlineExceeded,
    ErrorCode::UpstreamError,
    ErrorCode::UpstreamUnreachable,
    ErrorCode::Draining,
    ErrorCode::NotAllowed,
];

/// The path, the content type, the sentence and the detail of a failure in a line each, then the body so far; the first
/// byte says in which pieces it comes, the second which failure it is.
///
/// A record of ours comes only where the reader of the format begins one, and is then one whole record that says so.
pub fn records(data: &[u8]) {
    let mut input = Input::new(data);
    let (how, code) = (input.byte(), CODES[usize::from(input.byte()) % CODES.len()]);
    let (Some(path), Some(kind), Some(message), Some(detail)) =
        (input.text(), input.text(), input.text(), input.text())
    else {
        return;
    };
    let Ok(kind) = http::HeaderValue::from_str(kind) else { return };
    let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, kind)]);
    let Some(format) = StreamFormat::of(&headers, path) else { return };
    let body = Bytes::copy_from_slice(input.rest());

    let mut boundary = RecordBoundary::new(format);
    for piece in pieces(&body, how) {
        boundary.observe(&piece);
    }
    let expected = if format == StreamFormat::Ndjson { body.is_empty() || body.ends_with(b"\n") } else { blank(&body) };
    assert_eq!(boundary.is_here(), expected, "{format:?} after {body:?}");

    let secret = format!("<{detail}>");
    let refusal = Refusal::with_message(code, message.to_owned()).because(secret.clone());
    let record = format.terminal_record(&refusal, &RequestId::new());
    let text = str::from_utf8(&record).expect("UTF-8");
    assert!(message.contains(&secret) || !text.contains(&secret), "the reason for the log is told to the caller");
    let json = one_record(format, text);
    let told = match format {
        StreamFormat::Ndjson => &json["error"],
        StreamFormat::OpenAiSse | StreamFormat::AnthropicSse => &json["error"]["message"],
    };
    assert_eq!(told, message);
    assert_ne!(text.trim_end(), "data: [DONE]");
}

/// Whether an event stream is at its start or behind a blank line (HTML §9.2.5), read line by line.
fn blank(body: &[u8]) -> bool {
    let mut rest = body;
    let mut last = true;
    while let Some(end) = rest.iter().position(|b| matches!(b, b'\r' | b'\n')) {
        last = end == 0;
        let pair = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + 1 + usize::from(pair)..];
    }
    last && rest.is_empty()
}

/// Reads a record as the client libraries do.
fn one_record(format: StreamFormat, text: &str) -> Value {
    assert!(!text.contains('\r'), "{text:?}");
    let lines: Vec<&str> = text.lines().collect();
    let data = match (format, &lines[..]) {
        (StreamFormat::Ndjson, [line]) => line,
        (StreamFormat::OpenAiSse, [data, ""]) | (StreamFormat::AnthropicSse, ["event: error", data, ""]) => {
            data.strip_prefix("data: ").expect("a data line")
        }
        _ => panic!("not one record: {text:?}"),
    };
    assert!(text.ends_with('\n'));
    serde_json::from_str(data).expect("JSON")
}
