//! A hostile desktop inside a stream: what it answers a caller with. The caller gets a whole answer, a refusal or a
//! visible cut, and never more or less than that.

use integration_tests::attack::{
    self, desktop,
    stage::{Stage, Way},
    tunnel::{
        Fate,
        stream::{field, frame, header, response},
        yamux::{self, ACK, data},
    },
};

/// What the caller must see.
#[derive(Debug, Clone, Copy)]
enum Expect {
    /// A refusal with this status.
    Refused(u16),
    /// A head, and then a cut.
    Cut,
    /// A whole body.
    Whole(&'static str),
}
use Expect::{Cut, Refused, Whole};

type Case = (&'static str, fn() -> Vec<u8>, Expect);

/// After it the desktop resets the stream. (`0xee` is an optional frame that nobody knows.)
const RESET: &[u8] = &[0xee, 0, 0, 1, b'R'];
/// After it the desktop half-closes the stream.
const FIN: &[u8] = &[0xee, 0, 0, 1, b'F'];

fn accept() -> Vec<u8> {
    frame(1, &[])
}

fn chunk(text: &str) -> Vec<u8> {
    frame(4, text.as_bytes())
}

fn end() -> Vec<u8> {
    frame(5, &[])
}

fn known(length: u64) -> Vec<u8> {
    field(7, &length.to_be_bytes())
}

fn abort(code: u16, message: &[u8]) -> Vec<u8> {
    frame(6, &[&code.to_be_bytes(), message].concat())
}

/// accept, a head of these fields, and a body that fits none of them.
fn head(fields: &[Vec<u8>]) -> Vec<u8> {
    [accept(), frame(3, &fields.concat()), chunk("hello"), end()].concat()
}

/// The same with a status and an unknown length.
fn with(fields: &[Vec<u8>]) -> Vec<u8> {
    head(&[&[status(200), field(7, &[])], fields].concat())
}

fn status(status: u16) -> Vec<u8> {
    field(8, &status.to_be_bytes())
}

/// accept, a head with a body of five bytes, and then this.
fn five(rest: &[Vec<u8>]) -> Vec<u8> {
    [accept(), response(200, &[known(5)]), rest.concat()].concat()
}

/// The same with an unknown length.
fn any(rest: &[Vec<u8>]) -> Vec<u8> {
    [accept(), response(200, &[field(7, &[])]), rest.concat()].concat()
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("a good answer", || five(&[chunk("hello"), end()]), Whole("hello")),
    ("a good answer of unknown length", || any(&[chunk("hel"), chunk("lo"), end()]), Whole("hello")),
    // Out of order.
    ("T27 a head before accept", || [response(200, &[known(5)]), chunk("hello"), end()].concat(), Refused(502)),
    ("T27 accept twice", || [accept(), five(&[chunk("hello"), end()])].concat(), Refused(502)),
    ("T27 accept without end", || accept().repeat(60_000), Refused(502)),
    ("T27 a chunk before the head", || [accept(), chunk("x")].concat(), Refused(502)),
    ("T27 an end before the head", || [accept(), end()].concat(), Refused(502)),
    ("T27 a request", || [accept(), frame(2, &field(1, b"GET"))].concat(), Refused(502)),
    ("T27 a head twice", || five(&[response(200, &[known(5)]), chunk("hello"), end()]), Cut),
    ("T27 a head in a body", || five(&[chunk("he"), response(200, &[]), chunk("llo"), end()]), Cut),
    ("T27 accept in a body", || five(&[accept(), chunk("hello"), end()]), Cut),
    ("T27 a request in a body", || any(&[frame(2, &field(1, b"GET")), end()]), Cut),
    ("T27 a chunk behind the end", || five(&[chunk("hello"), end(), chunk("more"), end()]), Whole("hello")),
    ("T27 an answer behind the answer", || [five(&[chunk("hello"), end()]), five(&[chunk("evil!"), end()])].concat(), Whole("hello")),
    ("T27 aborts behind the end", || [five(&[chunk("hello"), end()]), abort(1, b"").repeat(1000)].concat(), Whole("hello")),
    // Lengths.
    ("T27 more than announced", || five(&[chunk("hello!"), end()]), Cut),
    ("T27 more than announced, later", || five(&[chunk("hell"), chunk("o!"), end()]), Cut),
    ("T27 less than announced", || five(&[chunk("hell"), end()]), Cut),
    ("T27 nothing of what was announced", || five(&[end()]), Cut),
    ("T27 a body where none was announced", || [accept(), response(200, &[]), chunk("x"), end()].concat(), Whole("")),
    ("T27 2^64-1 bytes", || [accept(), response(200, &[known(u64::MAX)]), chunk("x"), end()].concat(), Refused(502)),
    ("T27 2^63 bytes", || [accept(), response(200, &[known(1 << 63)]), chunk("x"), end()].concat(), Refused(502)),
    ("T27 2^63-1 bytes", || [accept(), response(200, &[known(u64::MAX >> 1)]), chunk("x"), end()].concat(), Cut),
    ("T27 a body with 204", || [accept(), response(204, &[]), chunk("x"), end()].concat(), Whole("")),
    ("T27 a body with 304", || [accept(), response(304, &[known(5)]), chunk("hello"), end()].concat(), Whole("")),
    ("F05 a reset before accept", || RESET.to_vec(), Refused(502)),
    ("F05 a reset before the head", || [&accept(), RESET].concat(), Refused(502)),
    ("F05 a reset in a body", || [any(&[chunk("hel")]), RESET.to_vec()].concat(), Cut),
    ("F05 a FIN before the head", || [&accept(), FIN].concat(), Refused(502)),
    ("F05 a FIN in a body", || [any(&[chunk("hel")]), FIN.to_vec()].concat(), Cut),
    ("F05 a FIN in place of the end", || [any(&[chunk("hello")]), FIN.to_vec()].concat(), Cut),
    ("F05 a FIN in a chunk", || [any(&[vec![4, 0, 0, 9, b'h']]), FIN.to_vec()].concat(), Cut),
    // Frames.
    ("T27 type 0", || [accept(), frame(0, &[])].concat(), Refused(502)),
    ("T27 type 7", || [accept(), frame(7, b"x")].concat(), Refused(502)),
    ("T27 type 8", || [accept(), frame(8, b"x")].concat(), Refused(502)),
    ("T27 type 0x7f", || [accept(), frame(0x7f, &[])].concat(), Refused(502)),
    ("T27 type 0x7f in a body", || any(&[chunk("h"), frame(0x7f, &[])]), Cut),
    ("T27 type 0x81 is skipped", || [accept(), frame(0x81, &[9; 60_000]), five(&[frame(0xff, b"x"), chunk("hello"), end()])[4..].to_vec()].concat(), Whole("hello")),
    ("T27 a payload of 64 KiB and a byte", || [accept(), vec![3, 1, 0, 1]].concat(), Refused(502)),
    ("T27 a payload of 16 MB", || [accept(), vec![0x90, 255, 255, 255]].concat(), Refused(502)),
    ("T27 a chunk of 16 MB", || any(&[vec![4, 255, 255, 255]]), Cut),
    ("T27 an empty chunk", || any(&[frame(4, &[]), end()]), Cut),
    ("T27 accept with a payload", || frame(1, b"x"), Refused(502)),
    ("T27 an end with a payload", || any(&[frame(5, b"x")]), Cut),
    ("T27 an empty head", || [accept(), frame(3, &[])].concat(), Refused(502)),
    ("T27 HTTP in place of frames", || b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec(), Refused(502)),
    ("T27 continue that nobody asked for", || [accept(), frame(0x80, &[]).repeat(1000), five(&[frame(0x80, &[]), chunk("hello"), end()])[4..].to_vec()].concat(), Whole("hello")),
    // Aborts.
    ("abort 1", || [accept(), abort(1, b"x")].concat(), Refused(502)),
    ("abort 2", || [accept(), abort(2, b"x")].concat(), Refused(502)),
    ("abort 4", || [accept(), abort(4, b"x")].concat(), Refused(403)),
    ("abort 5", || [accept(), abort(5, b"x")].concat(), Refused(504)),
    ("abort 7", || [accept(), abort(7, b"x")].concat(), Refused(503)),
    ("T34 an abort with an unknown code", || [accept(), abort(999, b"x")].concat(), Refused(502)),
    ("T35 an abort with lines and escapes", || [accept(), abort(1, b"x\r\nERROR tunneld: evil\x1b[2J")].concat(), Refused(502)),
    ("T34 an abort that is no UTF-8", || [accept(), abort(3, &[0xff; 100])].concat(), Refused(502)),
    ("T34 an abort of 60 KB", || [accept(), abort(3, &[b'x'; 60_000])].concat(), Refused(502)),
    ("T27 an abort of one byte", || [accept(), frame(6, &[0])].concat(), Refused(502)),
    ("T27 an abort in a body", || any(&[chunk("hel"), abort(3, b"x")]), Cut),
    ("T27 a thousand aborts", || [accept(), abort(3, b"x").repeat(1000)].concat(), Refused(502)),
    // Heads.
    ("T27 no status", || head(&[field(7, &[])]), Refused(502)),
    ("T27 two statuses", || head(&[status(200), status(200), field(7, &[])]), Refused(502)),
    ("T27 status 0", || head(&[status(0), field(7, &[])]), Refused(502)),
    ("T27 status 99", || head(&[status(99), field(7, &[])]), Refused(502)),
    ("T27 status 100", || head(&[status(100), field(7, &[])]), Refused(502)),
    ("T27 status 101", || head(&[status(101), field(7, &[])]), Refused(502)),
    ("T27 status 103", || head(&[status(103), field(7, &[])]), Refused(502)),
    ("T27 status 600", || head(&[status(600), field(7, &[])]), Refused(502)),
    ("T27 status 65535", || head(&[status(65535), field(7, &[])]), Refused(502)),
    ("T27 a status of one byte", || head(&[field(8, &[200]), field(7, &[])]), Refused(502)),
    ("T27 a status as text", || head(&[field(8, b"200"), field(7, &[])]), Refused(502)),
    ("T27 a request's field", || with(&[field(1, b"GET")]), Refused(502)),
    ("T27 an unknown field", || with(&[field(0x7f, b"x")]), Refused(502)),
    ("T27 an unknown field that is optional", || with(&[field(0x80, b"x")]), Whole("hello")),
    ("T27 a body of one byte's length", || head(&[status(200), field(7, &[5])]), Refused(502)),
    ("T27 a field that is cut short", || head(&[status(200), vec![3, 0, 9, 0]]), Refused(502)),
    ("T27 a name longer than its field", || with(&[field(3, &[0, 200, b'x'])]), Refused(502)),
    ("T27 a field of one byte", || with(&[field(3, &[0])]), Refused(502)),
    ("T27 CR LF in a value", || with(&[header(b"x", b"a\r\nset-cookie: evil=1")]), Refused(502)),
    ("T27 LF in a value", || with(&[header(b"x", b"a\nb")]), Refused(502)),
    ("T27 a whole answer in a value", || with(&[header(b"x", b"a\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")]), Refused(502)),
    ("T27 NUL in a value", || with(&[header(b"x", b"a\0b")]), Refused(502)),
    ("T27 CR LF in a name", || with(&[header(b"x\r\ny", b"a")]), Refused(502)),
    ("T27 a colon in a name", || with(&[header(b"set-cookie:x", b"a")]), Refused(502)),
    ("T27 a blank in a name", || with(&[header(b"x y", b"a")]), Refused(502)),
    ("T27 no name", || with(&[header(b"", b"a")]), Refused(502)),
    ("T27 a pseudo-field", || with(&[header(b":status", b"500")]), Refused(502)),
    ("T27 framing of its own", || with(&[header(b"content-length", b"3"), header(b"transfer-encoding", b"chunked")]), Whole("hello")),
    ("T23 fields of its own connection", || with(&[header(b"connection", b"content-security-policy, x-content-type-options"), header(b"upgrade", b"h2c"), header(b"keep-alive", b"x")]), Whole("hello")),
    ("T61 what acts in our origin", || with(&[header(b"set-cookie", b"a=b"), header(b"Set-Cookie", b"c=d"), header(b"clear-site-data", b"*"), header(b"strict-transport-security", b"max-age=1"), header(b"refresh", b"0;url=//evil"), header(b"alt-svc", b"x")]), Whole("hello")),
    ("T57 a page of its own choice", || with(&[header(b"access-control-allow-origin", b"*"), header(b"access-control-allow-credentials", b"true")]), Whole("hello")),
    ("T34 our own fields", || with(&[header(b"tunnel-error", b"evil"), header(b"x-request-id", b"evil"), header(b"x-accel-redirect", b"/etc/passwd")]), Whole("hello")),
    ("T29 80 fields", || with(&vec![header(b"x", b"y"); 80]), Whole("hello")),
    ("T29 a value over 64 KiB", || head(&[status(200), header(b"x", &[b'y'; 50_000]), header(b"y", &[b'y'; 50_000])]), Refused(502)),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t27_t29_t34_t35_t57_t61_a_desktop_cannot_lie_in_a_stream() {
    run(Way::Direct).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn t27_t34_t35_t57_t61_a_desktop_cannot_lie_in_a_stream_behind_nginx() {
    run(Way::Nginx).await;
}

async fn run(way: Way) {
    let mut stage = Stage::start(way, &[]).await;
    attack::run(&format!("streams toward the server, {way:?}"), CASES, async |number, (name, bytes, expect)| {
        judge(&stage, number, &bytes(), *expect).await.map_err(|what| format!("{name}: {expect:?} but {what}"))
    })
    .await;
    let forged = stage.server.errors().into_iter().find(|line| line.starts_with("ERROR tunneld: evil"));
    assert_eq!(forged, None);
    stage.is_unharmed(0).await;
}

async fn judge(stage: &Stage, number: usize, bytes: &[u8], expect: Expect) -> Result<(), String> {
    let (mut peer, caller) = desktop::connect(stage, &format!("mallory-{number}")).await;
    let attack = async {
        let Some(id) = peer.opened().await else { return (peer, Err("no stream was opened".to_owned())) };
        let (bytes, last) = match bytes {
            [bytes @ .., 0xee, 0, 0, 1, b'R'] => (bytes, yamux::frame(yamux::DATA, yamux::RST, id, 0)),
            [bytes @ .., 0xee, 0, 0, 1, b'F'] => (bytes, yamux::frame(yamux::DATA, yamux::FIN, id, 0)),
            bytes => (bytes, Vec::new()),
        };
        peer.binary(&yamux::frame(yamux::WINDOW, ACK, id, 0)).await;
        for piece in bytes.chunks(32 * 1024) {
            peer.binary(&data(0, id, piece)).await;
        }
        if !last.is_empty() {
            peer.binary(&last).await;
        }
        let fate = peer.fate().await;
        let lives = if fate == Some(Fate::Lives) { Ok(()) } else { Err(format!("the tunnel is over: {fate:?}")) };
        (peer, lives)
    };
    let ask = async {
        let mut reply = caller.get("/x").await;
        let (status, code) = (reply.status().as_u16(), reply.header("tunnel-error").to_owned());
        let forbidden = ["set-cookie", "clear-site-data", "strict-transport-security", "refresh", "alt-svc", "upgrade"];
        let more = ["access-control-allow-origin", "access-control-allow-credentials", "x-accel-redirect"];
        let crossed = forbidden.iter().chain(&more).find(|name| !reply.header(name).is_empty()).copied();
        let (body, end) = reply.rest().await;
        (status, code, String::from_utf8_lossy(&body).into_owned(), end.is_ok(), crossed)
    };
    let ((_peer, lives), (status, code, body, whole, crossed)) = tokio::join!(attack, ask);
    lives?;
    let good = match expect {
        Refused(wanted) => status == wanted && whole && !code.is_empty(),
        Cut => status == 200 && !whole && code.is_empty(),
        Whole(text) => status < 400 && whole && body == text && code.is_empty(),
    };
    match crossed {
        None if good => Ok(()),
        crossed => Err(format!("{status} {code:?} {body:?}, whole: {whole}, crossed: {crossed:?}")),
    }
}
