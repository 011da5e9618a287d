//! The web client's files: what is served, to whom, under which policy. What the page does is tested in a browser, by
//! `scripts/browser`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use http::{HeaderValue, Method};
use integration_tests::{
    body,
    caller::{Caller, Protocol, Reply},
    refusal::{self, Retry, Shape},
    setup::{Setup, World},
};
use serde_json::json;

/// What a browser sends when a person types an address.
const HTML: (&str, &str) = ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");

const FILES: [(&str, &str); 16] = [
    ("", "text/html; charset=utf-8"),
    ("api.js", "text/javascript; charset=utf-8"),
    ("ask.js", "text/javascript; charset=utf-8"),
    ("chat.js", "text/javascript; charset=utf-8"),
    ("desktops.js", "text/javascript; charset=utf-8"),
    ("format.js", "text/javascript; charset=utf-8"),
    ("icon.svg", "image/svg+xml"),
    ("login.js", "text/javascript; charset=utf-8"),
    ("main.js", "text/javascript; charset=utf-8"),
    ("problem.js", "text/javascript; charset=utf-8"),
    ("session.js", "text/javascript; charset=utf-8"),
    ("settings.js", "text/javascript; charset=utf-8"),
    ("sign-in.js", "text/javascript; charset=utf-8"),
    ("stream.js", "text/javascript; charset=utf-8"),
    ("style.css", "text/css; charset=utf-8"),
    ("theme.js", "text/javascript; charset=utf-8"),
];

async fn server() -> World {
    Setup::new().without_desktop().start().await
}

async fn send(caller: &Caller, method: Method, target: &str, fields: &[(&'static str, &str)]) -> Reply {
    let mut request = caller.request(method, target, body::empty());
    for (name, value) in fields {
        request.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
    }
    caller.send(request).await
}

#[tokio::test]
async fn every_file_is_served_without_a_token() {
    let world = server().await;
    let anonymous = world.caller().anonymous();
    for (name, media_type) in FILES {
        let target = format!("/app/{name}");
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let request = anonymous.request(Method::GET, &target, body::empty());
            let reply = anonymous.connect(protocol).await.send(request).await;
            assert_eq!(reply.status(), 200, "{target}");
            assert_eq!(reply.header("content-type"), media_type);
            assert_eq!(reply.header("cache-control"), "no-cache");
            let length = reply.header("content-length").to_owned();
            assert_eq!(reply.text().await.len().to_string(), length, "{target}");
        }
    }
    // A query is for the page to read, as the code of an identity provider.
    assert_eq!(anonymous.get("/app/?code=x&state=y").await.status(), 200);
    assert_eq!(world.caller().get("/app/").await.status(), 200);
}

#[tokio::test]
async fn the_page_names_only_files_that_there_are() {
    let world = server().await;
    let page = world.caller().anonymous().get("/app/").await.text().await;
    let named = page.split(['"', '\'']).filter(|word| {
        let extension = std::path::Path::new(word).extension();
        extension.is_some_and(|extension| ["js", "css", "svg"].iter().any(|known| extension == *known))
    });
    let mut count = 0;
    for name in named {
        assert!(FILES.iter().any(|(file, _)| *file == name), "{name} is in the page, and no file");
        count += 1;
    }
    assert!(count >= FILES.len() - 1, "{count} names in the page");
}

#[tokio::test]
async fn t59_a_browser_runs_only_what_is_ours() {
    let world = server().await;
    let anonymous = world.caller().anonymous();
    for (name, _) in FILES {
        let reply = anonymous.get(&format!("/app/{name}")).await;
        let policy: Vec<_> = reply.header("content-security-policy").split(';').map(str::trim).collect();
        for directive in [
            "default-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "object-src 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(&directive), "{directive} is not in {policy:?}");
        }
        assert!(!reply.header("content-security-policy").contains("unsafe"));
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert_eq!(reply.header("referrer-policy"), "no-referrer");
        assert_eq!(reply.header("cross-origin-opener-policy"), "same-origin");
        assert_eq!(reply.header("cross-origin-resource-policy"), "same-origin");
        assert!(reply.header("permissions-policy").contains("microphone=()"));
        assert!(!reply.headers().contains_key("set-cookie"));
    }
    let page = anonymous.get("/app/").await.text().await;
    for inline in ["<style", " style=", " onclick=", " onload=", "javascript:", "<script>", "http:", "https:"] {
        assert!(!page.contains(inline), "{inline} in the page");
    }
}

#[tokio::test]
async fn t59_the_page_asks_nobody_but_us_and_the_identity_provider() {
    let asks = |reply: Reply| {
        let policy = reply.header("content-security-policy").split(';').map(|part| part.trim().to_owned());
        policy.filter(|part| part.starts_with("connect-src")).collect::<Vec<_>>()
    };
    let alone = server().await;
    assert_eq!(asks(alone.caller().get("/app/").await), ["connect-src 'self'"]);
    let login = json!({"issuer": "https://id.example.com:8443/realms/home", "client_id": "c", "audience": "a", "scope": "openid"});
    let with_provider = Setup::new().without_desktop().server(move |config| {
        config.login = Some(serde_json::from_value(login.clone()).unwrap());
    });
    let world = with_provider.start().await;
    assert_eq!(asks(world.caller().get("/app/").await), ["connect-src 'self' https://id.example.com:8443"]);
}

#[tokio::test]
async fn t59_refusals_under_app_are_no_pages() {
    let world = server().await;
    let anonymous = world.caller().anonymous();
    for target in ["/app/index.html", "/app/x", "/app//", "/app/main.js/", "/app/web/main.js", "/app/%6dain.js"] {
        let reply = anonymous.get(target).await;
        refusal::check(reply, 404, "not_found", Retry::Unsaid, Shape::Ollama).await;
    }
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        for target in ["/app", "/app/", "/app/main.js", "/app/x"] {
            let reply = send(&anonymous, method.clone(), target, &[]).await;
            assert_eq!(reply.header("allow"), "GET, HEAD");
            refusal::check(reply, 405, "method_not_allowed", Retry::Unsaid, Shape::Ollama).await;
        }
    }
    assert_eq!(anonymous.get("/app/../app/").await.error(), (400, "bad_request"));
}

#[tokio::test]
async fn a_known_version_is_not_sent_again() {
    let world = server().await;
    let anonymous = world.caller().anonymous();
    let tag = anonymous.get("/app/main.js").await.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.len() > 20, "a strong tag: {tag}");
    assert_ne!(tag, anonymous.get("/app/chat.js").await.header("etag"));
    let many = format!("\"a\", W/{tag}");
    for known in [tag.as_str(), many.as_str(), "*"] {
        for method in [Method::GET, Method::HEAD] {
            let reply = send(&anonymous, method, "/app/main.js", &[("if-none-match", known)]).await;
            assert_eq!((reply.status().as_u16(), reply.header("etag")), (304, tag.as_str()), "{known}");
            assert!(reply.header("content-security-policy").contains("default-src 'self'"));
            assert_eq!(reply.header("content-length"), "");
            assert_eq!(reply.text().await, "");
        }
    }
    for other in ["\"a\"", "", "a", "W/*"] {
        let reply = send(&anonymous, Method::GET, "/app/main.js", &[("if-none-match", other)]).await;
        assert_eq!(reply.status(), 200, "{other}");
    }
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let world = server().await;
    let anonymous = world.caller().anonymous();
    let length = anonymous.get("/app/style.css").await.header("content-length").to_owned();
    let reply = send(&anonymous, Method::HEAD, "/app/style.css", &[]).await;
    assert_eq!((reply.status().as_u16(), reply.header("content-length")), (200, length.as_str()));
    assert_eq!(reply.text().await, "");
}

#[tokio::test]
async fn a_person_at_the_root_is_led_to_the_page() {
    let world = server().await;
    let anonymous = world.caller().anonymous();
    for target in ["/", "/?x=1", "/app", "/app?x=1"] {
        let reply = send(&anonymous, Method::GET, target, &[HTML]).await;
        assert_eq!((reply.status().as_u16(), reply.header("location")), (307, "/app/"), "{target}");
        assert_eq!(reply.header("cache-control"), "no-store");
    }
    assert_eq!(anonymous.get("/app").await.status(), 307);
}

#[tokio::test]
async fn at_the_root_programs_and_who_brings_a_token_reach_the_desktop() {
    let world = Setup::new().start().await;
    let anonymous = world.caller().anonymous();
    for accept in ["*/*", "application/json", "text/*", "text/htmlx", "application/json;x=text/html"] {
        let reply = send(&anonymous, Method::GET, "/", &[("accept", accept)]).await;
        assert_eq!(reply.error(), (401, "token_missing"), "{accept}");
    }
    assert_eq!(anonymous.get("/").await.error(), (401, "token_missing"));
    assert_eq!(send(&anonymous, Method::POST, "/", &[HTML]).await.error(), (401, "token_missing"));
    let reply = send(&world.caller(), Method::GET, "/", &[HTML]).await;
    assert_eq!(reply.text().await, "Ollama is running");
    for wrong in [("authorization", "Basic Og=="), ("x-api-key", "a.b.c"), ("authorization", "Bearer a.b.c")] {
        assert_eq!(send(&anonymous, Method::GET, "/", &[HTML, wrong]).await.status(), 401, "{wrong:?}");
    }
    // Names that only begin like ours are the desktop's.
    assert_eq!(world.caller().get("/apple").await.text().await, "404 page not found");
}

#[tokio::test]
async fn t61_the_desktop_cannot_answer_for_the_page() {
    let world = Setup::new().start().await;
    let reply = world.caller().get("/app/").await;
    assert!(reply.text().await.starts_with("<!doctype html>"));
    assert_eq!(world.caller().get("/app/echo").await.error(), (404, "not_found"));
    assert_eq!(world.ollama().received().len(), 0);
}
