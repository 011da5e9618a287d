//! Settings that decide what may pass: rules of `--allow`, origins of `--cors-origin`.

use http::{HeaderMap, HeaderValue, Method, Request};
use tunnel_frame::policy::{Policy, Rule, is_inference};
use tunneld::edge::cors::CorsPolicy;

use crate::input::Input;

/// A method and a target in the first two lines, then a rule in each line.
///
/// A rule that parses prints as what it is. A request passes if and only if a rule says so, by a naive reading (T53).
pub fn policy(data: &[u8]) {
    let mut input = Input::new(data);
    let Ok(method) = Method::from_bytes(input.line()) else { return };
    let (Some(target), Ok(rules)) = (input.text(), str::from_utf8(input.rest())) else { return };
    let path = &target[..target.find('?').unwrap_or(target.len())];
    let rules: Vec<Rule> = rules.lines().filter_map(|line| line.parse().ok()).collect();
    for rule in &rules {
        assert_eq!(rule.to_string().parse().as_ref(), Ok(rule), "a rule changes when it is said again");
        let (Rule::Exact(only, exactly) | Rule::Below(only, exactly)) = rule else { continue };
        assert!(exactly.starts_with('/') && !exactly.contains(['?', '#', '*', ' ']), "{rule}");
        assert!(only.as_str().bytes().all(|b| !b.is_ascii_lowercase()), "{rule}");
    }
    let expected = rules.is_empty()
        || rules.iter().any(|rule| match rule {
            Rule::All => true,
            Rule::Inference => inference(&method, path),
            Rule::Exact(only, exactly) => (only, exactly.as_str()) == (&method, path),
            Rule::Below(only, start) => only == method && path.strip_prefix(&**start).is_some_and(plain),
        });
    assert_eq!(Policy::new(rules).allows(&method, target), expected, "{method} {target}");
    assert_eq!(is_inference(&method, path), inference(&method, path), "{method} {path}");
}

/// The list of inference endpoints, said a second time (T64).
fn inference(method: &Method, path: &str) -> bool {
    let words: Vec<&str> = path.split('/').collect();
    match (method.as_str(), &words[..]) {
        ("POST", ["", "api", name]) => ["chat", "embed", "embeddings", "generate", "show"].contains(name),
        ("POST", ["", "v1", name]) => ["completions", "embeddings", "messages", "responses"].contains(name),
        ("POST", ["", "v1", group, name]) => {
            [("chat", "completions"), ("messages", "count_tokens")].contains(&(group, name))
        }
        ("GET" | "HEAD", ["", ""] | ["", "api", "ps" | "tags" | "version"] | ["", "v1", "models"]) => true,
        ("GET" | "HEAD", ["", "v1", "models", model]) => plain(model),
        _ => false,
    }
}

/// The end of a path that holds nothing to be misread.
fn plain(path: &str) -> bool {
    let path = path.replace("%2F", "/").replace("%2f", "/").replace("%3A", ":").replace("%3a", ":");
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:@+/".contains(c);
    path.chars().all(plain) && path.split('/').all(|part| !["", ".", ".."].contains(&part))
}

/// A listed origin, the origin that asks, a method and names of fields, each in a line.
///
/// An origin on the list is plain and stays as it is. An answer names the origin that asked, if that is the listed one,
/// and no other; never `*`, never credentials (T57, T58).
pub fn cors(data: &[u8]) {
    let mut input = Input::new(data);
    let Some(listed) = input.text() else { return };
    let Ok(policy) = CorsPolicy::new(&[listed]) else { return };
    let mut request = Request::builder().method("OPTIONS").uri("/api/chat");
    for name in ["origin", "access-control-request-method", "access-control-request-headers"] {
        let Ok(value) = HeaderValue::from_bytes(input.line()) else { return };
        if !value.is_empty() {
            request = request.header(name, value);
        }
    }
    let Ok(request) = request.body(()) else { return };
    let parts = request.into_parts().0;
    let origin = parts.headers.get("origin");

    let mut answer = HeaderMap::new();
    policy.decorate(policy.origin(&parts.headers), &mut answer);
    let preflight = policy.preflight(&parts).map(|response| response.into_parts().0.headers);
    for headers in preflight.iter().chain([&answer]) {
        assert!(!headers.contains_key("access-control-allow-credentials"));
        assert!(headers.get_all("vary").iter().any(|value| value.as_bytes().starts_with(b"origin")));
        let Some(allowed) = headers.get("access-control-allow-origin") else { continue };
        assert_eq!(Some(allowed), origin, "an origin that did not ask");
        let allowed = allowed.to_str().expect("ASCII");
        let (_, host) = allowed.split_once("://").expect("a scheme");
        assert!(!host.is_empty() && !host.contains(['/', '*', '@', '?', '#', '\\', ' ', ',']), "{allowed}");
        let again = CorsPolicy::new(&[allowed]).expect("an origin as browsers write it is one");
        assert!(again.origin(&parts.headers).is_some(), "an origin changes when it is listed again: {allowed}");
    }
    assert_eq!(answer.contains_key("access-control-allow-origin"), policy.origin(&parts.headers).is_some());
    if let Some(preflight) = preflight {
        assert!(origin.is_some() && policy.origin(&parts.headers).is_some(), "a preflight of nobody");
        for name in ["access-control-allow-methods", "access-control-allow-headers"] {
            assert!(!preflight.get(name).is_some_and(|value| value.as_bytes().contains(&b'\0')));
        }
    }
}
