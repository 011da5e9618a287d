//! How an input is taken apart: choices and pieces from its front, text in lines.
//!
//! Inputs stay readable where what they stand for is text, so that corpora can be written and read by people.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Version, request::Parts};

/// An input, read front to back. Where it is used up there are zeros, and nothing.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// One byte, to choose by.
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Up to the next line feed, which is left out.
    pub(crate) fn line(&mut self) -> &'a [u8] {
        let mut halves = self.0.splitn(2, |&b| b == b'\n');
        let line = halves.next().unwrap_or_default();
        self.0 = halves.next().unwrap_or_default();
        line
    }

    /// The same, if it is UTF-8.
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        str::from_utf8(self.line()).ok()
    }

    /// All that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// All that is left, as lines of `name: value`. Lines that are no fields are skipped.
    pub(crate) fn fields(self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in self.0.split(|&b| b == b'\n') {
            let Some(colon) = line.iter().position(|&b| b == b':') else { continue };
            let (name, value) = line.split_at(colon);
            let value = value[1..].strip_prefix(b" ").unwrap_or(&value[1..]);
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                headers.append(name, value);
            }
        }
        headers
    }

    /// All that is left, as `METHOD target version` and fields below it, if that is a head that `http` can hold.
    pub(crate) fn head(mut self) -> Option<Parts> {
        let mut words = self.line().splitn(3, |&b| b == b' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next().unwrap_or_default());
        let version = match version {
            b"0" => Version::HTTP_10,
            b"2" => Version::HTTP_2,
            b"3" => Version::HTTP_3,
            _ => Version::HTTP_11,
        };
        let mut parts = Request::builder().method(method).uri(target).version(version).body(()).ok()?.into_parts().0;
        parts.headers = self.fields();
        Some(parts)
    }
}

/// `bytes` in pieces: `how` = 0 whole, 1 one by one, else of lengths up to `how` that follow from it alone.
pub(crate) fn pieces(bytes: &Bytes, how: u8) -> Vec<Bytes> {
    let mut left = bytes.clone();
    let mut state = u32::from(how) | 0x9e37_0000;
    let mut pieces = Vec::new();
    while !left.is_empty() {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let length = match how {
            0 => left.len(),
            1 => 1,
            how => 1 + state as usize % usize::from(how),
        };
        pieces.push(left.split_to(length.min(left.len())));
    }
    pieces
}
