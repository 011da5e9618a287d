//! The table of errors, their bodies and terminal records, against the contract.

use std::time::Duration;

use http::HeaderMap;
use proptest::prelude::*;

use super::{
    body::{RecordBoundary, StreamFormat},
    *,
};

const ALL: [ErrorCode; 27] = [
    ErrorCode::BadRequest,
    ErrorCode::TokenMissing,
    ErrorCode::TokenInvalid,
    ErrorCode::TokenExpired,
    ErrorCode::ScopeDenied,
    ErrorCode::NotAllowed,
    ErrorCode::NoLogin,
    ErrorCode::NotFound,
    ErrorCode::MethodNotAllowed,
    ErrorCode::NameInUse,
    ErrorCode::TunnelLimit,
    ErrorCode::BodyTooLarge,
    ErrorCode::ExpectationFailed,
    ErrorCode::UpgradeRequired,
    ErrorCode::HeadTooLarge,
    ErrorCode::NotSupported,
    ErrorCode::VersionNotSupported,
    ErrorCode::TooManyStreams,
    ErrorCode::UpstreamUnreachable,
    ErrorCode::UpstreamError,
    ErrorCode::TunnelLost,
    ErrorCode::TunnelOffline,
    ErrorCode::Draining,
    ErrorCode::KeysUnavailable,
    ErrorCode::DirectoryUnavailable,
    ErrorCode::Overloaded,
    ErrorCode::DeadlineExceeded,
];
const SHAPES: [BodyShape; 3] = [BodyShape::Anthropic, BodyShape::OpenAi, BodyShape::Ollama];

fn json(body: &[u8]) -> serde_json::Value {
    serde_json::from_slice(body).unwrap()
}

#[test]
fn t34_t39_every_error_carries_code_and_request_id_and_is_not_stored() {
    let id = RequestId::new();
    for code in ALL {
        for shape in SHAPES {
            let refusal = Refusal::new(code).because("secret: 10.0.0.7:1");
            let response = refusal.response(shape, &id);
            let headers = response.headers();
            assert_eq!(response.status(), code.status());
            assert_eq!(headers["tunnel-error"], code.as_str());
            assert_eq!(headers["x-request-id"], id.to_string());
            assert_eq!(headers["cache-control"], "no-store");
            assert_eq!(headers["content-type"], "application/json");
            assert_eq!(headers["content-length"], response.body().len().to_string());
            assert_eq!(headers.contains_key("www-authenticate"), code.status() == 401);
            let body = std::str::from_utf8(response.body()).unwrap();
            assert!(!body.contains("secret"));
            assert_eq!(body.find('\n'), Some(body.len() - 1), "one line: {body}");
            json(response.body());
        }
    }
}

#[test]
fn sentences_say_what_to_do() {
    for code in ALL {
        let message = Refusal::new(code).message().to_owned();
        assert!(message.ends_with('.') && message.contains("; "), "{message}");
        assert!(!message.contains("  ") && !message.contains('\n'), "{message}");
    }
}

#[test]
fn a_deadline_that_passed_advises_what_helps() {
    let told = |more| Refusal::deadline(more).message().to_owned();
    let on_request = told(More::OnRequest { at_most: Duration::from_secs(90) });
    assert!(on_request.contains("'Tunnel-Deadline: 1m30s'") && !on_request.contains("--"), "{on_request}");
    let by_operator = told(More::ByOperator);
    assert!(by_operator.contains("--max-stream-deadline") && !by_operator.contains("Tunnel-"), "{by_operator}");
    assert!(Refusal::stalled().message().contains("--stall-timeout"));
}

#[test]
fn retries_follow_the_table() {
    let id = RequestId::new();
    for code in ALL {
        let response = Refusal::new(code).response(BodyShape::OpenAi, &id);
        let after = response.headers().get("retry-after");
        let never = response.headers().get("x-should-retry").is_some_and(|value| value == "false");
        match code.as_str() {
            "upstream_unreachable" | "upstream_error" | "tunnel_lost" | "tunnel_offline" | "deadline_exceeded" => {
                assert!(never && after.is_none(), "{code:?}");
            }
            "too_many_streams" => assert!(after.unwrap() == "1" && !never),
            "draining" | "keys_unavailable" | "directory_unavailable" | "overloaded" | "tunnel_limit" => {
                assert!(after.is_some() && !never, "{code:?}");
            }
            _ => assert!(after.is_none() && !never, "{code:?}"),
        }
    }
}

#[test]
fn the_shape_follows_the_path() {
    for (path, shape) in [
        ("/v1/messages", BodyShape::Anthropic),
        ("/v1/messages?beta=true", BodyShape::Anthropic),
        ("/v1/messages/count_tokens", BodyShape::Anthropic),
        ("/v1/messagesx", BodyShape::OpenAi),
        ("/v1/chat/completions", BodyShape::OpenAi),
        ("/v1", BodyShape::Ollama),
        ("/v1x/messages", BodyShape::Ollama),
        ("/api/chat?a=/v1/messages", BodyShape::Ollama),
        ("/", BodyShape::Ollama),
        ("*", BodyShape::Ollama),
    ] {
        assert_eq!(BodyShape::of(path), shape, "{path}");
    }
}

#[test]
fn bodies_are_what_client_libraries_read() {
    let id = RequestId::new();
    let refusal = Refusal::with_message(ErrorCode::TunnelOffline, "say \"no\"\n\u{7}");
    let read = |shape| json(refusal.response(shape, &id).body());
    assert_eq!(
        read(BodyShape::Anthropic),
        serde_json::json!({"type": "error", "error": {"type": "api_error", "message": "say \"no\"\n\u{7}"}})
    );
    assert_eq!(
        read(BodyShape::OpenAi),
        serde_json::json!({"error": {"message": "say \"no\"\n\u{7}", "type": "tunnel_error",
            "code": "tunnel_offline", "param": null}})
    );
    assert_eq!(
        read(BodyShape::Ollama),
        serde_json::json!({"error": "say \"no\"\n\u{7}", "code": "tunnel_offline", "request_id": id.to_string()})
    );
    let kind = |code: ErrorCode| {
        let body = json(Refusal::new(code).response(BodyShape::Anthropic, &id).body());
        body["error"]["type"].as_str().unwrap().to_owned()
    };
    assert_eq!(kind(ErrorCode::TokenExpired), "authentication_error");
    assert_eq!(kind(ErrorCode::ScopeDenied), "permission_error");
    assert_eq!(kind(ErrorCode::BodyTooLarge), "request_too_large");
    assert_eq!(kind(ErrorCode::TooManyStreams), "rate_limit_error");
    assert_eq!(kind(ErrorCode::Overloaded), "overloaded_error");
    assert_eq!(kind(ErrorCode::DeadlineExceeded), "timeout_error");
    assert_eq!(kind(ErrorCode::HeadTooLarge), "invalid_request_error");
}

#[test]
fn offline_says_since_when() {
    let since = SystemTime::UNIX_EPOCH + Duration::from_millis(1_750_000_000_123);
    let refusal = Refusal::offline(Some(since));
    assert!(refusal.message().contains("offline since 2025-06-15T15:06:40Z;"), "{refusal}");
    assert_eq!(Refusal::offline(None), Refusal::new(ErrorCode::TunnelOffline));
    let before_1970 = SystemTime::UNIX_EPOCH.checked_sub(Duration::from_secs(1));
    let year_10_000 = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(253_402_300_800));
    for absurd in [before_1970, year_10_000] {
        assert_eq!(Refusal::offline(absurd), Refusal::new(ErrorCode::TunnelOffline));
    }
}

#[test]
fn a_refused_token_in_the_path_is_403_without_a_challenge() {
    for code in [ErrorCode::TokenMissing, ErrorCode::TokenInvalid, ErrorCode::TokenExpired] {
        let response = Refusal::new(code).in_path().response(BodyShape::Ollama, &RequestId::new());
        assert_eq!(response.status(), 403);
        assert_eq!(response.headers()["tunnel-error"], code.as_str());
        assert!(!response.headers().contains_key("www-authenticate"));
    }
    assert_eq!(Refusal::new(ErrorCode::KeysUnavailable).in_path().status(), 503);
}

#[test]
fn a_426_names_the_protocol() {
    let response = Refusal::new(ErrorCode::UpgradeRequired).response(BodyShape::Ollama, &RequestId::new());
    assert_eq!(response.headers()["upgrade"], "websocket");
    assert_eq!(response.headers()["connection"], "upgrade");
}

fn response_headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

#[test]
fn f05_a_stream_ends_in_its_own_format() {
    let id = RequestId::new();
    let refusal = Refusal::new(ErrorCode::TunnelLost);
    let record = |format: StreamFormat| String::from_utf8(format.terminal_record(&refusal, &id).to_vec()).unwrap();
    let ndjson = record(StreamFormat::Ndjson);
    assert!(ndjson.starts_with(r#"{"error":"The desktop was lost"#) && ndjson.ends_with("}\n"), "{ndjson}");
    let open_ai = record(StreamFormat::OpenAiSse);
    assert!(open_ai.starts_with(r#"data: {"error":{"message":"#) && open_ai.ends_with("}}\n\n"), "{open_ai}");
    let anthropic = record(StreamFormat::AnthropicSse);
    assert!(anthropic.starts_with("event: error\ndata: {\"type\":\"error\",") && anthropic.ends_with("}}\n\n"));
}

#[test]
fn f05_only_plain_streams_take_a_record() {
    let of = |pairs: &[_], path| StreamFormat::of(&response_headers(pairs), path);
    let ndjson = ("content-type", "application/x-ndjson");
    let sse = ("content-type", "Text/Event-Stream; charset=utf-8");
    assert_eq!(of(&[ndjson], "/api/chat"), Some(StreamFormat::Ndjson));
    assert_eq!(of(&[sse], "/v1/chat/completions"), Some(StreamFormat::OpenAiSse));
    assert_eq!(of(&[sse], "/v1/messages"), Some(StreamFormat::AnthropicSse));
    assert_eq!(of(&[sse, ("content-encoding", "identity")], "/"), Some(StreamFormat::OpenAiSse));
    assert_eq!(of(&[sse, ("content-encoding", "gzip")], "/"), None);
    assert_eq!(of(&[ndjson, ("content-length", "7")], "/"), None);
    assert_eq!(of(&[("content-type", "application/json")], "/"), None);
    assert_eq!(of(&[], "/"), None);
}

#[test]
fn f05_records_end_where_their_format_says() {
    let ends = |format, text: &str| {
        let mut boundary = RecordBoundary::new(format);
        boundary.observe(text.as_bytes());
        boundary.is_here()
    };
    for text in ["", "{}\n", "\n"] {
        assert!(ends(StreamFormat::Ndjson, text), "{text:?}");
    }
    assert!(!ends(StreamFormat::Ndjson, "{}\n{"));
    for text in ["", "data: 1\n\n", "data: 1\r\n\r\n", "data: 1\r\r", "data: 1\r\n\n", "a\r\r\n"] {
        assert!(ends(StreamFormat::OpenAiSse, text), "{text:?}");
    }
    for text in ["data: 1\n", "data: 1\r\n", "data: 1\r", "d", "\n\nd", "data: 1\n\nd"] {
        assert!(!ends(StreamFormat::AnthropicSse, text), "{text:?}");
    }
}

proptest! {
    /// How a body is cut into chunks changes nothing.
    #[test]
    fn f05_boundaries_ignore_chunking(text in "[a\r\n]{0,12}", cuts in proptest::collection::vec(0..12usize, 0..4)) {
        for format in [StreamFormat::Ndjson, StreamFormat::OpenAiSse] {
            let mut whole = RecordBoundary::new(format);
            whole.observe(text.as_bytes());
            let mut pieces = RecordBoundary::new(format);
            let mut rest = text.as_bytes();
            for cut in &cuts {
                let (piece, tail) = rest.split_at((*cut).min(rest.len()));
                pieces.observe(piece);
                rest = tail;
            }
            pieces.observe(rest);
            prop_assert_eq!(whole.is_here(), pieces.is_here());
        }
    }
}
