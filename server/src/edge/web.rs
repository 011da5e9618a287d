//! The web client at `/app/`: a few files that are part of this program, and what a browser may do with them.
//!
//! Owns their names, types and versions, the Content-Security-Policy, and the way there from `/`. What they do is in the
//! folder `web`. Nothing here is secret and nothing needs a token: who opens the page signs in on it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use sha2::{Digest, Sha256};
use tunnel_oidc::Login;
use url::Url;

use super::credential::X_API_KEY;
use crate::error::{ErrorCode, Refusal};

const ROOT: &str = "/app/";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Name, type and content. The page itself has no name.
const FILES: [(&str, &str, &str); 16] = [
    ("", HTML, include_str!("../../../web/index.html")),
    ("api.js", SCRIPT, include_str!("../../../web/api.js")),
    ("ask.js", SCRIPT, include_str!("../../../web/ask.js")),
    ("chat.js", SCRIPT, include_str!("../../../web/chat.js")),
    ("desktops.js", SCRIPT, include_str!("../../../web/desktops.js")),
    ("format.js", SCRIPT, include_str!("../../../web/format.js")),
    ("icon.svg", SVG, include_str!("../../../web/icon.svg")),
    ("login.js", SCRIPT, include_str!("../../../web/login.js")),
    ("main.js", SCRIPT, include_str!("../../../web/main.js")),
    ("problem.js", SCRIPT, include_str!("../../../web/problem.js")),
    ("session.js", SCRIPT, include_str!("../../../web/session.js")),
    ("settings.js", SCRIPT, include_str!("../../../web/settings.js")),
    ("sign-in.js", SCRIPT, include_str!("../../../web/sign-in.js")),
    ("stream.js", SCRIPT, include_str!("../../../web/stream.js")),
    ("style.css", CSS, include_str!("../../../web/style.css")),
    ("theme.js", SCRIPT, include_str!("../../../web/theme.js")),
];

/// What the page may load and do (T59, T60): files of ours and requests to us, no inline script or style, no frame
/// around it, no form that leaves it, and no string that a script could turn into markup.
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; frame-src 'none'; \
                      object-src 'none'; worker-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// On every file. A page that opens ours, or is opened by it, gets no handle on it.
const FIELDS: [(HeaderName, &str); 6] = [
    (header::CACHE_CONTROL, "no-cache"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), display-capture=(), geolocation=(), microphone=()"),
];

/// The files, ready to be served.
pub(crate) struct WebClient {
    files: Vec<File>,
    policy: HeaderValue,
}

struct File {
    name: &'static str,
    media_type: &'static str,
    content: &'static str,
    /// Strong: the digest of the content (RFC 9110 §8.8.3).
    tag: HeaderValue,
}

impl WebClient {
    /// The files of this program. The page asks nobody but us and the identity provider, if people sign in at one.
    pub(crate) fn new(login: Option<&Login>) -> Self {
        let files = FILES.map(|(name, media_type, content)| {
            let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(Sha256::digest(content)));
            let tag = HeaderValue::try_from(tag).expect("letters and digits");
            File { name, media_type, content, tag }
        });
        let provider = login.and_then(|login| Url::parse(login.issuer.as_str()).ok());
        let provider = provider.map(|issuer| issuer.origin().ascii_serialization()).unwrap_or_default();
        let policy = format!("{POLICY}; connect-src 'self' {provider}");
        Self { files: files.into(), policy: HeaderValue::try_from(policy.trim_end()).expect("ASCII without controls") }
    }

    /// The answer to a request for the web client, or for `/` where a person has typed our address. `None` is anybody
    /// else's request.
    pub(super) fn answer(&self, request: &Parts) -> Option<Result<Response<Bytes>, Refusal>> {
        let path = request.uri.path();
        if path == "/" && reads(&request.method) && comes_from_a_person(&request.headers) {
            return Some(Ok(redirect()));
        }
        let name = if path == ROOT.trim_end_matches('/') { None } else { Some(path.strip_prefix(ROOT)?) };
        if !reads(&request.method) {
            return Some(Err(ErrorCode::MethodNotAllowed.into()));
        }
        let Some(name) = name else { return Some(Ok(redirect())) };
        let file = self.files.iter().find(|file| file.name == name);
        Some(file.map(|file| self.response(file, &request.headers)).ok_or_else(|| ErrorCode::NotFound.into()))
    }

    fn response(&self, file: &File, request: &HeaderMap) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        for (name, value) in FIELDS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        headers.insert(header::ETAG, file.tag.clone());
        if is_known(request, &file.tag) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.media_type));
            *response.body_mut() = Bytes::from_static(file.content.as_bytes());
        }
        response
    }
}

fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// To the page. A browser carries a fragment along, and so a token in it.
fn redirect() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_static(ROOT));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A browser that shows what it gets, and brings no token: every other request for `/` is one for the desktop.
fn comes_from_a_person(headers: &HeaderMap) -> bool {
    let wants_html = |accept: &HeaderValue| {
        let is_html =
            |range: &str| range.split(';').next().is_some_and(|it| it.trim().eq_ignore_ascii_case("text/html"));
        accept.to_str().is_ok_and(|accept| accept.split(',').any(is_html))
    };
    let brings_a_token = headers.contains_key(header::AUTHORIZATION) || headers.contains_key(X_API_KEY);
    !brings_a_token && headers.get_all(header::ACCEPT).iter().any(wants_html)
}

/// Whether the caller has this version already (RFC 9110 §13.1.2, with its weak comparison).
fn is_known(request: &HeaderMap, tag: &HeaderValue) -> bool {
    let names = |known: &str| known.trim() == "*" || known.trim().trim_start_matches("W/") == tag;
    let values = request.get_all(header::IF_NONE_MATCH).iter();
    values.filter_map(|value| value.to_str().ok()).any(|value| value.split(',').any(names))
}
