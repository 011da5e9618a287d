//! Header fields in both directions, and where a redirect may point.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use tunneld::edge::headers::{from_desktop, toward_desktop};
use url::{Host, Url};

use crate::input::Input;

/// Fields of which none may reach a desktop: hop-by-hop, credentials, and what says who and where the caller is.
const NOT_UP: [&str; 22] = [
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-authorization",
    "proxy-connection",
    "host",
    "x-request-id",
    "authorization",
    "cookie",
    "x-api-key",
    "origin",
    "referer",
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-real-ip",
    "sec-fetch-site",
];

/// Fields of which none may come from a desktop.
const NOT_DOWN: [&str; 21] = [
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-authenticate",
    "set-cookie",
    "clear-site-data",
    "strict-transport-security",
    "alt-svc",
    "refresh",
    "service-worker-allowed",
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "x-accel-redirect",
    "x-sendfile",
    "x-request-id",
    "report-to",
];

/// Fields of ours that stand in each answer of a desktop, whatever it sent.
const OURS: [(&str, &str); 4] = [
    ("content-security-policy", "sandbox"),
    ("cache-control", "private"),
    ("x-content-type-options", "nosniff"),
    ("x-accel-buffering", "no"),
];

/// Fields in lines; the first byte says whether the request came by a capability URL.
///
/// What ends here does not cross, what is ours is there and cannot be taken away, all else crosses in its order, and
/// doing it again changes nothing (T23, T28, T31, T61).
pub fn headers(data: &[u8]) {
    let mut input = Input::new(data);
    let prefix = if input.byte().is_multiple_of(2) { "" } else { "/t/token" };
    let sent = input.fields();
    let named = named_by_connection(&sent);

    let up = toward_desktop(sent.clone());
    for name in NOT_UP {
        assert!(!up.contains_key(name), "{name} reaches the desktop");
    }
    for name in up.keys() {
        assert!(!name.as_str().starts_with("tunnel-") && !name.as_str().starts_with("proxy-"), "{name}");
        assert!(!named.contains(name), "Connection named {name}");
        assert!(sent.get_all(name).iter().eq(up.get_all(name)), "{name} is changed");
    }
    for plain in ["accept", "content-type", "range", "expect", "x-stainless-lang"] {
        assert!(
            up.contains_key(plain) || !sent.contains_key(plain) || named.iter().any(|name| name == plain),
            "{plain}"
        );
    }
    assert_eq!(toward_desktop(up.clone()), up, "not idempotent");

    let down = from_desktop(sent.clone(), prefix);
    for name in NOT_DOWN {
        assert!(!down.contains_key(name), "{name} comes from the desktop");
    }
    for (name, value) in OURS {
        assert!(down.get_all(name).iter().any(|have| have == value), "{name} was taken away");
    }
    for name in ["x-content-type-options", "x-accel-buffering"] {
        assert_eq!(down.get_all(name).iter().count(), 1, "{name} is contradicted");
    }
    assert!(prefix.is_empty() || down["referrer-policy"] == "no-referrer");
    for name in down.keys() {
        let name = name.as_str();
        assert!(!name.starts_with("tunnel-") && !name.starts_with("access-control-"), "{name}");
    }
    for plain in ["content-type", "etag", "content-encoding", "vary"] {
        assert!(
            sent.get_all(plain).iter().eq(down.get_all(plain)) || named.iter().any(|name| name == plain),
            "{plain} is changed"
        );
    }
    if !down.contains_key(header::LOCATION) {
        assert_eq!(from_desktop(down.clone(), prefix), down, "not idempotent");
    }
}

/// What the fields of Connection name, token by token.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values: Vec<u8> =
        headers.get_all(header::CONNECTION).iter().flat_map(|value| [value.as_bytes(), b","].concat()).collect();
    values.split(|&b| b == b',').filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect()
}

/// One value of `Location`; the first byte says whether the request came by a capability URL.
///
/// Read as a browser reads it, it points to no loopback address; a path gets the prefix, other places stay (T54).
pub fn location(data: &[u8]) {
    let mut input = Input::new(data);
    let prefix = if input.byte().is_multiple_of(2) { "" } else { "/t/token" };
    let Ok(sent) = HeaderValue::from_bytes(input.rest()) else { return };
    let down = from_desktop(HeaderMap::from_iter([(header::LOCATION, sent.clone())]), prefix);
    let Some(location) = down.get(header::LOCATION) else { return };
    assert_eq!(down.get_all(header::LOCATION).iter().count(), 1);
    for scheme in ["http", "https"] {
        let base = Url::parse(&format!("{scheme}://server.example{prefix}/api/chat")).expect("a URL");
        let text = String::from_utf8_lossy(location.as_bytes());
        let Ok(target) = base.join(&text) else { return };
        not_loopback(&target);
        let here = target.host_str() == Some("server.example");
        if *location != sent {
            let prefixed = [prefix.as_bytes(), sent.as_bytes()].concat();
            assert_eq!(prefixed, location.as_bytes(), "neither prefixed nor as it was");
            assert!(here, "a path became another place: {text:?}");
        } else if !prefix.is_empty() && sent.as_bytes().starts_with(b"/") {
            assert!(!here, "a path without its prefix: {text:?}");
        }
    }
}

fn not_loopback(target: &Url) {
    let loopback = |address: IpAddr| address.to_canonical().is_loopback() || address.to_canonical().is_unspecified();
    match target.host().expect("a host") {
        Host::Domain(name) => {
            let name = name.trim_end_matches('.');
            assert!(name != "localhost" && !name.ends_with(".localhost"), "{target}");
        }
        Host::Ipv4(address) => assert!(!loopback(address.into()), "{target}"),
        Host::Ipv6(address) => assert!(!loopback(address.into()), "{target}"),
    }
}
