//! Web pages: an exact list of origins, preflights before authentication, nothing for anybody else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use http::{HeaderValue, Method};
use integration_tests::{
    body,
    caller::{Caller, Protocol, Reply},
    jwt::{claims, hs256, with},
    raw::RawUpstream,
    setup::{ALICE, Setup, World},
};
use serde_json::json;

const LISTED: &str = "https://app.example.com";

const OTHERS: [&str; 9] = [
    "https://evil.example",
    "https://app.example.com.evil.example",
    "https://evil-app.example.com",
    "https://xapp.example.com",
    "http://app.example.com",
    "https://app.example.com:444",
    "https://app.example.com/",
    "null",
    "*",
];

async fn with_origins(origins: &'static [&str]) -> World {
    Setup::new().server(|config| config.cors_origins = origins.iter().map(|&o| o.to_owned()).collect()).start().await
}

async fn send(caller: &Caller, method: Method, path: &str, fields: &[(&'static str, &str)]) -> Reply {
    send_over(Protocol::Http1, caller, method, path, fields).await
}

async fn send_over(
    protocol: Protocol,
    caller: &Caller,
    method: Method,
    path: &str,
    fields: &[(&'static str, &str)],
) -> Reply {
    let mut request = caller.request(method, path, body::empty());
    for (name, value) in fields {
        request.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
    }
    caller.connect(protocol).await.send(request).await
}

/// The members of a list in a header field, in lower case.
fn list(reply: &Reply, name: &str) -> Vec<String> {
    let values = reply.headers().get_all(name).iter().flat_map(|value| value.to_str().unwrap().split(','));
    values.map(|member| member.trim().to_ascii_lowercase()).collect()
}

fn preflight<'a>(origin: &'a str, method: &'a str, headers: &'a str) -> [(&'static str, &'a str); 3] {
    [("origin", origin), ("access-control-request-method", method), ("access-control-request-headers", headers)]
}

/// Nothing in the reply lets a page of another origin read it.
fn closed(reply: &Reply, what: &str) {
    for name in reply.headers().keys() {
        assert!(!name.as_str().starts_with("access-control-allow-"), "{what}: {name} = {:?}", reply.headers()[name]);
    }
}

#[tokio::test]
async fn t58_a_preflight_is_answered_before_authentication() {
    let world = with_origins(&["https://other.example", LISTED]).await;
    let anonymous = world.caller().anonymous();
    let in_path = format!("/t/{}/v1/chat/completions", hs256(&with(claims(ALICE), &json!({"scope": "tunnel:infer"}))));
    for path in ["/api/chat", "/v1/chat/completions", "/", in_path.as_str(), "/t/a.b.c/api/chat"] {
        for method in ["POST", "GET", "DELETE", "PUT"] {
            for protocol in [Protocol::Http1, Protocol::Http2] {
                let asked = preflight(LISTED, method, "authorization,content-type,x-stainless-lang");
                let reply = send_over(protocol, &anonymous, Method::OPTIONS, path, &asked).await;
                assert!(reply.status().is_success(), "{method} {path}: {}", reply.status());
                assert_eq!(reply.header("access-control-allow-origin"), LISTED);
                let methods = list(&reply, "access-control-allow-methods");
                assert!(methods.contains(&method.to_ascii_lowercase()), "{method} not in {methods:?}");
                let fields = list(&reply, "access-control-allow-headers");
                for field in ["authorization", "content-type", "x-stainless-lang"] {
                    assert!(fields.iter().any(|allowed| allowed == field), "{field} not in {fields:?}");
                }
                assert!(!reply.headers().contains_key("access-control-allow-credentials"));
                assert!(list(&reply, "vary").contains(&"origin".to_owned()));
                assert_eq!(reply.text().await, "");
            }
        }
    }
    assert_eq!(world.ollama().received().len(), 0);
}

#[tokio::test]
async fn t57_other_origins_get_nothing() {
    let world = with_origins(&[LISTED]).await;
    for origin in OTHERS {
        for caller in [world.caller(), world.caller().anonymous()] {
            let asked = preflight(origin, "POST", "authorization");
            closed(&send(&caller, Method::OPTIONS, "/api/chat", &asked).await, origin);
            closed(&send(&caller, Method::GET, "/echo", &[("origin", origin)]).await, origin);
            closed(&send(&caller, Method::GET, "/api/tunnel/status", &[("origin", origin)]).await, origin);
        }
    }
}

#[tokio::test]
async fn a_page_that_may_not_call_is_told_so_and_not_asked_for_a_token() {
    for world in [with_origins(&[LISTED]).await, Setup::new().start().await] {
        let asked = preflight(OTHERS[0], "POST", "authorization");
        let reply = send(&world.caller().anonymous(), Method::OPTIONS, "/v1/chat/completions", &asked).await;
        assert_eq!(reply.error(), (403, "not_allowed"));
        let said = reply.text().await;
        assert!(said.contains("--cors-origin") && !said.contains(OTHERS[0]), "{said}");
    }
}

#[tokio::test]
async fn t57_two_origins_are_none() {
    let world = with_origins(&[LISTED]).await;
    let reply = send(&world.caller(), Method::GET, "/echo", &[("origin", LISTED), ("origin", OTHERS[0])]).await;
    closed(&reply, "two origins");
}

#[tokio::test]
async fn without_a_list_nobody_is_let_in() {
    let world = Setup::new().start().await;
    for origin in [LISTED, "null", "*"] {
        let asked = preflight(origin, "POST", "authorization");
        closed(&send(&world.caller(), Method::OPTIONS, "/api/chat", &asked).await, origin);
        closed(&send(&world.caller(), Method::GET, "/echo", &[("origin", origin)]).await, origin);
    }
}

#[tokio::test]
async fn a_page_may_read_answers_and_refusals() {
    let world = with_origins(&[LISTED]).await;
    let origin = [("origin", LISTED)];
    for (caller, path, status) in [
        (world.caller(), "/echo", 200),
        (world.caller(), "/api/tunnel/status", 200),
        (world.caller(), "/status/404", 404),
        (world.caller().anonymous(), "/echo", 401),
        (world.caller_for("bob"), "/echo", 503),
        (world.caller(), "/a/../b", 400),
    ] {
        let reply = send(&caller, Method::GET, path, &origin).await;
        assert_eq!(reply.status(), status, "{path}");
        assert_eq!(reply.header("access-control-allow-origin"), LISTED, "{path}: {status}");
        assert!(list(&reply, "vary").contains(&"origin".to_owned()), "{path}: {status}");
        assert!(!reply.headers().contains_key("access-control-allow-credentials"));
        let exposed = list(&reply, "access-control-expose-headers");
        for name in ["tunnel-error", "x-request-id"] {
            assert!(exposed.iter().any(|field| field == name || field == "*"), "{name} not in {exposed:?}");
        }
    }
    for received in world.ollama().received() {
        assert!(!received.headers.contains_key("origin"));
    }
}

#[tokio::test]
async fn vary_tells_caches_also_without_an_origin() {
    let world = with_origins(&[LISTED]).await;
    let reply = world.caller().get("/echo").await;
    closed(&reply, "no origin");
    assert!(list(&reply, "vary").contains(&"origin".to_owned()));
}

#[tokio::test]
async fn options_without_a_preflight_s_fields_is_a_request_like_any_other() {
    let world = with_origins(&[LISTED]).await;
    for fields in [[].as_slice(), &[("origin", LISTED)], &[("access-control-request-method", "POST")]] {
        let reply = send(&world.caller().anonymous(), Method::OPTIONS, "/echo", fields).await;
        assert_eq!(reply.error(), (401, "token_missing"), "{fields:?}");
        let reply = send(&world.caller(), Method::OPTIONS, "/echo", fields).await;
        assert_eq!(reply.json().await["method"], "OPTIONS", "{fields:?}");
    }
}

#[tokio::test]
async fn t57_the_desktop_opens_nothing() {
    let mut upstream = RawUpstream::start().await;
    let world = Setup::new()
        .upstream(upstream.addr())
        .server(|config| config.cors_origins = vec![LISTED.to_owned()])
        .start()
        .await;
    let answer = "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n\
        Access-Control-Expose-Headers: x-secret\r\nVary: accept\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let caller = world.caller();
    let origin = [("origin", OTHERS[0])];
    let (reply, first) =
        tokio::join!(send(&caller, Method::GET, "/x", &origin), upstream.answer_once(answer.as_bytes()));
    closed(&reply, "the desktop's own");
    drop(first);
    let origin = [("origin", LISTED)];
    let (reply, _open) =
        tokio::join!(send(&caller, Method::GET, "/x", &origin), upstream.answer_once(answer.as_bytes()));
    assert_eq!(list(&reply, "access-control-allow-origin"), [LISTED]);
    assert!(!reply.headers().contains_key("access-control-allow-credentials"));
    assert!(!list(&reply, "access-control-expose-headers").contains(&"x-secret".to_owned()));
    let vary = list(&reply, "vary");
    assert!(vary.contains(&"accept".to_owned()) && vary.contains(&"origin".to_owned()), "{vary:?}");
}
