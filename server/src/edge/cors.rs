//! Which web pages may read our answers (Fetch standard §3.2).
//!
//! Owns the exact list of origins, the answer to preflights and the fields that let a page read a response. There is
//! no `*`, no pattern and no credentials mode: a page sends its token by itself, and an origin that is not listed gets
//! no CORS field at all (T57). What a desktop says about CORS never gets here.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use thiserror::Error;
use url::{Origin, Url};

/// What a page may read beyond the safelisted fields; the last two are for the OpenAI SDK, which would otherwise
/// repeat what must not be repeated.
const EXPOSED: HeaderValue =
    HeaderValue::from_static("tunnel-error, x-request-id, tunnel-deadline, retry-after, x-should-retry");
/// Chromium's limit; a preflight costs a round trip per endpoint.
const MAX_AGE_SECONDS: HeaderValue = HeaderValue::from_static("7200");
/// Bytes of a list of field names that is repeated in a preflight's answer: room for the 20 `x-stainless-*` fields of
/// the SDKs, several times over.
const MAX_ASKED_BYTES: usize = 4096;

/// The origins whose pages may call.
#[derive(Debug, Clone, Default)]
pub struct CorsPolicy {
    origins: Vec<HeaderValue>,
}

/// Why an origin cannot be on the list.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{origin}' {problem}")]
pub struct CorsOriginError {
    origin: String,
    problem: &'static str,
}

/// The origin of a request, found on the list. Only such a one is ever named in an answer.
#[derive(Debug, Clone)]
pub struct ListedOrigin(HeaderValue);

impl CorsPolicy {
    /// A policy of these origins, each as a browser writes it: `https://app.example` or `http://localhost:3000`. None
    /// means that no page may call.
    pub fn new<S: AsRef<str>>(origins: &[S]) -> Result<Self, CorsOriginError> {
        let parse = |origin: &S| {
            let origin = origin.as_ref().trim();
            serialize(origin).map_err(|problem| CorsOriginError { origin: origin.to_owned(), problem })
        };
        Ok(Self { origins: origins.iter().map(parse).collect::<Result<_, _>>()? })
    }

    /// The origin of a request, if it has exactly one that is listed.
    #[must_use]
    pub fn origin(&self, request: &HeaderMap) -> Option<ListedOrigin> {
        let mut sent = request.get_all(header::ORIGIN).iter();
        let origin = sent.next().filter(|_| sent.next().is_none())?;
        self.origins.iter().find(|listed| *listed == origin).cloned().map(ListedOrigin)
    }

    /// The answer to a preflight of a listed origin, which comes before any authentication because a preflight cannot
    /// carry a credential (T58). Any other request, an ordinary `OPTIONS` too, is `None` and goes its way.
    #[must_use]
    pub fn preflight(&self, request: &Parts) -> Option<Response<Bytes>> {
        if request.method != Method::OPTIONS {
            return None;
        }
        let method = request.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
        let ListedOrigin(origin) = self.origin(&request.headers)?;
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if Method::from_bytes(method.as_bytes()).is_ok() {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, method.clone());
        }
        if let Some(asked) = asked_fields(&request.headers) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECONDS);
        let vary = "origin, access-control-request-method, access-control-request-headers";
        headers.insert(header::VARY, HeaderValue::from_static(vary));
        Some(response)
    }

    /// Whether this is a preflight of an origin that is not listed. It is answered like any other request, in other words.
    pub(super) fn is_foreign_preflight(&self, request: &Parts) -> bool {
        let headers = &request.headers;
        request.method == Method::OPTIONS
            && headers.contains_key(header::ORIGIN)
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
            && self.origin(headers).is_none()
    }

    /// Lets the page of a listed origin read a response. Every response says that it varies, or a cache would answer
    /// one origin with the fields of another.
    pub fn decorate(&self, origin: Option<ListedOrigin>, response: &mut HeaderMap) {
        if self.origins.is_empty() {
            return;
        }
        response.append(header::VARY, HeaderValue::from_static("origin"));
        if let Some(ListedOrigin(origin)) = origin {
            response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}

/// The names of the fields that a page wants to send, if they are names and not too many. All are granted: each SDK
/// brings its own, and what may cross is decided for each request alike.
fn asked_fields(request: &HeaderMap) -> Option<&HeaderValue> {
    let asked = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS)?;
    let is_name = |name: &[u8]| HeaderName::from_bytes(name.trim_ascii()).is_ok();
    let sane = asked.len() <= MAX_ASKED_BYTES && asked.as_bytes().split(|&b| b == b',').all(is_name);
    sane.then_some(asked)
}

/// An origin as browsers serialize it (HTML §7.1.1): lower case, punycode, no default port.
fn serialize(text: &str) -> Result<HeaderValue, &'static str> {
    if text == "null" {
        return Err("would let in every sandboxed page; list the page's own origin");
    }
    if text.contains('*') {
        return Err("is a pattern; list each origin as it is");
    }
    let Some((_, host)) = text.split_once("://") else {
        return Err("has no scheme; write it as in https://app.example");
    };
    if host.contains(['/', '?', '#', '\\']) {
        return Err("has a path; leave out what follows the host and port, a final slash too");
    }
    if host.contains('@') {
        return Err("has a user name; leave it out");
    }
    let url = Url::parse(text).map_err(|_| "is not an origin; write it as in https://app.example")?;
    match url.origin() {
        origin @ Origin::Tuple(..) => HeaderValue::try_from(origin.ascii_serialization()).map_err(|_| "is not ASCII"),
        // Pages of apps and extensions: tauri://localhost, chrome-extension://id.
        Origin::Opaque(_) if url.has_host() => HeaderValue::try_from(url.as_str()).map_err(|_| "is not ASCII"),
        Origin::Opaque(_) => Err("names no host; write it as in https://app.example"),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    const APP: &str = "https://app.example";

    fn policy(origins: &[&str]) -> CorsPolicy {
        CorsPolicy::new(origins).unwrap()
    }

    fn request(method: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri("/api/chat");
        for &(name, value) in fields {
            request = request.header(name, value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn origins_are_kept_as_browsers_write_them() {
        for (given, kept) in [
            (APP, APP),
            ("HTTPS://App.Example:443", APP),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:80", "http://[::1]"),
            ("https://b\u{fc}cher.example", "https://xn--bcher-kva.example"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
            ("tauri://localhost", "tauri://localhost"),
        ] {
            assert_eq!(policy(&[given]).origins, [kept], "{given}");
        }
    }

    #[test]
    fn t57_what_is_no_origin_is_refused_in_one_line() {
        for (given, problem) in [
            ("*", "pattern"),
            ("https://*.example", "pattern"),
            ("null", "sandboxed"),
            ("app.example", "no scheme"),
            ("localhost:3000", "no scheme"),
            ("https://app.example/", "path"),
            ("https://app.example/x", "path"),
            ("https://app.example?x", "path"),
            ("https://u:p@app.example", "user name"),
            ("https://", "not an origin"),
            ("https://a b", "not an origin"),
            ("https://a:99999", "not an origin"),
            ("file://", "no host"),
            ("", "no scheme"),
        ] {
            let error = CorsPolicy::new(&[given]).unwrap_err().to_string();
            assert!(error.starts_with('\'') && error.contains(problem), "{error}");
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn t58_a_preflight_is_answered_for_listed_origins_only() {
        let asked = "authorization, content-type, x-stainless-os, tunnel-deadline";
        let preflight = |origin| {
            let fields = [
                ("origin", origin),
                ("access-control-request-method", "POST"),
                ("access-control-request-headers", asked),
            ];
            policy(&["http://localhost:3000", APP]).preflight(&request("OPTIONS", &fields))
        };
        let response = preflight(APP).unwrap();
        let headers = response.headers();
        assert_eq!(response.status(), 204);
        assert_eq!(text(headers, "access-control-allow-origin"), Some(APP));
        assert_eq!(text(headers, "access-control-allow-methods"), Some("POST"));
        assert_eq!(text(headers, "access-control-allow-headers"), Some(asked));
        assert_eq!(text(headers, "access-control-max-age"), Some("7200"));
        assert!(text(headers, "vary").unwrap().contains("origin"));
        assert!(!headers.contains_key("access-control-allow-credentials"));
        for other in ["https://app.example.evil", "http://app.example", "https://app.example:444", "null", "*", ""] {
            assert!(preflight(other).is_none(), "{other}");
            let fields = [("origin", other), ("access-control-request-method", "POST")];
            assert!(policy(&[APP]).is_foreign_preflight(&request("OPTIONS", &fields)), "{other}");
            assert!(!policy(&[APP]).is_foreign_preflight(&request("OPTIONS", &fields[..1])), "{other}");
        }
    }

    #[test]
    fn an_ordinary_options_is_no_preflight() {
        let policy = policy(&[APP]);
        let method = ("access-control-request-method", "POST");
        assert!(policy.preflight(&request("OPTIONS", &[("origin", APP)])).is_none());
        assert!(policy.preflight(&request("OPTIONS", &[method])).is_none());
        assert!(policy.preflight(&request("OPTIONS", &[])).is_none());
        assert!(policy.preflight(&request("POST", &[("origin", APP), method])).is_none());
        assert!(policy.preflight(&request("OPTIONS", &[("origin", APP), ("origin", APP), method])).is_none());
    }

    #[test]
    fn t57_asked_names_are_granted_within_reason() {
        let granted = |asked: &str| {
            let fields =
                [("origin", APP), ("access-control-request-method", "a b"), ("access-control-request-headers", asked)];
            let response = policy(&[APP]).preflight(&request("OPTIONS", &fields)).unwrap();
            assert!(!response.headers().contains_key("access-control-allow-methods"));
            text(response.headers(), "access-control-allow-headers").map(str::to_owned)
        };
        assert_eq!(granted("x-a,x-b").as_deref(), Some("x-a,x-b"));
        assert_eq!(granted("x-a, a b"), None);
        assert_eq!(granted("x-a,,x-b"), None);
        assert_eq!(granted(&format!("{}x", "x,".repeat(MAX_ASKED_BYTES / 2))), None);
    }

    #[test]
    fn t57_only_a_listed_page_may_read() {
        let decorated = |policy: &CorsPolicy, origin| {
            let mut headers = HeaderMap::new();
            headers.insert("vary", HeaderValue::from_static("accept"));
            policy.decorate(policy.origin(&request("GET", &[("origin", origin)]).headers), &mut headers);
            headers
        };
        let listed = decorated(&policy(&[APP]), APP);
        assert_eq!(text(&listed, "access-control-allow-origin"), Some(APP));
        assert!(text(&listed, "access-control-expose-headers").unwrap().contains("tunnel-error"));
        assert!(listed.get_all("vary").iter().eq(["accept", "origin"]));
        assert!(!listed.contains_key("access-control-allow-credentials"));
        let other = decorated(&policy(&[APP]), "https://evil.example");
        assert!(other.get_all("vary").iter().eq(["accept", "origin"]));
        assert_eq!(other.len(), 2);
        assert_eq!(decorated(&CorsPolicy::default(), APP).len(), 1);
    }

    proptest! {
        /// No spelling but the exact one is let in.
        #[test]
        fn t57_an_origin_is_never_reflected(origin in "(https?://)?[a-z.:0-9@/-]{0,24}|\\PC{0,12}") {
            let mut headers = HeaderMap::new();
            let Ok(value) = HeaderValue::from_bytes(origin.as_bytes()) else { return Ok(()) };
            headers.insert(header::ORIGIN, value);
            prop_assert_eq!(policy(&[APP]).origin(&headers).is_some(), origin == APP);
        }
    }
}
