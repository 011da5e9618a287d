//! Capability URLs: the same proxy with the token in the path, for programs that know a base URL and nothing else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use http::{HeaderValue, Method};
use integration_tests::{
    body,
    caller::{Caller, Protocol, Reply},
    jwt::{claims, hs256, seconds, with},
    ollama::WORDS,
    raw::RawUpstream,
    setup::{ALICE, Setup, World},
};
use serde_json::json;

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

fn token_of(scope: &str) -> String {
    hs256(&with(claims(ALICE), &json!({"scope": scope})))
}

/// A caller with no credential but the one in the path, and that path's prefix.
fn bare(world: &World) -> (Caller, String) {
    (world.caller().anonymous(), format!("/t/{}", token_of("tunnel:proxy")))
}

async fn send(caller: &Caller, protocol: Protocol, method: Method, target: &str) -> Reply {
    let request = caller.request(method, target, body::empty());
    caller.connect(protocol).await.send(request).await
}

#[tokio::test]
async fn the_path_after_the_prefix_is_the_path() {
    let world = Setup::new().start().await;
    let (caller, prefix) = bare(&world);
    for (after, expected) in [
        ("", "/"),
        ("/", "/"),
        ("/echo", "/echo"),
        ("/echo/a%2Fb%2fc//d/?x=1&y=%26", "/echo/a%2Fb%2fc//d/?x=1&y=%26"),
        ("//echo", "//echo"),
        ("?x=1", "/?x=1"),
        ("/?x=1", "/?x=1"),
        ("/t/echo", "/t/echo"),
    ] {
        for protocol in PROTOCOLS {
            let reply = send(&caller, protocol, Method::GET, &format!("{prefix}{after}")).await;
            assert_eq!(reply.header("tunnel-error"), "", "{after:?} over {protocol:?}");
            assert_eq!(world.ollama().received().pop().unwrap().target, expected, "{after:?} over {protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_model_streams_through_it() {
    let world = Setup::new().start().await;
    let (caller, prefix) = (world.caller().anonymous(), format!("/t/{}", token_of("tunnel:infer")));
    let asked = body::full(json!({"model": "m", "stream": true}).to_string());
    let text = caller.post(&format!("{prefix}/v1/chat/completions"), asked).await.text().await;
    assert!(text.ends_with("data: [DONE]\n\n") && text.contains(WORDS[1]), "{text}");
    assert!(!text.contains(&prefix));
}

#[tokio::test]
async fn head_is_always_200_for_a_good_token() {
    let offline = Setup::new().without_desktop().start().await;
    let online = Setup::new().start().await;
    for world in [&offline, &online] {
        for scope in ["tunnel:infer", "tunnel:proxy"] {
            let prefix = format!("/t/{}", token_of(scope));
            for protocol in PROTOCOLS {
                for after in ["/", ""] {
                    let caller = world.caller().anonymous();
                    let reply = send(&caller, protocol, Method::HEAD, &format!("{prefix}{after}")).await;
                    assert_eq!(reply.status(), 200, "{after:?} with {scope} over {protocol:?}");
                    assert_eq!(reply.text().await, "");
                }
            }
        }
    }
    let (caller, prefix) = bare(&offline);
    assert_eq!(send(&caller, Protocol::Http1, Method::GET, &prefix).await.error(), (503, "tunnel_offline"));
    let expired = hs256(&with(claims(ALICE), &json!({"scope": "tunnel:infer", "exp": seconds(-100)})));
    for token in ["x", "x.y.z", &expired, &hs256(&claims(ALICE))] {
        let reply = send(&caller, Protocol::Http1, Method::HEAD, &format!("/t/{token}/")).await;
        assert_eq!(reply.status(), 403, "{token}");
    }
}

#[tokio::test]
async fn a_bad_token_in_a_path_is_403_and_never_401() {
    let world = Setup::new().start().await;
    let caller = world.caller();
    let (_, good) = bare(&world);
    for prefix in ["/t/x", "/t/a.b.c", &format!("{good}x"), &good[..good.len() - 5], &good.replacen("/t/", "/t/%", 1)] {
        for path in ["/api/version", "/", "", "/api/tunnel/status"] {
            // The good token in Authorization is no second chance.
            let reply = caller.get(&format!("{prefix}{path}")).await;
            assert_eq!(reply.status(), 403, "{path}");
            assert_eq!(reply.header("www-authenticate"), "");
        }
    }
    for path in ["/t/", "/t//api/version", "/t//"] {
        let reply = world.caller().anonymous().get(path).await;
        assert!(reply.status().is_client_error(), "{path}: {}", reply.status());
    }
    assert_eq!(world.ollama().received().len(), 0);
}

#[tokio::test]
async fn only_the_status_is_ours() {
    let world = Setup::new().start().await;
    let (caller, prefix) = bare(&world);
    let status = caller.get(&format!("{prefix}/api/tunnel/status")).await.json().await;
    assert_eq!((&status["user"], &status["connected"]), (&json!(ALICE), &json!(true)));
    assert_eq!(world.ollama().received().len(), 0);
    for path in ["/healthz", "/readyz", "/api/tunnel/health", "/ws/tunnel", "/app/", "/api/tunnel/status/"] {
        let reply = caller.get(&format!("{prefix}{path}")).await;
        assert_eq!(reply.header("tunnel-error"), "", "{path}");
        assert_eq!(world.ollama().received().pop().map(|head| head.target).as_deref(), Some(path));
    }
}

#[tokio::test]
async fn t25_dot_segments_do_not_leave_the_prefix() {
    let world = Setup::new().start().await;
    let (caller, prefix) = bare(&world);
    for after in ["/../t/x/api/version", "/..", "/%2e%2e/healthz", "/api/..%2f..%2f..", "/a/%2E./b", "/.%2e%5cx"] {
        let reply = caller.get(&format!("{prefix}{after}")).await;
        assert_eq!(reply.error(), (400, "bad_request"), "{after}");
    }
    assert_eq!(world.ollama().received().len(), 0);
}

/// The `Location` that a caller sees of the one that an upstream sent.
async fn location(world: &World, upstream: &mut RawUpstream, prefix: &str, location: &str) -> Option<String> {
    let caller = if prefix.is_empty() { world.caller() } else { world.caller().anonymous() };
    let answer = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
    let target = format!("{prefix}/here");
    let (reply, _open) = tokio::join!(caller.get(&target), upstream.answer_once(answer.as_bytes()));
    assert_eq!(reply.status(), 302);
    reply.headers().get("location").map(|value| value.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_location_keeps_the_prefix() {
    let mut upstream = RawUpstream::start().await;
    let world = Setup::new().upstream(upstream.addr()).start().await;
    let (_, prefix) = bare(&world);
    let ours = format!("http://{}", upstream.addr());
    for prefix in ["", prefix.as_str()] {
        for (sent, expected) in [
            ("/elsewhere?x=1".to_owned(), Some(format!("{prefix}/elsewhere?x=1"))),
            (format!("{ours}/there"), Some(format!("{prefix}/there"))),
            ("https://example.com/x".to_owned(), Some("https://example.com/x".to_owned())),
            ("http://127.0.0.1:1/secret".to_owned(), None),
            ("http://localhost:9999/".to_owned(), None),
            ("http://[::1]:80/".to_owned(), None),
            ("http://127.9.9.9/".to_owned(), None),
        ] {
            assert_eq!(location(&world, &mut upstream, prefix, &sent).await, expected, "{sent} under {prefix:?}");
        }
    }
}

#[tokio::test]
async fn t33_a_token_in_a_path_is_in_no_referer() {
    let world = Setup::new().start().await;
    let (caller, prefix) = bare(&world);
    for path in ["/", "/api/version", "/api/tunnel/status", "/status/404", "/a/../b"] {
        let reply = caller.get(&format!("{prefix}{path}")).await;
        assert_eq!(reply.header("referrer-policy"), "no-referrer", "{path}");
    }
    let refused = caller.get("/t/a.b.c/api/version").await;
    assert_eq!(refused.header("referrer-policy"), "no-referrer");
    for received in world.ollama().received() {
        let all = format!("{received:?}");
        assert!(!all.contains(&prefix[3..]), "the token reached the upstream");
    }
}

#[tokio::test]
async fn t33_a_hostile_desktop_cannot_loosen_it() {
    let mut upstream = RawUpstream::start().await;
    let world = Setup::new().upstream(upstream.addr()).start().await;
    let (caller, prefix) = bare(&world);
    let target = format!("{prefix}/page");
    let answer = "HTTP/1.1 200 OK\r\nReferrer-Policy: unsafe-url\r\nContent-Security-Policy: default-src *\r\n\
        X-Content-Type-Options: none\r\nContent-Length: 0\r\n\r\n";
    let (reply, _open) = tokio::join!(caller.get(&target), upstream.answer_once(answer.as_bytes()));
    let all = |name: &str| {
        let values = reply.headers().get_all(name).iter();
        values.map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(all("referrer-policy"), ["no-referrer"]);
    assert_eq!(all("x-content-type-options"), ["nosniff"]);
    // Several policies all hold: one of them must be the sandbox, without any allowance.
    assert!(all("content-security-policy").iter().any(|policy| policy.trim() == "sandbox"), "{reply:?}");
}

#[tokio::test]
async fn a_referer_of_the_caller_stays_here() {
    let world = Setup::new().start().await;
    let (caller, prefix) = bare(&world);
    let mut request = caller.request(Method::GET, &format!("{prefix}/echo"), body::empty());
    let referer = HeaderValue::from_str(&format!("{}{prefix}/page", world.url())).unwrap();
    request.headers_mut().insert("referer", referer);
    assert_eq!(caller.send(request).await.status(), 200);
    assert!(!world.ollama().received()[0].headers.contains_key("referer"));
}

#[tokio::test]
async fn t59_no_page_runs_or_is_styled_by_what_a_desktop_answers() {
    let world = Setup::new().start().await;
    let (caller, prefix) = bare(&world);
    let get = async |caller: &Caller, target: &str, wanted_for: &str| {
        let mut request = caller.request(Method::GET, target, body::empty());
        request.headers_mut().insert("sec-fetch-dest", HeaderValue::from_str(wanted_for).unwrap());
        caller.send(request).await
    };
    let path = format!("{prefix}/api/version");
    for part in
        ["script", "worker", "sharedworker", "serviceworker", "style", "audioworklet", "paintworklet", "xslt", "json"]
    {
        assert_eq!(get(&caller, &path, part).await.error(), (403, "not_allowed"), "{part}");
    }
    assert_eq!(world.ollama().received().len(), 0);
    // What a person opens is in a sandbox, and what a script reads is data.
    for good in ["empty", "document", "image"] {
        let reply = get(&caller, &path, good).await;
        assert_eq!((reply.status().as_u16(), reply.header("content-security-policy")), (200, "sandbox"), "{good}");
    }
    // Only who has a header for the token asks like that: no page's element.
    assert_eq!(get(&world.caller(), "/api/version", "script").await.status(), 200);
}
