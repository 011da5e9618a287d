//! The binary framing inside a stream: u8 type, u24 payload length (big-endian), payload.
//!
//! Owns bytes ↔ [`Frame`]; which frame may come when is the business of who reads the stream. Chunks are handed on as
//! they arrive, before they are complete: a chunk on the wire may come out as several [`Frame::Chunk`]s.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::{
    abort::{Abort, AbortCode},
    head::{RequestHead, ResponseHead},
    limits,
};

/// Frame types on the wire.
mod kind {
    pub(super) const ACCEPT: u8 = 0x01;
    pub(super) const REQUEST: u8 = 0x02;
    pub(super) const RESPONSE: u8 = 0x03;
    pub(super) const CHUNK: u8 = 0x04;
    pub(super) const END: u8 = 0x05;
    pub(super) const ABORT: u8 = 0x06;
    // 0x07 (trailers) and 0x08 (upgrade) are reserved.
    /// Types from here on are optional: unknown ones are skipped.
    pub(super) const OPTIONAL: u8 = 0x80;
    pub(super) const CONTINUE: u8 = 0x80;
}

/// Bytes before a payload.
pub(crate) const HEADER: usize = 4;

/// One frame inside a stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// Desktop to server: the stream was taken. Sent at once, before the upstream is asked.
    Accept,
    /// Server to desktop: first frame of a request.
    Request(Box<RequestHead>),
    /// Desktop to server: head of the response.
    Response(Box<ResponseHead>),
    /// Either way: bytes of a body, never empty.
    Chunk(Bytes),
    /// Either way: the body is complete. A stream that ends without it was cut.
    End,
    /// Desktop to server: the stream failed. In the other direction a stream is reset instead.
    Abort(Abort),
    /// Desktop to server, optional: the upstream has begun to take the request's body (100 Continue).
    Continue,
}

/// What is wrong with bytes inside a stream. Fatal for the stream, not for the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A frame type that must be known but is not.
    #[error("unknown frame type {0:#04x}")]
    UnknownType(u8),
    /// A payload over [`limits::FRAME_ACCEPTED`].
    #[error("frame of {0} bytes is too large")]
    TooLarge(usize),
    /// A payload whose length does not fit its type.
    #[error("frame type {0:#04x} with {1} bytes of payload")]
    BadLength(u8, usize),
    /// A head's field does not parse.
    #[error("bad field in a head: {0}")]
    BadField(&'static str),
    /// A head lacks a field.
    #[error("head without {0}")]
    MissingField(&'static str),
    /// A field is larger than its length field can say.
    #[error("a field of a head is over 65,535 bytes")]
    FieldTooLarge,
}

/// Incremental decoder. Feed it whatever arrived; it never looks ahead.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
}

#[derive(Debug)]
enum State {
    /// Some bytes of a frame's header.
    Header { bytes: [u8; HEADER], have: usize },
    /// This many bytes of a chunk are still to come.
    Chunk { left: usize },
    /// A payload that must be whole before it means anything.
    Payload { kind: u8, len: usize, bytes: BytesMut },
    /// An optional frame that we do not know.
    Skip { left: usize },
}

impl Default for State {
    fn default() -> Self {
        Self::Header { bytes: [0; HEADER], have: 0 }
    }
}

impl Decoder {
    /// Takes bytes off the front of `input` until a frame (or a piece of a chunk) is there; `None` when `input` is used
    /// up.
    ///
    /// # Errors
    /// What [`FrameError`] says; the decoder must not be used afterwards.
    pub fn decode(&mut self, input: &mut Bytes) -> Result<Option<Frame>, FrameError> {
        loop {
            match &mut self.state {
                State::Header { bytes, have } => {
                    let n = input.len().min(HEADER - *have);
                    input.split_to(n).copy_to_slice(&mut bytes[*have..*have + n]);
                    *have += n;
                    if *have < HEADER {
                        return Ok(None);
                    }
                    let [kind, len @ ..] = *bytes;
                    let len = usize::from(len[0]) << 16 | usize::from(len[1]) << 8 | usize::from(len[2]);
                    self.state = State::default();
                    if let Some(frame) = self.begin(kind, len)? {
                        return Ok(Some(frame));
                    }
                }
                State::Chunk { left } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let piece = input.split_to(input.len().min(*left));
                    *left -= piece.len();
                    if *left == 0 {
                        self.state = State::default();
                    }
                    return Ok(Some(Frame::Chunk(piece)));
                }
                State::Payload { kind, len, bytes } => {
                    let (kind, missing) = (*kind, *len - bytes.len());
                    if bytes.is_empty() && input.len() >= missing {
                        let payload = input.split_to(missing);
                        self.state = State::default();
                        return parse(kind, &payload).map(Some);
                    }
                    let piece = input.split_to(input.len().min(missing));
                    bytes.put(piece);
                    if bytes.len() < *len {
                        return Ok(None);
                    }
                    let payload = std::mem::take(bytes);
                    self.state = State::default();
                    return parse(kind, &payload).map(Some);
                }
                State::Skip { left } => {
                    let n = input.len().min(*left);
                    input.advance(n);
                    *left -= n;
                    if *left > 0 {
                        return Ok(None);
                    }
                    self.state = State::default();
                }
            }
        }
    }

    /// Reads a frame's header; frames without payload are complete with it.
    fn begin(&mut self, kind: u8, len: usize) -> Result<Option<Frame>, FrameError> {
        if len > limits::FRAME_ACCEPTED {
            return Err(FrameError::TooLarge(len));
        }
        match (kind, len) {
            (kind::ACCEPT, 0) => return Ok(Some(Frame::Accept)),
            (kind::END, 0) => return Ok(Some(Frame::End)),
            (kind::CONTINUE, 0) => return Ok(Some(Frame::Continue)),
            (kind::CHUNK, 1..) => self.state = State::Chunk { left: len },
            (kind::REQUEST | kind::RESPONSE, 1..) | (kind::ABORT, 2..) => {
                self.state = State::Payload { kind, len, bytes: BytesMut::new() };
            }
            (kind::OPTIONAL.., _) => self.state = State::Skip { left: len },
            (kind::ACCEPT..=kind::ABORT, _) => return Err(FrameError::BadLength(kind, len)),
            _ => return Err(FrameError::UnknownType(kind)),
        }
        Ok(None)
    }
}

fn parse(kind: u8, payload: &[u8]) -> Result<Frame, FrameError> {
    match kind {
        kind::REQUEST => RequestHead::decode(payload).map(|head| Frame::Request(Box::new(head))),
        kind::RESPONSE => ResponseHead::decode(payload).map(|head| Frame::Response(Box::new(head))),
        _ => {
            let (code, message) = payload.split_first_chunk().ok_or(FrameError::BadLength(kind, payload.len()))?;
            let message = &message[..message.len().min(limits::ABORT_MESSAGE)];
            Ok(Frame::Abort(Abort {
                code: AbortCode::from_wire(u16::from_be_bytes(*code)),
                message: String::from_utf8_lossy(message).into_owned(),
            }))
        }
    }
}

/// Appends a frame, header and payload.
///
/// # Errors
/// A head, or a chunk, that is larger than a peer would accept.
pub fn encode(frame: &Frame, out: &mut BytesMut) -> Result<(), FrameError> {
    let start = out.len();
    out.put_u32(0);
    let kind = match frame {
        Frame::Accept => kind::ACCEPT,
        Frame::End => kind::END,
        Frame::Continue => kind::CONTINUE,
        Frame::Request(head) => head.encode(out).map(|()| kind::REQUEST)?,
        Frame::Response(head) => head.encode(out).map(|()| kind::RESPONSE)?,
        Frame::Chunk(bytes) => {
            out.put_slice(bytes);
            kind::CHUNK
        }
        Frame::Abort(abort) => {
            out.put_u16(abort.code.to_wire());
            out.put_slice(&abort.message.as_bytes()[..abort.message.len().min(limits::ABORT_MESSAGE)]);
            kind::ABORT
        }
    };
    let len = out.len() - start - HEADER;
    if len > limits::FRAME_ACCEPTED {
        return Err(FrameError::TooLarge(len));
    }
    let len = u32::try_from(len).expect("at most 64 KiB");
    out[start..start + HEADER].copy_from_slice(&(u32::from(kind) << 24 | len).to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::head::BodySize;

    fn all(mut input: Bytes) -> Result<Vec<Frame>, FrameError> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        while let Some(frame) = decoder.decode(&mut input)? {
            frames.push(frame);
        }
        Ok(frames)
    }

    fn sample(body: &[u8]) -> Vec<Frame> {
        vec![
            Frame::Accept,
            Frame::Response(Box::new(ResponseHead {
                status: http::StatusCode::OK,
                headers: http::HeaderMap::from_iter([(http::header::SERVER, http::HeaderValue::from_static("x"))]),
                body: BodySize::Unknown,
            })),
            Frame::Continue,
            Frame::Chunk(Bytes::copy_from_slice(body)),
            Frame::Abort(Abort::new(AbortCode::UpstreamError, "it broke")),
            Frame::End,
        ]
    }

    fn encoded(frames: &[Frame]) -> Bytes {
        let mut out = BytesMut::new();
        for frame in frames {
            encode(frame, &mut out).unwrap();
        }
        out.freeze()
    }

    /// Joins neighbouring chunks, which is all that chunking of the input may change.
    fn joined(frames: Vec<Frame>) -> Vec<Frame> {
        let mut out: Vec<Frame> = Vec::new();
        for frame in frames {
            match (out.last_mut(), frame) {
                (Some(Frame::Chunk(a)), Frame::Chunk(b)) => *a = [&a[..], &b[..]].concat().into(),
                (_, frame) => out.push(frame),
            }
        }
        out
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_frames(
            body in proptest::collection::vec(any::<u8>(), 1..2000),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let frames = sample(&body);
            let bytes = encoded(&frames);
            let mut cuts: Vec<_> = cuts.iter().map(|c| c.index(bytes.len())).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let mut decoder = Decoder::default();
            let (mut got, mut from) = (Vec::new(), 0);
            for cut in cuts {
                let mut piece = bytes.slice(from..cut);
                from = cut;
                while let Some(frame) = decoder.decode(&mut piece).unwrap() {
                    got.push(frame);
                }
                prop_assert!(piece.is_empty());
            }
            prop_assert_eq!(joined(got), frames);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..4000)) {
            let _ = all(bytes.into());
        }
    }

    #[test]
    fn a_chunk_is_relayed_before_it_is_complete() {
        let bytes = encoded(&[Frame::Chunk(Bytes::from_static(b"hello"))]);
        assert_eq!(all(bytes.slice(..6)).unwrap(), [Frame::Chunk(Bytes::from_static(b"he"))]);
    }

    #[test]
    fn unknown_optional_types_are_skipped() {
        let bytes = [&[0xff, 0, 0, 2, 1, 2][..], &encoded(&[Frame::End])].concat();
        assert_eq!(all(bytes.into()).unwrap(), [Frame::End]);
    }

    #[test]
    fn what_must_be_known_is_an_error() {
        let error = |bytes: &'static [u8]| all(Bytes::from_static(bytes)).unwrap_err();
        assert_eq!(error(&[0, 0, 0, 0]), FrameError::UnknownType(0));
        assert_eq!(error(&[7, 0, 0, 0]), FrameError::UnknownType(7));
        assert_eq!(error(&[0x7f, 0, 0, 0]), FrameError::UnknownType(0x7f));
        assert_eq!(error(&[4, 0, 0, 0]), FrameError::BadLength(4, 0));
        assert_eq!(error(&[5, 0, 0, 1, 0]), FrameError::BadLength(5, 1));
        assert_eq!(error(&[6, 0, 0, 1, 0]), FrameError::BadLength(6, 1));
        assert_eq!(error(&[4, 1, 0, 1]), FrameError::TooLarge(65_537));
    }
}
