//! Which requests may be passed on at all, judged by their head.
//!
//! Owns what hyper leaves open: it accepts a missing or second Host, an authority that differs from it, userinfo, dot
//! segments in any spelling, `CONNECT`, `TRACE` and HTTP/1.0. Whatever two programs on the way could read in two ways
//! is refused here, and everything else goes on byte for byte: nothing is decoded, normalised or repaired.
//!
//! After a refusal of an HTTP/1 request the connection should be closed, since its framing may be in doubt, too.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, Method, Uri, Version, header, request::Parts, uri::Scheme};
use percent_encoding::percent_decode_str;

use crate::error::{ErrorCode, Refusal};

/// Fields in a request head; hyper's own limit on HTTP/1 is the same.
pub const MAX_FIELDS: usize = 100;
/// Bytes of a request head, as HTTP/1 would write it: a token of 8 KiB, a long path, and room for the rest.
pub const MAX_HEAD_BYTES: usize = 32 * 1024;

/// Checks a request that is to be passed on. `GET /ws/tunnel` is an Upgrade and must not come here.
pub fn check(parts: &Parts) -> Result<(), Refusal> {
    check_protocol(parts)?;
    check_size(parts)?;
    check_framing(&parts.headers)?;
    check_host(&parts.uri, &parts.headers)?;
    check_path(&parts.uri)?;
    check_expect(&parts.headers)
}

/// Versions, methods and upgrades that a relay of plain requests cannot carry (T22).
///
/// `Connection: upgrade` alone asks for nothing (RFC 9110 §7.8 needs the Upgrade field) and passes, without the field:
/// a common nginx configuration sends it with every request.
fn check_protocol(parts: &Parts) -> Result<(), Refusal> {
    if !matches!(parts.version, Version::HTTP_11 | Version::HTTP_2) {
        return Err(ErrorCode::VersionNotSupported.into());
    }
    let tunnels = parts.method == Method::CONNECT || parts.method == Method::TRACE;
    if tunnels || parts.headers.contains_key(header::UPGRADE) {
        return Err(ErrorCode::NotSupported.into());
    }
    Ok(())
}

/// T29.
fn check_size(parts: &Parts) -> Result<(), Refusal> {
    // ": " and CR LF around each field; the rest of the request line and the blank line come to about as much.
    let field = |(name, value): (&HeaderName, &http::HeaderValue)| name.as_str().len() + value.len() + 4;
    let target = parts.uri.path().len() + parts.uri.query().map_or(0, str::len);
    let bytes = parts.method.as_str().len() + target + parts.headers.iter().map(field).sum::<usize>();
    if parts.headers.len() > MAX_FIELDS || bytes > MAX_HEAD_BYTES {
        return Err(ErrorCode::HeadTooLarge.into());
    }
    Ok(())
}

/// `chunked` and nothing else (T20). hyper takes any list that ends so, and decodes only that: a body that is encoded
/// once more would go on without the field that says it, and a list is how one program is told another end of a body
/// than the next.
fn check_framing(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_known = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if is_known && codings.next().is_none() {
        return Ok(());
    }
    Err(bad("The only Transfer-Encoding understood is 'chunked', said once."))
}

/// One host, said once or twice the same (T24; RFC 9112 §3.2, RFC 9113 §8.3.1).
fn check_host(uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("There are several Host fields; send one."));
    }
    let host = host.map(|value| value.to_str().ok().and_then(HostPort::parse).ok_or_else(not_a_host)).transpose()?;
    let authority = uri.authority().map(|a| HostPort::parse(a.as_str()).ok_or_else(not_a_host)).transpose()?;
    let default_port = match uri.scheme() {
        None => None,
        Some(scheme) if *scheme == Scheme::HTTP => Some(80),
        Some(scheme) if *scheme == Scheme::HTTPS => Some(443),
        Some(_) => return Err(bad("The scheme of the request target is neither http nor https.")),
    };
    match (host, authority) {
        (None, None) => Err(bad("The Host field is missing; send one.")),
        (Some(host), Some(authority)) if !host.is(&authority, default_port) => {
            Err(bad("Host and the authority of the request target differ; send the same in both."))
        }
        _ => Ok(()),
    }
}

/// `uri-host [":" port]` (RFC 9110 §7.2).
struct HostPort<'a> {
    host: &'a str,
    port: Option<u16>,
}

impl<'a> HostPort<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        // An address in brackets has colons of its own.
        let end_of_host = text.rfind(']').map_or(0, |bracket| bracket + 1);
        let colon = text[end_of_host..].find(':').map_or(text.len(), |colon| end_of_host + colon);
        let (host, port) = text.split_at(colon);
        // RFC 3986 §3.2.2: unreserved, sub-delims, percent-encoding, and an IP literal's brackets; no '@', no '/'.
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(&b);
        if host.is_empty() || !host.bytes().all(legal) {
            return None;
        }
        // RFC 3986 §3.2.3: a port may be empty.
        let port = match port.strip_prefix(':') {
            None | Some("") => None,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok()?),
            Some(_) => return None,
        };
        Some(Self { host, port })
    }

    fn is(&self, other: &Self, default_port: Option<u16>) -> bool {
        self.host.eq_ignore_ascii_case(other.host) && self.port.or(default_port) == other.port.or(default_port)
    }
}

/// A path that every program on the way reads alike (T25).
fn check_path(uri: &Uri) -> Result<(), Refusal> {
    // Not `uri.path()`, which invents a slash where an absolute target has only a query.
    let target = uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    if target == "*" {
        return Err(bad("'OPTIONS *' asks about no resource; name a path."));
    }
    if !target.starts_with('/') {
        return Err(bad("The request target does not begin with a slash; send a path."));
    }
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    // `%2F` is data in `/v1/models/owner%2Fmodel`, but a separator to a program that decodes too early. Judged is what
    // such a program would see; what goes on is what was sent.
    let decoded: Cow<'_, [u8]> = percent_decode_str(path).into();
    if path.contains(char::is_control) || decoded.iter().any(|&b| b == b'\\' || b.is_ascii_control()) {
        return Err(bad("The path contains a backslash or a control character; remove it."));
    }
    if decoded.split(|&b| b == b'/').any(|segment| matches!(segment, b"." | b"..")) {
        return Err(bad("The path contains '.' or '..' segments; send the path that they lead to."));
    }
    Ok(())
}

/// T26; RFC 9110 §10.1.1 knows one expectation.
fn check_expect(headers: &HeaderMap) -> Result<(), Refusal> {
    let known = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if headers.get_all(header::EXPECT).iter().all(known) { Ok(()) } else { Err(ErrorCode::ExpectationFailed.into()) }
}

fn bad(message: &'static str) -> Refusal {
    Refusal::with_message(ErrorCode::BadRequest, message)
}

fn not_a_host() -> Refusal {
    bad("The host is malformed; send a name or an address and perhaps a port, without user or password.")
}

#[cfg(test)]
mod tests;
