//! Who may use the port: programs of this machine, and web pages that somebody has listed.
//!
//! A browser sends requests to this machine for any page that asks. A page of another site is known by its `Origin` or
//! `Sec-Fetch-Site`, one that has made its own name point here (DNS rebinding) by its `Host`.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;
use url::Url;

use super::sorry::Sorry;
use crate::config::is_loopback;

/// Who may use the port.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    origins: Vec<HeaderValue>,
}

/// What is to be done with a request.
pub(super) enum Admitted {
    /// Send it on; a page of this origin may read the answer.
    Request(Option<HeaderValue>),
    /// A browser's question, answered.
    Preflight(Response<Full<Bytes>>),
}

/// Reads an origin as browsers send it: scheme, host, and a port that is not the usual one.
pub fn allowed_origin(text: &str) -> Result<HeaderValue, String> {
    let url = Url::parse(text.trim())
        .map_err(|_| format!("{text:?} is no origin; write for example http://localhost:3000"))?;
    let origin = url.origin();
    if !origin.is_tuple() || !matches!(url.path(), "" | "/") || url.query().is_some() {
        return Err(format!("{text:?} is no origin: scheme, host and port only, as in http://localhost:3000"));
    }
    HeaderValue::try_from(origin.ascii_serialization()).map_err(|error| error.to_string())
}

impl Guard {
    /// Lets pages of these origins in.
    #[must_use]
    pub fn new(origins: Vec<HeaderValue>) -> Self {
        Self { origins }
    }

    pub(super) fn admit(&self, method: &Method, headers: &HeaderMap) -> Result<Admitted, Sorry> {
        if !headers.get(header::HOST).is_some_and(is_here) {
            return Err(Sorry::forbidden("the Host of a request to this port must be this machine, such as 127.0.0.1"));
        }
        let Some(origin) = headers.get(header::ORIGIN) else {
            // Links and images of other sites come without an Origin.
            let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
            return match site {
                None | Some(b"none" | b"same-origin") => Ok(Admitted::Request(None)),
                Some(_) => Err(Sorry::forbidden("requests of web pages need --allow-origin")),
            };
        };
        if !self.origins.contains(origin) {
            return Err(Sorry::forbidden("this web page's origin is not listed with --allow-origin"));
        }
        if method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
            return Ok(Admitted::Preflight(preflight(origin.clone(), headers)));
        }
        Ok(Admitted::Request(Some(origin.clone())))
    }
}

/// Whether a Host is this machine, on any port.
fn is_here(host: &HeaderValue) -> bool {
    let url = host.to_str().ok().and_then(|host| Url::parse(&format!("http://{host}")).ok());
    url.is_some_and(|url| is_loopback(&url) && url.username().is_empty() && url.path() == "/")
}

/// Lets the page read the answer.
pub(super) fn let_read(origin: HeaderValue, headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}

fn preflight(origin: HeaderValue, asked: &HeaderMap) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let_read(origin, headers);
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    );
    if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(headers: &[(&'static str, &'static str)]) -> bool {
        let guard = Guard::new(vec![allowed_origin("http://localhost:3000").unwrap()]);
        let headers = headers
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        guard.admit(&Method::GET, &headers).is_ok()
    }

    #[test]
    fn only_names_of_this_machine_are_hosts() {
        for host in ["127.0.0.1:11434", "localhost", "LOCALHOST:1", "[::1]:8", "app.localhost:3000", "127.9.9.9"] {
            assert!(admits(&[("host", host)]), "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "evil@127.0.0.1",
            "",
            "10.0.0.1",
            "127.0.0.1/x",
        ] {
            assert!(!admits(&[("host", host)]), "{host}");
        }
        assert!(!admits(&[]));
    }

    #[test]
    fn only_listed_pages_may_ask() {
        let with = |name, value| admits(&[("host", "localhost"), (name, value)]);
        assert!(with("origin", "http://localhost:3000"));
        for origin in ["http://localhost:3001", "https://localhost:3000", "null", "http://evil.example", ""] {
            assert!(!with("origin", origin), "{origin}");
        }
        assert!(with("sec-fetch-site", "none")); // typed into the address bar
        for site in ["cross-site", "same-site"] {
            assert!(!with("sec-fetch-site", site), "{site}");
        }
    }

    #[test]
    fn origins_are_read_as_browsers_write_them() {
        assert_eq!(allowed_origin("HTTPS://App.Example:443/").unwrap(), "https://app.example");
        for bad in ["*", "app.example", "file:///x", "http://a/b", "null", ""] {
            assert!(allowed_origin(bad).unwrap_err().contains("localhost:3000"), "{bad}");
        }
    }
}
