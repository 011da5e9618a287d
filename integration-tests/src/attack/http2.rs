//! HTTP/2 by hand (RFC 9113): frames with any content, header blocks that no encoder would write.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    DECIDED,
    stage::Stage,
    wire::{self, Terms},
};
use crate::caller::Protocol;

/// Frame types (RFC 9113 §6).
pub mod kind {
    /// DATA.
    pub const DATA: u8 = 0;
    /// HEADERS.
    pub const HEADERS: u8 = 1;
    /// PRIORITY.
    pub const PRIORITY: u8 = 2;
    /// `RST_STREAM`.
    pub const RST_STREAM: u8 = 3;
    /// SETTINGS.
    pub const SETTINGS: u8 = 4;
    /// `PUSH_PROMISE`.
    pub const PUSH_PROMISE: u8 = 5;
    /// PING.
    pub const PING: u8 = 6;
    /// GOAWAY.
    pub const GOAWAY: u8 = 7;
    /// `WINDOW_UPDATE`.
    pub const WINDOW_UPDATE: u8 = 8;
    /// CONTINUATION.
    pub const CONTINUATION: u8 = 9;
}

/// `END_STREAM`, or ACK.
pub const END_STREAM: u8 = 1;
/// `END_HEADERS`.
pub const END_HEADERS: u8 = 4;
/// Both.
pub const END: u8 = END_STREAM | END_HEADERS;

/// What a client says first: the preface and empty SETTINGS.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// What became of stream 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Status(u16),
    /// It was reset with this error code.
    Reset(u32),
    /// The connection was given up with this error code.
    GoAway(u32),
    /// The connection ended.
    Closed,
}

impl Outcome {
    /// Whether this is a no.
    #[must_use]
    pub fn is_refusal(self) -> bool {
        !matches!(self, Self::Status(..400))
    }
}

/// One frame.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block of `name=value¶` in the notation of [`wire`], each field a literal that nobody remembers. `{G}` are
/// the fields of a good GET, `{P}` those of a POST.
#[must_use]
pub fn block(fields: &str, terms: &Terms) -> Vec<u8> {
    let rest = "¶:scheme=https¶:authority={host}¶:path=/§¶authorization=Bearer {token}¶";
    let fields = fields.replace("{G}", &format!(":method=GET{rest}")).replace("{P}", &format!(":method=POST{rest}"));
    let mut block = Vec::new();
    for field in wire::with_repetitions(&fields).split('¶').filter(|field| !field.is_empty()) {
        let (name, value) = field.split_once('=').expect("name=value");
        block.push(0);
        for part in [name, value] {
            let part = wire::bytes(part, terms);
            block.extend(integer(part.len()));
            block.extend(part);
        }
    }
    block
}

/// RFC 7541 §5.1, with a prefix of 7 bits.
fn integer(value: usize) -> Vec<u8> {
    let Some(mut rest) = value.checked_sub(127) else { return vec![u8::try_from(value).expect("below 127")] };
    let mut bytes = vec![127];
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).expect("below 128") | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).expect("below 128"));
    bytes
}

/// Sends the preface and `bytes` on a new connection; what becomes of stream 1, or `None` if nothing does.
pub async fn exchange(stage: &Stage, bytes: &[u8]) -> Option<Outcome> {
    let (mut reader, mut writer) = tokio::io::split(stage.caller().socket(Protocol::Http2).await);
    let write = async {
        let _refused_early = writer.write_all(&[PREFACE, bytes].concat()).await;
        let _refused_early = writer.flush().await;
        std::future::pending::<()>().await;
    };
    let read = async {
        loop {
            let mut header = [0; 9];
            if reader.read_exact(&mut header).await.is_err() {
                return Outcome::Closed;
            }
            let [high, middle, low, kind, _flags, stream @ ..] = header;
            let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
            if reader.read_exact(&mut payload).await.is_err() {
                return Outcome::Closed;
            }
            let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"));
            match (kind, u32::from_be_bytes(stream)) {
                (kind::HEADERS, 1) => return Outcome::Status(status(&payload)),
                (kind::RST_STREAM, 1) => return Outcome::Reset(number(0)),
                (kind::GOAWAY, _) if number(4) != 0 => return Outcome::GoAway(number(4)),
                _ => {}
            }
        }
    };
    timeout(DECIDED, async {
        tokio::select! { outcome = read => outcome, () = write => unreachable!("it waits") }
    })
    .await
    .ok()
}

/// The first field of a response's first block: `:status` from the static table (RFC 7541 §A) or as three digits, plain
/// or in Huffman's code.
fn status(block: &[u8]) -> u16 {
    // A change of the table's size may come first.
    let block = &block[block.iter().take_while(|byte| **byte & 0xe0 == 0x20).count()..];
    match block {
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        [_literal, 3, digits @ ..] => std::str::from_utf8(&digits[..3]).ok().and_then(|d| d.parse().ok()).unwrap_or(0),
        [_literal, length, code @ ..] => huffman_digits(&code[..usize::from(length & 0x7f)]),
        _ => 0,
    }
}

/// Digits are 00000, 00001, 00010 and 011001 to 011111 (RFC 7541 §B).
fn huffman_digits(code: &[u8]) -> u16 {
    let mut bits = code.iter().flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)));
    let mut number = 0;
    for _ in 0..3 {
        let mut take = |count: usize| bits.by_ref().take(count).fold(0, |value, bit| value << 1 | bit);
        let five = take(5);
        number = number * 10 + if five < 3 { five } else { (five << 1 | take(1)) - 0b01_1001 + 3 };
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read() {
        assert_eq!(status(&[0x88]), 200);
        assert_eq!(status(&[0x20, 0x8c]), 400);
        assert_eq!(status(&[0x48, 3, b'5', b'0', b'1']), 501);
        // 431: 011010 011001 00001, and ones.
        assert_eq!(status(&[0x48, 0x83, 0b0110_1001, 0b1001_0000, 0b1111_1111]), 431);
    }

    #[test]
    fn lengths_over_126_take_more_bytes() {
        assert_eq!(integer(10), [10]);
        assert_eq!(integer(127), [127, 0]);
        assert_eq!(integer(127 + 1337), [127, 0b1011_1001, 0b0000_1010]);
    }
}
