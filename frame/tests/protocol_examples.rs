//! The worked examples of `docs/protocol.md` are what the encoder writes and the decoder reads: the document cannot rot.
//!
//! An example is a fenced block whose first line is ```` ```hex NAME ````; what follows a `#` is a remark.

use std::{fmt::Write, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role as WsRole},
};
use tunnel_frame::{
    Abort, AbortCode, BodySize, Control, Decoder, Frame, Models, Pulse, RequestHead, ResponseHead, Role, Welcome,
    codec, limits, session,
};

const DOCUMENT: &str = include_str!("../../docs/protocol.md");

/// The lines of a fenced block.
fn block(fence: &str) -> Vec<&'static str> {
    let mut lines = DOCUMENT.lines().skip_while(|line| *line != format!("```{fence}"));
    assert!(lines.next().is_some(), "docs/protocol.md has no block ```{fence}");
    lines.take_while(|line| *line != "```").collect()
}

fn documented(name: &str) -> Vec<u8> {
    let lines = block(&format!("hex {name}"));
    let words = lines.iter().flat_map(|line| line.split('#').next().unwrap_or_default().split_ascii_whitespace());
    words.map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits")).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.chunks(16).fold(String::new(), |mut text, row| {
        for byte in row {
            write!(text, "{byte:02x} ").expect("a String takes everything");
        }
        text + "\n"
    })
}

fn assert_is(name: &str, bytes: &[u8]) {
    let documented = documented(name);
    assert!(documented == bytes, "`{name}` in docs/protocol.md should read:\n{}", hex(bytes));
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value))).collect()
}

fn request() -> Frame {
    Frame::Request(Box::new(RequestHead {
        method: Method::POST,
        target: "/api/chat?x=1".into(),
        headers: headers(&[("content-type", "application/json")]),
        deadline: Duration::from_secs(30),
        request_id: "01a2036729f674de896d195fa4ae7120".into(),
        scope: 0b110,
        body: BodySize::Known(14),
    }))
}

fn response() -> Frame {
    Frame::Response(Box::new(ResponseHead {
        status: StatusCode::OK,
        headers: headers(&[("content-type", "application/x-ndjson")]),
        body: BodySize::Unknown,
    }))
}

fn chunk(text: &'static str) -> Frame {
    Frame::Chunk(Bytes::from_static(text.as_bytes()))
}

#[test]
fn examples_are_what_is_written_and_read() {
    let examples = [
        ("request", vec![request(), chunk(r#"{"model":"m"}"#), chunk("\n"), Frame::End]),
        ("accept", vec![Frame::Accept]),
        ("response", vec![response(), chunk("{\"done\":true}\n"), Frame::End]),
        ("abort", vec![Frame::Abort(Abort::new(AbortCode::UpstreamUnreachable, "Connection refused"))]),
        ("continue", vec![Frame::Continue]),
    ];
    for (name, frames) in examples {
        let mut written = BytesMut::new();
        for frame in &frames {
            codec::encode(frame, &mut written).expect("it is small");
        }
        assert_is(name, &written);
        let (mut decoder, mut input) = (Decoder::default(), Bytes::from(documented(name)));
        for frame in frames {
            assert_eq!(decoder.decode(&mut input), Ok(Some(frame)), "{name}");
        }
        assert_eq!(decoder.decode(&mut input), Ok(None), "{name}");
    }
}

/// A whole message: what lies on the WebSocket when the server opens its first stream.
#[tokio::test]
async fn a_message_on_the_websocket() {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let config = Some(tunnel_frame::websocket_config());
    let ours = WebSocketStream::from_raw_socket(Pulse::new(ours), WsRole::Server, config).await;
    let mut theirs = WebSocketStream::from_raw_socket(theirs, WsRole::Client, config).await;
    let (session, driver) = session(ours, Role::Server);
    tokio::spawn(driver.run(|_| ()));
    let (_reader, mut writer) = session.open().await.expect("there is room").split();
    writer.send(&Frame::End).await.expect("it is small");

    let mut binary = Vec::new();
    let example = documented("message");
    while binary.len() < example.len() {
        match theirs.next().await.expect("the session lives").expect("the session lives") {
            Message::Binary(bytes) => binary.extend_from_slice(&bytes),
            Message::Ping(payload) => assert_eq!(payload.len(), 8),
            other => panic!("{other:?}"),
        }
    }
    assert_is("message", &binary);
}

#[test]
fn control_messages_are_what_is_written_and_read() {
    let welcome = Welcome {
        tunnel: "t1".into(),
        user: "bob".into(),
        name: "laptop".into(),
        url: "https://tunnel.example.com".into(),
        version: "0.1.0".into(),
    };
    let models = Models::fitting(Some("0.13.1".into()), ["llama3.2:3b".to_owned()]);
    let controls = [
        Control::Welcome(welcome),
        Control::Models(models),
        Control::Drain { reason: "the server restarts".into() },
        Control::Bye { code: 1001, message: "the server restarts".into() },
    ];
    let documented = block("json control");
    assert_eq!(documented, controls.iter().map(Control::to_json).collect::<Vec<_>>());
    for (text, control) in documented.iter().zip(controls) {
        assert_eq!(Control::from_json(text), Some(control));
    }
}

/// The table of limits: its last column is the name of a constant.
#[test]
fn limits_are_as_documented() {
    let seconds = |duration: Duration| usize::try_from(duration.as_secs()).expect("some seconds");
    let known = [
        ("MESSAGE_SENT", limits::MESSAGE_SENT),
        ("MESSAGE_ACCEPTED", limits::MESSAGE_ACCEPTED),
        ("CONTROL_ACCEPTED", limits::CONTROL_ACCEPTED),
        ("CONTROL_BURST", limits::CONTROL_BURST as usize),
        ("CONTROL_WINDOW", seconds(limits::CONTROL_WINDOW)),
        ("YAMUX_SPLIT", limits::YAMUX_SPLIT),
        ("YAMUX_STREAMS", limits::YAMUX_STREAMS),
        ("STREAMS_OPEN", limits::STREAMS_OPEN),
        ("CHUNK_SENT", limits::CHUNK_SENT),
        ("FRAME_ACCEPTED", limits::FRAME_ACCEPTED),
        ("ABORT_MESSAGE", limits::ABORT_MESSAGE),
        ("PING_AFTER", seconds(limits::PING_AFTER)),
        ("SILENCE", seconds(limits::SILENCE)),
        ("CLOSE_FLUSH", seconds(limits::CLOSE_FLUSH)),
        ("ACCEPT_WITHIN", seconds(limits::ACCEPT_WITHIN)),
    ];
    for (name, value) in known {
        let row = DOCUMENT.lines().find(|line| line.starts_with('|') && line.contains(&format!("`{name}`")));
        let row = row.unwrap_or_else(|| panic!("no row for {name}"));
        let number = row.split('|').nth(2).unwrap_or_default().replace(',', "");
        assert_eq!(number.split_ascii_whitespace().next(), Some(value.to_string().as_str()), "{row}");
    }
}
