//! The wire of a tunnel by hand (docs/protocol.md): WebSocket frames, yamux frames and the frames inside a stream, right
//! or wrong, and a peer that writes them and reads what comes back.

use std::{collections::VecDeque, time::Duration};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::DECIDED;
use crate::caller::Io;

/// yamux frame types and flags.
pub mod yamux {
    /// Data.
    pub const DATA: u8 = 0;
    /// Window update.
    pub const WINDOW: u8 = 1;
    /// Ping.
    pub const PING: u8 = 2;
    /// Go away.
    pub const GO_AWAY: u8 = 3;
    /// Opens a stream.
    pub const SYN: u16 = 1;
    /// Acknowledges one.
    pub const ACK: u16 = 2;
    /// Half-closes one.
    pub const FIN: u16 = 4;
    /// Resets one.
    pub const RST: u16 = 8;

    /// One frame, with a length of its own.
    #[must_use]
    pub fn frame(kind: u8, flags: u16, stream: u32, length: usize) -> Vec<u8> {
        let length = u32::try_from(length).expect("a length of 32 bits");
        [&[0, kind], &flags.to_be_bytes()[..], &stream.to_be_bytes(), &length.to_be_bytes()].concat()
    }

    /// A data frame with its payload.
    #[must_use]
    pub fn data(flags: u16, stream: u32, payload: &[u8]) -> Vec<u8> {
        [frame(DATA, flags, stream, payload.len()), payload.to_vec()].concat()
    }
}

/// Frames inside a stream.
pub mod stream {
    /// One frame.
    #[must_use]
    pub fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a small payload").to_be_bytes();
        [&[kind], &length[1..], payload].concat()
    }

    /// A field of a head.
    #[must_use]
    pub fn field(tag: u8, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).expect("a small value").to_be_bytes();
        [&[tag], &length[..], value].concat()
    }

    /// A HEADER field.
    #[must_use]
    pub fn header(name: &[u8], value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(name.len()).expect("a small name").to_be_bytes();
        field(3, &[&length, name, value].concat())
    }

    /// The fields of a good request without a body.
    #[must_use]
    pub fn request_fields(method: &[u8], target: &[u8]) -> Vec<u8> {
        [field(1, method), field(2, target), field(4, &5000_u32.to_be_bytes()), field(6, &[6])].concat()
    }

    /// A good request without a body, and its end.
    #[must_use]
    pub fn request(method: &str, target: &str) -> Vec<u8> {
        [frame(2, &request_fields(method.as_bytes(), target.as_bytes())), frame(5, &[])].concat()
    }

    /// The head of a response with these fields behind its status.
    #[must_use]
    pub fn response(status: u16, more: &[Vec<u8>]) -> Vec<u8> {
        frame(3, &[field(8, &status.to_be_bytes()), more.concat()].concat())
    }
}

/// A client masks (RFC 6455 §5.3). A mask of zeros leaves the payload readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// As a client does.
    Zeros,
    /// As a server does.
    None,
}

/// One WebSocket frame: FIN, reserved bits and opcode in one byte.
#[must_use]
pub fn ws(first: u8, mask: Mask, payload: &[u8]) -> Vec<u8> {
    ws_announced(first, mask, payload.len() as u64, payload)
}

/// The same with any announced length.
#[must_use]
pub fn ws_announced(first: u8, mask: Mask, length: u64, payload: &[u8]) -> Vec<u8> {
    let bit: u8 = if mask == Mask::Zeros { 0b1000_0000 } else { 0b0000_0000 };
    let mut frame = vec![first];
    match length {
        0..=125 => frame.push(bit | u8::try_from(length).expect("below 126")),
        126..=0xffff => {
            frame.push(bit | 0b111_1110);
            frame.extend(u16::try_from(length).expect("16 bits").to_be_bytes());
        }
        _ => {
            frame.push(bit | 0b111_1111);
            frame.extend(length.to_be_bytes());
        }
    }
    if mask == Mask::Zeros {
        frame.extend([0; 4]);
    }
    frame.extend(payload);
    frame
}

/// FIN and binary.
pub const BINARY: u8 = 0x82;
/// FIN and text.
pub const TEXT: u8 = 0x81;
/// FIN and close.
pub const CLOSE: u8 = 0x88;
/// FIN and ping.
pub const PING: u8 = 0x89;
/// FIN and pong.
pub const PONG: u8 = 0x8a;

/// What became of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It answers pings.
    Lives,
    /// It was closed with this code; 1005 is a close without one.
    Closed(u16),
    /// The connection ended without a close.
    Gone,
}

/// A yamux frame that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Type.
    pub kind: u8,
    /// Flags.
    pub flags: u16,
    /// Stream.
    pub stream: u32,
    /// What a data frame carries.
    pub payload: Vec<u8>,
}

/// One end of a tunnel in a test's hands.
pub struct Peer {
    socket: Box<dyn Io>,
    mask: Mask,
    incoming: BytesMut,
    /// Bytes of yamux, in order.
    stream_bytes: BytesMut,
    pongs: VecDeque<Vec<u8>>,
    /// The text messages that came.
    pub texts: Vec<String>,
    over: Option<Fate>,
}

impl Peer {
    /// A tunnel whose handshake is done.
    #[must_use]
    pub fn new(socket: Box<dyn Io>, mask: Mask, read_already: &[u8]) -> Self {
        Self {
            socket,
            mask,
            incoming: read_already.into(),
            stream_bytes: BytesMut::new(),
            pongs: VecDeque::new(),
            texts: Vec::new(),
            over: None,
        }
    }

    /// Sends bytes as they are. They may not be taken.
    pub async fn send(&mut self, bytes: &[u8]) {
        let write = async {
            self.socket.write_all(bytes).await?;
            self.socket.flush().await
        };
        let _not_taken = timeout(Duration::from_secs(5), write).await;
    }

    /// Sends frames of yamux in one message.
    pub async fn binary(&mut self, payload: &[u8]) {
        self.send(&ws(BINARY, self.mask, payload)).await;
    }

    /// Sends a text message.
    pub async fn text(&mut self, text: &str) {
        self.send(&ws(TEXT, self.mask, text.as_bytes())).await;
    }

    /// Whether the tunnel lives after what was sent; reads until that is sure.
    pub async fn fate(&mut self) -> Option<Fate> {
        const MARK: &[u8] = b"alive?";
        self.send(&ws(PING, self.mask, MARK)).await;
        let decide = async {
            while self.over.is_none() {
                if self.pongs.drain(..).any(|pong| pong == MARK) {
                    return Fate::Lives;
                }
                self.more().await;
            }
            self.over.clone().expect("it is over")
        };
        timeout(DECIDED, decide).await.ok()
    }

    /// The next frame of yamux; `None` when the tunnel is over, or nothing came for long.
    pub async fn frame(&mut self) -> Option<Read> {
        const HEADER: usize = 12;
        let read = async {
            loop {
                if let Some(header) = self.stream_bytes.first_chunk::<HEADER>().copied() {
                    let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"));
                    let (kind, flags, stream) = (header[1], u16::from_be_bytes([header[2], header[3]]), number(4));
                    let length = if kind == yamux::DATA { number(8) as usize } else { 0 };
                    if self.stream_bytes.len() >= HEADER + length {
                        self.stream_bytes.advance(HEADER);
                        let payload = self.stream_bytes.split_to(length).to_vec();
                        return Some(Read { kind, flags, stream, payload });
                    }
                }
                if self.over.is_some() {
                    return None;
                }
                self.more().await;
            }
        };
        timeout(DECIDED, read).await.ok().flatten()
    }

    /// Waits for the stream that the server opens for a request.
    pub async fn opened(&mut self) -> Option<u32> {
        loop {
            let frame = self.frame().await?;
            if frame.kind == yamux::PING && frame.flags == yamux::SYN {
                self.binary(&yamux::frame(yamux::PING, yamux::ACK, 0, 0)).await;
            } else if frame.flags & yamux::SYN != 0 {
                return Some(frame.stream);
            }
        }
    }

    /// Reads one WebSocket frame, and answers a ping.
    async fn more(&mut self) {
        loop {
            if let Some((first, payload)) = self.take_ws_frame() {
                match first & 0x0f {
                    1 => self.texts.push(String::from_utf8_lossy(&payload).into_owned()),
                    2 | 0 => self.stream_bytes.extend_from_slice(&payload),
                    8 => {
                        let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                        self.over = Some(Fate::Closed(code));
                        self.send(&ws(CLOSE, self.mask, &payload)).await;
                    }
                    9 => self.send(&ws(PONG, self.mask, &payload)).await,
                    10 => self.pongs.push_back(payload),
                    _ => {}
                }
                return;
            }
            if self.over.is_some() {
                return;
            }
            if !matches!(self.socket.read_buf(&mut self.incoming).await, Ok(1..)) {
                self.over = Some(Fate::Gone);
                return;
            }
        }
    }

    fn take_ws_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, second, ..] = *self.incoming.first_chunk::<10>().map_or(&self.incoming[..], |all| &all[..]) else {
            return None;
        };
        let number = |count: usize| -> Option<usize> {
            let bytes = self.incoming.get(2..2 + count)?;
            Some(bytes.iter().fold(0, |value, byte| value << 8 | usize::from(*byte)))
        };
        let (at, length) = match second & 0x7f {
            126 => (4, number(2)?),
            127 => (10, number(8)?),
            short => (2, usize::from(short)),
        };
        let at = at + if second & 0x80 == 0 { 0 } else { 4 };
        let mask: Vec<u8> = if second & 0x80 == 0 { vec![0] } else { self.incoming.get(at - 4..at)?.to_vec() };
        if self.incoming.len() < at + length {
            return None;
        }
        self.incoming.advance(at);
        let payload = self.incoming.split_to(length);
        Some((first, payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect()))
    }
}
