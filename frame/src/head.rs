//! Heads of a request and of a response, and their type-length-value encoding.
//!
//! A head is a sequence of fields: u8 tag, u16 length (big-endian), value. Tags from 0x80 may be skipped by who does
//! not know them; any other unknown tag is an error. Headers keep their order and repeat.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::codec::FrameError;

mod tag {
    pub(super) const METHOD: u8 = 0x01;
    pub(super) const TARGET: u8 = 0x02;
    pub(super) const HEADER: u8 = 0x03;
    pub(super) const DEADLINE: u8 = 0x04;
    pub(super) const REQUEST_ID: u8 = 0x05;
    pub(super) const SCOPE: u8 = 0x06;
    pub(super) const BODY: u8 = 0x07;
    pub(super) const STATUS: u8 = 0x08;
    /// Tags from here on are optional: unknown ones are skipped.
    pub(super) const OPTIONAL: u8 = 0x80;
}

/// What is known of a body before it comes. Framing headers (`Content-Length`, `Transfer-Encoding`) do not cross the
/// tunnel; each edge frames afresh from this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodySize {
    /// There is no body and no length was given.
    Empty,
    /// Exactly this many bytes were announced. In an answer to HEAD: announced, but not sent.
    Known(u64),
    /// A body of unknown length follows.
    Unknown,
}

/// Request metadata, from the server to the desktop.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestHead {
    /// RFC 9110 §9.
    pub method: Method,
    /// Origin-form (RFC 9112 §3.2.1), byte for byte as the caller sent it after any prefix: path and query.
    pub target: String,
    /// End-to-end headers, without Host.
    pub headers: HeaderMap,
    /// How much of the stream's deadline is left, in whole milliseconds.
    pub deadline: Duration,
    /// The id under which both programs log this request.
    pub request_id: String,
    /// What the caller's token allows, as bits (see [`crate::policy`]): the desktop may check it again.
    pub scope: u8,
    /// What is known of the body.
    pub body: BodySize,
}

/// Response metadata, from the desktop to the server.
#[derive(Debug, Clone, PartialEq)]
pub struct ResponseHead {
    /// Status of the final response; 1xx never crosses.
    pub status: StatusCode,
    /// End-to-end headers.
    pub headers: HeaderMap,
    /// What is known of the body.
    pub body: BodySize,
}

impl RequestHead {
    /// Appends the encoded fields.
    ///
    /// # Errors
    /// [`FrameError::FieldTooLarge`]: a field does not fit in 65,535 bytes.
    pub(crate) fn encode(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        put(out, tag::METHOD, self.method.as_str().as_bytes())?;
        put(out, tag::TARGET, self.target.as_bytes())?;
        put_headers(out, &self.headers)?;
        let left = u32::try_from(self.deadline.as_millis()).unwrap_or(u32::MAX);
        put(out, tag::DEADLINE, &left.to_be_bytes())?;
        put(out, tag::REQUEST_ID, self.request_id.as_bytes())?;
        put(out, tag::SCOPE, &[self.scope])?;
        put_body(out, self.body)
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Self, FrameError> {
        let (mut method, mut target, mut deadline, mut request_id, mut scope) = (None, None, None, None, None);
        let mut headers = HeaderMap::new();
        let mut body = BodySize::Empty;
        for field in Fields(payload) {
            let (tag, value) = field?;
            match tag {
                tag::METHOD => {
                    once(&mut method, Method::from_bytes(value).map_err(|_| FrameError::BadField("method"))?)?;
                }
                tag::TARGET => once(&mut target, text(value, "target")?)?,
                tag::HEADER => get_header(&mut headers, value)?,
                tag::DEADLINE => {
                    let left = value.try_into().map_err(|_| FrameError::BadField("deadline"))?;
                    once(&mut deadline, Duration::from_millis(u32::from_be_bytes(left).into()))?;
                }
                tag::REQUEST_ID => once(&mut request_id, text(value, "request id")?)?,
                tag::SCOPE => match value {
                    [bits] => once(&mut scope, *bits)?,
                    _ => return Err(FrameError::BadField("scope")),
                },
                tag::BODY => body = get_body(value)?,
                tag::OPTIONAL.. => {}
                _ => return Err(FrameError::BadField("unknown tag")),
            }
        }
        Ok(Self {
            method: method.ok_or(FrameError::MissingField("method"))?,
            target: target.filter(|t| t.starts_with('/')).ok_or(FrameError::MissingField("target"))?,
            headers,
            deadline: deadline.ok_or(FrameError::MissingField("deadline"))?,
            request_id: request_id.unwrap_or_default(),
            scope: scope.ok_or(FrameError::MissingField("scope"))?,
            body,
        })
    }
}

impl ResponseHead {
    /// Appends the encoded fields.
    ///
    /// # Errors
    /// [`FrameError::FieldTooLarge`]: a field does not fit in 65,535 bytes.
    pub(crate) fn encode(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        put(out, tag::STATUS, &self.status.as_u16().to_be_bytes())?;
        put_headers(out, &self.headers)?;
        put_body(out, self.body)
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Self, FrameError> {
        let mut status = None;
        let mut headers = HeaderMap::new();
        let mut body = BodySize::Empty;
        for field in Fields(payload) {
            let (tag, value) = field?;
            match tag {
                tag::STATUS => {
                    let code = value.try_into().map_err(|_| FrameError::BadField("status"))?;
                    // 1xx never crosses; above 599 is no HTTP status (RFC 9110 §15).
                    let code = Some(u16::from_be_bytes(code)).filter(|c| (200..600).contains(c));
                    let code = code.and_then(|c| StatusCode::from_u16(c).ok());
                    once(&mut status, code.ok_or(FrameError::BadField("status"))?)?;
                }
                tag::HEADER => get_header(&mut headers, value)?,
                tag::BODY => body = get_body(value)?,
                tag::OPTIONAL.. => {}
                _ => return Err(FrameError::BadField("unknown tag")),
            }
        }
        Ok(Self { status: status.ok_or(FrameError::MissingField("status"))?, headers, body })
    }
}

fn put(out: &mut BytesMut, tag: u8, value: &[u8]) -> Result<(), FrameError> {
    let len = u16::try_from(value.len()).map_err(|_| FrameError::FieldTooLarge)?;
    out.put_u8(tag);
    out.put_u16(len);
    out.put_slice(value);
    Ok(())
}

fn put_headers(out: &mut BytesMut, headers: &HeaderMap) -> Result<(), FrameError> {
    for (name, value) in headers {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        let len = u16::try_from(2 + name.len() + value.len()).map_err(|_| FrameError::FieldTooLarge)?;
        out.put_u8(tag::HEADER);
        out.put_u16(len);
        out.put_u16(u16::try_from(name.len()).map_err(|_| FrameError::FieldTooLarge)?);
        out.put_slice(name);
        out.put_slice(value);
    }
    Ok(())
}

/// No field: no body. Eight bytes: its length. Zero bytes: length unknown.
fn put_body(out: &mut BytesMut, body: BodySize) -> Result<(), FrameError> {
    match body {
        BodySize::Empty => Ok(()),
        BodySize::Known(len) => put(out, tag::BODY, &len.to_be_bytes()),
        BodySize::Unknown => put(out, tag::BODY, &[]),
    }
}

fn get_body(value: &[u8]) -> Result<BodySize, FrameError> {
    match value.len() {
        0 => Ok(BodySize::Unknown),
        // Many programs count bytes with a sign (nginx among them), and take a larger length for none at all.
        8 if value[0] < 0x80 => {
            Ok(BodySize::Known(u64::from_be_bytes(value.try_into().expect("the length was checked"))))
        }
        _ => Err(FrameError::BadField("body")),
    }
}

fn get_header(headers: &mut HeaderMap, value: &[u8]) -> Result<(), FrameError> {
    const BAD: FrameError = FrameError::BadField("header");
    let (len, rest) = value.split_first_chunk().ok_or(BAD)?;
    let (name, value) = rest.split_at_checked(u16::from_be_bytes(*len).into()).ok_or(BAD)?;
    let name = HeaderName::from_bytes(name).map_err(|_| BAD)?;
    let value = HeaderValue::from_bytes(value).map_err(|_| BAD)?;
    headers.try_append(name, value).map_err(|_| BAD)?;
    Ok(())
}

fn text(value: &[u8], field: &'static str) -> Result<String, FrameError> {
    std::str::from_utf8(value).map(str::to_owned).map_err(|_| FrameError::BadField(field))
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), FrameError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(FrameError::BadField("repeated")),
    }
}

/// Splits a payload into (tag, value).
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u8, &'a [u8]), FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let Some(([tag, high, low], rest)) = self.0.split_first_chunk() else {
            self.0 = &[];
            return Some(Err(FrameError::BadField("cut short")));
        };
        let Some((value, rest)) = rest.split_at_checked(u16::from_be_bytes([*high, *low]).into()) else {
            self.0 = &[];
            return Some(Err(FrameError::BadField("cut short")));
        };
        self.0 = rest;
        Some(Ok((*tag, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> RequestHead {
        let mut headers = HeaderMap::new();
        headers.append("accept", HeaderValue::from_static("a"));
        headers.append("accept", HeaderValue::from_static("b"));
        headers.append("x-bytes", HeaderValue::from_bytes(b"\xff\xfe").unwrap());
        RequestHead {
            method: Method::POST,
            target: "/v1/models/a%2Fb?x=1".into(),
            headers,
            deadline: Duration::from_millis(29_999),
            request_id: "0198".into(),
            scope: 3,
            body: BodySize::Known(7),
        }
    }

    #[test]
    fn heads_survive_the_wire() {
        for body in [BodySize::Empty, BodySize::Known(0), BodySize::Known(u64::MAX >> 1), BodySize::Unknown] {
            let head = RequestHead { body, ..request() };
            let mut out = BytesMut::new();
            head.encode(&mut out).unwrap();
            assert_eq!(RequestHead::decode(&out).unwrap(), head);
            let head = ResponseHead { status: StatusCode::IM_A_TEAPOT, headers: head.headers, body };
            out.clear();
            head.encode(&mut out).unwrap();
            assert_eq!(ResponseHead::decode(&out).unwrap(), head);
        }
    }

    #[test]
    fn optional_fields_are_skipped_and_others_are_not() {
        let mut out = BytesMut::new();
        request().encode(&mut out).unwrap();
        put(&mut out, 0x80, b"from the future").unwrap();
        assert_eq!(RequestHead::decode(&out).unwrap(), request());
        put(&mut out, 0x7f, b"").unwrap();
        assert_eq!(RequestHead::decode(&out), Err(FrameError::BadField("unknown tag")));
    }

    #[test]
    fn t27_a_desktop_cannot_smuggle_a_line_into_a_head() {
        let field = |name: &[u8], value: &[u8]| {
            let mut inner = BytesMut::new();
            inner.put_u16(u16::try_from(name.len()).unwrap());
            inner.put_slice(name);
            inner.put_slice(value);
            let mut out = BytesMut::new();
            put(&mut out, tag::STATUS, &200_u16.to_be_bytes()).unwrap();
            put(&mut out, tag::HEADER, &inner).unwrap();
            out
        };
        assert!(ResponseHead::decode(&field(b"a", b"b")).is_ok());
        for (name, value) in [
            (&b"a"[..], &b"b\r\nset-cookie: x"[..]),
            (b"a", b"b\nc"),
            (b"a", b"\0"),
            (b"a b", b"c"),
            (b"", b"c"),
            (b"a\r\nb", b"c"),
        ] {
            assert!(ResponseHead::decode(&field(name, value)).is_err(), "{name:?}: {value:?}");
        }
        for status in [0_u16, 99, 100, 101, 199, 600, 999, 1000] {
            let mut out = BytesMut::new();
            put(&mut out, tag::STATUS, &status.to_be_bytes()).unwrap();
            assert!(ResponseHead::decode(&out).is_err(), "{status}");
        }
    }

    #[test]
    fn t27_a_length_that_others_would_take_for_none_is_refused() {
        for size in [1 << 63, u64::MAX] {
            let mut out = BytesMut::new();
            RequestHead { body: BodySize::Known(size), ..request() }.encode(&mut out).unwrap();
            assert_eq!(RequestHead::decode(&out), Err(FrameError::BadField("body")));
        }
    }

    #[test]
    fn cut_heads_are_errors() {
        let mut out = BytesMut::new();
        request().encode(&mut out).unwrap();
        // The body field is last and optional; cutting before it leaves a whole head without a body.
        let whole_without_body = out.len() - 11;
        for len in (0..out.len()).filter(|len| *len != whole_without_body) {
            assert!(RequestHead::decode(&out[..len]).is_err(), "cut at {len}");
        }
    }
}
