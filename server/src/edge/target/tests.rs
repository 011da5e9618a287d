//! What a request may look like, by example and by property. Opens no socket.

use http::Request;
use proptest::prelude::*;

use super::*;

/// A request as hyper would hand it over.
fn parts(method: &str, target: &str, version: Version, fields: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(target).version(version);
    for &(name, value) in fields {
        request = request.header(name, value);
    }
    request.body(()).unwrap().into_parts().0
}

fn checked(parts: &Parts) -> Result<(), u16> {
    check(parts).map_err(|refusal| refusal.status().as_u16())
}

/// A request of HTTP/1.1 with a Host. What `http` cannot parse is answered by hyper itself, with a 400.
fn h1(method: &str, target: &str, fields: &[(&str, &str)]) -> Result<(), u16> {
    if target.parse::<Uri>().is_err() {
        return Err(400);
    }
    let mut all = vec![("host", "a.example")];
    all.extend(fields);
    checked(&parts(method, target, Version::HTTP_11, &all))
}

#[test]
fn ordinary_requests_pass() {
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
        assert_eq!(h1(method, "/api/chat?x=/../%00", &[("te", "trailers"), ("connection", "te")]), Ok(()));
    }
    assert_eq!(checked(&parts("GET", "https://a.example/x", Version::HTTP_2, &[])), Ok(()));
    assert_eq!(checked(&parts("GET", "/x", Version::HTTP_2, &[("host", "a.example")])), Ok(()));
}

#[test]
fn t22_tunnels_and_upgrades_are_501() {
    assert_eq!(checked(&parts("CONNECT", "a.example:443", Version::HTTP_11, &[("host", "a.example:443")])), Err(501));
    assert_eq!(checked(&parts("CONNECT", "a.example:443", Version::HTTP_2, &[])), Err(501));
    assert_eq!(h1("TRACE", "/", &[]), Err(501));
    assert_eq!(h1("GET", "/", &[("connection", "Upgrade"), ("upgrade", "websocket")]), Err(501));
    let h2c = [("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "")];
    assert_eq!(h1("GET", "/", &h2c), Err(501));
    assert_eq!(h1("GET", "/", &[("upgrade", "foo")]), Err(501));
    assert_eq!(h1("GET", "/", &[("connection", "upgrade")]), Ok(()), "nginx sends it by habit");
}

#[test]
fn old_versions_are_505() {
    for version in [Version::HTTP_09, Version::HTTP_10] {
        assert_eq!(checked(&parts("GET", "/", version, &[("host", "a.example")])), Err(505));
    }
}

#[test]
fn t20_chunked_is_said_once_or_not_at_all() {
    for codings in [&["chunked"][..], &["Chunked"], &[]] {
        let fields: Vec<_> = codings.iter().map(|coding| ("transfer-encoding", *coding)).collect();
        assert_eq!(h1("POST", "/", &fields), Ok(()), "{codings:?}");
    }
    for codings in [
        &["gzip, chunked"][..],
        &["chunked, chunked"],
        &["chunked", "chunked"],
        &["identity", "chunked"],
        &[",chunked"],
        &[""],
    ] {
        let fields: Vec<_> = codings.iter().map(|coding| ("transfer-encoding", *coding)).collect();
        assert_eq!(h1("POST", "/", &fields), Err(400), "{codings:?}");
    }
}

#[test]
fn t24_the_host_is_one() {
    let absolute = |target: &str, host: &str| checked(&parts("GET", target, Version::HTTP_11, &[("host", host)]));
    assert_eq!(checked(&parts("GET", "/", Version::HTTP_11, &[])), Err(400));
    assert_eq!(h1("GET", "/", &[("host", "a.example")]), Err(400), "twice");
    assert_eq!(absolute("http://a.example/", "A.Example"), Ok(()));
    assert_eq!(absolute("http://a.example:80/", "a.example"), Ok(()));
    assert_eq!(absolute("https://a.example/", "a.example:443"), Ok(()));
    assert_eq!(absolute("http://[::1]:8080/", "[::1]:8080"), Ok(()));
    assert_eq!(absolute("http://a.example/", "b.example"), Err(400));
    assert_eq!(absolute("http://a.example:81/", "a.example"), Err(400));
    assert_eq!(absolute("http://u:p@a.example/", "a.example"), Err(400));
    assert_eq!(absolute("ftp://a.example/", "a.example"), Err(400));
    assert_eq!(checked(&parts("GET", "https://a.example/", Version::HTTP_2, &[("host", "b.example")])), Err(400));
    assert_eq!(checked(&parts("GET", "https://u@a.example/", Version::HTTP_2, &[])), Err(400));
    assert_eq!(checked(&parts("GET", "http://a.example/", Version::HTTP_11, &[])), Ok(()), "said once is enough");
}

#[test]
fn t24_the_host_is_a_host() {
    let host = |host: &str| checked(&parts("GET", "/", Version::HTTP_11, &[("host", host)]));
    for good in ["a", "a.example:8443", "127.0.0.1", "[::1]", "[fe80::1%25eth0]:1", "a.example:", "under_score"] {
        assert_eq!(host(good), Ok(()), "{good}");
    }
    for odd in ["", ":80", "u@a", "u:p@a", "a/b", "a?b", "a b", "a:b", "a:80:80", "a:99999", "a\\b", "a#b", "[::1]x@b"]
    {
        assert_eq!(host(odd), Err(400), "{odd}");
    }
}

#[test]
fn t25_ambiguous_paths_are_400() {
    for path in [
        "/..",
        "/../x",
        "/a/./b",
        "/a/..",
        "/%2e%2e/x",
        "/%2E./x",
        "/.%2e",
        "/%2e",
        "/a/..%2fb",
        "/a%2f..%2Fb",
        "/a/%2e%2e%2fb",
        "/v1/models/..%2F..%2Fapi%2Fdelete",
        "/a\\b",
        "/a%5cb",
        "/..%5c..",
        "/a%00",
        "/a%0d%0ab",
        "/a%1F",
        "/a%7f",
        "/a\u{7f}b",
        "/a\u{85}b",
        "/t/token/../x",
    ] {
        assert_eq!(h1("GET", path, &[]), Err(400), "{path:?}");
    }
}

#[test]
fn t25_odd_but_clear_paths_pass() {
    for path in [
        "/v1/models/owner%2Fmodel%3A3b",
        "//a//b/",
        "/...",
        "/a..b/..c/d..",
        "/.well-known/x",
        "/%252e%252e/",
        "/%",
        "/%zz/%2",
        "/caf\u{e9}/%C3%A9",
        "/{\"a\":1}",
        "/a;b=1,c@d:e!$&'()*+~|^[]",
        "/?/../..",
        "/t/token/api/chat",
    ] {
        assert_eq!(h1("GET", path, &[]), Ok(()), "{path:?}");
    }
}

#[test]
fn t25_targets_without_a_path_are_400() {
    assert_eq!(h1("OPTIONS", "*", &[]), Err(400));
    assert_eq!(h1("GET", "a.example:80", &[]), Err(400));
    assert_eq!(h1("GET", "http://a.example?x", &[]), Err(400));
    assert_eq!(h1("GET", "http://a.example", &[]), Ok(()));
}

#[test]
fn t26_only_one_expectation_is_known() {
    assert_eq!(h1("PUT", "/", &[("expect", "100-Continue")]), Ok(()));
    for expect in ["", "200-ok", "100-continue, x", "100-continue=1"] {
        assert_eq!(h1("PUT", "/", &[("expect", expect)]), Err(417), "{expect}");
    }
    assert_eq!(h1("PUT", "/", &[("expect", "100-continue"), ("expect", "x")]), Err(417));
}

#[test]
fn t29_heads_are_bounded() {
    let many = |count: usize| vec![("x", ""); count - 1];
    assert_eq!(h1("GET", "/", &many(MAX_FIELDS)), Ok(()));
    assert_eq!(h1("GET", "/", &many(MAX_FIELDS + 1)), Err(431));
    let long = "x".repeat(MAX_HEAD_BYTES - 100);
    assert_eq!(h1("GET", "/", &[("x", &long)]), Ok(()));
    assert_eq!(h1("GET", "/", &[("x", &long), ("y", &"y".repeat(100))]), Err(431));
    assert_eq!(h1("GET", &format!("/{long}?{}", "q".repeat(100)), &[]), Err(431));
    assert_eq!(h1(&"M".repeat(MAX_HEAD_BYTES), "/", &[]), Err(431));
}

proptest! {
    /// No accepted path changes when a program on the way decodes it once and removes its dot segments.
    #[test]
    fn t25_an_accepted_path_has_no_dot_segments(path in "/([a./%]|%2[eEfF]|%5[cC]|%0[0aA]){0,12}") {
        let Ok(uri) = path.parse::<Uri>() else { return Ok(()) };
        if check_path(&uri).is_ok() {
            let decoded = path.to_lowercase().replace("%2e", ".").replace("%2f", "/");
            prop_assert!(!decoded.split('/').any(|segment| matches!(segment, "." | "..")), "{}", decoded);
            prop_assert!(!decoded.contains("%5c") && !decoded.contains("%0"));
        }
    }

    #[test]
    fn t24_a_host_never_has_userinfo(host in "[a-z0-9.:@\\[\\]%-]{0,16}") {
        prop_assert!(!host.contains('@') || HostPort::parse(&host).is_none());
    }
}
