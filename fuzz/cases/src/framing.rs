//! Frames inside a stream, the heads in them, and control messages.

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use tunnel_frame::{Control, Decoder, Frame, FrameError, codec, limits};

use crate::input::{Input, pieces};

/// Frame types that carry a head.
const REQUEST: u8 = 2;
const RESPONSE: u8 = 3;

/// Bytes of a stream. The first byte says in which pieces they come.
///
/// In whatever pieces: the same frames, and the same error at the end. What was understood can be said again.
pub fn frames(data: &[u8]) {
    let mut input = Input::new(data);
    let how = input.byte();
    let bytes = Bytes::copy_from_slice(input.rest());
    let decoded = decode(std::slice::from_ref(&bytes));
    assert_eq!(decode(&pieces(&bytes, how)), decoded, "pieces change the frames");
    let (whole, _error) = decoded;

    let mut said = BytesMut::new();
    for frame in &whole {
        say(frame, &mut said);
    }
    let (again, error) = decode(&[said.freeze()]);
    assert_eq!(error, None, "what was encoded does not decode");
    assert_eq!(again.len(), whole.len());
    for (again, first) in again.iter().zip(&whole) {
        same(again, first);
    }
}

/// The payload of a request's head, or of a response's if the first byte is odd.
pub fn heads(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = if input.byte().is_multiple_of(2) { REQUEST } else { RESPONSE };
    let payload = input.rest();
    let Ok(length) = u32::try_from(payload.len()) else { return };
    let mut bytes = BytesMut::new();
    bytes.put_u32(u32::from(kind) << 24 | length & 0x00ff_ffff);
    bytes.put_slice(payload);
    let (frames, error) = decode(&[bytes.freeze()]);
    let headers = match frames.first() {
        Some(Frame::Request(head)) => {
            assert!(head.target.starts_with('/'), "{}", head.target);
            assert!(!head.method.as_str().is_empty());
            &head.headers
        }
        Some(Frame::Response(head)) => {
            assert!((200..600).contains(&head.status.as_u16()), "{}", head.status);
            &head.headers
        }
        Some(other) => panic!("not a head: {other:?}"),
        None => return assert!(error.is_some() || payload.is_empty(), "a whole head is neither read nor refused"),
    };
    one_line_each(headers);
    let mut said = BytesMut::new();
    say(&frames[0], &mut said);
    if !said.is_empty() {
        assert_eq!(decode(&[said.freeze()]).0, frames, "a head changes when it is said again");
    }
}

/// The text of a control message: one JSON object with a type, or nothing.
pub fn control(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Some(control) = Control::from_json(text) else { return };
    let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
    assert!(value.is_object(), "a control message that is no object: {text}");
    assert!(value["type"].is_string(), "a control message without a type: {text}");
    if control != Control::Unknown {
        assert_eq!(Control::from_json(&control.to_json()), Some(control), "a message changes when it is said again");
    }
}

/// The frames in `pieces`, neighbouring pieces of chunks joined, and what was wrong after them.
fn decode(pieces: &[Bytes]) -> (Vec<Frame>, Option<FrameError>) {
    let mut decoder = Decoder::default();
    let mut frames: Vec<Frame> = Vec::new();
    for mut piece in pieces.iter().cloned() {
        loop {
            match decoder.decode(&mut piece) {
                Err(error) => return (frames, Some(error)),
                Ok(None) => break assert!(piece.is_empty(), "bytes are left behind"),
                Ok(Some(Frame::Chunk(bytes))) => {
                    assert!(!bytes.is_empty(), "an empty chunk");
                    match frames.last_mut() {
                        Some(Frame::Chunk(before)) => *before = [&before[..], &bytes[..]].concat().into(),
                        _ => frames.push(Frame::Chunk(bytes)),
                    }
                }
                Ok(Some(frame)) => frames.push(frame),
            }
        }
    }
    (frames, None)
}

/// Encodes a frame; joined chunks in frames of their own again.
fn say(frame: &Frame, out: &mut BytesMut) {
    let before = out.len();
    match frame {
        Frame::Chunk(bytes) => {
            for piece in bytes.chunks(limits::CHUNK_SENT) {
                codec::encode(&Frame::Chunk(Bytes::copy_from_slice(piece)), out).expect("a chunk of ours");
            }
        }
        frame => match codec::encode(frame, out) {
            Ok(()) => {}
            // A head without a request id gets an empty one, which may be one field too many.
            Err(FrameError::TooLarge(size)) if size <= limits::FRAME_ACCEPTED + 3 => out.truncate(before),
            Err(error) => panic!("{error}: {frame:?}"),
        },
    }
}

fn same(again: &Frame, first: &Frame) {
    match (again, first) {
        (Frame::Abort(again), Frame::Abort(first)) => {
            assert_eq!(again.code, first.code);
            // A sentence over the limit is cut, and what is no UTF-8 is replaced.
            assert!(first.message.starts_with(again.message.trim_end_matches('\u{fffd}')));
        }
        (again, first) => assert_eq!(again, first, "a frame changes when it is said again"),
    }
}

/// No field can begin another line.
fn one_line_each(headers: &HeaderMap) {
    for (name, value) in headers {
        assert!(!name.as_str().bytes().any(|b| b.is_ascii_uppercase() || b" \t\r\n:\0".contains(&b)), "{name}");
        assert!(!value.as_bytes().iter().any(|b| b"\r\n\0".contains(b)), "{name}: {value:?}");
    }
}
