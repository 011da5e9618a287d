//! What the fake Ollama answers when no test plays it: the path decides.
//!
//! | path | answer |
//! |---|---|
//! | `/`, `/api/…`, `/v1/…` | as Ollama does, with [`WORDS`] for a model |
//! | `/echo…` | what came, as JSON: `method`, `target`, `headers` (pairs), `body` |
//! | `/duplex` | the body, piece by piece, while it comes |
//! | `/bytes?n=…` | that many bytes of the pattern; `&chunked` without telling the length |
//! | `/sink` | what came, counted and compared with the pattern: `length`, `damaged_at` |
//! | `/early` | an answer that does not wait for the body, nor reads it |
//! | `/status/…` | that status; a body where HTTP allows one |

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::{
    body::{self, Body, Length},
    pattern::Check,
};

/// What the model says, token by token.
pub const WORDS: [&str; 5] = ["Once", " upon", " a", " time", "."];

/// One record of an NDJSON stream.
#[must_use]
pub fn ndjson(record: &Value) -> String {
    format!("{record}\n")
}

pub(super) async fn answer(request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET | &Method::HEAD, "/") => text("Ollama is running"),
        (_, "/api/version") => json_of(&json!({"version": "0.0.0"})),
        (_, "/api/tags" | "/api/ps") => json_of(&json!({"models": [{"name": "fake:latest", "model": "fake:latest"}]})),
        (_, "/v1/models") => json_of(&json!({"object": "list", "data": [{"id": "fake", "object": "model"}]})),
        (_, "/api/chat" | "/api/generate") => native(&path, &parsed(request).await),
        (_, "/v1/chat/completions") => openai(&parsed(request).await),
        (_, "/v1/messages") => anthropic(&parsed(request).await),
        (_, "/duplex") => Response::new(request.into_body().map_err(Into::into).boxed_unsync()),
        (_, "/bytes") => bulk(&query),
        (_, "/sink") => sink(request.into_body()).await,
        (_, "/early") => text("there already"),
        (_, path) if path.starts_with("/echo") => echo(request).await,
        (_, path) => match path.strip_prefix("/status/").map(str::parse) {
            Some(Ok(status)) => bare(status),
            _ => not_found(),
        },
    }
}

async fn parsed(request: Request<Incoming>) -> Value {
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
    serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default()
}

fn native(path: &str, asked: &Value) -> Response<Body> {
    let record = |text: &str, done: bool| {
        let mut record = json!({"model": asked["model"], "created_at": "2026-01-01T00:00:00Z", "done": done});
        if path == "/api/chat" {
            record["message"] = json!({"role": "assistant", "content": text});
        } else {
            record["response"] = json!(text);
        }
        if done {
            for (key, figure) in
                [("load_duration", 7_000_000), ("prompt_eval_count", 11), ("eval_duration", 50_000_000)]
            {
                record[key] = json!(figure);
            }
            record["eval_count"] = json!(WORDS.len());
        }
        record
    };
    if asked["stream"] == false {
        return json_of(&record(&WORDS.concat(), true));
    }
    let words = WORDS.iter().map(|word| ndjson(&record(word, false)));
    stream("application/x-ndjson", words.chain([ndjson(&record("", true))]).collect())
}

fn openai(asked: &Value) -> Response<Body> {
    let answer = |object: &str, choice: Value| json!({"id": "chatcmpl-1", "object": object, "created": 1, "model": asked["model"], "choices": [choice]});
    if asked["stream"] != true {
        let message = json!({"role": "assistant", "content": WORDS.concat()});
        return json_of(&answer("chat.completion", json!({"index": 0, "message": message, "finish_reason": "stop"})));
    }
    let chunk = |delta: Value, finish: Option<&str>| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        format!("data: {}\n\n", answer("chat.completion.chunk", choice))
    };
    let words = WORDS.iter().map(|word| chunk(json!({"role": "assistant", "content": word}), None));
    stream("text/event-stream", words.chain([chunk(json!({}), Some("stop")), "data: [DONE]\n\n".to_owned()]).collect())
}

fn anthropic(asked: &Value) -> Response<Body> {
    let message = |content: Value, stop: Option<&str>| {
        json!({"id": "msg_1", "type": "message", "role": "assistant", "model": asked["model"], "content": content,
            "stop_reason": stop, "usage": {"input_tokens": 1, "output_tokens": WORDS.len()}})
    };
    if asked["stream"] != true {
        return json_of(&message(json!([{"type": "text", "text": WORDS.concat()}]), Some("end_turn")));
    }
    let event = |data: Value| {
        let name = data["type"].as_str().unwrap_or_default();
        format!("event: {name}\ndata: {data}\n\n")
    };
    let start = [
        event(json!({"type": "message_start", "message": message(json!([]), None)})),
        event(json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})),
    ];
    let words = WORDS.iter().map(|word| {
        event(json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}))
    });
    let end = [
        event(json!({"type": "content_block_stop", "index": 0})),
        event(json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}})),
        event(json!({"type": "message_stop"})),
    ];
    stream("text/event-stream", start.into_iter().chain(words).chain(end).collect())
}

/// Records that leave one by one, of unknown length as from a model.
fn stream(content_type: &str, records: Vec<String>) -> Response<Body> {
    let (mut pieces, body) = body::stepwise();
    tokio::spawn(async move {
        for record in records {
            if pieces.send(record).await.is_err() {
                return;
            }
        }
    });
    with_type(content_type, body)
}

async fn echo(request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
        return bare(StatusCode::BAD_REQUEST);
    };
    let headers = head.headers.iter().map(|(name, value)| json!([name.as_str(), text_of(value.as_bytes())]));
    json_of(&json!({
        "method": head.method.as_str(), "target": head.uri.to_string(),
        "headers": headers.collect::<Vec<_>>(), "body": text_of(&body),
    }))
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn bulk(query: &str) -> Response<Body> {
    let mut fields = query.split('&');
    let length = fields.find_map(|field| field.strip_prefix("n=")).and_then(|n| n.parse().ok()).unwrap_or(0);
    let told = if query.contains("chunked") { Length::Unknown } else { Length::Fixed };
    with_type("application/octet-stream", body::generated(length, told))
}

async fn sink(mut body: Incoming) -> Response<Body> {
    let mut check = Check::default();
    while let Some(frame) = body.frame().await {
        match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(bytes)) => check.push(&bytes),
            Ok(Err(_trailers)) => {}
            Err(_cut) => return bare(StatusCode::BAD_REQUEST),
        }
    }
    json_of(&json!({"length": check.length(), "damaged_at": check.damaged_at()}))
}

fn bare(status: StatusCode) -> Response<Body> {
    let has_body = !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let body = if has_body { body::full(status.as_str().to_owned()) } else { body::empty() };
    let mut response = with_type("text/plain; charset=utf-8", body);
    *response.status_mut() = status;
    response
}

fn not_found() -> Response<Body> {
    let mut response = text("404 page not found");
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

fn json_of(value: &Value) -> Response<Body> {
    with_type("application/json; charset=utf-8", body::full(value.to_string()))
}

fn text(text: &'static str) -> Response<Body> {
    with_type("text/plain; charset=utf-8", body::full(text))
}

fn with_type(content_type: &str, body: Body) -> Response<Body> {
    let response = Response::builder().header(header::CONTENT_TYPE, content_type);
    response.body(body).expect("a media type")
}
