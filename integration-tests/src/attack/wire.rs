//! A notation for bytes on a wire, so that a table of requests can be read.
//!
//! `¶` is CR LF · `§` the case's own marker, a path segment · `{H}` Host and Authorization fields · `{A}` only the
//! second · `{host}` the authority · `{token}` the token · `{S}` a whole second request, for `/§/smuggled` · `{x*9}` nine
//! times x. Any other character up to U+00FF is the byte of that number.

/// What the placeholders stand for.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Name and port of the server.
    pub host: String,
    /// A token that may proxy.
    pub token: String,
    /// See [`marker`].
    pub marker: String,
}

/// The path segment by which the requests of a case are known.
#[must_use]
pub fn marker(number: usize) -> String {
    format!("case-{number}")
}

/// The bytes that `text` stands for.
#[must_use]
pub fn bytes(text: &str, terms: &Terms) -> Vec<u8> {
    let text = with_repetitions(text)
        .replace("{S}", "GET /§/smuggled HTTP/1.1¶{H}¶")
        .replace("{H}", "Host: {host}¶{A}")
        .replace("{A}", "Authorization: Bearer {token}¶")
        .replace("{host}", &terms.host)
        .replace("{token}", &terms.token)
        .replace('§', &terms.marker)
        .replace('¶', "\r\n");
    text.chars().map(|c| u8::try_from(c).unwrap_or_else(|_| panic!("{c:?} is no byte"))).collect()
}

/// Repetitions, the inner ones first.
pub(super) fn with_repetitions(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((inside, after)) = rest.split_once('}') {
        out.push_str(inside);
        rest = after;
        let Some(open) = out.rfind('{') else { continue };
        match out[open + 1..].rsplit_once('*').and_then(|(unit, times)| Some((unit.to_owned(), times.parse().ok()?))) {
            Some((unit, times)) => out.replace_range(open.., &unit.repeat(times)),
            None => out.push('}'),
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notation() {
        let terms = Terms { host: "h:1".into(), token: "t".into(), marker: marker(7) };
        let of = |text| String::from_utf8(bytes(text, &terms)).unwrap();
        assert_eq!(of("GET /§ HTTP/1.1¶{H}¶"), "GET /case-7 HTTP/1.1\r\nHost: h:1\r\nAuthorization: Bearer t\r\n\r\n");
        assert_eq!(of("{ab*3}-{x: {1*2}¶*2}{}"), "ababab-x: 11\r\nx: 11\r\n{}");
        assert_eq!(bytes("\u{ff}\0", &terms), [0xff, 0]);
    }
}
