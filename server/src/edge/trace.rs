//! W3C Trace Context: a caller's `traceparent` and `tracestate` cross to the upstream unchanged if they are well formed,
//! and not at all otherwise. Nothing is added: whoever starts a trace is outside.
//!
//! <https://www.w3.org/TR/trace-context/>

use std::fmt;

use http::{HeaderMap, HeaderName};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Members of a list (§3.3.1.1), and bytes of a whole one, which the specification leaves open.
const MEMBERS: usize = 32;
const STATE: usize = 2048;

/// The trace that a request is part of: 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceId([u8; 32]);

impl TraceId {
    pub(crate) fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("hexadecimal digits")
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Takes out what is malformed. A state without a parent means nothing (§3.3).
pub(crate) fn check(headers: &mut HeaderMap) -> Option<TraceId> {
    let mut parents = headers.get_all(&TRACEPARENT).iter();
    let trace = match (parents.next(), parents.next()) {
        (Some(parent), None) => trace_of(parent.as_bytes()),
        _ => None,
    };
    if trace.is_none() && headers.contains_key(&TRACEPARENT) {
        headers.remove(&TRACEPARENT);
    }
    if headers.contains_key(&TRACESTATE) && (trace.is_none() || !is_state(headers)) {
        headers.remove(&TRACESTATE);
    }
    trace
}

/// `version-trace-parent-flags` (§3.2.2). Later versions may go on behind another dash.
fn trace_of(parent: &[u8]) -> Option<TraceId> {
    let (known, more) = parent.split_at_checked(55)?;
    let (version, trace, span, flags) = (&known[..2], &known[3..35], &known[36..52], &known[53..]);
    let is_hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |part: &[u8]| part.iter().all(|b| *b == b'0');
    let is_whole = more.is_empty() || (version != b"00" && more[0] == b'-' && more.iter().all(u8::is_ascii_graphic));
    let is_good = [known[2], known[35], known[52]] == [b'-'; 3]
        && [version, trace, span, flags].into_iter().all(is_hex)
        && version != b"ff"
        && !is_zero(trace)
        && !is_zero(span)
        && is_whole;
    is_good.then(|| TraceId(trace.try_into().expect("32 digits")))
}

/// `key=value` members (§3.3.1), in one field or in several that make one list.
fn is_state(headers: &HeaderMap) -> bool {
    let fields = headers.get_all(&TRACESTATE);
    let length: usize = fields.iter().map(|field| field.len() + 1).sum();
    let members: Vec<&[u8]> = fields.iter().flat_map(|field| field.as_bytes().split(|b| *b == b',')).collect();
    let filled = members.iter().map(|member| member.trim_ascii()).filter(|member| !member.is_empty());
    length <= STATE && members.len() <= MEMBERS && filled.into_iter().all(is_member)
}

fn is_member(member: &[u8]) -> bool {
    let Some(equals) = member.iter().position(|b| *b == b'=') else { return false };
    let (key, value) = (&member[..equals], &member[equals + 1..]);
    let in_key = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let in_value = |b: &u8| matches!(b, b' '..=b'~') && !matches!(b, b',' | b'=');
    (1..=256).contains(&key.len())
        && key[0].is_ascii_alphanumeric()
        && key.iter().all(in_key)
        && (1..=256).contains(&value.len())
        && value.iter().all(in_value)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn checked(parents: &[&str], states: &[&str]) -> (Option<String>, usize, usize) {
        let mut headers = HeaderMap::new();
        for (name, values) in [(TRACEPARENT, parents), (TRACESTATE, states)] {
            for value in values {
                headers.append(&name, HeaderValue::from_str(value).unwrap());
            }
        }
        let trace = check(&mut headers).map(|trace| trace.to_string());
        (trace, headers.get_all(TRACEPARENT).iter().count(), headers.get_all(TRACESTATE).iter().count())
    }

    #[test]
    fn a_good_context_stays() {
        let kept = |parent: &str, states: &[&str]| checked(&[parent], states) == (Some(TRACE.into()), 1, states.len());
        assert!(kept(PARENT, &[]));
        assert!(kept(PARENT, &["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"]));
        assert!(kept(PARENT, &["a=1", " b@c=2 ,, d=x y"]));
        assert!(kept(&PARENT.replacen("00", "cc", 1), &[]));
        assert!(kept(&format!("{}-what-comes", PARENT.replacen("00", "01", 1)), &[]));
    }

    #[test]
    fn a_malformed_one_goes_and_its_state_with_it() {
        for bad in [
            "",
            "x",
            &PARENT[1..],
            &PARENT.to_uppercase(),
            &format!("{PARENT}-more"),
            &format!("{PARENT} "),
            &PARENT.replacen("00", "ff", 1),
            &PARENT.replacen('-', "_", 1),
            &PARENT.replace(TRACE, &"0".repeat(32)),
            &PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &format!("{}more", PARENT.replacen("00", "01", 1)),
            &PARENT.replace("01", "g1"),
        ] {
            assert_eq!(checked(&[bad], &["a=1"]), (None, 0, 0), "{bad}");
        }
        assert_eq!(checked(&[PARENT, PARENT], &["a=1"]), (None, 0, 0));
        assert_eq!(checked(&[], &["a=1"]), (None, 0, 0));
        assert_eq!(checked(&[], &[]), (None, 0, 0));
    }

    #[test]
    fn a_malformed_state_goes_alone() {
        let many = vec!["a=1"; 33].join(",");
        for bad in ["a", "A=1", "=1", "a=", "a=b=c", "a=\t", &many, &format!("a={}", "x".repeat(257))] {
            assert_eq!(checked(&[PARENT], &[bad]), (Some(TRACE.into()), 1, 0), "{bad}");
        }
    }
}
