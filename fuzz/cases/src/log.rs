//! Paths with a token in them, as they are taken apart and as they are logged.

use percent_encoding::percent_decode_str;
use tunneld::edge::capability::{redact, split};

use crate::input::Input;

/// Two tokens of the same shape as tokens have, and two that look like nothing.
const TOKENS: [[&str; 2]; 2] = [
    ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl", "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJib2IifQ.Y2FuYXJ5Y2Fu"],
    ["aaaaaaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbbbbbbbb"],
];

/// What stands before a token, in a line, and what stands after it.
///
/// The log of a path is the same whatever the token is, wherever a reader could find a token in that place: after a
/// `t` segment in any spelling. A JSON web token is seen anywhere (T33). No control character is logged (T35).
pub fn capability(data: &[u8]) {
    let mut input = Input::new(data);
    let (Some(before), Ok(after)) = (input.text(), str::from_utf8(input.rest())) else { return };
    for [one, other] in TOKENS {
        let targets = [one, other].map(|token| format!("{before}{token}{after}"));
        let logs = [redact(&targets[0]), redact(&targets[1])];
        for log in &logs {
            assert!(!log.chars().any(char::is_control), "{log:?}");
        }
        if one.starts_with("eyJ") || expects_a_token(before) {
            assert_eq!(logs[0], logs[1], "the log of {:?} depends on the token", targets[0]);
        }
        for (target, token) in targets.iter().zip([one, other]) {
            taken_apart(target, token, before == "/t/");
        }
    }
}

/// Whether a reader that decodes once, reads backslashes as slashes, ignores case and skips empty and dot segments
/// finds itself behind `/t/`.
fn expects_a_token(before: &str) -> bool {
    if before.contains('?') {
        return true; // a query is never logged
    }
    let decoded: Vec<u8> = percent_decode_str(before).collect();
    let decoded = String::from_utf8_lossy(&decoded).to_ascii_lowercase().replace('\\', "/");
    let Some((path, "")) = decoded.rsplit_once('/') else { return false };
    path.split('/').rfind(|segment| !matches!(*segment, "" | "." | "..")) == Some("t")
}

/// The parts of a capability path make up the path, and nothing of it is decoded.
fn taken_apart(target: &str, token: &str, exact: bool) {
    let Some(capability) = split(target) else {
        return assert!(!target.starts_with("/t/"), "{target} is a capability path");
    };
    assert_eq!(capability.prefix, format!("/t/{}", capability.token));
    assert!(!capability.token.contains(['/', '?']));
    let rest = target.strip_prefix(capability.prefix).expect("a prefix");
    assert_eq!(capability.rest.strip_prefix('/'), Some(rest.strip_prefix('/').unwrap_or(rest)));
    assert!(!exact || capability.token.starts_with(token), "{target}");
    assert!(!format!("{capability:?}").contains(token) || capability.rest.contains(token));
}
