//! The header rules in both directions, by example and by property. Sends nothing.

use proptest::{collection::vec, prelude::*};

use super::*;

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn map(pairs: Pairs) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    headers
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

/// What [`from_desktop`] adds to each response.
const ADDED: [(&str, &str); 4] = [
    ("content-security-policy", "sandbox"),
    ("cache-control", "private"),
    ("x-content-type-options", "nosniff"),
    ("x-accel-buffering", "no"),
];

#[test]
fn t31_credentials_and_context_do_not_reach_the_desktop() {
    let dropped = [
        "host",
        "authorization",
        "cookie",
        "x-api-key",
        "proxy-authorization",
        "proxy-anything",
        "origin",
        "referer",
        "sec-fetch-site",
        "sec-ch-ua",
        "access-control-request-method",
        "content-length",
        "transfer-encoding",
        "te",
        "trailer",
        "upgrade",
        "http2-settings",
        "keep-alive",
        "connection",
        "forwarded",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-real-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "cf-ray",
        "x-original-url",
        "x-rewrite-url",
        "tunnel-deadline",
        "tunnel-name",
        "tunnel-error",
        "x-request-id",
    ];
    let pairs: Vec<_> = dropped.iter().map(|name| (*name, "x")).collect();
    assert_eq!(toward_desktop(map(&pairs)), HeaderMap::new());
}

#[test]
fn end_to_end_fields_reach_the_desktop_as_they_are() {
    let kept = map(&[
        ("accept", "a"),
        ("accept", "b"),
        ("accept-encoding", "gzip, br"),
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
        ("user-agent", ""),
        ("expect", "100-continue"),
        ("x-stainless-lang", "python"),
        ("range", "bytes=0-"),
        ("anthropic-version", "2023-06-01"),
        ("x-custom", "  1 ,2"),
        ("x-custom", "3"),
    ]);
    assert_eq!(toward_desktop(kept.clone()), kept);
    assert_eq!(values(&toward_desktop(kept), "accept"), ["a", "b"]);
}

#[test]
fn t23_connection_names_are_removed_and_cannot_protect() {
    let headers = toward_desktop(map(&[
        ("connection", "X-One , ,close,\u{9}x-two"),
        ("connection", "x-three, authorization, cookie, not a token, \"q\""),
        ("x-one", "1"),
        ("x-two", "2"),
        ("x-three", "3"),
        ("x-four", "4"),
        ("authorization", "Bearer a"),
    ]));
    assert_eq!(headers, map(&[("x-four", "4")]));
    let headers = from_desktop(map(&[("connection", "x-one, x-accel-buffering"), ("x-one", "1")]), "");
    assert_eq!(headers, map(&ADDED));
}

#[test]
fn t61_a_hostile_desktop_gains_nothing_in_our_origin() {
    let dropped = [
        "set-cookie",
        "clear-site-data",
        "strict-transport-security",
        "alt-svc",
        "refresh",
        "service-worker-allowed",
        "access-control-allow-origin",
        "access-control-allow-credentials",
        "tunnel-error",
        "x-request-id",
        "nel",
        "report-to",
        "x-accel-redirect",
        "x-accel-expires",
        "x-sendfile",
        "surrogate-control",
        "cdn-cache-control",
        "acme-cdn-cache-control",
        "transfer-encoding",
        "content-length",
        "connection",
        "keep-alive",
        "trailer",
        "proxy-authenticate",
        "upgrade",
    ];
    let pairs: Vec<_> = dropped.iter().map(|name| (*name, "x")).collect();
    assert_eq!(from_desktop(map(&pairs), ""), map(&ADDED));
}

#[test]
fn end_to_end_fields_reach_the_caller_as_they_are() {
    let kept = [
        ("content-type", "application/x-ndjson"),
        ("content-encoding", "gzip"),
        ("etag", "\"x\""),
        ("vary", "accept"),
        ("www-authenticate", "Basic realm=x"),
        ("link", "<a>"),
        ("link", "<b>"),
    ];
    let all: Vec<_> = kept.iter().chain(&ADDED).copied().collect();
    assert_eq!(from_desktop(map(&kept), ""), map(&all));
}

#[test]
fn t61_ours_join_or_replace_the_desktops() {
    let headers = from_desktop(
        map(&[
            ("content-security-policy", "default-src 'self'"),
            ("content-security-policy", "sandbox allow-scripts"),
            ("x-content-type-options", "sniff"),
            ("cache-control", "public, max-age=9"),
            ("referrer-policy", "unsafe-url"),
        ]),
        "",
    );
    let policies = ["default-src 'self'", "sandbox allow-scripts", "sandbox"];
    assert_eq!(values(&headers, "content-security-policy"), policies);
    assert_eq!(values(&headers, "x-content-type-options"), ["nosniff"]);
    assert_eq!(values(&headers, "cache-control"), ["public, max-age=9", "private"]);
    assert_eq!(values(&headers, "referrer-policy"), ["unsafe-url"]);
}

#[test]
fn t33_a_page_under_a_token_sends_no_referrer() {
    let headers = from_desktop(map(&[("referrer-policy", "unsafe-url"), ("location", "/x")]), "/t/tok");
    assert_eq!(values(&headers, "referrer-policy"), ["no-referrer"]);
    assert_eq!(values(&headers, "location"), ["/t/tok/x"]);
}

#[test]
fn t54_a_location_is_one() {
    assert!(!from_desktop(map(&[("location", "/a"), ("location", "/b")]), "").contains_key("location"));
    assert!(!from_desktop(map(&[("location", "http://localhost/")]), "").contains_key("location"));
}

/// Field names that matter to one of the lists, and some that do not.
fn names() -> impl Strategy<Value = String> {
    const KNOWN: [&str; 17] = [
        "connection",
        "authorization",
        "cookie",
        "host",
        "te",
        "x-forwarded-for",
        "tunnel-name",
        "content-length",
        "content-security-policy",
        "x-content-type-options",
        "x-accel-buffering",
        "cache-control",
        "set-cookie",
        "access-control-allow-origin",
        "referrer-policy",
        "content-type",
        "x-custom",
    ];
    prop_oneof![proptest::sample::select(&KNOWN[..]).prop_map(str::to_owned), "[a-z-]{1,12}"]
}

fn maps() -> impl Strategy<Value = HeaderMap> {
    let value = prop_oneof![vec(names(), 0..4).prop_map(|names| names.join(", ")), "[ -~]{0,12}"];
    vec((names(), value), 0..16).prop_map(|pairs| {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        map(&pairs)
    })
}

proptest! {
    #[test]
    fn t23_stripping_is_idempotent(headers in maps()) {
        let once = toward_desktop(headers.clone());
        prop_assert_eq!(toward_desktop(once.clone()), once);
        let once = from_desktop(headers, "");
        prop_assert_eq!(from_desktop(once.clone(), ""), once);
    }

    #[test]
    fn t23_connection_cannot_change_what_is_dropped_or_added(headers in maps(), options in vec(names(), 0..6)) {
        let mut named = headers;
        named.append(header::CONNECTION, options.join(",").parse().unwrap());
        for name in toward_desktop(named.clone()).keys() {
            prop_assert!(!stays_here(name.as_str()) && !options.contains(&name.as_str().to_owned()));
        }
        let sent = from_desktop(named, "/t/tok");
        for name in sent.keys() {
            prop_assert!(!stays_there(name.as_str()) || name == X_ACCEL_BUFFERING);
        }
        for (name, value) in ADDED.into_iter().chain([("referrer-policy", "no-referrer")]) {
            prop_assert!(values(&sent, name).contains(&value), "{} in {:?}", name, sent);
        }
    }

    /// What no list names crosses unchanged, each name's values in their order.
    #[test]
    fn end_to_end_fields_keep_their_values(headers in maps()) {
        let crossed = toward_desktop(headers.clone());
        let named: Vec<String> = headers.get_all("connection").iter()
            .flat_map(|value| value.to_str().unwrap().split(','))
            .map(|option| option.trim().to_lowercase()).collect();
        for name in headers.keys().map(HeaderName::as_str) {
            let dropped = stays_here(name) || named.iter().any(|option| option == name);
            let expected = if dropped { Vec::new() } else { values(&headers, name) };
            prop_assert_eq!(values(&crossed, name), expected);
        }
    }
}
