//! A token is in no log line, no error body and no panic, however wrong the request is that carries it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{self, Write},
    panic,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::prelude::{BASE64_STANDARD, Engine};
use integration_tests::{
    jwt::{claims, hmac, hs256},
    setup::Setup,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tokio::runtime::Builder;

/// No JSON web token, but meant as a credential all the same.
const SHAPELESS: &str = "canary-that-is-no-token-but-was-meant-for-one";

/// How many bytes of a canary may show: a short run is no secret, and may be chance.
const SHOWS: usize = 12;

/// Every log line of every part, at every level, and every panic.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Heard {
    fn listen() -> Self {
        let heard = Self::default();
        let log = heard.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::new("trace"))
            .with_ansi(false)
            .with_writer(move || log.clone());
        subscriber.init();
        let (panics, shown) = (heard.clone(), panic::take_hook());
        panic::set_hook(Box::new(move |panic| {
            _ = writeln!(panics.clone(), "PANIC {panic}");
            shown(panic);
        }));
        heard
    }

    /// What was heard from a byte on.
    fn since(&self, from: usize) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()[from..]).into_owned()
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What of a credential must not show: itself, the signature that makes it one, and both as Basic sends them.
fn secrets(token: &str) -> Vec<String> {
    let signature = token.rsplit('.').next().unwrap();
    let mut secrets = vec![token.to_owned()];
    secrets.extend(signature.as_bytes().chunks_exact(SHOWS).map(|run| String::from_utf8(run.to_vec()).unwrap()));
    for user in ["", "me"] {
        let basic = BASE64_STANDARD.encode(format!("{user}:{token}"));
        secrets.push(basic[12..basic.len() - 4].to_owned());
    }
    secrets
}

fn assert_silent(what: &str, text: &str, secrets: &[String]) -> Result<(), TestCaseError> {
    for secret in secrets {
        let line = text.lines().find(|line| line.contains(secret.as_str()));
        prop_assert!(line.is_none(), "{what} shows {secret}: {}", line.unwrap_or_default());
    }
    Ok(())
}

/// One of `choices`.
fn any_of(choices: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(choices).prop_map(str::to_owned)
}

/// Request targets with `TOKEN` where people, programs and typing errors put it.
fn target() -> impl Strategy<Value = String> {
    let before =
        any_of(&["/t/", "//t/", "/t//", "/T/", "/%74/", "/t%2f", "/t/%2e/", "/t/./", "/x/t/", "/t\\", "/t/t/"]);
    let after =
        any_of(&["", "/", "/api/chat", "/../x", "/%2e%2e/x", "?q=1", "%00", "/%zz", "/t/TOKEN", "\u{e9}", "#x"]);
    prop_oneof![
        6 => (before, after).prop_map(|(before, after)| format!("{before}TOKEN{after}")),
        2 => any_of(&["/api/chat?token=TOKEN", "/?TOKEN", "http://localhost/t/TOKEN/x", "http://u:TOKEN@localhost/x"]),
        2 => any_of(&["/api/tags", "/ws/tunnel", "/api/tunnel/status", "*", "/v1/messages", "/healthz", "/a/../b", ""]),
    ]
}

/// Fields with `TOKEN` in them; most of them wrong in one way or another.
fn field() -> impl Strategy<Value = String> {
    let name = any_of(&[
        "Authorization",
        "authorization ",
        "X-Api-Key",
        "Cookie",
        "Proxy-Authorization",
        "Referer",
        "Tunnel-Name",
        "Tunnel-Deadline",
        "Tunnel-Instance",
        "Expect",
        "Sec-WebSocket-Protocol",
        "Origin",
        "Host",
        "X-Forwarded-For",
        "Content-Length",
        "Transfer-Encoding",
        "Upgrade",
        "User-Agent",
        "TOKEN",
    ]);
    let separator = any_of(&[": ", ":", ":\t ", " ", " : ", ": \u{1}", "\n: "]);
    let value = any_of(&[
        "Bearer TOKEN",
        "bearer  TOKEN",
        "TOKEN",
        "Basic BASIC",
        "Basic TOKEN",
        "Bearer TOKEN, Bearer TOKEN",
        "Bearer TOKEN\u{7f}",
        "Bearer T\u{f6}KEN TOKEN",
        "https://localhost/t/TOKEN/x",
        "Digest TOKEN",
        "token=TOKEN; a=b",
        "Bearer \"TOKEN\"",
        "BearerTOKEN",
        "",
        "\r\n TOKEN",
        "100-continue TOKEN",
    ]);
    (name, separator, value).prop_map(|(name, separator, value)| format!("{name}{separator}{value}\r\n"))
}

fn request() -> impl Strategy<Value = String> {
    let method = any_of(&["GET", "GET", "GET", "HEAD", "OPTIONS", "DELETE", "TRACE", "get", "G@T"]);
    let version =
        any_of(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/9.9", "HTTP/1.1 TOKEN", ""]);
    let host = any_of(&["Host: localhost\r\n", "Host: localhost\r\n", ""]);
    (method, target(), version, host, prop::collection::vec(field(), 0..4)).prop_map(
        |(method, target, version, host, fields)| {
            format!("{method} {target} {version}\r\n{host}Connection: close\r\n{}\r\n", fields.concat())
        },
    )
}

#[test]
fn t32_t33_no_malformed_request_shows_its_token() {
    let heard = Heard::listen();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let world = runtime.block_on(Setup::new().plain_http().start());
    let caller = world.caller();
    let tokens = [hs256(&claims("alice")), hmac(b"some secret of somebody else, long enough", &claims("eve"))];
    let canaries = [&tokens[0], &tokens[1], SHAPELESS];
    let secrets: Vec<String> = canaries.iter().flat_map(|token| secrets(token)).collect();
    let answered = AtomicUsize::new(0);
    let cases = Config { cases: 600, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(cases).run(&(request(), 0..canaries.len()), |(request, which)| {
        let token = canaries[which];
        let basic = BASE64_STANDARD.encode(format!("me:{token}"));
        let request = request.replace("TOKEN", token).replace("BASIC", &basic);
        let before = heard.len();
        let answer = runtime.block_on(caller.raw(request.as_bytes()));
        // What the upstream says, it may say: it saw no credential, but the rest of the request.
        if answer.to_ascii_lowercase().contains("\r\ntunnel-error: ") {
            answered.fetch_add(1, Ordering::Relaxed);
            assert_silent("an answer", &answer, &secrets)?;
        }
        assert_silent("the log", &heard.since(before), &secrets)
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    drop(world);
    let log = heard.since(0);
    assert_silent("the log", &log, &secrets).unwrap_or_else(|error| panic!("{error}"));
    // That it was silent means something only if there was something to say.
    assert!(!log.contains("PANIC"), "something panicked");
    assert!(answered.load(Ordering::Relaxed) > 100, "{answered:?} refusals");
    assert!(log.matches("[redacted]").count() > 50, "no capability paths in the log");
}
