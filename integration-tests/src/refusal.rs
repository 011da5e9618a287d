//! What every refusal must look like, whatever its cause: one place that knows the table's columns.

use serde_json::Value;

use crate::caller::Reply;

/// What a client library is told about sending the request again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Nothing.
    Unsaid,
    /// Not to: `x-should-retry: false`, and no `Retry-After`.
    Never,
    /// After a while: `Retry-After` with this value.
    After(&'static str),
    /// After a while that the table does not fix.
    Later,
}

/// The JSON of a refusal's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{"error":"message","code","request_id"}`
    Ollama,
    /// `{"error":{"message","type","code","param"}}`
    OpenAi,
    /// `{"type":"error","error":{"type","message"}}`
    Anthropic,
}

/// What stands in no body of ours: addresses, names of libraries, words of the operating system.
const LEAKS: [&str; 11] = [
    "127.0.0.1",
    "localhost",
    "hyper",
    "rustls",
    "yamux",
    "tungstenite",
    "jsonwebtoken",
    "os error",
    "Connection refused",
    ".rs",
    "/tmp",
];

/// Insists that `reply` is the refusal `code`, right in status, headers and body; gives its sentence.
pub async fn check(reply: Reply, status: u16, code: &str, retry: Retry, shape: Shape) -> String {
    assert_eq!(reply.error(), (status, code));
    let id = head(&reply, retry);
    let text = reply.text().await;
    let message = body(&text, code, &id, shape);
    assert!(message.len() > 10 && message.contains(' '), "no sentence: {message:?}");
    message
}

/// The columns that are header fields; gives the request id.
fn head(reply: &Reply, retry: Retry) -> String {
    let id = reply.header("x-request-id").to_owned();
    assert!(id.len() >= 16, "a request id: {id:?}");
    assert_eq!(reply.header("cache-control"), "no-store");
    assert!(reply.header("content-type").starts_with("application/json"), "{:?}", reply.header("content-type"));
    let authenticate = reply.header("www-authenticate");
    assert_eq!(authenticate.starts_with("Bearer"), reply.status() == 401, "WWW-Authenticate: {authenticate:?}");
    let (should, after) = (reply.header("x-should-retry"), reply.header("retry-after"));
    match retry {
        Retry::Unsaid => assert_eq!((should, after), ("", "")),
        Retry::Never => assert_eq!((should, after), ("false", "")),
        Retry::After(seconds) => assert_eq!((should, after), ("", seconds)),
        Retry::Later => {
            assert_eq!(should, "");
            assert!(after.parse::<u32>().is_ok_and(|seconds| seconds > 0), "Retry-After: {after:?}");
        }
    }
    id
}

/// The body; gives its sentence.
fn body(text: &str, code: &str, id: &str, shape: Shape) -> String {
    assert_eq!(text.trim_end_matches('\n').lines().count(), 1, "one line: {text:?}");
    for leak in LEAKS {
        assert!(!text.contains(leak), "{leak} in {text:?}");
    }
    let json: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text:?}"));
    let message = match shape {
        Shape::Ollama => {
            assert_eq!((&json["code"], &json["request_id"]), (&Value::from(code), &Value::from(id)), "{text}");
            &json["error"]
        }
        Shape::OpenAi => {
            let error = &json["error"];
            assert_eq!((&error["type"], &error["code"]), (&Value::from("tunnel_error"), &Value::from(code)), "{text}");
            assert!(error.as_object().is_some_and(|error| error.contains_key("param")), "{text}");
            &error["message"]
        }
        Shape::Anthropic => {
            assert_eq!(json["type"], "error", "{text}");
            assert!(json["error"]["type"].is_string(), "{text}");
            &json["error"]["message"]
        }
    };
    message.as_str().unwrap_or_else(|| panic!("no sentence in {text}")).to_owned()
}
