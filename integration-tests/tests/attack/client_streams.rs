//! A hostile server inside the streams of one tunnel, and in the handshake before it: what it can make the real `tunnel`
//! ask its upstream. That is one well-formed request to the one upstream, allowed by the desktop's own policy, or nothing.

use integration_tests::{
    attack::{
        self,
        recorder::Recorder,
        server::{HostileServer, switching},
        stage::assert_no_panic,
        tunnel::{
            Fate, Peer,
            stream::{field, frame, header, request_fields},
            yamux::{self, SYN, data},
        },
        wire,
    },
    workshop::Workshop,
};
use tokio::{io::AsyncWriteExt, sync::Mutex};

/// What the desktop must do.
#[derive(Debug, Clone, Copy)]
enum Expect {
    /// Abort or reset the stream; no complete request at the upstream.
    Refuse,
    /// Ask this, or refuse.
    MayAsk(&'static str),
    /// Ask this and answer.
    Ask(&'static str),
}
use Expect::{Ask, MayAsk, Refuse};

/// What is sent, made of the case's marker, or of the desktop's handshake.
type BytesFor = fn(&str) -> Vec<u8>;

type Case = (&'static str, BytesFor, Expect);

/// A request with these fields besides, without a body.
fn with(marker: &str, fields: &[Vec<u8>]) -> Vec<u8> {
    let path = format!("/{marker}");
    [frame(2, &[request_fields(b"GET", path.as_bytes()), fields.concat()].concat()), frame(5, &[])].concat()
}

fn asks(method: &str, target: &str) -> Vec<u8> {
    [frame(2, &request_fields(method.as_bytes(), target.as_bytes())), frame(5, &[])].concat()
}

/// An upload of this announced length, and what follows its head.
fn upload(marker: &str, length: &[u8], rest: &[Vec<u8>]) -> Vec<u8> {
    let path = format!("/{marker}");
    let head = [request_fields(b"POST", path.as_bytes()), field(7, length)].concat();
    [frame(2, &head), rest.concat()].concat()
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("a good request", |m| with(m, &[]), Ask("GET /§")),
    ("a good upload", |m| upload(m, &5_u64.to_be_bytes(), &[frame(4, b"hello"), frame(5, &[])]), Ask("POST /§ hello")),
    ("a good upload of unknown length", |m| upload(m, &[], &[frame(4, b"hello"), frame(5, &[])]), Ask("POST /§ hello")),
    // Targets: nothing from the wire chooses a host.
    ("T52 an absolute target", |m| asks("GET", &format!("http://evil.example/{m}")), Refuse),
    ("T52 an absolute target of the upstream", |m| asks("GET", &format!("http://127.0.0.1/{m}")), Refuse),
    ("T52 two slashes", |m| asks("GET", &format!("//evil.example/{m}")), Ask("GET //evil.example/§")),
    ("T52 a host and a port", |_| asks("GET", "evil.example:80"), Refuse),
    ("T52 userinfo", |m| asks("GET", &format!("@evil.example/{m}")), Refuse),
    ("T52 an asterisk", |_| asks("OPTIONS", "*"), Refuse),
    ("T52 nothing", |_| asks("GET", ""), Refuse),
    ("T52 a query alone", |m| asks("GET", &format!("?{m}")), Refuse),
    ("T52 a word", |m| asks("GET", m), Refuse),
    ("T20 a line in the target", |m| asks("GET", &format!("/{m} HTTP/1.1\r\nX-Evil: 1")), Refuse),
    ("T20 a request in the target", |m| asks("GET", &format!("/{m} HTTP/1.1\r\nHost: x\r\n\r\nGET /{m}/smuggled")), Refuse),
    ("T20 an LF in the target", |m| asks("GET", &format!("/{m}\nx")), Refuse),
    ("T20 a blank in the target", |m| asks("GET", &format!("/{m} x")), Refuse),
    ("T20 a NUL in the target", |m| asks("GET", &format!("/{m}\0")), Refuse),
    ("T20 a DEL in the target", |m| asks("GET", &format!("/{m}\x7f")), Refuse),
    ("T20 a fragment", |m| asks("GET", &format!("/{m}#x")), MayAsk("GET /§")),
    ("T20 a target that is no UTF-8", |m| [frame(2, &request_fields(b"GET", &[b"/", m.as_bytes(), &[0xff]].concat())), frame(5, &[])].concat(), Refuse),
    ("T29 a target of 60 KB", |m| asks("GET", &format!("/{m}/{}", "a".repeat(60_000))), MayAsk("")),
    // Methods.
    ("T20 no method", |m| asks("", &format!("/{m}")), Refuse),
    ("T20 a blank in the method", |m| asks("GET /x", &format!("/{m}")), Refuse),
    ("T20 a line in the method", |m| asks("GET / HTTP/1.1\r\nX: y\r\n\r\nGET", &format!("/{m}")), Refuse),
    ("T22 CONNECT", |m| asks("CONNECT", &format!("/{m}")), Refuse),
    ("T22 TRACE", |m| asks("TRACE", &format!("/{m}")), MayAsk("TRACE /§")),
    ("T29 a method of 10 KB", |m| asks(&"A".repeat(10_000), &format!("/{m}")), MayAsk("")),
    // Fields.
    ("T20 a line in a value", |m| with(m, &[header(b"x", b"a\r\ny: z")]), Refuse),
    ("T20 a request in a value", |m| with(m, &[header(b"x", b"a\r\n\r\nGET /x HTTP/1.1\r\n")]), Refuse),
    ("T20 an LF in a value", |m| with(m, &[header(b"x", b"a\nb")]), Refuse),
    ("T20 a NUL in a value", |m| with(m, &[header(b"x", b"a\0")]), Refuse),
    ("T20 a line in a name", |m| with(m, &[header(b"x\r\ny", b"a")]), Refuse),
    ("T20 a colon in a name", |m| with(m, &[header(b"host:", b"a")]), Refuse),
    ("T20 no name", |m| with(m, &[header(b"", b"a")]), Refuse),
    ("T52 a Host", |m| with(m, &[header(b"host", b"evil.example"), header(b"Host", b"evil.example")]), Ask("GET /§")),
    ("T31 credentials", |m| with(m, &[header(b"authorization", b"Bearer x"), header(b"cookie", b"a=b"), header(b"proxy-authorization", b"x")]), Ask("GET /§")),
    ("T54 an Origin", |m| with(m, &[header(b"origin", b"https://evil.example"), header(b"referer", b"https://evil.example/")]), Ask("GET /§")),
    ("T20 framing of its own", |m| with(m, &[header(b"content-length", b"50"), header(b"transfer-encoding", b"chunked")]), Ask("GET /§")),
    ("T23 fields of one connection", |m| with(m, &[header(b"connection", b"host, x"), header(b"upgrade", b"websocket"), header(b"te", b"trailers"), header(b"trailer", b"x"), header(b"keep-alive", b"1")]), Ask("GET /§")),
    ("T26 an expectation", |m| with(m, &[header(b"expect", b"a-miracle")]), Ask("GET /§")),
    ("T29 3,000 fields", |m| with(m, &vec![header(b"x", b"y"); 3000]), MayAsk("GET /§")),
    // Heads that are none.
    ("T46 no method field", |m| [frame(2, &[field(2, format!("/{m}").as_bytes()), field(4, &[0, 0, 9, 9]), field(6, &[6])].concat()), frame(5, &[])].concat(), Refuse),
    ("T46 no target field", |_| [frame(2, &[field(1, b"GET"), field(4, &[0, 0, 9, 9]), field(6, &[6])].concat()), frame(5, &[])].concat(), Refuse),
    ("T46 no deadline", |m| [frame(2, &[field(1, b"GET"), field(2, format!("/{m}").as_bytes()), field(6, &[6])].concat()), frame(5, &[])].concat(), Refuse),
    ("T46 no scope", |m| [frame(2, &[field(1, b"GET"), field(2, format!("/{m}").as_bytes()), field(4, &[0, 0, 9, 9])].concat()), frame(5, &[])].concat(), Refuse),
    ("T46 two methods", |m| with(m, &[field(1, b"DELETE")]), Refuse),
    ("T46 two targets", |m| with(m, &[field(2, b"/x")]), Refuse),
    ("T46 an unknown field", |m| with(m, &[field(0x7f, b"x")]), Refuse),
    ("T46 a status", |m| with(m, &[field(8, &[0, 200])]), Refuse),
    ("T46 a body of 3 bytes' length", |m| with(m, &[field(7, &[0, 0, 3])]), Refuse),
    ("T46 a field that is cut short", |m| with(m, &[vec![3, 9, 9]]), Refuse),
    ("T35 a request id with escapes", |m| with(m, &[field(5, b"\x1b[2J\r\nERROR evil")]), Ask("GET /§")),
    ("T55 a deadline of 0", |m| [frame(2, &[field(1, b"GET"), field(2, format!("/{m}").as_bytes()), field(4, &[0; 4]), field(6, &[6])].concat()), frame(5, &[])].concat(), MayAsk("GET /§")),
    ("T55 a deadline of 49 days", |m| [frame(2, &[field(1, b"GET"), field(2, format!("/{m}").as_bytes()), field(4, &[255; 4]), field(6, &[6])].concat()), frame(5, &[])].concat(), Ask("GET /§")),
    // Frames and bodies.
    ("T46 an end first", |m| [frame(5, &[]), with(m, &[])].concat(), Refuse),
    ("T46 a chunk first", |m| [frame(4, b"x"), with(m, &[])].concat(), Refuse),
    ("T46 an accept", |m| [frame(1, &[]), with(m, &[])].concat(), Refuse),
    ("T46 a response", |m| [frame(3, &field(8, &[0, 200])), with(m, &[])].concat(), Refuse),
    ("T46 an abort", |m| [frame(6, &[0, 1]), with(m, &[])].concat(), Refuse),
    ("T46 type 0", |m| [frame(0, &[]), with(m, &[])].concat(), Refuse),
    ("T46 type 7", |m| [frame(7, &[]), with(m, &[])].concat(), Refuse),
    ("T46 64 KiB and a byte", |_| vec![2, 1, 0, 1], Refuse),
    ("T46 HTTP in place of frames", |m| format!("GET /{m} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes(), Refuse),
    ("T20 more than announced", |m| upload(m, &3_u64.to_be_bytes(), &[frame(4, b"hello"), frame(5, &[])]), MayAsk("POST /§ hel")),
    ("T20 less than announced", |m| upload(m, &9_u64.to_be_bytes(), &[frame(4, b"hello"), frame(5, &[])]), Refuse),
    ("T20 a head in a body", |m| upload(m, &[], &[frame(4, b"hello"), with(m, &[])]), Refuse),
    ("T20 an unknown frame in a body", |m| upload(m, &[], &[frame(4, b"hello"), frame(9, &[]), frame(5, &[])]), Refuse),
    ("T20 an empty chunk", |m| upload(m, &[], &[frame(4, &[]), frame(5, &[])]), Refuse),
    ("T20 a chunk behind the end", |m| [upload(m, &[], &[frame(4, b"hello"), frame(5, &[])]), frame(4, b"more")].concat(), MayAsk("POST /§ hello")),
    ("T20 a second request behind the first", |m| [with(m, &[]), with(&format!("{m}/2"), &[])].concat(), MayAsk("GET /§")),
];

/// What `--allow inference` must not let through.
#[rustfmt::skip]
const FORBIDDEN: &[(&str, &str)] = &[
    ("DELETE", "/api/delete"), ("POST", "/api/delete"), ("POST", "/api/pull"), ("POST", "/api/chat/"), ("POST", "/api/chat/../delete"),
    ("POST", "/api/%63hat"), ("POST", "//api/chat"), ("POST", "/API/CHAT"), ("POST", "/api/chat%00"), ("POST", "/api/chat;x"),
    ("POST", "/api/chat#/../delete"), ("POST", "/api/chat%2f..%2fdelete"), ("post", "/api/chat"), ("GET", "/api/chat"),
    ("DELETE", "/api/chat"), ("GET", "/v1/models/.."), ("GET", "/v1/models/..%2f..%2fapi%2fdelete"), ("GET", "/v1/models/a/../b"),
    ("HEAD", "/api/blobs/sha256:00"), ("POST", "/api/blobs/sha256:00"), ("CONNECT", "/api/chat"), ("POST", "http://x/api/chat"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t20_t22_t29_t31_t46_t52_t54_a_server_cannot_choose_what_the_upstream_sees() {
    let (shop, recorder) = (Workshop::new().await, Recorder::start().await);
    let server = HostileServer::start(&shop, &recorder, "hostile", &[]).await;
    let peer = Mutex::new(server.tunnel().await.unwrap());
    attack::run("streams toward the client", CASES, async |number, (name, bytes, expect)| {
        let marker = wire::marker(number);
        let answer = exchange(&mut *peer.lock().await, number, &bytes(&marker)).await;
        let seen = recorder.seen(&marker);
        let asked: Vec<_> = seen.iter().filter(|seen| seen.complete).map(crate::http::in_one_line).collect();
        let is_it = |request: &str| asked == [request.replace('§', &marker)];
        let good = match expect {
            Refuse => asked.is_empty() && !matches!(answer, Some(Answer::Status(_)) | None),
            MayAsk("") => asked.len() <= 1 && answer.is_some(),
            MayAsk(request) => (asked.is_empty() || is_it(request)) && answer.is_some(),
            Ask(request) => is_it(request) && answer == Some(Answer::Status(200)),
        };
        if good { Ok(()) } else { Err(format!("{name}: {expect:?} but {answer:?}, upstream {asked:?}")) }
    })
    .await;
    assert_eq!(peer.lock().await.fate().await, Some(Fate::Lives), "only the streams were ended");
    assert_eq!(recorder.violations(), Vec::<String>::new());
    assert_no_panic(&server.client);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t53_a_server_cannot_get_around_allow() {
    let (shop, recorder) = (Workshop::new().await, Recorder::start().await);
    let server = HostileServer::start(&shop, &recorder, "hostile", &["--allow", "inference"]).await;
    let peer = Mutex::new(server.tunnel().await.unwrap());
    attack::run("T53 --allow", FORBIDDEN, async |number, (method, target)| {
        match exchange(&mut *peer.lock().await, number, &asks(method, target)).await {
            Some(Answer::Abort(_) | Answer::Reset) => Ok(()),
            answer => Err(format!("{method} {target}: {answer:?}")),
        }
    })
    .await;
    assert_eq!(recorder.count(), 0);
    let answer = exchange(&mut *peer.lock().await, 999, &asks("POST", "/api/chat?x=/../delete")).await;
    assert_eq!((answer, recorder.count()), (Some(Answer::Status(200)), 1));
}

/// Answers to the handshake that are no tunnel. The desktop must neither believe them nor follow them.
#[rustfmt::skip]
const ANSWERS: &[(&str, BytesFor)] = &[
    ("T54 a redirect", |_| b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/ws/tunnel\r\nContent-Length: 0\r\n\r\n".to_vec()),
    ("no accept", |head| switching(head, "").replace("Sec-WebSocket-Accept", "X").into_bytes()),
    ("another accept", |_| switching("sec-websocket-key: another", "").into_bytes()),
    ("no subprotocol", |head| switching(head, "").replace("Sec-WebSocket-Protocol", "X").into_bytes()),
    ("another subprotocol", |head| switching(head, "").replace("tunnel.yamux.v1", "tunnel.yamux.v9").into_bytes()),
    ("no Upgrade", |head| switching(head, "").replace("Upgrade: websocket", "X: y").into_bytes()),
    ("compression that nobody asked for", |head| switching(head, "Sec-WebSocket-Extensions: permessage-deflate\r\n").into_bytes()),
    ("200", |head| switching(head, "Content-Length: 0\r\n").replace("101 Switching Protocols", "200 OK").into_bytes()),
    ("500 without end", |_| [b"HTTP/1.1 500 X\r\n\r\n".to_vec(), vec![b'x'; 1 << 20]].concat()),
    ("a head without end", |_| [b"HTTP/1.1 101 X\r\n".to_vec(), b"X: y\r\n".repeat(100_000)].concat()),
    ("a field without end", |_| [b"HTTP/1.1 101 X\r\nX: ".to_vec(), vec![b'x'; 1 << 20]].concat()),
    ("no HTTP", |_| b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
    ("NULs", |_| vec![0; 100_000]),
    ("nothing", |_| Vec::new()),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t54_a_handshake_that_is_none_is_tried_again_and_never_believed() {
    let (shop, recorder) = (Workshop::new().await, Recorder::start().await);
    attack::run("handshakes toward the client", ANSWERS, async |number, (name, answer)| {
        let server = HostileServer::start(&shop, &recorder, &wire::marker(number), &[]).await;
        let mut asked = server.asked().await.ok_or(format!("{name}: the desktop does not come"))?;
        let _not_taken = asked.socket.write_all(&answer(&asked.head)).await;
        drop(asked);
        let mut peer = server.tunnel().await.ok_or(format!("{name}: the desktop does not come again"))?;
        assert_no_panic(&server.client);
        match exchange(&mut peer, 0, &asks("GET", "/x")).await {
            Some(Answer::Status(200)) => Ok(()),
            answer => Err(format!("{name}: afterwards {answer:?}")),
        }
    })
    .await;
    assert_eq!((recorder.count(), recorder.violations()), (ANSWERS.len(), Vec::new()));
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Status(u16),
    Abort(u16),
    Reset,
}

/// Sends `bytes` on a stream of its own, and reads what the desktop makes of them.
async fn exchange(peer: &mut Peer, number: usize, bytes: &[u8]) -> Option<Answer> {
    let id = u32::try_from(2 * number + 1).unwrap();
    peer.binary(&yamux::frame(yamux::WINDOW, SYN, id, 0)).await;
    for piece in bytes.chunks(32 * 1024) {
        peer.binary(&data(0, id, piece)).await;
    }
    let mut answer = Vec::new();
    loop {
        let frame = peer.frame().await?;
        if frame.stream != id {
            continue;
        }
        answer.extend(frame.payload);
        // accept, and then the first frame that says something.
        match answer.get(4..) {
            Some([3, _, _, _, 8, 0, 2, high, low, ..]) => {
                peer.binary(&yamux::frame(yamux::DATA, yamux::RST, id, 0)).await;
                return Some(Answer::Status(u16::from_be_bytes([*high, *low])));
            }
            Some([6, _, _, _, high, low, ..]) => return Some(Answer::Abort(u16::from_be_bytes([*high, *low]))),
            _ if frame.flags & yamux::RST != 0 => return Some(Answer::Reset),
            _ => {}
        }
    }
}
