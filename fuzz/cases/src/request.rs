//! Request heads: which may pass, and where their token is.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Method, Version, request::Parts};
use percent_encoding::percent_decode_str;
use tunnel_frame::policy::is_inference;
use tunneld::{
    edge::{
        capability,
        credential::{self, Source},
        target::{self, MAX_FIELDS, MAX_HEAD_BYTES},
    },
    error::{ErrorCode, Refusal, body::BodyShape},
    id::RequestId,
};

use crate::input::Input;

/// `METHOD target version`, and fields in lines. What passes is a request that two programs read alike (T22-T29).
pub fn target(data: &[u8]) {
    let Some(parts) = Input::new(data).head() else { return };
    if let Err(refusal) = target::check(&parts) {
        return plainly_refused(&refusal);
    }
    assert!(matches!(parts.version, Version::HTTP_11 | Version::HTTP_2));
    assert!(parts.method != Method::CONNECT && parts.method != Method::TRACE);
    assert!(!parts.headers.contains_key("upgrade"));
    assert!(parts.headers.len() <= MAX_FIELDS);
    let written: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let uri = parts.uri.path_and_query().expect("a path").as_str();
    assert!(written + uri.len() <= MAX_HEAD_BYTES + 1, "{written} bytes of fields and {} of target", uri.len());
    for value in parts.headers.get_all("expect") {
        assert!(value.as_bytes().eq_ignore_ascii_case(b"100-continue"), "{value:?}");
    }
    one_host(&parts);
    one_path(uri);
    if let Some(capability) = capability::split(uri) {
        one_path(&capability.rest);
        assert!(!capability.token.contains(['/', '?', '\\']), "{}", capability.token);
    }
}

/// The host is there, has no user, and is the same wherever it stands.
fn one_host(parts: &Parts) {
    let mut hosts: Vec<&str> =
        parts.headers.get_all("host").iter().map(|value| value.to_str().expect("ASCII")).collect();
    assert!(hosts.len() <= 1, "two hosts");
    hosts.extend(parts.uri.authority().map(http::uri::Authority::as_str));
    assert!(!hosts.is_empty(), "no host");
    let default_port = parts.uri.scheme_str().map(|scheme| if scheme == "https" { "443" } else { "80" });
    let mut read = hosts.iter().map(|host| {
        assert!(!host.bytes().any(|b| b"@/\\?# \t\"<>".contains(&b) || b.is_ascii_control()), "{host}");
        let url = host.to_ascii_lowercase();
        match url.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => {
                let number = if port.is_empty() { default_port.unwrap_or_default() } else { port };
                (name.to_owned(), number.trim_start_matches('0').to_owned())
            }
            _ => (url.clone(), default_port.unwrap_or_default().to_owned()),
        }
    });
    let first = read.next();
    assert!(read.next().is_none_or(|second| Some(second) == first), "{hosts:?}");
}

/// No program that decodes early, or reads backslashes as slashes, is led elsewhere.
fn one_path(target: &str) {
    assert!(target.starts_with('/'), "{target}");
    let path = target.split('?').next().unwrap_or_default();
    let early = String::from_utf8_lossy(&percent_decode_str(path).collect::<Vec<u8>>()).into_owned();
    for reading in [path, &early] {
        assert!(!reading.contains(['\\', '\0', '\r', '\n', '\t', '\u{7f}']), "{target}");
        assert!(!reading.split('/').any(|segment| segment == "." || segment == ".."), "{target}");
    }
    let base = url::Url::parse("http://h.example/").expect("a URL");
    if !path.starts_with("//") {
        // As browsers do, which also know `%2e` for a dot.
        let normal = base.join(path).expect("a path");
        assert_eq!(normal.path().matches('/').count(), path.matches('/').count(), "normalised elsewhere: {path}");
    }
    for management in ["delete", "pull", "push", "create", "copy", "blobs"] {
        let asked = early.to_ascii_lowercase();
        if asked.split('/').filter(|part| !part.is_empty()).take(2).eq(["api", management]) {
            for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE, Method::PUT] {
                assert!(!is_inference(&method, path), "{method} {path}");
            }
        }
    }
}

/// `METHOD target version`, and fields in lines. One credential is found, or none; it is visible ASCII, of the place
/// that comes first, and shows nowhere (T19, T31-T33, T63).
pub fn credential(data: &[u8]) {
    let Some(parts) = Input::new(data).head() else { return };
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let capability = capability::split(target);
    let headers = &parts.headers;
    let found = match credential::find(headers, capability.as_ref()) {
        Ok(found) => found,
        Err(refusal) => return plainly_refused(&refusal),
    };
    assert!(!found.token.is_empty() && found.token.bytes().all(|b| (0x21..0x7f).contains(&b)), "{:?}", found.token);
    let field = |name: &str| {
        let mut values = headers.get_all(name).iter();
        let first = values.next();
        assert!(capability.is_some() || values.next().is_none() || found.source == Source::Bearer, "two {name} fields");
        first.map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned())
    };
    let scheme = |wanted: &str| {
        let value = field("authorization")?;
        let (scheme, rest) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case(wanted).then(|| rest.trim().to_owned())
    };
    let (source, token) = if let Some(capability) = &capability {
        (Source::Capability, capability.token.to_owned())
    } else if let Some(bearer) = scheme("bearer") {
        (Source::Bearer, bearer)
    } else if let Some(key) = field("x-api-key") {
        (Source::ApiKey, key)
    } else {
        assert!(!headers.contains_key("origin") && !headers.contains_key("sec-fetch-site"), "Basic from a web page");
        let basic = scheme("basic").expect("another place");
        let pair = String::from_utf8(STANDARD.decode(basic).expect("base64")).expect("UTF-8");
        (Source::Basic, pair.split_once(':').expect("a pair").1.to_owned())
    };
    assert_eq!((found.source, &*found.token), (source, &*token));
    if token.len() > 16 {
        assert!(!format!("{found:?}").contains(&token));
    }
}

/// A refusal is one of the table, and says nothing that was sent.
fn plainly_refused(refusal: &Refusal) {
    assert!(refusal.status().is_client_error() || refusal.status().is_server_error());
    assert_ne!(refusal.code(), ErrorCode::UpstreamError);
    let response = refusal.response(BodyShape::Ollama, &RequestId::new());
    let body: serde_json::Value = serde_json::from_slice(response.body()).expect("JSON");
    assert_eq!(body["code"], refusal.code().as_str());
    assert!(refusal.message().is_ascii() && refusal.message().len() < 200, "{refusal}");
}
