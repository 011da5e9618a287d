//! Capability URLs: `/t/<token>/…` carries the credential in the path, so that one environment variable is enough.
//!
//! Owns where the token ends and the request begins, and how such a path may be written into a log. Does not judge
//! the token.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// What a capability path begins with. The whole space under it is ours, an empty token included.
const PREFIX: &str = "/t/";

/// What stands for a token in a log.
const REDACTED: &str = "[redacted]";

/// How every JSON Web Token begins: the base64url of `{"`.
const TOKEN_START: &str = "eyJ";

/// A capability path, taken apart. Nothing is decoded.
#[derive(Clone, PartialEq, Eq)]
pub struct Capability<'a> {
    /// The token; may be empty or worse.
    pub token: &'a str,
    /// `/t/<token>`: what has to stand before a path of ours in a `Location`.
    pub prefix: &'a str,
    /// The request target that remains: path and query, byte for byte. It begins with a slash.
    pub rest: Cow<'a, str>,
}

impl std::fmt::Debug for Capability<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capability").field("rest", &self.rest).finish_non_exhaustive()
    }
}

/// Takes a request target (path and query) apart, if it is a capability path.
#[must_use]
pub fn split(target: &str) -> Option<Capability<'_>> {
    let after = target.strip_prefix(PREFIX)?;
    let length = after.find(['/', '?']).unwrap_or(after.len());
    let (token, rest) = after.split_at(length);
    let prefix = &target[..PREFIX.len() + length];
    // `/t/<token>` and `/t/<token>?query` mean the root.
    let rest = if rest.starts_with('/') { Cow::Borrowed(rest) } else { Cow::Owned(format!("/{rest}")) };
    Some(Capability { token, prefix, rest })
}

/// A request target as it may appear in a log: without its query, without the token of a capability path, on one
/// line (T33, T35).
///
/// It also catches what is no capability path but was meant as one: doubled or encoded slashes, another case, a
/// segment that looks like a token. To redact too much is a nuisance, too little a leak.
#[must_use]
pub fn redact(target: &str) -> Cow<'_, str> {
    let (path, has_query) = target.split_once('?').map_or((target, false), |(path, _)| (path, true));
    if !has_query && is_ordinary(path) {
        return Cow::Borrowed(path);
    }
    let mut log = String::with_capacity(path.len());
    let mut token_follows = false;
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            log.push('/');
        }
        let (names_a_token, blank) = read(segment);
        if segment.contains(TOKEN_START) || (token_follows && !blank) || (names_a_token && segment.len() > 3) {
            log.push_str(REDACTED);
        } else {
            log.extend(segment.chars().flat_map(char::escape_debug));
        }
        token_follows = names_a_token || (token_follows && blank);
    }
    if has_query {
        log.push_str("?…");
    }
    Cow::Owned(log)
}

/// Whether a path can be logged as it is: the common case, found without a copy.
fn is_ordinary(path: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'%' | b'\\' | b'"' | b'\'');
    // `Iterator::all` would look at one byte at a time.
    path.bytes().fold(true, |all, b| all & is_plain(b))
        && !path.contains(TOKEN_START)
        && !path.split('/').any(|segment| segment.eq_ignore_ascii_case("t"))
}

/// How a careless program would read a segment, decoded and with slashes in it: whether it is, or holds, the `t` that a
/// token follows, and whether it is nothing but dot segments, which do not change what follows.
fn read(segment: &str) -> (bool, bool) {
    let decoded: Cow<'_, [u8]> = percent_decode_str(segment).into();
    let (mut names_a_token, mut blank) = (false, true);
    for part in decoded.split(|b| b"/\\".contains(b)) {
        names_a_token |= part.eq_ignore_ascii_case(b"t");
        blank &= matches!(part, b"" | b"." | b"..");
    }
    (names_a_token, blank)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(target: &str) -> Option<(&str, &str, String)> {
        split(target).map(|c| (c.token, c.prefix, c.rest.into_owned()))
    }

    #[test]
    fn a_path_is_taken_apart_byte_for_byte() {
        let expect = |token, prefix, rest: &str| Some((token, prefix, rest.to_owned()));
        assert_eq!(parts("/t/abc/api/chat"), expect("abc", "/t/abc", "/api/chat"));
        assert_eq!(parts("/t/abc/"), expect("abc", "/t/abc", "/"));
        assert_eq!(parts("/t/abc"), expect("abc", "/t/abc", "/"));
        assert_eq!(parts("/t/abc?x=/y"), expect("abc", "/t/abc", "/?x=/y"));
        assert_eq!(parts("/t/abc/?x"), expect("abc", "/t/abc", "/?x"));
        assert_eq!(
            parts("/t/a.b-c_/v1/models/x%2Fy//z?q=%2f"),
            expect("a.b-c_", "/t/a.b-c_", "/v1/models/x%2Fy//z?q=%2f")
        );
        assert_eq!(parts("/t/abc/t/def/x"), expect("abc", "/t/abc", "/t/def/x"));
        assert_eq!(parts("/t/"), expect("", "/t/", "/"));
        assert_eq!(parts("/t//x"), expect("", "/t/", "/x"));
        assert_eq!(parts("/t/?x"), expect("", "/t/", "/?x"));
    }

    #[test]
    fn other_paths_are_none() {
        for target in ["/", "/t", "/t?x", "/tt/abc", "/T/abc", "//t/abc", "/x/t/abc", "/%74/abc", "*", ""] {
            assert_eq!(split(target), None, "{target}");
        }
    }

    #[test]
    fn t33_tokens_do_not_reach_a_log() {
        assert_eq!(redact("/t/abc/api/chat"), "/t/[redacted]/api/chat");
        assert_eq!(redact("/t/abc?x=1"), "/t/[redacted]?…");
        assert_eq!(redact("/t/abc"), "/t/[redacted]");
        assert_eq!(redact("//t/abc/x"), "//t/[redacted]/x");
        assert_eq!(redact("/t//abc/x"), "/t//[redacted]/x");
        assert_eq!(redact("/t/./abc/x"), "/t/./[redacted]/x");
        assert_eq!(redact("/t/%2e/abc/x"), "/t/%2e/[redacted]/x");
        assert_eq!(redact("/t/%2f..%5C/abc/x"), "/t/%2f..%5C/[redacted]/x");
        assert_eq!(redact("/T/abc/x"), "/T/[redacted]/x");
        assert_eq!(redact("/x/t/abc/y"), "/x/t/[redacted]/y");
        assert_eq!(redact("/%74/abc/y"), "/%74/[redacted]/y");
        assert_eq!(redact("/t%2Fabc/y"), "/[redacted]/[redacted]");
        assert_eq!(redact("/%2ft%2fabc/y"), "/[redacted]/[redacted]");
        assert_eq!(redact("/t\\abc/y"), "/[redacted]/[redacted]");
        assert_eq!(redact("/tunnel/eyJhbGciOi.e30.x/y"), "/tunnel/[redacted]/y");
        assert_eq!(redact("/t/abc/t/def"), "/t/[redacted]/t/[redacted]");
        let debug = format!("{:?}", split("/t/abc/x").unwrap());
        assert!(!debug.contains("abc"), "{debug}");
    }

    #[test]
    fn t35_a_logged_path_is_one_plain_line() {
        assert_eq!(redact("/a\u{7f}\u{85}\"/b"), "/a\\u{7f}\\u{85}\\\"/b");
        assert_eq!(redact("/v1/models/org%2Fmodel:3b"), "/v1/models/org%2Fmodel:3b");
        assert_eq!(redact("/v1/models/é"), "/v1/models/é");
    }

    #[test]
    fn ordinary_paths_are_logged_as_they_are() {
        for target in ["/", "/api/chat", "/v1/models/llama3.2:3b", "*", "/api/tags/"] {
            assert!(matches!(redact(target), Cow::Borrowed(log) if log == target), "{target}");
        }
        assert_eq!(redact("/api/tags?key=abc"), "/api/tags?…");
    }

    proptest! {
        #[test]
        fn split_and_rest_make_the_target(token in "[!-~&&[^/?#]]{0,40}", rest in "(/[!-~&&[^#]]{0,30})?(\\?[!-~&&[^#]]{0,10})?") {
            let target = format!("/t/{token}{rest}");
            let capability = split(&target).unwrap();
            prop_assert_eq!(capability.token, &token);
            prop_assert_eq!(capability.prefix, format!("/t/{token}"));
            let slash = if rest.starts_with('/') { "" } else { "/" };
            prop_assert_eq!(capability.rest, format!("{slash}{rest}"));
        }

        /// Whatever stands around it, and however the prefix is spelled.
        #[test]
        fn t33_redaction_never_leaks_the_token(
            before in "(/[a-z.%]{0,4}){0,3}",
            prefix in "(/|//|%2f|/\\./)([tT]|%74|%54)(/|//|%2F|/\\.\\./|\\\\)",
            token in "[A-Za-z0-9_.%-]{16,40}",
            after in "([/?%][!-~]{0,20})?",
        ) {
            let target = format!("{before}{prefix}{token}{after}");
            prop_assert!(!redact(&target).contains(&token), "{}", redact(&target));
        }

        #[test]
        fn t33_what_split_takes_for_a_token_is_not_logged(token in "[!-~&&[^/?#]]{12,40}", rest in "(/[a-z]{0,9})?") {
            let target = format!("/t/{token}{rest}");
            prop_assert!(!redact(&target).contains(&token));
        }

        #[test]
        fn t35_no_control_character_is_logged(target in "\\PC{0,5}[\\x00-\\x1f\\x7f-\\u{9f}]\\PC{0,5}") {
            prop_assert!(!redact(&target).chars().any(char::is_control));
        }
    }
}
