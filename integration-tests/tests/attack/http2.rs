//! HTTP/2 in raw frames (RFC 9113): fields that would mean something else in HTTP/1, frames out of place, floods.

use integration_tests::attack::{
    self,
    http2::{END, END_HEADERS, END_STREAM, Outcome, block, exchange, frame, kind::*},
    stage::{Stage, Way},
    wire::{self, Terms},
};

/// What must come of a case.
#[derive(Debug, Clone, Copy)]
enum Expect {
    /// A refusal of any kind and nothing at the upstream.
    Refused,
    /// This status and nothing at the upstream; a proxy in front may refuse it in other words.
    Status(u16),
    /// The same; a proxy in front may instead mend it into this one request.
    Mendable(u16, &'static str),
    /// A refusal, or this one request.
    RefusedOr(&'static str),
    /// This one request.
    Passes(&'static str),
}
use Expect::{Mendable, Passes, Refused, RefusedOr, Status};

/// Requests of one HEADERS frame that ends the stream, as `name=value¶`.
#[rustfmt::skip]
const FIELDS: &[(&str, &str, Expect)] = &[
    ("a good request", "{G}", Passes("GET /§")),
    ("T24 no :authority but Host", ":method=GET¶:scheme=https¶:path=/§¶host={host}¶authorization=Bearer {token}¶", RefusedOr("GET /§")),
    ("T24 :authority and another Host", "{G}host=evil¶", Mendable(400, "GET /§")),
    ("T24 :authority and two Hosts", "{G}host={host}¶host=evil¶", Mendable(400, "GET /§")),
    ("T24 neither :authority nor Host", ":method=GET¶:scheme=https¶:path=/§¶authorization=Bearer {token}¶", Refused),
    ("T24 userinfo in :authority", ":method=GET¶:scheme=https¶:authority=a@{host}¶:path=/§¶authorization=Bearer {token}¶", Refused),
    ("T24 a path in :authority", ":method=GET¶:scheme=https¶:authority={host}/x¶:path=/§¶authorization=Bearer {token}¶", Refused),
    ("T24 an empty :authority", ":method=GET¶:scheme=https¶:authority=¶:path=/§¶authorization=Bearer {token}¶", Refused),
    ("T24 two :authority", "{G}:authority=evil¶", Refused),
    ("T20 two :method", ":method=GET¶:method=DELETE¶:scheme=https¶:authority={host}¶:path=/§¶authorization=Bearer {token}¶", Refused),
    ("T20 two :path", ":method=GET¶:scheme=https¶:authority={host}¶:path=/§¶:path=/§/2¶authorization=Bearer {token}¶", Refused),
    ("T20 two :scheme", ":method=GET¶:scheme=https¶:scheme=http¶:authority={host}¶:path=/§¶authorization=Bearer {token}¶", Refused),
    ("T20 no :method", ":scheme=https¶:authority={host}¶:path=/§¶authorization=Bearer {token}¶", Refused),
    ("T20 no :path", ":method=GET¶:scheme=https¶:authority={host}¶authorization=Bearer {token}¶", Refused),
    ("T20 no :scheme", ":method=GET¶:authority={host}¶:path=/§¶authorization=Bearer {token}¶", RefusedOr("GET /§")),
    ("T20 an empty :path", ":method=GET¶:scheme=https¶:authority={host}¶:path=¶authorization=Bearer {token}¶", Refused),
    ("T20 an empty :method", ":method=¶:scheme=https¶:authority={host}¶:path=/§¶authorization=Bearer {token}¶", Refused),
    ("T20 a pseudo-field behind others", ":method=GET¶:scheme=https¶:authority={host}¶authorization=Bearer {token}¶:path=/§¶", Mendable(400, "GET /§")),
    ("T20 an unknown pseudo-field", ":method=GET¶:scheme=https¶:authority={host}¶:path=/§¶:evil=1¶authorization=Bearer {token}¶", Refused),
    ("T20 :status in a request", ":method=GET¶:scheme=https¶:authority={host}¶:path=/§¶:status=200¶authorization=Bearer {token}¶", Refused),
    ("T22 :protocol without CONNECT", ":method=GET¶:scheme=https¶:authority={host}¶:path=/§¶:protocol=websocket¶authorization=Bearer {token}¶", Refused),
    ("T22 extended CONNECT", ":method=CONNECT¶:scheme=https¶:authority={host}¶:path=/§¶:protocol=websocket¶authorization=Bearer {token}¶", Refused),
    ("T22 CONNECT", ":method=CONNECT¶:authority={host}¶authorization=Bearer {token}¶", Refused),
    ("T22 TRACE", ":method=TRACE¶:scheme=https¶:authority={host}¶:path=/§¶authorization=Bearer {token}¶", Status(501)),
    ("T20 a line in :method", ":method=GET / HTTP/1.1\r\nx¶:scheme=https¶:authority={host}¶:path=/§¶authorization=Bearer {token}¶", Refused),
    ("T20 a blank in :method", ":method=GET /¶:scheme=https¶:authority={host}¶:path=/§¶authorization=Bearer {token}¶", Refused),
    ("T20 a line in :path", ":method=GET¶:scheme=https¶:authority={host}¶:path=/§ HTTP/1.1\r\nx: y¶authorization=Bearer {token}¶", Refused),
    ("T20 a blank in :path", ":method=GET¶:scheme=https¶:authority={host}¶:path=/§ HTTP/1.1¶authorization=Bearer {token}¶", Refused),
    ("T24 a line in :authority", ":method=GET¶:scheme=https¶:authority=a\r\nx: y¶:path=/§¶authorization=Bearer {token}¶", Refused),
    ("T20 a line in :scheme", ":method=GET¶:scheme=https://x/?\r\n¶:authority={host}¶:path=/§¶authorization=Bearer {token}¶", RefusedOr("GET /§")),
    ("T24 another :scheme", ":method=GET¶:scheme=gopher¶:authority={host}¶:path=/§¶authorization=Bearer {token}¶", Mendable(400, "GET /§")),
    ("T25 an absolute :path", ":method=GET¶:scheme=https¶:authority={host}¶:path=https://evil/§¶authorization=Bearer {token}¶", Refused),
    ("T25 a :path without a slash", ":method=GET¶:scheme=https¶:authority={host}¶:path=§¶authorization=Bearer {token}¶", Refused),
    ("T25 :path *", ":method=OPTIONS¶:scheme=https¶:authority={host}¶:path=*¶authorization=Bearer {token}¶", Refused),
    ("T25 dot segments", ":method=GET¶:scheme=https¶:authority={host}¶:path=/§/../x¶authorization=Bearer {token}¶", Status(400)),
    ("T25 encoded dot segments", ":method=GET¶:scheme=https¶:authority={host}¶:path=/§/%2e%2E%2fx¶authorization=Bearer {token}¶", Status(400)),
    ("T25 a backslash", ":method=GET¶:scheme=https¶:authority={host}¶:path=/§\\x¶authorization=Bearer {token}¶", Status(400)),
    ("T25 a NUL in :path", ":method=GET¶:scheme=https¶:authority={host}¶:path=/§\0¶authorization=Bearer {token}¶", Refused),
    ("T25 a fragment in :path", ":method=GET¶:scheme=https¶:authority={host}¶:path=/§#x¶authorization=Bearer {token}¶", RefusedOr("GET /§")),
    ("T20 a name in capitals", "{G}X-Upper: 1=1¶", Refused),
    ("T20 a capital in a name", "{G}Xupper=1¶", Mendable(400, "GET /§")),
    ("T20 a colon in a name", "{G}transfer-encoding: chunked=x¶", Mendable(400, "GET /§")),
    ("T20 a line in a name", "{G}x: y\r\nz=1¶", Mendable(400, "GET /§")),
    ("T20 an empty name", "{G}=1¶", Mendable(400, "GET /§")),
    ("T20 a line in a value", "{G}x=a\r\nauthorization: b¶", Refused),
    ("T20 an LF in a value", "{G}x=a\nb¶", Refused),
    ("T20 a NUL in a value", "{G}x=a\0b¶", Refused),
    ("T20 a request in a value", "{G}x=a\r\n\r\nGET /§/smuggled HTTP/1.1\r\n¶", Refused),
    ("T23 Connection", "{G}connection=close¶", RefusedOr("GET /§")),
    ("T23 Keep-Alive", "{G}keep-alive=1¶", RefusedOr("GET /§")),
    ("T23 Proxy-Connection", "{G}proxy-connection=keep-alive¶", RefusedOr("GET /§")),
    ("T20 Transfer-Encoding", "{G}transfer-encoding=chunked¶", RefusedOr("GET /§")),
    ("T22 Upgrade", "{G}upgrade=h2c¶", RefusedOr("GET /§")),
    ("T23 TE", "{G}te=gzip¶", RefusedOr("GET /§")),
    ("T20 Content-Length without a body", "{G}content-length=5¶", Refused),
    ("T20 two Content-Length", "{G}content-length=0¶content-length=5¶", Refused),
    ("T20 Content-Length -1", "{G}content-length=-1¶", Refused),
    ("T20 a list in Content-Length", "{G}content-length=0, 0¶", Refused),
    ("T26 another expectation", "{P}expect=x¶", Mendable(417, "POST /§")),
    ("T19 two Authorization", "{G}authorization=Bearer {token}¶", Refused),
    ("T31 cookies in crumbs", "{G}cookie=a=b¶cookie=c=d¶proxy-authorization=Basic eDp5¶", Passes("GET /§")),
    ("T28 forwarding fields", "{G}x-forwarded-for=1.2.3.4¶forwarded=for=x¶x-request-id=a¶", Passes("GET /§")),
    ("T29 101 fields", "{G}{x=a¶*100}", Refused),
    ("T29 1000 fields", "{G}{x=a¶*1000}", Refused),
    ("T29 a field of 33 KB", "{G}x={a*16000}¶y={a*16000}¶z={a*1000}¶", Refused),
];

/// Frames out of place, and floods of them.
type Build = fn(&Terms) -> Vec<u8>;

fn headers(flags: u8, stream: u32, fields: &str, terms: &Terms) -> Vec<u8> {
    frame(HEADERS, flags, stream, &block(fields, terms))
}

fn post(terms: &Terms, fields: &str, data: &[Vec<u8>]) -> Vec<u8> {
    [headers(END_HEADERS, 1, &format!("{{P}}{fields}"), terms), data.concat()].concat()
}

#[rustfmt::skip]
const FRAMES: &[(&str, Build, Expect)] = &[
    ("a good upload", |t| post(t, "content-length=3¶", &[frame(DATA, END_STREAM, 1, b"abc")]), Passes("POST /§ abc")),
    ("T20 more than Content-Length", |t| post(t, "content-length=3¶", &[frame(DATA, END_STREAM, 1, b"abcd")]), Refused),
    // Malformed only once the byte too many comes (RFC 9113 §8.1.1), when what was announced has been passed on whole. The
    // stream is then reset, or has been answered, which §8.1.1 allows; what comes too many goes nowhere.
    ("T20 more than Content-Length, later", |t| post(t, "content-length=3¶", &[frame(DATA, 0, 1, b"abc"), frame(DATA, END_STREAM, 1, b"d")]), RefusedOr("POST /§ abc")),
    ("T20 less than Content-Length", |t| post(t, "content-length=3¶", &[frame(DATA, END_STREAM, 1, b"ab")]), Refused),
    ("T20 DATA behind the end", |t| post(t, "", &[frame(DATA, END_STREAM, 1, b"abc"), frame(DATA, END_STREAM, 1, b"d")]), RefusedOr("POST /§ abc")),
    ("T21 trailers", |t| post(t, "", &[frame(DATA, 0, 1, b"abc"), headers(END, 1, "x-late=1¶", t)]), RefusedOr("POST /§ abc")),
    ("T21 a pseudo-field in trailers", |t| post(t, "", &[frame(DATA, 0, 1, b"abc"), headers(END, 1, ":path=/§/2¶", t)]), RefusedOr("POST /§ abc")),
    ("T21 trailers that do not end the stream", |t| post(t, "", &[frame(DATA, 0, 1, b"abc"), headers(END_HEADERS, 1, "x=1¶", t), frame(DATA, END_STREAM, 1, b"d")]), Refused),
    ("T20 DATA before HEADERS", |t| [frame(DATA, END_STREAM, 1, b"abc"), headers(END, 1, "{G}", t)].concat(), Mendable(400, "GET /§")),
    ("T20 HEADERS twice", |t| [headers(END, 1, "{G}", t), headers(END, 1, "{G}", t)].concat(), RefusedOr("GET /§")),
    ("T20 HEADERS on stream 0", |t| headers(END, 0, "{G}", t), Refused),
    ("T20 HEADERS on an even stream", |t| headers(END, 2, "{G}", t), Refused),
    ("T20 streams that go backwards", |t| [headers(END, 5, ":method=GET¶", t), headers(END, 1, "{G}", t)].concat(), Refused),
    ("T20 DATA on stream 0", |_| frame(DATA, 0, 0, b"abc"), Refused),
    ("T20 padding longer than its frame", |t| post(t, "", &[frame(DATA, END_STREAM | 8, 1, &[200, 1, 2])]), Refused),
    ("T20 HEADERS that depend on themselves", |t| frame(HEADERS, END | 0x20, 1, &[&[0, 0, 0, 1, 16], &block("{G}", t)[..]].concat()), RefusedOr("GET /§")),
    ("T20 a block that is no HPACK", |_| frame(HEADERS, END, 1, &[0xff; 40]), Refused),
    ("T20 a block of an unknown index", |_| frame(HEADERS, END, 1, &[0xbf]), Refused),
    ("T20 a block that ends in a field", |t| { let block = block("{G}", t); frame(HEADERS, END, 1, &block[..block.len() - 5]) }, Refused),
    ("T20 a table of 4 GB", |t| frame(HEADERS, END, 1, &[&[0x3f, 0xff, 0xff, 0xff, 0xff, 0x0f], &block("{G}", t)[..]].concat()), Refused),
    ("T20 CONTINUATION out of nowhere", |t| frame(CONTINUATION, END_HEADERS, 1, &block("{G}", t)), Refused),
    ("T20 another frame inside a block", |t| [headers(END_STREAM, 1, "{G}", t), frame(PING, 0, 0, &[0; 8])].concat(), Refused),
    ("T20 CONTINUATION of another stream", |t| [headers(END_STREAM, 1, "{G}", t), frame(CONTINUATION, END_HEADERS, 3, &[])].concat(), Refused),
    ("T20 a frame over 16 KiB", |t| headers(END, 1, "{G}x={a*20000}¶", t), Refused),
    ("T20 SETTINGS of 5 bytes", |_| frame(SETTINGS, 0, 0, &[0; 5]), Refused),
    ("T20 SETTINGS on a stream", |_| frame(SETTINGS, 0, 1, &[]), Refused),
    ("T20 an ACK with payload", |_| frame(SETTINGS, 1, 0, &[0; 6]), Refused),
    ("T20 a window of 2^31", |_| frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]), Refused),
    ("T20 a frame size of 1", |_| frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]), Refused),
    ("T20 ENABLE_PUSH 2", |_| frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]), Refused),
    ("T20 WINDOW_UPDATE 0", |_| frame(WINDOW_UPDATE, 0, 0, &[0; 4]), Refused),
    ("T46 WINDOW_UPDATE beyond 2^31", |_| frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]).repeat(2), Refused),
    ("T20 WINDOW_UPDATE of 3 bytes", |_| frame(WINDOW_UPDATE, 0, 0, &[0; 3]), Refused),
    ("T20 PING of 7 bytes", |_| frame(PING, 0, 0, &[0; 7]), Refused),
    ("T20 PING on a stream", |_| frame(PING, 0, 1, &[0; 8]), Refused),
    ("T20 PUSH_PROMISE from a client", |t| [headers(END_HEADERS, 1, "{P}", t), frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2], &block("{G}", t)[..]].concat())].concat(), Refused),
    ("T20 RST_STREAM of an idle stream", |_| frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), Refused),
    ("T20 RST_STREAM on stream 0", |_| frame(RST_STREAM, 0, 0, &[0, 0, 0, 8]), Refused),
    ("T20 PRIORITY of 4 bytes", |t| [headers(END_HEADERS, 1, "{P}", t), frame(PRIORITY, 0, 1, &[0; 4])].concat(), Refused),
    ("an unknown frame is skipped", |t| [frame(0xee, 0xff, 0, &[1, 2, 3]), headers(END, 1, "{G}", t)].concat(), Passes("GET /§")),
    ("T47 10,000 streams opened and reset (CVE-2023-44487)", |t| (0..10_000).flat_map(|n| [headers(END, 2 * n + 1, "{G}", t), frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8])].concat()).collect(), Refused),
    ("T47 streams that the server has to reset (CVE-2025-8671)", |t| (0..3000).flat_map(|n| [headers(END_HEADERS, 2 * n + 1, "{P}", t), frame(WINDOW_UPDATE, 0, 2 * n + 1, &[0; 4])].concat()).collect(), Refused),
    ("T47 more streams than allowed", |t| (0..600).flat_map(|n| headers(END_HEADERS, 2 * n + 3, "{P}", t)).chain(frame(PING, 0, 1, &[0; 8])).collect(), Refused),
    ("T29 CONTINUATION without end (CVE-2024-27316)", |t| [headers(END_STREAM, 1, "{G}", t), frame(CONTINUATION, 0, 1, &block("x={a*16000}¶", t)).repeat(300)].concat(), Refused),
    ("T29 empty CONTINUATION without end", |t| [headers(END_STREAM, 1, "{G}", t), frame(CONTINUATION, 0, 1, &[]).repeat(100_000)].concat(), Refused),
    ("T29 a bomb of one indexed field (CVE-2016-6581)", |t| { let mut block = block("{G}", t); block.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1f]); block.extend([b'a'; 4000 + 128]); block.extend([0xbe; 8000]); block.chunks(16000).enumerate().flat_map(|(n, part)| frame(if n == 0 { HEADERS } else { CONTINUATION }, if n == 0 { END_STREAM } else { END_HEADERS }, 1, part)).collect() }, Refused),
];

/// Floods that cost nothing: the connection may end or last, but a request behind them is refused or answered, soon.
#[rustfmt::skip]
const FLOODS: &[(&str, Build)] = &[
    ("T47 a flood of SETTINGS", |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]).repeat(20_000)),
    ("T47 a flood of PING", |_| frame(PING, 0, 0, &[1; 8]).repeat(20_000)),
    ("T47 a flood of PRIORITY", |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]).repeat(20_000)),
    ("T47 a flood of WINDOW_UPDATE", |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(20_000)),
    ("T47 a flood of unknown frames", |_| frame(0xee, 0, 0, &[0; 100]).repeat(20_000)),
    ("T47 a flood of GOAWAY", |_| frame(GOAWAY, 0, 0, &[0; 8]).repeat(2_000)),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t20_t21_t22_t23_t24_t25_http2_is_no_way_around() {
    run(Way::Direct).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn t20_t21_t22_t23_t24_t25_http2_behind_nginx() {
    run(Way::Nginx).await;
}

async fn run(way: Way) {
    let mut stage = Stage::start(way, &[]).await;
    let fields = FIELDS.iter().map(|(name, fields, expect)| {
        let build = |terms: &Terms| headers(END, 1, fields, terms);
        (*name, Box::new(build) as Box<dyn Fn(&Terms) -> Vec<u8> + Sync>, *expect)
    });
    let frames = FRAMES.iter().map(|(name, build, expect)| (*name, Box::new(*build) as _, *expect));
    let floods = FLOODS.iter().map(|(name, build)| {
        let build = |terms: &Terms| [build(terms), headers(END, 200_001, ":method=GET¶", terms)].concat();
        (*name, Box::new(build) as _, Refused)
    });
    let cases: Vec<_> = fields.chain(frames).chain(floods).collect();
    attack::run(&format!("HTTP/2, {way:?}"), &cases, async |number, (name, build, expect)| {
        let bytes = build(&stage.terms(wire::marker(number)));
        let bytes = if name.contains("flood of") {
            [bytes, frame(DATA, 0, 0, &[])].concat() // which ends the connection, at the latest
        } else {
            bytes
        };
        let outcome = exchange(&stage, &bytes).await;
        judge(&stage, number, name, *expect, outcome)
    })
    .await;
    let passed = (0..cases.len()).map(|number| stage.recorder.seen(&wire::marker(number)).len()).sum();
    stage.is_unharmed(passed).await;
}

fn judge(stage: &Stage, number: usize, name: &str, expect: Expect, outcome: Option<Outcome>) -> Result<(), String> {
    let marker = wire::marker(number);
    let outcome = outcome.ok_or_else(|| format!("{name}: no answer and no end"))?;
    let seen = stage.recorder.seen(&marker);
    let complete: Vec<String> = seen.iter().filter(|seen| seen.complete).map(crate::http::in_one_line).collect();
    // A stream that is opened and reset may have been on its way.
    let none = complete.is_empty() || name.starts_with("T47");
    let passed = |request: &str| complete == [request.replace('§', &marker)];
    let good = match (expect, stage.way) {
        (Refused, _) | (Status(_), Way::Nginx) => none && outcome.is_refusal(),
        (Status(status) | Mendable(status, _), Way::Direct) if outcome == Outcome::Status(status) => none,
        // The library may have refused it by itself.
        (Mendable(..), Way::Direct) => none && matches!(outcome, Outcome::Reset(_) | Outcome::GoAway(_)),
        (Mendable(_, request), Way::Nginx) | (RefusedOr(request), _) => {
            passed(request) || complete.is_empty() && outcome.is_refusal()
        }
        (Passes(request), _) => passed(request) && outcome == Outcome::Status(200),
        (Status(_), Way::Direct) => false,
    };
    if good { Ok(()) } else { Err(format!("{name}: {expect:?} but {outcome:?}, upstream {complete:?}")) }
}
