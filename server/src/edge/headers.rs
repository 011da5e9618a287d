//! Which fields cross the tunnel, in both directions.
//!
//! Owns the lists of what is dropped and what is added; where a redirect may point is in `location`. Hop-by-hop fields
//! and those that Connection names go first and ours come last, so that no message can strip what we add (T23).
//!
//! Maps are changed in place. Values of one name keep their order; the order of different names, which means nothing
//! (RFC 9110 §5.3), may change.

mod location;
#[cfg(test)]
mod tests;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use tunnel_frame::hop::{is_hop_by_hop, strip, strip_named_by_connection};

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The fields of a request that reach the desktop. Call it after the credential, Host, Origin and `Tunnel-*` have been
/// read; Host is set again by the desktop, which alone knows its upstream. Expect crosses: its upstream decides when it
/// wants the body.
#[must_use]
pub fn toward_desktop(mut headers: HeaderMap) -> HeaderMap {
    strip_named_by_connection(&mut headers);
    strip(&mut headers, stays_here);
    headers
}

/// The fields of a response that reach the caller. `prefix` is `/t/<token>` for a request by capability URL, else
/// empty.
#[must_use]
pub fn from_desktop(mut headers: HeaderMap, prefix: &str) -> HeaderMap {
    strip_named_by_connection(&mut headers);
    strip(&mut headers, stays_there);
    location::rewrite(&mut headers, prefix);
    // A desktop's page has no script, no form and no origin: it is powerless in ours (T61). Policies add up, so one of
    // its own can stay.
    add(&mut headers, header::CONTENT_SECURITY_POLICY, "sandbox");
    // All users share one host name, and a cache does not see x-api-key as a credential (RFC 9111 §3.5; T39). The
    // strictest of several directives counts (§4.2.1).
    add(&mut headers, header::CACHE_CONTROL, "private");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // nginx in front of us must not collect a stream before it sends it.
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    if !prefix.is_empty() {
        // The token is in the address of the page (T33).
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
    headers
}

/// Request fields that end at the edge.
fn stays_here(name: &str) -> bool {
    is_hop_by_hop(name)
        || matches!(name, "host" | "x-request-id")
        || name.starts_with("tunnel-")
        || is_credential(name)
        || is_of_a_browser(name)
        || is_of_a_proxy(name)
}

/// What the caller proves itself with, to us or to others (T31).
fn is_credential(name: &str) -> bool {
    matches!(name, "authorization" | "cookie" | "cookie2" | "x-api-key")
}

/// What a browser says about the page that asks. CORS is settled at the edge; Ollama answers a foreign Origin with an
/// empty 403, and a page's address is none of the desktop's business.
fn is_of_a_browser(name: &str) -> bool {
    matches!(name, "origin" | "referer") || name.starts_with("sec-") || name.starts_with("access-control-request-")
}

/// What proxies say about the caller, true or forged (T28), and two that override the path we have judged.
fn is_of_a_proxy(name: &str) -> bool {
    matches!(
        name,
        "cdn-loop"
            | "client-ip"
            | "fastly-client-ip"
            | "fly-client-ip"
            | "forwarded"
            | "true-client-ip"
            | "via"
            | "x-client-ip"
            | "x-cluster-client-ip"
            | "x-forwarded"
            | "x-real-ip"
            | "x-rewrite-url"
    ) || ["x-forwarded-", "x-original-", "cf-"].iter().any(|prefix| name.starts_with(prefix))
}

/// Response fields that end at the edge.
fn stays_there(name: &str) -> bool {
    is_hop_by_hop(name)
        || matches!(name, "refresh" | "x-request-id")
        || name.starts_with("access-control-")
        || name.starts_with("tunnel-")
        || changes_our_origin(name)
        || commands_a_proxy(name)
}

/// What a browser would remember for our whole origin, beyond the desktop's own answer.
fn changes_our_origin(name: &str) -> bool {
    matches!(
        name,
        "accept-ch"
            | "alt-svc"
            | "clear-site-data"
            | "critical-ch"
            | "nel"
            | "report-to"
            | "reporting-endpoints"
            | "service-worker-allowed"
            | "set-cookie"
            | "set-cookie2"
            | "set-login"
            | "strict-transport-security"
            | "use-as-dictionary"
    )
}

/// What a proxy or cache in front of us would obey: serve a file of its own, or store what is private.
fn commands_a_proxy(name: &str) -> bool {
    matches!(
        name,
        "cdn-cache-control"
            | "surrogate-control"
            | "x-lighttpd-send-file"
            | "x-litespeed-location"
            | "x-reproxy-url"
            | "x-sendfile"
    ) || name.starts_with("x-accel-")
        || name.ends_with("-cdn-cache-control")
}

/// Adds a value beside those that are there, once.
fn add(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    if !headers.get_all(&name).iter().any(|present| present == value) {
        headers.append(name, HeaderValue::from_static(value));
    }
}
