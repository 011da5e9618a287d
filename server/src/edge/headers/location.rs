//! Where a redirect of the desktop may point.
//!
//! Owns the rule for Location on the server: a path gets the caller's prefix, and an address that only means something
//! on the desktop is dropped. That a Location names the upstream only the desktop can tell: it has reduced such a one
//! to its path before this.

use http::{HeaderMap, HeaderValue, header};
use url::{Host, Url};

/// Applies the rule. A second Location makes the first ambiguous, and both are dropped.
pub(super) fn rewrite(headers: &mut HeaderMap, prefix: &str) {
    let mut values = headers.get_all(header::LOCATION).iter();
    let Some(location) = values.next() else { return };
    let rewritten = if values.next().is_some() { None } else { rewritten(location, prefix) };
    match rewritten {
        Some(location) => _ = headers.insert(header::LOCATION, location),
        None => _ = headers.remove(header::LOCATION),
    }
}

fn rewritten(location: &HeaderValue, prefix: &str) -> Option<HeaderValue> {
    let bytes = location.as_bytes();
    // Path-absolute (RFC 3986 §4.2). Browsers drop tabs and read a backslash as a slash: two slashes begin an
    // authority.
    let mut start = bytes.iter().filter(|b| **b != b'\t');
    if start.next() == Some(&b'/') && !matches!(start.next(), Some(b'/' | b'\\')) {
        return match prefix {
            "" => Some(location.clone()),
            _ => HeaderValue::from_bytes(&[prefix.as_bytes(), bytes].concat()).ok(),
        };
    }
    let text = str::from_utf8(bytes).ok()?;
    // Read as a browser would, which knows many spellings of 127.0.0.1. Relative ones stay relative; `http:/x` is one
    // only on a page of the same scheme, and how the caller reached us is not known here.
    for page in ["http://tunnel.invalid/", "https://tunnel.invalid/"] {
        let target = Url::parse(page).ok()?.join(text).ok()?;
        if is_of_the_desktop(&target.host()?) {
            return None;
        }
    }
    Some(location.clone())
}

/// Loopback, by address or by name (RFC 6761 §6.3), and the unspecified address, which connects to it.
fn is_of_the_desktop(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
        Host::Ipv4(address) => address.is_loopback() || address.is_unspecified(),
        Host::Ipv6(address) => address.to_ipv4_mapped().map_or_else(
            || address.is_loopback() || address.is_unspecified(),
            |address| address.is_loopback() || address.is_unspecified(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(value: &str, prefix: &str) -> Option<String> {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        rewritten(&value, prefix).map(|value| String::from_utf8(value.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn t54_a_path_gets_the_prefix() {
        assert_eq!(location("/x?y=/z", "/t/tok").unwrap(), "/t/tok/x?y=/z");
        assert_eq!(location("/", "/t/tok").unwrap(), "/t/tok/");
        assert_eq!(location("/x", "").unwrap(), "/x");
        assert_eq!(location("/caf\u{e9}", "/t/tok").unwrap(), "/t/tok/caf\u{e9}");
    }

    #[test]
    fn t54_other_places_stay() {
        for value in [
            "https://a.example/x",
            "//a.example/x",
            "x/y",
            "../x",
            "?x",
            "",
            "http://127.example/",
            "https://a.example/\u{e9}",
        ] {
            assert_eq!(location(value, "/t/tok").as_deref(), Some(value));
        }
    }

    #[test]
    fn t54_loopback_is_dropped() {
        for value in [
            "http://127.0.0.1:11434/x",
            "https://127.1/",
            "http://0x7f.0.0.1/",
            "http://2130706433/",
            "http://localhost/",
            "http://LocalHost.:80/",
            "http://ollama.localhost/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://0.0.0.0:11434/",
            "http://[::]/",
            "//localhost/x",
            "/\\localhost/x",
            "/\t/localhost/x",
            "\t/\t\\localhost/x",
            "\\\\localhost/x",
            "http:\\\\localhost",
            "http:/localhost/x",
            "https:localhost",
            "http://u:p@127.0.0.1/",
            "javascript:alert(1)",
            "http://[",
        ] {
            assert_eq!(location(value, "/t/tok"), None, "{value}");
        }
    }
}
