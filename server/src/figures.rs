//! What a model's answer says of itself: tokens, speed, the time it took to load.
//!
//! An [`Observer`] looks on while an answer passes. It keeps the first bytes and the last ones, of any answer the same
//! few KiB, delays and changes nothing, and reads them once at the end. It does not parse the whole: what is wanted
//! stands in the last record, and that may be longer than what is kept (Ollama's has the whole `context`, an embedding
//! is one record). So keys are looked for from the end. A key in quotes and with a colon is never part of a model's text,
//! in which a quote is escaped.
//!
//! All of it comes from desktops: a number may be wrong, it is never more than a number, and a name is checked.

#[cfg(test)]
mod tests;

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use memchr::{memchr, memmem};
use tokio::time::Instant;

/// Bytes of the beginning that are kept: the first record names the model.
const HEAD: usize = 1024;

/// Bytes of the end that are read: the last record, or enough of it.
const TAIL: usize = 8 * 1024;

/// The longest name of a model that is believed, in bytes.
const MAX_NAME: usize = 128;

/// No generation has more tokens: beyond it a number is nonsense.
const MAX_NUMBER: f64 = 9e15;

/// What was found. Everything may be missing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Which model answered: plain characters only.
    pub model: Option<String>,
    /// Tokens of the prompt.
    pub tokens_in: Option<u64>,
    /// Tokens of the answer.
    pub tokens_out: Option<u64>,
    /// While it was generated: as the upstream measured it, else as it passed here.
    pub tokens_per_second: Option<f64>,
    /// How long the model took to load.
    pub load: Option<Duration>,
    /// From the request's arrival to the first record of a stream.
    pub first_token: Option<Duration>,
}

/// How an answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// As one JSON document.
    Whole,
    /// As a line of JSON for each token or so.
    Lines,
    /// As events.
    Events,
}

impl Shape {
    /// The shape of a response that can be read: a good one, not compressed.
    #[must_use]
    pub fn of(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        let coded = headers.get_all(header::CONTENT_ENCODING).iter().any(|coding| coding != "identity");
        if coded || !status.is_success() {
            return None;
        }
        let full_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let essence = full_type.split(';').next().unwrap_or_default().trim();
        let is = |name: &str| essence.eq_ignore_ascii_case(name);
        if is("application/json") {
            Some(Self::Whole)
        } else if is("application/x-ndjson") || is("application/ndjson") || is("application/jsonl") {
            Some(Self::Lines)
        } else if is("text/event-stream") {
            Some(Self::Events)
        } else {
            None
        }
    }
}

/// Looks on while an answer passes.
#[derive(Debug)]
pub struct Observer {
    shape: Shape,
    arrived: Instant,
    first: Option<Instant>,
    head: Vec<u8>,
    /// At least the last [`TAIL`] bytes, at most twice as many.
    tail: Vec<u8>,
    events: EventCount,
}

impl Observer {
    /// For an answer of this shape to a request that arrived then.
    #[must_use]
    pub fn new(shape: Shape, arrived: Instant) -> Self {
        Self { shape, arrived, first: None, head: Vec::new(), tail: Vec::new(), events: EventCount::default() }
    }

    /// Takes note of bytes that pass.
    pub fn observe(&mut self, bytes: &[u8]) {
        if self.first.is_none() && !bytes.is_empty() {
            self.first = Some(Instant::now());
        }
        if self.head.len() < HEAD {
            self.head.extend_from_slice(&bytes[..bytes.len().min(HEAD - self.head.len())]);
        }
        if self.shape == Shape::Events {
            self.events.observe(bytes);
        }
        let kept = last(bytes);
        if self.tail.len() + kept.len() > 2 * TAIL {
            self.tail.drain(..self.tail.len() - (TAIL - kept.len()));
        }
        self.tail.extend_from_slice(kept);
    }

    /// Bytes that it holds.
    #[must_use]
    pub fn held(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// What the answer said, now that it is over.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let tail = last(&self.tail);
        // Anthropic says the length of the prompt in its first event.
        let count = |keys: [&str; 4]| {
            let of = |text| keys.iter().find_map(|key| number(text, key));
            of(tail).or_else(|| of(&self.head)).map(as_count)
        };
        let nanos = |key| number(tail, key).map(|nanos| Duration::from_nanos(as_count(nanos)));
        let tokens_out = count(["eval_count", "completion_tokens", "output_tokens", "predicted_n"])
            .or_else(|| (self.shape == Shape::Events).then(|| self.events.tokens(tail)).filter(|tokens| *tokens > 0));
        let streamed = self.first.filter(|_| self.shape != Shape::Whole);
        let measured = nanos("eval_duration").or_else(|| streamed.map(|first| first.elapsed()));
        let per_second = number(tail, "predicted_per_second").or_else(|| speed(tokens_out?, measured?));
        Figures {
            model: name(&self.head, memmem::find).or_else(|| name(tail, memmem::rfind)),
            tokens_in: count(["prompt_eval_count", "prompt_tokens", "input_tokens", "prompt_n"]),
            tokens_out,
            tokens_per_second: per_second,
            load: nanos("load_duration"),
            first_token: streamed.map(|first| first.saturating_duration_since(self.arrived)),
        }
    }
}

/// The last bytes, as many as are read.
fn last(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.len().saturating_sub(TAIL)..]
}

/// The number behind the last `"key":` that has one.
fn number(text: &[u8], key: &str) -> Option<f64> {
    let quoted = format!("\"{key}\"");
    let mut text = text;
    loop {
        let at = memmem::rfind(text, quoted.as_bytes())?;
        if let Some(number) = value(&text[at + quoted.len()..]).and_then(leading_number) {
            return Some(number);
        }
        text = &text[..at];
    }
}

/// What follows a key: behind the colon.
fn value(after_key: &[u8]) -> Option<&[u8]> {
    Some(after_key.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start())
}

fn leading_number(text: &[u8]) -> Option<f64> {
    let is_part = |b: &u8| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-');
    let end = text.iter().take(32).take_while(|b| is_part(b)).count();
    let number: f64 = str::from_utf8(&text[..end]).ok()?.parse().ok()?;
    (0.0..=MAX_NUMBER).contains(&number).then_some(number)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it lies between 0 and MAX_NUMBER")]
fn as_count(number: f64) -> u64 {
    number as u64
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
fn speed(tokens: u64, within: Duration) -> Option<f64> {
    (tokens > 1 && within > Duration::from_millis(1)).then(|| tokens as f64 / within.as_secs_f64())
}

/// The name of the model, where `find` finds its key.
fn name(text: &[u8], find: impl Fn(&[u8], &[u8]) -> Option<usize>) -> Option<String> {
    const KEY: &[u8] = b"\"model\"";
    let text = value(&text[find(text, KEY)? + KEY.len()..])?.strip_prefix(b"\"")?;
    let name = &text[..memchr(b'"', text)?];
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~:@/+".contains(b);
    let is_name = (1..=MAX_NAME).contains(&name.len()) && name.iter().all(is_plain);
    is_name.then(|| str::from_utf8(name).expect("ASCII").to_owned())
}

/// Counts events, one a token, for upstreams that do not say how many tokens there were (Ollama and OpenAI do not
/// unless `stream_options.include_usage` asks for it).
#[derive(Debug)]
struct EventCount {
    events: u64,
    /// Bytes of [`Self::START`] that were just seen.
    matched: usize,
}

impl Default for EventCount {
    fn default() -> Self {
        Self { events: 0, matched: 1 } // a line begins
    }
}

impl EventCount {
    const START: &[u8] = b"\ndata:";

    fn observe(&mut self, mut bytes: &[u8]) {
        loop {
            if self.matched == 0 {
                let Some(line_end) = memchr(b'\n', bytes) else { return };
                bytes = &bytes[line_end + 1..];
                self.matched = 1;
            }
            let Some((byte, rest)) = bytes.split_first() else { return };
            if *byte == Self::START[self.matched] {
                self.matched += 1;
                bytes = rest;
            } else {
                self.matched = 0; // the byte may be a line end
            }
            if self.matched == Self::START.len() {
                self.events += 1;
                self.matched = 0;
            }
        }
    }

    /// Events but for those at the end that bring no text: the reason of the end, the usage, `[DONE]`.
    fn tokens(&self, tail: &[u8]) -> u64 {
        let data = tail.split(|b| *b == b'\n').rev().filter(|line| line.starts_with(b"data:"));
        let without = data.take_while(|event| !brings_text(event)).count();
        self.events.saturating_sub(without as u64)
    }
}

fn brings_text(event: &[u8]) -> bool {
    ["content", "text", "reasoning", "reasoning_content", "arguments"].iter().any(|key| {
        let quoted = format!("\"{key}\"");
        let text = memmem::rfind(event, quoted.as_bytes()).and_then(|at| value(&event[at + quoted.len()..]));
        text.is_some_and(|text| text.starts_with(b"\"") && !text.starts_with(b"\"\""))
    })
}
