//! A peer that sends whatever it likes: a real driver on an in-memory pipe, at either end of a tunnel.

use std::{
    io::{self, Read, Write},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Method};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    runtime::{Builder, Runtime},
    task::{JoinHandle, JoinSet, yield_now},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, WebSocket, protocol::Role as WsRole},
};
use tunnel_frame::{
    BodySize, CloseCode, Control, Ended, Event, Frame, Pulse, RequestHead, Role, Session, Stream, limits, session,
    websocket_config,
};

use crate::input::{Input, pieces};

/// How long an end may take once the peer is gone. Nothing here waits for time to pass.
const SOON: Duration = Duration::from_secs(10);

/// Turns of the runtime after which whatever follows from a piece has followed.
const TURNS: usize = 6;

/// The bytes of a socket whose handshake is done. The first byte says which end is ours, the second in which pieces
/// they come.
pub fn websocket(data: &[u8]) {
    let mut input = Input::new(data);
    let role = role(input.byte());
    let how = input.byte();
    run(role, pieces(&Bytes::copy_from_slice(input.rest()), how));
}

/// The same for the bytes of yamux, each piece in a WebSocket message of its own.
pub fn yamux(data: &[u8]) {
    let mut input = Input::new(data);
    let role = role(input.byte());
    let how = input.byte();
    let bytes = Bytes::copy_from_slice(input.rest());
    let messages = pieces(&bytes, how);
    let ended = run(role, messages.iter().map(|payload| message(role, payload)).collect());
    if role == Role::Server && opens_a_stream(&bytes) {
        // T66: a desktop opens none.
        assert!(matches!(&ended, Ended::Here(close) if close.code == CloseCode::Protocol), "{ended}");
    }
}

/// Whether the first frame is data or a window, whole, with SYN and nothing else, on a stream of the peer's numbers.
fn opens_a_stream(bytes: &[u8]) -> bool {
    let &[0, kind @ 0..=1, 0, 1, a, b, c, d, 0, 0, high, low, ref payload @ ..] = bytes else { return false };
    let (id, length) = (u32::from_be_bytes([a, b, c, d]), usize::from(u16::from_be_bytes([high, low])));
    id != 0 && id % 2 == 0 && (kind == 1 || payload.len() >= length)
}

fn role(choice: u8) -> Role {
    if choice.is_multiple_of(2) { Role::Desktop } else { Role::Server }
}

/// A binary message for the end of `role`: masked, with zeros, if that is a WebSocket server (RFC 6455 §5.2).
fn message(role: Role, payload: &[u8]) -> Bytes {
    let mask = if role == Role::Server { 0x80 } else { 0 }; // the bit above a length of 7 bits
    let mut out = BytesMut::new();
    out.put_u8(0x82);
    match payload.len() {
        length @ 0..126 => out.put_u8(mask | u8::try_from(length).expect("under 126")),
        length @ 126..65536 => {
            out.put_u8(mask | 0x7e);
            out.put_u16(u16::try_from(length).expect("under 64 Ki"));
        }
        length => {
            out.put_u8(mask | 0x7f);
            out.put_u64(length as u64);
        }
    }
    if mask != 0 {
        out.put_u32(0);
    }
    out.put_slice(payload);
    out.freeze()
}

/// Sends `pieces` to a session. It must end or live; its streams end with it; and what it says is well said.
fn run(role: Role, pieces: Vec<Bytes>) -> Ended {
    runtime().block_on(async move {
        let (ours, theirs) = duplex(256 * 1024);
        let (reader, mut writer) = split(theirs);
        let said = tokio::spawn(listen(reader));
        let (session, driver) = start(ours, role).await;
        for piece in pieces {
            if writer.write_all(&piece).await.is_err() {
                break;
            }
            turns(TURNS).await;
        }
        turns(8 * TURNS).await;
        let early = driver.is_finished() || session.ended().is_some();
        assert!(session.streams() <= limits::STREAMS_OPEN);
        let ended = leave(driver, writer).await;
        let said = said.await.expect("the peer only listens");
        if early {
            assert!(!matches!(ended, Ended::Silent), "{ended}");
        }
        well_said(role, said, &ended);
        ended
    })
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}

async fn turns(count: usize) {
    for _ in 0..count {
        yield_now().await;
    }
}

/// All that is sent to the peer.
async fn listen(mut reader: ReadHalf<DuplexStream>) -> Vec<u8> {
    let mut said = Vec::new();
    _ = reader.read_to_end(&mut said).await;
    said
}

/// Our end, with a task on each stream. A server asks for something at once, so that there is a stream to answer on.
async fn start(ours: DuplexStream, role: Role) -> (Session, JoinHandle<Ended>) {
    let ws_role = if role == Role::Server { WsRole::Server } else { WsRole::Client };
    let ws = WebSocketStream::from_raw_socket(Pulse::new(ours), ws_role, Some(websocket_config())).await;
    let (session, driver) = session(ws, role);
    let asking = session.clone();
    let task = tokio::spawn(async move {
        let mut streams = JoinSet::new();
        if role == Role::Server {
            streams.spawn(ask(asking));
        }
        let ended = driver
            .run(|event| match event {
                Event::Stream(stream) => _ = streams.spawn(answer(stream)),
                Event::Control(_) => {}
            })
            .await;
        // The tunnel is gone: whoever waits on one of its streams must notice.
        while let Some(stream) = streams.join_next().await {
            stream.expect("a stream's task does not panic");
        }
        ended
    });
    (session, task)
}

/// A desktop that accepts and reads to the end.
async fn answer(stream: Stream) {
    let (mut reader, mut writer) = stream.split();
    if writer.send(&Frame::Accept).await.is_err() {
        return;
    }
    while let Ok(Some(frame)) = reader.frame().await {
        if frame == Frame::End && writer.send(&Frame::End).await.is_err() {
            return;
        }
    }
}

/// A server that sends one request and reads to the end.
async fn ask(session: Session) {
    let Ok(stream) = session.open().await else { return };
    let (mut reader, mut writer) = stream.split();
    let head = RequestHead {
        method: Method::GET,
        target: "/".into(),
        headers: HeaderMap::new(),
        deadline: Duration::from_secs(30),
        request_id: "1".into(),
        scope: 6,
        body: BodySize::Empty,
    };
    _ = writer.send(&Frame::Request(Box::new(head))).await;
    while let Ok(Some(_)) = reader.frame().await {}
}

/// The peer goes away; the session must end.
async fn leave(driver: JoinHandle<Ended>, mut writer: WriteHalf<DuplexStream>) -> Ended {
    _ = writer.shutdown().await;
    let ended = timeout(SOON, driver).await.expect("the session hangs though its peer is gone");
    ended.expect("the session does not panic")
}

/// What was said are whole messages, control messages are ours, and a close of ours says why.
fn well_said(role: Role, said: Vec<u8>, ended: &Ended) {
    let ws_role = if role == Role::Server { WsRole::Client } else { WsRole::Server };
    let mut peer = WebSocket::from_raw_socket(Said(io::Cursor::new(said)), ws_role, Some(websocket_config()));
    let (mut bye, mut closed) = (None, None);
    while let Ok(message) = peer.read() {
        match message {
            Message::Text(text) => match Control::from_json(&text) {
                Some(Control::Bye { code, .. }) => bye = Some(code),
                other => panic!("not ours to say: {other:?}"),
            },
            Message::Close(frame) => closed = frame.map(|frame| u16::from(frame.code)),
            message => assert!(message.len() <= limits::MESSAGE_SENT, "a message of {} bytes", message.len()),
        }
    }
    if let Ended::Here(close) = ended {
        let code = Some(close.code.to_wire());
        assert_eq!((bye, closed), (code, code), "the end was not told: {ended}");
    }
}

/// Bytes that were sent, as a socket that takes anything.
struct Said(io::Cursor<Vec<u8>>);

impl Read for Said {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Read::read(&mut self.0, buf)
    }
}

impl Write for Said {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
